package models

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/repo"
)

// aliasPrefix begins the other name of a blob in the store: its git id.
const aliasPrefix = "git-"

// A chosen revision is the answer to one want.
type chosen struct {
	want  want
	rev   Revision
	saved int64
	kept  bool // as it was sealed before
	notes []string
}

// choose answers one want.
func (r *resolution) choose(ctx context.Context, w want) (*chosen, error) {
	s := r.s
	commit, err := s.up.resolve(ctx, w.repo, w.revision)
	if err != nil {
		return nil, err
	}
	c := &chosen{want: w, rev: Revision{Repo: w.repo, Commit: commit.SHA, Profile: w.profile.String(), Gated: commit.Gated, Origin: s.up.origin()}}
	if !hub.IsCommit(w.revision) {
		c.rev.Refs = []string{w.revision}
	}
	entries, err := s.up.tree(ctx, w.repo, commit.SHA)
	if err != nil {
		return nil, err
	}
	if commit.Gated != "" {
		if err := s.up.access(ctx, w.repo, commit.SHA, entries); err != nil {
			return nil, err
		}
	}
	files := make([]repo.File, len(entries))
	byPath := make(map[string]*hub.Entry, len(entries))
	for i := range entries {
		e := &entries[i]
		files[i] = repo.File{Path: e.Path, Size: e.Size, ID: e.ETag()}
		byPath[e.Path] = e
	}
	subject := fmt.Sprintf("%s: %s@%s", s.name, w.repo, commit.SHA)
	read := func(path string, limit int64) ([]byte, error) {
		e := byPath[path]
		if e == nil {
			return nil, fmt.Errorf("%s is not in the tree", path)
		}
		return r.read(ctx, c, e, limit)
	}
	choice, err := w.profile.Select(files, read, w.include, w.exclude)
	if errors.Is(err, repo.ErrIncomplete) {
		return nil, refuse(CodeIndex, subject, "its weights are not complete", err)
	}
	if err != nil {
		return nil, refuse(CodeProfile, subject, "profile "+w.profile.String()+" finds nothing that it could carry", err)
	}
	c.rev.Left, c.saved, c.notes = choice.Left, choice.Saved, choice.Notes
	if err := r.small(ctx, c, choice.Keep, byPath); err != nil {
		return nil, err
	}
	if w.repo.Kind == hub.Model {
		if err := repo.CheckIndexes(choice.Keep, read); err != nil {
			return nil, refuse(CodeIndex, subject, "its weights are not complete", err)
		}
		refs, notes := repo.References(w.repo.String(), choice.Keep, read)
		for _, ref := range refs {
			c.rev.Needs = append(c.rev.Needs, Need{Reference: ref})
		}
		c.notes = append(c.notes, notes...)
	}
	licence, notes := repo.LicenceOf(choice.Keep, read)
	c.rev.Licence = licence
	c.notes = append(c.notes, notes...)
	return c, nil
}

