//go:build devpi

package devpi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

// These tests speak to a real devpi-server, at DEVPI_URL, whose root has an
// empty password; testdata/devpi/run.sh starts one.

// run makes the indexes of one run its own.
var run = "-" + strconv.FormatInt(time.Now().UnixNano(), 36)

func server(t *testing.T, index string, change func(*Config)) *Client {
	t.Helper()
	base := os.Getenv("DEVPI_URL")
	if base == "" {
		t.Fatal("DEVPI_URL is not set: testdata/devpi/run.sh starts a server and runs these tests")
	}
	cfg := Config{Name: "pypi/main", URL: base + "/root/" + index + run, User: "root", Create: true, Read: readPage}
	if change != nil {
		change(&cfg)
	}
	u, err := url.Parse(base)
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

func file(f pypitest.File) upload.File {
	project, v, err := packaging.ParseDistName(f.Name)
	if err != nil {
		panic(err)
	}
	return upload.File{
		Project: project, Version: v.Text(), Filename: f.Name, SHA256: artifact.Sum(f.Body), Size: int64(len(f.Body)),
		RequiresPython: f.RequiresPython, Yanked: f.Yanked, Metadata: func() ([]byte, error) { return f.Metadata, nil },
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(f.Body))), nil },
	}
}

func publish(t *testing.T, c *Client, files ...upload.File) *upload.Report {
	t.Helper()
	rep, err := c.Publish(t.Context(), files)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func code(err error) string {
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		return ""
	}
	return r.Code
}

func TestRealUpload(t *testing.T) {
	c := server(t, "upload", nil)
	good := []upload.File{
		file(pypitest.Requiring("foo_bar-1.0-py3-none-any.whl", ">=3.8", "Requires-Dist: baz", "Summary: ümläut")),
		file(pypitest.Requiring("foo_bar-1.0+cu130-py3-none-any.whl", ">=3.8")), file(pypitest.Sdist("baz-2!1.0.tar.gz")), file(pypitest.Requiring("foobar-1.0-py3-none-any.whl", "")),
	}
	if rep := publish(t, c, good...); rep.Uploaded != 4 || rep.Present != 0 || len(rep.Left) != 0 {
		t.Fatalf("%+v", rep)
	}
	if rep := publish(t, c, good...); rep.Uploaded != 0 || rep.Present != 4 || len(rep.Left) != 0 {
		t.Fatalf("again: %+v", rep)
	}
	yanked := pypitest.Wheel("y-1.0-py3-none-any.whl", "")
	yanked.Yanked = true
	other := pypitest.Requiring("foo_bar-1.0-py3-none-any.whl", ">=3.8", "Summary: other")
	held, late := good[0], file(pypitest.Wheel("foo_bar-1.0-cp313-cp313-win32.whl", ">=3.13"))
	held.State, held.Reason = upload.Withheld, "malware"
	for name, tt := range map[string]struct {
		files []upload.File
		want  []string
	}{
		"other bytes": {[]upload.File{file(other)}, []string{upload.CodeOther}},
		"yanked":      {[]upload.File{file(yanked)}, []string{CodeYanked}},
		"withheld":    {[]upload.File{held}, []string{upload.CodeWithheld}},
		// The other file of the version came with an earlier bundle.
		"requires-python of another bundle": {[]upload.File{late}, []string{CodeRequires}},
		"two requires-python": {
			[]upload.File{file(pypitest.Wheel("two-1.0-cp38-cp38-win32.whl", ">=3.8")), file(pypitest.Wheel("two-1.0-cp313-cp313-win32.whl", ">=3.13"))},
			[]string{CodeRequires, CodeRequires},
		},
	} {
		t.Run(name, func(t *testing.T) {
			rep := publish(t, c, tt.files...)
			if len(rep.Left) != len(tt.want) || rep.Uploaded != 0 {
				t.Fatalf("%+v", rep)
			}
			for i, l := range rep.Left {
				if code(l.Err) != tt.want[i] {
					t.Errorf("%v, want %s", l.Err, tt.want[i])
				}
			}
		})
	}
	recalled := good[0]
	recalled.Yanked = true
	if rep := publish(t, c, recalled); rep.Present != 1 || len(rep.Recalled) != 1 || len(rep.Left) != 0 {
		t.Errorf("yanked after its upload: %+v", rep)
	}
	small := server(t, "upload", func(c *Config) { c.MaxBody = 2000 })
	if rep := publish(t, small, file(pypitest.Wheel("big-1.0-py3-none-any.whl", "", pypitest.Entry{Name: "big/x", Body: strings.Repeat("x", 4000), Store: true}))); len(rep.Left) != 1 || code(rep.Left[0].Err) != CodeSize {
		t.Errorf("%+v", rep)
	}
	lax := server(t, "upload", func(c *Config) { c.AllowYanked = true })
	if rep := publish(t, lax, file(yanked)); rep.Uploaded != 1 {
		t.Errorf("allowed: %+v", rep)
	}
}

