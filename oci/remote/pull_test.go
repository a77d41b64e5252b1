package remote

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

func TestManifest(t *testing.T) {
	w := newWorld(t)
	img := ocitest.Image(ocitest.Noise(100, 1))
	d := w.r.Put("library/app", "1.0", img)
	c := w.client()
	for _, ref := range []string{"1.0", string(d)} {
		raw, err := c.Manifest(t.Context(), "library/app", ref)
		must(t, err)
		if diff := cmp.Diff(&Raw{Bytes: img.Raw, MediaType: spec.OCIManifest, Digest: d}, raw); diff != "" {
			t.Errorf("%s: %s", ref, diff)
		}
		head, err := c.Head(t.Context(), "library/app", ref)
		must(t, err)
		if diff := cmp.Diff(&spec.Descriptor{MediaType: spec.OCIManifest, Digest: d, Size: img.Size}, head); diff != "" {
			t.Errorf("%s: %s", ref, diff)
		}
	}
	if head, err := c.Head(t.Context(), "library/app", "none"); head != nil || err != nil {
		t.Errorf("want nothing, got %v, %v", head, err)
	}
	_, err := c.Manifest(t.Context(), "library/app", "none")
	if !IsNotFound(err) || !errors.Is(err, artifact.ErrUnavailable) {
		t.Errorf("want not found, got %v", err)
	}
	for _, part := range []string{"library/app:none", c.Host(), "404 Not Found", "MANIFEST_UNKNOWN", "req-"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q: %v", part, err)
		}
	}
	w.r.Set(ocitest.NoDigestHeader())
	head, err := c.Head(t.Context(), "library/app", "1.0")
	must(t, err)
	if head.Digest != d {
		t.Errorf("want %s, got %s", d, head.Digest)
	}
}

func TestManifestSHA512(t *testing.T) {
	w := newWorld(t)
	img := ocitest.Image()
	sum := sha512.Sum512(img.Raw)
	d := spec.Digest("sha512:" + hex.EncodeToString(sum[:]))
	w.r.AddManifestAs("app", d, img.MediaType, img.Raw)
	raw, err := w.client().Manifest(t.Context(), "app", string(d))
	must(t, err)
	if raw.Digest != d {
		t.Errorf("want %s, got %s", d, raw.Digest)
	}
}

func TestManifestWrong(t *testing.T) {
	w := newWorld(t)
	img := ocitest.Image()
	d := w.r.Put("app", "1", img)
	w.r.Set(ocitest.Replace(d, bytes.Replace(img.Raw, []byte("2"), []byte("3"), 1)))
	c := w.client()
	for _, ref := range []string{"1", string(d)} {
		_, err := c.Manifest(t.Context(), "app", ref)
		r := refused(t, err, artifact.ErrIntegrity, CodeDigest)
		if r.Want != string(d) || r.Got == "" || r.Got == r.Want {
			t.Errorf("%s: want %s, got %s", ref, r.Want, r.Got)
		}
	}
	if n := w.r.Count("GET", "/manifests/"); n != 2 {
		t.Errorf("a wrong manifest was read again: %d requests", n)
	}
	w.r.Set(ocitest.Replace(d, bytes.Repeat([]byte(" "), spec.MaxManifest+1)))
	_, err := c.Manifest(t.Context(), "app", "1")
	_ = refused(t, err, artifact.ErrIntegrity, spec.CodeManifestSize)
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	for _, bad := range [][2]string{{"../x", "1"}, {"app", "../../etc"}, {"app", "sha256:12"}, {"App", "1"}, {"app", ""}} {
		if _, err := c.Manifest(t.Context(), bad[0], bad[1]); err == nil {
			t.Errorf("%v: want an error", bad)
		}
	}
	if got := w.r.Requests(); len(got) != 0 {
		t.Errorf("requests were sent: %v", got)
	}
}

