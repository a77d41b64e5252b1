package pypi

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictzip"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// mostDefects bounds the lines that a report on one RECORD names.
const mostDefects = 10

// A RecordReport is how a wheel's RECORD and its content differ.
type RecordReport struct {
	// Wrong are files that are not what RECORD says: somebody changed the
	// wheel after it was built.
	Wrong []string
	// Missing are files that RECORD does not list, or lists and are not there:
	// old build tools forgot some.
	Missing []string
}

// recorded is one line of RECORD.
type recorded struct {
	hash string // "sha256=..."; empty: none
	size int64  // -1: none
	seen bool
}

// CheckRecord reads every file of a wheel and compares it with RECORD (PEP
// 376 and 427). It expects an archive that [CheckWheel] has accepted.
func CheckRecord(filename string, r io.ReaderAt, size int64) (*RecordReport, error) {
	name, err := packaging.ParseWheelName(filename)
	if err != nil {
		return nil, err
	}
	z, err := strictzip.Open(r, size, strictzip.Options{})
	if err != nil {
		return nil, err
	}
	info, err := distInfo(z, name)
	if err != nil {
		return nil, err
	}
	lines, err := readRecord(z, info)
	if err != nil {
		return nil, fmt.Errorf("RECORD: %w", err)
	}
	var rep RecordReport
	for i := range z.Entries {
		e := &z.Entries[i]
		if e.Folder || unrecorded(e.Name, info) {
			continue
		}
		line := lines[e.Name]
		if line == nil {
			note(&rep.Missing, e.Name+" is not in RECORD")
			continue
		}
		line.seen = true
		wrong, err := line.differs(z, e)
		if err != nil {
			return nil, err
		}
		if wrong != "" {
			note(&rep.Wrong, e.Name+": "+wrong)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(lines)) {
		if !lines[at].seen && !unrecorded(at, info) {
			note(&rep.Missing, at+" is in RECORD and not in the wheel")
		}
	}
	return &rep, nil
}

func note(list *[]string, what string) {
	if len(*list) < mostDefects {
		*list = append(*list, clip(what))
	}
}

// unrecorded files cannot hold their own hash.
func unrecorded(name, info string) bool {
	return name == info+"/RECORD" || name == info+"/RECORD.jws" || name == info+"/RECORD.p7s"
}

// differs compares an entry with its line.
func (l *recorded) differs(z *strictzip.Archive, e *strictzip.Entry) (wrong string, err error) {
	if l.size >= 0 && l.size != e.Size {
		return fmt.Sprintf("%d bytes, %d in RECORD", e.Size, l.size), nil
	}
	alg, want, _ := strings.Cut(l.hash, "=")
	var h hash.Hash
	switch alg {
	case "sha256":
		h = sha256.New()
	case "sha384":
		h = sha512.New384()
	case "sha512":
		h = sha512.New()
	case "":
		return "no hash in RECORD", nil
	default:
		return fmt.Sprintf("its hash in RECORD is %s; sha256 or better is demanded", clip(alg)), nil
	}
	if _, err := io.Copy(h, z.Open(e)); err != nil {
		return "", err
	}
	if got := base64.RawURLEncoding.EncodeToString(h.Sum(nil)); got != strings.TrimRight(want, "=") {
		return fmt.Sprintf("hash %s, %s in RECORD", got, clip(want)), nil
	}
	return "", nil
}

// readRecord reads RECORD strictly. A path that leaves the wheel is refused:
// an uninstaller deletes what RECORD names. So is one that is there twice, as
// the entries of the archive are compared: which line counts would be up to
// whoever reads it.
func readRecord(z *strictzip.Archive, info string) (map[string]*recorded, error) {
	b, err := readNamed(z, info+"/RECORD", maxRecord)
	if err != nil {
		return nil, err
	}
	r := csv.NewReader(strings.NewReader(string(b)))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true
	lines, folded := make(map[string]*recorded), make(map[string]bool)
	for n := 1; ; n++ {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		if n > strictzip.MaxEntries {
			return nil, fmt.Errorf("over %d lines", strictzip.MaxEntries)
		}
		if len(row) != 3 {
			return nil, fmt.Errorf("line %d: %d fields, want 3", n, len(row))
		}
		if err := strictzip.CheckName(row[0]); err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", n, clip(row[0]), err)
		}
		l := &recorded{hash: strings.Clone(row[1]), size: -1}
		if row[2] != "" {
			if l.size, err = strconv.ParseInt(row[2], 10, 64); err != nil || l.size < 0 {
				return nil, fmt.Errorf("line %d: %q: size %q", n, clip(row[0]), clip(row[2]))
			}
		}
		name := strings.Clone(row[0])
		key := strings.ToLower(name)
		if folded[key] {
			return nil, fmt.Errorf("line %d: %q is there twice, perhaps in other letter case", n, clip(name))
		}
		lines[name], folded[key] = l, true
	}
}
