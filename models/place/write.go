package place

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// temp is a new name in the corner.
func temp() string { return Corner + "/" + durable.TempPrefix + rand.Text() }

// Mkdir makes a folder and its missing parents, each durable in its own. A
// link on the way is not followed.
func (p *Place) Mkdir(rel string) error {
	for i := range len(rel) + 1 {
		if i < len(rel) && rel[i] != '/' {
			continue
		}
		at := rel[:i]
		fi, err := p.root.Lstat(at)
		switch {
		case err == nil && fi.IsDir():
			continue
		case err == nil:
			return fmt.Errorf("%s is not a folder: %w", p.Path(at), unix.ENOTDIR)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if err := p.root.Mkdir(at, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		failpoint.Here("models.place-folder-made")
		if err := p.sync(path.Dir(at)); err != nil {
			return err
		}
	}
	return nil
}

// sync makes the names in a folder durable.
func (p *Place) sync(rel string) error {
	d, err := p.root.Open(rel)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Write makes the file at rel hold b. It does nothing where it does already.
func (p *Place) Write(rel string, b []byte) error {
	if p.Holds(rel, b) {
		return nil
	}
	temp := temp()
	f, err := p.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, FileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, p.root.Remove(temp))
	}
	failpoint.Here("models.place-written")
	return p.rename(temp, rel)
}

// Symlink makes rel a symbolic link with that text, if it is not.
func (p *Place) Symlink(text, rel string) error {
	if is, err := p.root.Readlink(rel); err == nil && is == text {
		return nil
	}
	temp := temp()
	if err := p.root.Symlink(text, temp); err != nil {
		return err
	}
	failpoint.Here("models.place-symlinked")
	return p.rename(temp, rel)
}

// Folder has fill put a folder's content below the name that it is given: one
// in the corner, to be renamed when that is whole, or the folder's own where
// it is there already.
func (p *Place) Folder(rel string, fill func(at string) error) error {
	if err := p.Mkdir(path.Dir(rel)); err != nil {
		return err
	}
	_, err := p.root.Lstat(rel)
	if err == nil {
		if err := p.Mkdir(rel); err != nil {
			return err
		}
		return fill(rel)
	}
	if !Gone(err) {
		return err
	}
	temp := temp()
	if err = p.Mkdir(temp); err == nil {
		err = fill(temp)
	}
	if err != nil {
		return errors.Join(err, p.root.RemoveAll(temp))
	}
	failpoint.Here("models.place-folder-filled")
	return p.rename(temp, rel)
}

// rename gives a finished thing of the corner its name.
func (p *Place) rename(temp, rel string) error {
	if err := p.root.Rename(temp, rel); err != nil {
		return errors.Join(err, p.root.RemoveAll(temp))
	}
	failpoint.Here("models.place-renamed")
	return p.sync(path.Dir(rel))
}

// Remove takes a file or link away, and the folders that it leaves empty.
func (p *Place) Remove(rel string) error {
	if err := p.root.Remove(rel); err != nil && !Gone(err) {
		return err
	}
	failpoint.Here("models.place-removed")
	return p.Prune(path.Dir(rel))
}

// RemoveFolder takes these files of a folder away, and then the folder: at
// once where nothing else is in it, file by file where something is.
func (p *Place) RemoveFolder(rel string, files []string) error {
	alone, err := p.alone(rel, files)
	if Gone(err) {
		return p.Prune(path.Dir(rel))
	}
	if err != nil {
		return err
	}
	if !alone {
		for _, name := range files {
			if err := p.Remove(path.Join(rel, name)); err != nil {
				return err
			}
		}
		return nil
	}
	temp := temp()
	if err := p.root.Rename(rel, temp); err != nil {
		return err
	}
	failpoint.Here("models.place-folder-taken")
	if err := p.sync(path.Dir(rel)); err != nil {
		return err
	}
	if err := p.root.RemoveAll(temp); err != nil {
		return err
	}
	return p.Prune(path.Dir(rel))
}

// alone reports whether a folder has no file but these.
func (p *Place) alone(rel string, files []string) (bool, error) {
	named := make(map[string]bool, len(files))
	for _, name := range files {
		named[path.Join(rel, name)] = true
	}
	alone := true
	err := fs.WalkDir(p.root.FS(), rel, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || named[name] {
			return err
		}
		alone = false
		return fs.SkipAll
	})
	return alone, err
}

// Prune removes a folder and those above it, as long as they are empty, and
// makes that durable.
func (p *Place) Prune(rel string) error {
	for ; rel != "."; rel = path.Dir(rel) {
		fi, err := p.root.Lstat(rel)
		if err == nil && !fi.IsDir() {
			return nil // somebody else's
		}
		if err == nil {
			err = p.root.Remove(rel)
		}
		switch {
		case err == nil:
			failpoint.Here("models.place-folder-removed")
		case filled(err):
			return p.sync(rel)
		case !Gone(err):
			return err
		}
	}
	return p.sync(rel)
}

// filled reports that a folder cannot be removed since something is in it.
func filled(err error) bool { return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) }
