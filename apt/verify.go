package apt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// debsAtOnce bounds the package files that are looked into together.
const debsAtOnce = 4

// A Publisher verifies snapshots inside and publishes them as apt archives.
type Publisher struct {
	// Now is the clock for the expiry of keys; nil means time.Now.
	Now func() time.Time

	cfg  PublishConfig
	name string
	st   *store.Store
	dir  string
	log  *slog.Logger
	debs debReader
}

// NewPublisher checks the configuration and writes nothing. name is
// "apt/NAME"; dir is the publisher's own folder: its key, and what it has
// published.
func NewPublisher(cfg PublishConfig, name string, st *store.Store, dir string, log *slog.Logger) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Publisher{cfg: cfg, name: name, st: st, dir: dir, log: log}, nil
}

// Name is "apt/NAME".
func (p *Publisher) Name() string { return p.name }

// Tree is the folder that is published.
func (p *Publisher) Tree() string {
	if p.cfg.Tree != "" {
		return p.cfg.Tree
	}
	return filepath.Join(p.dir, "tree")
}

func (p *Publisher) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}

// Verify walks upstream's own chain again, with the keys pinned here: the
// signature of each Release, the digest of each index, the stanza of each
// package, the digest, size and control file of each package file. What no
// stanza lists is refused. A Release may have expired on its way; one older
// than that of prev is refused. Nothing is written.
func (p *Publisher) Verify(ctx context.Context, snap, prev *artifact.Snapshot) error {
	proofs, err := p.proofs(ctx, snap)
	if err != nil {
		return err
	}
	dates, err := releaseDates(p.st, prev)
	if err != nil {
		return err
	}
	for _, pr := range proofs {
		if err := checkRollback(pr.subject, pr.release.Date, dates[pr.path]); err != nil {
			return err
		}
	}
	sel := selection(snap)
	for _, pr := range proofs {
		for _, ix := range pr.indices {
			if err := p.match(pr, ix, sel, nil); err != nil {
				return err
			}
		}
	}
	for _, f := range slices.Sorted(maps.Keys(sel)) {
		if !sel[f].found {
			return notUpstream(p.name+": "+f, sel[f].other)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(debsAtOnce)
	for _, name := range slices.Sorted(maps.Keys(sel)) {
		s := sel[name]
		g.Go(func() error {
			if err := gctx.Err(); err != nil {
				return err
			}
			return p.debs.check(p.st, s.file, s.info, true, false)
		})
	}
	return g.Wait()
}

func notUpstream(subject, got string) error {
	ref := integrity(codeNotUpstream, subject, "not what upstream's signed index lists")
	ref.Got = got
	return ref
}

// A selected is one package file of a snapshot.
type selected struct {
	artifact *artifact.Artifact
	file     artifact.File
	found    bool
	info     debInfo
	other    string // what the index lists under the same name
}

// selection lists a snapshot's package files by path.
func selection(snap *artifact.Snapshot) map[string]*selected {
	sel := make(map[string]*selected)
	for i := range snap.Artifacts {
		a := &snap.Artifacts[i]
		for _, f := range a.Files {
			sel[f.Path] = &selected{artifact: a, file: f}
		}
	}
	return sel
}

// A proof is one suite's Release and indices as they came across.
type proof struct {
	subject string
	archive string
	suite   string
	path    string // "debian/dists/bookworm"
	release *Release
	signed  string // "InRelease" or "Release"
	indices []proofIndex
}

type proofIndex struct {
	file artifact.File
	name indexName
	ext  string
}

// proofs reads the metadata of a snapshot and verifies every signature and the
// digest that each Release gives of its indices.
func (p *Publisher) proofs(ctx context.Context, snap *artifact.Snapshot) ([]*proof, error) {
	if snap.Source != p.name {
		return nil, notUpstream(p.name, "a snapshot of "+snap.Source)
	}
	byPath := make(map[string]*proof)
	var rest []artifact.File
	for _, f := range snap.Meta {
		switch path.Base(f.Path) {
		case "InRelease", "Release":
			pr, err := p.proof(ctx, snap, f)
			if err != nil {
				return nil, err
			}
			if byPath[pr.path] != nil {
				return nil, notUpstream(p.name+": "+f.Path, "both InRelease and Release")
			}
			byPath[pr.path] = pr
		default:
			rest = append(rest, f)
		}
	}
	for _, f := range rest {
		if err := place(byPath, f); err != nil {
			return nil, err
		}
	}
	all := make([]*proof, 0, len(byPath))
	for _, name := range slices.Sorted(maps.Keys(byPath)) {
		all = append(all, byPath[name])
	}
	if len(all) == 0 {
		return nil, notUpstream(p.name, "a snapshot without any Release")
	}
	return all, nil
}

// place finds the suite of a metadata file and holds it against the Release.
func place(byPath map[string]*proof, f artifact.File) error {
	if dir, ok := strings.CutSuffix(f.Path, "/Release.gpg"); ok && byPath[dir] != nil && byPath[dir].signed == "Release" {
		return nil // read together with its Release
	}
	for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
		pr := byPath[dir]
		if pr == nil {
			continue
		}
		name := strings.TrimPrefix(f.Path, dir+"/")
		n, ext, ok := parseIndexName(name)
		if e, listed := pr.release.files[name]; ok && listed && e.digest == f.Digest && e.size == f.Size {
			pr.indices = append(pr.indices, proofIndex{f, n, ext})
			return nil
		}
	}
	return notUpstream(f.Path, f.Digest.String())
}

// parseIndexName reads "main/binary-amd64/Packages.xz".
func parseIndexName(name string) (n indexName, ext string, ok bool) {
	dir, base := path.Split(name)
	ext, ok = strings.CutPrefix(base, "Packages")
	component, last := path.Split(strings.TrimSuffix(dir, "/"))
	arch, isBinary := strings.CutPrefix(last, "binary-")
	n = indexName{strings.TrimSuffix(component, "/"), arch}
	return n, ext, ok && isBinary && knownExt(ext) && archOK(arch) && n.component != ""
}

// proof verifies the Release behind one metadata file.
func (p *Publisher) proof(ctx context.Context, snap *artifact.Snapshot, f artifact.File) (*proof, error) {
	subject := p.name + ": " + f.Path
	dir := path.Dir(f.Path)
	archive, suite, ok := strings.Cut(dir, "/dists/")
	i := slices.IndexFunc(p.cfg.Archives, func(a PublishArchive) bool { return a.Name == archive })
	if !ok || i < 0 {
		ref := integrity(codeSignature, subject, "no key is pinned here for this archive")
		ref.Got = archive
		return nil, ref
	}
	pinned := p.cfg.Archives[i]
	keys, err := loadKeyring(pinned.SignedBy)
	if err != nil {
		return nil, fmt.Errorf("%s: archive %s: %w", p.name, archive, err)
	}
	keys.expiredLater = true
	v, err := p.readSigned(snap, f, keys)
	if err := keys.accepted(subject, v, err); err != nil {
		return nil, err
	}
	p.log.LogAttrs(ctx, slog.LevelInfo, "release verified", slog.String("source", p.name), slog.String("suite", dir),
		slog.Any("signers", v.signers), slog.Any("good", v.good))
	pr := &proof{subject: subject, archive: archive, suite: suite, path: dir, signed: path.Base(f.Path)}
	if pr.release, err = parseRelease(v.text); err != nil {
		ref := integrity(codeRelease, subject, "release cannot be read")
		ref.Err = err
		return nil, ref
	}
	if !pr.release.isSuite(suite) {
		ref := integrity(codeSuite, subject, "release of another suite")
		ref.Want, ref.Got = suite, fmt.Sprintf("suite %q, codename %q", clip(pr.release.Suite), clip(pr.release.Codename))
		return nil, ref
	}
	if err := sameIdentity(subject, "Origin", pinned.Origin, pr.release.Origin, pinned.Origin != ""); err != nil {
		return nil, err
	}
	return pr, sameIdentity(subject, "Label", pinned.Label, pr.release.Label, pinned.Label != "")
}

func sameIdentity(subject, field, want, got string, asked bool) error {
	if !asked || want == got {
		return nil
	}
	ref := integrity(codeIdentity, subject, field+" is not what it was")
	ref.Want, ref.Got = fmt.Sprintf("%q", want), fmt.Sprintf("%q", clip(got))
	return ref
}

// readSigned verifies an InRelease, or a Release with the signature beside it.
func (p *Publisher) readSigned(snap *artifact.Snapshot, f artifact.File, keys *keyring) (*verification, error) {
	doc, err := p.st.ReadAll(f.Digest, maxRelease)
	if err != nil {
		return nil, err
	}
	if path.Base(f.Path) == "InRelease" {
		return keys.verifyInline(doc, p.now())
	}
	sig, ok := snap.MetaFile(f.Path + ".gpg")
	if !ok {
		return nil, errors.New("no Release.gpg beside it")
	}
	b, err := p.st.ReadAll(sig.Digest, maxSignatureFile)
	if err != nil {
		return nil, err
	}
	return keys.verifyDetached(doc, b, p.now())
}

// match streams one index and marks what it lists of the selection. each, if
// not nil, gets every stanza that is selected, as it stands in the index.
func (p *Publisher) match(pr *proof, ix proofIndex, sel map[string]*selected, each func(rec *record) error) error {
	subject := p.name + ": " + ix.file.Path
	plain := pr.release.files[ix.name.dir()+"/Packages"]
	return readPackages(p.st, ix.file, ix.ext, plain, subject, func(r io.Reader) error {
		sr := newStanzaReader(r)
		for {
			st, err := sr.next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			rec, err := parseRecord(st, subject)
			if err != nil {
				return err
			}
			s := sel[pr.archive+"/"+rec.filename]
			if s == nil {
				continue
			}
			if s.file.Digest != rec.digest || s.file.Size != rec.size {
				s.other = fmt.Sprintf("%v, listed %v", s.file.Digest, rec.digest)
				continue
			}
			info := debInfo{string(rec.name), string(rec.version), string(rec.arch)}
			if !names(s.artifact, info) {
				return notUpstream(subject, fmt.Sprintf("%s called %s %s", info, clip(s.artifact.Name), clip(s.artifact.Version)))
			}
			s.found, s.info = true, info
			if each != nil {
				if err := each(&rec); err != nil {
					return err
				}
			}
		}
	})
}

// names reports whether an artifact is called what its stanza says.
func names(a *artifact.Artifact, info debInfo) bool {
	return a.Version == info.version && (a.Name == info.name || a.Name == info.name+":"+info.arch)
}
