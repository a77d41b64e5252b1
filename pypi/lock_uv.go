package pypi

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// uvVersion is the version of uv.lock that is known, uvRevision its newest
	// known revision. A revision adds what older readers may leave out.
	uvVersion  = 1
	uvRevision = 3
	// maxVersionsOf bounds the versions of one project in one lock. Each fork
	// of a universal lock has at most one; real ones have up to five.
	maxVersionsOf = 256
	// maxUVEdges bounds the dependencies of a lock, each counted once for
	// every package that it may mean.
	maxUVEdges = 1 << 20
	// mostTold bounds the names that one note lists.
	mostTold = 12
)

// uvLock is what is read of a uv.lock.
type uvLock struct {
	Version           int64    `toml:"version"`
	Revision          int64    `toml:"revision"`
	RequiresPython    string   `toml:"requires-python"`
	ResolutionMarkers []string `toml:"resolution-markers"`
	SupportedMarkers  []string `toml:"supported-markers"`
	// Conflicts are sets of which at most one is chosen.
	Conflicts [][]uvItem `toml:"conflicts"`
	Manifest  struct {
		Members          []string                   `toml:"members"`
		Requirements     []uvRequirement            `toml:"requirements"`
		DependencyGroups map[string][]uvRequirement `toml:"dependency-groups"`
	} `toml:"manifest"`
	Packages []uvPackage `toml:"package"`
}

type uvPackage struct {
	Name              string                    `toml:"name"`
	Version           string                    `toml:"version"`
	Source            uvSource                  `toml:"source"`
	ResolutionMarkers []string                  `toml:"resolution-markers"`
	Dependencies      []uvDependency            `toml:"dependencies"`
	Optional          map[string][]uvDependency `toml:"optional-dependencies"`
	Dev               map[string][]uvDependency `toml:"dev-dependencies"`
	Groups            map[string][]uvDependency `toml:"dependency-groups"`
	Sdist             *uvFile                   `toml:"sdist"`
	Wheels            []uvFile                  `toml:"wheels"`
	Metadata          struct {
		Extras []string `toml:"provides-extras"`
	} `toml:"metadata"`
}

// uvSource is where a package comes from: exactly one of the keys is there.
type uvSource struct {
	Registry  string `toml:"registry"`
	Git       string `toml:"git"`
	URL       string `toml:"url"`
	Path      string `toml:"path"`
	Directory string `toml:"directory"`
	Editable  string `toml:"editable"`
	Virtual   string `toml:"virtual"`
}

// kind names the source, and place is its value.
func (s *uvSource) kind() (kind, place string) {
	for _, k := range [][2]string{
		{"registry", s.Registry},
		{"git", s.Git},
		{"url", s.URL},
		{"path", s.Path},
		{"directory", s.Directory},
		{"editable", s.Editable},
		{"virtual", s.Virtual},
	} {
		if k[1] != "" {
			return k[0], k[1]
		}
	}
	return "", ""
}

// own reports whether the source is a folder beside the lock.
func (s *uvSource) own() bool { return s.Directory != "" || s.Editable != "" || s.Virtual != "" }

type uvDependency struct {
	Name    string    `toml:"name"`
	Version string    `toml:"version"`
	Source  *uvSource `toml:"source"`
	Extra   []string  `toml:"extra"`
	Marker  string    `toml:"marker"`
}

// uvRequirement is a requirement of a script or of a workspace without a
// project at its root.
type uvRequirement struct {
	Name      string   `toml:"name"`
	Extras    []string `toml:"extras"`
	Specifier string   `toml:"specifier"`
	Marker    string   `toml:"marker"`
}

// uvItem is an extra, a group or a whole package that excludes others.
type uvItem struct {
	Package string `toml:"package"`
	Extra   string `toml:"extra"`
	Group   string `toml:"group"`
}

// name is how uv writes the item into markers.
func (c uvItem) name() string {
	switch {
	case c.Extra != "":
		return fmt.Sprintf("extra-%d-%s-%s", len(c.Package), c.Package, c.Extra)
	case c.Group != "":
		return fmt.Sprintf("group-%d-%s-%s", len(c.Package), c.Package, c.Group)
	}
	return fmt.Sprintf("project-%d-%s", len(c.Package), c.Package)
}

type uvFile struct {
	URL      string `toml:"url"`
	Path     string `toml:"path"`
	Filename string `toml:"filename"`
	Hash     string `toml:"hash"`
	Size     *int64 `toml:"size"`
}

func readUVLock(file string) (*Lock, error) {
	b, err := readFile(file)
	if err != nil {
		return nil, err
	}
	return parseUVLock(b, filepath.Base(file))
}

