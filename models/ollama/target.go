package ollama

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/place"
)

// Options say how a folder is written.
type Options struct {
	// Name is the source, "models/llm". Several may share one folder.
	Name string
	// Host is the first part of the models' names there: "models.example".
	Host string
}

// A Target is a models folder of Ollama.
type Target struct {
	dir string
	o   Options
	st  *store.Store
	log *slog.Logger
}

var _ models.Target = (*Target)(nil)

// New makes a target of a folder, which the first Publish creates. A nil log
// discards.
func New(dir string, o Options, st *store.Store, log *slog.Logger) (*Target, error) {
	if err := artifact.CheckSource(o.Name); err != nil {
		return nil, err
	}
	o.Host = strings.ToLower(o.Host)
	if err := checkPart(hostPart, maxHost, o.Host); err != nil {
		return nil, fmt.Errorf("%s: ollama.host: %w", o.Name, err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Target{dir: dir, o: o, st: st, log: log}, nil
}

// Publish makes the folder hold the set; see [models.Target]. A repository
// that cannot be written is listed in the *artifact.Incomplete with all of its
// revisions, and the others are published.
func (t *Target) Publish(ctx context.Context, set *models.Set, _ uint64, _ time.Time) (text string, err error) {
	defer func() {
		if _, partial := errors.AsType[*artifact.Incomplete](err); err != nil && !partial {
			text, err = "", fmt.Errorf("%s: %s: %w", t.o.Name, t.dir, err)
		}
	}()
	top, err := place.Open(ctx, t.dir, t.st)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, top.Close()) }()
	return t.publish(ctx, top, set)
}

func (t *Target) publish(ctx context.Context, top *place.Place, set *models.Set) (string, error) {
	wanted := make(map[string][]*models.Revision)
	for i := range set.Revisions {
		r := &set.Revisions[i]
		if folder := r.Repo.CacheFolder(); r.Repo.Kind == hub.Model && hasGGUF(r) {
			wanted[folder] = append(wanted[folder], r)
		}
	}
	l, err := readLedger(top)
	if err != nil {
		return "", err
	}
	// Those that go make room for those that come.
	folders := append(t.gone(l, wanted), slices.Sorted(maps.Keys(wanted))...)
	var lost []artifact.Lost
	repos, tags := 0, 0
	called := make(map[string]string) // by whom a name is used already
	for _, folder := range folders {
		revs := wanted[folder]
		r, err := t.repository(ctx, top, l, folder, revs, called)
		if err != nil {
			if place.Stops(ctx, err) {
				return "", fmt.Errorf("%s: %w", folder, err)
			}
			lost = append(lost, t.lost(folder, revs, err)...)
			continue
		}
		lost = append(lost, r.lost...)
		tags += len(r.want.Manifests)
		if len(r.want.Manifests) > 0 {
			repos++
		}
	}
	text := plural(repos, "model") + ", " + plural(tags, "tag") + "   " + t.dir
	if len(lost) > 0 {
		return text, &artifact.Incomplete{Items: lost}
	}
	return text, nil
}

// repository brings one repository up to date.
func (t *Target) repository(ctx context.Context, top *place.Place, l *ledger, folder string, revs []*models.Revision, called map[string]string) (*repository, error) {
	if err := top.Prepare(); err != nil {
		return nil, err
	}
	r, err := t.begin(top, l, folder)
	if err != nil {
		return nil, err
	}
	if len(revs) == 0 {
		t.log.InfoContext(ctx, "a repository is no longer published", slog.String("source", t.o.Name), slog.String("artifact", folder))
		delete(l.records, r.at)
		return r, r.vanish()
	}
	name, err := modelName(revs[0].Repo)
	if err != nil {
		return nil, err
	}
	if other := called[name]; other != "" {
		return nil, fmt.Errorf("%s is called %s there too", other, name)
	}
	called[name] = revs[0].Repo.String()
	if err := r.plan(ctx, revs); err != nil {
		return nil, err
	}
	l.records[r.at] = r.want
	return r, r.publish(ctx)
}

// gone lists the repositories that an earlier set of this source brought and
// this one has not.
func (t *Target) gone(l *ledger, wanted map[string][]*models.Revision) []string {
	var list []string
	for _, all := range []iter.Seq[string]{maps.Keys(l.records), maps.Keys(l.broken)} {
		for rel := range all {
			folder := strings.TrimSuffix(path.Base(rel), recordSuffix)
			if path.Dir(rel) == recordFolder(t.o.Name) && len(wanted[folder]) == 0 {
				list = append(list, folder)
			}
		}
	}
	slices.Sort(list)
	return list
}

func hasGGUF(r *models.Revision) bool {
	for i := range r.Files {
		if isGGUF(&r.Files[i]) {
			return true
		}
	}
	return false
}

// lost lists the revisions of a repository that was not taken, or the
// repository itself where it could not be taken away.
func (t *Target) lost(folder string, revs []*models.Revision, err error) []artifact.Lost {
	r, known := errors.AsType[*artifact.Refusal](err)
	if !known {
		r = &artifact.Refusal{Class: artifact.ErrUnavailable, Code: models.CodeTarget, Subject: t.dir, Reason: "the models folder does not take it", Err: err}
	}
	if len(revs) == 0 {
		return []artifact.Lost{{Name: folder, Version: "no longer published", Err: r}}
	}
	list := make([]artifact.Lost, len(revs))
	for i, rev := range revs {
		list[i] = artifact.Lost{Name: rev.Repo.String(), Version: rev.Commit, Err: r}
	}
	return list
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
