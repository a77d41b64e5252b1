// Package models carries model weights and datasets: a [Source] reads a model
// hub, a folder or a cache of huggingface_hub outside, a [Publisher] publishes
// inside, for the embedded hub and into every further [Target].
//
// Specification: the hub's protocol in package hub; docs/models.md says what
// of a repository crosses and how.
//
// Invariants:
//   - A revision crosses as one commit with the exact list of its files, or
//     not at all. A branch that moved is another revision.
//   - Every byte is checked against the hub's tree: by SHA-256 for large
//     files, by git's blob id for all others. The inside checks it again.
//   - What a profile leaves out is written down, with its size and the reason.
//   - Clients see a revision when all of it is inside, never before.
//
// Limits: those of package hub; [maxRecord] bounds the record, [maxRevisions]
// the revisions of one source.
package models
