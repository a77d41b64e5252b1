package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// resolves is how many images are resolved at once.
	resolves = 4
	// maxImages bounds the images of one source: what is chosen by mistake
	// ("*" of a registry's busiest repository) is a few thousand.
	maxImages = 10_000
)

// Codes of refusals.
const (
	CodePlatform    = "OCI-PLATFORM"     // no such platform in the image
	CodePlatformPin = "OCI-PLATFORM-PIN" // a filter would break a pin or a signature
	CodeForeign     = "OCI-FOREIGN"      // layers lie outside the registry
	CodeEmpty       = "OCI-EMPTY"        // a selection found nothing
	CodeMissing     = "OCI-MISSING"      // upstream lacks a part of an image
	CodeTooMuch     = "OCI-LIMIT"        // one reference leads to too much
	CodeNames       = "OCI-NAMES"        // two sources of one name
)

// A Source reads one upstream of images.
type Source struct {
	cfg       Config
	name      string // "oci/platform"
	st        *store.Store
	log       *slog.Logger
	up        upstream
	client    *fetch.Client // for foreign layers; nil for local upstreams
	platforms []spec.Platform
	again     sync.Once // see remake
}

// An upstream has manifests and blobs in repositories.
type upstream interface {
	// tags lists a repository's tags.
	tags(ctx context.Context, repo string) ([]string, error)
	// head says what a tag or digest names, or nil.
	head(ctx context.Context, repo, ref string) (*spec.Descriptor, error)
	// manifest reads one by its digest.
	manifest(ctx context.Context, repo string, d spec.Digest) (*remote.Raw, error)
	// referrers lists what refers to a manifest.
	referrers(ctx context.Context, repo string, d spec.Digest) ([]spec.Descriptor, error)
	// fetch brings a blob into the store, and answers its digest there.
	fetch(ctx context.Context, repo string, d spec.Digest, size int64) (artifact.Digest, error)
	// url is where a manifest or blob lies, empty for a local upstream.
	url(repo, kind string, d spec.Digest) string
	// derived says what its manifests are made from, where they are made
	// here.
	derived() string
}

// NewSource makes a source of a configuration that is valid. client reaches
// the upstream's hosts; it is nil for a local one.
func NewSource(cfg Config, name string, client *fetch.Client, st *store.Store, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{cfg: cfg, name: name, st: st, log: log, client: client}
	for _, text := range cfg.Platforms {
		p, err := parsePlatform(text)
		if err != nil {
			return nil, err
		}
		s.platforms = append(s.platforms, p)
	}
	var err error
	switch {
	case cfg.Registry != "":
		s.up, err = newRegistryUpstream(s)
	case cfg.Helm != "":
		s.up, err = newHelmUpstream(s)
	default:
		s.up = &localUpstream{s: s}
	}
	return s, err
}

// Name is "oci/NAME".
func (s *Source) Name() string { return s.name }

// A request is one image that is wanted.
type request struct {
	ref spec.Reference // in upstream's names
	why string
}

// inside is a repository's name inside.
func (s *Source) inside(repo string) string {
	root := s.cfg.root()
	if root == dockerHub && !strings.Contains(repo, "/") {
		repo = "library/" + repo // two spellings of one repository
	}
	return root + "/" + repo
}

// dockerHub is the name whose users may leave out "library/".
const dockerHub = "docker.io"

// upstreamName is the inverse of inside.
func (s *Source) upstreamName(repo string) (string, error) {
	rest, ok := strings.CutPrefix(repo, s.cfg.root()+"/")
	if !ok {
		return "", fmt.Errorf("%s: repository %s is not of this source", s.name, repo)
	}
	return rest, nil
}

// version is the artifact's version of a reference.
func version1(r spec.Reference) string { return cmp.Or(r.Tag, string(r.Digest)) }