// parseUVLock reads a uv.lock. As of a pylock.toml, only the names, hashes
// and sizes of its files are used, never their URLs.
func parseUVLock(b []byte, name string) (*Lock, error) {
	var doc uvLock
	err := unmarshalTOML(b, name, "uv.lock", &doc)
	if err != nil {
		// What another version holds may not even decode.
		var head struct {
			Version int64 `toml:"version"`
		}
		if unmarshalTOML(b, name, "uv.lock", &head) != nil || head.Version == uvVersion {
			return nil, err
		}
		doc.Version = head.Version
	}
	if doc.Version != uvVersion {
		return nil, lockRefusal("-VERSION", name, fmt.Sprintf("version %d of a uv.lock: only %d is known", doc.Version, uvVersion), nil)
	}
	l := &Lock{where: name}
	if doc.Revision > uvRevision {
		l.Notes = append(l.Notes, fmt.Sprintf("%s: revision %d is newer than %d; what it adds is not read", name, doc.Revision, uvRevision))
	}
	if l.RequiresPython, err = packaging.ParseSpecifiers(doc.RequiresPython); err != nil {
		return nil, lockRefusal("-SYNTAX", name, "requires-python", err)
	}
	if len(doc.Packages) > maxPins {
		return nil, lockRefusal("-LIMIT", name, fmt.Sprintf("over %d packages", maxPins), nil)
	}
	g := &uvGraph{where: name, markers: make(map[string]packaging.Marker), byName: make(map[string][]int)}
	for _, list := range [][]string{doc.ResolutionMarkers, doc.SupportedMarkers} {
		var markers []packaging.Marker
		for _, text := range list {
			m, err := g.marker(text)
			if err != nil {
				return nil, lockRefusal("-SYNTAX", name, "resolution-markers and supported-markers", err)
			}
			markers = append(markers, m)
		}
		if len(markers) > 0 {
			l.Environments = markers // the supported ones are the narrower
		}
	}
	lines := headerLines(b, "package")
	for i := range doc.Packages {
		where := name
		if len(lines) == len(doc.Packages) {
			where = fmt.Sprintf("%s:%d", name, lines[i])
		}
		n, err := g.node(&doc.Packages[i], where)
		if err != nil {
			return nil, err
		}
		g.nodes = append(g.nodes, *n)
		if g.byName[n.name] = append(g.byName[n.name], i); len(g.byName[n.name]) > maxVersionsOf {
			return nil, lockRefusal("-LIMIT", where, fmt.Sprintf("over %d versions of %s", maxVersionsOf, n.name), nil)
		}
	}
	if err := g.link(&doc); err != nil {
		return nil, err
	}
	g.worlds = worldsOf(doc.Conflicts)
	l.graph, l.extras, l.groups = g, g.extras, g.groups
	l.Notes = append(l.Notes, g.notes()...)
	for i := range g.nodes {
		if p := g.nodes[i].pin; p != nil {
			l.Pins = append(l.Pins, *p)
		}
	}
	return l, nil
}

// unmarshalTOML decodes a file; what names its kind.
func unmarshalTOML(b []byte, name, what string, doc any) error {
	err := toml.Unmarshal(b, doc)
	if err == nil {
		return nil
	}
	where := name
	if de, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := de.Position()
		where = fmt.Sprintf("%s:%d", name, row)
	}
	return lockRefusal("-SYNTAX", where, "not a "+what, err)
}

// node checks one package.
func (g *uvGraph) node(p *uvPackage, where string) (*uvNode, error) {
	name, err := packaging.NormalizeName(p.Name)
	if err != nil {
		return nil, lockRefusal("-SYNTAX", where, "package name", err)
	}
	if name != p.Name {
		return nil, lockRefusal("-SYNTAX", where, fmt.Sprintf("package name %q is not in its normal form %q", clip(p.Name), name), nil)
	}
	n := &uvNode{name: name, where: where, source: p.Source}
	if n.kind, n.place = p.Source.kind(); n.kind == "" {
		return nil, lockRefusal("-SYNTAX", where, name+" has no source that is known", nil)
	}
	if p.Version != "" {
		if n.version, err = packaging.ParseVersion(p.Version); err != nil {
			return nil, lockRefusal("-SYNTAX", where, name, err)
		}
	}
	for _, text := range p.ResolutionMarkers {
		if _, err := g.marker(text); err != nil {
			return nil, lockRefusal("-SYNTAX", where, name+": resolution-markers", err)
		}
	}
	n.forks = p.ResolutionMarkers
	if n.kind != "registry" {
		return n, nil // it is the project itself, or refused if it is needed
	}
	if p.Version == "" {
		return nil, lockRefusal("-UNPINNED", where, name+" has no version", nil)
	}
	n.pin = &Pin{Name: name, Version: n.version, Where: where, Files: make([]LockedFile, 0, len(p.Wheels)+1)}
	return n, n.files(p)
}

// files fills the pin's files.
func (n *uvNode) files(p *uvPackage) error {
	files := p.Wheels
	if p.Sdist != nil {
		files = append(slices.Clone(files), *p.Sdist)
	}
	if len(files) == 0 || len(files) > maxHashes {
		return lockRefusal("-SYNTAX", n.where, fmt.Sprintf("%s: %d files, want 1 to %d", n.name, len(files), maxHashes), nil)
	}
	for i := range files {
		f := &files[i]
		hash, _ := strings.CutPrefix(f.Hash, "sha256:")
		if hash == f.Hash {
			hash = "" // another algorithm, or none: it counts if the file does
		}
		lf, err := (&pylockFile{Name: f.Filename, URL: f.URL, Path: f.Path, Size: f.Size, Hashes: pylockHashes{SHA256: hash}}).locked()
		if err != nil {
			return lockRefusal("-FILE", n.where, n.name, err)
		}
		project, version, err := packaging.ParseDistName(lf.Name)
		if err != nil {
			continue // safe, but no shape that anything installs
		}
		if project != n.name || version.Compare(n.version) != 0 {
			return lockRefusal("-FILE", n.where, fmt.Sprintf("%s is not a file of %s %s", lf.Name, n.name, n.version), nil)
		}
		if lf.Digest.IsZero() {
			n.unhashed = append(n.unhashed, lf.Name)
			continue
		}
		n.pin.Files = append(n.pin.Files, lf)
	}
	return nil
}
