package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// Folders of a repository. No segment of a repository's name begins with
	// "_", so none of them is a repository.
	blobsDir     = "_blobs"
	manifestsDir = "_manifests"
	tagsDir      = "_tags"
	referrersDir = "_referrers"
	lockFile     = "_lock"
	// tempFile is the one temporary name of a folder: writers hold the
	// repository's lock, so what a killed one left is written over.
	tempFile = ".tmp"

	dirMode  = 0o750
	fileMode = 0o640

	// maxName bounds a file of names: a record has below 500 bytes.
	maxName      = 4 << 10
	recordSchema = "darkmirror.oci-pushed/v1"
)

// A tree holds what clients pushed to one source, as names only: the bytes
// are in the store.
//
//	library/nginx/_blobs/sha256/HEX            the blob's digest in the store
//	library/nginx/_manifests/sha256/HEX        a record
//	library/nginx/_tags/TAG                    a digest
//	library/nginx/_referrers/sha256/HEX/sha256-HEX   subject / referrer, empty
//	library/nginx/_lock                        locked by writers
//
// Readers take no lock: each file appears whole, by rename. A nil tree is
// empty.
type tree struct {
	root *os.Root
	mu   sync.Mutex // held while folders are made

	queueMu sync.Mutex
	queues  map[string]*queue
}

// A queue lets one writer of this process at a time try for a repository's
// lock: who waits for a file lock occupies a thread.
type queue struct {
	turn  sync.Mutex
	users int
}

// A record is what a pushed manifest's bytes do not tell at once.
type record struct {
	Schema    string          `json:"schema"`
	Blob      artifact.Digest `json:"blob"`
	Size      int64           `json:"size"`
	MediaType string          `json:"media_type"`
	Subject   spec.Digest     `json:"subject,omitempty"`
}

// openTree opens dir; nil if it is not there and is not to be made.
func openTree(dir string, create bool) (*tree, error) {
	if create {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, err
		}
	}
	r, err := os.OpenRoot(dir)
	if absent(err) && !create {
		return nil, nil // a nil tree is an empty one
	}
	if err != nil {
		return nil, err
	}
	return &tree{root: r, queues: make(map[string]*queue)}, nil
}

func (t *tree) close() error {
	if t == nil {
		return nil
	}
	return t.root.Close()
}

func blobFile(repo string, d spec.Digest) string {
	return path.Join(repo, blobsDir, d.Algorithm(), d.Hex())
}

func manifestFile(repo string, d spec.Digest) string {
	return path.Join(repo, manifestsDir, d.Algorithm(), d.Hex())
}

func tagFile(repo, tag string) string { return path.Join(repo, tagsDir, tag) }

func referrersFolder(repo string, subject spec.Digest) string {
	return path.Join(repo, referrersDir, subject.Algorithm(), subject.Hex())
}

func referrerFile(repo string, subject, d spec.Digest) string {
	return path.Join(referrersFolder(repo, subject), d.Algorithm()+"-"+d.Hex())
}

// read returns a small file.
func (t *tree) read(name string) (b []byte, err error) {
	if t == nil {
		return nil, fs.ErrNotExist
	}
	f, err := t.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err = io.ReadAll(io.LimitReader(f, maxName+1))
	if err == nil && len(b) > maxName {
		err = fmt.Errorf("%s: more than %d bytes", name, maxName)
	}
	return b, err
}

// names lists a folder, sorted, without temporary files.
func (t *tree) names(dir string) (names []string, err error) {
	if t == nil {
		return nil, nil
	}
	f, err := t.root.Open(dir)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(n string) bool { return strings.HasPrefix(n, ".") })
	slices.Sort(all)
	return all, nil
}

