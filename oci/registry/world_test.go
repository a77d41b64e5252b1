package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// A world is a registry of two sources with its store.
type world struct {
	t     testing.TB
	dir   string
	store *store.Store
	h     *Handler
	url   string
	token string
}

const secret = "push secret"

// newWorld serves the sources conformance and platform.
func newWorld(t testing.TB, o Options) *world {
	t.Helper()
	w := openWorld(t, t.TempDir(), o)
	srv := httptest.NewServer(w.h)
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

func openWorld(t testing.TB, dir string, o Options) *world {
	t.Helper()
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := New([]Source{{"platform", filepath.Join(dir, "platform")}, {"conformance", filepath.Join(dir, "conformance")}}, st, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t: t, dir: dir, store: st, h: h, token: o.PushToken}
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

// code is the specification's error code of a reply.
func (r *reply) code() string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(r.body, &e) != nil || len(e.Errors) != 1 || e.Errors[0].Message == "" {
		return fmt.Sprintf("no error document: %q", r.body)
	}
	return e.Errors[0].Code
}

// do makes a request; headers are pairs.
func (w *world) do(method, path string, body io.Reader, headers ...string) *reply {
	w.t.Helper()
	r, err := w.try(w.t.Context(), method, path, body, headers...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) try(ctx context.Context, method, path string, body io.Reader, headers ...string) (*reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.url+path, body)
	if err != nil {
		return nil, err
	}
	if w.token != "" {
		req.SetBasicAuth("tester", w.token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		}
	}
	tr, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, fmt.Errorf("unexpected transport %T", http.DefaultTransport)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	return &reply{resp.StatusCode, resp.Header, b}, err
}

// want checks status and, for a refusal, the error code.
func (w *world) want(r *reply, status int, code string) *reply {
	w.t.Helper()
	if r.status != status || code != "" && r.code() != code {
		w.t.Fatalf("got %d %s, want %d %s", r.status, r.body, status, code)
	}
	return r
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func digestOf(b []byte) spec.Digest { return spec.FromSHA256(artifact.Sum(b)) }

// pushBlob pushes in one request.
func (w *world) pushBlob(repo string, b []byte) spec.Descriptor {
	w.t.Helper()
	d := digestOf(b)
	w.want(w.do(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+string(d), bytes.NewReader(b)), http.StatusCreated, "")
	return spec.Descriptor{MediaType: spec.OCILayer, Digest: d, Size: int64(len(b))}
}

// imageOf writes a manifest with that config and those layers.
func imageOf(config spec.Descriptor, layers ...spec.Descriptor) *spec.Manifest {
	config.MediaType = spec.OCIConfig
	return &spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIManifest, Config: &config, Layers: layers}
}

func indexOf(children ...spec.Descriptor) *spec.Manifest {
	return &spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIIndex, Manifests: children}
}

