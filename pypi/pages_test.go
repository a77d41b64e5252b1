package pypi

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// A page that has not changed is asked for and not sent again, and what comes
// of it is the same.
func TestPagesRevalidated(t *testing.T) {
	files := aged(pypitest.Requiring("app-1.0-py3-none-any.whl", "", "Requires-Dist: lib"), pypitest.Requiring("lib-1.0-py3-none-any.whl", ""))
	for name, html := range map[string]bool{"json": false, "html": true} {
		t.Run(name, func(t *testing.T) {
			index := pypitest.New(files...)
			index.ETags, index.HTML = true, html
			o := resolving(t, index, []string{"app"}, func(c *Config) { c.AssumeOld = true })
			first, _, _ := o.resolve(t)
			if n := index.Unchanged(); n != 0 {
				t.Fatalf("%d pages were not sent the first time", n)
			}
			second, _, _ := o.resolve(t)
			if n := index.Unchanged(); n != 2 {
				t.Errorf("%d pages were not sent again, want 2", n)
			}
			if d := cmp.Diff(first, second); d != "" {
				t.Errorf("the second answer differs (-first +second):\n%s", d)
			}

			// It changes: the new one counts, and is kept from then on.
			index.Status["lib"] = "deprecated"
			_, _, notes := o.resolve(t)
			if n := index.Unchanged(); n != 2 || len(notes) != 2 {
				t.Errorf("%d pages were not sent, notes %q", n, notes)
			}
			o.resolve(t)
			if n := index.Unchanged(); n != 4 {
				t.Errorf("%d pages were not sent, want 4", n)
			}
		})
	}
}

// A kept page is not read before its size is known to be allowed, nor before the
// index has said that it holds.
func TestPagesKeptUnread(t *testing.T) {
	o := resolving(t, pypitest.New(), nil, nil)
	random := make([]byte, 12<<20) // does not compress
	if _, err := rand.NewChaCha8([32]byte{}).Read(random); err != nil {
		t.Fatal(err)
	}
	const u = "https://index.example/simple/foo/"
	resp := &fetch.Response{Header: http.Header{"Etag": {`"1"`}, "Content-Type": {typeJSON}}, URL: u, Body: random}
	if err := o.keepPage(u, resp); err != nil {
		t.Fatal(err)
	}
	o.keptPage(u) // the store verifies it once
	var kept *keptPage
	if n := allocated(func() { kept = o.keptPage(u) }); n > 1<<20 {
		t.Errorf("%d bytes were allocated to learn the size of a kept page", n)
	}
	if kept == nil || kept.Size != int64(len(random)) || kept.ETag != `"1"` {
		t.Fatalf("got %+v", kept)
	}
	if body, err := o.keptBody(kept); err != nil || !bytes.Equal(body, random) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// What is kept of a page may be gone or damaged at any time.
func TestPagesDamaged(t *testing.T) {
	index := pypitest.New(aged(pypitest.Requiring("app-1.0-py3-none-any.whl", ""))...)
	index.ETags = true
	o := resolving(t, index, []string{"app"}, nil)
	first, _, _ := o.resolve(t)
	u := o.indexes[0].url.JoinPath("app", "/").String()
	d, ok := o.store.Alias(pageAlias(u))
	if !ok {
		t.Fatal("no page is kept")
	}
	kept, err := o.store.ReadAll(d, maxKeptPage)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"no frame":     kept[:len(kept)-8],
		"no head":      []byte("{}"),
		"not a head":   append([]byte("x"), kept...),
		"another body": append(append([]byte{}, kept[:len(kept)-20]...), make([]byte, 20)...),
		"nothing":      nil,
	} {
		bad, err := o.store.PutBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.store.SetAlias(pageAlias(u), bad); err != nil {
			t.Fatal(err)
		}
		again, _, _ := o.resolve(t)
		if d := cmp.Diff(first, again); d != "" {
			t.Errorf("%s (-first +again):\n%s", name, d)
		}
		if now, ok := o.store.Alias(pageAlias(u)); !ok || now == bad {
			t.Errorf("%s: it is kept on", name)
		}
	}
	// The blob itself is damaged on disk.
	d, _ = o.store.Alias(pageAlias(u))
	found, err := filepath.Glob(filepath.Join(o.dir, "blobs/sha256/*", d.Hex()))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if err := os.Chmod(found[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(found[0], kept[:10], 0o600); err != nil {
		t.Fatal(err)
	}
	again, _, _ := o.resolve(t)
	if d := cmp.Diff(first, again); d != "" {
		t.Errorf("a damaged blob (-first +again):\n%s", d)
	}
}
