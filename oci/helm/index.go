package helm

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	yaml "go.yaml.in/yaml/v4"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// maxURLs bounds the addresses of one chart. Repositories give one.
	maxURLs = 16
	// maxURL bounds an address; servers take no longer ones.
	maxURL = 8 << 10
)

// An Entry is one version of a chart in an index.
type Entry struct {
	Name       string
	Version    string
	AppVersion string
	// Digest is of the .tgz. It is zero where the index has none, or none
	// that can be read.
	Digest artifact.Digest
	// URLs are where the .tgz lies, absolute or relative to the index.
	URLs []string

	APIVersion  string // of Chart.yaml: v1 or v2
	Description string
	KubeVersion string
	Type        string
	Created     string // RFC 3339, or empty
	Deprecated  bool
}

// A Skipped is an entry of an index that cannot be taken.
type Skipped struct {
	Name, Version string // as they stand there; either may be empty
	Reason        string
}

// An Index is an index.yaml. The zero Index is empty.
type Index struct {
	charts map[string][]Entry
	// Skipped are the entries that were left out. One broken version must not
	// keep the others of a repository away; Helm leaves it out as well.
	Skipped []Skipped
}

// Versions are the versions of a chart, the newest first by semantic
// versioning.
func (x *Index) Versions(name string) []Entry { return slices.Clone(x.charts[name]) }

// Names are the charts, sorted.
func (x *Index) Names() []string {
	names := make([]string, 0, len(x.charts))
	for name := range x.charts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// rawEntry is an entry as it stands in the index.
type rawEntry struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	AppVersion  string   `json:"appVersion"`
	APIVersion  string   `json:"apiVersion"`
	Description string   `json:"description"`
	KubeVersion string   `json:"kubeVersion"`
	Type        string   `json:"type"`
	Created     string   `json:"created"`
	Deprecated  bool     `json:"deprecated"`
	Digest      string   `json:"digest"`
	URLs        []string `json:"urls"`
}

// ParseIndex reads an index.yaml, which may be JSON. Its errors are ErrUnavailable
// refusals (CodeIndex) without a place: the caller knows the address.
func ParseIndex(b []byte) (*Index, error) {
	if len(b) > MaxIndex {
		return nil, unusable(CodeIndex, "index.yaml", fmt.Sprintf("has %d bytes, at most %d are taken", len(b), MaxIndex), nil)
	}
	x, err := parseParts(b)
	if err != nil && len(b) <= maxWhole {
		x, err = parseWhole(b)
	}
	if err != nil {
		return nil, unusable(CodeIndex, "index.yaml", "cannot be read", err)
	}
	return x, nil
}

// parseWhole reads an index of any layout.
func parseWhole(b []byte) (*Index, error) {
	root, err := document(b)
	if err != nil {
		return nil, err
	}
	entries, err := top(root)
	switch {
	case err != nil:
		return nil, err
	case entries == nil:
		return nil, errors.New("entries: missing")
	case entries.Kind == yaml.ScalarNode && scalar(entries) == nil:
		return &Index{}, nil // a repository without charts
	case entries.Kind != yaml.MappingNode:
		return nil, errors.New("entries: want charts by name")
	}
	r := newIndexReader()
	if err := r.entries(entries, false); err != nil {
		return nil, err
	}
	return r.index(), nil
}

// parseParts reads an index as Helm lays it out, part by part: read whole, a
// large one would take most of a gigabyte.
func parseParts(b []byte) (*Index, error) {
	around, entries, line, err := split(b)
	if err != nil {
		return nil, err
	}
	if len(around) > maxWhole {
		return nil, fmt.Errorf("%d bytes around the entries, at most %d are taken", len(around), maxWhole)
	}
	root, err := document(around)
	if err != nil {
		return nil, err
	}
	if again, err := top(root); err != nil || again != nil {
		return nil, errors.Join(err, errors.New("entries: not of the usual layout"))
	}
	r := newIndexReader()
	err = cuts(entries, line, func(p part) error {
		n, err := document(p.text)
		if err != nil {
			return err
		}
		return r.entries(n, p.continues)
	})
	if err != nil {
		return nil, err
	}
	return r.index(), nil
}

// top reads what is not an entry, and finds the entries.
func top(root *yaml.Node) (entries *yaml.Node, err error) {
	version := ""
	for k, v := range pairs(root) {
		switch k.Value {
		case "apiVersion":
			version = v.Value
		case "entries":
			entries = v
		}
	}
	if version != "v1" {
		return nil, fmt.Errorf("apiVersion: want v1, got %q", clip(version))
	}
	return entries, nil
}

// An indexReader collects entries.
type indexReader struct {
	x     *Index
	found map[string][]versioned
	last  string // the chart that was read last
	total int
}

