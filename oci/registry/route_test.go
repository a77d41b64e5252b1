package registry

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/spec"
)

var routes = map[string]route{
	"/v2/":                                   {end: endPing},
	"/v2":                                    {end: endPing},
	"/v2/_token":                             {end: endToken},
	"/v2/_catalog":                           {end: endCatalog},
	"/v2/a/b/tags/list":                      {end: endTags, name: "a/b"},
	"/v2/a/b/manifests/latest":               {end: endManifest, name: "a/b", ref: "latest"},
	"/v2/a/manifests/b/manifests/latest":     {end: endManifest, name: "a/manifests/b", ref: "latest"},
	"/v2/a/tags/list/tags/list":              {end: endTags, name: "a/tags/list"},
	"/v2/a/b/blobs/sha256:00":                {end: endBlob, name: "a/b", ref: "sha256:00"},
	"/v2/a/b/blobs/uploads/":                 {end: endUploads, name: "a/b"},
	"/v2/a/b/blobs/uploads":                  {end: endUploads, name: "a/b"},
	"/v2/a/b/blobs/uploads/0123":             {end: endUpload, name: "a/b", ref: "0123"},
	"/v2/a/blobs/uploads/b/blobs/uploads/01": {end: endUpload, name: "a/blobs/uploads/b", ref: "01"},
	"/v2/a/b/referrers/sha256:00":            {end: endReferrers, name: "a/b", ref: "sha256:00"},
}

func TestRoute(t *testing.T) {
	for path, want := range routes {
		got, ok := parseRoute(path)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(route{})); diff != "" || !ok {
			t.Errorf("%s: %v %s", path, ok, diff)
		}
	}
	for _, path := range []string{"", "/", "/v1/", "/v2/a", "/v2/a/b", "/v2/tags/list", "/v2//tags/list", "/v2/manifests/x", "/v2/a/manifests/", "/v2/a/tags/other", "/v2/_other", "/x/v2/a/tags/list"} {
		if got, ok := parseRoute(path); ok {
			t.Errorf("%q: got %+v, want nothing", path, got)
		}
	}
}

