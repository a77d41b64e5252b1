package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/root"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
)

// rootDir is where this side keeps the chain of root files: outside to be put
// into bundles, inside pinned.
func rootDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "root-of-trust") }

type rootOptions struct {
	out        string
	stream     string
	expires    config.Duration
	roots      []string
	exporters  []string
	approvers  []string
	insides    []string
	thresholds map[string]int
	sign       []string
}

// newKeyRoot is key root: the chain of root files.
func newKeyRoot(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "root", Short: "The chain of root files: keys, roles, thresholds, rotation, revocation",
		Long: `The chain of root files: which keys have which role, how many of them must sign,
and which are revoked. Every version is signed by the holders of the version
before and by its own. Outside, pinned versions travel in every bundle; inside,
the first one is pinned by a fingerprint that a person compared, and later ones
follow by themselves.`,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	o := &rootOptions{expires: config.Duration(2 * 365 * 24 * time.Hour)}
	make1 := &cobra.Command{
		Use:   "new --out FILE --root KEY... --exporter KEY... --sign KEY...",
		Short: "Make the first root file",
		Long:  "Make the first root file. KEY is the file of a public key; --sign takes private\nkeys: a file, agent:NAME, or a pkcs11: URI. Other holders of root keys add their\nsignatures with key root sign.\n\n" + codesLine(exitOK, exitUsage),
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return a.rootNew(o) },
	}
	f := make1.Flags()
	f.StringVar(&o.out, "out", "", "`FILE` to write")
	f.StringVar(&o.stream, "stream", "main", "the stream that it is for")
	f.Var(&o.expires, "expires", "valid for so long")
	f.StringArrayVar(&o.roots, "root", nil, "public `KEY` of a root holder; may be repeated")
	f.StringArrayVar(&o.exporters, "exporter", nil, "public `KEY` of an exporter; may be repeated")
	f.StringArrayVar(&o.approvers, "approver", nil, "public `KEY` of an approver; may be repeated")
	f.StringArrayVar(&o.insides, "inside", nil, "public `KEY` of an inside; may be repeated")
	f.StringToIntVar(&o.thresholds, "threshold", nil, "how many must sign, as root=2,exporter=1,approver=1 (default 1 each)")
	f.StringArrayVar(&o.sign, "sign", nil, "private `KEY` of a root holder; may be repeated")
	_ = make1.MarkFlagRequired("out")

	var sign []string
	add := &cobra.Command{
		Use: "sign FILE --sign KEY...", Short: "Add the signature of a root holder",
		Long: "Add the signature of a root holder to a root file.\n\n" + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error { return a.rootSign(args[0], sign) },
	}
	add.Flags().StringArrayVar(&sign, "sign", nil, "private `KEY` of a root holder; may be repeated")

	n := &rootNext{expires: config.Duration(2 * 365 * 24 * time.Hour)}
	next := &cobra.Command{
		Use:   "next --out FILE [--revoke ID --after SEQ --reason TEXT] [--add ROLE=KEY]... [--rotate ROLE:ID=KEY]... --sign KEY...",
		Short: "Make the version after the pinned one: add, rotate, revoke, change thresholds",
		Long: `Make the version after the pinned one. --revoke with --after SEQ: what the key
signed up to that bundle stays good, nothing later does. --rotate puts a new key
in the place of an old one, whose bundles are then refused: for one whose bundles
are still on their way, revoke it after the last good bundle, and add the new.

` + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return a.rootNext(n) },
	}
	f = next.Flags()
	f.StringVar(&n.out, "out", "", "`FILE` to write")
	f.Var(&n.expires, "expires", "valid for so long")
	f.StringVar(&n.revoke, "revoke", "", "fingerprint or `ID` of the key to revoke")
	f.Uint64Var(&n.after, "after", 0, "bundles up to this one stay good")
	f.StringVar(&n.reason, "reason", "", "why it is revoked")
	f.StringArrayVar(&n.add, "add", nil, "`ROLE=KEY`: give a role a further public key")
	f.StringArrayVar(&n.rotate, "rotate", nil, "`ROLE:ID=KEY`: put a public key in the place of another")
	f.StringToIntVar(&n.thresholds, "threshold", nil, "how many must sign, as exporter=2")
	f.StringArrayVar(&n.sign, "sign", nil, "private `KEY` of a root holder; may be repeated")
	_ = next.MarkFlagRequired("out")

	var fingerprint string
	pin := &cobra.Command{
		Use: "pin FILE --fingerprint sha256:HEX", Short: "Pin the first root file, whose fingerprint was compared, or advance to the next",
		Long: "Pin the first root file, whose fingerprint a person compared over another\nchannel. With a root pinned already, FILE is the next version, and its signatures\ndecide.\n\n" + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error { return a.rootPin(args[0], fingerprint) },
	}
	pin.Flags().StringVar(&fingerprint, "fingerprint", "", "what key root show printed where it was made")
	show := &cobra.Command{
		Use: "show [FILE]", Short: "Show a root file, or the pinned one",
		Long: "Show a root file, or the pinned one, and its fingerprint.\n\n" + codesLine(exitOK, exitUsage, exitIntegrity),
		Args: cobra.MaximumNArgs(1), RunE: func(_ *cobra.Command, args []string) error { return a.rootShow(args) },
	}
	cmd.AddCommand(make1, add, next, pin, show)
	return cmd
}

