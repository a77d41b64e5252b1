package helm

import (
	"errors"
	"fmt"
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
	refuse := func(err error) (*Index, error) {
		return nil, unusable(CodeIndex, "index.yaml", "cannot be read", err)
	}
	if len(b) > MaxIndex {
		return refuse(fmt.Errorf("%d bytes, at most %d are taken", len(b), MaxIndex))
	}
	root, err := document(b)
	if err != nil {
		return refuse(err)
	}
	var entries *yaml.Node
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
		return refuse(fmt.Errorf("apiVersion: want v1, got %q", clip(version)))
	}
	x, err := readEntries(entries)
	if err != nil {
		return refuse(err)
	}
	return x, nil
}

func readEntries(entries *yaml.Node) (*Index, error) {
	switch {
	case entries == nil:
		return nil, errors.New("entries: missing")
	case entries.Kind == yaml.ScalarNode && scalar(entries) == nil:
		return &Index{}, nil // a repository without charts
	case entries.Kind != yaml.MappingNode:
		return nil, errors.New("entries: want charts by name")
	}
	x := &Index{charts: make(map[string][]Entry)}
	total := 0
	for k, v := range pairs(entries) {
		if v.Kind == yaml.ScalarNode && scalar(v) == nil {
			continue
		}
		if v.Kind != yaml.SequenceNode {
			return nil, fmt.Errorf("line %d: entries of %q: want a list", v.Line, clip(k.Value))
		}
		if total += len(v.Content); total > MaxVersions {
			return nil, fmt.Errorf("more than %d versions", MaxVersions)
		}
		list := make([]versioned, 0, len(v.Content))
		for _, n := range v.Content {
			if e, ok := x.read(k.Value, n); ok {
				list = append(list, e)
			}
		}
		if list := x.settle(list); len(list) > 0 {
			x.charts[k.Value] = list
		}
	}
	return x, nil
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