// Resolve answers the images that the configuration asks for, with all that
// they need and all that refers to them. An image that cannot be had is listed
// in an *artifact.Incomplete, and stays as prev had it.
func (s *Source) Resolve(ctx context.Context, prev *artifact.Snapshot) (*artifact.Snapshot, []string, error) {
	requests, lost, err := s.requests(ctx)
	if err != nil {
		return nil, nil, err
	}
	old := s.before(prev)
	results := make([]*closure, len(requests))
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(resolves)
	for i, r := range requests {
		g.Go(func() error {
			c, err := s.resolve(gctx, r, old)
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			if err != nil && stops(err) {
				return err
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				lost = append(lost, artifact.Lost{Name: s.inside(r.ref.Repository), Version: version1(r.ref), Err: err})
				return nil
			}
			results[i] = c
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	results = slices.DeleteFunc(results, func(c *closure) bool { return c == nil })
	if len(results) == 0 && len(lost) > 0 {
		return nil, nil, &artifact.Incomplete{Items: lost} // what was sealed before stays as it is
	}
	return s.snapshot(results, lost, old)
}

// stops tells errors that concern every image.
func stops(err error) bool {
	return errors.Is(err, fetch.ErrHost) || hasCode(err, "OCI-AUTH") || hasCode(err, "OCI-RATE-LIMIT") || errors.Is(err, context.Canceled)
}

func hasCode(err error, code string) bool {
	r, ok := errors.AsType[*artifact.Refusal](err)
	return ok && r.Code == code
}

// requests lists the images that are wanted, each once.
func (s *Source) requests(ctx context.Context) ([]request, []artifact.Lost, error) {
	var list []request
	var lost []artifact.Lost
	for i, text := range s.cfg.Images {
		ref, err := s.cfg.parse(text)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, request{ref, fmt.Sprintf("images[%d]: %s", i, text)})
	}
	for i := range s.cfg.Select {
		sel := &s.cfg.Select[i]
		tags, err := s.selected(ctx, sel)
		if err != nil {
			if stops(err) || ctx.Err() != nil {
				return nil, nil, err
			}
			lost = append(lost, artifact.Lost{Name: s.inside(sel.Repository), Version: at("select", i), Err: err})
			continue
		}
		for _, tag := range tags {
			list = append(list, request{spec.Reference{Repository: sel.Repository, Tag: tag}, at("select", i)})
		}
	}
	if len(list) > maxImages {
		return nil, nil, fmt.Errorf("%s: %d images are wanted, at most %d are taken: split the source", s.name, len(list), maxImages)
	}
	seen := make(map[string]bool)
	list = slices.DeleteFunc(list, func(r request) bool {
		id := s.inside(r.ref.Repository) + " " + version1(r.ref)
		dup := seen[id]
		seen[id] = true
		return dup
	})
	return list, lost, nil
}

// selected is what a selection chooses now.
func (s *Source) selected(ctx context.Context, sel *Select) ([]string, error) {
	all, err := s.up.tags(ctx, sel.Repository)
	if err != nil {
		return nil, err
	}
	tags, err := sel.choose(all)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 && !sel.Optional {
		return nil, &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: CodeEmpty, Subject: s.name + ": " + sel.Repository,
			Reason: fmt.Sprintf("none of its %d tags is chosen", len(all)),
		}
	}
	return tags, nil
}

// An imageBefore is an image as it was sealed last.
type imageBefore struct {
	artifact  artifact.Artifact
	image     Image
	manifests []recordManifest
}

// before indexes what was sealed last by "name version". A record that cannot
// be read is no reason to fail: everything is then resolved anew.
func (s *Source) before(prev *artifact.Snapshot) map[string]imageBefore {
	if prev == nil {
		return nil
	}
	f, ok := prev.MetaFile(recordPath)
	if !ok {
		return nil
	}
	b, err := s.st.ReadAll(f.Digest, maxRecord)
	if err != nil {
		s.log.Warn("the record of the last bundle is not there", slog.String("source", s.name), slog.Any("error", err))
		return nil
	}
	rec, err := decodeRecord(b)
	if err != nil {
		s.log.Warn("the record of the last bundle cannot be read", slog.String("source", s.name), slog.Any("error", err))
		return nil
	}
	arts := make(map[string]artifact.Artifact)
	for _, a := range prev.Artifacts {
		arts[a.Name+" "+a.Version] = a
	}
	old := make(map[string]imageBefore)
	for _, repo := range rec.Repositories {
		for _, im := range repo.Images {
			id := repo.Name + " " + im.Version
			if a, ok := arts[id]; ok {
				old[id] = imageBefore{a, im, ordered(a, repo.Manifests)}
			}
		}
	}
	return old
}

// ordered are those manifests of a repository that an artifact has, in order.
func ordered(a artifact.Artifact, all []recordManifest) []recordManifest {
	has := make(map[string]bool)
	for _, f := range a.Files {
		has[f.Path] = true
	}
	var list []recordManifest
	for _, m := range all {
		if has[manifestPath(a.Name, m.Digest)] {
			list = append(list, m)
		}
	}
	return list
}

// snapshot puts the images together, those that were lost but sealed before
// included.
func (s *Source) snapshot(results []*closure, lost []artifact.Lost, old map[string]imageBefore) (*artifact.Snapshot, []string, error) {
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: s.name, Meta: []artifact.File{}, Artifacts: []artifact.Artifact{}}
	repos := make(map[string]*recordRepository)
	add := func(a artifact.Artifact, im Image, manifests []recordManifest) {
		snap.Artifacts = append(snap.Artifacts, a)
		r := repos[a.Name]
		if r == nil {
			r = &recordRepository{Name: a.Name}
			repos[a.Name] = r
		}
		r.Images = append(r.Images, im)
		for _, m := range manifests {
			if !slices.ContainsFunc(r.Manifests, func(o recordManifest) bool { return o.Digest == m.Digest }) {
				r.Manifests = append(r.Manifests, m)
			}
		}
	}
	var notes []string
	for _, c := range results {
		add(c.artifact(), c.image, c.manifests)
		if o, ok := old[c.repo+" "+c.image.Version]; ok && c.image.Tag != "" && o.image.Root != c.image.Root {
			notes = append(notes, fmt.Sprintf("%s:%s now points elsewhere", shortName(c.repo), c.image.Tag))
		}
		notes = append(notes, c.notes...)
	}
	for i, l := range lost {
		if o, ok := old[l.Name+" "+l.Version]; ok {
			add(o.artifact, o.image, o.manifests)
			lost[i].Err = fmt.Errorf("%w; it stays as it was sealed before", l.Err)
		}
	}
	rec := &record{}
	for _, r := range repos {
		rec.Repositories = append(rec.Repositories, *r)
	}
	b, err := rec.encode()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.name, err)
	}
	d, err := s.st.PutBytes(b)
	if err != nil {
		return nil, nil, err
	}
	snap.Meta = append(snap.Meta, artifact.File{Path: recordPath, Digest: d, Size: int64(len(b))})
	notes = append(notes, counts(results)...)
	if len(s.cfg.Images)+len(s.cfg.Select) == 0 {
		notes = append(notes, "nothing is wanted: images and select are empty")
	}
	slices.SortFunc(lost, func(a, b artifact.Lost) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
	})
	if len(lost) > 0 {
		return snap, notes, &artifact.Incomplete{Items: lost}
	}
	return snap, notes, nil
}

