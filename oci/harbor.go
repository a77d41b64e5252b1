package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/harbor"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// A harborSide is what a target that is Harbor needs beside a registry's API.
type harborSide struct {
	p *Publisher
	c *harbor.Client
}

func newHarborSide(p *Publisher, client *fetch.Client, password string) (*harborSide, error) {
	c, err := harbor.New(harbor.Config{
		Name: p.name, URL: p.cfg.Address(), Project: p.cfg.prefix(), User: p.cfg.User, Password: password, Log: p.log,
	}, client)
	return &harborSide{p, c}, err
}

// before finds out, before the first byte, whether Harbor will take anything.
func (h *harborSide) before(ctx context.Context) error {
	info, err := h.c.Check(ctx)
	if err != nil {
		return err
	}
	if info.ReadOnly {
		return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: harbor.CodeReadOnly, Subject: h.p.name + ": " + h.p.cfg.Address(), Reason: "Harbor is in read-only mode; an administrator has set that"}
	}
	o := harbor.ProjectOptions{Create: h.p.cfg.Project.Creates(), Public: h.p.cfg.Project.Public}
	if limit := h.p.cfg.Project.StorageLimit; limit != "" {
		if o.StorageLimit, err = parseSize(limit); err != nil {
			return err
		}
	}
	if err := h.c.EnsureProject(ctx, o); err != nil {
		return err
	}
	if h.p.cfg.Project.Immutable {
		return h.c.EnsureImmutableRule(ctx)
	}
	return nil
}

// explain says what a registry's answer means in Harbor.
func (h *harborSide) explain(err error) error {
	if _, ok := errors.AsType[*artifact.Refusal](err); ok {
		return err // it is explained
	}
	e, ok := errors.AsType[*remote.Error](err)
	if !ok || e.Status == 0 {
		return err
	}
	return h.c.ExplainCode(harbor.OpPush, e.Ref, e.Status, e.Code, e.Message, e.RequestID)
}

// hidden reports whether an error is the project's pull prevention: what it
// hides is there.
func hidden(err error) bool {
	e, ok := errors.AsType[*remote.Error](err)
	return ok && e.Status == http.StatusPreconditionFailed
}

// has asks Harbor's own API for a manifest that its registry hides.
func (h *harborSide) has(ctx context.Context, repo string, d spec.Digest, cause error) (bool, error) {
	if !hidden(cause) {
		return false, cause
	}
	a, err := h.c.Artifact(ctx, repo, string(d))
	return a != nil, err
}

// tagged asks Harbor's own API what a tag points at.
func (h *harborSide) tagged(ctx context.Context, repo, tag string, cause error) (*spec.Descriptor, error) {
	if !hidden(cause) {
		return nil, cause
	}
	a, err := h.c.Artifact(ctx, repo, tag)
	if err != nil || a == nil {
		return nil, err
	}
	d, err := spec.ParseDigest(a.Digest)
	if err != nil {
		return nil, fmt.Errorf("%s: %s:%s: %w", h.p.name, repo, tag, err)
	}
	return &spec.Descriptor{MediaType: a.ManifestMediaType, Digest: d}, nil
}

// after looks whether everything is there, which the registry's own answers
// cannot tell where pulling is prevented, and leaves what an operator sees in
// Harbor. The images are published by then: what goes wrong here is a note,
// but for an image that is not there.
func (u *push) afterHarbor(ctx context.Context, set *Set) error {
	h := u.harbor
	cfg := h.p.cfg.Project
	labels, err := h.labels(ctx, u)
	if err != nil {
		u.notes = append(u.notes, "no labels: "+err.Error())
	}
	if cfg.Allowlist {
		n, err := h.c.MergeAllowlist(ctx, u.exceptions)
		if err != nil {
			u.notes = append(u.notes, "allowlist: "+err.Error())
		} else if n > 0 {
			u.notes = append(u.notes, fmt.Sprintf("allowlist: %d entries changed", n))
		}
	}
	for i := range set.Repositories {
		r := &set.Repositories[i]
		name := u.p.cfg.targetName(r.Name)
		for _, im := range r.Images {
			if u.lost(r.Name, im.Version) {
				continue
			}
			if err := u.settle(ctx, name, im, labels); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				u.failed = append(u.failed, artifact.Lost{Name: r.Name, Version: im.Version, Err: err})
			}
		}
	}
	u.notes = append(u.notes, h.c.Notes()...)
	return nil
}

