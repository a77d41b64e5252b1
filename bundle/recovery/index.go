package recovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// schema names the JSON part of an index.
const schema = "darkmirror.recovery/v1"

const (
	// minBlock is what a medium's sector costs at least; maxBlock bounds the
	// memory of a column, of which two are at work.
	minBlock = 4 << 10
	maxBlock = 256 << 10
	// maxData leaves 56 of the code's 256 rows to parity.
	maxData = 200
	// maxRows is how many rows the code has.
	maxRows = 256
	// maxFiles bounds the files that are covered: 100 GB in the smallest
	// volumes.
	maxFiles = 100_000
	// maxBlocks bounds blocks of data and parity: 4 TiB. The digests, 16
	// bytes each, are held in memory.
	maxBlocks = 1 << 24
	// maxJSON bounds the JSON part: 100,000 paths of 300 bytes.
	maxJSON = 32 << 20
	// sumSize is what is kept of a SHA-256: it finds damage and proves
	// nothing.
	sumSize = 16
	// lengthSize is the length of the JSON part, which stands before it.
	lengthSize = 8
	// maxIndex follows from these.
	maxIndex = lengthSize + maxJSON + maxBlocks*sumSize
	// maxName leaves room for [tempDir] before a folder's name.
	maxName = 200
)

// A sum is the beginning of the SHA-256 of a block.
type sum [sumSize]byte

func sumOf(p []byte) sum {
	d := sha256.Sum256(p)
	return sum(d[:sumSize])
}

// An entry is a file that is covered.
type entry struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// An index describes a bundle's recovery files; all of them hold the same.
//
// Blocks of data are numbered through all files, each of which begins with a
// block of its own. Row r of the data is blocks r*Columns and on. Blocks of
// parity follow in the numbering, row by row.
type index struct {
	Schema  string  `json:"schema"`
	Bundle  string  `json:"bundle"`
	Block   int64   `json:"block"`
	Columns int64   `json:"columns"`
	Data    int     `json:"data"`
	Parity  int     `json:"parity"`
	Files   []entry `json:"files"`
	// Rows says how many rows of parity each recovery file holds, in order.
	Rows []int `json:"rows"`

	first []int64 // block of each file, and the number of all
	sums  []byte
}

// digestsLen is the length of the digests.
func (ix *index) digestsLen() int64 { return ix.units() * sumSize }

// units is the number of blocks of both kinds.
func (ix *index) units() int64 { return ix.blocks() + int64(ix.Parity)*ix.Columns }

// blocks is the number of blocks of data.
func (ix *index) blocks() int64 { return ix.first[len(ix.Files)] }

func (ix *index) sum(unit int64) sum { return sum(ix.sums[unit*sumSize:]) }

func (ix *index) setSum(unit int64, s sum) { copy(ix.sums[unit*sumSize:], s[:]) }

// column is where a block counts.
func (ix *index) column(unit int64) int64 {
	if n := ix.blocks(); unit >= n {
		unit -= n
	}
	return unit % ix.Columns
}

// unit is the number of a block in a row, data rows first; false where the row
// has none, which stands for zeros.
func (ix *index) unit(row int, column int64) (int64, bool) {
	if row < ix.Data {
		u := int64(row)*ix.Columns + column
		return u, u < ix.blocks()
	}
	return ix.blocks() + int64(row-ix.Data)*ix.Columns + column, true
}

// number counts the blocks of the files, which must be at most maxBlocks.
func (ix *index) number() error {
	ix.first = make([]int64, len(ix.Files)+1)
	for i, f := range ix.Files {
		n := f.Size/ix.Block + min(1, f.Size%ix.Block)
		if n > maxBlocks-ix.first[i] {
			return fmt.Errorf("more than %d blocks of %d bytes", maxBlocks, ix.Block)
		}
		ix.first[i+1] = ix.first[i] + n
	}
	return nil
}

// check holds the rules of the page. It sets what follows from the fields.
func (ix *index) check() error {
	if ix.Schema != schema {
		return fmt.Errorf("schema %q, want %q", clip(ix.Schema), schema)
	}
	if err := checkName(ix.Bundle); err != nil {
		return err
	}
	if ix.Block < minBlock || ix.Block > maxBlock || bits.OnesCount64(uint64(ix.Block)) != 1 {
		return fmt.Errorf("blocks of %d bytes, want a power of two from %d to %d", ix.Block, minBlock, maxBlock)
	}
	if err := checkFiles(ix.Files); err != nil {
		return err
	}
	if err := ix.number(); err != nil {
		return err
	}
	return ix.checkShape()
}

