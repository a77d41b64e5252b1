package carry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/label"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxDocument bounds the two JSON documents, which are held in memory; the
	// larger of the two is an envelope of 64 MiB in base64.
	maxDocument = 96 << 20
	// maxSmall is what is worth having on every medium, of the folders beside
	// the volumes. What is larger is placed once, as a volume is.
	maxSmall = 1 << 20
	// maxEntries bounds what is listed of such a folder.
	maxEntries = 10_000
)

// Names in a bundle's folder.
const (
	envelopeName = "bundle.dsse.json"
	volumesName  = "volumes.json"
	carriedName  = "carried.dsse.json" // of an encrypted bundle, beside the two
	encrypted    = ".age"
	volumesDir   = "volumes"
	rootDir      = "root"
	recoveryDir  = "recovery"
	labelText    = "label.txt"
	labelPage    = "label.html"
)

// entryPattern is the form of names that the format has: FAT holds them, and
// none begins like a temporary file.
var entryPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)

// An item is a file that lies on one medium.
type item struct {
	vol  int    // of a volume, from 1; 0 for a recovery file
	name string // below the bundle's folder
	size int64
	sum  artifact.Digest
}

// A document is a small file that lies on every medium.
type document struct {
	name string
	data []byte
}

// A source is the sealed bundle.
type source struct {
	dir  string
	root *os.Root
	identity
	volumes []item          // all
	items   []item          // those to carry, and recovery files
	wanted  map[string]bool // their names
	docs    []document
}

// An identity is what a bundle claims to be.
type identity struct {
	name  string // for people
	id    artifact.Digest
	cut   *bundle.Cut
	claim label.Label // without what lies on the medium
	// These are the documents without which a folder is no bundle, in the order
	// in which they are written; the last makes it one.
	first, last []string
}

// identify reads the claim of a bundle, and of an encrypted one what is known
// without a key.
func identify(r *bundle.Reader) (i identity, err error) {
	if !r.Encrypted() {
		m, err := r.Unverified()
		if err != nil {
			return i, err
		}
		if i.cut, err = r.Cut(); err != nil {
			return i, err
		}
		i.name, i.id = m.String(), r.ID()
		i.claim = label.New(m, i.id, len(i.cut.Volumes))
		i.first, i.last = []string{volumesName}, []string{envelopeName}
		return i, nil
	}
	c, err := r.Carried()
	if err != nil {
		return i, err
	}
	if i.cut, err = r.Cut(); err != nil {
		return i, err
	}
	i.name, i.id = c.String(), c.Bundle
	i.claim = label.Label{Stream: c.Stream, Seq: c.Seq, ID: c.Bundle, Volumes: len(i.cut.Volumes), Recipients: c.Recipients}
	i.first, i.last = []string{volumesName + encrypted}, []string{envelopeName + encrypted, carriedName}
	return i, nil
}

// openSource reads everything but the volumes. No key is needed: what is
// copied is compared with digests, and who signed is the inside's question.
func openSource(dir string, only []int) (_ *source, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Close())
		}
	}()
	s := &source{dir: dir, root: root}
	have, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	for i, v := range s.cut.Volumes {
		s.volumes = append(s.volumes, item{vol: i + 1, name: path.Join(volumesDir, v.Name), size: v.Size, sum: v.SHA256})
	}
	if s.items, err = s.choose(only); err != nil {
		return nil, err
	}
	var missing []error
	for _, it := range s.items {
		missing = append(missing, have[it.vol-1].Err(len(have)))
	}
	if err := errors.Join(missing...); err != nil {
		return nil, err
	}
	if err := s.readDocuments(only != nil); err != nil {
		return nil, err
	}
	s.wanted = make(map[string]bool, len(s.items))
	for _, it := range s.items {
		s.wanted[it.name] = true
	}
	return s, nil
}

func (s *source) close() error { return s.root.Close() }

