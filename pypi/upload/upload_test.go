package upload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// A fake takes uploads at /legacy/ and lists them at /simple/.
type fake struct {
	files    map[string]string // SHA-256 by name
	fields   map[string][]string
	refuse   int
	mute     bool // lists no hashes
	late     bool // lists nothing yet
	requests []string
}

func (s *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	if u, p, _ := r.BasicAuth(); u != "me" || p != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Method == http.MethodPost {
		if s.refuse != 0 {
			http.Error(w, "not\nhere", s.refuse)
			return
		}
		f, h, err := r.FormFile("content")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b, _ := io.ReadAll(f)
		s.files[h.Filename], s.fields = artifact.Sum(b).Hex(), r.MultipartForm.Value
		if want := r.FormValue("sha256_digest"); want != s.files[h.Filename] {
			http.Error(w, "digest", http.StatusBadRequest)
		}
		return
	}
	if len(s.files) == 0 || s.late {
		http.NotFound(w, r)
		return
	}
	out := map[string]string{}
	for n, d := range s.files {
		if s.mute {
			d = ""
		}
		out[n] = d
	}
	_ = json.NewEncoder(w).Encode(out) // the test notices
}

func read(_ string, body []byte, _ *url.URL) (map[string]Entry, error) {
	var doc map[string]string
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	out := map[string]Entry{}
	for n, d := range doc {
		e := Entry{}
		if d != "" {
			var err error
			if e.SHA256, err = artifact.ParseHex(d); err != nil {
				return nil, err
			}
		}
		out[n] = e
	}
	return out, nil
}