func encode(t testing.TB, m *spec.Manifest) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put pushes a manifest and returns the answer.
func (w *world) put(repo, ref string, m *spec.Manifest) *reply {
	w.t.Helper()
	return w.do(http.MethodPut, "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(encode(w.t, m)), "Content-Type", m.MediaType)
}

// pushImage pushes a whole image of one layer, which seed makes.
func (w *world) pushImage(repo, ref string, seed byte) spec.Descriptor {
	w.t.Helper()
	m := imageOf(w.pushBlob(repo, noise(100, seed)), w.pushBlob(repo, noise(5000, seed+100)))
	w.want(w.put(repo, ref, m), http.StatusCreated, "")
	b := encode(w.t, m)
	return spec.Descriptor{MediaType: m.MediaType, Digest: digestOf(b), Size: int64(len(b))}
}

// An upstreamImage is an image that an import publishes.
type upstreamImage struct {
	repo, tag string
	blobs     [][]byte
	manifest  []byte
	mediaType string
	children  []upstreamImage // without tags
}

func upstream(t testing.TB, repo, tag string, seed byte, subject *spec.Descriptor) upstreamImage {
	t.Helper()
	config, layer := noise(200, seed), noise(20_000, seed+100)
	m := imageOf(describe(config), describe(layer))
	m.Subject = subject
	return upstreamImage{repo: repo, tag: tag, blobs: [][]byte{config, layer}, manifest: encode(t, m), mediaType: m.MediaType}
}

func describe(b []byte) spec.Descriptor {
	return spec.Descriptor{MediaType: spec.OCILayer, Digest: digestOf(b), Size: int64(len(b))}
}

func (u upstreamImage) descriptor() spec.Descriptor {
	d := describe(u.manifest)
	d.MediaType = u.mediaType
	return d
}

// publish does what an import does: blobs, record, snapshot, pointer.
func (w *world) publish(source string, seq int, images ...upstreamImage) {
	w.t.Helper()
	if err := w.tryPublish(source, seq, images...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) tryPublish(source string, seq int, images ...upstreamImage) error {
	type image struct {
		Version string      `json:"version"`
		Tag     string      `json:"tag,omitempty"`
		Root    spec.Digest `json:"root"`
	}
	type manifest struct {
		Digest    spec.Digest `json:"digest"`
		MediaType string      `json:"media_type"`
	}
	type repository struct {
		Name      string     `json:"name"`
		Images    []image    `json:"images"`
		Manifests []manifest `json:"manifests"`
	}
	repos := make(map[string]*repository)
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: "oci/" + source, Meta: []artifact.File{}, Artifacts: []artifact.Artifact{}}
	keep := func(a *artifact.Artifact, kind string, b []byte) error {
		d, err := w.store.PutBytes(b)
		a.Files = append(a.Files, artifact.File{Path: a.Name + "/" + kind + "/" + d.String(), Digest: d, Size: int64(len(b))})
		return err
	}
	var add func(a *artifact.Artifact, u upstreamImage) error
	add = func(a *artifact.Artifact, u upstreamImage) error {
		for _, c := range u.children {
			if err := add(a, c); err != nil {
				return err
			}
		}
		for _, b := range u.blobs {
			if err := keep(a, "blobs", b); err != nil {
				return err
			}
		}
		repos[a.Name].Manifests = append(repos[a.Name].Manifests, manifest{digestOf(u.manifest), u.mediaType})
		return keep(a, "manifests", u.manifest)
	}
	for _, u := range images {
		if repos[u.repo] == nil {
			repos[u.repo] = &repository{Name: u.repo}
		}
		version := u.tag
		if version == "" {
			version = string(digestOf(u.manifest))
		}
		a := artifact.Artifact{Name: u.repo, Version: version, Why: "test"}
		if err := add(&a, u); err != nil {
			return err
		}
		repos[u.repo].Images = append(repos[u.repo].Images, image{version, u.tag, digestOf(u.manifest)})
		snap.Artifacts = append(snap.Artifacts, a)
	}
	list := make([]*repository, 0, len(repos))
	for _, r := range repos {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *repository) int { return strings.Compare(a.Name, b.Name) })
	rec, err := json.Marshal(map[string]any{"schema": "darkmirror.oci/v1", "repositories": list})
	if err != nil {
		return err
	}
	rd, err := w.store.PutBytes(rec)
	if err != nil {
		return err
	}
	snap.Meta = append(snap.Meta, artifact.File{Path: "oci.json", Digest: rd, Size: int64(len(rec))})
	b, err := snap.Encode()
	if err != nil {
		return err
	}
	sd, err := w.store.PutBytes(b)
	if err != nil {
		return err
	}
	ptr, err := json.Marshal(map[string]any{"schema": "darkmirror.oci-published/v1", "snapshot": sd, "seq": seq, "time": time.Unix(0, 0).UTC()})
	if err != nil {
		return err
	}
	dir := filepath.Join(w.dir, source)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, "current.json"), ptr, 0o640)
}
