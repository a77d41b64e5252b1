package s3

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

// A run is one call of Publish.
type run struct {
	*Target
	plan     []*revision
	planned  map[string]*object
	recorded map[string]*object // what the manifest lists
	old      []byte             // the manifest itself; nil: there is none
	others   []string           // manifests of other sources
	listed   map[string]listing

	mu      sync.Mutex
	at      map[artifact.Digest]*object // files that are there
	put     int
	same    int
	removed int
	damaged int
	lost    []artifact.Lost
	notes   []string
}

func (r *run) count(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// have notes a file that may be copied from.
func (r *run) have(o *object) {
	if !o.ref {
		r.count(func() { r.at[o.digest] = o })
	}
}

// Publish makes the prefix hold the set; see [models.Target]. Revisions that
// could not be put, and such as could not be taken away, are listed in an
// *artifact.Incomplete.
func (t *Target) Publish(ctx context.Context, set *models.Set, _ uint64, _ time.Time) (string, error) {
	r := &run{Target: t, plan: t.plan(set), planned: make(map[string]*object), at: make(map[artifact.Digest]*object)}
	for _, rev := range r.plan {
		if rev.err == nil {
			for _, o := range rev.objects() {
				r.planned[o.key] = o
			}
		}
	}
	if err := r.record(ctx); err != nil {
		return "", err
	}
	if err := r.survey(ctx); err != nil {
		return "", err
	}
	if err := r.intend(ctx); err != nil {
		return "", err
	}
	if err := r.send(ctx); err != nil {
		return "", err
	}
	if err := r.point(ctx); err != nil {
		return "", err
	}
	left, err := r.clean(ctx)
	if err != nil {
		return "", err
	}
	if err := r.settle(ctx, left); err != nil {
		return "", err
	}
	return r.report()
}

// record reads the manifest.
func (r *run) record(ctx context.Context) (err error) {
	keys, err := r.manifests(ctx)
	if err != nil {
		return err
	}
	own := r.manifestKey()
	for _, key := range keys {
		if key != own {
			r.others = append(r.others, key)
		}
	}
	if slices.Contains(keys, own) {
		r.old, r.recorded, err = r.readManifest(ctx, own)
	}
	return err
}

// intend writes down what is about to be put, before any of it is there.
func (r *run) intend(ctx context.Context) error {
	both := maps.Clone(r.recorded)
	if both == nil {
		both = make(map[string]*object)
	}
	maps.Copy(both, r.planned)
	return r.writeManifest(ctx, both)
}

// writeManifest makes objects what the manifest lists.
func (r *run) writeManifest(ctx context.Context, objects map[string]*object) error {
	b, err := r.encode(objects)
	if err != nil || bytes.Equal(b, r.old) || r.old == nil && len(objects) == 0 {
		return err
	}
	failpoint.Here("s3.record")
	if err := r.write(ctx, r.manifestKey(), b, "application/json"); err != nil {
		return err
	}
	failpoint.Here("s3.recorded")
	r.old = b
	return nil
}

// send puts the files that are missing, one revision after the other, so that
// each is whole as early as it can be.
func (r *run) send(ctx context.Context) error {
	var need int64
	for _, o := range r.planned {
		if o.etag == "" {
			need += o.size
		}
	}
	r.onEvent(artifact.Event{Stage: "publish", Source: r.opt.Name, TotalBytes: need})
	var stop error
	for _, rev := range r.plan {
		if rev.err == nil && stop != nil {
			rev.err = stop
		}
		if rev.err == nil {
			rev.err = r.sendRevision(ctx, rev)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rev.err != nil {
			if stops(rev.err) {
				stop = rev.err
			}
			r.lose(rev.repo, rev.commit, rev.err)
		}
	}
	return nil
}

func (r *run) lose(name hub.Repo, commit string, err error) {
	r.lost = append(r.lost, artifact.Lost{Name: name.String(), Version: commit, Err: err})
}

func (r *run) sendRevision(ctx context.Context, rev *revision) error {
	for _, round := range []bool{false, true} {
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(parallel)
		for _, o := range rev.files {
			if last(o.path) != round {
				continue
			}
			if o.etag != "" {
				r.count(func() { r.same++ })
				continue
			}
			g.Go(func() error {
				err := r.sendFile(gctx, o)
				if err == nil {
					r.have(o)
					r.count(func() { r.put++ })
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// point writes the refs of the revisions that are whole.
func (r *run) point(ctx context.Context) error {
	for _, rev := range r.plan {
		if rev.err != nil {
			continue
		}
		for _, o := range rev.refs {
			if o.etag != "" {
				continue
			}
			failpoint.Here("s3.point")
			if rev.err = r.sendRef(ctx, o); rev.err != nil {
				break
			}
			failpoint.Here("s3.pointed")
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rev.err != nil {
			r.lose(rev.repo, rev.commit, rev.err)
		}
	}
	return nil
}

// clean removes what earlier runs put and the set has not: refs first, then
// config.json, then the rest. Of a repository that was not published whole
// nothing is removed, since its refs may point there. It answers with what is
// left.
func (r *run) clean(ctx context.Context) ([]*object, error) {
	held := make(map[hub.Repo]bool)
	for _, rev := range r.plan {
		if rev.err != nil {
			held[rev.repo] = true
		}
	}
	var stale, left []*object
	for key, o := range r.recorded {
		switch {
		case r.planned[key] != nil:
		case held[o.repo]:
			left = append(left, o)
		default:
			stale = append(stale, o)
		}
	}
	shared, err := r.shared(ctx, stale)
	if err != nil {
		return nil, err
	}
	rounds := make([][]*object, 3)
	for _, o := range stale {
		n := 2
		if o.ref {
			n = 0
		} else if last(o.path) {
			n = 1
		}
		if !shared[o.key] {
			rounds[n] = append(rounds[n], o)
		}
	}
	for _, round := range rounds {
		kept, err := r.remove(ctx, round)
		if err != nil {
			return nil, err
		}
		left = append(left, kept...)
	}
	return left, nil
}

// shared tells which objects other sources list too.
func (r *run) shared(ctx context.Context, stale []*object) (map[string]bool, error) {
	if len(stale) == 0 {
		return nil, nil
	}
	shared := make(map[string]bool)
	for _, key := range r.others {
		_, objects, err := r.readManifest(ctx, key)
		if err != nil {
			return nil, err
		}
		for _, o := range stale {
			if objects[o.key] != nil {
				shared[o.key] = true
			}
		}
	}
	return shared, nil
}

// remove deletes objects, and answers with those that could not be.
func (r *run) remove(ctx context.Context, list []*object) ([]*object, error) {
	var left []*object
	failed := make(map[string]bool) // revisions
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(looks)
	for _, o := range list {
		g.Go(func() error {
			err := r.removeOne(gctx, o)
			if err == nil || gctx.Err() != nil {
				return err
			}
			r.count(func() {
				left = append(left, o)
				if at := o.repo.String() + "@" + o.commit; !failed[at] {
					failed[at] = true
					r.lose(o.repo, o.commit, fmt.Errorf("what was published before could not be taken away: %w", err))
				}
			})
			return nil
		})
	}
	return left, g.Wait()
}

// removeOne deletes an object if it is still ours.
func (r *run) removeOne(ctx context.Context, o *object) error {
	if o.etag == "" && r.inParts(o.size) {
		if err := r.abort(ctx, o); err != nil {
			return err
		}
	}
	l, ok := r.listed[o.key]
	if !ok {
		return nil
	}
	if o.etag == "" || o.etag != l.etag {
		info, err := r.stat(ctx, o.key)
		if err != nil || info == nil {
			return err
		}
		if info.UserMetadata[metaSource] != r.opt.Name {
			r.log.WarnContext(ctx, "an object is not what we put any more, and stays", slog.String("source", r.opt.Name), slog.String("object", o.key))
			r.count(func() { r.notes = append(r.notes, o.key+" stays: others have put something else there") })
			return nil
		}
	}
	failpoint.Here("s3.remove")
	if err := r.delete(ctx, o.key); err != nil {
		return err
	}
	failpoint.Here("s3.removed")
	r.count(func() { r.removed++ })
	return nil
}

// settle writes the manifest of what is there now.
func (r *run) settle(ctx context.Context, left []*object) error {
	objects := maps.Clone(r.planned)
	for _, o := range left {
		objects[o.key] = o
	}
	return r.writeManifest(ctx, objects)
}

// report is the text for the operator, and what is missing.
func (r *run) report() (string, error) {
	whole := 0
	for _, rev := range r.plan {
		if rev.err == nil {
			whole++
		}
	}
	parts := []string{plural(whole, "revision")}
	for _, c := range []struct {
		n    int
		text string
	}{{r.put, "put"}, {r.same, "unchanged"}, {r.removed, "removed"}, {r.damaged, "damaged and put again"}} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.text))
		}
	}
	text := strings.Join(parts, ", ") + "   " + r.where()
	slices.Sort(r.notes)
	for _, n := range r.notes {
		text += "\n" + n
	}
	if len(r.lost) > 0 {
		slices.SortStableFunc(r.lost, func(a, b artifact.Lost) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
		})
		return text, &artifact.Incomplete{Items: r.lost}
	}
	return text, nil
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
