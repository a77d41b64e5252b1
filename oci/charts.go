package oci

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/helm"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// Charts serves the Helm charts of a source as a classic repository, for tools
// that do not know registries: index.yaml, NAME-VERSION.tgz and, where the
// chart has one, NAME-VERSION.tgz.prov. It follows imports without a restart
// and never fetches.
type Charts struct {
	dir string
	st  *store.Store
	log *slog.Logger

	mu    sync.Mutex
	at    Published
	index []byte
	files map[string]artifact.Digest
}

// NewCharts serves what the publisher of dir has published.
func NewCharts(dir string, st *store.Store, log *slog.Logger) *Charts {
	return &Charts{dir: dir, st: st, log: log}
}

// ServeHTTP answers GET and HEAD below the source's root.
func (c *Charts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "nothing can be changed here", http.StatusMethodNotAllowed)
		return
	}
	index, files, err := c.current()
	if err != nil {
		c.log.ErrorContext(r.Context(), "charts cannot be read", slog.String("dir", c.dir), slog.Any("error", err))
		http.Error(w, "the charts cannot be read; the server's log says why", http.StatusInternalServerError)
		return
	}
	if r.URL.Path == "/index.yaml" {
		w.Header().Set("Content-Type", "application/yaml")
		if _, err := w.Write(index); err != nil {
			c.log.DebugContext(r.Context(), "a client went away", slog.Any("error", err))
		}
		return
	}
	d, ok := files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	f, err := c.st.File(d)
	if err != nil {
		c.log.ErrorContext(r.Context(), "a chart cannot be read", slog.String("chart", r.URL.Path), slog.Any("error", err))
		http.Error(w, "the chart cannot be read; the server's log says why", http.StatusInternalServerError)
		return
	}
	defer func() { _ = f.Close() }() // only read
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+d.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

// current is the index as of the last import.
func (c *Charts) current() ([]byte, map[string]artifact.Digest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok, err := ReadPublished(c.dir)
	if err != nil || !ok {
		return helm.StaticIndex(nil), nil, err
	}
	if c.files != nil && at == c.at {
		return c.index, c.files, nil
	}
	set, err := at.Load(c.st)
	if err != nil {
		return nil, nil, err
	}
	files := make(map[string]artifact.Digest)
	var entries []helm.Entry
	for i := range set.Repositories {
		for _, im := range set.Repositories[i].Images {
			e, err := c.chart(&set.Repositories[i], im, files)
			if err != nil {
				return nil, nil, err
			}
			if e != nil {
				entries = append(entries, *e)
			}
		}
	}
	c.at, c.index, c.files = at, helm.StaticIndex(entries), files
	return c.index, c.files, nil
}

// chart is the entry of an image that is a chart; nil for any other.
func (c *Charts) chart(r *Repository, im Image, files map[string]artifact.Digest) (*helm.Entry, error) {
	m, err := c.manifest(r, im.Root)
	if err != nil || m == nil || m.Config == nil || m.Config.MediaType != spec.HelmConfig {
		return nil, err
	}
	sum, ok := m.Config.Digest.SHA256()
	if !ok {
		return nil, nil
	}
	b, err := c.st.ReadAll(sum, maxConfig)
	if err != nil {
		return nil, err
	}
	var meta struct {
		Name, Version, AppVersion, APIVersion, Description, KubeVersion, Type string
		Deprecated                                                            bool
	}
	if err := json.Unmarshal(b, &meta); err != nil || artifact.CheckPath(meta.Name+"-"+meta.Version+".tgz") != nil {
		return nil, nil //nolint:nilerr // not a chart that a classic client could name
	}
	name := meta.Name + "-" + meta.Version + ".tgz"
	e := &helm.Entry{
		Name: meta.Name, Version: meta.Version, AppVersion: meta.AppVersion, URLs: []string{name}, APIVersion: meta.APIVersion,
		Description: meta.Description, KubeVersion: meta.KubeVersion, Type: meta.Type, Deprecated: meta.Deprecated,
	}
	for _, l := range m.Layers {
		sum, ok := l.Digest.SHA256()
		switch {
		case ok && l.MediaType == spec.HelmChart && e.Digest.IsZero():
			e.Digest, files["/"+name] = sum, sum
		case ok && l.MediaType == spec.HelmProvenance:
			files["/"+name+".prov"] = sum
		}
	}
	if e.Digest.IsZero() {
		return nil, nil
	}
	return e, nil
}

// manifest reads one of a repository's manifests; nil for an index.
func (c *Charts) manifest(r *Repository, d spec.Digest) (*spec.Manifest, error) {
	for _, m := range r.Manifests {
		if m.Digest != d || m.MediaType != spec.OCIManifest {
			continue
		}
		b, err := c.st.ReadAll(m.Blob, spec.MaxManifest)
		if err != nil {
			return nil, err
		}
		return spec.ParseManifest(b, m.MediaType)
	}
	return nil, nil
}
