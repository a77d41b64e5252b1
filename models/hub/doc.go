// Package hub knows the protocol of a model hub, that of the Hugging Face hub:
// how repositories, revisions and files are named, how a file is identified,
// and what the API's documents and headers say. A [Client] reads a hub
// outside; package hubserver answers inside with the same words.
//
// Specification: the hub's API as its own clients use it; docs/models.md has
// the facts and where they were seen. A file has one of two identities: the
// SHA-256 of its content where the hub keeps it as a large file (LFS), and the
// git blob id, a SHA-1 over a header and the content, for all others.
//
// Invariants:
//   - A revision is resolved to a commit once; after that only the commit is
//     asked for.
//   - What a file must be comes from the hub's tree, never from the server
//     that sends the file.
//   - The token goes to the hub's own host alone and enters no error and no
//     log.
//
// Limits: documents by [MaxDocument], a tree by [MaxEntries] and maxPages,
// files that are not LFS by [MaxGitFile].
package hub