// readIndex reads what the bundle claims to be.
func (s *source) readIndex() (_ []bundle.VolumeStatus, err error) {
	r, err := bundle.Open(s.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if s.identity, err = identify(r); err != nil {
		return nil, err
	}
	return r.Volumes()
}

// choose gives the volumes that were asked for, each once, in order.
func (s *source) choose(only []int) ([]item, error) {
	if only == nil {
		return slices.Clone(s.volumes), nil
	}
	only = slices.Compact(slices.Sorted(slices.Values(only)))
	var list []item
	for _, n := range only {
		if n < 1 || n > len(s.volumes) {
			return nil, fmt.Errorf("%s has no volume %d: want 1 to %d", s.name, n, len(s.volumes))
		}
		list = append(list, s.volumes[n-1])
	}
	return list, nil
}

// readDocuments reads the small files into memory, in the order in which they
// are written: a folder without an envelope is nothing.
func (s *source) readDocuments(noRecovery bool) error {
	if err := s.addDocuments(s.first); err != nil {
		return err
	}
	for _, dir := range []string{rootDir, recoveryDir} {
		names, err := s.list(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := s.addFile(dir, name, noRecovery); err != nil {
				return err
			}
		}
	}
	return s.addDocuments(s.last)
}

func (s *source) addDocuments(names []string) error {
	for _, name := range names {
		data, err := s.readSmall(name, maxDocument)
		if err != nil {
			return err
		}
		s.docs = append(s.docs, document{name, data})
	}
	return nil
}

// addFile takes a file of the folders beside the volumes.
func (s *source) addFile(dir, base string, noRecovery bool) error {
	name := path.Join(dir, base)
	info, err := s.root.Lstat(name)
	if err != nil {
		return fmt.Errorf("read %s: %w", s.dir, err)
	}
	switch {
	case info.Size() <= maxSmall:
		data, err := s.readSmall(name, maxSmall)
		if err != nil {
			return err
		}
		s.docs = append(s.docs, document{name, data})
	case dir == rootDir:
		return fmt.Errorf("%s of %s has %d bytes, at most %d are carried", name, s.name, info.Size(), maxSmall)
	case !noRecovery:
		it := item{name: name, size: info.Size()}
		if it.sum, err = s.hash(it); err != nil {
			return err
		}
		s.items = append(s.items, it)
	}
	return nil
}

// list gives the regular files of a folder, sorted; none where there is no
// such folder. Other things are not the bundle's.
func (s *source) list(dir string) (names []string, err error) {
	if info, err := s.root.Lstat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, nil
	}
	f, err := s.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	entries, err := f.ReadDir(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("%s of %s: more than %d entries", dir, s.name, maxEntries)
	}
	for _, e := range entries {
		if e.Type().IsRegular() && entryPattern.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// open opens a file for reading; a link, a pipe or another size is refused.
func (s *source) open(name string, size int64) (f *os.File, err error) {
	f, err = s.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.dir, err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("read %s: %s is not a regular file", s.dir, name)
	case size >= 0 && info.Size() != size:
		err = fmt.Errorf("read %s: %s has %d bytes, want %d", s.dir, name, info.Size(), size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (s *source) readSmall(name string, limit int64) (data []byte, err error) {
	f, err := s.open(name, -1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("read %s: %s has more than %d bytes", s.dir, name, limit)
	}
	return data, err
}

// hash reads a file whose digest nothing gives.
func (s *source) hash(it item) (sum artifact.Digest, err error) {
	f, err := s.open(it.name, it.size)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{io.LimitReader(f, it.size)}, make([]byte, chunkSize)); err != nil {
		return sum, fmt.Errorf("read %s: %w", s.dir, err)
	}
	return artifact.Digest(h.Sum(nil)), nil
}

// read reads an item in pieces and compares the whole with its digest at the
// end. An error of use is returned as it is.
func (s *source) read(ctx context.Context, it item, buf []byte, use func([]byte) error) (err error) {
	f, err := s.open(it.name, it.size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	for left := it.size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), left)]
		if _, err := io.ReadFull(f, p); err != nil {
			return fmt.Errorf("read %s: %s: %w", s.dir, it.name, err)
		}
		_, _ = h.Write(p) // a hash does not fail
		if err := use(p); err != nil {
			return err
		}
		left -= int64(len(p))
	}
	if got := artifact.Digest(h.Sum(nil)); got != it.sum {
		return &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: bundle.CodeVolume, Subject: fmt.Sprintf("%s, %s, %s", s.name, it.name, s.dir),
			Reason: "it is not what was sealed", Want: it.sum.String(), Got: got.String(),
		}
	}
	return nil
}

// label makes the label of a medium that holds these volumes.
func (s *source) label(on []int, unfinished bool) ([]document, error) {
	l := s.claim
	l.On, l.Unfinished = on, unfinished
	for _, v := range s.volumes {
		l.Total += v.size
	}
	for _, n := range on {
		l.Here += s.volumes[n-1].size
	}
	for _, id := range s.cut.KeyIDs {
		l.SignedBy = append(l.SignedBy, fingerprint(id))
	}
	text, err := l.Text()
	if err != nil {
		return nil, err
	}
	page, err := l.HTML()
	if err != nil {
		return nil, err
	}
	return []document{{labelText, text}, {labelPage, page}}, nil
}

// fingerprint is how people compare key ids, as [bundle.Fingerprint] writes it.
func fingerprint(id string) string {
	if len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return "a key without a usable id"
	}
	return id[:4] + " " + id[4:8]
}
