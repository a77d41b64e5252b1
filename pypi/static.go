package pypi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	// treeCorner is the folder of a tree that no client needs.
	treeCorner = ".darkmirror"
	// pagesPrefix starts the folder of one publication's pages.
	pagesPrefix = "simple-"
	// treeOwner is the file in the corner that names the source of a tree.
	treeOwner = "source"
)

// WriteTree writes what h serves of source as files, for a plain web server or
// a path that clients mount:
//
//	simple -> .darkmirror/simple-ID     the pages of one publication
//	simple/index.html, index.json       the projects
//	simple/PROJECT/index.html, .json    a project's files
//	packages/AA/BB/REST/FILENAME        hard links of the store's blobs, or copies
//	                                    where dir is on another file system
//	.../FILENAME.metadata, .provenance
//
// The pages are the same bytes that h sends. Files come first, then all pages
// in a folder of their own, fsynced; one rename of the link makes them what
// clients see; what is not listed any more goes last. A run that was killed
// anywhere leaves the old or the new pages whole, and the next heals the rest.
// Writing the same publication again changes nothing.
//
// What a tree does not list is removed from its folders, so dir has to be this
// source's own: a folder that holds another's files under those names, or the
// tree of another source, is refused.
func WriteTree(ctx context.Context, dir, source string, h *Handler) (err error) {
	s, err := h.load()
	if err != nil {
		return err
	}
	corner := filepath.Join(dir, treeCorner)
	if err := foreignTree(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(corner, 0o755); err != nil { // #nosec G301 -- clients read it
		return err
	}
	lock, err := lockTree(corner)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := durable.Sweep(corner); err != nil {
		return err
	}
	if err := ownTree(corner, source); err != nil {
		return err
	}
	t := tree{dir: dir, state: s, want: make(map[string]bool), sum: sha256.New()}
	if err := t.link(ctx); err != nil {
		return err
	}
	pages, err := t.pages(ctx, corner)
	if err != nil {
		return err
	}
	if err := t.turn(treeCorner + "/" + pages); err != nil {
		return err
	}
	return t.sweep(ctx, pages)
}

// foreignTree refuses a folder that is no tree and has what a tree would
// replace or remove.
func foreignTree(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, treeCorner)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range []string{"simple", "packages", "files"} {
		name = filepath.Join(dir, name)
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(&artifact.Refusal{
				Class: artifact.ErrUnavailable, Code: "PYPI-TREE-FOREIGN", Subject: name, Reason: "it was there before, and a tree would remove what it does not list; give the tree a folder of its own",
			}, err)
		}
	}
	return nil
}

// ownTree writes whose tree it is, or refuses another's.
func ownTree(corner, source string) error {
	name := filepath.Join(corner, treeOwner)
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return durable.WriteFile(name, []byte(source+"\n"), 0o644)
	case err != nil:
		return err
	}
	if got := strings.TrimSpace(string(b)); got != source {
		return &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: "PYPI-TREE-FOREIGN", Subject: filepath.Dir(corner),
			Reason: "it is the tree of another source; give every source a folder of its own", Want: source, Got: clip(got),
		}
	}
	return nil
}

// lockTree keeps two writers apart. The kernel drops the lock of a process
// that dies.
func lockTree(corner string) (*os.File, error) {
	name := filepath.Join(corner, "lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(&artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: "PYPI-TREE-LOCKED", Subject: name, Reason: "another process writes this tree; wait for it to end", Err: err,
		}, f.Close())
	}
	return f, nil
}

// A tree is one that is being written.
type tree struct {
	dir   string
	state *state
	want  map[string]bool // files below dir, with slashes
	sum   hash.Hash       // of the pages
}

