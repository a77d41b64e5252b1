package hubserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// lookEvery is how long a look at the pointers holds: clients ask for the
	// heads of many files at once, and an import is seen soon enough.
	lookEvery = 50 * time.Millisecond
	// retryAfter is how long what could not be read is not tried again: each
	// try reads the whole record. What is arriving may lack its record yet.
	retryAfter = 5 * time.Second
)

// source is one source as served. The handler's lock guards the pointers.
type source struct {
	name     string
	rules    []*rule
	current  pointer
	arriving pointer
}

func newSource(s *Source, st *store.Store) (*source, error) {
	out := &source{name: s.Name}
	for i := range s.Access {
		r, err := newRule(&s.Access[i])
		if err != nil {
			return nil, fmt.Errorf("hub: source %s: %w", s.Name, err)
		}
		out.rules = append(out.rules, r)
	}
	follow := func(name string, read func(string) (models.Published, bool, error)) pointer {
		return pointer{file: filepath.Join(s.Dir, name), read: func() (*publication, error) {
			p, ok, err := read(s.Dir)
			if err != nil {
				return nil, err
			}
			if !ok {
				return nil, errors.New("it was removed while it was read")
			}
			set, err := p.Load(st)
			if err != nil {
				return nil, err
			}
			return newPublication(&p, set), nil
		}}
	}
	out.current = follow(models.CurrentName, models.ReadPublished)
	out.arriving = follow(models.ArrivingName, models.ReadArriving)
	return out, nil
}

// A publication is a set, ready to serve; it does not change.
type publication struct {
	repos map[hub.Repo][]*revision
}

func newPublication(p *models.Published, set *models.Set) *publication {
	kept := make(map[string]bool)
	for _, k := range p.Kept {
		kept[k.Repo+" "+k.Commit] = true
	}
	out := &publication{repos: make(map[hub.Repo][]*revision)}
	for i := range set.Revisions {
		r := &set.Revisions[i]
		rev := newRevision(r, p.Seq, p.Time)
		rev.kept = kept[r.Repo.String()+" "+r.Commit]
		out.repos[r.Repo] = append(out.repos[r.Repo], rev)
	}
	return out
}

// A pointer is a file that is replaced whole, and what it stands for.
type pointer struct {
	file  string
	read  func() (*publication, error)
	info  fs.FileInfo // of the file that value or err is of
	value *publication
	err   error // why the newest cannot be read; value is an older one then
	tried time.Time
}

