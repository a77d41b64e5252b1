package helm

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/Masterminds/semver/v3"
)

// Files of a chart, in its folder.
const (
	chartFile        = "Chart.yaml"
	requirementsFile = "requirements.yaml"
)

// A metadata is Chart.yaml. As JSON, in the order of these fields, it is the
// config of the artifact.
type metadata struct {
	Name         string            `json:"name,omitempty"`
	Home         string            `json:"home,omitempty"`
	Sources      []string          `json:"sources,omitempty"`
	Version      string            `json:"version,omitempty"`
	Description  string            `json:"description,omitempty"`
	Keywords     []string          `json:"keywords,omitempty"`
	Maintainers  []*maintainer     `json:"maintainers,omitempty"`
	Icon         string            `json:"icon,omitempty"`
	APIVersion   string            `json:"apiVersion,omitempty"`
	Condition    string            `json:"condition,omitempty"`
	Tags         string            `json:"tags,omitempty"`
	AppVersion   string            `json:"appVersion,omitempty"`
	Deprecated   bool              `json:"deprecated,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	KubeVersion  string            `json:"kubeVersion,omitempty"`
	Dependencies []*dependency     `json:"dependencies,omitempty"`
	Type         string            `json:"type,omitempty"`
}

type maintainer struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
	URL   string `json:"url,omitempty"`
}

type dependency struct {
	Name         string   `json:"name"`
	Version      string   `json:"version,omitempty"`
	Repository   string   `json:"repository"`
	Condition    string   `json:"condition,omitempty"`
	Tags         []string `json:"tags,omitempty"`
	Enabled      bool     `json:"enabled,omitempty"`
	ImportValues []any    `json:"import-values,omitempty"`
	Alias        string   `json:"alias,omitempty"`
}

// readMetadata reads Chart.yaml and, of charts from before apiVersion v2, the
// requirements.yaml beside it, whose dependencies Helm writes into the config
// as if they stood in Chart.yaml. It may be nil.
func readMetadata(chart, requirements []byte) (*metadata, error) {
	var m metadata
	n, err := document(chart)
	if err == nil {
		err = decode(n, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", chartFile, err)
	}
	if m.APIVersion == "" {
		m.APIVersion = "v1" // charts of Helm 2
	}
	if requirements != nil {
		if n, err = document(requirements); err == nil {
			err = decode(n, &m)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", requirementsFile, err)
		}
	}
	if err := m.settle(); err != nil {
		return nil, fmt.Errorf("%s: %w", chartFile, err)
	}
	return &m, nil
}

// settle cleans the texts and refuses what Helm refuses to push or to install.
func (m *metadata) settle() error {
	for _, s := range []*string{&m.Name, &m.Description, &m.Home, &m.Icon, &m.Condition, &m.Tags, &m.AppVersion, &m.KubeVersion} {
		*s = clean(*s)
	}
	cleanAll(m.Sources)
	cleanAll(m.Keywords)
	switch {
	case m.APIVersion != "v1" && m.APIVersion != "v2":
		return fmt.Errorf("apiVersion: want v1 or v2, got %q", clip(m.APIVersion))
	case m.Name == "":
		return errors.New("name: missing")
	case m.Version == "":
		return errors.New("version: missing")
	case m.Type != "" && m.Type != "application" && m.Type != "library":
		return fmt.Errorf("type: want application or library, got %q", clip(m.Type))
	}
	if _, err := semver.NewVersion(m.Version); err != nil {
		return fmt.Errorf("version: %q: %w", clip(m.Version), err)
	}
	for i, p := range m.Maintainers {
		if p == nil {
			return fmt.Errorf("maintainers[%d]: empty", i)
		}
		p.Name, p.Email, p.URL = clean(p.Name), clean(p.Email), clean(p.URL)
	}
	return m.settleDependencies()
}

// aliasOK is what another name of a dependency may be.
var aliasOK = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)

func (m *metadata) settleDependencies() error {
	seen := make(map[string]bool)
	for i, d := range m.Dependencies {
		if d == nil {
			return fmt.Errorf("dependencies[%d]: empty", i)
		}
		d.Name, d.Version, d.Repository, d.Condition = clean(d.Name), clean(d.Version), clean(d.Repository), clean(d.Condition)
		cleanAll(d.Tags)
		if d.Alias != "" && !aliasOK.MatchString(d.Alias) {
			return fmt.Errorf("dependencies[%d].alias: %q: want letters, digits, '_' and '-'", i, clip(d.Alias))
		}
		name := d.Name
		if d.Alias != "" {
			name = d.Alias
		}
		if seen[name] {
			return fmt.Errorf("dependencies[%d]: %q stands twice", i, clip(name))
		}
		seen[name] = true
	}
	return nil
}

func cleanAll(list []string) {
	for i := range list {
		list[i] = clean(list[i])
	}
}

// clean makes every white space a blank and drops what cannot be printed, as
// Helm does before it writes a config.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsPrint(r):
			return r
		}
		return -1
	}, s)
}

// annotations are those that Helm writes into a manifest, but for the time of
// the push: the chart's own, and what can be told from its metadata.
func (m *metadata) annotations() map[string]string {
	const prefix = "org.opencontainers.image."
	out := make(map[string]string)
	set := func(key, value string) {
		if strings.TrimSpace(value) != "" {
			out[prefix+key] = value
		}
	}
	set("description", m.Description)
	set("title", m.Name)
	set("version", m.Version)
	set("url", m.Home)
	if len(m.Sources) > 0 {
		set("source", m.Sources[0])
	}
	set("authors", m.authors())
	for k, v := range m.Annotations {
		if k != prefix+"title" && k != prefix+"version" {
			out[k] = v
		}
	}
	return out
}

// authors are the maintainers as Helm writes them in one line.
func (m *metadata) authors() string {
	var all []string
	for _, p := range m.Maintainers {
		s := p.Name
		if p.Email != "" {
			s += " (" + p.Email + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}
