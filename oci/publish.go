package oci

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// CodeIncomplete is the refusal of a set that lacks a part of an image.
const CodeIncomplete = "OCI-INCOMPLETE"

// A Publisher publishes one source inside: for the embedded server, which
// reads the folder that the Publisher writes, and into a target where one is
// configured.
type Publisher struct {
	cfg    PublishConfig
	name   string // "oci/platform"
	st     *store.Store
	dir    string
	log    *slog.Logger
	target *target // nil: the embedded server alone
}

// NewPublisher makes a publisher of a configuration that is valid. dir is its
// own folder. client reaches the target; it is nil where there is none, and
// onEvent may be nil.
func NewPublisher(cfg PublishConfig, name string, client *fetch.Client, st *store.Store, dir string, log *slog.Logger, onEvent func(artifact.Event)) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if onEvent == nil {
		onEvent = func(artifact.Event) {}
	}
	p := &Publisher{cfg: cfg, name: name, st: st, dir: dir, log: log}
	if cfg.Address() == "" {
		return p, nil
	}
	var err error
	p.target, err = newTarget(p, client, onEvent)
	return p, err
}

// Name is the source that it publishes.
func (p *Publisher) Name() string { return p.name }

// Verify checks, without writing anything, that every image is whole: each
// manifest is what its digest says and can be read, and everything that it
// names is in the set, with the size that it says.
func (p *Publisher) Verify(_ context.Context, snap, _ *artifact.Snapshot) error {
	set, err := ReadSet(snap, p.st)
	if err != nil {
		return err
	}
	for i := range set.Repositories {
		if err := p.verify(&set.Repositories[i]); err != nil {
			return err
		}
	}
	if _, err := p.waivers(snap); err != nil {
		return err
	}
	return p.cfg.checkNames(set)
}

// verify checks one repository.
func (p *Publisher) verify(r *Repository) error {
	sizes := make(map[spec.Digest]int64)
	for _, m := range append(r.Manifests, r.Blobs...) {
		sizes[m.Digest] = m.Size
	}
	skipped := make(map[spec.Digest]bool)
	for _, im := range r.Images {
		for _, d := range im.Skipped {
			skipped[d] = true
		}
	}
	done := make(map[spec.Digest]bool) // manifests, in the order of pushing
	refuse := func(m Member, reason string) error {
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeIncomplete, Subject: fmt.Sprintf("%s: %s@%s", p.name, r.Name, m.Digest), Reason: reason}
	}
	for _, m := range r.Manifests {
		raw, err := p.st.ReadAll(m.Blob, spec.MaxManifest)
		if err != nil {
			return err
		}
		if got := m.Digest.Sum(raw); got != m.Digest {
			return refuse(m, "is not its own digest, "+string(got))
		}
		view, err := spec.ParseManifest(raw, m.MediaType)
		if err != nil {
			return fmt.Errorf("%s: %s@%s: %w", p.name, r.Name, m.Digest, err)
		}
		for _, d := range append(view.Blobs(), view.Manifests...) {
			size, ok := sizes[d.Digest]
			switch {
			case !ok && d.Foreign() && skipped[d.Digest]:
			case !ok:
				return refuse(m, "names "+string(d.Digest)+", which did not arrive")
			case size != d.Size:
				return refuse(m, fmt.Sprintf("says that %s has %d bytes; it has %d", d.Digest, d.Size, size))
			case d.IsManifest() && !done[d.Digest]:
				return refuse(m, "comes before its member "+string(d.Digest))
			}
		}
		done[m.Digest] = true
	}
	return nil
}

// Publish makes the snapshot what the embedded server shows, by one rename,
// and then pushes it into the target. Images that the target does not take
// are listed in an *artifact.Incomplete.
func (p *Publisher) Publish(ctx context.Context, snap *artifact.Snapshot, seq uint64, now time.Time) (string, error) {
	set, err := ReadSet(snap, p.st)
	if err != nil {
		return "", err
	}
	b, err := snap.Encode()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(p.dir, 0o750); err != nil {
		return "", err
	}
	if err := durable.Sweep(p.dir); err != nil { // of a killed run
		return "", err
	}
	at := Published{Snapshot: artifact.Sum(b), Seq: seq, Time: now.UTC().Truncate(time.Second)}
	old, ok, err := ReadPublished(p.dir)
	if err != nil {
		return "", err
	}
	if !ok || old.Snapshot != at.Snapshot {
		if !p.st.Has(at.Snapshot) { // published without an import
			if _, err := p.st.PutBytes(b); err != nil {
				return "", err
			}
		}
		failpoint.Here("oci.publish")
		if err := at.write(p.dir); err != nil {
			return "", err
		}
		failpoint.Here("oci.published")
	}
	text := fmt.Sprintf("%s   /v2/%s/", count(set), filepath.Base(p.name))
	if p.target == nil {
		return text, nil
	}
	waived, err := p.waivers(snap)
	if err != nil {
		return "", err
	}
	report, err := p.target.publish(ctx, set, seq, waived)
	if _, partial := errors.AsType[*artifact.Incomplete](err); err != nil && !partial {
		return "", err
	}
	return text + "\n" + report, err
}

func count(set *Set) string {
	n := 0
	for _, r := range set.Repositories {
		n += len(r.Images)
	}
	if n == 1 {
		return "1 image"
	}
	return fmt.Sprintf("%d images", n)
}

// targetName is a repository's name in the target.
func (c *PublishConfig) targetName(inside string) string {
	name := inside
	if c.Paths == pathsPlain {
		_, name, _ = strings.Cut(inside, "/")
	}
	if prefix := c.prefix(); prefix != "" {
		name = prefix + "/" + name
	}
	return name
}

// Claims are the repositories of a snapshot by their names in the target:
// what two sources would both push there belongs to neither.
func (p *Publisher) Claims(snap *artifact.Snapshot) map[string]string {
	claims := make(map[string]string)
	if p.target == nil {
		return claims
	}
	for _, a := range snap.Artifacts {
		claims[p.cfg.Address()+"/"+p.cfg.targetName(a.Name)] = a.Name
	}
	return claims
}

// Clash refuses two repositories of one name in the target.
func (p *Publisher) Clash(place, one, other string) error {
	return clash(p.name, strings.TrimPrefix(place, p.cfg.Address()+"/"), one, other)
}

func clash(source, name, one, other string) error {
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeNames, Subject: source,
		Reason: fmt.Sprintf("%s and %s would both be %s in the target", one, other, name),
	}
}

// checkNames refuses two repositories that would be one in the target, and
// names that no registry takes.
func (c *PublishConfig) checkNames(set *Set) error {
	if c.Address() == "" {
		return nil
	}
	taken := make(map[string]string)
	for _, r := range set.Repositories {
		name := c.targetName(r.Name)
		if other, ok := taken[name]; ok {
			return clash("oci/"+c.Name, name, other, r.Name)
		}
		if err := spec.CheckName(name); err != nil {
			return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeNames, Subject: "oci/" + c.Name, Reason: err.Error()}
		}
		taken[name] = r.Name
	}
	return nil
}
