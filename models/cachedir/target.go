package cachedir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/place"
)

// tag marks a cache folder for backup programs. Its first line is fixed.
const tag = "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag: what lies here can be had again.\n"

const tagName = "CACHEDIR.TAG"

// Options say how a cache folder is written.
type Options struct {
	// Name is the source, "models/llm". Several may share one folder.
	Name string
	// Links is models.LinksRelative (the default) or models.LinksNone.
	Links string
	// NoExist also marks optional files that a model has not, for older
	// clients without a network.
	NoExist bool
}

// A Target is a cache folder.
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
	if o.Links == "" {
		o.Links = models.LinksRelative
	}
	if o.Links != models.LinksRelative && o.Links != models.LinksNone {
		return nil, fmt.Errorf("%s: cache.links: %q, want %s or %s", o.Name, o.Links, models.LinksRelative, models.LinksNone)
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
	if err := tagFolder(top.Root()); err != nil {
		return "", err
	}
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
		if err := t.repository(ctx, top, folder, revs); err != nil {
			if place.Stops(ctx, err) {
				return "", fmt.Errorf("%s: %w", folder, err)
			}
			lost = append(lost, t.lost(folder, revs, err)...)
			continue
		}
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

// repository brings one repository's folder up to date.
func (t *Target) repository(ctx context.Context, top *place.Place, folder string, revs []*models.Revision) (err error) {
	p, err := top.Sub(folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	r, err := t.begin(p, revs)
	if err != nil {
		return err
	}
	if len(revs) > 0 {
		return r.publish(ctx, revs)
	}
	t.log.InfoContext(ctx, "a repository is no longer published", slog.String("source", t.o.Name), slog.String("artifact", folder))
	if err := r.vanish(); err != nil {
		return err
	}
	return top.Prune(folder)
}

// tagFolder marks the folder, unless somebody has done it.
func tagFolder(root *os.Root) error {
	if fi, err := root.Lstat(tagName); err == nil && fi.Size() > 0 {
		return nil
	}
	return root.WriteFile(tagName, []byte(tag), place.FileMode)
}

// recorded lists the repositories that an earlier set of this source brought,
// and those whose end a killed run left half done.
func (t *Target) recorded(top *place.Place) ([]string, error) {
	entries, err := top.Entries(".")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if !e.IsDir() || !strings.Contains(e.Name(), "--") {
			continue
		}
		in, err := top.Entries(e.Name())
		if err != nil {
			return nil, err
		}
		_, err = top.Root().Lstat(e.Name() + "/" + recordPath(t.o.Name))
		switch {
		case err == nil, len(in) == 0, len(in) == 1 && in[0].Name() == place.Corner:
			list = append(list, e.Name())
		case !place.Gone(err):
			return nil, err
		}
	}
	return list, nil
}

// lost lists the revisions of a repository that was not taken, or the
// repository itself where it could not be taken away.
func (t *Target) lost(folder string, revs []*models.Revision, err error) []artifact.Lost {
	r, known := errors.AsType[*artifact.Refusal](err)
	if !known {
		reason := "the cache folder does not take it"
		if t.o.Links == models.LinksRelative && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP)) {
			reason += "; where it has no symbolic links, links: none does without"
		}
		r = &artifact.Refusal{Class: artifact.ErrUnavailable, Code: models.CodeTarget, Subject: filepath.Join(t.dir, folder), Reason: reason, Err: err}
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
