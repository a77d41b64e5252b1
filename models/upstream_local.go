package models

import (
	"cmp"
	"context"
	"crypto/sha1" // #nosec G505 -- names a state of a folder as git names a commit; nothing is trusted by it
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/hub"
)

// localOrigin is what the record says of local models.
const localOrigin = "local"

const (
	// lfsFrom is the size from which a hub keeps a file as LFS.
	lfsFrom = 10 << 20
	// maxRef bounds a file of a cache that holds a commit's name.
	maxRef = 64
)

// lfsSuffixes are kept as LFS whatever their size.
var lfsSuffixes = []string{".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".parquet", ".npz", ".npy", ".pkl", ".joblib", ".model", ".tar", ".zip"}

// A local upstream is a folder of repositories, or a cache of huggingface_hub.
// Files are hashed when a revision's list is asked for and again while they
// are copied into the store, so that a file which changes in between is
// refused.
type local struct {
	name string // of the source
	root string
	st   *store.Store
	// find gives the folder of a revision, and its commit where that is known
	// without looking at the files.
	find func(name hub.Repo, revision string) (dir, commit string, err error)

	mu   sync.Mutex
	seen map[string]*localRevision // "repo commit"
}

// A localRevision is one state of a repository's files.
type localRevision struct {
	dir     string
	entries []hub.Entry
}

// newFolder reads ROOT/ORGANISATION/NAME; a state of it is named by the SHA-1
// of its list of files, and there is one branch, main.
func newFolder(name, root string, st *store.Store) *local {
	l := &local{name: name, root: root, st: st, seen: make(map[string]*localRevision)}
	l.find = func(r hub.Repo, revision string) (string, string, error) {
		dir := filepath.Join(root, filepath.FromSlash(r.String()))
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return "", "", refuse(CodeLocal, name+": "+r.String(), "there is no folder "+dir, err)
		}
		if revision != mainBranch && !hub.IsCommit(revision) {
			return "", "", refuse(CodeLocal, name+": "+r.String()+"@"+revision, "a folder has one state, which is called main", nil)
		}
		return dir, "", nil
	}
	return l
}

// newCache reads a cache folder: refs name commits, snapshots hold their files.
func newCache(name, root string, st *store.Store) *local {
	l := &local{name: name, root: root, st: st, seen: make(map[string]*localRevision)}
	l.find = func(r hub.Repo, revision string) (string, string, error) {
		subject := name + ": " + r.String() + "@" + revision
		base := filepath.Join(root, r.CacheFolder())
		commit := revision
		if !hub.IsCommit(revision) {
			b, err := readBounded(filepath.Join(base, "refs", filepath.FromSlash(revision)), maxRef)
			if err != nil {
				return "", "", refuse(CodeLocal, subject, "the cache has no such revision", err)
			}
			if commit = strings.TrimSpace(string(b)); !hub.IsCommit(commit) {
				return "", "", refuse(CodeLocal, subject, "its ref names no commit", nil)
			}
		}
		dir := filepath.Join(base, "snapshots", commit)
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return "", "", refuse(CodeLocal, subject, "the cache has no files of commit "+commit, err)
		}
		return dir, commit, nil
	}
	return l
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err = errors.Join(err, f.Close()); err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has over %d bytes", name, limit)
	}
	return b, err
}

func (l *local) origin() string                      { return localOrigin }
func (l *local) url(hub.Repo, string, string) string { return "" }

// access is given to whatever lies in the folder.
func (l *local) access(context.Context, hub.Repo, string, []hub.Entry) error { return nil }

