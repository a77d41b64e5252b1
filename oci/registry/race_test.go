package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// Imports switch the publication while clients pull, push, delete and list,
// through two servers over the same folders. Each answer is of one state: a
// tag is one of the published images and comes with its digest; what a pushed
// tag names is whole.
func TestConcurrent(t *testing.T) {
	const rounds = 20
	w := newWorld(t, Options{PushToken: secret})
	second := openWorld(t, w.dir, Options{PushToken: secret})
	srv := httptest.NewServer(second.h)
	t.Cleanup(srv.Close)
	second.url = srv.URL
	servers := []*world{w, second}

	states := []upstreamImage{upstream(t, "app", "v", 1, nil), upstream(t, "app", "v", 2, nil)}
	w.publish("platform", 1, states[0])
	shared := w.pushBlob("platform/app", noise(5000, 3))
	var pulled atomic.Int64
	done := make(chan struct{})
	until := func(f func(w *world, i int) error) func() error {
		return func() error {
			for i := 0; ; i++ {
				select {
				case <-done:
					return nil
				default:
				}
				if err := f(servers[i%2], i); err != nil {
					return err
				}
			}
		}
	}
	g, ctx := errgroup.WithContext(t.Context())
	expect := func(r *reply, err error, statuses ...int) error {
		if err != nil {
			return err
		}
		if !slices.Contains(statuses, r.status) {
			return fmt.Errorf("got %d %s, want %v", r.status, r.body, statuses)
		}
		return nil
	}
	g.Go(func() error { // imports
		defer close(done)
		for i := range rounds {
			// It sweeps the store first, as every import does.
			if err := w.store.Sweep(nil); err != nil {
				return err
			}
			if err := w.tryPublish("platform", i+2, states[i%2]); err != nil {
				return err
			}
			r, err := servers[i%2].try(ctx, http.MethodGet, app+"/manifests/v", nil)
			if err := expect(r, err, http.StatusOK); err != nil {
				return err
			}
			if !bytes.Equal(r.body, states[i%2].manifest) {
				return errors.New("the publication before is served after an import")
			}
		}
		return nil
	})
	for range 2 { // pulls of what is published
		g.Go(until(func(w *world, _ int) error {
			r, err := w.try(ctx, http.MethodGet, app+"/manifests/v", nil)
			if err := expect(r, err, http.StatusOK); err != nil {
				return err
			}
			if got := digestOf(r.body); string(got) != r.header.Get("Docker-Content-Digest") || !slices.ContainsFunc(states, func(u upstreamImage) bool { return u.descriptor().Digest == got }) {
				return fmt.Errorf("tag v is %s, says %s", got, r.header.Get("Docker-Content-Digest"))
			}
			r, err = w.try(ctx, http.MethodGet, app+"/tags/list", nil)
			if err := expect(r, err, http.StatusOK); err != nil {
				return err
			}
			if !bytes.Contains(r.body, []byte(`"v"`)) || bytes.Contains(r.body, []byte("tmp")) {
				return fmt.Errorf("tags %s", r.body)
			}
			return nil
		}))
	}
	for n := range 2 { // pushes and deletions
		g.Go(until(func(w *world, i int) error {
			config := fmt.Appendf(nil, "config %d %d", n, i)
			r, err := w.try(ctx, http.MethodPost, app+"/blobs/uploads/?digest="+string(digestOf(config)), bytes.NewReader(config))
			if err := expect(r, err, http.StatusCreated); err != nil {
				return err
			}
			raw, err := json.Marshal(imageOf(describe(config), shared))
			if err != nil {
				return err
			}
			r, err = w.try(ctx, http.MethodPut, app+"/manifests/p", bytes.NewReader(raw), "Content-Type", spec.OCIManifest)
			if err := expect(r, err, http.StatusCreated); err != nil {
				return err
			}
			r, err = w.try(ctx, http.MethodDelete, app+"/blobs/"+string(shared.Digest), nil)
			if err := expect(r, err, http.StatusMethodNotAllowed); err != nil {
				return fmt.Errorf("a layer in use: %w", err)
			}
			if i%3 != 0 {
				return nil
			}
			r, err = w.try(ctx, http.MethodDelete, app+"/manifests/"+string(digestOf(raw)), nil)
			return expect(r, err, http.StatusAccepted)
		}))
	}
	g.Go(until(func(w *world, _ int) error { // pulls of what is pushed
		r, err := w.try(ctx, http.MethodGet, app+"/manifests/p", nil)
		if err := expect(r, err, http.StatusOK, http.StatusNotFound); err != nil || r.status != http.StatusOK {
			return err
		}
		var m spec.Manifest
		if err := json.Unmarshal(r.body, &m); err != nil {
			return err
		}
		for _, d := range m.Blobs() {
			r, err := w.try(ctx, http.MethodGet, app+"/blobs/"+string(d.Digest), nil)
			if err := expect(r, err, http.StatusOK); err != nil {
				return fmt.Errorf("of tag p: %w", err)
			}
			if digestOf(r.body) != d.Digest {
				return fmt.Errorf("%s is %s", d.Digest, digestOf(r.body))
			}
		}
		pulled.Add(1)
		return nil
	}))
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if pulled.Load() == 0 {
		t.Error("no pushed image was ever pulled")
	}
}

// Two requests for one repository wait for one another, and two for two do
// not.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	a, err := openTree(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openTree(dir, true) // as another process has it
	if err != nil {
		t.Fatal(err)
	}
	var inside atomic.Int32
	var g errgroup.Group
	for i := range 20 {
		g.Go(func() (err error) {
			unlock, err := []*tree{a, b}[i%2].lock("a/b")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, unlock()) }()
			if inside.Add(1) != 1 {
				return errors.New("two are inside")
			}
			other, err := a.lock("a/b/c" + fmt.Sprint(i))
			if err != nil {
				return err
			}
			inside.Add(-1)
			return other()
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if len(a.queues) != 0 || len(b.queues) != 0 {
		t.Errorf("%d and %d queues are left", len(a.queues), len(b.queues))
	}
	if err := errors.Join(a.close(), b.close()); err != nil {
		t.Error(err)
	}
}
