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
	"github.com/darkmirror/darkmirror/mirror/artifact"
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
		h, wrong := line.expects(e)
		if wrong == "" {
			if wrong, err = line.differs(z, e, h); err != nil {
				return nil, err
			}
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

// expects compares an entry with its line as far as the directory of the
// archive tells, and gives the hash that its content has to be compared by.
func (l *recorded) expects(e *strictzip.Entry) (h hash.Hash, wrong string) {
	if l.size >= 0 && l.size != e.Size {
		return nil, fmt.Sprintf("%d bytes, %d in RECORD", e.Size, l.size)
	}
	switch alg, _, _ := strings.Cut(l.hash, "="); alg {
	case "sha256":
		return sha256.New(), ""
	case "sha384":
		return sha512.New384(), ""
	case "sha512":
		return sha512.New(), ""
	case "":
		return nil, "no hash in RECORD"
	default:
		return nil, fmt.Sprintf("its hash in RECORD is %s; sha256 or better is demanded", clip(alg))
	}
}

// differs compares the content of an entry with its line.
func (l *recorded) differs(z *strictzip.Archive, e *strictzip.Entry, h hash.Hash) (wrong string, err error) {
	if _, err := io.Copy(h, z.Open(e)); err != nil {
		return "", err
	}
	_, want, _ := strings.Cut(l.hash, "=")
	if got := base64.RawURLEncoding.EncodeToString(h.Sum(nil)); got != strings.TrimRight(want, "=") {
		return fmt.Sprintf("hash %s, %s in RECORD", got, clip(want)), nil
	}
	return "", nil
}

// unlike lists the entries that RECORD contradicts, as far as the directory
// of the archive tells.
func unlike(z *strictzip.Archive, info string, lines map[string]*recorded) (wrong []string) {
	for i := range z.Entries {
		e := &z.Entries[i]
		line := lines[e.Name]
		if line == nil || e.Folder || unrecorded(e.Name, info) {
			continue
		}
		if _, why := line.expects(e); why != "" {
			note(&wrong, e.Name+": "+why)
		}
	}
	return wrong
}

func recordRefusal(subject string, wrong []string) error {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-RECORD", Subject: subject, Reason: "files differ from its RECORD: " + strings.Join(wrong, "; ")}
}

// recorded refuses a wheel that its RECORD contradicts. The hashes were compared
// outside, which reads all of the wheel; what the directory of the archive tells
// costs nothing, and is compared again.
func (p *Publisher) recorded(f *indexFile, c *Checked) error {
	if len(c.unlike) == 0 {
		return nil
	}
	project, _, err := packaging.ParseDistName(f.Filename)
	if err != nil || matches(p.anyRecord, project) {
		return err
	}
	return recordRefusal(p.name+": "+f.Filename, c.unlike)
}

// readRecord reads RECORD strictly. A path that leaves the wheel is refused:
// an uninstaller deletes what RECORD names. So is one that is there twice, as
// the entries of the archive are compared: which line counts would be up to
// whoever reads it. The very same line again is none.
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
		if old := lines[name]; old != nil && *old == *l {
			continue
		}
		key := strings.ToLower(name)
		if folded[key] {
			return nil, fmt.Errorf("line %d: %q is there twice, perhaps in other letter case", n, clip(name))
		}
		lines[name], folded[key] = l, true
	}
}
