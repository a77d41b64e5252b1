package pypi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// mostErrors bounds how many pins one error names.
	mostErrors = 20
	// recordAlias marks a wheel that agrees with its RECORD.
	recordAlias = "pypi-record-"
	// mostWhy bounds the places that one artifact names.
	mostWhy = 8
)

// A Source is one package index outside, and those that some projects are
// pinned to.
type Source struct {
	name    string
	cfg     Config
	indexes []*index            // the main one first
	targets []*packaging.Target // of everything that is configured
	store   *store.Store
	log     *slog.Logger
	now     func() time.Time // tests change it

	attester *attester // nil: attestations are not asked for

	big sync.Mutex // held while a page over smallPage is in memory

	mu sync.Mutex
	// metadata remembers what the index said of a wheel's METADATA, for
	// Fetch; it is evidence that a later process lacks, and the inside
	// compares it again.
	metadata map[artifact.Digest]artifact.Digest
}

// NewSource returns the source of that name ("pypi/main"). clients are one
// for each configuration of [Config.Fetches], in its order.
func NewSource(cfg Config, name string, clients []*fetch.Client, st *store.Store, log *slog.Logger) (*Source, error) {
	if err := errors.Join(cfg.Validate(), artifact.CheckSource(name)); err != nil {
		return nil, err
	}
	if len(clients) != 1+len(cfg.Pinned) {
		return nil, fmt.Errorf("%s: %d clients for %d indexes", name, len(clients), 1+len(cfg.Pinned))
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxPage == 0 {
		cfg.MaxPage = maxPage
	}
	s := &Source{name: name, cfg: cfg, store: st, log: log, now: time.Now, metadata: make(map[artifact.Digest]artifact.Digest)}
	var err error
	if s.attester, err = newAttester(cfg.Attestations); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, text := range cfg.everyTarget() {
		t, err := cfg.target(text)
		if err != nil {
			return nil, err
		}
		s.targets = append(s.targets, t)
	}
	for i, address := range cfg.Addresses() {
		u, err := url.Parse(strings.TrimSuffix(address, "/") + "/")
		if err != nil {
			return nil, err
		}
		ix := &index{url: u, client: clients[i], missing: cfg.MissingStatus}
		if i > 0 {
			ix.missing = cfg.Pinned[i-1].MissingStatus
		}
		s.indexes = append(s.indexes, ix)
	}
	return s, nil
}

// Name is "pypi/main".
func (s *Source) Name() string { return s.name }

// want is one pin for one target.
type want struct {
	pin    *Pin
	target *packaging.Target
}

// Resolve reads the lock files and the requirements and, once for each
// project, its page, and answers with the files that the targets need. It
// fetches no package, but for source archives that have to tell what they
// require. Where that cannot be had, it answers prev with what the index has
// taken back since, see [Source.recall].
func (s *Source) Resolve(ctx context.Context, prev *artifact.Snapshot) (*artifact.Snapshot, []string, error) {
	snap, notes, err := s.resolve(ctx, prev)
	if err != nil {
		return s.recall(ctx, prev, err)
	}
	return snap, notes, nil
}

func (s *Source) resolve(ctx context.Context, prev *artifact.Snapshot) (*artifact.Snapshot, []string, error) {
	wants, notes, err := s.wants()
	if err != nil {
		return nil, nil, err
	}
	o := newOffers(s, prev)
	more, err := s.closures(ctx, o, wants)
	if err != nil {
		return nil, nil, err
	}
	notes = append(notes, more...)
	results := make(map[string]*resolved)
	builds, read := make(map[string]bool), make(map[string]int)
	for again := true; again; {
		if err := s.projects(ctx, o, wants, read, results); err != nil {
			return nil, nil, err
		}
		var list []built
		for _, name := range slices.Sorted(maps.Keys(results)) {
			list = append(list, results[name].builds...)
		}
		if more, again, err = s.builds(ctx, o, list, builds, wants); err != nil {
			return nil, nil, err
		}
		notes = append(notes, more...)
	}
	ordered := make([]*resolved, 0, len(results))
	for _, name := range slices.Sorted(maps.Keys(results)) {
		ordered = append(ordered, results[name])
		notes = append(notes, results[name].notes...)
	}
	notes = append(notes, o.lostNote()...)
	snap, err := s.snapshot(ordered)
	if err != nil {
		return nil, nil, err
	}
	if err := changed(s.name, snap, prev); err != nil {
		return nil, nil, err
	}
	s.log.InfoContext(ctx, "resolved", slog.String("source", s.name), slog.Int("projects", len(results)))
	return snap, notes, nil
}

// projects chooses files for the wants of every project that has new ones;
// read counts those that were looked at.
func (s *Source) projects(ctx context.Context, o *offers, wants map[string][]want, read map[string]int, results map[string]*resolved) error {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(wants)), func(n string) bool { return read[n] == len(wants[n]) })
	found, refusals := make([]*resolved, len(names)), make([]error, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pagesAtOnce)
	for i, name := range names {
		g.Go(func() error {
			r, err := s.project(ctx, o, name, wants[name])
			if err != nil && refusal(err) {
				refusals[i] = err // go on, to name every missing pin at once
				return nil
			}
			found[i] = r
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, name := range names {
		results[name], read[name] = found[i], len(wants[name])
	}
	return joinSome(refusals)
}

// refusal tells an answer about one pin from a failure of the whole run.
func refusal(err error) bool {
	_, ok := errors.AsType[*artifact.Refusal](err)
	return ok
}

// joinSome joins the errors that are there, up to mostErrors.
func joinSome(errs []error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(e error) bool { return e == nil })
	if more := len(errs) - mostErrors; more > 0 {
		errs = append(errs[:mostErrors], fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

// wants reads every lock for each of its targets.
func (s *Source) wants() (map[string][]want, []string, error) {
	wants := make(map[string][]want)
	var notes []string
	targets := make(map[string]*packaging.Target)
	if s.cfg.empty() {
		notes = append(notes, "neither locks nor requirements or packages are configured: nothing is wanted")
	}
	for _, lc := range s.cfg.Locks {
		lock, err := ReadLock(lc.File)
		if err != nil {
			return nil, nil, err
		}
		if err := lock.Choose(Choice{Extras: lc.Extras, Groups: lc.Groups}); err != nil {
			return nil, nil, err
		}
		notes = append(notes, lock.Notes...)
		names := lc.Targets
		if len(names) == 0 {
			names = s.cfg.Targets
		}
		for _, name := range names {
			t := targets[name]
			if t == nil {
				if t, err = s.cfg.target(name); err != nil {
					return nil, nil, err
				}
				targets[name] = t
			}
			pins, err := lock.forTarget(t)
			if err != nil {
				return nil, nil, err
			}
			for _, p := range pins {
				wants[p.Name] = append(wants[p.Name], want{p, t})
			}
		}
	}
	return wants, notes, nil
}

// resolved is one project's answer.
type resolved struct {
	project indexProject
	urls    map[string]string   // by filename
	why     map[string][]string // by version: who asked
	builds  []built             // the source archives among them
	notes   []string
}

// pageOf is the page of a project: that which was read for the solver, or
// one with the files of the wanted versions.
func (s *Source) pageOf(ctx context.Context, o *offers, name string, wants []want) (*page, string, error) {
	if slices.ContainsFunc(wants, func(w want) bool { return w.pin.chosen != nil }) {
		p, err := o.project(ctx, name)
		if err != nil {
			return nil, "", err
		}
		if p.page != nil {
			return p.page, p.host, nil
		}
	}
	versions := make([]packaging.Version, 0, len(wants))
	for _, w := range wants {
		versions = append(versions, w.pin.Version)
	}
	pg, host, err := s.page(ctx, name, func(filename string) bool {
		project, v, err := packaging.ParseDistName(filename)
		return err == nil && project == name && slices.ContainsFunc(versions, func(w packaging.Version) bool { return w.Compare(v) == 0 })
	})
	if err != nil {
		return nil, "", err
	}
	return pg, host, (&chooser{source: s.name, page: pg}).unique(name)
}

// project reads one project's page and chooses a file for each want.
func (s *Source) project(ctx context.Context, o *offers, name string, wants []want) (*resolved, error) {
	pg, host, err := s.pageOf(ctx, o, name, wants)
	if err != nil {
		return nil, err
	}
	r := &resolved{project: indexProject{Name: name, Status: pg.Status, StatusReason: pg.StatusReason}, urls: make(map[string]string), why: make(map[string][]string)}
	switch pg.Status {
	case "", "active":
		r.project.Status = ""
	case quarantined:
		return nil, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: "PYPI-QUARANTINED", Subject: s.name + ": " + name, Reason: "the index has put the project into quarantine: " + cmp.Or(pg.StatusReason, "no reason given")}
	default:
		r.notes = append(r.notes, strings.TrimSpace(fmt.Sprintf("%s is %s upstream %s", name, pg.Status, pg.StatusReason)))
	}
	c := &chooser{source: s.name, page: pg, sdists: s.sdistAllowed(name)}
	if s.rulesFor(name).firstUse {
		c.named = func(f *pageFile, hashes map[artifact.Digest]bool) (*pageFile, error) {
			return o.namedIn(ctx, name, f, hashes)
		}
	}
	var errs []error
	for _, w := range wants {
		got, err := c.choose(w.pin, w.target)
		if err != nil && !refusal(err) {
			return nil, err
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := s.take(ctx, r, got, host); err != nil {
			return nil, err
		}
		if !packaging.IsWheel(got.Filename) {
			k := slices.IndexFunc(r.project.Files, func(f indexFile) bool { return f.Filename == got.Filename })
			r.builds = append(r.builds, built{file: r.project.Files[k], name: name, url: got.URL, target: w.target})
		}
	}
	slices.Sort(r.notes)
	r.notes = slices.Compact(r.notes)
	return r, joinSome(errs)
}

// unique drops equal entries of one filename and refuses different ones.
func (c *chooser) unique(name string) error {
	seen := make(map[string]*pageFile, len(c.page.Files))
	kept := c.page.Files[:0]
	for _, f := range c.page.Files {
		old, dup := seen[f.Filename]
		if !dup {
			kept = append(kept, f)
			seen[f.Filename] = &kept[len(kept)-1]
			continue
		}
		if old.Digest != f.Digest || old.Size != f.Size {
			return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-DUPLICATE", Subject: fmt.Sprintf("%s: %s: %s", c.source, name, f.Filename), Reason: "the index lists the file twice with different bytes", Want: old.Digest.String(), Got: f.Digest.String()}
		}
	}
	c.page.Files = kept
	return nil
}

// take adds a chosen file to the answer.
func (s *Source) take(ctx context.Context, r *resolved, got *choice, host string) error {
	r.notes = append(r.notes, got.notes...)
	version := got.pin.Version.String()
	if why := r.why[version]; !slices.Contains(why, got.pin.Where) {
		r.why[version] = append(why, got.pin.Where)
	}
	if _, again := r.urls[got.Filename]; again {
		return nil
	}
	ix := s.indexOf(got.pin.Name)
	if err := ix.client.Allowed(got.URL, host); err != nil {
		return err
	}
	if got.Size < 0 {
		size, err := s.size(ctx, ix, got.URL)
		if err != nil {
			return err
		}
		got.Size = size
	}
	if got.Size == 0 {
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-SIZE-MISMATCH", Subject: s.name + ": " + got.Filename, Reason: "the index offers an empty file"}
	}
	f := indexFile{
		Filename: got.Filename, Version: version, SHA256: got.Digest, Size: got.Size, RequiresPython: got.RequiresPython,
		Yanked: got.Yanked, YankedReason: got.YankedReason, UploadTime: got.UploadTime,
	}
	if !got.CoreMetadata.IsZero() && packaging.IsWheel(got.Filename) {
		f.CoreMetadata = got.CoreMetadata.String()
		s.said(got.Digest, got.CoreMetadata)
	}
	if err := s.attested(ctx, ix, got.pin.Name, &f, got.Provenance); err != nil {
		return err
	}
	r.urls[got.Filename] = got.URL
	r.project.Files = append(r.project.Files, f)
	return nil
}

// size asks for a file's length, which HTML pages do not tell.
func (s *Source) size(ctx context.Context, ix *index, raw string) (int64, error) {
	resp, err := ix.client.Head(ctx, raw)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64)
	if err != nil || n < 0 || resp.Header.Get("Content-Encoding") != "" {
		return 0, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: "PYPI-NO-SIZE", Subject: s.name + ": " + fetch.Redact(raw), Reason: "neither the index nor the server tells the file's size"}
	}
	return n, nil
}

// snapshot puts the answers together.
func (s *Source) snapshot(results []*resolved) (*artifact.Snapshot, error) {
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: s.name, Artifacts: []artifact.Artifact{}}
	doc := &indexDoc{}
	for _, r := range results {
		byVersion := make(map[string][]artifact.File)
		for _, f := range r.project.Files {
			byVersion[f.Version] = append(byVersion[f.Version], artifact.File{Path: f.Filename, Digest: f.SHA256, Size: f.Size, URL: r.urls[f.Filename]})
		}
		for _, v := range slices.Sorted(maps.Keys(byVersion)) {
			snap.Artifacts = append(snap.Artifacts, artifact.Artifact{Name: r.project.Name, Version: v, Why: because(r.why[v]), Files: byVersion[v]})
		}
		doc.Projects = append(doc.Projects, r.project)
	}
	return s.seal(snap, doc)
}

// seal puts the index document of a snapshot into the store, and lists it and
// the provenance objects that it names.
func (s *Source) seal(snap *artifact.Snapshot, doc *indexDoc) (*artifact.Snapshot, error) {
	b, err := doc.encode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	d, err := s.store.PutBytes(b)
	if err != nil {
		return nil, err
	}
	snap.Meta = []artifact.File{{Path: indexName, Digest: d, Size: int64(len(b))}}
	if err := s.listProvenance(snap, doc); err != nil {
		return nil, err
	}
	return snap, snap.Check()
}

// listProvenance adds the provenance objects to the snapshot.
func (s *Source) listProvenance(snap *artifact.Snapshot, doc *indexDoc) error {
	seen := make(map[string]bool)
	for i := range doc.Projects {
		for j := range doc.Projects[i].Files {
			text := doc.Projects[i].Files[j].Provenance
			if text == "" || seen[text] {
				continue
			}
			seen[text] = true
			d, err := artifact.ParseDigest(text)
			if err != nil {
				return err
			}
			size, err := s.store.Size(d)
			if err != nil {
				return err
			}
			snap.Meta = append(snap.Meta, provenanceFile(d, size))
		}
	}
	slices.SortFunc(snap.Meta, func(a, b artifact.File) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// because lists who asked, within bounds.
func because(why []string) string {
	why = slices.Sorted(slices.Values(why))
	if more := len(why) - mostWhy; more > 0 {
		why = append(why[:mostWhy], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(why, ", ")
}

// Fetch brings one file into the store, unless it is there, and checks it as
// an archive in either case. A file that fails the check stays in the store
// but is an error, so that nothing is sealed with it.
func (s *Source) Fetch(ctx context.Context, f artifact.File) error {
	if f.URL == "" {
		if !s.store.Has(f.Digest) {
			// A plan that was made elsewhere: resolving makes it again, unless
			// upstream or the lock has changed since.
			if _, _, err := s.Resolve(ctx, nil); err != nil {
				return err
			}
		}
		if !s.store.Has(f.Digest) {
			return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: "PYPI-NO-URL", Subject: s.name + ": " + f.Path, Reason: "made by resolving, and not in the store: resolve again"}
		}
		return nil
	}
	project, _, err := packaging.ParseDistName(f.Path)
	if err != nil {
		return err
	}
	ix := s.indexOf(project)
	if !s.store.Has(f.Digest) {
		if err := s.download(ctx, ix, f); err != nil {
			return err
		}
	}
	c, err := checkBlob(s.store, f.Path, f.Digest, f.Size)
	if err != nil && !s.store.Has(f.Digest) {
		// The store found its blob damaged and put it away: fetch it again.
		if err := s.download(ctx, ix, f); err != nil {
			return err
		}
		c, err = checkBlob(s.store, f.Path, f.Digest, f.Size)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	said, ok := s.metadata[f.Digest]
	s.mu.Unlock()
	if ok && c.Metadata != nil && artifact.Sum(c.Metadata) != said {
		return metadataRefusal(s.name+": "+f.Path, said.String(), c.Metadata)
	}
	return s.recorded(ctx, project, f)
}

// recorded compares a wheel with its RECORD, once: it reads all of it.
func (s *Source) recorded(ctx context.Context, project string, f artifact.File) (err error) {
	if !packaging.IsWheel(f.Path) {
		return nil
	}
	alias := recordAlias + f.Digest.Hex()
	if _, ok := s.store.Alias(alias); ok {
		return nil
	}
	r, err := s.store.File(f.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rep, err := CheckRecord(f.Path, r, f.Size)
	if err != nil {
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-WHEEL", Subject: s.name + ": " + f.Path, Reason: "not a valid archive of that name", Err: err}
	}
	if len(rep.Wrong) > 0 && !matches(s.cfg.AnyRecord, project) {
		return recordRefusal(s.name+": "+f.Path, rep.Wrong)
	}
	if list := slices.Concat(rep.Wrong, rep.Missing); len(list) > 0 {
		s.log.WarnContext(ctx, "the wheel and its RECORD differ", slog.String("source", s.name), slog.String("file", f.Path), slog.Any("differences", list))
	}
	return s.store.SetAlias(alias, f.Digest)
}

func (s *Source) download(ctx context.Context, ix *index, f artifact.File) (err error) {
	p, err := s.store.Partial(f.Digest, f.Size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return ix.client.Download(ctx, f.URL, p)
}
