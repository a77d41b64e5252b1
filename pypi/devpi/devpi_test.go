package devpi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

// A fake answers as devpi-server 6.19.1 did (real_test.go asks the real one).
type fake struct {
	mu       sync.Mutex
	index    map[string]any // settings of root/x; nil: there is none
	files    map[string]map[string]any
	tokens   int
	token    string
	requests []string
	refuse   int // status of the next upload
	wrong    string
}

func (s *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	reply := func(status int, v any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v) // the test notices
	}
	signed := strings.HasPrefix(r.Header.Get("X-Devpi-Auth"), "cm9vd") // base64 of "root"
	switch {
	case r.URL.Path == "/+login":
		var in map[string]string
		if json.NewDecoder(r.Body).Decode(&in) != nil || in["password"] != "secret" {
			reply(401, map[string]any{"message": "user 'root' could not be authenticated"})
			return
		}
		s.tokens++
		s.token = fmt.Sprintf("token-%d", s.tokens)
		reply(200, map[string]any{"type": "proxyauth", "result": map[string]any{"password": s.token, "expiration": 36000}})
	case r.URL.Path == "/root/x" && r.Method == http.MethodGet:
		if s.index == nil {
			reply(404, map[string]any{"message": "no such stage"})
			return
		}
		reply(200, map[string]any{"type": "indexconfig", "result": s.index})
	case r.URL.Path == "/root/x" && r.Method == http.MethodPut:
		s.index = map[string]any{}
		_ = json.NewDecoder(r.Body).Decode(&s.index)
		reply(200, map[string]any{"type": "indexconfig", "result": s.index})
	case r.URL.Path == "/root/x/" && r.Method == http.MethodPost:
		if s.refuse != 0 {
			w.WriteHeader(s.refuse)
			s.refuse = 0
			return
		}
		f, h, err := r.FormFile("content")
		if err != nil || !signed {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b, _ := io.ReadAll(f)
		if s.wrong != "" {
			b = []byte(s.wrong)
		}
		s.files[h.Filename] = map[string]any{
			"filename": h.Filename, "hashes": map[string]string{"sha256": artifact.Sum(b).Hex()}, "requires-python": r.FormValue("requires_python"),
			"name": r.FormValue("name"), "version": r.FormValue("version"), "filetype": r.FormValue("filetype"), "dist": r.MultipartForm.Value["requires_dist"],
		}
	case strings.HasSuffix(r.URL.Path, "/refresh"):
		w.WriteHeader(http.StatusFound)
	case strings.HasPrefix(r.URL.Path, "/root/x/+simple/"):
		project := strings.Trim(strings.TrimPrefix(r.URL.Path, "/root/x/+simple/"), "/")
		list := []any{}
		for _, f := range s.files {
			if name, _ := f["filename"].(string); strings.HasPrefix(strings.ReplaceAll(name, "_", "-"), project+"-") {
				list = append(list, f)
			}
		}
		if len(list) == 0 {
			reply(404, nil)
			return
		}
		reply(200, map[string]any{"files": list})
	default:
		reply(404, nil)
	}
}

func (s *fake) client(t *testing.T, change func(*Config)) *Client {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	cfg := Config{Name: "pypi/main", URL: srv.URL + "/root/x", User: "root", Password: "secret", Create: true, Read: readPage}
	if change != nil {
		change(&cfg)
	}
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	fc, err := fetch.New(fetch.NewPool(1, 1), fetch.Config{Name: "pypi/main", Hosts: []string{u.Host}, AllowHTTP: true, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(cfg, fc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newFake() *fake { return &fake{files: map[string]map[string]any{}} }

func fileOf(t *testing.T, f pypitest.File) upload.File {
	t.Helper()
	project, v, err := packaging.ParseDistName(f.Name)
	if err != nil {
		t.Fatal(err)
	}
	return upload.File{
		Project: project, Version: v.Text(), Filename: f.Name, SHA256: artifact.Sum(f.Body), Size: int64(len(f.Body)),
		RequiresPython: f.RequiresPython, Yanked: f.Yanked, Metadata: func() ([]byte, error) { return f.Metadata, nil },
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(f.Body))), nil },
	}
}

func codeOf(err error) string {
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		return ""
	}
	return r.Code
}

