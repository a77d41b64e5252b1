package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/config"
)

type approveOptions struct {
	key string
	yes string
	as  string
	// minLeft is how long the bundle has to hold yet; nil: a quarter of its
	// life, at most a day.
	minLeft *config.Duration
}

func newApprove(a *app) *cobra.Command {
	o := &approveOptions{}
	var minLeft config.Duration
	cmd := &cobra.Command{
		Use:     "approve --key FILE [--id ID] BUNDLE",
		GroupID: groupOutside,
		Short:   "Show what a bundle brings, then add an approver's or a further exporter's signature",
		Long: `Show what a bundle brings, then add an approver's or a further exporter's signature.

Without --id it prints what is new, held back and waived, and the bundle's id,
and signs nothing. Read the report, compare, and run it again with --id and
that id: so nobody approves another bundle than the one that was read. The key
is an approver's own, from darkmirror key generate; it must not be the
exporter's. Several people may approve one bundle, in any order.

A bundle that expires before it can be carried is refused: a quarter of its
life, at most a day, has to be left, or what --min-left says.

With --as exporter the bundle is co-signed: where the inside asks for more than
one exporter (darkmirror key root, --threshold exporter=2), each further one
signs like this. The root of trust that is pinned here must name the key.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSequence),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("min-left") {
				o.minLeft = &minLeft
			}
			return a.approve(cmd.Context(), o, args[0])
		},
	}
	cmd.Flags().StringVar(&o.key, "key", "", "the signer's private key: a `FILE`, agent:NAME of an ssh-agent, or a pkcs11: URI")
	cmd.Flags().StringVar(&o.yes, "id", "", "sign the bundle of this `ID`, as printed without it")
	cmd.Flags().Var(&minLeft, "min-left", "refuse a bundle that expires within this `TIME`")
	cmd.Flags().StringVar(&o.as, "as", string(bundle.RoleApprover), "sign in this `ROLE`: approver or exporter")
	return cmd
}

// signs is what differs between the roles that sign a sealed bundle.
var signs = map[bundle.Role]struct {
	verb, done string
	add        func(dir string, signer bundle.Signer, t bundle.Trust, a bundle.Approval) (*bundle.Report, error)
}{
	bundle.RoleApprover: {"approve", "approved", bundle.Approve},
	bundle.RoleExporter: {"co-sign", "co-signed", bundle.CoSign},
}

// left is how long a bundle has to hold yet.
func (o *approveOptions) left(m *bundle.Manifest) time.Duration {
	if o.minLeft != nil {
		return o.minLeft.Duration()
	}
	return min(24*time.Hour, m.Expires.Sub(m.Issued)/4)
}

type approveResult struct {
	Schema     string   `json:"schema"`
	Bundle     string   `json:"bundle"`
	ID         string   `json:"id"`
	Role       string   `json:"role"`
	Approved   bool     `json:"approved"` // signed now, in that role
	SignedBy   []string `json:"signed_by"`
	ApprovedBy []string `json:"approved_by"`
}

func (a *app) approve(ctx context.Context, o *approveOptions, arg string) (err error) {
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	role := bundle.Role(o.as)
	if role != bundle.RoleApprover && role != bundle.RoleExporter {
		return usagef("--as %s: want approver or exporter", o.as)
	}
	if o.key == "" {
		return usagef("--key is missing: want the %s's private key\ndarkmirror key generate --out FILE makes one", role)
	}
	key, err := openKey(o.key)
	if err != nil {
		return err
	}
	b, err := a.look(ctx, arg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.r.Close()) }()
	if !b.verified {
		return usagef("bundle %s is not verified: %s", seqName(b.m.Seq), b.why)
	}
	a.bundle = seqName(b.m.Seq)
	res := approveResult{
		Schema: "darkmirror.approve/v1", Bundle: a.bundle, ID: b.id.String(), Role: o.as,
		SignedBy: append([]string{}, b.signedBy...), ApprovedBy: append([]string{}, b.approvedBy...),
	}
	if o.yes == "" {
		doc, err := a.document(ctx, cfg, b)
		if err != nil {
			return err
		}
		return a.result(res, func() error {
			if err := a.summary(doc); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.out, "\nnothing was signed; to %s this bundle, run it again with\n  --id %s\n", signs[role].verb, b.id)
			return err
		})
	}
	if o.yes != b.id.String() {
		return usagef("--id %s is not the id of bundle %s, which is %s\nread its report first; somebody may have exchanged it", o.yes, a.bundle, b.id)
	}
	dirs, err := candidates([]string{arg}, []string{cfg.Outbox})
	if err != nil {
		return err
	}
	rep, err := signs[role].add(dirs[0].Dirs[0], key, bundle.Trust{Keys: b.keys}, bundle.Approval{ID: b.id, Now: time.Now(), MinLeft: o.left(b.m)})
	if err != nil {
		return err
	}
	res.Approved, res.SignedBy, res.ApprovedBy = true, append([]string{}, rep.SignedBy...), append([]string{}, rep.ApprovedBy...)
	return a.result(res, func() error {
		_, err := fmt.Fprintf(a.out, "%s %s by %s (%s)\n", signs[role].done, a.bundle, clean(key.Name), bundle.Fingerprint(key.Public()))
		return err
	})
}