// small reads every kept file that is not LFS, and so learns its SHA-256.
func (r *resolution) small(ctx context.Context, c *chosen, keep []repo.File, byPath map[string]*hub.Entry) error {
	c.rev.Files = make([]File, len(keep))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.s.cfg.PerHost())
	for i, k := range keep {
		e := byPath[k.Path]
		c.rev.Files[i].Entry = *e
		if e.LFS != nil {
			c.rev.Files[i].Blob = e.LFS.SHA256
			continue
		}
		g.Go(func() error {
			d, err := r.blob(ctx, c, e)
			c.rev.Files[i].Blob = d
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.SortFunc(c.rev.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// blob is the SHA-256 of a file that git itself keeps: known from the last
// set or from an earlier run, or read now and put into the store.
func (r *resolution) blob(ctx context.Context, c *chosen, e *hub.Entry) (artifact.Digest, error) {
	if r.before != nil {
		for i := range r.before.Revisions {
			old := &r.before.Revisions[i]
			if old.Repo != c.rev.Repo {
				continue
			}
			if f, ok := old.File(e.Path); ok && f.LFS == nil && f.OID == e.OID && f.Size == e.Size {
				return f.Blob, nil
			}
		}
	}
	alias := aliasPrefix + string(e.OID)
	if d, ok := r.s.st.Alias(alias); ok {
		return d, nil
	}
	b, err := r.s.up.content(ctx, c.rev.Repo, c.rev.Commit, e)
	if err != nil {
		return artifact.Digest{}, err
	}
	d, err := r.s.st.PutBytes(b)
	if err != nil {
		return d, err
	}
	failpoint.Here("models.small-file")
	return d, r.s.st.SetAlias(alias, d)
}

// read gives the content of a small file for a look into it.
func (r *resolution) read(ctx context.Context, c *chosen, e *hub.Entry, limit int64) ([]byte, error) {
	if e.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are looked into", e.Path, e.Size, limit)
	}
	if e.LFS != nil {
		if err := r.s.up.fetch(ctx, c.rev.Repo, c.rev.Commit, e.Path, e.LFS.SHA256, e.Size); err != nil {
			return nil, err
		}
		return r.s.st.ReadAll(e.LFS.SHA256, limit)
	}
	d, err := r.blob(ctx, c, e)
	if err != nil {
		return nil, err
	}
	if r.s.st.Has(d) {
		return r.s.st.ReadAll(d, limit)
	}
	return r.s.up.content(ctx, c.rev.Repo, c.rev.Commit, e) // carried before, and gone from here
}

// artifact is the revision as a snapshot lists it.
func (c *chosen) artifact(up upstream) artifact.Artifact {
	a := artifact.Artifact{Name: c.rev.Repo.String(), Version: c.rev.Commit, Why: c.want.why, Files: make([]artifact.File, len(c.rev.Files))}
	for i, f := range c.rev.Files {
		a.Files[i] = artifact.File{Path: filePath(c.rev.Repo, c.rev.Commit, f.Path), Digest: f.Blob, Size: f.Size, URL: up.url(c.rev.Repo, c.rev.Commit, f.Path)}
	}
	return a
}

// record is the revision as the record keeps it.
func (r *Revision) record() recordRevision {
	rr := recordRevision{
		Repo: r.Repo.String(), Commit: r.Commit, Refs: r.Refs, Profile: r.Profile, Files: make([]recordFile, len(r.Files)),
		Left: r.Left, Licence: r.Licence, Gated: r.Gated, Needs: r.Needs, Origin: r.Origin,
	}
	if rr.Refs == nil {
		rr.Refs = []string{}
	}
	for i, f := range r.Files {
		rr.Files[i] = recordFile{Path: f.Path, OID: f.OID}
		if f.LFS != nil {
			rr.Files[i].PointerSize = f.LFS.PointerSize
		}
	}
	return rr
}

// summary tells the operator what is worth knowing of a revision.
func (c *chosen) summary(before *Set) []string {
	if c.kept {
		return nil
	}
	name := c.rev.Repo.String()
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, name+": "+fmt.Sprintf(format, args...)) }
	if before != nil {
		if old, ok := before.Find(c.rev.Repo, c.want.revision); ok && old.Commit != c.rev.Commit {
			add("%s now stands for %s", c.want.revision, c.rev.Commit[:12])
		}
	}
	if c.saved > 0 {
		files := "files"
		if len(c.rev.Left) == 1 {
			files = "file"
		}
		add("profile %s leaves out %d %s and saves %s", c.rev.Profile, len(c.rev.Left), files, sizeText(c.saved))
	}
	for _, f := range c.rev.Files {
		if f.Size > hub.HTTPLimit {
			add("%s has over 50 GB: clients of a hub refuse it; a folder, a cache folder, an object store or a registry inside takes it", f.Path)
		}
	}
	var missing []string
	for _, n := range c.rev.Needs {
		if n.Needed && !n.Carried {
			missing = append(missing, n.Repo+" ("+n.Where+")")
		}
	}
	if len(missing) > 0 {
		add("loading it asks for %s, which no source carries here; with_deps: true carries them", strings.Join(missing, ", "))
	}
	for _, n := range c.notes {
		add("%s", n)
	}
	return notes
}

// sizeText prints bytes in binary units.
func sizeText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for ; f >= 1024 && u < len(units)-1; u++ {
		f /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", f, units[u])
}
