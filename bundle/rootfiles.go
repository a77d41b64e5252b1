package bundle

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// rootDir is the folder of root files.
const rootDir = "root"

const (
	// maxRootFiles bounds a chain of root files; a change of keys each week
	// for nineteen years.
	maxRootFiles = 1000
	// maxRootFile bounds one of them; a hundred keys have some 50 KiB.
	maxRootFile = 1 << 20
	// maxRootTotal bounds all of them: they are read into memory before any
	// signature is looked at.
	maxRootTotal = 64 << 20
	// rootExt ends their names.
	rootExt = ".root.json"
)

// rootNumber takes the name of a root file apart: N.root.json, N from 1 to
// 999999999.
func rootNumber(name string) (int, bool) {
	digits, ok := strings.CutSuffix(name, rootExt)
	if !ok || len(digits) > 9 {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n > 0 && strconv.Itoa(n) == digits
}

// rootDocuments checks root files and sorts them.
func rootDocuments(files map[string][]byte) ([]document, error) {
	if len(files) > maxRootFiles {
		return nil, fmt.Errorf("%d root files, at most %d are carried", len(files), maxRootFiles)
	}
	total := 0
	byNumber := func(a, b string) int {
		n, _ := rootNumber(a)
		m, _ := rootNumber(b)
		return cmp.Compare(n, m)
	}
	var docs []document
	for _, name := range slices.SortedFunc(maps.Keys(files), byNumber) {
		data := files[name]
		if _, ok := rootNumber(name); !ok {
			return nil, fmt.Errorf("root file %q: want a name such as 1%s", clip(name), rootExt)
		}
		if len(data) == 0 || len(data) > maxRootFile {
			return nil, fmt.Errorf("root file %s: %d bytes, want 1 to %d", name, len(data), maxRootFile)
		}
		if total += len(data); total > maxRootTotal {
			return nil, fmt.Errorf("root files of more than %d bytes", maxRootTotal)
		}
		docs = append(docs, document{path.Join(rootDir, name), data})
	}
	return docs, nil
}

// inRoot reports whether a document is a root file.
func (d document) inRoot() bool { return strings.HasPrefix(d.name, rootDir+"/") }

// RootFiles reads the root files of all media by name. Nothing of them is
// verified: each proves itself by its own signatures, and they may bring the
// keys that the bundle is signed with. Names that are not of root files are
// left alone; two files of one name that differ are refused.
func (r *Reader) RootFiles() (map[string][]byte, error) {
	files := make(map[string][]byte)
	total := 0
	for _, m := range r.media {
		if err := m.rootFiles(files, &total); err != nil {
			return nil, refusal(CodeFormat, filepath.Join(m.dir, rootDir), "the root files cannot be read", err)
		}
	}
	return files, nil
}

func (m *medium) rootFiles(files map[string][]byte, total *int) (err error) {
	dir, err := m.sub(rootDir)
	if err != nil || dir == nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	names, err := rootNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		data, err := readSmall(dir, name, maxRootFile)
		switch have, there := files[name]; {
		case err != nil:
			return err
		case len(data) == 0:
			return fmt.Errorf("%s is empty", name)
		case there && !bytes.Equal(have, data):
			return fmt.Errorf("%s is another than on another medium", name)
		case there:
			continue
		}
		if *total += len(data); *total > maxRootTotal || len(files) == maxRootFiles {
			return fmt.Errorf("more than %d files or %d bytes", maxRootFiles, maxRootTotal)
		}
		files[name] = data
	}
	return nil
}

// rootNames lists the root files of a folder, sorted.
func rootNames(dir *os.Root) (names []string, err error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for seen := 0; ; {
		entries, err := f.ReadDir(1024)
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
		if seen += len(entries); seen > maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		for _, e := range entries {
			if _, ok := rootNumber(e.Name()); ok {
				names = append(names, e.Name())
			}
		}
		if len(names) > maxRootFiles {
			return nil, fmt.Errorf("more than %d root files", maxRootFiles)
		}
	}
}