// rootKeys reads public keys for a root file.
func rootKeys(files []string, keys *[]root.Key) (ids []string, err error) {
	for _, file := range files {
		k, err := rootKey(file)
		if err != nil {
			return nil, err
		}
		*keys = append(*keys, k)
		ids = append(ids, k.ID)
	}
	return ids, nil
}

func rootKey(file string) (root.Key, error) {
	name, pub, err := publicKey(file)
	if err != nil {
		return root.Key{}, &usageError{err}
	}
	k, err := root.NewKey(name, pub)
	if err != nil {
		return k, usagef("%s: %w", file, err)
	}
	return k, nil
}

func openKeys(specs []string) (list []bundle.Signer, err error) {
	for _, s := range specs {
		k, err := openKey(s)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}

func (a *app) rootNew(o *rootOptions) error {
	var keys []root.Key
	var roles root.Roles
	for _, r := range []struct {
		name  string
		files []string
		to    *root.Role
	}{{root.RoleRoot, o.roots, &roles.Root}, {root.RoleExporter, o.exporters, &roles.Exporter}, {root.RoleApprover, o.approvers, &roles.Approver}, {root.RoleInside, o.insides, &roles.Inside}} {
		ids, err := rootKeys(r.files, &keys)
		if err != nil {
			return err
		}
		n, set := o.thresholds[r.name]
		if !set {
			n = min(1, len(ids))
		}
		*r.to = root.Role{Threshold: n, Keys: ids}
	}
	now := time.Now()
	return a.rootWrite(root.New(o.stream, now, now.Add(o.expires.Duration()), keys, roles), o.out, o.sign)
}

// rootWrite signs and writes a version.
func (a *app) rootWrite(r *root.Root, out string, sign []string) error {
	signers, err := openKeys(sign)
	if err != nil {
		return err
	}
	data, err := root.Sign(r, signers...)
	if err != nil {
		return &usageError{err}
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return usagef("%s exists; a root file is never overwritten", out)
	}
	if err := durable.WriteFile(out, data, 0o644); err != nil {
		return err
	}
	return a.rootShow([]string{out})
}

func (a *app) rootSign(file string, sign []string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return &usageError{err}
	}
	signers, err := openKeys(sign)
	if err != nil {
		return err
	}
	if len(signers) == 0 {
		return usagef("--sign is missing: want the private key of a root holder")
	}
	for _, s := range signers {
		if data, err = root.AddSignature(data, s); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	return a.rootShow([]string{file})
}

type rootNext struct {
	out, revoke, reason string
	expires             config.Duration
	after               uint64
	add, rotate         []string
	thresholds          map[string]int
	sign                []string
}

func (a *app) rootNext(o *rootNext) error {
	cfg, err := a.load("")
	if err != nil {
		return err
	}
	cur, err := pinnedRoot(cfg)
	if err != nil {
		return err
	}
	if cur == nil {
		return usagef("no root is pinned here\ndarkmirror key root pin FILE pins the first")
	}
	now := time.Now()
	r := cur.Root().NextVersion(now, now.Add(o.expires.Duration()))
	if err := o.change(r, now); err != nil {
		return &usageError{err}
	}
	return a.rootWrite(r, o.out, o.sign)
}

func (o *rootNext) change(r *root.Root, now time.Time) error {
	for _, s := range o.add {
		role, file, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("--add %q: want ROLE=KEY", s)
		}
		k, err := rootKey(file)
		if err != nil {
			return err
		}
		if err := r.Add(role, k); err != nil {
			return err
		}
	}
	for _, s := range o.rotate {
		what, file, ok := strings.Cut(s, "=")
		role, id, ok2 := strings.Cut(what, ":")
		if !ok || !ok2 {
			return fmt.Errorf("--rotate %q: want ROLE:ID=KEY", s)
		}
		k, err := rootKey(file)
		if err != nil {
			return err
		}
		if id, err = wholeID(r, id); err != nil {
			return err
		}
		if err := r.Rotate(role, id, k); err != nil {
			return err
		}
	}
	if o.revoke != "" {
		id, err := wholeID(r, o.revoke)
		if err != nil {
			return err
		}
		if err := r.Revoke(id, o.after, o.reason, now); err != nil {
			return err
		}
	}
	for role, n := range o.thresholds {
		if err := r.Threshold(role, n); err != nil {
			return err
		}
	}
	return nil
}

