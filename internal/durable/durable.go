// Package durable writes files so that a reader or a crash sees the old
// content or the new content whole, and nothing between.
//
// Invariants: the temporary file lies in the folder of its target; it is
// fsynced before the rename, the folder after it; a name never refers to
// unfinished bytes.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// TempPrefix starts the name of every temporary file, so that a sweep can
// tell the leftovers of a killed run from everything else.
const TempPrefix = ".tmp-"

// WriteFile replaces name with data.
func WriteFile(name string, data []byte, perm os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), TempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	failpoint.Here("durable.created")
	if _, err = f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err = f.Chmod(perm); err != nil {
		return err
	}
	failpoint.Here("durable.written")
	if err = f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	failpoint.Here("durable.synced")
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	failpoint.Here("durable.renamed")
	if err := SyncDir(filepath.Dir(name)); err != nil {
		return err
	}
	return f.Close()
}

// SyncDir makes renames, links and removals in dir survive a power loss.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// Sweep removes temporary files that a killed run left directly in dir. The
// caller holds the lock that keeps other writers away.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), TempPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