// Whatever a path is: no panic, and a name that passes the check is written
// back to the very path.
func FuzzRoute(f *testing.F) {
	if len(routes) < 10 {
		f.Fatal("too few seeds")
	}
	for path := range routes {
		f.Add(path)
	}
	f.Add("/v2/../../etc/passwd/manifests/x")
	f.Fuzz(func(t *testing.T, path string) {
		rt, ok := parseRoute(path)
		if !ok || rt.name == "" {
			return
		}
		kind := map[endpoint]string{endTags: "/tags/list", endManifest: "/manifests/", endBlob: "/blobs/", endUploads: "/blobs/uploads", endUpload: "/blobs/uploads/", endReferrers: "/referrers/"}[rt.end]
		back := root + rt.name + kind + rt.ref
		if back != path && back+"/" != path {
			t.Errorf("%q became %+v", path, rt)
		}
		if spec.CheckName(rt.name) == nil && (strings.Contains(rt.name, "..") || strings.HasPrefix(rt.name, "/")) {
			t.Errorf("%q has the name %q", path, rt.name)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"0-0", "0-1023", "5-4", "-1", "1-", "0-9223372036854775807", "bytes 0-1/2", "٣-٤"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, err := parseContentRange(s)
		if err == nil && (first < 0 || last < first || last-first+1 <= 0) {
			t.Errorf("%q: %d to %d", s, first, last)
		}
		if err != nil && asFault(err).status != http.StatusBadRequest {
			t.Errorf("%q: %v", s, err)
		}
	})
}

// What a client sends as an upload's name is one only for its repository.
func FuzzUploadOf(f *testing.F) {
	f.Add(sessionID(strings.Repeat("0", 32), "a/b"), "a/b")
	f.Add(sessionID(strings.Repeat("0", 32), "a/b"), "a/c")
	f.Add("../../x", "a/b")
	f.Fuzz(func(t *testing.T, ref, name string) {
		if id, ok := uploadOf(ref, name); ok && sessionID(id, name) != ref {
			t.Errorf("%q of %q is %q", ref, name, id)
		}
	})
}

func TestAuth(t *testing.T) {
	const push, pull, none = "push secret", "pull secret", ""
	open, closed, readOnly, shut := Options{PushToken: push}, Options{PushToken: push, PullToken: pull}, Options{}, Options{PullToken: pull}
	const basic, bearer = `Basic realm="darkmirror"`, `Bearer realm="http://HOST/v2/_token",service="darkmirror"`
	for _, c := range []struct {
		name, method, path string
		o                  Options
		auth               string // scheme and secret
		status             int
		challenge          string
	}{
		{"ping open anonymous", "GET", "/v2/", open, none, 401, bearer},
		{"ping open, anonymous bearer", "GET", "/v2/", open, "Bearer anonymous", 200, ""},
		{"ping open, empty basic", "GET", "/v2/", open, "Basic ", 200, ""},
		{"ping open, wrong", "GET", "/v2/", open, "Basic wrong", 401, bearer},
		{"ping open, basic", "GET", "/v2/", open, "Basic " + push, 200, ""},
		{"ping open, bearer", "GET", "/v2/", open, "Bearer " + push, 200, ""},
		{"ping closed anonymous", "GET", "/v2/", closed, none, 401, basic},
		{"ping closed, empty basic", "GET", "/v2/", closed, "Basic ", 401, basic},
		{"ping closed, pull", "GET", "/v2/", closed, "Basic " + pull, 200, ""},
		{"ping read-only", "GET", "/v2/", readOnly, none, 200, ""},
		{"ping read-only with any password", "GET", "/v2/", readOnly, "Basic x", 200, ""},
		{"ping shut", "GET", "/v2/", shut, none, 401, basic},
		{"token anonymous", "GET", "/v2/_token", open, none, 200, ""},
		{"token", "GET", "/v2/_token", open, "Basic " + push, 200, ""},
		{"token wrong", "GET", "/v2/_token", open, "Basic wrong", 401, basic},
		{"token closed anonymous", "GET", "/v2/_token", closed, none, 401, basic},
		{"token closed pull", "GET", "/v2/_token", closed, "Basic " + pull, 200, ""},
		{"read open", "GET", "/v2/_catalog", open, none, 200, ""},
		{"read open, wrong", "GET", "/v2/_catalog", open, "Basic wrong", 200, ""},
		{"read closed", "GET", "/v2/_catalog", closed, none, 401, basic},
		{"read closed, wrong", "GET", "/v2/_catalog", closed, "Basic wrong", 401, basic},
		{"read closed, anonymous bearer", "GET", "/v2/_catalog", closed, "Bearer anonymous", 401, basic},
		{"read closed, pull", "HEAD", "/v2/_catalog", closed, "Bearer " + pull, 200, ""},
		{"read closed, push", "GET", "/v2/_catalog", closed, "Basic " + push, 200, ""},
		{"push anonymous", "POST", "/v2/platform/x/blobs/uploads/", open, none, 401, basic},
		{"push wrong", "POST", "/v2/platform/x/blobs/uploads/", open, "Basic wrong", 401, basic},
		{"push as reader", "POST", "/v2/platform/x/blobs/uploads/", closed, "Basic " + pull, 401, basic},
		{"push", "POST", "/v2/platform/x/blobs/uploads/", open, "Basic " + push, 202, ""},
		{"push to a read-only one", "POST", "/v2/platform/x/blobs/uploads/", readOnly, none, 405, ""},
		{"push to a read-only one, any password", "DELETE", "/v2/platform/x/manifests/y", readOnly, "Basic x", 405, ""},
		{"push to a shut one", "PUT", "/v2/platform/x/manifests/y", shut, none, 401, basic},
		{"push to a shut one as reader", "PUT", "/v2/platform/x/manifests/y", shut, "Basic " + pull, 405, ""},
		{"the status of an upload is not for readers", "GET", "/v2/platform/x/blobs/uploads/0", open, none, 401, basic},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.o)
			req, err := http.NewRequestWithContext(t.Context(), c.method, w.url+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			switch scheme, token, _ := strings.Cut(c.auth, " "); {
			case scheme == "Basic" && token != "":
				req.SetBasicAuth("me", token)
			case scheme == "Basic":
				req.SetBasicAuth("", "")
			case scheme != "":
				req.Header.Set("Authorization", c.auth)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Fatal(err)
			}
			want := strings.Replace(c.challenge, "HOST", strings.TrimPrefix(w.url, "http://"), 1)
			if got := resp.Header.Get("WWW-Authenticate"); resp.StatusCode != c.status || got != want {
				t.Errorf("got %d, challenge %q; want %d, %q", resp.StatusCode, got, c.status, want)
			}
		})
	}
}