func (u *push) lost(name, version string) bool {
	for _, l := range u.failed {
		if l.Name == name && l.Version == version {
			return true
		}
	}
	return false
}

// settle looks at one image in Harbor, labels it and has it scanned.
func (u *push) settle(ctx context.Context, name string, im Image, labels []int64) error {
	a, err := u.harbor.c.Artifact(ctx, name, string(im.Root))
	if err != nil {
		return err
	}
	if a == nil || spec.Digest(a.Digest) != im.Root {
		return &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: CodeUnverified, Subject: fmt.Sprintf("%s: %s@%s", u.p.name, name, im.Root),
			Reason: "Harbor does not show what was pushed",
		}
	}
	var errs []error
	// Labels stay, so only what this run pushed gets new ones, and what a
	// killed run has left without.
	bare := !slices.ContainsFunc(a.Labels, func(l harbor.Label) bool { return strings.HasPrefix(l.Name, labelPrefix) })
	changed := u.changed[name+"@"+string(im.Root)]
	if changed || bare {
		for _, l := range labels {
			errs = append(errs, u.harbor.c.AddLabel(ctx, name, a.Digest, l))
		}
	}
	// An index may have no overview of its own: that there is none says nothing.
	if s, ok := a.Scan(); u.p.cfg.Project.Scan && (changed || ok && (s.Status == "Error" || s.Status == "Stopped")) {
		errs = append(errs, u.harbor.c.Scan(ctx, name, a.Digest))
	}
	if err := errors.Join(errs...); err != nil {
		u.notes = append(u.notes, fmt.Sprintf("%s: %v", name, err))
	}
	return ctx.Err()
}

// labelPrefix starts the name of every label of ours.
const labelPrefix = "darkmirror "

// labels makes the labels of this bundle: its number, and its verdict.
func (h *harborSide) labels(ctx context.Context, u *push) ([]int64, error) {
	if !h.p.cfg.Project.Labels {
		return nil, nil
	}
	verdict := harbor.Label{Name: labelPrefix + "passed", Description: "the outside's policy held nothing against it", Color: "#48960C"}
	if len(u.exceptions) > 0 {
		verdict = harbor.Label{Name: labelPrefix + "waived", Description: "findings of this source were waived outside", Color: "#C25400"}
	}
	bundle := harbor.Label{Name: fmt.Sprintf("%s%06d", labelPrefix, u.seq), Description: "the bundle that published it last", Color: "#0065AB"}
	var ids []int64
	for _, l := range []harbor.Label{bundle, verdict} {
		id, err := h.c.EnsureLabel(ctx, l)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// waivedPath is the list of findings that were waived outside, among the
// metadata of a snapshot.
const waivedPath = "waived.json"

// maxWaived bounds it.
const maxWaived = 16 << 20

// KeepsWaivers says that a snapshot of images carries what was waived, for
// Harbor's allowlist and for the verdicts that are shown there.
func (s *Source) KeepsWaivers() bool { return true }

// A Waiver is a finding that was let pass outside.
type Waiver struct {
	Source   string `json:"source"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	Scanner  string `json:"scanner"`
	Finding  string `json:"finding"`
	Severity string `json:"severity"`
	Owner    string `json:"owner"`
	Reason   string `json:"reason"`
	Expires  string `json:"expires"` // the last day
}

// waivers reads a snapshot's list.
func (p *Publisher) waivers(snap *artifact.Snapshot) ([]Waiver, error) {
	f, ok := snap.MetaFile(waivedPath)
	if !ok {
		return nil, nil
	}
	b, err := p.st.ReadAll(f.Digest, maxWaived)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Schema string   `json:"schema"`
		Waived []Waiver `json:"waived"`
	}
	if err := strictjson.Unmarshal(b, &doc); err != nil || doc.Schema != "darkmirror.waived/v1" {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "OCI-RECORD", Subject: snap.Source, Reason: waivedPath + " cannot be read", Err: err}
	}
	return doc.Waived, nil
}

// exceptions are the waivers of vulnerabilities, each until its last day ends.
func exceptions(list []Waiver) ([]harbor.Exception, error) {
	var out []harbor.Exception
	for _, w := range list {
		day, err := time.Parse(time.DateOnly, w.Expires)
		if err != nil {
			return nil, fmt.Errorf("waiver of %s: %w", w.Finding, err)
		}
		out = append(out, harbor.Exception{CVE: w.Finding, Expires: day.AddDate(0, 0, 1)})
	}
	return out, nil
}