// checkShape holds the rules of rows and columns.
func (ix *index) checkShape() error {
	n := ix.blocks()
	if ix.Data < 1 || ix.Data > maxData || ix.Parity < 1 || ix.Parity > ix.Data || ix.Data+ix.Parity > maxRows {
		return fmt.Errorf("%d rows of data and %d of parity, want 1 to %d, at most as many, and %d in all", ix.Data, ix.Parity, maxData, maxRows)
	}
	if ix.Columns < 1 || ix.Columns > n || int64(ix.Data) != (n+ix.Columns-1)/ix.Columns {
		return fmt.Errorf("%d rows of %d columns do not fit %d blocks", ix.Data, ix.Columns, n)
	}
	if ix.units() > maxBlocks {
		return fmt.Errorf("%d blocks, at most %d are read", ix.units(), maxBlocks)
	}
	rows := 0
	for _, r := range ix.Rows {
		if r < 1 || r > ix.Parity-rows {
			return fmt.Errorf("files of %v rows, want %d in all", clipRows(ix.Rows), ix.Parity)
		}
		rows += r
	}
	if rows != ix.Parity {
		return fmt.Errorf("files of %v rows, want %d in all", clipRows(ix.Rows), ix.Parity)
	}
	return nil
}

// clipRows shortens a list from outside for an error message.
func clipRows(rows []int) []int { return rows[:min(len(rows), 10)] }

// checkName accepts the name of a bundle's folder.
func checkName(s string) error {
	if err := artifact.CheckPath(s); err != nil {
		return fmt.Errorf("name of the bundle's folder: %w", err)
	}
	if len(s) > maxName || strings.Contains(s, "/") || strings.HasPrefix(s, durable.TempPrefix) {
		return fmt.Errorf("name of the bundle's folder %q: want one folder's, at most %d bytes, not temporary", clip(s), maxName)
	}
	return nil
}

// checkFiles holds what makes the paths safe to create side by side on any
// file system, and sorted, so that there is one way to write them.
func checkFiles(files []entry) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files, at most %d are covered", len(files), maxFiles)
	}
	isFile := make(map[string]bool, len(files)) // false: a folder
	for i, f := range files {
		if i > 0 && f.Path <= files[i-1].Path {
			return fmt.Errorf("path %q is not sorted", clip(f.Path))
		}
		if err := artifact.CheckPath(f.Path); err != nil {
			return err
		}
		if !covered(f.Path) {
			return fmt.Errorf("path %q is not one that is covered", clip(f.Path))
		}
		if f.Size < 0 {
			return fmt.Errorf("path %q: %d bytes", clip(f.Path), f.Size)
		}
		lower := strings.ToLower(f.Path)
		if _, ok := isFile[lower]; ok {
			return fmt.Errorf("path %q is there twice", clip(f.Path))
		}
		isFile[lower] = true
		for dir := lower; strings.Contains(dir, "/"); {
			dir = dir[:strings.LastIndexByte(dir, '/')]
			if isFile[dir] {
				return fmt.Errorf("path %q is below a file", clip(f.Path))
			}
			isFile[dir] = false
		}
	}
	return nil
}

// covered reports whether recovery files cover a path of the bundle's folder.
// Labels say what lies on one medium, and differ.
func covered(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	if strings.EqualFold(first, recoveryDir) || strings.EqualFold(path, labelText) || strings.EqualFold(path, labelPage) {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, durable.TempPrefix) {
			return false
		}
	}
	return true
}

// head is the JSON part with its length.
func (ix *index) head() ([]byte, error) {
	text, err := json.Marshal(ix)
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	if len(text) > maxJSON {
		return nil, fmt.Errorf("the list of files takes %d bytes, at most %d are read", len(text), maxJSON)
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(text))), text...), nil
}

// encode gives the bytes of the index.
func (ix *index) encode() ([]byte, error) {
	head, err := ix.head()
	if err != nil {
		return nil, err
	}
	return slices.Concat(head, ix.sums), nil
}

// parseIndex reads what encode wrote, and nothing that says the same in
// another way. The caller bounds data by the size of its file.
func parseIndex(data []byte) (*index, error) {
	if len(data) < lengthSize || len(data) > maxIndex {
		return nil, fmt.Errorf("index of %d bytes, want %d to %d", len(data), lengthSize, maxIndex)
	}
	size := binary.BigEndian.Uint64(data)
	if size > maxJSON || size > uint64(len(data)-lengthSize) { //nolint:gosec // not negative here
		return nil, fmt.Errorf("JSON of %d bytes in an index of %d", size, len(data))
	}
	text := data[lengthSize : lengthSize+size]
	ix := new(index)
	if err := strictjson.Unmarshal(text, ix); err != nil {
		return nil, err
	}
	if err := ix.check(); err != nil {
		return nil, err
	}
	ix.sums = data[lengthSize+size:]
	if int64(len(ix.sums)) != ix.digestsLen() {
		return nil, fmt.Errorf("%d bytes of digests, want %d", len(ix.sums), ix.digestsLen())
	}
	again, err := json.Marshal(ix)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, text) {
		return nil, errors.New("the JSON is not in the one form that it has")
	}
	return ix, nil
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