// shortName is the last part of a repository's name, for a note.
func shortName(repo string) string { return repo[strings.LastIndexByte(repo, '/')+1:] }

// counts tells how much refers to the images, by type.
func counts(results []*closure) []string {
	total := make(map[string]int)
	n := 0
	for _, c := range results {
		for t, k := range c.referrers {
			total[t] += k
			n += k
		}
	}
	if n == 0 {
		return nil
	}
	var parts []string
	for t, k := range total {
		parts = append(parts, fmt.Sprintf("%d %s", k, t))
	}
	slices.Sort(parts)
	return []string{fmt.Sprintf("%d referrers: %s", n, strings.Join(parts, ", "))}
}

// Fetch brings one manifest or blob into the store.
func (s *Source) Fetch(ctx context.Context, f artifact.File) error {
	if s.st.Has(f.Digest) {
		return nil // the store verified it when it came
	}
	if f.URL == "" && !s.cfg.local() {
		return s.remake(ctx, f)
	}
	inside, kind, d, err := splitPath(f.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	repo, err := s.upstreamName(inside)
	if err != nil {
		return err
	}
	if kind == "manifests" {
		raw, err := s.up.manifest(ctx, repo, d)
		if err != nil {
			return err
		}
		_, err = s.st.PutBytes(raw.Bytes)
		return err
	}
	if f.URL != "" && f.URL != s.up.url(repo, "blobs", d) {
		return s.fetchForeign(ctx, f)
	}
	got, err := s.up.fetch(ctx, repo, d, f.Size)
	if err == nil && got != f.Digest {
		err = &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "OCI-DIGEST", Subject: s.name + ": " + f.Path, Reason: "the blob is not what it was when it was planned", Want: f.Digest.String(), Got: got.String()}
	}
	return err
}

// remake resolves again for a file that was made by resolving: a plan may have
// been made elsewhere. Where upstream has changed since, it is made no more.
func (s *Source) remake(ctx context.Context, f artifact.File) error {
	s.again.Do(func() {
		if _, _, err := s.Resolve(ctx, nil); err != nil {
			s.log.WarnContext(ctx, "a plan that was made elsewhere cannot be resolved again", slog.String("source", s.name), slog.Any("error", err))
		}
	})
	if s.st.Has(f.Digest) {
		return nil
	}
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeMissing, Subject: s.name + ": " + f.Path,
		Reason: "was made when the plan was made, and upstream has changed since: plan again here",
	}
}

// fetchForeign gets a layer from where its manifest says that it lies.
func (s *Source) fetchForeign(ctx context.Context, f artifact.File) (err error) {
	if err := s.client.Allowed(f.URL, ""); err != nil {
		return err
	}
	p, err := s.st.Partial(f.Digest, f.Size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return s.client.Download(ctx, f.URL, p)
}
