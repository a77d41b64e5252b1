package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// pointerName is the file that an import replaces.
	pointerName = "current.json"
	// retryAfter is how long a publication that could not be read is not
	// tried again: each try reads every manifest.
	retryAfter = 5 * time.Second
)

// publication follows what imports publish for one source.
type publication struct {
	name  string // of the source
	dir   string
	store *store.Store
	log   *slog.Logger

	mu      sync.Mutex // held while reading
	failure *failure   // of the newest publication
	state   atomic.Pointer[published]
}

// failure is why a publication could not be read, and when that was tried.
type failure struct {
	info fs.FileInfo
	at   time.Time
	err  error
}

// published is one publication, ready to serve; it does not change.
type published struct {
	info  fs.FileInfo // of the pointer; nil if nothing is published
	repos map[string]*publishedRepo
}

// publishedRepo is one of its repositories.
type publishedRepo struct {
	manifests []oci.Member // sorted by digest
	blobs     []oci.Member // sorted by digest
	tags      []string     // sorted
	tagged    map[string]spec.Digest
	referrers map[spec.Digest][]spec.Digest // subject -> sorted
}

// current is the publication as it is now: it is read again after an import
// has replaced the pointer. If the new one cannot be read, the old one stays.
func (p *publication) current(ctx context.Context) (*published, error) {
	info, err := p.stat()
	old := p.state.Load()
	if err == nil && old != nil && sameFile(old.info, info) {
		return old, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old = p.state.Load()
	if info, err = p.stat(); err == nil {
		if old != nil && sameFile(old.info, info) {
			return old, nil // somebody else was faster
		}
		var fresh *published
		if fresh, err = p.refresh(ctx, info); err == nil {
			return fresh, nil
		}
	}
	if old == nil {
		return nil, err
	}
	return old, nil
}

// refresh reads the publication of a pointer, and not the same again at once
// if it cannot be read; the caller holds the lock.
func (p *publication) refresh(ctx context.Context, info fs.FileInfo) (*published, error) {
	if f := p.failure; f != nil && sameFile(f.info, info) && time.Since(f.at) < retryAfter {
		return nil, f.err
	}
	fresh, err := p.read(info)
	if err != nil {
		p.failure = &failure{info, time.Now(), err}
		p.log.ErrorContext(ctx, "publication cannot be read; if there was one before, it is served", slog.String("source", "oci/"+p.name), slog.Any("error", err))
		return nil, err
	}
	p.failure = nil
	p.state.Store(fresh)
	p.log.InfoContext(ctx, "publication loaded", slog.String("source", "oci/"+p.name), slog.Int("repositories", len(fresh.repos)))
	return fresh, nil
}

// stat looks at the pointer; nil where there is none.
func (p *publication) stat() (fs.FileInfo, error) {
	info, err := os.Stat(filepath.Join(p.dir, pointerName))
	if absent(err) {
		return nil, nil // nothing is published, and that is no error
	}
	return info, err
}

func sameFile(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// read loads what the pointer says. If it is replaced meanwhile, the next
// request sees that info is not its own and reads again.
func (p *publication) read(info fs.FileInfo) (*published, error) {
	out := &published{info: info, repos: make(map[string]*publishedRepo)}
	ptr, ok, err := oci.ReadPublished(p.dir)
	if err != nil {
		return nil, err
	}
	if !ok {
		if info != nil {
			return nil, errors.New("the publication was removed while it was read")
		}
		return out, nil
	}
	set, err := ptr.Load(p.store)
	if err != nil {
		return nil, err
	}
	for i := range set.Repositories {
		out.repos[set.Repositories[i].Name] = newPublishedRepo(&set.Repositories[i])
	}
	return out, nil
}

func newPublishedRepo(r *oci.Repository) *publishedRepo {
	p := &publishedRepo{
		manifests: slices.Clone(r.Manifests), blobs: r.Blobs,
		tagged: make(map[string]spec.Digest), referrers: make(map[spec.Digest][]spec.Digest),
	}
	slices.SortFunc(p.manifests, byDigest)
	for _, tag := range r.Tags() { // sorted
		p.tags = append(p.tags, tag.Name)
		p.tagged[tag.Name] = tag.Digest
	}
	for _, m := range p.manifests { // sorted, hence each list too
		if m.Subject != "" {
			p.referrers[m.Subject] = append(p.referrers[m.Subject], m.Digest)
		}
	}
	return p
}

func byDigest(a, b oci.Member) int { return cmp.Compare(a.Digest, b.Digest) }

// find looks d up; a nil repository has nothing.
func find(members []oci.Member, d spec.Digest) (entry, bool) {
	i, ok := slices.BinarySearchFunc(members, d, func(m oci.Member, d spec.Digest) int { return strings.Compare(string(m.Digest), string(d)) })
	if !ok {
		return entry{}, false
	}
	m := members[i]
	return entry{digest: m.Digest, blob: m.Blob, size: m.Size, mediaType: m.MediaType, subject: m.Subject, published: true}, true
}

func (p *publishedRepo) manifest(d spec.Digest) (entry, bool) {
	if p == nil {
		return entry{}, false
	}
	return find(p.manifests, d)
}

func (p *publishedRepo) blob(d spec.Digest) (entry, bool) {
	if p == nil {
		return entry{}, false
	}
	return find(p.blobs, d)
}

func (p *publishedRepo) tag(name string) (spec.Digest, bool) {
	if p == nil {
		return "", false
	}
	d, ok := p.tagged[name]
	return d, ok
}

// view is src's repository in one state.
func (s *source) view(ctx context.Context, repo string) (view, error) {
	now, err := s.current(ctx)
	if err != nil {
		return view{}, fmt.Errorf("oci/%s: %w", s.name, err)
	}
	return view{src: s, repo: repo, pub: now.repos[repo]}, nil
}
