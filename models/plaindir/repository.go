package plaindir

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/place"
)

const (
	revisionsDir = ".revisions"
	// mainBranch is the one whose link has the repository's own name.
	mainBranch = "main"
	// idLength is how many hex digits tell one choice of files from another.
	idLength = 12
	// maxName is a file system's own bound.
	maxName = 255
)

// A repository is what is there of one repository, on its way from what a
// record says to what a set says.
type repository struct {
	*place.Place
	source string
	folder string                      // below revisionsDir: "models--team--model"
	old    *record                     // what this source has put there
	want   *record                     // what it shall have there
	others []*record                   // what other sources have there
	known  map[string]place.Identity   // files that are right, by the records: "FOLDER/PATH"
	revs   map[string]*models.Revision // those of want, by folder
	lost   []artifact.Lost             // links that there cannot be
}

// begin reads what is there and plans what shall be.
func (t *Target) begin(p *place.Place, folder string, revs []*models.Revision) (*repository, error) {
	r := &repository{Place: p, source: t.o.Name, folder: folder, known: make(map[string]place.Identity), revs: make(map[string]*models.Revision)}
	var err error
	if r.old, err = readRecord(p, recordPath(r.source, folder)); err != nil {
		return nil, err
	}
	if r.others, err = readOthers(p, r.source, folder); err != nil {
		return nil, err
	}
	for _, rec := range append(slices.Clone(r.others), r.old) {
		for _, rr := range rec.Revisions {
			for _, f := range rr.Files {
				r.known[rr.Folder+"/"+f.Path] = f.Is
			}
		}
	}
	r.want = &record{Schema: recordSchema, Source: r.source, Repo: r.old.Repo, Links: []recordLink{}, Revisions: []recordRevision{}}
	r.plan(revs)
	return r, nil
}

// readOthers reads the records that other sources have of a repository.
func readOthers(p *place.Place, source, folder string) ([]*record, error) {
	entries, err := p.Entries(place.Corner)
	if err != nil {
		return nil, err
	}
	own := path.Base(recordFolder(source))
	var all []*record
	for _, e := range entries {
		if !e.IsDir() || e.Name() == own || strings.HasPrefix(e.Name(), durable.TempPrefix) {
			continue
		}
		rec, err := readRecord(p, place.Corner+"/"+e.Name()+"/"+folder+recordSuffix)
		if err != nil {
			return nil, err
		}
		all = append(all, rec)
	}
	return all, nil
}

// plan gives each branch its link. A name goes to the branch that is called
// so, before one in which "/" had to become "-".
func (r *repository) plan(revs []*models.Revision) {
	type wish struct {
		ref string
		rev *models.Revision
	}
	var wishes []wish
	for _, rev := range revs {
		for _, ref := range rev.Refs {
			wishes = append(wishes, wish{ref, rev})
		}
		if len(rev.Refs) == 0 {
			wishes = append(wishes, wish{rev.Commit, rev})
		}
	}
	slices.SortStableFunc(wishes, func(a, b wish) int {
		return strings.Count(a.ref, "/") - strings.Count(b.ref, "/")
	})
	for _, w := range wishes {
		name := w.rev.Repo.String()
		r.want.Repo = name
		if w.ref != mainBranch {
			name += "@" + strings.ReplaceAll(w.ref, "/", "-")
		}
		folder := revisionFolder(w.rev)
		if other := r.want.link(name); other == folder {
			continue
		} else if other != "" {
			r.lose(w.rev, name, fmt.Sprintf("branch %s has no name of its own: another one is called so already", w.ref), nil)
			continue
		}
		if err := r.free(name); err != nil {
			r.lose(w.rev, name, "the name is taken by something that is not ours", err)
			continue
		}
		r.want.Links = append(r.want.Links, recordLink{name, folder})
		if r.want.revision(folder) != nil {
			continue
		}
		rr := recordRevision{Folder: folder}
		for _, f := range w.rev.Files {
			rr.Files = append(rr.Files, recordFile{Path: f.Path, Is: r.known[folder+"/"+f.Path]})
		}
		r.want.Revisions = append(r.want.Revisions, rr)
		r.revs[folder] = w.rev
	}
	slices.SortFunc(r.want.Links, func(a, b recordLink) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.want.Revisions, func(a, b recordRevision) int { return strings.Compare(a.Folder, b.Folder) })
}

func (r *repository) lose(rev *models.Revision, name, reason string, err error) {
	r.lost = append(r.lost, artifact.Lost{Name: rev.Repo.String(), Version: rev.Commit, Err: &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: models.CodeTarget, Subject: r.Path(name), Reason: reason, Err: err,
	}})
}

