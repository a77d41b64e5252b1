// Package hubserver is the embedded model hub: an [http.Handler] that answers
// unmodified clients of the Hugging Face hub from what was imported.
//
// Specification: the hub's API, resolver and error headers, as its own clients
// use them (package hub has the words). docs/models.md says with which clients
// it was tried.
//
// Several sources are one namespace. A revision is answered from the first
// source that has it and that the client may read; a repository may have
// revisions in several.
//
// Invariants:
//   - Nothing is fetched from anywhere: what is not here is not found, in the
//     hub's own words, so that clients skip optional files.
//   - Bytes are served from [store.Store.File] alone, so never unverified. HEAD
//     sends the head of the very answer that GET gives, and reads nothing.
//   - A repository that a rule names is closed, in every one of its answers,
//     to all who do not hold a token of such a rule.
//   - No answer has a word of Xet, so that clients use plain HTTP.
//   - A request sees one state of all publications, which is in memory; text of
//     a request never becomes the name of a file.
//
// Limits: [maxPage] entries in an answer, [maxBody] bytes of a question,
// [maxMessage] of a text in a header, [maxCard] of a card that is looked into.
// The index has about 100 bytes a file beside its name.
package hubserver
