// Package harbor speaks the part of Harbor's own API that publishing needs:
// projects and their quota, artifacts, labels, the rule for immutable tags,
// scans, the allowlist of vulnerabilities, robot accounts and scanners; and,
// in the other direction, it is a scanner adapter that shows darkmirror's
// verdicts in Harbor ([NewAdapter]). Images are pushed by package remote.
//
// Specifications: Harbor's API v2.0 (api/v2.0/swagger.yaml), as v2.15.2
// answers it, and its Pluggable Scanner API v1.1. docs/harbor.md is for
// operators.
//
// Invariants:
//   - The login goes to Harbor's own host and nowhere else; redirects are not
//     followed and cookies not kept. It enters no error and no note.
//   - Every error of a reply names Harbor's X-Request-Id, so that it can be
//     found in Harbor's log.
//   - Every call may be repeated: what is there already is no error.
//   - Nothing is taken away that somebody else may have put there.
//   - The adapter fails closed: what it knows no verdict for gets no report.
//
// Limits: [maxReply], [maxPages], [maxScanRequest].
package harbor