// look reads the file if it was replaced, or could not be read before, and
// reports whether it did.
func (p *pointer) look(now time.Time) bool {
	info, err := os.Stat(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = nil, nil // nothing is published, and that is no error
	}
	if err == nil && sameFile(p.info, info) && (p.err == nil || now.Sub(p.tried) < retryAfter) {
		return false
	}
	if p.err != nil && err != nil && now.Sub(p.tried) < retryAfter {
		return false
	}
	p.info, p.err, p.tried = info, err, now
	if info == nil && err == nil {
		p.value = nil
		return true
	}
	var fresh *publication
	if err == nil {
		fresh, p.err = p.read()
	}
	if p.err == nil {
		p.value = fresh
	}
	return true
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// A view is one state of all sources; it does not change.
type view struct {
	repos  map[hub.Repo][]*share // in the order of the sources
	names  []hub.Repo            // sorted
	broken bool                  // some publication could never be read
}

// A share is what one source has of a repository.
type share struct {
	source    *source
	rules     []*rule // that close it
	revisions []*revision
	names     map[string]*revision // by commit and reference
	arriving  []*revision
}

func (v *view) has(name hub.Repo) bool { return len(v.repos[name]) > 0 }

// current is the state as it is now. While one request reads a new one, the
// others go on with the old.
func (h *Handler) current() *view {
	if v := h.state.Load(); v == nil {
		h.mu.Lock()
	} else if time.Since(h.began)-time.Duration(h.looked.Load()) < h.look || !h.mu.TryLock() {
		return v
	}
	defer h.mu.Unlock()
	if h.refresh() || h.state.Load() == nil {
		h.state.Store(newView(h.sources))
	}
	h.looked.Store(int64(time.Since(h.began)))
	return h.state.Load()
}

// refresh looks at every pointer and reports whether one has changed.
func (h *Handler) refresh() (changed bool) {
	ctx, now := context.Background(), time.Now()
	for _, s := range h.sources {
		source := slog.String("source", "models/"+s.name)
		if s.current.look(now) {
			changed = true
			if err := s.current.err; err != nil {
				h.log.ErrorContext(ctx, "publication cannot be read; if there was one before, it is served", source, slog.Any("error", err))
			} else if s.current.value != nil {
				h.log.InfoContext(ctx, "publication loaded", source, slog.Int("repositories", len(s.current.value.repos)))
			}
		}
		if s.arriving.look(now) {
			changed = true
			if err := s.arriving.err; err != nil {
				s.arriving.value = nil
				h.log.DebugContext(ctx, "what is arriving cannot be read yet", source, slog.Any("error", err))
			}
		}
	}
	return changed
}

func newView(sources []*source) *view {
	v := &view{repos: make(map[hub.Repo][]*share)}
	for _, s := range sources {
		v.broken = v.broken || s.current.err != nil && s.current.value == nil
		shares := make(map[hub.Repo]*share)
		at := func(name hub.Repo) *share {
			if shares[name] == nil {
				shares[name] = newShare(s, name)
				v.repos[name] = append(v.repos[name], shares[name])
			}
			return shares[name]
		}
		if s.current.value != nil {
			for name, list := range s.current.value.repos {
				at(name).add(list)
			}
		}
		if s.arriving.value != nil {
			for name, list := range s.arriving.value.repos {
				at(name).arriving = list
			}
		}
	}
	v.names = slices.SortedFunc(maps.Keys(v.repos), func(a, b hub.Repo) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.ID, b.ID))
	})
	return v
}

func newShare(s *source, name hub.Repo) *share {
	out := &share{source: s, names: make(map[string]*revision)}
	for _, r := range s.rules {
		if r.closes(name) {
			out.rules = append(out.rules, r)
		}
	}
	return out
}

// add takes in the revisions that are published.
func (s *share) add(list []*revision) {
	s.revisions = list
	var branches, fresh []*revision
	for _, r := range list {
		s.names[r.Commit] = r
		for _, ref := range r.Refs {
			s.names[ref], s.names[fullRef(ref)] = r, r
		}
		if len(r.Refs) > 0 {
			branches = append(branches, r)
		}
		if !r.kept {
			fresh = append(fresh, r)
		}
	}
	// HEAD is main, or the only one there is to choose.
	for _, only := range [][]*revision{branches, fresh} {
		if len(only) == 1 && s.names[mainBranch] == nil {
			s.names[headRevision] = only[0]
			return
		}
	}
	if main := s.names[mainBranch]; main != nil {
		s.names[headRevision] = main
	}
}

// find is the revision that a request is about.
func (h *Handler) find(q *request, revision string) (*share, *revision, error) {
	shares, err := h.shares(q)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range shares {
		if r := s.names[revision]; r != nil {
			return s, r, nil
		}
	}
	for _, s := range shares {
		for _, r := range s.arriving {
			if r.stands(revision) {
				return nil, nil, faultf(http.StatusNotFound, hub.CodeRevisionNotFound, "arriving: %d/%d files", r.arrived(h.store), len(r.Files))
			}
		}
	}
	return nil, nil, noRevision(q.repo, revision, shares)
}

// shares are those of a repository that the caller may read; there is at
// least one.
func (h *Handler) shares(q *request) (open []*share, err error) {
	all := q.view.repos[q.repo]
	for _, s := range all {
		switch {
		case admits(s.rules, &q.caller):
			open = append(open, s)
		case err == nil:
			err = refused(q.repo, s.rules, &q.caller)
		}
	}
	switch {
	case len(open) > 0:
		return open, nil
	case err != nil:
		return nil, err
	case q.view.broken:
		return nil, faultf(http.StatusServiceUnavailable, "", "what was published here cannot be read; this server's log says why")
	}
	return nil, noRepo(q.repo, &q.caller)
}
