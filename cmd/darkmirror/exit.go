package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/carry"
	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/linkend"
	"github.com/darkmirror/darkmirror/diode/oneway"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/pypi"
	"github.com/darkmirror/darkmirror/scan"
)

// An exitClass is one row of the exit-code table, the only place where codes
// are known. Scripts are told to treat any other code as a failure.
type exitClass struct {
	code    int
	name    string // in JSON
	meaning string
	is      func(error) bool
}

var (
	exitOK          = exitClass{0, "ok", "done", nil}
	exitOther       = exitClass{1, "error", "other failure", nil}
	exitUsage       = exitClass{2, "config", "usage or configuration", isUsage}
	exitPartial     = exitClass{3, "partial", "done, some items missing", isA[*mirror.PartialError]}
	exitPolicy      = exitClass{4, "policy", "held back by scan policy, or a scanner is not ready", isPolicy}
	exitIntegrity   = exitClass{5, "integrity", "integrity or signature refused", isClass(artifact.ErrIntegrity, diode.ErrDigest)}
	exitSequence    = exitClass{6, "sequence", "sequence: gap, replay, expired", isClass(artifact.ErrSequence)}
	exitUnreachable = exitClass{7, "unreachable", "upstream or target unreachable", isUnreachable}
	exitLocked      = exitClass{8, "locked", "another run holds the lock", isClass(ledger.ErrLocked, diode.ErrLocked)}
	exitSpace       = exitClass{9, "space", "not enough space", isSpace}
	exitChanges     = exitClass{10, "changes", "changes present (plan --exit-code only)", isClass(errChanges)}
	exitInterrupted = exitClass{130, "interrupted", "interrupted", isClass(context.Canceled)}
)

// exitTable is in the order of the codes, for the help text.
func exitTable() []exitClass {
	return []exitClass{
		exitOK, exitOther, exitUsage, exitPartial, exitPolicy, exitIntegrity, exitSequence,
		exitUnreachable, exitLocked, exitSpace, exitChanges, exitInterrupted,
	}
}

// exitOrder is the order of asking. A partial run wraps the errors of its
// items: integrity is asked first, then what stopped the run, then sequence,
// policy and partial, then the rest.
func exitOrder() []exitClass {
	return []exitClass{
		exitIntegrity, exitInterrupted, exitUsage, exitLocked, exitSpace, exitSequence,
		exitPolicy, exitPartial, exitUnreachable, exitChanges,
	}
}

// errChanges is no failure: plan --exit-code found changes.
var errChanges = errors.New("changes present")

// A usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, a ...any) error { return &usageError{fmt.Errorf(format, a...)} }

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

func isClass(classes ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(classes, func(class error) bool { return errors.Is(err, class) })
	}
}

// isUnreachable: an upstream or target, or the other end of the link.
func isUnreachable(err error) bool {
	return errors.Is(err, artifact.ErrUnavailable) || isA[*linkend.NeighbourError](err)
}

func isUsage(err error) bool {
	return isA[*usageError](err) || isA[config.Problems](err) || errors.Is(err, fetch.ErrHost) || errors.Is(err, pypi.ErrLock) ||
		errors.Is(err, diode.ErrConfig) || errors.Is(err, bundle.ErrNoIdentity) || errors.Is(err, oneway.ErrNotSealed)
}

// isPolicy: something is held back, or an engine could not judge.
func isPolicy(err error) bool {
	return isA[*scan.BlockedError](err) || errors.Is(err, scan.ErrEngine)
}

func isSpace(err error) bool {
	// The SpaceErrors of mirror and store match ENOSPC too.
	return errors.Is(err, diode.ErrSpace) || isA[*carry.RoomError](err) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// classify gives the row of an error.
func classify(err error) exitClass {
	if err == nil {
		return exitOK
	}
	for _, c := range exitOrder() {
		if c.is(err) {
			return c
		}
	}
	return exitOther
}

// leaves splits joined errors; each keeps the words that were wrapped around
// it below the join.
func leaves(err error) []error {
	if err == nil {
		return nil
	}
	if multi, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range multi.Unwrap() {
			all = append(all, leaves(e)...)
		}
		return all
	}
	return []error{err}
}

