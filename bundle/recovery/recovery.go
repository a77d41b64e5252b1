// Package recovery makes recovery files for a bundle's folder and repairs with
// them what lies on scratched discs and rotten sticks, or is missing.
//
// Specification: docs/recovery-format.md, version 1. The erasure code is that
// of package fec.
//
// Invariants:
//   - Recovery files need no key and prove nothing. What was repaired is what
//     lay there when they were made; package bundle verifies it afterwards.
//   - A medium is only read. No block is given out that does not have its
//     digest, however often it was read before.
//   - A folder recovery/, or a bundle's folder in the output, is whole or is
//     not there.
//   - Same files, same options: same bytes.
//
// Limits are the constants of this package. The caller keeps other writers
// away from the folders.
package recovery

import (
	"errors"
	"fmt"
	"strings"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Names in a bundle's folder.
const (
	recoveryDir = "recovery"
	labelText   = "label.txt"
	labelPage   = "label.html"
	// tempDir starts the name of a folder that is being written.
	tempDir = durable.TempPrefix + "recovery-"
)

// Codes of refusals.
const (
	// CodeFormat: no usable index, or indices of different makings.
	CodeFormat = "ERR_RECOVERY_FORMAT"
	// CodeRecovery: more is damaged than there is parity for.
	CodeRecovery = "ERR_RECOVERY"
)

// dirMode and fileMode let everybody read: who reads inside has other ids.
const (
	dirMode  = 0o755
	fileMode = 0o644
)

// maxRanges bounds the ranges of one file that are named.
const maxRanges = 8

// Options are the choices of [Create].
type Options struct {
	// Percent is how many blocks of parity there are for each 100 of data, 1
	// to 100; 0 only with Volumes.
	Percent int
	// Volumes is how many whole volumes, or other files, may be missing, each
	// of the size of the largest.
	Volumes int
	// MaxFile is the size of the largest file that the medium takes; 0 is no
	// limit.
	MaxFile int64
	OnEvent func(artifact.Event)
}

// Made says what [Create] has made, or found.
type Made struct {
	Files        int
	Bytes        int64 // of the files
	DataBlocks   int   // of a column
	ParityBlocks int   // of a column: so many of either kind may be lost
	Block        int64
	Survives     string // in plain words
}

// Damage is what is wrong with one file: none of the media holds it whole and
// right, or one of them holds a wrong copy.
type Damage struct {
	Path    string // below the bundle's folder
	Missing bool   // no medium has a file of that name
	// Blocks are those that no medium has right, Bytes their length and that
	// of wrong bytes outside blocks. Both are 0 where the media have all of it
	// between them.
	Blocks int64
	Bytes  int64
	// Ranges are the first few of them, as offsets: from, and up to.
	Ranges     [][2]int64
	Repairable bool
}

// State is what was found on the media.
type State struct {
	Name       string // of the bundle's folder
	Whole      bool   // nothing is damaged
	Damaged    []Damage
	Recovery   []Damage // of recovery files
	Repairable bool     // everything that is damaged
}

func refusal(code, subject, reason string, err error) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Subject: subject, Reason: reason, Err: err}
}

// maxNamed bounds the files that a refusal names.
const maxNamed = 20

// beyond refuses what cannot be repaired, by file and range.
func (s *State) beyond() error {
	var list []string
	more := 0
	for _, files := range [][]Damage{s.Damaged, s.Recovery} {
		for _, d := range files {
			switch {
			case d.Repairable:
			case len(list) == maxNamed:
				more++
			default:
				list = append(list, d.String())
			}
		}
	}
	if more > 0 {
		list = append(list, fmt.Sprintf("and %d more files", more))
	}
	return refusal(CodeRecovery, s.Name, "more is damaged than there is parity for; add other copies or further recovery files to the media: "+strings.Join(list, "; "), nil)
}

// String names the file and what is wrong with it.
func (d Damage) String() string {
	switch {
	case d.Missing:
		return fmt.Sprintf("%s is missing, %d bytes", d.Path, d.Bytes)
	case len(d.Ranges) == 0:
		return d.Path + " has a wrong copy"
	}
	list := make([]string, len(d.Ranges))
	for i, r := range d.Ranges {
		list[i] = fmt.Sprintf("%d-%d", r[0], r[1]-1)
	}
	if len(d.Ranges) == maxRanges {
		list = append(list, "...")
	}
	return fmt.Sprintf("%s: %d bytes, at %s", d.Path, d.Bytes, strings.Join(list, ", "))
}

// addRange adds bytes that are wrong, joined to the last range where they
// follow it.
func (d *Damage) addRange(from, to int64) {
	d.Bytes += to - from
	if n := len(d.Ranges); n > 0 && d.Ranges[n-1][1] == from {
		d.Ranges[n-1][1] = to
		return
	}
	if len(d.Ranges) < maxRanges {
		d.Ranges = append(d.Ranges, [2]int64{from, to})
	}
}

// check looks at what the caller asks for.
func (o *Options) check() error {
	switch {
	case o.Percent < 0 || o.Percent > 100:
		return fmt.Errorf("recovery: %d percent, want 1 to 100", o.Percent)
	case o.Volumes < 0:
		return fmt.Errorf("recovery: %d volumes, want 0 or more", o.Volumes)
	case o.Percent == 0 && o.Volumes == 0:
		return errors.New("recovery: neither percent nor volumes are given, want one of them")
	case o.MaxFile < 0:
		return fmt.Errorf("recovery: files of at most %d bytes, want 0 or more", o.MaxFile)
	}
	return nil
}
