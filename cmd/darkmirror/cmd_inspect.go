package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
)

func newInspect(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "inspect [--all] BUNDLE",
		GroupID: groupBoth,
		Short:   "Show what a bundle says it holds",
		Long: `Show what a bundle says it holds: a folder, or a number in the outbox or
inbox. Needs no configuration and no key; where the signature cannot be
checked, or is wrong, the first line says UNVERIFIED.

` + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.inspect(cmd.Context(), args[0], all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "list every artifact, and why it is there")
	return cmd
}

// opened is a bundle for looking at.
type opened struct {
	r        *bundle.Reader
	m        *bundle.Manifest
	verified bool
	keys     []bundle.TrustedKey
	signedBy []string
	id       artifact.Digest
	why      string // not verified because
	// approvedBy are the approvers whose keys are known here.
	approvedBy []string
	snaps      []*artifact.Snapshot
	models     []*models.Set // beside snaps; nil where a source has no models
	log        string        // what the transparency log says of it
}

// unlock gives a reader what decrypts it, and the trust of the pinned chain.
func (a *app) unlock(cfg *config.Config, r *bundle.Reader, t *bundle.Trust) error {
	if d, err := decrypter(cfg); err != nil {
		return err
	} else if d != nil {
		r.UseDecrypter(d)
	}
	of, err := rootTrust(cfg)
	if err != nil || of == nil {
		return err
	}
	// A look shows what is refused, too.
	if chain, err := of(r); err == nil {
		*t = chain
	}
	return nil
}

// look opens a bundle without insisting on its signature.
func (a *app) look(ctx context.Context, arg string) (*opened, error) {
	cfg, cfgErr := a.load("")
	var boxes []string
	var t bundle.Trust
	var st *store.Store
	if cfgErr == nil {
		boxes = append(boxes, cfg.Inbox...)
		if cfg.Outbox != "" {
			boxes = append(boxes, cfg.Outbox)
		}
		if cfg.Role == config.Outside {
			if s, err := signer(cfg); err == nil {
				if t, err = approvers(ownTrust(s), cfg); err != nil {
					return nil, err
				}
			}
		} else if tr, err := trust(cfg); err == nil {
			t = tr
		}
		var err error
		if st, err = store.Open(storeDir(cfg)); err != nil {
			st = nil
		}
	}
	found, err := candidates([]string{arg}, boxes)
	if err != nil {
		return nil, err
	}
	r, err := bundle.Open(found[0].Dirs...)
	if err != nil {
		return nil, err
	}
	if cfgErr == nil {
		if err := a.unlock(cfg, r, &t); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	b := &opened{r: r}
	b.keys = t.Keys
	t.Approvals = 0 // a look needs no approval
	if cfgErr == nil && cfg.Role == config.Outside {
		t.Exporters = 0 // nor, where they are gathered, everybody's signature
	}
	m, rep, refused := r.Verify(t)
	if refused == nil {
		b.m, b.verified, b.signedBy, b.approvedBy, b.id = m, true, rep.SignedBy, rep.ApprovedBy, rep.ID
	} else {
		b.why = refused.Error()
		if len(t.Keys) == 0 {
			b.why, refused = "no key is trusted here", nil
		}
		if b.m, err = r.Unverified(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		b.id = r.ID()
	}
	if b.snaps, err = mirror.ReadSnapshots(ctx, r, b.m, st); err != nil {
		// A changed manifest no longer fits its volumes: say both.
		return nil, errors.Join(refused, err, r.Close())
	}
	if err := b.readModels(ctx, st); err != nil {
		return nil, errors.Join(refused, err, r.Close())
	}
	return b, nil
}

type inspectResult struct {
	Schema     string               `json:"schema"`
	Verified   bool                 `json:"verified"`
	SignedBy   []string             `json:"signed_by"`
	ApprovedBy []string             `json:"approved_by"`
	Why        string               `json:"why,omitempty"`
	ID         artifact.Digest      `json:"id"`
	Log        string               `json:"log,omitempty"`
	Manifest   *bundle.Manifest     `json:"manifest"`
	Snapshots  []*artifact.Snapshot `json:"snapshots"`
}

func (a *app) inspect(ctx context.Context, arg string, all bool) (err error) {
	b, err := a.look(ctx, arg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.r.Close()) }()
	res := inspectResult{
		Schema: "darkmirror.inspect/v1", Verified: b.verified, SignedBy: append([]string{}, b.signedBy...), ApprovedBy: append([]string{}, b.approvedBy...), Why: b.why, ID: b.id, Manifest: b.m, Snapshots: []*artifact.Snapshot{},
	}
	for _, s := range b.snaps {
		if s != nil {
			res.Snapshots = append(res.Snapshots, s)
		}
	}
	if cfg, err := a.load(""); err == nil {
		if b.log, err = logLine(cfg, b.m); err != nil {
			return err
		}
		res.Log = b.log
	}
	return a.result(res, func() error { return b.print(a.out, all) })
}

func (b *opened) print(w io.Writer, all bool) error {
	m := b.m
	if b.verified {
		fmt.Fprintf(w, "verified   %s\n", signers(b.signedBy, b.approvedBy))
	} else {
		fmt.Fprintf(w, "UNVERIFIED %s\n", clean(b.why))
	}
	fmt.Fprintf(w, "bundle     %s of stream %s, %s\n", seqName(m.Seq), clean(m.Stream), b.id)
	kind := "full"
	if m.Base > 0 {
		kind = "delta on " + seqName(m.Base)
	}
	fmt.Fprintf(w, "kind       %s\n", kind)
	fmt.Fprintf(w, "issued     %s\nexpires    %s\n", m.Issued.Format(time.RFC3339), m.Expires.Format(time.RFC3339))
	var bytes int64
	for _, bl := range m.Blobs {
		bytes += bl.Size
	}
	if b.log != "" {
		fmt.Fprintf(w, "log        %s\n", b.log)
	}
	fmt.Fprintf(w, "carries    %s, %s\n\n", plural(len(m.Blobs), "blob"), size(bytes))
	if err := table(w, func(w io.Writer) {
		fmt.Fprintln(w, "SOURCE\tARTIFACTS\tFILES\tSIZE\tSNAPSHOT")
		for _, s := range m.Sources {
			fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", clean(s.Name), s.Artifacts, s.Files, size(s.Bytes), s.Snapshot.Short())
		}
	}); err != nil {
		return err
	}
	for _, h := range append(append([]bundle.LeftOut{}, m.Held...), m.Missing...) {
		fmt.Fprintf(w, "absent  %s %s %s: %s [%s]\n", clean(h.Source), clean(h.Artifact), clean(h.Version), clean(h.Reason), clean(h.Code))
	}
	if !all {
		return nil
	}
	for i, s := range b.snaps {
		fmt.Fprintf(w, "\n%s\n", clean(m.Sources[i].Name))
		if s == nil {
			fmt.Fprintln(w, "  unchanged since an earlier bundle, which is not here")
			continue
		}
		if err := table(w, func(w io.Writer) {
			for _, ar := range s.Artifacts {
				for _, f := range ar.Files {
					fmt.Fprintf(w, "  %s %s\t%s\t%s\t%s\n", clean(ar.Name), clean(ar.Version), size(f.Size), f.Digest.Short(), clean(ar.Why))
				}
			}
		}); err != nil {
			return err
		}
		if err := printModels(w, b.models[i]); err != nil {
			return err
		}
	}
	return nil
}

func newDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "diff BUNDLE BUNDLE",
		GroupID: groupBoth,
		Short:   "Show what changed between two bundles",
		Long: `Show what changed between two bundles, source by source. BUNDLE is a folder,
its name or its number. Signatures are not needed; inspect shows them.

` + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.diff(cmd.Context(), args[0], args[1]) },
	}
}

