package remote

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// FuzzChallenges: never panics; what is accepted is bounded and written in
// lower case.
func FuzzChallenges(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"`,
		`Basic realm="x", Bearer realm="https://auth.example/token"`, `Negotiate YII=, Basic realm=x`, `Bearer`, `Bearer realm="a\"b"`, `,,`, `x=1`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := challenges(http.Header{"Www-Authenticate": {s}})
		if err != nil {
			if list != nil || !errors.Is(err, errChallenge) {
				t.Fatalf("%v beside %v", list, err)
			}
			return
		}
		for _, c := range list {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || len(c.params) > maxParams || len(c.scopes()) > maxScopes {
				t.Fatalf("%+v", c)
			}
			for name := range c.params {
				if name == "" || name != strings.ToLower(name) {
					t.Fatalf("parameter %q", name)
				}
			}
		}
	})
}

// FuzzNextPage: never panics; a target that is accepted can stand in a URL.
func FuzzNextPage(f *testing.F) {
	for _, s := range []string{
		`</v2/a/tags/list?last=x&n=2>; rel="next"`, `<https://registry.example/v2/>; rel=next, <x>; rel=prev`, `<a>; rel="next prev"`, `<`, `<>;`, `<a>;rel`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := nextPage(http.Header{"Link": {s}})
		if err != nil && target != "" {
			t.Fatalf("%q beside %v", target, err)
		}
		if strings.ContainsFunc(target, notInURL) {
			t.Fatalf("%q was accepted", target)
		}
	})
}

// fuzzClient is a client that contacts nobody.
func fuzzClient(f *testing.F) *Client {
	f.Helper()
	fc, err := fetch.New(fetch.NewPool(0, 0), fetch.Config{Name: "oci/test", Hosts: []string{"registry.example", "uploads.example"}})
	if err != nil {
		f.Fatal(err)
	}
	c, err := New(Config{Name: "oci/test", Registry: "https://registry.example"}, fc)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// FuzzLocation: never panics; an upload goes to an allowed host only, never by
// plain http, and with no credentials in its address.
func FuzzLocation(f *testing.F) {
	c := fuzzClient(f)
	for _, s := range []string{
		"/v2/a/blobs/uploads/x?_state=y", "https://uploads.example/x", "https://other.example/x", "http://registry.example/x", "//uploads.example/x",
		"https://u:p@registry.example/x", "?a=b", "\x00", "https://registry.example@other.example/",
	} {
		f.Add(s)
	}
	at := &url.URL{Scheme: "https", Host: "registry.example", Path: "/v2/a/blobs/uploads/"}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := c.location(at, s)
		if err != nil {
			return
		}
		host, err := fetch.Host(u.String())
		if err != nil || u.Scheme != "https" || u.User != nil || host != "registry.example" && host != "uploads.example" {
			t.Fatalf("%q led to %s (%v)", s, u, err)
		}
	})
}

// FuzzNumbers: never panics; what is read of Range, Retry-After and
// RateLimit-Remaining is within bounds.
func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"0-4194303", "bytes=0-1", "0--1", "5", "76;w=21600", "Wed, 21 Oct 2026 07:28:00 GMT", "99999999999999999999", "-1", "0-9223372036854775807"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if n, ok := uploaded(s); ok && n < 0 {
			t.Fatalf("range %q: %d", s, n)
		}
		if d := retryAfter(s, now); d < 0 {
			t.Fatalf("wait %q: %s", s, d)
		}
		if left, window, ok := rateLimit(s); ok && (left < 0 || window < 0) {
			t.Fatalf("limit %q: %d, %s", s, left, window)
		}
	})
}

// FuzzReferrers: never panics; every descriptor of an accepted list has a
// digest, and an error is a refusal.
func FuzzReferrers(f *testing.F) {
	c := fuzzClient(f)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:`+strings.Repeat("a", 64)+`","size":7,"artifactType":"application/spdx+json"}]}`), spec.OCIIndex)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"config":{},"layers":[]}`), spec.OCIManifest)
	f.Fuzz(func(t *testing.T, b []byte, kind string) {
		list, err := c.referrers(ask{ref: "a"}, b, kind)
		if err != nil {
			if !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		for _, d := range list {
			if _, err := spec.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 {
				t.Fatalf("descriptor %+v", d)
			}
		}
	})
}

// FuzzSession: never panics; a session that is taken up is of this blob.
func FuzzSession(f *testing.F) {
	c := fuzzClient(f)
	d := spec.Digest("sha256:" + strings.Repeat("b", 64))
	f.Add([]byte(`{"schema":"darkmirror.upload/v1","registry":"https://registry.example","repository":"a","digest":"` + string(d) + `","size":9,"url":"https://registry.example/u","offset":4,"hash":"","min_chunk":0}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := c.parseSession(b, "a", d, 9)
		if err != nil {
			return
		}
		if s.Offset < 0 || s.Offset > 9 || s.Repository != "a" || s.url.Host != "registry.example" && s.url.Host != "uploads.example" {
			t.Fatalf("%+v", s)
		}
	})
}