// printError prints an error for people: one block for each thing that was
// refused or failed, and the hints last, each once.
func printError(w io.Writer, err error, aftermath string) {
	if errors.Is(err, errChanges) {
		return
	}
	var hints []string
	security := false
	for _, e := range leaves(err) {
		if errors.Is(e, context.Canceled) {
			continue
		}
		if r, ok := errors.AsType[*artifact.Refusal](e); ok && errors.Is(e, artifact.ErrIntegrity) {
			security = true
			fmt.Fprintf(w, "SECURITY: %s\n", clean(around(e, r)))
			if r.Want != "" {
				fmt.Fprintf(w, "  want %s\n", clean(r.Want))
			}
			if r.Got != "" {
				fmt.Fprintf(w, "  got  %s\n", clean(r.Got))
			}
			if r.Err != nil {
				fmt.Fprintf(w, "  %s\n", clean(r.Err.Error()))
			}
		} else if p, ok := errors.AsType[config.Problems](e); ok {
			fmt.Fprintln(w, strings.TrimRight(clean(p.Error()), "\n"))
		} else {
			fmt.Fprintf(w, "error: %s\n", indent(clean(friendly(e))))
		}
		if h := hint(e); h != "" {
			hints = appendNew(hints, h)
		}
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(w, "error: interrupted; running it again resumes")
	}
	if security && aftermath != "" {
		fmt.Fprintln(w, aftermath)
	}
	for _, h := range hints {
		fmt.Fprintf(w, "hint: %s\n", strings.ReplaceAll(h, "\n", "\n      "))
	}
}

// around is the refusal's own words with what was wrapped around it, without
// the want and got that are printed below.
func around(e error, r *artifact.Refusal) string {
	short := *r
	short.Want, short.Got, short.Err = "", "", nil
	return once(strings.Replace(e.Error(), r.Error(), short.Error(), 1))
}

func friendly(e error) string {
	if s, ok := errors.AsType[*mirror.SpaceError](e); ok {
		return fmt.Sprintf("%s has %s free, %s are needed; nothing was fetched or written", s.Dir, size(s.Free), size(s.Needed))
	}
	if isA[*usageError](e) {
		text, _ := usageHint(e)
		return once(text)
	}
	return once(e.Error())
}

// usageHint takes the last line of a mistake on the command line, which says
// what to do, from its text.
func usageHint(err error) (text, hint string) {
	text = strings.TrimRight(err.Error(), "\n")
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		return strings.TrimRight(text[:i], "\n"), text[i+1:]
	}
	return text, ""
}

// once drops a source where it is named again: every layer names it.
func once(s string) string {
	source, rest, ok := strings.Cut(s, ": ")
	if !ok || artifact.CheckSource(source) != nil {
		return s
	}
	return source + ": " + strings.ReplaceAll(strings.TrimPrefix(rest, source+": "), ": "+source+": ", ": ")
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// hint says what to do next about an error, with a command or a configuration
// key that can be pasted; empty where there is nothing better than the error.
func hint(err error) string {
	if h, ok := errors.AsType[*fetch.HostError](err); ok {
		source := h.Source
		if source == "" {
			source = "the source"
		}
		return fmt.Sprintf("add %s to %s.allow_hosts if you trust it", clean(h.Host), strings.ReplaceAll(clean(source), "/", "."))
	}
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		if h, ok := codeHint(r.Code); ok {
			return h
		}
	}
	if n, ok := errors.AsType[*linkend.NeighbourError](err); ok {
		return n.Hint + "\nor set link.blind, where the link needs no neighbour entry"
	}
	if r, ok := errors.AsType[*carry.RoomError](err); ok {
		return fmt.Sprintf("insert another medium and run it again with --to; what lies there stays good: %d volumes remain", len(r.Volumes))
	}
	switch {
	case errors.Is(err, oneway.ErrNotSealed):
		return "link.block sets what can be set, as root; link.unproven goes on without the proof"
	case errors.Is(err, oneway.ErrSent):
		return "find out what sent: ip -s link and ss -tuap show it; link.block lets nothing out, and no other program may use the interface"
	case errors.Is(err, diode.ErrIncomplete):
		return "outside, run darkmirror send again, with --ticket or --volume if little is missing; what arrived is kept"
	case isA[*usageError](err):
		_, h := usageHint(err)
		return h
	case isA[*scan.BlockedError](err):
		return "darkmirror report BUNDLE shows why; scan of the configuration decides, waivers go into scan.waivers"
	case errors.Is(err, scan.ErrEngine):
		return "mend what the error names, then run it again; what was judged so far is kept"
	case errors.Is(err, ledger.ErrLocked):
		return "wait for the other run to end; darkmirror status shows the last one"
	case isSpace(err):
		return "free some space, or move state_dir or outbox to a larger file system"
	case errors.Is(err, artifact.ErrUnavailable):
		return "check the network and the address in the configuration, then run it again; finished downloads are kept"
	case isA[*mirror.ItemError](err):
		return "mend what the error names, then run the command again; what is done stays done"
	}
	return ""
}