func TestTags(t *testing.T) {
	w := newWorld(t, ocitest.PageSize(3))
	var want []string
	for i := range 10 {
		tag := fmt.Sprintf("v%d", i)
		want = append(want, tag)
		w.r.Put("app", tag, ocitest.Image())
	}
	got, err := w.client().Tags(t.Context(), "app")
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := w.r.Count("GET", "/tags/list"); n != 4 {
		t.Errorf("want 4 pages, got %d", n)
	}
	if _, err := w.client().Tags(t.Context(), "none"); !IsNotFound(err) {
		t.Errorf("want not found, got %v", err)
	}
}

func TestLinks(t *testing.T) {
	w := newWorld(t)
	w.r.Put("app", "1", ocitest.Image())
	for _, c := range []struct{ name, link, want string }{
		{"elsewhere", `<https://files.example/v2/app/tags/list?last=1>; rel="next"`, "is nowhere that we may go"},
		{"allowed, but another", `<` + w.storage + `/v2/app/tags/list?last=1>; rel="next"`, "on another host"},
		{"circle", `</v2/app/tags/list?n=1000>; rel="next"`, "circle"},
		{"garbage", `next`, "link header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.r.Set(ocitest.Healthy(), ocitest.Before(func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Link", c.link)
				return false
			}))
			_, err := w.client().Tags(t.Context(), "app")
			r := refused(t, err, artifact.ErrUnavailable, CodeLink)
			if !strings.Contains(r.Reason, c.want) {
				t.Errorf("want %q, got %q", c.want, r.Reason)
			}
		})
	}
}

func TestReferrers(t *testing.T) {
	w := newWorld(t, ocitest.PageSize(2))
	img := ocitest.Image()
	d := w.r.Put("app", "1", img)
	c := w.client()
	var want []spec.Digest
	for i := range 5 {
		o := ocitest.Artifact("application/spdx+json", img, fmt.Appendf(nil, "{%d}", i))
		w.r.Put("app", "", o)
		want = append(want, o.Digest)
	}
	list, api, err := c.Referrers(t.Context(), "app", d)
	must(t, err)
	if !api {
		t.Error("the API was not found")
	}
	sortDigests(want)
	if diff := cmp.Diff(want, digests(list)); diff != "" {
		t.Error(diff)
	}
	if list[0].ArtifactType != "application/spdx+json" {
		t.Errorf("type: %q", list[0].ArtifactType)
	}
	if list, api, err := c.Referrers(t.Context(), "none", d); len(list) != 0 || !api || err != nil {
		t.Errorf("want an empty list, got %v, %v, %v", list, api, err)
	}
}

func TestReferrersFallback(t *testing.T) {
	page := ocitest.Before(func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.Contains(q.URL.Path, "/referrers/") {
			return false
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html>")
		return true
	})
	for name, opt := range map[string]ocitest.Option{"404": ocitest.NoReferrersAPI(), "a page for people": page} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, opt)
			img := ocitest.Image()
			d := w.r.Put("app", "1", img)
			c := w.client()
			if list, api, err := c.Referrers(t.Context(), "app", d); list != nil || api || err != nil {
				t.Errorf("want nothing, got %v, %v, %v", list, api, err)
			}
			sbom := ocitest.Artifact("application/spdx+json", img, []byte("{}"))
			w.r.Put("app", spec.ReferrersTag(d), ocitest.Index(sbom))
			list, api, err := c.Referrers(t.Context(), "app", d)
			must(t, err)
			if api || len(list) != 1 || list[0].Digest != sbom.Digest {
				t.Errorf("want %s, got %v, %v", sbom.Digest, list, api)
			}
			w.r.AddManifest("app", spec.ReferrersTag(d), img.MediaType, img.Raw)
			_, _, err = c.Referrers(t.Context(), "app", d)
			_ = refused(t, err, artifact.ErrIntegrity, spec.CodeManifest)
		})
	}
}

