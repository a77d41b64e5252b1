// Package repo knows what a repository of weights is made of: which of its
// files a profile needs, which other repositories it refers to, what its
// licence is, and whether its weights are complete. It reads small documents
// of the repository and does no I/O of its own.
//
// Everything it reads is from outside: documents are bounded by [MaxDocument],
// and what cannot be read is reported, never guessed.
package repo