// link gives every file its name.
func (t *tree) link(ctx context.Context) error {
	for _, name := range t.state.names {
		p := t.state.projects[name]
		for i := range p.Files {
			if err := ctx.Err(); err != nil {
				return err
			}
			f := &p.Files[i]
			at := t.state.files[f.keys()[0]]
			for _, part := range []struct {
				d      artifact.Digest
				suffix string
			}{{at.digest, ""}, {at.metadata, ".metadata"}, {at.provenance, ".provenance"}} {
				if part.d.IsZero() {
					continue
				}
				t.want[f.path()+part.suffix] = true
				if err := linkBlob(at.store, part.d, filepath.Join(t.dir, filepath.FromSlash(f.path()+part.suffix))); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// linkBlob makes name hold d. What is there already and is not d is replaced.
func linkBlob(st *store.Store, d artifact.Digest, name string) error {
	info, err := os.Lstat(name)
	if err == nil && st.Is(d, info) {
		return nil
	}
	if err := mkdirSynced(filepath.Dir(name)); err != nil {
		return err
	}
	failpoint.Here("pypi.tree-folder")
	if err != nil {
		err = st.Link(d, name)
		failpoint.Here("pypi.tree-linked")
		return err
	}
	if st.Link(d, name) == nil {
		return nil // a copy, which holds the right bytes
	}
	temp := filepath.Join(filepath.Dir(name), durable.TempPrefix+d.Hex())
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := st.Link(d, temp); err != nil {
		return err
	}
	failpoint.Here("pypi.tree-staged")
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(name))
}

// mkdirSynced makes dir and its parents, each durable in its own.
func mkdirSynced(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := mkdirSynced(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { // #nosec G301 -- clients read it
		return err
	}
	return durable.SyncDir(parent)
}

// pages writes all pages and then gives their folder its name, which is made
// of their digest: a folder of that name is whole.
func (t *tree) pages(ctx context.Context, corner string) (string, error) {
	temp, err := os.MkdirTemp(corner, durable.TempPrefix)
	if err != nil {
		return "", err
	}
	failpoint.Here("pypi.tree-pages-begun")
	if err := os.Chmod(temp, 0o755); err != nil { // #nosec G302 -- clients read it
		return "", err
	}
	if err := t.page(nil, temp); err != nil {
		return "", err
	}
	for _, project := range t.state.names {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		sub := filepath.Join(temp, project)
		if err := os.Mkdir(sub, 0o755); err != nil { // #nosec G301 -- clients read it
			return "", err
		}
		if err := t.page(t.state.projects[project], sub); err != nil {
			return "", err
		}
	}
	failpoint.Here("pypi.tree-pages-written")
	pages := pagesPrefix + hex.EncodeToString(t.sum.Sum(nil)[:16])
	name := filepath.Join(corner, pages)
	if _, err := os.Lstat(name); err == nil {
		return pages, errors.Join(os.RemoveAll(temp), durable.SyncDir(corner))
	}
	if err := syncFS(temp); err != nil {
		return "", err
	}
	failpoint.Here("pypi.tree-pages-synced")
	if err := os.Rename(temp, name); err != nil {
		return "", err
	}
	failpoint.Here("pypi.tree-pages-named")
	return pages, durable.SyncDir(corner)
}

// page writes the two forms of one page.
func (t *tree) page(p *project, dir string) error {
	for _, f := range []struct{ kind, name string }{{typePlain, "index.html"}, {typeJSON, "index.json"}} {
		b, err := t.state.render(p, f.kind)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(t.sum, "%s %d\n", f.name, len(b)) // a hash never fails
		_, _ = t.sum.Write(b)
		if err := os.WriteFile(filepath.Join(dir, f.name), b, 0o644); err != nil { // #nosec G306 -- clients read it
			return err
		}
	}
	return nil
}

// syncFS makes thousands of small files durable with one call.
func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
		return fmt.Errorf("sync the file system of %s: %w", dir, err)
	}
	return nil
}

// turn makes simple lead to target.
func (t *tree) turn(target string) error {
	name := filepath.Join(t.dir, "simple")
	if now, err := os.Readlink(name); err == nil && now == target {
		return durable.SyncDir(t.dir)
	}
	temp := filepath.Join(t.dir, treeCorner, durable.TempPrefix+"link")
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	failpoint.Here("pypi.tree-link-made")
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	failpoint.Here("pypi.tree-turned")
	return durable.SyncDir(t.dir)
}

// sweep removes the pages of other publications and the files that none of
// today's pages lists. Only the folders that a tree has are looked at.
func (t *tree) sweep(ctx context.Context, pages string) error {
	corner := filepath.Join(t.dir, treeCorner)
	entries, err := os.ReadDir(corner)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), pagesPrefix) && e.Name() != pages {
			if err := os.RemoveAll(filepath.Join(corner, e.Name())); err != nil {
				return err
			}
			failpoint.Here("pypi.tree-pages-removed")
		}
	}
	for _, top := range []string{"packages", "files"} {
		if _, err := t.sweepFiles(ctx, top); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// sweepFiles removes what is not wanted below rel, and rel itself if nothing
// is left of it.
func (t *tree) sweepFiles(ctx context.Context, rel string) (empty bool, err error) {
	name := filepath.Join(t.dir, filepath.FromSlash(rel))
	entries, err := os.ReadDir(name)
	if err != nil {
		return false, err
	}
	left := len(entries)
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		sub := rel + "/" + e.Name()
		gone := false
		if e.IsDir() {
			if gone, err = t.sweepFiles(ctx, sub); err != nil {
				return false, err
			}
		} else if gone = !t.want[sub]; gone {
			if err := os.Remove(filepath.Join(name, e.Name())); err != nil {
				return false, err
			}
			failpoint.Here("pypi.tree-file-removed")
		}
		if gone {
			left--
		}
	}
	if left > 0 {
		return false, nil
	}
	return true, os.Remove(name)
}
