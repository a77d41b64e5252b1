package s3

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	c1 = "1111111111111111111111111111111111111111"
	c2 = "2222222222222222222222222222222222222222"
	// part is the least that stores take, so that small files have several.
	part = 5 << 20
	// Secrets of the tests, in no message.
	accessKey, secretKey = "access-key-of-the-test", "secret-key-of-the-test"
)

// A world is a store of files and what Publish has logged.
type world struct {
	st   *store.Store
	log  bytes.Buffer
	wrap func(http.RoundTripper) http.RoundTripper // may be nil
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &world{st: st}
}

// rev makes a revision of files.
func (w *world) rev(t *testing.T, name, commit string, refs []string, files map[string]string) models.Revision {
	t.Helper()
	id, err := hub.ParseRepo(name)
	if err != nil {
		t.Fatal(err)
	}
	r := models.Revision{Repo: id, Commit: commit, Refs: refs, Profile: "all", Origin: "local"}
	for path, text := range files {
		d, err := w.st.PutBytes([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		r.Files = append(r.Files, models.File{Entry: hub.Entry{Path: path, Size: int64(len(text)), OID: hub.SumBlob([]byte(text))}, Blob: d})
	}
	slices.SortFunc(r.Files, func(a, b models.File) int { return strings.Compare(a.Path, b.Path) })
	return r
}

// target makes one whose requests pass through the project's own client, as
// they do in the program; its pauses are short.
func (w *world) target(t *testing.T, o Options, client fetch.Config) *Target {
	t.Helper()
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	client.Name, client.AllowHTTP, client.RetryWait = "models/llm", true, time.Millisecond
	client.Hosts = append(client.Hosts, u.Host)
	c, err := fetch.New(fetch.NewPool(8, 8), client)
	if err != nil {
		t.Fatal(err)
	}
	if o.Name == "" {
		o.Name = "models/llm"
	}
	if o.Bucket == "" {
		o.Bucket = "bucket"
	}
	if o.AccessKey == "" {
		o.AccessKey, o.SecretKey = accessKey, secretKey
	}
	rt := c.RoundTripper()
	if w.wrap != nil {
		rt = w.wrap(rt)
	}
	target, err := New(o, rt, w.st, slog.New(slog.NewTextHandler(&w.log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	target.part, target.pause = part, func(time.Duration) time.Duration { return 0 }
	return target
}

func put(t *testing.T, target *Target, revs ...models.Revision) (string, error) {
	t.Helper()
	text, err := target.Publish(t.Context(), &models.Set{Revisions: revs}, 1, time.Unix(1, 0))
	for _, secret := range []string{target.opt.AccessKey, target.opt.SecretKey} {
		if strings.Contains(text, secret) || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in %q or %v", secret, text, err)
		}
	}
	return text, err
}

func publish(t *testing.T, target *Target, revs ...models.Revision) string {
	t.Helper()
	text, err := put(t, target, revs...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// noise is the same for the same seed.
func noise(seed byte, n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// weights fill two parts and some of a third.
func weights() string { return noise(1, 2*part+1000) }

func small() map[string]string {
	return map[string]string{
		"README.md": "# card", "__init__.py": "", "a folder/x+y ü.txt": "odd", "config.json": "{}", "model.safetensors": weights(),
	}
}

// code is the code of a refusal, or of the first that an Incomplete holds.
func code(err error) string {
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		return r.Code
	}
	return ""
}
