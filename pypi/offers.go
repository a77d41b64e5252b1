package pypi

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// offers is what the indexes offer while one set is resolved: each page is
// read once, and each version's metadata, whatever the number of targets.
type offers struct {
	s   *Source
	now time.Time

	mu       sync.Mutex
	projects map[string]*projectOnce
	metadata map[artifact.Digest]*metadataOnce
}

type projectOnce struct {
	once sync.Once
	p    *offered
	err  error
}

type metadataOnce struct {
	once sync.Once
	m    *packaging.Metadata
	err  error
}

// An offered project is a page, its files by version.
type offered struct {
	page    *page
	host    string // that the page came from
	missing string // why there is no page
	files   map[string][]*offeredFile
	// versions are the keys of files, ascending.
	versions []packaging.Version
}

// An offeredFile is a wheel or a source archive.
type offeredFile struct {
	*pageFile
	wheel    packaging.WheelName // zero for a source archive
	python   packaging.Specifiers
	uploaded time.Time
}

func newOffers(s *Source) *offers {
	return &offers{s: s, now: s.now(), projects: make(map[string]*projectOnce), metadata: make(map[artifact.Digest]*metadataOnce)}
}

// project reads a project's page, the first time.
func (o *offers) project(ctx context.Context, name string) (*offered, error) {
	o.mu.Lock()
	p := o.projects[name]
	if p == nil {
		p = &projectOnce{}
		o.projects[name] = p
	}
	o.mu.Unlock()
	p.once.Do(func() { p.p, p.err = o.read(ctx, name) })
	return p.p, p.err
}

func (o *offers) read(ctx context.Context, name string) (*offered, error) {
	if o.s.internal(name) {
		return &offered{missing: "the name is reserved as internal, and never asked for outside"}, nil
	}
	pg, host, err := o.s.page(ctx, name, func(filename string) bool {
		project, _, err := packaging.ParseDistName(filename)
		return err == nil && project == name
	})
	switch {
	case fetch.IsNotFound(err):
		return &offered{missing: "the index does not have it"}, nil
	case err != nil:
		return nil, err
	case pg.Status == quarantined:
		return &offered{missing: "the index has put it into quarantine: " + cmp.Or(pg.StatusReason, "no reason given")}, nil
	}
	c := &chooser{source: o.s.name, page: pg}
	if err := c.unique(name); err != nil {
		return nil, err
	}
	p := &offered{page: pg, host: host, files: make(map[string][]*offeredFile)}
	for i := range pg.Files {
		f := &offeredFile{pageFile: &pg.Files[i]}
		var v packaging.Version
		if packaging.IsWheel(f.Filename) {
			if f.wheel, err = packaging.ParseWheelName(f.Filename); err != nil {
				continue
			}
			v = f.wheel.Version
		} else if _, v, err = packaging.ParseDistName(f.Filename); err != nil {
			continue
		}
		// A malformed Requires-Python counts as none, as for installers.
		f.python, _ = packaging.ParseSpecifiers(f.RequiresPython)
		f.uploaded, _ = time.Parse(time.RFC3339Nano, f.UploadTime)
		key := v.String()
		if p.files[key] == nil {
			p.versions = append(p.versions, v)
		}
		p.files[key] = append(p.files[key], f)
	}
	slices.SortFunc(p.versions, packaging.Version.Compare)
	return p, nil
}
