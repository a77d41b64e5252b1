package ollama

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/place"
)

const (
	blobsDir     = "blobs"
	manifestsDir = "manifests"

	mainBranch = "main"
	latest     = "latest"
	// standard is the quantisation that stands for a repository where there
	// are several.
	standard = "q4_k_m"
)

// A repository is what is there of one repository, on its way from what a
// record says to what a set says.
type repository struct {
	*place.Place
	st     *store.Store
	host   string
	at     string // of the record
	ledger *ledger
	old    *record // what this source has put there
	want   *record // what it shall have there
	known  map[artifact.Digest]place.Identity
	// layers and manifests are the contents of want's.
	layers    map[artifact.Digest]layer
	manifests map[string][]byte
	lost      []artifact.Lost // what there cannot be
}

// begin reads what is there.
func (t *Target) begin(p *place.Place, l *ledger, folder string) (*repository, error) {
	r := &repository{
		Place: p, st: t.st, host: t.o.Host, at: recordPath(t.o.Name, folder), ledger: l, known: l.known(),
		layers: make(map[artifact.Digest]layer), manifests: make(map[string][]byte),
	}
	if err := l.check(folder); err != nil {
		return nil, err
	}
	r.old = l.records[r.at]
	if r.old == nil {
		r.old = &record{}
	}
	r.want = &record{Schema: recordSchema, Source: t.o.Name, Repo: r.old.Repo, Manifests: []recordManifest{}, Blobs: []recordBlob{}, Heads: []head{}}
	return r, nil
}

// lose notes that something of a revision is not published.
func (r *repository) lose(rev *models.Revision, subject, reason string, err error) {
	r.lost = append(r.lost, artifact.Lost{Name: rev.Repo.String(), Version: rev.Commit, Err: &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: models.CodeTarget, Subject: r.Path(subject), Reason: reason, Err: err,
	}})
}