func (s *fake) target(t *testing.T) *Target {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	fc, err := fetch.New(fetch.NewPool(1, 1), fetch.Config{Name: "pypi/main", Hosts: []string{u.Host}, AllowHTTP: true, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	target, err := New(Config{Name: "pypi/main", Upload: srv.URL + "/legacy/", Simple: srv.URL + "/simple", User: "me", Password: "secret", Read: read}, fc)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func file(name, body string) File {
	return File{
		Project: "foo", Version: "1.0", Filename: name, SHA256: artifact.Sum([]byte(body)), Size: int64(len(body)), RequiresPython: ">=3.8",
		Metadata: func() ([]byte, error) {
			return []byte("Metadata-Version: 2.4\nName: foo\nVersion: 1.0\nSummary: a thing\nClassifier: A\nClassifier: B\nRequires-Dist: bar>=1\nUnknown: x\n\nwords\n"), nil
		},
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil },
	}
}

const wheel = "foo-1.0-py2.py3-none-any.whl"

func codeOf(err error) string {
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		return fmt.Sprint(err)
	}
	return r.Code
}

func TestPublish(t *testing.T) {
	s := &fake{files: map[string]string{}}
	target := s.target(t)
	files := []File{file(wheel, "bytes")}
	rep, err := target.Publish(t.Context(), files)
	if err != nil || rep.Uploaded != 1 || rep.Bytes != 5 || len(rep.Left) != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	want := map[string][]string{
		":action": {"file_upload"}, "protocol_version": {"1"}, "name": {"foo"}, "version": {"1.0"}, "sha256_digest": {files[0].SHA256.Hex()}, "filetype": {"bdist_wheel"},
		"pyversion": {"py2.py3"}, "requires_python": {">=3.8"}, "metadata_version": {"2.4"}, "summary": {"a thing"}, "classifiers": {"A", "B"}, "requires_dist": {"bar>=1"},
	}
	if d := cmp.Diff(want, s.fields); d != "" {
		t.Errorf("form (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"GET /simple/foo/", "POST /legacy/", "GET /simple/foo/"}, s.requests); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
	if rep, err = target.Publish(t.Context(), files); err != nil || rep.Present != 1 || rep.Uploaded != 0 {
		t.Errorf("again: %+v, %v", rep, err)
	}
	rep, err = target.Publish(t.Context(), []File{file(wheel, "other")})
	if err != nil || len(rep.Left) != 1 || codeOf(rep.Left[0].Err) != CodeOther || !errors.Is(rep.Left[0].Err, artifact.ErrIntegrity) {
		t.Errorf("other bytes: %+v, %v", rep, err)
	}
	s.mute = true
	if rep, err = target.Publish(t.Context(), files); err != nil || rep.Present != 1 || len(rep.Notes) != 1 {
		t.Errorf("a target that tells no hashes: %+v, %v", rep, err)
	}
}

func TestPublishRefused(t *testing.T) {
	for status, want := range map[int]string{400: CodeRefused, 403: CodeRefused, 409: CodeRefused, 500: CodeRefused} {
		s := &fake{files: map[string]string{}, refuse: status}
		rep, err := s.target(t).Publish(t.Context(), []File{file(wheel, "bytes")})
		if err != nil || len(rep.Left) != 1 || codeOf(rep.Left[0].Err) != want || !strings.Contains(rep.Left[0].Err.Error(), "not here") {
			t.Errorf("%d: %+v, %v", status, rep, err)
		}
	}
	s := &fake{files: map[string]string{}, refuse: 401}
	if rep, err := s.target(t).Publish(t.Context(), []File{file(wheel, "bytes")}); codeOf(err) != CodeLogin || len(rep.Left) != 0 {
		t.Errorf("401: %+v, %v", rep, err)
	}
	s = &fake{files: map[string]string{}, late: true}
	if rep, err := s.target(t).Publish(t.Context(), []File{file(wheel, "bytes")}); err != nil || rep.Uploaded != 1 || len(rep.Notes) != 1 {
		t.Errorf("listed later: %+v, %v", rep, err)
	}
	target := (&fake{}).target(t)
	target.cfg.Password = "wrong"
	if _, err := target.Publish(t.Context(), []File{file(wheel, "bytes")}); codeOf(err) != CodeLogin {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := New(Config{Name: "x", Upload: "https://a.example/", Simple: "https://b.example/simple/"}, nil); err == nil {
		t.Error("two hosts are one target")
	}
}

// TestFormLength: the length that is announced is that of the form.
func TestFormLength(t *testing.T) {
	f := file("foo-1.0.tar.gz", strings.Repeat("x", 1000))
	form, err := NewForm(&f)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := form.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil || int64(len(b)) != form.Length {
			t.Errorf("%d bytes, announced %d, %v", len(b), form.Length, err)
		}
	}
}

// TestRecalled: what was taken back is looked for, and never sent.
func TestRecalled(t *testing.T) {
	s := &fake{files: map[string]string{}}
	for _, name := range []string{"foo-1.1.tar.gz", "foo-1.2.tar.gz", "foo-1.3.tar.gz", "foo-1.4.tar.gz"} {
		s.files[name] = file(name, name).SHA256.Hex()
	}
	s.files["foo-1.5.tar.gz"] = artifact.Sum([]byte("theirs")).Hex()
	with := func(name string, change func(*File)) File {
		f := file(name, name)
		change(&f)
		return f
	}
	yanked := with("foo-1.0.tar.gz", func(f *File) { f.Yanked = true })
	files := []File{
		yanked, with("foo-1.1.tar.gz", func(f *File) { f.Yanked = true }), with("foo-1.2.tar.gz", func(f *File) { f.State, f.Yanked = Kept, true }),
		with("foo-1.3.tar.gz", func(f *File) { f.State = Gone }), with("foo-1.4.tar.gz", func(f *File) { f.State, f.Reason = Withheld, "malware" }),
		with("foo-1.5.tar.gz", func(f *File) { f.State = Withheld }), with("foo-1.6.tar.gz", func(f *File) { f.State = Kept }), with("foo-1.7.tar.gz", func(f *File) { f.State = Gone }),
	}
	target := s.target(t)
	rep, err := target.Publish(t.Context(), files)
	if err != nil || rep.Uploaded != 0 || rep.Present != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	var left, recalled []string
	for _, l := range rep.Left {
		left = append(left, codeOf(l.Err)+" "+l.File.Filename)
	}
	for _, f := range rep.Recalled {
		recalled = append(recalled, f.Filename)
	}
	if d := cmp.Diff([]string{CodeYanked + " foo-1.0.tar.gz", CodeWithheld + " foo-1.4.tar.gz"}, left); d != "" {
		t.Errorf("left (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"foo-1.1.tar.gz", "foo-1.2.tar.gz", "foo-1.3.tar.gz"}, recalled); d != "" {
		t.Errorf("recalled (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"GET /simple/foo/"}, s.requests); d != "" {
		t.Errorf("requests (-want +got):\n%s", d)
	}
	target.cfg.AllowYanked = true
	if rep, err = target.Publish(t.Context(), []File{yanked}); err != nil || rep.Uploaded != 1 {
		t.Errorf("allowed: %+v, %v", rep, err)
	}
}
