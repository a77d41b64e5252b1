// Package translog is an append-only Merkle log of what became of bundles:
// sealed outside; imported, withdrawn or lost inside. Whoever keeps a
// checkpoint of it, or prints one on paper, can tell later whether an entry was
// changed, removed or put in between, and can be given a proof for one entry
// without the others.
//
// Specification: docs/transparency-log.md. The tree is that of RFC 6962, 2.1;
// checkpoints are C2SP signed notes (tlog-checkpoint), proofs are C2SP
// tlog-proof.
//
// Invariants:
//   - A leaf is the one JSON line of its entry; an entry has one encoding.
//   - What is signed is an extension of what was signed before. Entries are on
//     the disk before their checkpoint is signed, and a checkpoint that was
//     signed is either finished or nobody has seen it.
//   - Nothing is returned that the signed root does not cover.
//   - One key signs a log for its whole life; see docs.
//
// Limits: those of the constants in this file. A log is read whole when it is
// opened; some 150 bytes of memory for each entry stay in use.
package translog

import (
	"errors"
	"io/fs"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// CodeLog refuses a log, a checkpoint or a proof; docs/transparency-log.md
// says what it means.
const CodeLog = "ERR_LOG"

// Files of a log.
const (
	entriesName    = "entries"    // JSON lines
	hashesName     = "hashes"     // 32 bytes each, in the order of tlog.StoredHashIndex
	checkpointName = "checkpoint" // signed note
)

const (
	// maxEntries bounds a log: a bundle each five minutes for ten years.
	maxEntries = 1 << 20
	// maxLine bounds an entry's line: its texts, each byte escaped.
	maxLine = 64 << 10
	// maxText bounds a detail; it is for people.
	maxText = 1024
	// maxName bounds the name of a key.
	maxName = 128
	// maxSigners is as many as an envelope may have.
	maxSigners = 64
	// maxSeq is the greatest integer that every JSON reader holds exactly.
	maxSeq = 1 << 53
	// maxCheckpoint bounds a note: ours has some 250 bytes, one that witnesses
	// have signed some more.
	maxCheckpoint = 64 << 10
	// maxProof is a checkpoint and the hashes of a path.
	maxProof = maxCheckpoint + 64<<7

	// As in bundles: the group reads, since another user may run the server.
	fileMode fs.FileMode = 0o640
	dirMode  fs.FileMode = 0o750
)

// errReadOnly reports a log that was opened without a key.
var errReadOnly = errors.New("transparency log: opened without a key, so nothing can be added")

// refusal is an integrity refusal.
func refusal(subject, reason string, err error) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeLog, Subject: subject, Reason: reason, Err: err}
}