func TestPublish(t *testing.T) {
	s := newFake()
	c := s.client(t, nil)
	files := []upload.File{
		fileOf(t, pypitest.Requiring("foo_bar-1.0-py3-none-any.whl", ">=3.8", "Requires-Dist: baz", "Requires-Dist: other")),
		fileOf(t, pypitest.Requiring("foo_bar-1.1-py3-none-any.whl", "")), fileOf(t, pypitest.Sdist("baz-1.0.tar.gz")),
	}
	rep, err := c.Publish(t.Context(), files)
	if err != nil || rep.Uploaded != 3 || rep.Present != 0 || len(rep.Left) != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if s.index["volatile"] != false || s.index["type"] != "stage" {
		t.Errorf("the index was made as %v", s.index)
	}
	got := s.files["foo_bar-1.0-py3-none-any.whl"]
	if d := cmp.Diff([]any{"foo-bar", "1.0", "bdist_wheel", []string{"baz", "other"}, ">=3.8"}, []any{got["name"], got["version"], got["filetype"], got["dist"], got["requires-python"]}); d != "" {
		t.Errorf("form (-want +got):\n%s", d)
	}
	if s.tokens != 1 {
		t.Errorf("%d logins", s.tokens)
	}
	// Read before, three files, read after: no more.
	want := []string{
		"POST /+login", "GET /root/x", "PUT /root/x", "GET /root/x", "GET /root/x/+simple/baz/", "POST /root/x/", "GET /root/x/+simple/baz/",
		"GET /root/x/+simple/foo-bar/", "POST /root/x/", "POST /root/x/", "GET /root/x/+simple/foo-bar/",
	}
	if d := cmp.Diff(want, s.requests); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
	if rep, err = c.Publish(t.Context(), files); err != nil || rep.Uploaded != 0 || rep.Present != 3 {
		t.Errorf("again: %+v, %v", rep, err)
	}
}