// wholeID finds a key by its id or the beginning that people compare.
func wholeID(r *root.Root, short string) (string, error) {
	want := strings.ReplaceAll(strings.TrimPrefix(short, "sha256:"), " ", "")
	var found []string
	for _, k := range r.Keys {
		if len(want) >= 8 && strings.HasPrefix(k.ID, want) {
			found = append(found, k.ID)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("key %q: %d keys of the root begin so, want one and at least 8 digits", short, len(found))
	}
	return found[0], nil
}

// pinnedRoot is the newest version that is pinned here; nil for none.
func pinnedRoot(cfg *config.Config) (*root.Verified, error) {
	s, err := root.OpenStore(rootDir(cfg))
	if err != nil {
		return nil, err
	}
	v, ok := s.Current()
	if !ok {
		return nil, nil
	}
	return v, nil
}

func (a *app) rootPin(file, fingerprint string) error {
	cfg, err := a.load("")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return &usageError{err}
	}
	s, err := root.OpenStore(rootDir(cfg))
	if err != nil {
		return err
	}
	if cur, ok := s.Current(); ok {
		r, err := root.Parse(data)
		if err != nil {
			return err
		}
		if _, err := s.Advance(map[int][]byte{r.Version: data}, time.Now()); err != nil {
			return err
		}
		if r.Version > cur.Root().Version+1 {
			return usagef("version %d does not follow %d, which is pinned", r.Version, cur.Root().Version)
		}
		return a.rootShow(nil)
	}
	if fingerprint == "" {
		return usagef("--fingerprint is missing: compare what key root show prints where the file was made, over another channel")
	}
	if err := s.Pin(data, fingerprint, time.Now()); err != nil {
		return err
	}
	return a.rootShow(nil)
}

type rootResult struct {
	Schema      string    `json:"schema"`
	Fingerprint string    `json:"fingerprint"`
	Pinned      bool      `json:"pinned"`
	Version     int       `json:"version"`
	Stream      string    `json:"stream"`
	Expires     time.Time `json:"expires"`
	Keys        []string  `json:"keys"`
	Revoked     []string  `json:"revoked"`
}

