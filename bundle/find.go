package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxEntries bounds what is listed of one inbox; a medium is hostile.
const maxEntries = 100_000

// folderPattern is the name of a bundle's folder. The last "-" separate.
var folderPattern = regexp.MustCompile(`^([a-z0-9][a-z0-9_-]{0,63})-([0-9]{6,16})-[0-9a-f]{16}$`)

// A Candidate is a bundle folder that was found, on one medium or several.
// Nothing of it is verified.
type Candidate struct {
	Name   string
	Stream string
	Seq    uint64
	Dirs   []string // for [Open]
}

// Find lists the bundle folders directly below the given folders, sorted by
// stream and sequence. Anything else there is left alone, leftovers of killed
// runs included; no symlink is followed. A folder that does not exist holds
// nothing.
func Find(dirs ...string) ([]Candidate, error) {
	byName := make(map[string]*Candidate)
	for _, dir := range dirs {
		names, err := listDirs(dir)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		for _, name := range names {
			stream, seq, ok := parseFolder(name)
			if !ok {
				continue
			}
			c := byName[name]
			if c == nil {
				c = &Candidate{Name: name, Stream: stream, Seq: seq}
				byName[name] = c
			}
			if path := filepath.Join(dir, name); !slices.Contains(c.Dirs, path) {
				c.Dirs = append(c.Dirs, path)
			}
		}
	}
	found := make([]Candidate, 0, len(byName))
	for _, c := range byName {
		found = append(found, *c)
	}
	slices.SortFunc(found, func(a, b Candidate) int {
		return cmp.Or(strings.Compare(a.Stream, b.Stream), cmp.Compare(a.Seq, b.Seq), strings.Compare(a.Name, b.Name))
	})
	return found, nil
}

func parseFolder(name string) (stream string, seq uint64, ok bool) {
	parts := folderPattern.FindStringSubmatch(name)
	if parts == nil {
		return "", 0, false
	}
	seq, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil || fmt.Sprintf("%06d", seq) != parts[2] {
		return "", 0, false
	}
	return parts[1], seq, true
}

func listDirs(dir string) (names []string, err error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for seen := 0; ; {
		entries, err := f.ReadDir(1024)
		if errors.Is(err, io.EOF) {
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		if seen += len(entries); seen > maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		for _, e := range entries {
			if e.IsDir() { // of the entry itself: false for a symlink
				names = append(names, e.Name())
			}
		}
	}
}
