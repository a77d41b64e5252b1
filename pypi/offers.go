package pypi

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// offers is what the indexes offer while one set is resolved: each page is
// read once, and each version's metadata, whatever the number of targets.
type offers struct {
	s   *Source
	now time.Time

	mu       sync.Mutex
	projects map[string]*projectOnce
	metadata map[string]*metadataOnce
	// ranged is the METADATA that was read of a remote wheel, by its URL.
	ranged map[string]artifact.Digest
	// lost are the wheels whose METADATA the index names and does not have.
	lost []string

	// known are the hashes that files had in the last snapshot, by filename.
	known map[string]artifact.Digest
	// firstUses are the files whose hash or size the index does not tell, by
	// URL.
	firstUses map[string]*namedOnce
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
	// files are those that some target could use, by version.
	files map[string][]*offeredFile
	// wheels are the versions that have a wheel, for whatever target.
	wheels map[string]bool
	// versions are all that there are, ascending.
	versions []packaging.Version
}

// An offeredFile is a wheel or a source archive.
type offeredFile struct {
	*pageFile
	wheel    packaging.WheelName // zero for a source archive
	python   packaging.Specifiers
	uploaded time.Time
}

// key names the bytes of a file as far as they are known.
func (f *offeredFile) key() string {
	if f.Digest.IsZero() {
		return f.URL
	}
	return f.Digest.Hex()
}

func newOffers(s *Source, prev *artifact.Snapshot) *offers {
	return &offers{
		s: s, now: s.now(), projects: make(map[string]*projectOnce), metadata: make(map[string]*metadataOnce),
		ranged: make(map[string]artifact.Digest), known: known(prev), firstUses: make(map[string]*namedOnce),
	}
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
	p := &offered{files: make(map[string][]*offeredFile), wheels: make(map[string]bool)}
	s := &sorter{o: o, p: p, name: name, sdists: o.s.sdistAllowed(name), parsed: make(map[string]parsedName), versions: make(map[string]packaging.Version), pythons: make(map[string]packaging.Specifiers)}
	pg, host, err := o.s.page(ctx, name, s.keep)
	switch {
	case notFound(err):
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
	p.page, p.host = pg, host
	for i := range pg.Files {
		s.add(&pg.Files[i])
	}
	for key, v := range s.versions {
		if key == v.String() { // not one of its other spellings
			p.versions = append(p.versions, v)
		}
	}
	slices.SortFunc(p.versions, packaging.Version.Compare)
	return p, nil
}

// A sorter puts the files of a page under their versions. Of a large project
// most are for other targets: those are not kept.
type sorter struct {
	o        *offers
	p        *offered
	name     string
	sdists   bool
	parsed   map[string]parsedName // by filename
	versions map[string]packaging.Version
	pythons  map[string]packaging.Specifiers
}

type parsedName struct {
	wheel   packaging.WheelName
	version string // normal form
}

// version is the normal form of a filename's version, which most files of a
// page share with others.
func (s *sorter) version(v packaging.Version) string {
	if known, ok := s.versions[v.Text()]; ok {
		return known.String()
	}
	key := v.String()
	s.versions[v.Text()] = v
	if _, ok := s.versions[key]; !ok {
		s.versions[key] = v
	}
	return key
}

// keep says whether a file could be used by some target.
func (s *sorter) keep(filename string) bool {
	if !packaging.IsWheel(filename) {
		project, v, err := packaging.ParseDistName(filename)
		if err != nil || project != s.name {
			return false
		}
		key := s.version(v)
		if s.sdists {
			s.parsed[filename] = parsedName{version: key}
		}
		return s.sdists
	}
	w, err := packaging.ParseWheelName(filename)
	if err != nil || w.Project != s.name {
		return false
	}
	key := s.version(w.Version)
	s.p.wheels[key] = true
	fits := slices.ContainsFunc(s.o.s.targets, func(t *packaging.Target) bool {
		_, ok := t.Rank(w)
		return ok
	})
	if fits {
		s.parsed[filename] = parsedName{w, key}
	}
	return fits
}

// add keeps a file.
func (s *sorter) add(f *pageFile) {
	n, ok := s.parsed[f.Filename]
	if !ok {
		return
	}
	python, ok := s.pythons[f.RequiresPython]
	if !ok {
		// A malformed Requires-Python counts as none, as for installers.
		python, _ = packaging.ParseSpecifiers(f.RequiresPython)
		s.pythons[f.RequiresPython] = python
	}
	of := &offeredFile{pageFile: f, wheel: n.wheel, python: python}
	of.uploaded, _ = time.Parse(time.RFC3339Nano, f.UploadTime)
	s.p.files[n.version] = append(s.p.files[n.version], of)
}
