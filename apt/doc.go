// Package apt carries Debian and Ubuntu packages: it reads signed archives
// outside, takes a closed subset of them, proves the subset again inside and
// publishes it there as a signed archive of its own.
//
// Formats: the Debian repository format (Release, InRelease, Packages,
// by-hash), deb-control(5), deb(5), sources.list(5) and OpenPGP (RFC 4880,
// RFC 9580) as gpgv reads it.
//
// The parts: a [Source] reads an upstream, a [Publisher] verifies and
// publishes inside, [NewHandler] serves what is published, [Discover] reads
// the apt sources that a host already has.
//
// Invariants:
//   - Only text under a good signature by a key pinned for that archive is
//     parsed as a Release; only bytes that a Release names by SHA-256 are
//     parsed as an index; only stanzas of such an index select packages.
//   - Upstream's InRelease and Packages files travel unchanged, so that
//     [Publisher.Verify] can walk the same chain with keys pinned inside. The
//     key that signs inside is made there and never leaves.
//   - Every selected package can be installed from the published subset
//     alone, or the source is refused. The selection follows from the
//     configuration and the indices, never from a clock or map order.
//   - Published stanzas are upstream's bytes. A new publication has a later
//     Date, and its InRelease is renamed into place after everything that it
//     names.
//
// A source is the union of its archives: one closure over all their suites.
// Each configured architecture is a target of its own: a plain seed is closed
// over once for each, with packages of that architecture and of "all". In a
// snapshot an artifact is called by its package's name; packages of the second
// and further architectures are called "name:arch".
//
// Limits stand beside the code that holds them: the size of a Release, the
// length of a stanza, the number of its fields, the output of a decompressor,
// the members of a .deb, the steps of the search for a closure.
package apt
