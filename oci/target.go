package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/harbor"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// uploads is how many blobs are sent at once, looks how many are asked
	// for: more gained nothing in any registry that was measured.
	uploads = 4
	looks   = 8
)

// Codes of refusals by a target.
const (
	CodeTagMoved   = "OCI-TAG"           // a tag points elsewhere, and the policy is to fail
	CodeTagFrozen  = "OCI-TAG-IMMUTABLE" // the registry does not let it move
	CodeDamaged    = "OCI-DAMAGED"       // the target has other bytes under a digest
	CodeUnverified = "OCI-UNVERIFIED"    // what was pushed is not there
)

// A target is a registry that images are pushed into.
type target struct {
	p       *Publisher
	r       *remote.Client
	harbor  *harborSide // nil for any other registry
	onEvent func(artifact.Event)
}

func newTarget(p *Publisher, client *fetch.Client, onEvent func(artifact.Event)) (*target, error) {
	password, err := readPassword(p.cfg.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	t := &target{p: p, onEvent: onEvent}
	t.r, err = remote.New(remote.Config{
		Name: p.name, Registry: p.cfg.Address(), User: p.cfg.User, Password: password, DockerConfig: p.cfg.DockerConfig,
		StateDir: filepath.Join(p.dir, "uploads"), Log: p.log, OnEvent: onEvent,
	}, client)
	if err != nil {
		return nil, err
	}
	if p.cfg.Harbor != "" {
		if t.harbor, err = newHarborSide(p, client, password); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// A push is one run of a target.
type push struct {
	*target
	seq        uint64
	exceptions []harbor.Exception // what was waived outside

	mu      sync.Mutex
	missing map[string][]Member // blobs by repository inside
	at      map[spec.Digest][]string
	changed map[string]bool // images that this run pushed: "name@digest"
	pushed  int
	same    int
	failed  []artifact.Lost
	notes   []string
}

// publish pushes what the target lacks: for each repository blobs, then
// manifests, children before their index and subjects before their referrers,
// and tags last, so that a tag never points at an image that is not whole.
func (t *target) publish(ctx context.Context, set *Set, seq uint64, waived []Waiver) (string, error) {
	waivers, err := exceptions(waived)
	if err != nil {
		return "", err
	}
	u := &push{target: t, seq: seq, exceptions: waivers, missing: make(map[string][]Member), at: make(map[spec.Digest][]string), changed: make(map[string]bool)}
	if t.harbor != nil {
		if err := t.harbor.before(ctx); err != nil { // it knows better what a refused login means
			return "", err
		}
	}
	if err := t.r.Ping(ctx); err != nil {
		return "", err
	}
	need, err := u.survey(ctx, set)
	if err != nil {
		return "", err
	}
	if t.harbor != nil {
		if err := t.harbor.c.CheckQuota(ctx, need); err != nil {
			return "", err
		}
	}
	t.onEvent(artifact.Event{Stage: "publish", Source: t.p.name, TotalBytes: need})
	for i := range set.Repositories {
		if err := u.repository(ctx, &set.Repositories[i]); err != nil {
			return "", err
		}
	}
	if t.harbor != nil {
		if err := u.afterHarbor(ctx, set); err != nil {
			return "", err
		}
	}
	text := fmt.Sprintf("%d pushed, %d unchanged   %s", u.pushed, u.same, strings.TrimPrefix(strings.TrimPrefix(withScheme(t.p.cfg.Registry+t.p.cfg.Harbor), "https://"), "http://"))
	for _, n := range u.notes {
		text += "\n" + n
	}
	if len(u.failed) > 0 {
		return text, &artifact.Incomplete{Items: u.failed}
	}
	return text, nil
}

// survey asks the target for every blob and answers how many bytes it lacks.
// That a manifest is there says nothing about its layers.
func (u *push) survey(ctx context.Context, set *Set) (need int64, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(looks)
	counted := make(map[spec.Digest]bool)
	for i := range set.Repositories {
		r := &set.Repositories[i]
		name := u.p.cfg.targetName(r.Name)
		for _, b := range r.Blobs {
			g.Go(func() error {
				has, err := u.r.HasBlob(gctx, name, b.Digest, b.Size)
				if err == nil && has && u.p.cfg.Verify == verifyFull {
					err = u.reread(gctx, name, b)
				}
				if err != nil {
					return err
				}
				u.mu.Lock()
				defer u.mu.Unlock()
				if has {
					u.at[b.Digest] = append(u.at[b.Digest], name)
					return nil
				}
				u.missing[r.Name] = append(u.missing[r.Name], b)
				if !counted[b.Digest] {
					counted[b.Digest] = true
					need += b.Size
				}
				return nil
			})
		}
	}
	return need, g.Wait()
}

// reread hashes what the target has.
func (u *push) reread(ctx context.Context, name string, b Member) error {
	body, _, err := u.r.OpenBlob(ctx, name, b.Digest)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()                                                  // only read
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, body, make([]byte, 256<<10)) // the body verifies itself
	if errors.Is(err, artifact.ErrIntegrity) {
		return &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: CodeDamaged, Subject: fmt.Sprintf("%s: %s@%s", u.p.name, name, b.Digest),
			Reason: "the target has other bytes under this digest; delete the blob there", Err: err,
		}
	}
	return err
}

// repository pushes one repository. An error of one of its parts takes its
// images out, and no other repository's.
func (u *push) repository(ctx context.Context, r *Repository) error {
	name := u.p.cfg.targetName(r.Name)
	err := u.blobs(ctx, r, name)
	changed := false
	if err == nil {
		changed, err = u.manifests(ctx, r, name)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, im := range r.Images {
			u.failed = append(u.failed, artifact.Lost{Name: r.Name, Version: im.Version, Err: u.explain(err)})
		}
		return nil
	}
	return u.tags(ctx, r, name, changed)
}

// explain lets Harbor's client say what an answer means there.
func (u *push) explain(err error) error {
	if u.harbor != nil {
		return u.harbor.explain(err)
	}
	return err
}

func (u *push) blobs(ctx context.Context, r *Repository, name string) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for _, b := range u.missing[r.Name] {
		g.Go(func() error {
			u.mu.Lock()
			from := slices.Clone(u.at[b.Digest])
			u.mu.Unlock()
			open := func() (io.ReadSeekCloser, error) {
				f, err := u.p.st.File(b.Blob)
				// The store knows its SHA-256; another digest proves nothing.
				return remote.Verified{File: f, Digest: spec.FromSHA256(b.Blob)}, err
			}
			how, err := u.r.PushBlob(gctx, name, b.Digest, b.Size, open, from...)
			if err != nil {
				return err
			}
			failpoint.Here("oci.blob-pushed")
			if how != "uploaded" { // whose bytes were reported as they went
				u.onEvent(artifact.Event{Stage: "publish", Source: u.p.name, Bytes: b.Size})
			}
			u.mu.Lock()
			defer u.mu.Unlock()
			u.at[b.Digest] = append(u.at[b.Digest], name)
			return nil
		})
	}
	return g.Wait()
}

