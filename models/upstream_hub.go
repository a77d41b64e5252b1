package models

import (
	"context"
	"errors"
	"fmt"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/hub"
)

// What a part of a file may have. A small one is soon had again; a large one
// spends few requests: the largest files have some two thousand parts.
const (
	minPart     = 8 << 20
	maxPart     = 32 << 20
	partsAtMost = 256 // of a file between the two
	// largeAtOnce is how many files of several parts are under way: one alone
	// fills the connections, and the others keep them busy at its end.
	largeAtOnce = 3
)

// A hubUpstream reads a hub.
type hubUpstream struct {
	c     *hub.Client
	st    *store.Store
	conns int
	large chan struct{} // a place for each file of several parts
}

func newHubUpstream(c *hub.Client, st *store.Store, conns int) *hubUpstream {
	return &hubUpstream{c: c, st: st, conns: conns, large: make(chan struct{}, largeAtOnce)}
}

func (u *hubUpstream) origin() string { return u.c.Endpoint() }

func (u *hubUpstream) resolve(ctx context.Context, name hub.Repo, revision string) (*hub.Commit, error) {
	return u.c.Resolve(ctx, name, revision)
}

func (u *hubUpstream) tree(ctx context.Context, name hub.Repo, commit string) ([]hub.Entry, error) {
	return u.c.Tree(ctx, name, commit)
}

func (u *hubUpstream) access(ctx context.Context, name hub.Repo, commit string, entries []hub.Entry) error {
	return u.c.Access(ctx, name, commit, entries)
}

func (u *hubUpstream) content(ctx context.Context, name hub.Repo, commit string, e *hub.Entry) ([]byte, error) {
	return u.c.Content(ctx, name, commit, e)
}

func (u *hubUpstream) url(name hub.Repo, commit, path string) string {
	return u.c.FileURL(name, commit, path)
}

// fetch brings a file into the store, going on where an earlier run stopped.
func (u *hubUpstream) fetch(ctx context.Context, name hub.Repo, commit, path string, d artifact.Digest, size int64) (err error) {
	if u.st.Has(d) {
		return nil
	}
	if size > minPart {
		select {
		case u.large <- struct{}{}:
			defer func() { <-u.large }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p, err := u.st.Parts(d, size, min(max(size/partsAtMost, minPart), maxPart))
	if err != nil {
		return fmt.Errorf("%s@%s: %s: %w", name, commit, path, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	failpoint.Here("models.fetch")
	return u.c.Download(ctx, name, commit, path, p, u.conns)
}