// TestRealTokenLost: a token that the server has forgotten is renewed.
func TestRealTokenLost(t *testing.T) {
	c := server(t, "token", nil)
	publish(t, c, file(pypitest.Wheel("a-1.0-py3-none-any.whl", "")))
	c.token = "forgotten"
	if rep := publish(t, c, file(pypitest.Wheel("a-2.0-py3-none-any.whl", ""))); rep.Uploaded != 1 || c.token == "forgotten" {
		t.Errorf("%+v", rep)
	}
	c.now = func() time.Time { return time.Now().Add(tokenLife) }
	old := c.since
	if rep := publish(t, c, file(pypitest.Wheel("a-3.0-py3-none-any.whl", ""))); rep.Uploaded != 1 || !c.since.After(old) {
		t.Errorf("%+v, the login is of %s", rep, c.since)
	}
}

func TestRealRefused(t *testing.T) {
	f := file(pypitest.Wheel("a-1.0-py3-none-any.whl", ""))
	refused := func(name string, c *Client, want string) {
		t.Helper()
		if _, err := c.Publish(t.Context(), []upload.File{f}); code(err) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	refused("wrong password", server(t, "upload", func(c *Config) { c.Password = "wrong" }), CodeLogin)
	refused("no index", server(t, "none", func(c *Config) { c.Create = false }), CodeIndex)
	c := server(t, "volatile", nil)
	if err := c.login(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, err := c.send(t.Context(), "PUT", "/"+c.index, map[string]any{"type": "stage", "volatile": true, "bases": []string{}}, true); err != nil || a.Status != 200 && a.Status != 409 {
		t.Fatalf("%v %v", a, err)
	}
	refused("volatile", c, CodeIndex)
	if rep := publish(t, server(t, "volatile", func(c *Config) { c.AllowVolatile = true }), f); rep.Uploaded+rep.Present != 1 {
		t.Errorf("volatile and allowed: %+v", rep)
	}
}

func TestRealMirror(t *testing.T) {
	yanked := pypitest.Wheel("two-2.0-py3-none-any.whl", "")
	yanked.Yanked, yanked.YankedReason = true, "broken"
	files := []pypitest.File{pypitest.Wheel("two-1.0-cp38-cp38-win32.whl", ">=3.8"), pypitest.Wheel("two-1.0-cp313-cp313-win32.whl", ">=3.13"), yanked}
	var index atomic.Pointer[pypitest.Index]
	index.Store(pypitest.New(files...))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { index.Load().ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	c := server(t, "mirror", nil)
	var list []upload.File
	for _, f := range files {
		list = append(list, file(f))
	}
	for range 2 {
		rep, err := c.Mirror(context.Background(), srv.URL+"/simple/", list)
		if err != nil || rep.Present != 3 || len(rep.Left) != 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
	}
	if _, err := c.Mirror(t.Context(), srv.URL+"/other/", list); code(err) != CodeIndex {
		t.Errorf("a mirror of another index: %v", err)
	}
	if _, err := c.Publish(t.Context(), list); code(err) != CodeIndex {
		t.Errorf("upload into a mirror: %v", err)
	}
	// What our index takes back, the mirror takes back with the next import.
	index.Store(pypitest.New(files[:2]...))
	gone := file(yanked)
	gone.State = upload.Gone
	rep, err := c.Mirror(t.Context(), srv.URL+"/simple/", []upload.File{list[0], list[1], gone})
	if err != nil || rep.Present != 2 || len(rep.Left)+len(rep.Recalled) != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	missing := append(list[:2:2], file(pypitest.Wheel("two-3.0-py3-none-any.whl", "")))
	rep, err = c.Mirror(t.Context(), srv.URL+"/simple/", missing)
	if err != nil || len(rep.Left) != 1 || code(rep.Left[0].Err) != CodeDiffers {
		t.Errorf("%+v, %v", rep, err)
	}
}
