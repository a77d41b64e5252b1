package cachedir

import (
	"bytes"
	"context"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/place"
)

// Folders of a repository.
const (
	blobsDir     = "blobs"
	snapshotsDir = "snapshots"
	treesDir     = "trees"
	refsDir      = "refs"
	noExistDir   = ".no_exist"
)

// A repository is one repository's folder on its way from what a record says
// to what a set says.
type repository struct {
	*place.Place
	source string
	links  string
	old    *record                   // what this source has put there
	want   *record                   // what it shall have there
	others []*record                 // what other sources have there
	known  map[string]place.Identity // files that are right, by the records
	placed map[string]bool           // blobs that this run has seen to
}

// begin reads what is there.
func (t *Target) begin(p *place.Place, revs []*models.Revision) (*repository, error) {
	r := &repository{
		Place: p, source: t.o.Name, links: t.o.Links,
		known: make(map[string]place.Identity), placed: make(map[string]bool),
	}
	var err error
	if r.old, err = readRecord(p, recordPath(r.source)); err != nil {
		return nil, err
	}
	if r.others, err = readOthers(p, r.source); err != nil {
		return nil, err
	}
	for _, rec := range append(slices.Clone(r.others), r.old) {
		for _, f := range rec.Files {
			r.known[f.Path] = f.Is
		}
	}
	r.want = newRecord(r.source, revs, t.o.NoExist)
	return r, nil
}

// publish makes the folder hold the revisions. What the record of a killed run
// cannot say is said before anything is touched.
func (r *repository) publish(ctx context.Context, revs []*models.Revision) error {
	if err := r.Prepare(); err != nil {
		return err
	}
	if err := r.announce(); err != nil {
		return err
	}
	for _, rev := range revs {
		if err := r.revision(ctx, rev); err != nil {
			return err
		}
	}
	if err := r.refs(); err != nil {
		return err
	}
	if err := r.withdraw(); err != nil {
		return err
	}
	return r.settle()
}

// announce records all that may lie there until the end of this run.
func (r *repository) announce() error {
	old, err := r.old.lasting()
	if err != nil {
		return err
	}
	want, err := r.want.lasting()
	if err != nil || bytes.Equal(old, want) {
		return err
	}
	b, err := merge(r.old, r.want).encode()
	if err != nil {
		return err
	}
	failpoint.Here("cachedir.announce")
	return r.Write(recordPath(r.source), b)
}

// settle records what lies there now.
func (r *repository) settle() error {
	slices.SortFunc(r.want.Files, func(a, b recordFile) int { return strings.Compare(a.Path, b.Path) })
	b, err := r.want.encode()
	if err != nil {
		return err
	}
	failpoint.Here("cachedir.settle")
	return r.Write(recordPath(r.source), b)
}

// revision makes one revision complete: blobs, snapshot, what is known not to
// exist, and the tree that says so.
func (r *repository) revision(ctx context.Context, rev *models.Revision) error {
	if r.links == models.LinksRelative {
		if err := r.blobs(ctx, rev); err != nil {
			return err
		}
	}
	failpoint.Here("cachedir.snapshot")
	if err := r.snapshot(ctx, rev); err != nil {
		return err
	}
	for _, name := range r.want.revision(rev.Commit).NoExist {
		at := path.Join(noExistDir, rev.Commit, name)
		if err := r.Mkdir(path.Dir(at)); err != nil {
			return err
		}
		if err := r.Write(at, nil); err != nil {
			return err
		}
	}
	return r.tree(rev.Commit)
}

// blobs links each blob of the revision once.
func (r *repository) blobs(ctx context.Context, rev *models.Revision) error {
	if err := r.Mkdir(blobsDir); err != nil {
		return err
	}
	for i := range rev.Files {
		f := &rev.Files[i]
		at := path.Join(blobsDir, f.ETag())
		if r.placed[at] {
			continue
		}
		if err := r.put(ctx, f.Blob, at, at); err != nil {
			return err
		}
		r.placed[at] = true
	}
	return nil
}

// put links a blob to a name and remembers which file that is, under the name
// that it will have.
func (r *repository) put(ctx context.Context, d artifact.Digest, rel, final string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	is, err := r.Link(d, rel, r.known[final])
	if err == nil {
		r.want.Files = append(r.want.Files, recordFile{final, is})
	}
	return err
}

// snapshot makes the revision's folder.
func (r *repository) snapshot(ctx context.Context, rev *models.Revision) error {
	final := path.Join(snapshotsDir, rev.Commit)
	return r.Folder(final, func(at string) error { return r.fill(ctx, rev, at, final) })
}

// fill makes a folder hold the revision's files, as they lie below final.
func (r *repository) fill(ctx context.Context, rev *models.Revision, folder, final string) error {
	for i := range rev.Files {
		f := &rev.Files[i]
		at := path.Join(folder, f.Path)
		if err := r.Mkdir(path.Dir(at)); err != nil {
			return err
		}
		var err error
		if r.links == models.LinksRelative {
			up := strings.Repeat("../", 2+strings.Count(f.Path, "/"))
			err = r.Symlink(up+blobsDir+"/"+f.ETag(), at)
		} else {
			err = r.put(ctx, f.Blob, at, path.Join(final, f.Path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refs points branches and tags at their commits, after those are gone that
// the set has no more: one of them may be a folder now.
func (r *repository) refs() error {
	for _, ref := range r.old.Refs {
		if r.want.ref(ref.Name) != "" {
			continue
		}
		if err := r.withdrawRef(ref.Name); err != nil {
			return err
		}
	}
	for _, ref := range r.want.Refs {
		at := path.Join(refsDir, ref.Name)
		if err := r.Mkdir(path.Dir(at)); err != nil {
			return err
		}
		failpoint.Here("cachedir.ref")
		if err := r.Write(at, []byte(ref.Commit)); err != nil {
			return err
		}
	}
	return nil
}

// withdrawRef takes a branch of an earlier set away, unless somebody else has
// moved it; another source that has the branch gets its own commit back.
func (r *repository) withdrawRef(name string) error {
	at := path.Join(refsDir, name)
	if commit, err := r.Root().ReadFile(at); err != nil || r.old.revision(string(commit)) == nil {
		return nil //nolint:nilerr // gone, or no longer ours
	}
	failpoint.Here("cachedir.ref-removed")
	for _, rec := range r.others {
		if commit := rec.ref(name); commit != "" {
			return r.Write(at, []byte(commit))
		}
	}
	return r.Remove(at)
}