// free refuses a name that is too long, or at which something lies that we
// have not put there. A link into our revisions is ours, whatever became of
// the record.
func (r *repository) free(name string) error {
	if len(path.Base(name)) > maxName {
		return fmt.Errorf("a name of %d bytes, at most %d", len(path.Base(name)), maxName)
	}
	if _, err := r.Root().Lstat(name); place.Gone(err) {
		return nil
	}
	text, err := r.Root().Readlink(name)
	if err != nil {
		return err
	}
	if path.Dir(text) != path.Dir(r.target(name, "x")) {
		return fmt.Errorf("a link to %s", text)
	}
	return nil
}

// revisionFolder is the name of a revision's folder: its commit, and which of
// its files are there.
func revisionFolder(rev *models.Revision) string {
	var b bytes.Buffer
	for i := range rev.Files {
		f := &rev.Files[i]
		_, _ = io.WriteString(&b, f.Path+"\x00"+f.ETag()+"\n")
	}
	return rev.Commit + "-" + artifact.Sum(b.Bytes()).Hex()[:idLength]
}

// target is the text of a link of that name to a revision.
func (r *repository) target(name, revision string) string {
	return strings.Repeat("../", strings.Count(name, "/")) + path.Join(revisionsDir, r.folder, revision)
}

// publish makes the folder hold the revisions. What the record of a killed run
// cannot say is said before anything is touched.
func (r *repository) publish(ctx context.Context) error {
	if err := r.announce(); err != nil {
		return err
	}
	for i := range r.want.Revisions {
		rr := &r.want.Revisions[i]
		if err := r.Folder(r.at(rr), func(at string) error { return r.fill(ctx, rr, at) }); err != nil {
			return err
		}
	}
	for _, l := range r.want.Links {
		if err := r.Mkdir(path.Dir(l.Name)); err != nil {
			return err
		}
		failpoint.Here("plaindir.link")
		if err := r.Symlink(r.target(l.Name, l.Revision), l.Name); err != nil {
			return err
		}
	}
	if err := r.withdraw(); err != nil {
		return err
	}
	b, err := r.want.encode()
	if err != nil {
		return err
	}
	failpoint.Here("plaindir.settle")
	return r.Write(recordPath(r.source, r.folder), b)
}

// announce records all that may lie there until the end of this run.
func (r *repository) announce() error {
	old, err := r.old.encode()
	if err != nil {
		return err
	}
	want, err := r.want.encode()
	if err != nil || bytes.Equal(old, want) {
		return err
	}
	b, err := merge(r.old, r.want).encode()
	if err != nil {
		return err
	}
	if err := r.Mkdir(recordFolder(r.source)); err != nil {
		return err
	}
	failpoint.Here("plaindir.announce")
	return r.Write(recordPath(r.source, r.folder), b)
}

// at is where a revision's folder lies.
func (r *repository) at(rr *recordRevision) string {
	return path.Join(revisionsDir, r.folder, rr.Folder)
}

// fill makes a folder hold the revision's files.
func (r *repository) fill(ctx context.Context, rr *recordRevision, folder string) error {
	files := r.revs[rr.Folder].Files
	for i := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := path.Join(folder, files[i].Path)
		if err := r.Mkdir(path.Dir(at)); err != nil {
			return err
		}
		is, err := r.Link(files[i].Blob, at, rr.Files[i].Is)
		if err != nil {
			return err
		}
		rr.Files[i].Is = is
	}
	return nil
}

// withdraw takes away the links and then the folders that the record has and
// nobody wants any more.
func (r *repository) withdraw() error {
	for _, l := range r.old.Links {
		if r.want.link(l.Name) != "" {
			continue
		}
		if err := r.withdrawLink(l); err != nil {
			return err
		}
	}
	for i := range r.old.Revisions {
		rr := &r.old.Revisions[i]
		if slices.ContainsFunc(append(slices.Clone(r.others), r.want), func(rec *record) bool { return rec.revision(rr.Folder) != nil }) {
			continue
		}
		if err := r.RemoveFolder(r.at(rr), rr.paths()); err != nil {
			return err
		}
	}
	return nil
}

// withdrawLink takes a link away that somebody else has not moved; another
// source that has the link gets its own back.
func (r *repository) withdrawLink(l recordLink) error {
	if text, err := r.Root().Readlink(l.Name); place.Gone(err) {
		return r.Prune(path.Dir(l.Name))
	} else if err != nil || path.Dir(text) != path.Dir(r.target(l.Name, l.Revision)) {
		return nil //nolint:nilerr // no longer ours
	}
	failpoint.Here("plaindir.link-removed")
	for _, rec := range r.others {
		if revision := rec.link(l.Name); revision != "" {
			return r.Symlink(r.target(l.Name, revision), l.Name)
		}
	}
	return r.Remove(l.Name)
}

// vanish ends a repository that the source no longer has: its record goes
// last.
func (r *repository) vanish() error {
	if err := r.withdraw(); err != nil {
		return err
	}
	failpoint.Here("plaindir.vanish")
	return r.Remove(recordPath(r.source, r.folder))
}
