// Package diode carries files over a link that never answers: a sender cuts
// them into datagrams with parity, a receiver puts them together again and
// repairs what was lost, or says exactly what is missing.
//
// Specification: docs/diode-format.md, version 1. The erasure code is in
// [github.com/darkmirror/darkmirror/diode/fec], the sockets in diode/link, the
// proof that a receiver sends nothing in diode/oneway.
//
// Invariants:
//   - A receiver never sends and waits for nothing but packets.
//   - A packet is looked at only after its tag was good. What does not fit is
//     counted and dropped: no packet is an error.
//   - Memory does not grow with objects, with their number, or with garbage.
//   - A bit of a bitmap is set after its bytes were written.
//   - A file gets its name only when its size and SHA-256 are right.
//   - Sender and receiver may be killed at any instruction; what was on disk
//     is not asked for again.
//
// Limits are the constants of this package, with their reasons;
// docs/diode-format.md lists them. The package imports nothing of darkmirror:
// it knows neither bundles nor what the files are.
package diode

import (
	"errors"
	"time"
)

const (
	headerSize  = 32
	tagSize     = 16
	controlSize = 512 // payload of a descriptor and of a heartbeat
	// Overhead is what a symbol's datagram carries beside the symbol.
	Overhead = headerSize + tagSize
	// maxPayload is a symbol in a frame of 9000 bytes.
	maxPayload = 8896
	// maxDatagram bounds what is read of a datagram.
	maxDatagram = headerSize + maxPayload + tagSize
	// maxColumns bounds the bitmap of a generation to 8 MiB. The widest
	// generation that a sender plans has a fifth of it.
	maxColumns = 1 << 18
	// maxSize bounds an object: 1 PiB.
	maxSize = 1 << 50
	// maxGenerations keeps a generation's number in 32 bits and the list of
	// complete ones small.
	maxGenerations = 1 << 24
)

// Times of docs/diode-format.md.
const (
	descriptorEvery = 100 * time.Millisecond
	heartbeatEvery  = time.Second
	warmUp          = 500 * time.Millisecond
	afterEnd        = 2 * time.Second
)

var (
	// ErrConfig reports settings that cannot work; the text names the field
	// and the possible range.
	ErrConfig = errors.New("configuration")
	// ErrIncomplete says that objects are not whole.
	ErrIncomplete = errors.New("incomplete")
	// ErrDigest says that bytes are not those that were announced.
	ErrDigest = errors.New("wrong digest")
	// ErrSpace says that there is not enough room.
	ErrSpace = errors.New("not enough space")
	// ErrLocked says that another receiver uses the inbox.
	ErrLocked = errors.New("locked by another receiver")
)