// A proxy that ends TLS says so; a host name from outside enters no header.
func TestSelf(t *testing.T) {
	for _, c := range []struct{ host, proto, want string }{
		{"registry.example:5000", "", "http://registry.example:5000"},
		{"registry.example", "https", "https://registry.example"},
		{`[::1]:5000`, "gopher", "http://[::1]:5000"},
		{"a\",service=\"evil/x", "", "http://aserviceevilx"},
	} {
		r := &http.Request{Host: c.host, Header: http.Header{"X-Forwarded-Proto": {c.proto}}}
		if got := self(r); got != c.want {
			t.Errorf("%q: got %s, want %s", c.host, got, c.want)
		}
	}
}

func TestMethodsAndNames(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"POST", "/v2/", 405, codeUnsupported},
		{"PATCH", "/v2/platform/x/manifests/y", 405, codeUnsupported},
		{"PUT", "/v2/platform/x/tags/list", 405, codeUnsupported},
		{"GET", "/v2/platform/x/blobs/uploads/", 405, codeUnsupported},
		{"BREW", "/v2/platform/x/tags/list", 405, codeUnsupported},
		{"GET", "/v2/platform/x", 404, codeUnsupported},
		{"GET", "/v2/nobody/x/tags/list", 404, codeNameUnknown},
		{"GET", "/v2/platform/tags/list", 404, codeNameUnknown},
		{"GET", "/v2/platform/x/tags/list", 404, codeNameUnknown},
		{"GET", "/v2/platform/UPPER/tags/list", 400, codeNameInvalid},
		{"GET", "/v2/platform/..%2F..%2Fetc/tags/list", 400, codeNameInvalid},
		{"GET", "/v2/platform/_tags/tags/list", 400, codeNameInvalid},
		{"GET", "/v2/platform/" + strings.Repeat("a", 300) + "/tags/list", 400, codeNameInvalid},
		{"POST", "/v2/platform/a//b/blobs/uploads/", 400, codeNameInvalid},
		{"GET", "/v2/platform/x/blobs/sha256:abc", 400, codeDigestInvalid},
		{"GET", "/v2/platform/x/blobs/md5:00000000000000000000000000000000", 400, codeDigestInvalid},
		{"GET", "/v2/platform/x/blobs/" + string(digestOf(nil)), 404, codeNameUnknown},
		{"GET", "/v2/platform/x/manifests/sha256:abc", 400, codeDigestInvalid},
		{"GET", "/v2/platform/x/manifests/-tag", 400, codeManifestInvalid},
		{"GET", "/v2/platform/x/manifests/tag", 404, codeNameUnknown},
		{"DELETE", "/v2/platform/x/manifests/tag", 404, codeNameUnknown},
		{"DELETE", "/v2/platform/x/blobs/" + string(digestOf(nil)), 404, codeNameUnknown},
		{"GET", "/v2/platform/x/referrers/latest", 400, codeDigestInvalid},
		{"PATCH", "/v2/platform/x/blobs/uploads/abc", 404, codeUploadUnknown},
		{"PUT", "/v2/platform/x/blobs/uploads/abc?digest=" + string(digestOf(nil)), 404, codeUploadUnknown},
		{"PUT", "/v2/platform/x/blobs/uploads/abc", 400, codeDigestInvalid},
	} {
		r := w.do(c.method, c.path, nil)
		if r.status != c.status || r.code() != c.code {
			t.Errorf("%s %s: got %d %s, want %d %s", c.method, c.path, r.status, r.body, c.status, c.code)
		}
		if r.status == http.StatusMethodNotAllowed && r.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow header", c.method, c.path)
		}
		if got := r.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: content type %q", c.method, c.path, got)
		}
	}
}