// digest reads a file that holds one.
func (t *tree) digest(name string) (spec.Digest, error) {
	b, err := t.read(name)
	if err != nil {
		return "", err
	}
	d, err := spec.ParseDigest(string(b))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// blob reads where the bytes of a pushed blob are.
func (t *tree) blob(repo string, d spec.Digest) (artifact.Digest, error) {
	name := blobFile(repo, d)
	at, err := t.digest(name)
	if err != nil {
		return artifact.Digest{}, err
	}
	own, ok := at.SHA256()
	if !ok || d.Algorithm() == spec.SHA256 && at != d {
		return artifact.Digest{}, fmt.Errorf("%s: %s is not what it can hold", name, at)
	}
	return own, nil
}

// manifest reads the record of a pushed manifest.
func (t *tree) manifest(repo string, d spec.Digest) (*record, error) {
	name := manifestFile(repo, d)
	b, err := t.read(name)
	if err != nil {
		return nil, err
	}
	var r record
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	own, isSHA256 := d.SHA256()
	if r.Schema != recordSchema || isSHA256 && own != r.Blob || !(spec.Descriptor{MediaType: r.MediaType}).IsManifest() {
		return nil, fmt.Errorf("%s: not a record of this version for this manifest", name)
	}
	if r.Subject != "" {
		if _, err := spec.ParseDigest(string(r.Subject)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return &r, nil
}

// manifests calls yield with every pushed manifest of a repository, until it
// returns false.
func (t *tree) manifests(repo string, yield func(spec.Digest, *record) bool) error {
	for _, alg := range []string{spec.SHA256, spec.SHA512} {
		names, err := t.names(path.Join(repo, manifestsDir, alg))
		if err != nil {
			return err
		}
		for _, n := range names {
			d, err := spec.ParseDigest(alg + ":" + n)
			if err != nil {
				continue // not ours
			}
			r, err := t.manifest(repo, d)
			if absent(err) {
				continue // deleted meanwhile
			}
			if err != nil {
				return err
			}
			if !yield(d, r) {
				return nil
			}
		}
	}
	return nil
}

// referrers lists the digests of pushed manifests whose subject is d.
func (t *tree) referrers(repo string, d spec.Digest) ([]spec.Digest, error) {
	names, err := t.names(referrersFolder(repo, d))
	if err != nil {
		return nil, err
	}
	var out []spec.Digest
	for _, n := range names {
		if r, err := spec.ParseDigest(strings.Replace(n, "-", ":", 1)); err == nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// exists reports whether anything was ever pushed to a repository.
func (t *tree) exists(repo string) bool {
	if t == nil {
		return false
	}
	_, berr := t.root.Lstat(path.Join(repo, blobsDir))
	_, merr := t.root.Lstat(path.Join(repo, manifestsDir))
	return berr == nil || merr == nil
}

// repos lists the repositories to which anything was ever pushed, sorted.
func (t *tree) repos() ([]string, error) {
	if t == nil {
		return nil, nil
	}
	var out []string
	err := fs.WalkDir(t.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if absent(err) {
			return nil // removed meanwhile
		}
		if err != nil || !strings.HasPrefix(e.Name(), "_") || !e.IsDir() {
			return err
		}
		if e.Name() == blobsDir || e.Name() == manifestsDir {
			out = append(out, path.Dir(name))
		}
		return fs.SkipDir
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// lock keeps every other writer of a repository away, those of another
// process too, until unlock.
func (t *tree) lock(repo string) (unlock func() error, err error) {
	leave := t.enqueue(repo)
	f, err := t.flock(repo)
	if err != nil {
		leave()
		return nil, fmt.Errorf("lock %s: %w", repo, err)
	}
	return func() error {
		defer leave()
		return f.Close()
	}, nil
}

// enqueue waits for the repository's turn within this process.
func (t *tree) enqueue(repo string) (leave func()) {
	t.queueMu.Lock()
	q := t.queues[repo]
	if q == nil {
		q = &queue{}
		t.queues[repo] = q
	}
	q.users++
	t.queueMu.Unlock()
	q.turn.Lock()
	return func() {
		q.turn.Unlock()
		t.queueMu.Lock()
		defer t.queueMu.Unlock()
		if q.users--; q.users == 0 {
			delete(t.queues, repo)
		}
	}
}

func (t *tree) flock(repo string) (*os.File, error) {
	if err := t.mkdir(repo); err != nil {
		return nil, err
	}
	f, err := t.root.OpenFile(path.Join(repo, lockFile), os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// mkdir makes a folder and its missing parents, each durable in its own.
func (t *tree) mkdir(dir string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := "."
	for seg := range strings.SplitSeq(dir, "/") {
		parent := at
		at = path.Join(at, seg)
		err := t.root.Mkdir(at, dirMode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		failpoint.Here("registry.folder-made")
		if err := t.sync(parent); err != nil {
			return err
		}
	}
	return nil
}

// sync makes renames and removals in a folder survive a power loss.
func (t *tree) sync(dir string) error {
	d, err := t.root.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// write gives a file its content, durably; the caller holds the lock. A file
// that has it already is left alone.
func (t *tree) write(name string, data []byte) error {
	dir := path.Dir(name)
	if old, err := t.read(name); err == nil && string(old) == string(data) {
		return t.sync(dir) // a killed writer may not have got to that
	}
	if err := t.mkdir(dir); err != nil {
		return err
	}
	temp := path.Join(dir, tempFile)
	f, err := t.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	failpoint.Here("registry.file-written")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, t.root.Remove(temp)))
	}
	failpoint.Here("registry.file-synced")
	if err := t.root.Rename(temp, name); err != nil {
		return err
	}
	failpoint.Here("registry.file-renamed")
	return t.sync(dir)
}

// remove deletes a file, durably; the caller holds the lock.
func (t *tree) remove(name string) error {
	if err := t.root.Remove(name); err != nil {
		return err
	}
	failpoint.Here("registry.file-removed")
	return t.sync(path.Dir(name))
}

func (t *tree) writeBlob(repo string, d spec.Digest, at artifact.Digest) error {
	return t.write(blobFile(repo, d), []byte(at.String()))
}

func (t *tree) writeTag(repo, tag string, d spec.Digest) error {
	return t.write(tagFile(repo, tag), []byte(d))
}

// writeManifest makes a manifest known: first to those who ask for its
// subject's referrers, who pass over names without a record.
func (t *tree) writeManifest(repo string, d spec.Digest, r record) error {
	r.Schema = recordSchema
	if r.Subject != "" {
		if err := t.write(referrerFile(repo, r.Subject, d), nil); err != nil {
			return err
		}
		failpoint.Here("registry.referrer-written")
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return t.write(manifestFile(repo, d), b)
}
