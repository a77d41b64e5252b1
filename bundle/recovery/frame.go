package recovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// magic begins a frame: a name, a version, and line ends that a transfer as
// text would change.
const magic = "DMRSv1\r\n"

const (
	// frameSize is the length of a frame.
	frameSize = 64
	// checkSize is what is kept of the SHA-256 at a frame's end.
	checkSize = 8
)

// A frame begins and ends a recovery file: magic, number of the file, length
// and SHA-256 of the index, and a check of all this.
type frame struct {
	number int // from 1
	size   int64
	id     artifact.Digest
}

func (f frame) encode() []byte {
	b := make([]byte, 0, frameSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint64(b, uint64(f.number)) //nolint:gosec // from 1
	b = binary.BigEndian.AppendUint64(b, uint64(f.size))   //nolint:gosec // a length
	b = append(b, f.id[:]...)
	check := artifact.Sum(b)
	return append(b, check[:checkSize]...)
}

// parseFrame reads what encode wrote.
func parseFrame(b []byte) (frame, error) {
	if len(b) != frameSize || string(b[:len(magic)]) != magic {
		return frame{}, errors.New("no frame of a recovery file")
	}
	body, rest := b[:frameSize-checkSize], b[len(magic):]
	if check := artifact.Sum(body); string(check[:checkSize]) != string(b[len(body):]) {
		return frame{}, errors.New("a frame is damaged: its own check differs")
	}
	number, size := binary.BigEndian.Uint64(rest), binary.BigEndian.Uint64(rest[8:])
	if number < 1 || number > maxRows || size < lengthSize || size > maxIndex {
		return frame{}, fmt.Errorf("frame of file %d with an index of %d bytes, want file 1 to %d, index %d to %d", number, size, maxRows, lengthSize, maxIndex)
	}
	return frame{int(number), int64(size), artifact.Digest(rest[16:])}, nil
}

// namePattern is how recovery files are called.
var namePattern = regexp.MustCompile(`^recovery-([0-9]{5})\.rs$`)

// fileName names a recovery file, from 1.
func fileName(number int) string { return fmt.Sprintf("recovery-%05d.rs", number) }

// fileNumber takes the name apart.
func fileNumber(name string) (int, bool) {
	parts := namePattern.FindStringSubmatch(name)
	if parts == nil {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil && n >= 1 && n <= maxRows
}

// A set is an index with its bytes: what recovery files hold beside parity.
//
// A recovery file is frame, index, parity, index, frame. The parity is column
// after column, in each the file's rows.
type set struct {
	*index
	data []byte // of the index
	id   artifact.Digest
}

func newSet(ix *index, data []byte) *set {
	return &set{index: ix, data: data, id: artifact.Sum(data)}
}

// bodyAt is where the parity of a recovery file begins.
func (s *set) bodyAt() int64 { return frameSize + int64(len(s.data)) }

// bodyLen is the length of its parity.
func (s *set) bodyLen(file int) int64 { return int64(s.Rows[file]) * s.Columns * s.Block }

// start is what stands before the parity; end is what stands after it.
func (s *set) start(file int) []byte { return slices.Concat(s.frame(file), s.data) }
func (s *set) end(file int) []byte   { return slices.Concat(s.data, s.frame(file)) }

func (s *set) frame(file int) []byte {
	return frame{file + 1, int64(len(s.data)), s.id}.encode()
}

// targetCount is the number of files of both kinds: those of the bundle first.
func (s *set) targetCount() int { return len(s.Files) + len(s.Rows) }

// path names a target below the bundle's folder, and size is its length.
func (s *set) path(target int) string {
	if target < len(s.Files) {
		return s.Files[target].Path
	}
	return recoveryDir + "/" + fileName(target-len(s.Files)+1)
}

func (s *set) size(target int) int64 {
	if target < len(s.Files) {
		return s.Files[target].Size
	}
	return 2*s.bodyAt() + s.bodyLen(target-len(s.Files))
}

// unitCount is the number of a target's blocks. at finds them.
func (s *set) unitCount(target int) int64 {
	if target < len(s.Files) {
		return s.first[target+1] - s.first[target]
	}
	return int64(s.Rows[target-len(s.Files)]) * s.Columns
}

// at gives the nth block of a target, in the order in which they lie in it:
// its number, offset and length.
func (s *set) at(target int, n int64) (unit, off, size int64) {
	if target < len(s.Files) {
		off = n * s.Block
		return s.first[target] + n, off, min(s.Block, s.Files[target].Size-off)
	}
	file := target - len(s.Files)
	rows := int64(s.Rows[file])
	unit = s.blocks() + (s.firstRow(file)+n%rows)*s.Columns + n/rows
	return unit, s.bodyAt() + n*s.Block, s.Block
}

// firstRow is the number of a recovery file's first row of parity.
func (s *set) firstRow(file int) int64 {
	row := 0
	for _, n := range s.Rows[:file] {
		row += n
	}
	return int64(row)
}

// find is where a block lies: its target, offset and length.
func (s *set) find(unit int64) (target int, off, size int64) {
	if unit < s.blocks() {
		// The last file that begins at or before it; empty ones, which begin
		// there too, come before it.
		target, _ = slices.BinarySearch(s.first, unit+1)
		target--
		off = (unit - s.first[target]) * s.Block
		return target, off, min(s.Block, s.Files[target].Size-off)
	}
	row, column := (unit-s.blocks())/s.Columns, (unit-s.blocks())%s.Columns
	file, first := 0, int64(0)
	for row >= first+int64(s.Rows[file]) {
		first += int64(s.Rows[file])
		file++
	}
	n := column*int64(s.Rows[file]) + row - first
	return len(s.Files) + file, s.bodyAt() + n*s.Block, s.Block
}
