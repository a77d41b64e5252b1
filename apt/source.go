package apt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// suitesAtOnce bounds the suites that are read together. Each holds the
// dictionary of one decompressor.
const suitesAtOnce = 2

// A Source reads the archives of one configured source.
type Source struct {
	// Now is the clock against which a Release is judged; nil means time.Now.
	Now func() time.Time

	cfg    Config
	name   string
	client *fetch.Client
	st     *store.Store
	log    *slog.Logger

	downloads keyed
	debs      debReader
	mu        sync.Mutex
	expected  map[artifact.Digest]debInfo // of the last Resolve
}

// NewSource checks the configuration and contacts nothing. name is "apt/NAME".
func NewSource(cfg Config, name string, client *fetch.Client, st *store.Store, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Source{cfg: cfg, name: name, client: client, st: st, log: log}, nil
}

// Name is "apt/NAME".
func (s *Source) Name() string { return s.name }

func (s *Source) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Resolve reads every Release and Packages index, verifies them and selects
// the closure of the configured packages. InRelease and Packages files go into
// the store; package files are not fetched.
func (s *Source) Resolve(ctx context.Context, prev *artifact.Snapshot) (_ *artifact.Snapshot, _ []string, err error) {
	suites, err := s.suites(prev)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, su := range suites {
			err = errors.Join(err, su.close())
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(suitesAtOnce)
	for _, su := range suites {
		g.Go(func() error { return s.read(gctx, su) })
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: s.name}
	for _, su := range suites {
		snap.Meta = append(snap.Meta, su.meta...)
	}
	chosen, err := s.choose(ctx, suites)
	if err != nil {
		return nil, nil, err
	}
	if err := s.list(snap, chosen); err != nil {
		return nil, nil, err
	}
	return snap, notes(suites), nil
}

// choose runs the closure for each architecture and merges the results. The
// first reason of a package stands.
//
// With "bootstrap", the presets are first closed over in the first suite alone:
// debootstrap reads one suite only, and mmdebstrap looks there for Essential
// packages, although updates of some of them stand in other suites.
func (s *Source) choose(ctx context.Context, suites []*suite) ([]choice, error) {
	var chosen []choice
	have := make(map[*pkg]bool)
	run := func(u *universe, seedsFor func(arch string) ([]seed, error)) error {
		for _, arch := range s.cfg.Architectures {
			seeds, err := seedsFor(arch)
			if err != nil {
				return err
			}
			sel := &selector{u: u, arch: arch, recommends: s.cfg.Recommends, subject: s.name}
			found, err := sel.sel(ctx, seeds)
			if err != nil {
				return err
			}
			for _, c := range found {
				if !have[c.pkg] {
					have[c.pkg] = true
					chosen = append(chosen, c)
				}
			}
		}
		return nil
	}
	if s.cfg.Essential == essentialBootstrap {
		base := newUniverse(suites[0].indices)
		if err := run(base, func(arch string) ([]seed, error) { return base.presets(essentialBootstrap, arch), nil }); err != nil {
			return nil, err
		}
	}
	var indices []*index
	for _, su := range suites {
		indices = append(indices, su.indices...)
	}
	u := newUniverse(indices)
	err := run(u, func(arch string) ([]seed, error) {
		seeds := u.presets(s.cfg.Essential, arch)
		for _, text := range s.cfg.Packages {
			sd, err := parseSeed(text)
			if err != nil {
				return nil, err
			}
			if sd.rel.qualifier == "" || sd.rel.qualifier == arch {
				seeds = append(seeds, sd)
			}
		}
		return seeds, nil
	})
	return chosen, err
}

// list writes the selection into the snapshot.
func (s *Source) list(snap *artifact.Snapshot, chosen []choice) error {
	expected := make(map[artifact.Digest]debInfo, len(chosen))
	files := make(map[string]*pkg, len(chosen))
	for _, c := range chosen {
		p := c.pkg
		texts, err := p.texts()
		if err != nil {
			return err
		}
		filename := texts[fieldFilename]
		archive := &s.cfg.Archives[p.index.archive]
		f := artifact.File{
			Path:   archive.name() + "/" + filename,
			Digest: p.digest,
			Size:   p.size,
			URL:    strings.TrimSuffix(archive.URL, "/") + "/" + escapePath(filename),
		}
		if q, clash := files[f.Path]; clash {
			if p.digest != q.digest {
				return conflictRefusal(p, q)
			}
			continue // two suites list the same file
		}
		files[f.Path] = p
		expected[p.digest] = debInfo{p.name, p.version, p.arch}
		snap.Artifacts = append(snap.Artifacts, artifact.Artifact{
			Name: artifactName(p.name, p.arch, s.cfg.Architectures[0]), Version: p.version, Why: c.why, Files: []artifact.File{f},
		})
	}
	if err := snap.Check(); err != nil {
		ref := integrity(codeConflict, s.name, "the selection cannot be kept as files")
		ref.Err = err
		return ref
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected = expected
	return nil
}

// artifactName is the package's name, with the architecture where it is
// neither the main one nor "all".
func artifactName(name, arch, main string) string {
	if arch == main || arch == "all" {
		return name
	}
	return name + ":" + arch
}

// notes are lines for the plan table.
func notes(suites []*suite) []string {
	var all []string
	var soonest *suite
	for _, su := range suites {
		if !su.archive.checksValidUntil() {
			all = append(all, su.path+": Valid-Until is not checked")
			continue
		}
		if v := su.release.ValidUntil; !v.IsZero() && (soonest == nil || v.Before(soonest.release.ValidUntil)) {
			soonest = su
		}
	}
	if soonest != nil {
		all = append(all, soonest.path+" valid until "+soonest.release.ValidUntil.Format(time.DateOnly))
	}
	return all
}

// Fetch brings one file of a snapshot into the store. A package file must be a
// sound .deb; if this process has resolved the snapshot, its control file must
// name the package that the index names. The inside asks that again of every
// file.
func (s *Source) Fetch(ctx context.Context, f artifact.File) error {
	had := s.st.Has(f.Digest)
	if !had {
		if err := s.download(ctx, f.Digest, f.Size, []string{f.URL}); err != nil {
			return err
		}
	}
	if !strings.HasSuffix(f.Path, ".deb") {
		return nil
	}
	s.mu.Lock()
	want, known := s.expected[f.Digest]
	s.mu.Unlock()
	return s.debs.check(s.st, f, want, known, !had)
}

// check reads a package file from the store. whole reads it to its end.
func (d *debReader) check(st *store.Store, f artifact.File, want debInfo, known, whole bool) (err error) {
	r, err := st.Open(f.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	got, err := d.read(r, f.Size, whole)
	if err != nil {
		if _, damaged := errors.AsType[*artifact.Refusal](err); damaged {
			return err
		}
		ref := integrity(codeDeb, f.Path, "not a sound package file")
		ref.Err = err
		return ref
	}
	if known && *got != want {
		ref := integrity(codeDeb, f.Path, "control file names another package than the index")
		ref.Want, ref.Got = want.String(), clip(got.String())
		return ref
	}
	return nil
}

// download fetches one blob from the first of several places that has it.
func (s *Source) download(ctx context.Context, want artifact.Digest, size int64, urls []string) error {
	// Two suites may name the same bytes: an empty index, say.
	defer s.downloads.lock(want)()
	if s.st.Has(want) {
		return nil
	}
	var missing error
	for _, u := range urls {
		err := s.downloadOne(ctx, want, size, u)
		if err == nil || !fetch.IsNotFound(err) {
			return err
		}
		missing = errors.Join(missing, err)
	}
	return missing
}

func (s *Source) downloadOne(ctx context.Context, want artifact.Digest, size int64, url string) (err error) {
	if url == "" {
		return fmt.Errorf("%s: %v has no place to fetch it from", s.name, want)
	}
	p, err := s.st.Partial(want, size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return s.client.Download(ctx, url, p)
}

// keyed is a lock for each digest.
type keyed struct {
	mu   sync.Mutex
	held map[artifact.Digest]*keyedLock
}

type keyedLock struct {
	sync.Mutex
	users int
}

// lock waits for a digest and returns what gives it back.
func (k *keyed) lock(d artifact.Digest) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = make(map[artifact.Digest]*keyedLock)
	}
	l := k.held[d]
	if l == nil {
		l = &keyedLock{}
		k.held[d] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, d)
		}
	}
}