func (a *app) rootShow(args []string) error {
	res := rootResult{Schema: "darkmirror.root-shown/v1", Keys: []string{}, Revoked: []string{}}
	var r *root.Root
	if len(args) == 1 {
		data, err := os.ReadFile(args[0])
		if err != nil {
			return &usageError{err}
		}
		if r, err = root.Parse(data); err != nil {
			return err
		}
		res.Fingerprint = r.Digest().String()
	} else {
		cfg, err := a.load("")
		if err != nil {
			return err
		}
		v, err := pinnedRoot(cfg)
		if err != nil {
			return err
		}
		if v == nil {
			return usagef("no root is pinned here\ndarkmirror key root pin FILE pins the first")
		}
		r, res.Pinned, res.Fingerprint = v.Root(), true, v.Digest().String()
	}
	res.Version, res.Stream, res.Expires = r.Version, r.Stream, r.Expires
	for _, role := range []struct {
		name string
		r    root.Role
	}{{root.RoleRoot, r.Roles.Root}, {root.RoleExporter, r.Roles.Exporter}, {root.RoleApprover, r.Roles.Approver}, {root.RoleInside, r.Roles.Inside}} {
		for _, id := range role.r.Keys {
			i := slices.IndexFunc(r.Keys, func(k root.Key) bool { return k.ID == id })
			res.Keys = append(res.Keys, fmt.Sprintf("%-9s %d of %d  %s  %s", role.name, role.r.Threshold, len(role.r.Keys), id[:4]+" "+id[4:8], r.Keys[i].Name))
		}
	}
	for _, x := range r.Revoked {
		res.Revoked = append(res.Revoked, fmt.Sprintf("revoked   after %s  %s  %s", seqName(x.AfterSeq), x.Key[:4]+" "+x.Key[4:8], x.Reason))
	}
	return a.result(res, func() error {
		if _, err := fmt.Fprintf(a.out, "root version %d of stream %s, until %s\n", res.Version, clean(res.Stream), res.Expires.UTC().Format(time.RFC3339)); err != nil {
			return err
		}
		for _, l := range append(res.Keys, res.Revoked...) {
			if _, err := fmt.Fprintf(a.out, "  %s\n", clean(l)); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(a.out, "fingerprint %s\n", res.Fingerprint)
		return err
	})
}

// rootTrust trusts what the pinned chain says of a bundle's number, after the
// versions that the bundle brings; nil where no root is pinned.
func rootTrust(cfg *config.Config) (func(*bundle.Reader) (bundle.Trust, error), error) {
	s, err := root.OpenStore(rootDir(cfg))
	if err != nil {
		return nil, err
	}
	if _, ok := s.Current(); !ok {
		return nil, nil
	}
	return func(r *bundle.Reader) (bundle.Trust, error) {
		files, err := r.RootFiles()
		if err != nil {
			return bundle.Trust{}, err
		}
		now := time.Now()
		byVersion := make(map[int][]byte)
		for name, data := range files {
			n, err := strconv.Atoi(strings.TrimSuffix(name, ".root.json"))
			if err != nil {
				return bundle.Trust{}, fmt.Errorf("root file %q: %w", name, err)
			}
			byVersion[n] = data
		}
		if _, err := s.Advance(byVersion, now); err != nil {
			return bundle.Trust{}, err
		}
		cur, _ := s.Current()
		if err := cur.CheckExpiry(now); err != nil {
			return bundle.Trust{}, err
		}
		stream, seq, err := claims(r)
		if err != nil {
			return bundle.Trust{}, err
		}
		if want := cur.Root().Stream; stream != want {
			return bundle.Trust{}, &artifact.Refusal{
				Class: artifact.ErrIntegrity, Code: root.CodeRoot, Subject: "root of trust", Reason: "the pinned root is for another stream", Want: want, Got: stream,
			}
		}
		return cur.Trust(seq), nil
	}, nil
}

// claims are what a bundle says it is, before its signature was looked at; the
// manifest that is verified then is the same bytes.
func claims(r *bundle.Reader) (string, uint64, error) {
	if r.Encrypted() {
		c, err := r.Carried()
		if err != nil {
			return "", 0, err
		}
		return c.Stream, c.Seq, nil
	}
	m, err := r.Unverified()
	if err != nil {
		return "", 0, err
	}
	return m.Stream, m.Seq, nil
}