func TestDownload(t *testing.T) {
	w := newWorld(t)
	b := ocitest.Noise(2<<20, 1)
	d := w.r.AddBlob("app", b).Digest
	w.r.Set(ocitest.CutDownload(d, 700_000, 2))
	p := &partial{total: int64(len(b)), want: d}
	must(t, w.client().Download(t.Context(), "app", d, p))
	if !p.done || !bytes.Equal(p.b, b) {
		t.Errorf("got %d bytes", len(p.b))
	}
	// The server may not have counted its last write yet.
	if got := w.r.Sent("GET", "/blobs/"); got > int64(len(b)) {
		t.Errorf("want each byte once, got %d of %d", got, len(b))
	}
	if n := w.r.Count("GET", "/blobs/"); n != 3 {
		t.Errorf("want 3 requests, got %d", n)
	}
}

func TestDownloadElsewhere(t *testing.T) {
	w := newWorld(t)
	w.r.Set(ocitest.TokenAuth("me", "password-1", w.tokens+"/token"), ocitest.Redirect(w.storage))
	b := ocitest.Noise(1000, 1)
	d := w.r.AddBlob("app", b).Digest
	c := w.client(as("me", "password-1"))
	p := &partial{total: int64(len(b)), want: d}
	must(t, c.Download(t.Context(), "app", d, p))
	body, size, err := c.OpenBlob(t.Context(), "app", d)
	must(t, err)
	got, err := io.ReadAll(body)
	must(t, err)
	must(t, body.Close())
	if !bytes.Equal(got, b) || size != int64(len(b)) || !p.done {
		t.Errorf("got %d bytes of %d", len(got), size)
	}
	stored, tokens := 0, 0
	for _, q := range w.r.Requests() {
		auth := q.Header.Get("Authorization")
		switch q.Server {
		case ocitest.OnStorage:
			stored++
			if auth != "" || q.Header.Get("Referer") != "" {
				t.Errorf("the storage host got %q", auth)
			}
		case ocitest.OnToken:
			tokens++
			if !strings.HasPrefix(auth, "Basic ") {
				t.Errorf("the token server got %q", auth)
			}
		case ocitest.OnRegistry:
			if strings.HasPrefix(auth, "Basic ") {
				t.Error("the registry got the password")
			}
		}
	}
	if stored != 2 || tokens != 1 {
		t.Errorf("want 2 downloads and 1 token, got %d and %d: %v", stored, tokens, w.r.Requests())
	}

	w.hosts = w.hosts[:2]
	err = w.client(as("me", "password-1")).Download(t.Context(), "app", d, &partial{total: int64(len(b)), want: d})
	if h, ok := errors.AsType[*fetch.HostError](err); !ok || "http://"+h.Host != w.storage {
		t.Errorf("want the storage host refused, got %v", err)
	}
	if strings.Contains(fmt.Sprint(err), "secret") {
		t.Errorf("a secret is in %v", err)
	}
}

func TestOpenBlob(t *testing.T) {
	w := newWorld(t)
	b := ocitest.Noise(1000, 1)
	sum := sha512.Sum512(b)
	d := spec.Digest("sha512:" + hex.EncodeToString(sum[:]))
	w.r.AddBlobAs("app", d, b)
	read := func() error {
		body, _, err := w.client().OpenBlob(t.Context(), "app", d)
		must(t, err)
		defer func() { must(t, body.Close()) }()
		_, err = io.Copy(io.Discard, body)
		return err
	}
	must(t, read())
	w.r.Set(ocitest.Replace(d, ocitest.Noise(1000, 2)))
	_ = refused(t, read(), artifact.ErrIntegrity, CodeDigest)
}

func TestHasBlob(t *testing.T) {
	w := newWorld(t)
	d := w.r.AddBlob("app", ocitest.Noise(1000, 1)).Digest
	c := w.client()
	if ok, err := c.HasBlob(t.Context(), "app", d, 1000); !ok || err != nil {
		t.Errorf("want yes, got %v, %v", ok, err)
	}
	if ok, err := c.HasBlob(t.Context(), "other", d, 1000); ok || err != nil {
		t.Errorf("want no, got %v, %v", ok, err)
	}
	_, err := c.HasBlob(t.Context(), "app", d, 999)
	if r := refused(t, err, artifact.ErrIntegrity, CodeSize); r.Want != "999" || r.Got != "1000" {
		t.Errorf("want 999 against 1000, got %v", r)
	}
}