// resolve lists and hashes the files: what a folder holds has no other name.
func (l *local) resolve(ctx context.Context, name hub.Repo, revision string) (*hub.Commit, error) {
	dir, commit, err := l.find(name, revision)
	if err != nil {
		return nil, err
	}
	entries, err := l.list(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", l.name, name, err)
	}
	if err := hub.CheckEntries(entries); err != nil {
		return nil, refuse(CodeLocal, l.name+": "+name.String(), "its list of files cannot be carried", err)
	}
	if len(entries) == 0 {
		return nil, refuse(CodeLocal, l.name+": "+name.String(), dir+" has no files", nil)
	}
	state := stateOf(entries)
	switch {
	case commit == "":
		commit = state
	case commit != revision && hub.IsCommit(revision):
		return nil, refuse(CodeLocal, l.name+": "+name.String(), "commit "+revision+" is not there", nil)
	}
	if hub.IsCommit(revision) && commit != revision {
		return nil, refuse(CodeLocal, l.name+": "+name.String()+"@"+revision, "the folder has another state, "+commit, nil)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[name.String()+" "+commit] = &localRevision{dir, entries}
	return &hub.Commit{SHA: commit}, nil
}

// stateOf names a list of files: 40 hex digits, as a commit has.
func stateOf(entries []hub.Entry) string {
	h := sha1.New() // #nosec G401 -- see the import
	for _, e := range entries {
		_, _ = fmt.Fprintf(h, "%s %d %s\n", e.ETag(), e.Size, e.Path)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (l *local) tree(ctx context.Context, name hub.Repo, commit string) ([]hub.Entry, error) {
	r, err := l.revision(ctx, name, commit)
	if err != nil {
		return nil, err
	}
	return r.entries, nil
}

// revision is what resolve has seen; a plan may have been made by another
// process.
func (l *local) revision(ctx context.Context, name hub.Repo, commit string) (*localRevision, error) {
	key := name.String() + " " + commit
	get := func() *localRevision {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.seen[key]
	}
	if r := get(); r != nil {
		return r, nil
	}
	if _, err := l.resolve(ctx, name, commit); err != nil {
		return nil, err
	}
	if r := get(); r != nil {
		return r, nil
	}
	return nil, refuse(CodeLocal, l.name+": "+key, "is not there", nil)
}

// list walks a folder. Hidden folders at its root are a tool's own state:
// .git, and .cache of huggingface_hub.
func (l *local) list(ctx context.Context, dir string) ([]hub.Entry, error) {
	var entries []hub.Entry
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); filepath.Dir(rel) == "." && (name == ".git" || name == ".cache") {
				return filepath.SkipDir
			}
			return nil
		}
		// A link is followed: in a cache every file is one. It must end at a
		// regular file below the root.
		at, err := filepath.EvalSymlinks(p)
		if err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			root, err := filepath.EvalSymlinks(l.root)
			if err != nil {
				return err
			}
			if below, err := filepath.Rel(root, at); err != nil || !filepath.IsLocal(below) {
				return fmt.Errorf("%s leads out of %s", rel, l.root)
			}
		}
		e, err := entryOf(at, filepath.ToSlash(rel))
		if err != nil {
			return err
		}
		if entries = append(entries, *e); len(entries) > hub.MaxEntries {
			return fmt.Errorf("over %d files", hub.MaxEntries)
		}
		return nil
	})
	slices.SortFunc(entries, func(a, b hub.Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries, err
}

// entryOf hashes a file as a hub would have it. The name of a blob in a cache
// is the identity that the hub gave it: SHA-256 or git id.
func entryOf(at, rel string) (e *hub.Entry, err error) {
	f, err := os.Open(at)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", rel)
	}
	e = &hub.Entry{Path: rel, Size: info.Size()}
	claimed := filepath.Base(at)
	_, notHex := artifact.ParseHex(claimed)
	git := hub.IsCommit(claimed)
	lfs := notHex == nil || !git && (e.Size >= lfsFrom || slices.Contains(lfsSuffixes, path.Ext(strings.ToLower(rel))))
	if !lfs {
		h := hub.NewBlobHash(e.Size)
		n, err := io.Copy(h, io.LimitReader(f, e.Size+1))
		if err != nil {
			return nil, err
		}
		if e.OID = hub.BlobOID(h); n != e.Size || git && claimed != string(e.OID) {
			return nil, damaged(rel, claimed, string(e.OID))
		}
		return e, nil
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, e.Size+1))
	if err != nil {
		return nil, err
	}
	e.LFS = &hub.LFS{SHA256: artifact.Digest(h.Sum(nil))}
	if n != e.Size || notHex == nil && claimed != e.LFS.SHA256.Hex() {
		return nil, damaged(rel, claimed, e.LFS.SHA256.Hex())
	}
	pointer := hub.Pointer(e.LFS.SHA256, e.Size)
	e.OID, e.LFS.PointerSize = hub.SumBlob(pointer), int64(len(pointer))
	return e, nil
}

func damaged(rel, want, got string) error {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeFile, Subject: rel, Reason: "the cache holds other bytes than the name of their blob says, or they change right now", Want: want, Got: got}
}

func (l *local) content(ctx context.Context, name hub.Repo, commit string, e *hub.Entry) ([]byte, error) {
	r, err := l.revision(ctx, name, commit)
	if err != nil {
		return nil, err
	}
	b, err := readBounded(filepath.Join(r.dir, filepath.FromSlash(e.Path)), max(e.Size, 1))
	if err != nil {
		return nil, err
	}
	if got := hub.SumBlob(b); got != e.OID {
		return nil, damaged(e.Path, string(e.OID), string(got))
	}
	return b, nil
}

// fetch copies a file into the store, which checks its digest.
func (l *local) fetch(ctx context.Context, name hub.Repo, commit, rel string, d artifact.Digest, size int64) (err error) {
	if l.st.Has(d) {
		return nil
	}
	r, err := l.revision(ctx, name, commit)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(r.dir, filepath.FromSlash(cmp.Or(rel, "."))))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	failpoint.Here("models.copy")
	return l.st.Put(ctx, f, d, size)
}