// plan makes the manifests of the revisions; main has the first choice of
// names.
func (r *repository) plan(ctx context.Context, revs []*models.Revision) error {
	revs = slices.Clone(revs)
	slices.SortStableFunc(revs, func(a, b *models.Revision) int {
		return order(slices.Contains(a.Refs, mainBranch)) - order(slices.Contains(b.Refs, mainBranch))
	})
	for _, rev := range revs {
		r.want.Repo = rev.Repo.String()
		name, err := modelName(rev.Repo)
		if err != nil {
			return err
		}
		list, err := r.models(ctx, rev)
		if err != nil {
			return err
		}
		for _, tag := range tags(rev, list) {
			if err := r.tag(rev, path.Join(r.host, name, tag.name), tag.model); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(r.want.Manifests, func(a, b recordManifest) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.want.Blobs, func(a, b recordBlob) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	return nil
}

func order(first bool) int {
	if first {
		return 0
	}
	return 1
}

// models lists the models of a revision, sorted by path, and what they
// consist of.
func (r *repository) models(ctx context.Context, rev *models.Revision) ([]*model, error) {
	var list []*model
	var projectors []*models.File
	split := make(map[string]bool)
	for i := range rev.Files {
		f := &rev.Files[i]
		if !isGGUF(f) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := r.head(f)
		if errors.Is(err, errHeader) {
			r.lose(rev, "", "a file is not what its name says", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		switch quant := quantTag(f.Path, h.FileType); {
		case h.Shards > 1:
			if !split[quant] {
				r.lose(rev, "", fmt.Sprintf("%s is one of %d files, and Ollama loads a model from one file alone", f.Path, h.Shards), nil)
			}
			split[quant] = true
		case h.Kind == kindProjector:
			projectors = append(projectors, f)
		case h.Kind == kindModel:
			list = append(list, &model{file: f, head: h, quant: quant})
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	shared, err := r.documents(rev)
	if err != nil {
		return nil, err
	}
	if p := projector(projectors); p != nil {
		shared = append([]layer{stored("projector", p)}, shared...)
	}
	for _, m := range list {
		chat, err := chatLayers(m.head, shared)
		if err != nil {
			return nil, err
		}
		m.layers = slices.Concat([]layer{stored("model", m.file)}, shared, chat)
	}
	return list, nil
}

// head reads a file's header, unless the record has it.
func (r *repository) head(f *models.File) (head, error) {
	same := func(h head) bool { return h.Digest == f.Blob }
	if i := slices.IndexFunc(r.want.Heads, same); i >= 0 {
		return r.want.Heads[i], nil
	}
	i := slices.IndexFunc(r.old.Heads, same)
	if i >= 0 {
		r.want.Heads = append(r.want.Heads, r.old.Heads[i])
		return r.old.Heads[i], nil
	}
	h, err := readHead(r.st, f)
	if err == nil {
		r.want.Heads = append(r.want.Heads, h)
	}
	return h, err
}

// projector chooses one of several forms: 16-bit, which all of them load.
func projector(list []*models.File) *models.File {
	for _, f := range list {
		if q := quantTag(f.Path, ""); q == "f16" || q == "fp16" {
			return f
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	return nil
}

type tagged struct {
	name  string
	model *model
}

// tags gives a revision's models their tags.
func tags(rev *models.Revision, list []*model) []tagged {
	if len(list) == 0 {
		return nil
	}
	chosen := list[0]
	for _, m := range list {
		if m.quant == standard {
			chosen = m
			break
		}
	}
	refs := rev.Refs
	if len(refs) == 0 {
		refs = []string{rev.Commit}
	}
	var all []tagged
	if slices.Contains(refs, mainBranch) {
		all = append(all, tagged{latest, chosen})
		for _, m := range list {
			all = append(all, tagged{m.quant, m})
		}
	}
	for _, ref := range refs {
		all = append(all, tagged{refTag(ref), chosen})
		if ref == mainBranch {
			continue
		}
		for _, m := range list {
			all = append(all, tagged{refTag(ref) + "-" + m.quant, m})
		}
	}
	return all
}

// tag plans one manifest, or notes why there cannot be one.
func (r *repository) tag(rev *models.Revision, name string, m *model) error {
	at := path.Join(manifestsDir, name)
	b, all, err := m.manifest()
	if err != nil {
		return err
	}
	if is, ok := r.manifests[name]; ok {
		if !bytes.Equal(is, b) {
			r.lose(rev, at, m.file.Path+" has no name of its own: another model is called so already", nil)
		}
		return nil
	}
	if err := checkPart(part, maxPart, path.Base(name)); err != nil {
		r.lose(rev, at, m.file.Path+" cannot be called so", err)
		return nil
	}
	if _, err := r.Root().Lstat(at); !place.Gone(err) && !r.Holds(at, b) && !r.old.hasManifest(name) && !r.ledger.others(r.at, name) {
		r.lose(rev, at, "the name is taken by something that is not ours", nil)
		return nil
	}
	r.manifests[name] = b
	r.want.Manifests = append(r.want.Manifests, recordManifest{name, artifact.Sum(b)})
	for _, l := range all {
		if _, ok := r.layers[l.Digest]; ok {
			continue
		}
		r.layers[l.Digest] = l
		r.want.Blobs = append(r.want.Blobs, recordBlob{l.Digest, r.known[l.Digest]})
	}
	return nil
}

// publish makes the folder hold what is planned. What the record of a killed
// run cannot say is said before anything is touched.
func (r *repository) publish(ctx context.Context) error {
	if err := r.announce(); err != nil {
		return err
	}
	if err := r.blobs(ctx); err != nil {
		return err
	}
	for _, m := range r.want.Manifests {
		at := path.Join(manifestsDir, m.Name)
		if err := r.Mkdir(path.Dir(at)); err != nil {
			return err
		}
		failpoint.Here("ollama.manifest")
		if err := r.Write(at, r.manifests[m.Name]); err != nil {
			return err
		}
	}
	// A server that starts removes blobs that no manifest names, and may have
	// found some of these before their manifests.
	if err := r.blobs(ctx); err != nil {
		return err
	}
	if err := r.withdraw(); err != nil {
		return err
	}
	b, err := r.want.encode()
	if err != nil {
		return err
	}
	failpoint.Here("ollama.settle")
	return r.Write(r.at, b)
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
	if err := r.Mkdir(path.Dir(r.at)); err != nil {
		return err
	}
	failpoint.Here("ollama.announce")
	return r.Write(r.at, b)
}

// blobPath is where Ollama looks for a blob.
func blobPath(d artifact.Digest) string { return blobsDir + "/sha256-" + d.Hex() }

// blobs links what lies in the store and writes what is ours.
func (r *repository) blobs(ctx context.Context) error {
	if err := r.Mkdir(blobsDir); err != nil {
		return err
	}
	for i := range r.want.Blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := &r.want.Blobs[i]
		at := blobPath(b.Digest)
		var err error
		if l := r.layers[b.Digest]; l.content != nil {
			err = r.Write(at, l.content)
		} else {
			b.Is, err = r.Link(b.Digest, at, b.Is)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// withdraw takes away the manifests that the record has and nobody wants any
// more, and then the blobs that no manifest names.
func (r *repository) withdraw() error {
	for _, m := range r.old.Manifests {
		if r.want.hasManifest(m.Name) || r.ledger.others(r.at, m.Name) {
			continue
		}
		at := path.Join(manifestsDir, m.Name)
		b, err := r.Read(at, maxManifest)
		if err != nil && !place.Gone(err) || err == nil && artifact.Sum(b) != m.Digest {
			continue // somebody else's by now
		}
		failpoint.Here("ollama.manifest-removed")
		if err := r.Remove(at); err != nil {
			return err
		}
	}
	return r.withdrawBlobs()
}

func (r *repository) withdrawBlobs() error {
	stale := make(map[artifact.Digest]bool)
	for _, b := range r.old.Blobs {
		if !r.want.hasBlob(b.Digest) {
			stale[b.Digest] = true
		}
	}
	if len(stale) == 0 {
		return nil
	}
	names, err := fs.Glob(r.Root().FS(), manifestsDir+"/*/*/*/*") // as Ollama does
	if err != nil {
		return err
	}
	for _, name := range names {
		var m manifest
		b, err := r.Read(name, maxManifest)
		if err != nil || json.Unmarshal(b, &m) != nil {
			continue // nor does Ollama count it
		}
		for _, l := range append(m.Layers, m.Config) {
			delete(stale, l.Digest)
		}
	}
	for d := range stale {
		failpoint.Here("ollama.blob-removed")
		if err := r.Remove(blobPath(d)); err != nil {
			return err
		}
	}
	return nil
}

// vanish ends a repository that the source no longer has: its record goes
// last.
func (r *repository) vanish() error {
	if err := r.withdraw(); err != nil {
		return err
	}
	failpoint.Here("ollama.vanish")
	return r.Remove(r.at)
}
