package apt

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// sweep removes what no retained publication refers to: pool files, by-hash
// objects, whole suites, and the records that say so last. It touches only
// archives that a record names.
func (p *Publisher) sweep(all []*publication, now time.Time) error {
	kept, gone := expired(all, now)
	keep := make(map[string]bool)
	suites := make(map[string]bool)
	for _, pub := range kept {
		for _, f := range pub.Pool {
			keep[f.Path] = true
		}
		for _, s := range pub.Suites {
			suites[s.Path] = true
			for _, o := range s.Objects {
				keep[path.Join(s.Path, o)] = true
			}
		}
	}
	archives := make(map[string]bool)
	for _, pub := range all {
		for _, s := range pub.Suites {
			archive, _, _ := strings.Cut(s.Path, "/")
			archives[archive] = true
			if !suites[s.Path] {
				if err := p.dropSuite(s); err != nil {
					return err
				}
			}
		}
	}
	for _, archive := range slices.Sorted(mapKeys(archives)) {
		if err := p.sweepArchive(archive, keep); err != nil {
			return err
		}
	}
	for _, pub := range gone {
		if err := os.Remove(pub.file(p.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		failpoint.Here("apt.record-removed")
	}
	return durable.SyncDir(publicationsDir(p.dir))
}

// dropSuite takes a suite's files away, InRelease first; its by-hash objects go
// with the sweep.
func (p *Publisher) dropSuite(s publishedSuite) error {
	names := []string{"InRelease", "Release", "Release.gpg"}
	for _, o := range s.Objects {
		index := path.Dir(path.Dir(path.Dir(o))) // above by-hash/SHA256/DIGEST
		for _, ext := range []string{"", ".gz", ".xz"} {
			names = append(names, index+"/Packages"+ext)
		}
	}
	for _, name := range names {
		if err := os.Remove(p.inTree(s.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		failpoint.Here("apt.suite-dropped")
	}
	return nil
}

// sweepArchive walks an archive and removes pool files and by-hash objects
// that are not kept, leftovers of killed runs, and folders left empty.
func (p *Publisher) sweepArchive(archive string, keep map[string]bool) error {
	var folders []string
	root := p.inTree(archive)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			folders = append(folders, name)
			return nil
		}
		rel, err := filepath.Rel(p.Tree(), name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		ours := strings.HasSuffix(rel, ".deb") || path.Base(path.Dir(rel)) == "SHA256"
		if strings.HasPrefix(d.Name(), durable.TempPrefix) || ours && !keep[rel] {
			//nolint:gosec // the tree is the publisher's own; Remove follows no link
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			failpoint.Here("apt.swept")
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(folders) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !notEmpty(dir) {
			return err
		}
	}
	return nil
}

func notEmpty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && len(entries) > 0
}