func TestPublishLeaves(t *testing.T) {
	yanked := pypitest.Wheel("y-1.0-py3-none-any.whl", "")
	yanked.Yanked = true
	two := []upload.File{fileOf(t, pypitest.Wheel("two-1.0-cp38-cp38-win32.whl", ">=3.8")), fileOf(t, pypitest.Wheel("two-1.0-cp313-cp313-win32.whl", ">=3.13"))}
	one := fileOf(t, pypitest.Wheel("a-1.0-py3-none-any.whl", ""))
	odd := one
	odd.Version = "1.0.0"
	held := one
	held.State, held.Reason = upload.Withheld, "malware"
	for name, tt := range map[string]struct {
		files  []upload.File
		before func(*fake)
		change func(*Config)
		want   []string
	}{
		"yanked":   {[]upload.File{fileOf(t, yanked)}, nil, nil, []string{CodeYanked}},
		"requires": {two, nil, nil, []string{CodeRequires, CodeRequires}},
		"requires, there": {[]upload.File{two[0]}, func(s *fake) {
			f := two[1]
			s.files[f.Filename] = map[string]any{"filename": f.Filename, "hashes": map[string]string{"sha256": f.SHA256.Hex()}, "requires-python": f.RequiresPython}
		}, nil, []string{CodeRequires}},
		"withheld": {[]upload.File{held}, func(s *fake) {
			s.files[held.Filename] = map[string]any{"filename": held.Filename, "hashes": map[string]string{"sha256": held.SHA256.Hex()}}
		}, nil, []string{upload.CodeWithheld}},
		"withheld, not there": {[]upload.File{held}, nil, nil, nil},
		"too large":           {[]upload.File{one}, nil, func(c *Config) { c.MaxBody = 100 }, []string{CodeSize}},
		"version":             {[]upload.File{odd}, nil, nil, []string{CodeName}},
		"413":                 {[]upload.File{one}, func(s *fake) { s.refuse = 413 }, nil, []string{CodeSize}},
		"500":                 {[]upload.File{one}, func(s *fake) { s.refuse = 500 }, nil, []string{upload.CodeRefused}},
		"409 of another":      {[]upload.File{one}, func(s *fake) { s.refuse = 409 }, nil, []string{CodeDiffers}},
		"other bytes":         {[]upload.File{one}, func(s *fake) { s.wrong = "x" }, nil, []string{upload.CodeOther}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFake()
			if tt.before != nil {
				tt.before(s)
			}
			rep, err := s.client(t, tt.change).Publish(t.Context(), tt.files)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range rep.Left {
				got = append(got, codeOf(l.Err))
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestPublishRefused(t *testing.T) {
	f := []upload.File{fileOf(t, pypitest.Wheel("a-1.0-py3-none-any.whl", ""))}
	for name, tt := range map[string]struct {
		before func(*fake)
		change func(*Config)
		want   string
	}{
		"password": {nil, func(c *Config) { c.Password = "x" }, CodeLogin},
		"no index": {nil, func(c *Config) { c.Create = false }, CodeIndex},
		"volatile": {func(s *fake) { s.index = map[string]any{"type": "stage", "volatile": true} }, nil, CodeIndex},
		"mirror":   {func(s *fake) { s.index = map[string]any{"type": "mirror"} }, nil, CodeIndex},
		"403":      {func(s *fake) { s.refuse = 403 }, nil, CodeLogin},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFake()
			if tt.before != nil {
				tt.before(s)
			}
			if _, err := s.client(t, tt.change).Publish(t.Context(), f); codeOf(err) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	s := newFake()
	s.refuse = 401 // a token that the server has forgotten is renewed, once
	if rep, err := s.client(t, nil).Publish(t.Context(), f); err != nil || rep.Uploaded != 1 || s.tokens != 2 {
		t.Errorf("%+v, %v, %d logins", rep, err, s.tokens)
	}
	for _, address := range []string{"", "https://devpi.example", "https://devpi.example/main", "https://a:b@devpi.example/site/main", "https://devpi.example/site/main?x"} {
		if _, err := New(Config{Name: "pypi/main", URL: address}, nil); err == nil {
			t.Errorf("%q is an index", address)
		}
	}
}

func TestMirror(t *testing.T) {
	s := newFake()
	c := s.client(t, nil)
	show := func(f *upload.File, yanked any) {
		s.files[f.Filename] = map[string]any{"filename": f.Filename, "hashes": map[string]string{"sha256": f.SHA256.Hex()}, "requires-python": f.RequiresPython, "yanked": yanked}
	}
	as := func(name string, state upload.State, yanked bool) upload.File {
		f := fileOf(t, pypitest.Wheel(name, ">=3.8"))
		f.State, f.Yanked = state, yanked
		return f
	}
	files := []upload.File{
		as("a-1.0-py3-none-any.whl", upload.Offered, false), as("a-1.1-py3-none-any.whl", upload.Offered, true), as("a-1.2-py3-none-any.whl", upload.Kept, true),
		as("a-1.3-py3-none-any.whl", upload.Withheld, false), as("b-1.0-py3-none-any.whl", upload.Gone, false),
	}
	show(&files[0], false)
	show(&files[1], "broken")
	show(&files[2], "")
	rep, err := c.Mirror(t.Context(), "https://inside.example/pypi/main/simple/", files)
	if err != nil || rep.Present != 2 || len(rep.Left) != 0 || len(rep.Recalled) != 0 || s.index["type"] != "mirror" {
		t.Fatalf("%+v, %v, %v", rep, err, s.index)
	}
	show(&files[1], false)
	delete(s.files, files[2].Filename)
	show(&files[3], false)
	show(&files[4], false)
	rep, err = c.Mirror(t.Context(), "https://inside.example/pypi/main/simple/", files)
	if err != nil || rep.Present != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	var got []string
	for _, l := range rep.Left {
		got = append(got, codeOf(l.Err)+" "+l.File.Version)
	}
	if d := cmp.Diff([]string{CodeDiffers + " 1.1", CodeDiffers + " 1.2", upload.CodeWithheld + " 1.3"}, got); d != "" {
		t.Errorf("left (-want +got):\n%s", d)
	}
	if len(rep.Recalled) != 1 || rep.Recalled[0].Project != "b" {
		t.Errorf("recalled: %+v", rep.Recalled)
	}
	if _, err := c.Mirror(t.Context(), "https://other.example/simple/", nil); codeOf(err) != CodeIndex {
		t.Errorf("a mirror of another index: %v", err)
	}
}