// codeHint is the advice for a stable refusal code.
func codeHint(code string) (string, bool) {
	for _, h := range []struct{ prefix, text string }{
		{"ERR_SIG", "outside: darkmirror key show; inside: darkmirror key trust FILE, if the key is the exporter's"},
		{"ERR_THRESHOLD", "outside: each further exporter runs darkmirror approve BUNDLE --as exporter --key FILE; carry bundle.dsse.json again"},
		{"ERR_APPROVAL", "outside: read darkmirror report BUNDLE, then darkmirror approve BUNDLE --key FILE; carry bundle.dsse.json again"},
		{"ERR_KEY", "outside: darkmirror key show; inside: darkmirror key trust FILE, if the key is the exporter's"},
		{"ERR_RECOVERY_FORMAT", "carry the folder recovery/ of the bundle again"},
		{"ERR_RECOVERY", "bring another copy of what is named, or further recovery files, and name that medium too"},
		{"ERR_FORMAT", "carry the bundle again; if it fails again, export a new one"},
		{"ERR_VOLUMES", "carry volumes.json of the bundle again"},
		{"ERR_VOLUME", "carry the named volumes again, then run the command again; what arrived whole is kept"},
		{"ERR_SEGMENT", "carry the named volumes again, then run the command again; what arrived whole is kept"},
		{"ERR_BLOB", "carry the bundle again; if it fails again, export a new one"},
		{"ERR_GAP", "carry the missing bundles and import them first. If they are lost: outside, darkmirror mark-lost NUMBER and\ndarkmirror export; inside, darkmirror import --accept-gap"},
		{"ERR_REQUIRES", "carry the bundles that are named, then run darkmirror import again; if they are lost: outside, darkmirror\nmark-lost NUMBER, then darkmirror export"},
		{"ERR_EXPIRED", "outside: darkmirror mark-lost NUMBER, then darkmirror export; inside: darkmirror import --accept-gap"},
		{"ERR_FUTURE", "set the clock here; if it is right, the clock outside is wrong"},
		{"ERR_REPLAY", "nothing to do if the bundle is old; darkmirror status shows what was imported"},
		{"ERR_ROOT", "darkmirror key root show prints the pinned root; darkmirror key root pin FILE takes each later one, in order"},
		{"ERR_DECRYPT", "name the recipient's identity file in identity of the inside; outside, recipients says for whom it was encrypted"},
		{"ERR_RECEIPT", "make the receipt again inside, with darkmirror receipt, and carry it again; if it fails again, ask who signed it"},
		{"ERR_LOG", "the log was changed or cut: keep what is there, compare its checkpoint with the copy of the other side, and find out by whom"},
		{"ERR_STREAM", "the bundle is of another stream: put it into the inbox of the importer that follows that stream"},
		{"ERR_VERSION", "take a newer darkmirror here: the bundle says which level it needs"},
		{"ERR_SNAPSHOT", "carry the bundle again; if it fails again, look at the exporter before you trust it again"},
		{"ERR_UNCOVERED", "carry the bundle again from where it was made; what no signature covers was put there by somebody else"},
		{"ERR_FORK", "two bundles claim one place in the stream: find out who made the second before importing anything"},
		{"APT-EXPIRED", "the archive is stale or frozen: look at the mirror; check_valid_until: false for a snapshot that is old by design"},
		{"APT-SIGNATURE", "compare the fingerprints; a new key of the archive belongs into signed_by of this source"},
		{"APT-WEAK-HASH", "the archive offers no SHA256: use another mirror of it"},
		{"APT-ROLLBACK", "the mirror went back in time, or somebody replays an old state: compare with another mirror of the archive"},
		{"APT-PATH", "the archive is broken or hostile: tell its owner; nothing of it is taken meanwhile"},
		{"APT-CLOSURE", "add the archive or suite that has the missing package, or take the package off the list"},
		{"PYPI-LOCK-READ", "name the lock file in locks of this source"},
		{"PYPI-LOCK-CHOICE", "correct extras or groups of this file in the configuration"},
		{"PYPI-LOCK-VARIABLE", "write the value itself: whose environment it is taken from would change what is carried"},
		{"PYPI-LOCK-DYNAMIC", "name the requirements in a file of their own: they are known only to the project's build"},
		{"PYPI-LOCK-UNMAPPED", "name the address in a further --map"},
		{"PYPI-LOCK-PREFIX", "--map wants two addresses, https://OUTSIDE/PATH=https://INSIDE/PATH, no two of them in each other's way"},
		{"PYPI-LOCK-URL", "take the package from an index: what lies at an address has no index that vouches for it"},
		{"PYPI-LOCK-ENVIRONMENT", "lock again for this target, or give the file other targets"},
		{"PYPI-LOCK-PYTHON", "lock again for this target, or give the file other targets"},
		{"PYPI-LOCK-CATALOGUE", "correct the entry of catalogue, or name a target that the project serves"},
		{"PYPI-LOCK", "lock with hashes: uv pip compile --generate-hashes, pip-compile --generate-hashes, or pip lock"},
		{"PYPI-CONFLICT", "change a requirement that is named; allow_sdist_of, any_age and prereleases of the source lift a rule for one project"},
		{"PYPI-RESOLVE-LIMIT", "give the projects that the last conflict names narrower versions, or a constraints file"},
		{"PYPI-PROVENANCE-MISSING", "attestations.require of the source asks for them; leave the project out of it, or take a version that has them"},
		{"PYPI-PROVENANCE-ROOT", "name Sigstore's trusted_root.json in attestations.trusted_root"},
		{"PYPI-PROVENANCE", "do not take the file: ask its project who published it; without attestations in the configuration nobody asks"},
		{"PYPI-RECORD", "the wheel was changed after it was built: ask its project; any_record of the source takes it all the same"},
		{"PYPI-METADATA", "the index is broken or hostile: tell its owner; nothing of it is taken meanwhile"},
		{"PYPI-PAGE-LIMIT", "the index is broken or hostile; if the project really is that large, raise max_page of the source"},
		{"PYPI-FILENAME", "the index is broken or hostile: tell its owner; nothing of it is taken meanwhile"},
		{"PYPI-HASH-MISMATCH", "somebody has exchanged a file, or the lock is old: lock again only when you know which"},
		{"PYPI-SIZE-MISMATCH", "somebody has exchanged a file, or the lock is old: lock again only when you know which"},
		{"PYPI-FILE-CHANGED", "no index uses a file's name again: find out who exchanged it before you take or carry anything further of this source"},
		{"PYPI-PAGE", "the index is broken or hostile: tell its owner; nothing of it is taken meanwhile"},
		{"PYPI-DUPLICATE", "the index is broken or hostile: tell its owner; nothing of it is taken meanwhile"},
		{"PYPI-API-VERSION", "the index speaks a newer form of its API: take a newer darkmirror, or another index of this project (pinned)"},
		{"PYPI-NO-FILE", "take another version or target; allow_sdist_of of the source lets a project's source archives count"},
		{"PYPI-NO-HASH", "missing_hash: first-use of the source or of the pinned index takes such a file, and holds its hash from then on"},
		{"PYPI-NO-SIZE", "its server hides the length of files: take another index of this project (pinned)"},
		{"PYPI-NO-URL", "run darkmirror plan again: what is made while resolving is in the store of that host alone"},
		{"PYPI-WHEEL", "the file is broken or hostile: tell its project, and take another version meanwhile"},
		{"PYPI-SDIST", "the file is broken or hostile: tell its project, and take another version meanwhile"},
		{"PYPI-INDEX", "carry the bundle again; if it fails again, look at the exporter before you trust it again"},
		{"PYPI-TREE-FOREIGN", "name a folder of its own in tree of this source, a new one or an empty one"},
		{"PYPI-TREE-LOCKED", "wait for the other run to end: one writes a tree at a time"},
		{"PYPI-TARGET-LOGIN", "correct user and password_file of upload; the file holds the password or token and nothing else"},
		{"PYPI-TARGET-OTHER", "find out who uploaded the other file; take it off the target, or let clients use this index instead"},
		{"PYPI-TARGET-YANKED", "let clients use this index, which marks it; allow_yanked: true of upload sends it unmarked"},
		{"PYPI-TARGET-WITHHELD", "delete the file there: for DevPI, devpi remove -y -f --index USER/INDEX PROJECT==VERSION; then run the import again"},
		{"PYPI-TARGET", "look at the target's log; what it has taken stays, and the next import goes on from there"},
		{"PYPI-DEVPI-LOGIN", "correct user and password_file of devpi; the file holds the password and nothing else"},
		{"PYPI-DEVPI-INDEX", "make the index as docs/devpi.md says, or set create: true"},
		{"PYPI-DEVPI-DIFFERS", "somebody else writes to this index: give darkmirror an index of its own"},
		{"PYPI-DEVPI", "DevPI would damage it: let DevPI mirror this index instead (mirror_of), see docs/devpi.md"},
		{"PYPI-INTERNAL", "take the project out of the lock, or its name out of internal"},
		{"PYPI-QUARANTINED", "find out why before anybody goes on using it; take it out of the lock, or wait until the index releases it"},
		{"PYPI-NOT-FOUND", "correct the name in the lock, or the index of this source"},
		{"STORE-DIGEST", "compare with another mirror before you lock again; run it again if this one is being updated"},
		{"FETCH-SIZE", "compare with another mirror before you lock again; run it again if this one is being updated"},
		{"OCI-PLATFORM-PIN", "carry all platforms, or set allow_rewrite: true and have the result signed inside"},
		{"OCI-PLATFORM", "correct platforms of this source; the error names what the image has"},
		{"OCI-FOREIGN", "foreign_layers: fetch gets them from where they are, skip leaves them out"},
		{"OCI-EMPTY", "correct the selection; optional: true lets it find nothing"},
		{"OCI-MISSING", "correct the name or the tag in images of this source; the registry may have lost a part of the image"},
		{"OCI-SCHEMA1", "have the image built anew by its owner, or take it off the list"},
		{"OCI-MANIFEST", "the image cannot be taken as it is: tell its owner, or take it off the list"},
		{"OCI-LIMIT", "the image cannot be taken as it is: tell its owner, or take it off the list"},
		{"OCI-LAYOUT", "name a folder that is an OCI image layout, or a file that docker save has made, in layout or archive of this source"},
		{"OCI-LINK", "the registry is broken or hostile: tell its owner; nothing of it is taken meanwhile"},
		{"OCI-AUTH", "look at user and password_file, or docker_config, of this source, and at what the account may do"},
		{"OCI-RATE-LIMIT", "run it again later; what was fetched is kept. A login raises most limits; max_wait lets a run wait longer"},
		{"OCI-UPLOAD", "look at the registry's log and disk, then run it again; what it has is kept"},
		{"OCI-TAG-IMMUTABLE", "the image is there by digest; let the tag move in the registry, or set tags: digest-only, then run it again"},
		{"OCI-TAG", "the image is there by digest; tags: move lets its tag follow upstream"},
		{"OCI-DAMAGED", "delete the blob in the target, then run it again: it is sent anew"},
		{"OCI-NAMES", "set host of one source outside, or paths: full inside"},
		{"OCI-DIGEST", "somebody has exchanged bytes, or the registry is damaged: compare with another copy before you go on"},
		{"OCI-SIZE", "somebody has exchanged bytes, or the registry is damaged: compare with another copy before you go on"},
		{"OCI-RECORD", "carry the bundle again; if it fails again, look at the exporter before you trust it again"},
		{"OCI-INCOMPLETE", "carry the bundle again; if it fails again, look at the exporter before you trust it again"},
		{"HELM-", "the chart is broken or hostile: tell its owner, or take it off the list"},
		{"HARBOR-LOGIN", "look at user and password_file; a robot account's name begins with robot$"},
		{"HARBOR-NONE", "harbor: wants the address of a Harbor and one project, as https://harbor.example/platform"},
		{"HARBOR-PROJECT", "make the project, or give the robot account the right to; docs/harbor.md has the rights it needs"},
		{"HARBOR-FORBIDDEN", "docs/harbor.md has the rights that the robot account needs"},
		{"HARBOR-QUOTA", "raise the project's quota in Harbor, or delete there what nobody needs, then run it again"},
		{"HARBOR-READ-ONLY", "an administrator ends the read-only mode in Harbor; then run it again"},
		{"HARBOR-IMMUTABLE", "the image is there by digest; let the tag move in Harbor, or set tags: digest-only, then run it again"},
		{"HARBOR-", "look for the request's id in Harbor's log"},
		{"STATUS-ALARM", "carry the newest bundles from outside; darkmirror status there shows them"},
		{"STORE-DAMAGED", "the damaged file is in quarantine; run the command again to fetch it anew, and check the disk"},
	} {
		if strings.HasPrefix(code, h.prefix) {
			return h.text, true
		}
	}
	return "", false
}

// clean makes text from outside safe for a terminal: control characters are
// shown as escapes, line breaks are kept.
func clean(s string) string {
	safe := func(r rune) bool { return r == '\n' || r >= 0x20 && r != 0x7f && (r < 0x80 || r > 0x9f) }
	if strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if safe(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\x%02x", r)
		}
	}
	return b.String()
}

// indent sets the second and later lines of a message below the first.
func indent(s string) string {
	return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ")
}