func newIndexReader() *indexReader {
	return &indexReader{x: &Index{charts: make(map[string][]Entry)}, found: make(map[string][]versioned)}
}

// entries reads charts by name; with continues, the first is the last one so
// far.
func (r *indexReader) entries(n *yaml.Node, continues bool) error {
	for k, v := range pairs(n) {
		name := k.Value
		if _, twice := r.found[name]; twice != continues || continues && name != r.last {
			return fmt.Errorf("line %d: key %q stands twice", k.Line, clip(name))
		}
		continues, r.last = false, name
		if v.Kind != yaml.SequenceNode && (v.Kind != yaml.ScalarNode || scalar(v) != nil) {
			return fmt.Errorf("line %d: entries of %q: want a list", v.Line, clip(name))
		}
		if r.total += len(v.Content); r.total > MaxVersions {
			return fmt.Errorf("more than %d versions", MaxVersions)
		}
		list := r.found[name]
		for _, n := range v.Content {
			if e, ok := r.x.read(name, n); ok {
				list = append(list, e)
			}
		}
		r.found[name] = list
	}
	return nil
}

// index sorts what was found.
func (r *indexReader) index() *Index {
	for _, name := range slices.Sorted(maps.Keys(r.found)) {
		if list := r.x.settle(r.found[name]); len(list) > 0 {
			r.x.charts[name] = list
		}
	}
	return r.x
}

// versioned is an entry whose version has been read.
type versioned struct {
	Entry
	v *semver.Version
}

// read takes one entry, or notes why not.
func (x *Index) read(name string, n *yaml.Node) (versioned, bool) {
	var raw rawEntry
	skip := func(reason string, err error) (versioned, bool) {
		if err != nil {
			reason = strings.TrimPrefix(reason+": "+err.Error(), ": ")
		}
		x.Skipped = append(x.Skipped, Skipped{Name: clip(name), Version: clip(raw.Version), Reason: reason})
		return versioned{}, false
	}
	if n.Kind != yaml.MappingNode {
		return skip("not an entry", nil)
	}
	if err := decode(n, &raw); err != nil {
		return skip("", err)
	}
	if raw.Name != name {
		return skip(fmt.Sprintf("calls itself %q", clip(raw.Name)), nil)
	}
	if err := spec.CheckName(name); err != nil || strings.Contains(name, "/") {
		return skip("no name for an artifact", err)
	}
	v, err := semver.NewVersion(raw.Version)
	if err != nil {
		return skip("version", err)
	}
	if err := spec.CheckTag(Tag(raw.Version)); err != nil {
		return skip("version", err)
	}
	if err := checkURLs(raw.URLs); err != nil {
		return skip("urls", err)
	}
	e := Entry{
		Name: raw.Name, Version: raw.Version, AppVersion: raw.AppVersion, URLs: raw.URLs,
		APIVersion: raw.APIVersion, Description: raw.Description, KubeVersion: raw.KubeVersion,
		Type: raw.Type, Deprecated: raw.Deprecated,
	}
	if _, err := time.Parse(time.RFC3339, raw.Created); err == nil {
		e.Created = raw.Created
	}
	// Both forms are in use. A digest that is neither proves nothing.
	if d, err := artifact.ParseHex(strings.TrimPrefix(raw.Digest, "sha256:")); err == nil {
		e.Digest = d
	}
	return versioned{e, v}, true
}

func checkURLs(urls []string) error {
	if len(urls) > maxURLs {
		return fmt.Errorf("%d addresses, at most %d are taken", len(urls), maxURLs)
	}
	for _, u := range urls {
		if u == "" || len(u) > maxURL {
			return fmt.Errorf("an address of %d characters", len(u))
		}
		if _, err := url.Parse(u); err != nil {
			return errors.New("not an address") // the cause would repeat its credentials
		}
	}
	return nil
}

// settle sorts the versions of a chart. A version that stands there twice is
// left out where the two are not the same file: nothing says which is meant.
func (x *Index) settle(list []versioned) []Entry {
	slices.SortStableFunc(list, func(a, b versioned) int {
		if c := b.v.Compare(a.v); c != 0 {
			return c
		}
		return strings.Compare(a.Version, b.Version)
	})
	var out []Entry
	for i := 0; i < len(list); {
		first, same, end := list[i], true, i+1
		for ; end < len(list) && list[end].Version == first.Version; end++ {
			same = same && list[end].Digest == first.Digest
		}
		if same {
			out = append(out, first.Entry)
		} else {
			x.Skipped = append(x.Skipped, Skipped{first.Name, first.Version, "stands there twice, with two digests"})
		}
		i = end
	}
	return out
}