// manifests puts those that are missing, by digest, in the set's order.
func (u *push) manifests(ctx context.Context, r *Repository, name string) (changed bool, err error) {
	for _, m := range r.Manifests {
		there, err := u.there(ctx, name, m)
		if err != nil {
			return changed, err
		}
		if !there {
			if err := u.put(ctx, name, string(m.Digest), m); err != nil {
				return changed, err
			}
			failpoint.Here("oci.manifest-pushed")
			changed = true
			continue
		}
		if m.Subject != "" {
			if err := u.listed(ctx, name, m); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// there asks for a manifest. Harbor's pull prevention hides what has findings:
// then its own API answers.
func (u *push) there(ctx context.Context, name string, m Member) (bool, error) {
	d, err := u.r.Head(ctx, name, string(m.Digest))
	if err != nil && u.harbor != nil {
		return u.harbor.has(ctx, name, m.Digest, err)
	}
	return d != nil, err
}

func (u *push) put(ctx context.Context, name, ref string, m Member) error {
	raw, err := u.p.st.ReadAll(m.Blob, spec.MaxManifest)
	if err != nil {
		return err
	}
	took, err := u.r.PushManifest(ctx, name, ref, raw, m.MediaType)
	if err != nil || m.Subject == "" || took {
		return err
	}
	return u.fallback(ctx, name, m, raw)
}

// fallback lists a referrer under its subject's tag, where the registry has no
// referrers API.
func (u *push) fallback(ctx context.Context, name string, m Member, raw []byte) error {
	view, err := spec.ParseManifest(raw, m.MediaType)
	if err != nil {
		return err
	}
	return u.r.AddReferrer(ctx, name, m.Subject, spec.Descriptor{
		MediaType: m.MediaType, Digest: m.Digest, Size: m.Size, ArtifactType: view.Type(), Annotations: view.Annotations,
	})
}

// listed mends a referrer that is there and not listed: its registry had no
// referrers API when it came, or the fallback tag was lost.
func (u *push) listed(ctx context.Context, name string, m Member) error {
	list, api, err := u.r.Referrers(ctx, name, m.Subject)
	if err != nil || slices.ContainsFunc(list, func(d spec.Descriptor) bool { return d.Digest == m.Digest }) {
		return err
	}
	if api {
		return u.put(ctx, name, string(m.Digest), m)
	}
	raw, err := u.p.st.ReadAll(m.Blob, spec.MaxManifest)
	if err != nil {
		return err
	}
	return u.fallback(ctx, name, m, raw)
}

// tags points the tags at their images, those of signatures included.
func (u *push) tags(ctx context.Context, r *Repository, name string, changed bool) error {
	for _, im := range r.Images {
		tags := im.Attached
		if im.Tag != "" {
			tags = append(slices.Clone(tags), Tag{im.Tag, im.Root})
		}
		moved, failed := false, false
		for _, tag := range tags {
			did, err := u.tag(ctx, r, name, tag)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				u.failed = append(u.failed, artifact.Lost{Name: r.Name, Version: im.Version, Err: u.explain(err)})
				failed = true
				break
			}
			moved = moved || did
		}
		switch {
		case failed:
		case moved || changed && im.Tag == "":
			u.pushed++
			u.changed[name+"@"+string(im.Root)] = true
		default:
			u.same++
		}
	}
	return nil
}

func (u *push) tag(ctx context.Context, r *Repository, name string, tag Tag) (bool, error) {
	policy := cmpOr(u.p.cfg.Tags, tagsMove)
	if policy == tagsDigestOnly && !attachedTag.MatchString(tag.Name) {
		return false, nil
	}
	i := slices.IndexFunc(r.Manifests, func(m Member) bool { return m.Digest == tag.Digest })
	m := r.Manifests[i] // ReadSet holds that it is there
	have, err := u.r.Head(ctx, name, tag.Name)
	if err != nil && u.harbor != nil {
		have, err = u.harbor.tagged(ctx, name, tag.Name, err)
	}
	switch {
	case err != nil:
		return false, err
	case have != nil && have.Digest == tag.Digest:
		return false, nil
	case have != nil && policy == tagsKeep:
		u.notes = append(u.notes, fmt.Sprintf("%s:%s kept at %s, not moved to %s", name, tag.Name, have.Digest, tag.Digest))
		return false, nil
	case have != nil && policy == tagsFail:
		return false, &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: CodeTagMoved, Subject: fmt.Sprintf("%s: %s:%s", u.p.name, name, tag.Name),
			Reason: "the tag points elsewhere in the target", Want: string(tag.Digest), Got: string(have.Digest),
		}
	}
	if err := u.put(ctx, name, tag.Name, m); err != nil {
		if e, ok := errors.AsType[*remote.Error](err); ok && e.Status == 412 && have != nil {
			return false, &artifact.Refusal{
				Class: artifact.ErrUnavailable, Code: CodeTagFrozen, Subject: fmt.Sprintf("%s: %s:%s", u.p.name, name, tag.Name),
				Reason: "the registry refuses to move the tag: it is immutable", Want: string(tag.Digest), Got: string(have.Digest), Err: err,
			}
		}
		return false, err
	}
	failpoint.Here("oci.tag-pushed")
	if have != nil {
		u.notes = append(u.notes, fmt.Sprintf("%s:%s moved from %s to %s", name, tag.Name, have.Digest, tag.Digest))
	}
	return true, nil
}
