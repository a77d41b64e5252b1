package plaindir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
}

// A Target is a folder with models.
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
		folder := r.Repo.CacheFolder()
		wanted[folder] = append(wanted[folder], r)
	}
	folders, err := t.recorded(top)
	if err != nil {
		return "", err
	}
	folders = slices.AppendSeq(folders, maps.Keys(wanted))
	slices.Sort(folders)
	var lost []artifact.Lost
	taken := make(map[hub.Kind]int)
	for _, folder := range slices.Compact(folders) {
		revs := wanted[folder]
		missing, err := t.repository(ctx, top, folder, revs)
		if err != nil {
			if place.Stops(ctx, err) {
				return "", fmt.Errorf("%s: %w", folder, err)
			}
			lost = append(lost, t.lost(folder, revs, err)...)
			continue
		}
		lost = append(lost, missing...)
		if len(revs) > 0 {
			taken[revs[0].Repo.Kind]++
		}
	}
	text := count(taken) + "   " + t.dir
	if len(lost) > 0 {
		return text, &artifact.Incomplete{Items: lost}
	}
	return text, nil
}

// repository brings one repository up to date. It returns what there cannot
// be of it.
func (t *Target) repository(ctx context.Context, top *place.Place, folder string, revs []*models.Revision) ([]artifact.Lost, error) {
	if err := top.Prepare(); err != nil {
		return nil, err
	}
	r, err := t.begin(top, folder, revs)
	if err != nil {
		return nil, err
	}
	if len(revs) > 0 {
		return r.lost, r.publish(ctx)
	}
	t.log.InfoContext(ctx, "a repository is no longer published", slog.String("source", t.o.Name), slog.String("artifact", folder))
	return nil, r.vanish()
}

// recorded lists the repositories that an earlier set of this source brought.
func (t *Target) recorded(top *place.Place) ([]string, error) {
	entries, err := top.Entries(recordFolder(t.o.Name))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if folder, ok := strings.CutSuffix(e.Name(), recordSuffix); ok {
			list = append(list, folder)
		}
	}
	return list, nil
}

// lost lists the revisions of a repository that was not taken, or the
// repository itself where it could not be taken away.
func (t *Target) lost(folder string, revs []*models.Revision, err error) []artifact.Lost {
	r, known := errors.AsType[*artifact.Refusal](err)
	if !known {
		r = &artifact.Refusal{Class: artifact.ErrUnavailable, Code: models.CodeTarget, Subject: t.dir, Reason: "the folder does not take it", Err: err}
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

// count says how many repositories there are.
func count(n map[hub.Kind]int) string {
	var parts []string
	for _, k := range []hub.Kind{hub.Model, hub.Dataset} {
		switch {
		case n[k] == 1:
			parts = append(parts, "1 "+string(k))
		case n[k] > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n[k], k))
		}
	}
	if len(parts) == 0 {
		return "0 models"
	}
	return strings.Join(parts, ", ")
}