type diffResult struct {
	Schema  string       `json:"schema"`
	Before  string       `json:"before"`
	After   string       `json:"after"`
	Sources []diffSource `json:"sources"`
}

type diffSource struct {
	Source string `json:"source"`
	*mirror.Difference
}

func (a *app) diff(ctx context.Context, before, after string) (err error) {
	x, err := a.look(ctx, before)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.r.Close()) }()
	y, err := a.look(ctx, after)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, y.r.Close()) }()
	res := diffResult{Schema: "darkmirror.diff/v1", Before: seqName(x.m.Seq), After: seqName(y.m.Seq), Sources: []diffSource{}}
	old, err := x.bySource()
	if err != nil {
		return err
	}
	cur, err := y.bySource()
	if err != nil {
		return err
	}
	for _, s := range y.m.Sources {
		if s.Name == mirror.EvidenceSource {
			continue
		}
		res.Sources = append(res.Sources, diffSource{s.Name, mirror.Compare(old[s.Name], cur[s.Name])})
	}
	for _, s := range x.m.Sources {
		if _, ok := cur[s.Name]; !ok && s.Name != mirror.EvidenceSource {
			res.Sources = append(res.Sources, diffSource{s.Name, mirror.Compare(old[s.Name], nil)})
		}
	}
	return a.result(res, func() error {
		for _, s := range res.Sources {
			if !s.Any() {
				fmt.Fprintf(a.out, "= %s\n", clean(s.Source))
				continue
			}
			fmt.Fprintf(a.out, "  %s: %d new, %d changed, %d gone\n", clean(s.Source), len(s.New), len(s.Changed), len(s.Gone))
			printList(a.out, "+", s.New)
			printList(a.out, "~", s.Changed)
			printList(a.out, "-", s.Gone)
		}
		return nil
	})
}

func printList(w io.Writer, sign string, list []string) {
	for _, s := range list {
		fmt.Fprintf(w, "%s   %s\n", sign, clean(s))
	}
}

// bySource maps the snapshots; one that neither bundle nor store has is an
// error, since a difference without it would be wrong.
func (b *opened) bySource() (map[string]*artifact.Snapshot, error) {
	m := make(map[string]*artifact.Snapshot)
	for i, s := range b.m.Sources {
		if s.Name == mirror.EvidenceSource {
			continue // it has no artifacts; what was found is in the report
		}
		if b.snaps[i] == nil {
			return nil, usagef("bundle %s did not bring the snapshot of %s and it is not in the store here\ncompare with the bundle that brought it", seqName(b.m.Seq), s.Name)
		}
		m[s.Name] = b.snaps[i]
	}
	return m, nil
}
