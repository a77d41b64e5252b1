package pypi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// A publication is what one publisher made current.
type publication struct {
	file  string
	store *store.Store
	log   *slog.Logger

	mu  sync.Mutex // held while reloading
	now atomic.Pointer[state]
}

// state is one publication, ready to serve; it does not change.
type state struct {
	info     fs.FileInfo // of current.json; nil if nothing is published
	serial   uint64
	names    []string
	projects map[string]*project
	files    map[fileKey]*served
	list     pages
	room     atomic.Int64 // bytes of pages that may still be kept
	headers  headers
}

// A project is one that is served, with its pages.
type project struct {
	*currentProject
	pages pages
}

// served is one file that may be asked for.
type served struct {
	store                        *store.Store
	digest, metadata, provenance artifact.Digest
}

// headers are values that every answer shares: a reply costs no memory for
// them.
type headers struct {
	vary, age, gzip, policy, serial []string
	json, html, plain               []string
}

func (h *headers) contentType(kind string) []string {
	switch kind {
	case typeJSON:
		return h.json
	case typeHTML:
		return h.html
	}
	return h.plain
}

func newState() *state {
	s := &state{projects: make(map[string]*project), files: make(map[fileKey]*served)}
	s.room.Store(maxPages)
	return s
}

// finish fills what follows from the rest.
func (s *state) finish() {
	s.headers = headers{
		vary: []string{"Accept, Accept-Encoding"}, age: []string{pageAge}, gzip: []string{"gzip"}, policy: []string{"default-src 'none'"},
		serial: []string{strconv.FormatUint(s.serial, 10)},
		json:   []string{typeJSON}, html: []string{typeHTML + "; charset=utf-8"}, plain: []string{typePlain + "; charset=utf-8"},
	}
}

// load returns the current state, read again if current.json was replaced.
func (p *publication) load() (*state, error) {
	info, err := os.Stat(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = nil, nil
	}
	old := p.now.Load()
	if err != nil {
		return old, err
	}
	if old != nil && sameFile(old.info, info) {
		return old, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.now.Load(); now != old && now != nil && sameFile(now.info, info) {
		return now, nil // somebody else was faster
	}
	fresh, err := p.read()
	if err != nil {
		return old, err
	}
	p.now.Store(fresh)
	p.log.Info("publication loaded", slog.Int("projects", len(fresh.names)), slog.Uint64("serial", fresh.serial))
	return fresh, nil
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// read reads current.json and the identity of the very file that it read. No
// file is an empty index.
func (p *publication) read() (*state, error) {
	s := newState()
	f, err := os.Open(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		s.finish()
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	info, err := f.Stat()
	if err == nil {
		_, err = b.ReadFrom(f)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	cur, err := decodeCurrent(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.file, err)
	}
	s.info, s.serial = info, cur.Serial
	for i := range cur.Projects {
		if err := s.add(&cur.Projects[i], p.store); err != nil {
			return nil, err
		}
	}
	s.finish()
	return s, nil
}

// add takes a project in. One in quarantine has no files (PEP 792).
func (s *state) add(p *currentProject, st *store.Store) error {
	if p.Status == quarantined {
		p.Files = nil
	}
	s.projects[p.Name] = &project{currentProject: p}
	s.names = append(s.names, p.Name)
	for i := range p.Files {
		f := &p.Files[i]
		out := &served{store: st, digest: f.File.SHA256}
		for _, d := range []struct {
			text string
			to   *artifact.Digest
		}{{f.Metadata, &out.metadata}, {f.Provenance, &out.provenance}} {
			if d.text == "" {
				continue
			}
			var err error
			if *d.to, err = artifact.ParseDigest(d.text); err != nil {
				return fmt.Errorf("%s: %w", f.File.Filename, err)
			}
		}
		for _, k := range f.keys() {
			s.files[k] = out
		}
	}
	return nil
}

// keys are the two names of a file; one that was published by an older
// program has no BLAKE2b digest until it is published again.
func (f *currentFile) keys() []fileKey {
	keys := []fileKey{{sum: f.File.SHA256, name: f.File.Filename}}
	k := fileKey{blake: true, name: f.File.Filename}
	if f.Blake2b != "" {
		if _, err := hex.Decode(k.sum[:], []byte(f.Blake2b)); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}
