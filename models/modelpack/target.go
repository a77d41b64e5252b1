package modelpack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/oci"
)

// Options say what is published.
type Options struct {
	Source    string // the source of images: "oci/models"
	ModelPack bool   // artifacts whose layers are the files
	Modelcar  bool   // images with the files below /models; not of datasets
}

// A Target is a source of images that is made of models. It implements
// [models.Target].
type Target struct {
	o   Options
	p   *oci.Publisher
	st  *store.Store
	log *slog.Logger
}

var _ models.Target = (*Target)(nil)

// New makes a target of a publisher of images, which is its own. A nil log
// discards.
func New(o Options, p *oci.Publisher, st *store.Store, log *slog.Logger) (*Target, error) {
	if p.Name() != o.Source {
		return nil, fmt.Errorf("%s: the publisher is that of %s", o.Source, p.Name())
	}
	if !o.ModelPack && !o.Modelcar {
		return nil, fmt.Errorf("%s: neither ModelPack nor modelcar is asked for", o.Source)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Target{o: o, p: p, st: st, log: log}, nil
}

// Publish makes the source hold the set; see [models.Target].
func (t *Target) Publish(ctx context.Context, set *models.Set, seq uint64, now time.Time) (string, error) {
	var made []oci.Made
	n, lost := t.names(set)
	for i := range set.Revisions {
		r := &set.Revisions[i]
		images, refused, err := t.revision(ctx, r, n)
		if err != nil {
			return "", fmt.Errorf("%s: %s@%s: %w", t.o.Source, r.Repo, r.Commit, err)
		}
		made = append(made, images...)
		if refused != nil {
			lost = append(lost, artifact.Lost{Name: r.Repo.String(), Version: r.Commit, Err: refused})
		}
	}
	snap, err := oci.Assemble(t.o.Source, t.st, made)
	if err != nil {
		return "", err
	}
	if err := t.p.Verify(ctx, snap, nil); err != nil {
		return "", err
	}
	text, err := t.p.Publish(ctx, snap, seq, now)
	if in, partial := errors.AsType[*artifact.Incomplete](err); partial {
		lost = append(lost, in.Items...)
	} else if err != nil {
		return "", err
	}
	if len(lost) > 0 {
		return text, &artifact.Incomplete{Items: lost}
	}
	return text, nil
}

// revision makes the images of one revision under all of its tags. What was
// refused stands beside those that could be made; with an error the run ends.
func (t *Target) revision(ctx context.Context, r *models.Revision, n *names) (made []oci.Made, refused, err error) {
	if err := cmp.Or(n.taken(t, r), t.whole(r)); err != nil {
		return nil, err, nil
	}
	for _, k := range t.kinds(r.Repo) {
		im, err := k.make(ctx, r)
		if _, is := errors.AsType[*artifact.Refusal](err); is {
			refused = errors.Join(refused, err)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		for _, tag := range n.tags[r] {
			made = append(made, oci.Made{
				Repository: k.repository(r.Repo), Tag: tag, Derived: k.derived, Why: r.Repo.String() + "@" + r.Commit,
				Manifests: im.manifests, Blobs: im.blobs,
			})
		}
	}
	return made, refused, nil
}

// A kind is one form of a repository's revisions.
type kind struct {
	suffix  string // of the repository's name
	derived string
	make    func(context.Context, *models.Revision) (*image, error)
}

// kinds are the forms that a repository is published in.
func (t *Target) kinds(name hub.Repo) []kind {
	var list []kind
	if t.o.ModelPack {
		list = append(list, kind{"", "model", t.pack})
	}
	if t.o.Modelcar && name.Kind == hub.Model {
		list = append(list, kind{"-modelcar", "modelcar", t.car})
	}
	return list
}

// whole refuses a revision of which the store has lost a file since.
func (t *Target) whole(r *models.Revision) error {
	for i := range r.Files {
		f := &r.Files[i]
		if size, err := t.st.Size(f.Blob); err != nil || size != f.Size {
			return t.refuse(r.Repo.String()+"@"+r.Commit, fmt.Sprintf("%s is no longer whole in the store", f.Path), err)
		}
	}
	return nil
}

func (t *Target) refuse(subject, reason string, err error) error {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: models.CodeTarget, Subject: t.o.Source + ": " + subject, Reason: reason, Err: err}
}
