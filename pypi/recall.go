package pypi

import (
	"context"
	"errors"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// recall answers the snapshot that was sealed before with what the index has
// taken back since: projects that it has put into quarantine, files that it
// has yanked. It is asked where nothing newer could be resolved because of
// failed, often for that very reason, and the inside should know all the same.
// The error is failed, as an *artifact.Incomplete beside a snapshot.
//
// Nothing is added, and only what the index itself says is taken over. Where
// it may be lying, since something of it was refused as such, it is not asked;
// nor where it says nothing new.
func (s *Source) recall(ctx context.Context, prev *artifact.Snapshot, failed error) (*artifact.Snapshot, []string, error) {
	if prev == nil || !refusal(failed) || errors.Is(failed, artifact.ErrIntegrity) {
		return nil, nil, failed
	}
	doc, err := sealedIndex(s.store, prev)
	if err != nil || doc == nil {
		return nil, nil, errors.Join(failed, err)
	}
	said := make([]string, len(doc.Projects)) // what is new of each
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(pagesAtOnce)
	for i := range doc.Projects {
		g.Go(func() error {
			p := &doc.Projects[i]
			pg, _, err := s.page(gctx, p.Name, func(filename string) bool { return p.file(filename) != nil })
			switch {
			case err == nil:
				said[i] = p.takenBack(pg)
			case !refusal(err):
				return err
			}
			return nil // a page that is gone says nothing of its files
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, failed //nolint:nilerr // what could not be asked is not what went wrong
	}
	said = slices.DeleteFunc(said, func(s string) bool { return s == "" })
	if len(said) == 0 {
		return nil, nil, failed
	}
	snap, err := s.seal(&artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: s.name, Artifacts: prev.Artifacts}, doc)
	if err != nil {
		return nil, nil, errors.Join(failed, err)
	}
	notes := []string{"not resolved; as it was sealed before, but for what the index has taken back: " + strings.Join(said, ", ")}
	return snap, notes, &artifact.Incomplete{Items: []artifact.Lost{{Err: failed}}}
}

// takenBack takes over what a page takes back, and says it.
func (p *indexProject) takenBack(pg *page) string {
	var said []string
	if pg.Status == quarantined && p.Status != quarantined {
		p.Status, p.StatusReason = pg.Status, pg.StatusReason
		said = append(said, p.Name+" is in quarantine")
	}
	for i := range pg.Files {
		at := &pg.Files[i]
		f := p.file(at.Filename)
		if f == nil || !at.Yanked || f.Yanked || at.Digest != f.SHA256 {
			continue
		}
		f.Yanked, f.YankedReason = true, at.YankedReason
		said = append(said, f.Filename+" is yanked")
	}
	return strings.Join(said, ", ")
}

// file finds a file by its name, or gives nil.
func (p *indexProject) file(name string) *indexFile {
	i, ok := slices.BinarySearchFunc(p.Files, name, func(f indexFile, name string) int { return strings.Compare(f.Filename, name) })
	if !ok {
		return nil
	}
	return &p.Files[i]
}
