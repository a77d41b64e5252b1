//go:build devpi

package pypi

import (
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

// TestRealUpload speaks to a real pypiserver, at PYPISERVER_URL, which lets
// everybody upload; testdata/devpi/run.sh starts one.
func TestRealUpload(t *testing.T) {
	base := os.Getenv("PYPISERVER_URL")
	if base == "" {
		t.Fatal("PYPISERVER_URL is not set: testdata/devpi/run.sh starts a server and runs this test")
	}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	client, err := fetch.New(fetch.NewPool(1, 1), fetch.Config{Name: "pypi/main", Hosts: []string{u.Host}, AllowHTTP: true, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	target, err := upload.New(upload.Config{Name: "pypi/main", Upload: base + "/", Simple: base + "/simple/", Read: readEntries}, client)
	if err != nil {
		t.Fatal(err)
	}
	in := newInside(t, nil, nil)
	files := []pypitest.File{pypitest.Requiring("foo_bar-1.0-py3-none-any.whl", ">=3.8", "Requires-Dist: baz"), pypitest.Wheel("foo_bar-1.1-py3-none-any.whl", ""), pypitest.Sdist("baz-1.0.tar.gz")}
	var list []upload.File
	for _, f := range files {
		d, err := in.store.PutBytes(f.Body)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, must(in.pub.uploadFile(projectOf(t, f.Name), &currentFile{File: indexFile{Filename: f.Name, SHA256: d, Size: int64(len(f.Body)), RequiresPython: f.RequiresPython}}))(t))
	}
	rep, err := target.Publish(t.Context(), list)
	if err != nil || rep.Uploaded+rep.Present != 3 || len(rep.Left) != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	rep, err = target.Publish(t.Context(), list)
	if err != nil || rep.Uploaded != 0 || rep.Present != 3 || len(rep.Left) != 0 {
		t.Fatalf("again: %+v, %v", rep, err)
	}
	other := pypitest.Requiring("foo_bar-1.0-py3-none-any.whl", ">=3.8", "Summary: other")
	list[0].SHA256, list[0].Size = artifact.Sum(other.Body), int64(len(other.Body))
	rep, err = target.Publish(t.Context(), list[:1])
	if r, ok := errors.AsType[*artifact.Refusal](errors.Join(err, left(rep))); !ok || r.Code != upload.CodeOther || !strings.Contains(r.Error(), "foo_bar") {
		t.Errorf("other bytes: %+v, %v", rep, err)
	}
}

func left(rep *upload.Report) error {
	if rep == nil || len(rep.Left) == 0 {
		return nil
	}
	return rep.Left[0].Err
}

func projectOf(t *testing.T, filename string) string {
	t.Helper()
	name, _, _ := strings.Cut(filename, "-")
	return strings.ReplaceAll(name, "_", "-")
}

// must takes a value and its error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