func TestBusy(t *testing.T) {
	w := newWorld(t, ocitest.Busy(2, http.StatusServiceUnavailable, ""))
	w.r.Put("app", "1", ocitest.Image())
	_, err := w.client().Manifest(t.Context(), "app", "1")
	must(t, err)
	if n := w.r.Count("GET", "/manifests/"); n != 3 {
		t.Errorf("want 3 requests, got %d", n)
	}
	w.r.Set(ocitest.Busy(1, http.StatusTooManyRequests, "3600"))
	fc := w.fetch(func(c *fetch.Config) { c.MaxWait = 1 })
	c, err := New(Config{Name: "oci/test", Registry: w.url}, fc)
	must(t, err)
	_, err = c.Manifest(t.Context(), "app", "1")
	if r := refused(t, err, artifact.ErrUnavailable, CodeRateLimit); !strings.Contains(r.Error(), "1h0m0s") {
		t.Errorf("the error does not say how long: %v", r)
	}
	w.r.Set(ocitest.Busy(1, http.StatusTooManyRequests, "3600"))
	d := w.r.AddBlob("app", []byte("blob")).Digest
	err = c.Download(t.Context(), "app", d, &partial{total: 4, want: d})
	_ = refused(t, err, artifact.ErrUnavailable, CodeRateLimit)
}

func TestMinRemaining(t *testing.T) {
	w := newWorld(t, ocitest.RateLimit(12))
	w.r.Put("app", "1", ocitest.Image())
	c := w.client(func(c *Config) { c.MinRemaining = 10 })
	read := 0
	var err error
	for range 6 {
		if _, err = c.Manifest(t.Context(), "app", "1"); err != nil {
			break
		}
		read++
	}
	r := refused(t, err, artifact.ErrUnavailable, CodeRateLimit)
	if read != 4 || r.Got != "9" || !strings.Contains(r.Reason, "6h0m0s") {
		t.Errorf("want 4 manifests, then 9 left; got %d, %v", read, r)
	}
}

func TestHostileText(t *testing.T) {
	w := newWorld(t, ocitest.BasicAuth("me", "password-1"))
	w.r.Set(ocitest.Before(func(rw http.ResponseWriter, q *http.Request) bool {
		if q.Header.Get("Authorization") == "" {
			return false
		}
		rw.Header().Set("X-Request-Id", q.Header.Get("Authorization"))
		rw.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(rw, `{"errors":[{"code":"ODD","message":"you sent %s, see https://files.example/x?X-Signature=secret-1 \u001b[31m"}]}`, q.Header.Get("Authorization"))
		return true
	}))
	_, err := w.client(as("me", "password-1")).Manifest(t.Context(), "app", "1")
	text := fmt.Sprint(err)
	for _, bad := range []string{"bWU6cGFzc3dvcmQtMQ==", "password-1", "secret-1", "\x1b"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q is in %q", bad, text)
		}
	}
	if !strings.Contains(text, "ODD") || !strings.Contains(text, "https://files.example/x") {
		t.Errorf("the registry's words are missing: %s", text)
	}
}

func digests(list []spec.Descriptor) (out []spec.Digest) {
	for _, d := range list {
		out = append(out, d.Digest)
	}
	return out
}

// partial is a download's place in memory.
type partial struct {
	b         []byte
	total     int64
	want      spec.Digest
	validator string
	done      bool
}

func (p *partial) Write(b []byte) (int, error) {
	p.b = append(p.b, b...)
	return len(b), nil
}
func (p *partial) Size() int64                 { return int64(len(p.b)) }
func (p *partial) Total() int64                { return p.total }
func (p *partial) Reset() error                { p.b = nil; return nil }
func (p *partial) Validator() string           { return p.validator }
func (p *partial) SetValidator(v string) error { p.validator = v; return nil }
func (p *partial) Commit() error {
	if p.want.Sum(p.b) != p.want {
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "STORE-DIGEST"}
	}
	p.done = true
	return nil
}

func sortDigests(list []spec.Digest) { slices.Sort(list) }
