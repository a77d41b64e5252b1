package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// maxToken bounds a file that holds one token.
	maxToken = 4 << 10
	// maxDeps is how many repositories the references of one may add, and
	// depsDepth how far references of references are followed.
	maxDeps   = 50
	depsDepth = 3
)

// An upstream is where a source reads.
type upstream interface {
	// origin is its address, or the word "local", for the record.
	origin() string
	// resolve says what commit a revision stands for.
	resolve(ctx context.Context, name hub.Repo, revision string) (*hub.Commit, error)
	// tree lists a commit's files, sorted by path.
	tree(ctx context.Context, name hub.Repo, commit string) ([]hub.Entry, error)
	// access says whether the files of a gated commit are given to us.
	access(ctx context.Context, name hub.Repo, commit string, entries []hub.Entry) error
	// content reads a file that is not LFS, verified.
	content(ctx context.Context, name hub.Repo, commit string, e *hub.Entry) ([]byte, error)
	// fetch brings an LFS file into the store.
	fetch(ctx context.Context, name hub.Repo, commit, path string, d artifact.Digest, size int64) error
	// url is where a file was found, empty for a local one.
	url(name hub.Repo, commit, path string) string
}

// A Source reads one configured upstream.
type Source struct {
	cfg  Config
	name string // "models/llm"
	st   *store.Store
	log  *slog.Logger
	up   upstream
}

// NewSource makes a source of a configuration that is valid. client reaches
// the hub; it is nil for local models.
func NewSource(cfg Config, name string, client *fetch.Client, st *store.Store, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Source{cfg: cfg, name: name, st: st, log: log}
	switch {
	case cfg.Folder != "":
		s.up = newFolder(name, cfg.Folder, st)
	case cfg.Cache != "":
		s.up = newCache(name, cfg.Cache, st)
	default:
		token, err := readToken(cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("%s: token_file: %w", name, err)
		}
		c, err := hub.NewClient(name, cfg.Hub, token, client)
		if err != nil {
			return nil, err
		}
		s.up = newHubUpstream(c, st, cfg.PerHost())
	}
	return s, nil
}

// readToken reads a file that holds a secret and perhaps a line's end.
func readToken(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	switch {
	case len(b) > maxToken:
		return "", fmt.Errorf("%s has over %d bytes", name, maxToken)
	case token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("%s holds no token", name)
	}
	return token, nil
}

// Name is "models/llm".
func (s *Source) Name() string { return s.name }

// Resolve asks for each revision's commit and list of files, chooses what its
// profile needs, and reads the small files, whose SHA-256 the hub does not
// tell. It fetches no large file.
func (s *Source) Resolve(ctx context.Context, prev *artifact.Snapshot) (*artifact.Snapshot, []string, error) {
	wants, err := s.cfg.wants()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", s.name, err)
	}
	var before *Set
	if prev != nil {
		if before, err = ReadSet(prev, s.st); err != nil {
			s.log.WarnContext(ctx, "the set that was sealed last cannot be read; nothing of it is reused", slog.String("source", s.name), slog.Any("error", err))
		}
	}
	r := &resolution{s: s, before: before, asked: make(map[string]bool)}
	for depth := 0; len(wants) > 0; depth++ {
		found, err := r.all(ctx, wants)
		if err != nil {
			return nil, nil, err
		}
		wants = nil
		if s.cfg.WithDeps && depth < depsDepth {
			wants = r.deps(found)
		}
	}
	return r.snapshot()
}

// A resolution is the state of one call of Resolve.
type resolution struct {
	s      *Source
	before *Set            // nil on the first run
	asked  map[string]bool // "team/model@main"
	deps0  int
	found  []*chosen
	lost   []artifact.Lost
	notes  []string
}

// all resolves a list of wants; those that fail are lost, the others go on.
func (r *resolution) all(ctx context.Context, wants []want) ([]*chosen, error) {
	for _, w := range wants {
		r.asked[w.repo.String()+"@"+w.revision] = true
	}
	results := make([]*chosen, len(wants))
	lost := make([]error, len(wants))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.s.cfg.PerHost())
	for i, w := range wants {
		g.Go(func() error {
			c, err := r.choose(gctx, w)
			switch {
			case err == nil:
				results[i] = c
			case gctx.Err() != nil:
				return gctx.Err()
			case itsOwn(err):
				lost[i] = err
			default:
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []*chosen
	for i, w := range wants {
		if lost[i] != nil {
			r.lose(w, lost[i])
			continue
		}
		found = append(found, results[i])
	}
	r.found = append(r.found, found...)
	return found, nil
}

// itsOwn tells what is wrong with one repository from what stops a run: a
// full disk, say, or a host that nobody has allowed.
func itsOwn(err error) bool {
	_, refused := errors.AsType[*artifact.Refusal](err)
	return refused || errors.Is(err, artifact.ErrUnavailable)
}

// lose notes that a want could not be had. What was sealed of it before
// stays: the artifact's name is the commit's, as it was.
func (r *resolution) lose(w want, err error) {
	version := w.revision
	if r.before != nil {
		if old, ok := r.before.Find(w.repo, w.revision); ok {
			version = old.Commit
			err = fmt.Errorf("%w; it stays as it was sealed before", err)
			r.found = append(r.found, &chosen{want: w, rev: *old, kept: true})
		}
	}
	r.lost = append(r.lost, artifact.Lost{Name: w.repo.String(), Version: version, Err: err})
}

// deps are the repositories that the found ones need and nobody asked for.
func (r *resolution) deps(found []*chosen) []want {
	var list []want
	for _, c := range found {
		for _, need := range c.rev.Needs {
			key := need.Repo + "@" + mainBranch
			name, err := hub.ParseRepo(need.Repo)
			if err != nil || !need.Needed || r.asked[key] || r.has(name) {
				continue
			}
			if r.deps0++; r.deps0 > maxDeps {
				r.notes = append(r.notes, fmt.Sprintf("%s is needed too; over %d such repositories are not followed", need.Repo, maxDeps))
				continue
			}
			r.asked[key] = true
			list = append(list, want{repo: name, revision: mainBranch, profile: c.want.profile, why: fmt.Sprintf("%s: %s", c.want.repo, need.Where)})
		}
	}
	return list
}

// has reports whether some revision of a repository is carried.
func (r *resolution) has(name hub.Repo) bool {
	return slices.ContainsFunc(r.found, func(c *chosen) bool { return c.rev.Repo == name })
}

// snapshot puts the revisions together. Several branches of one commit are one
// revision with several names.
func (r *resolution) snapshot() (*artifact.Snapshot, []string, error) {
	s := r.s
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: s.name, Meta: []artifact.File{}, Artifacts: []artifact.Artifact{}}
	byKey := make(map[string]*chosen)
	var order []*chosen
	for _, c := range r.found {
		key := c.rev.Repo.String() + " " + c.rev.Commit
		first := byKey[key]
		if first == nil {
			byKey[key] = c
			order = append(order, c)
			continue
		}
		if !sameFiles(first.rev.Files, c.rev.Files) {
			return nil, nil, fmt.Errorf("%s: %s and %s are the same commit of %s and ask for different files: give them one profile", s.name, first.want.revision, c.want.revision, c.rev.Repo)
		}
		first.rev.Refs = append(first.rev.Refs, c.rev.Refs...)
		first.want.why += ", " + c.want.why
	}
	rec := &record{Revisions: []recordRevision{}}
	for _, c := range order {
		slices.Sort(c.rev.Refs)
		c.rev.Refs = slices.Compact(c.rev.Refs)
		for i := range c.rev.Needs {
			name, err := hub.ParseRepo(c.rev.Needs[i].Repo)
			c.rev.Needs[i].Carried = err == nil && r.has(name)
		}
		snap.Artifacts = append(snap.Artifacts, c.artifact(s.up))
		rec.Revisions = append(rec.Revisions, c.rev.record())
		r.notes = append(r.notes, c.summary(r.before)...)
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
	if len(s.cfg.Repositories)+len(s.cfg.Select) == 0 {
		r.notes = append(r.notes, "nothing is wanted: repositories and select are empty")
	}
	if len(r.lost) > 0 {
		slices.SortFunc(r.lost, func(a, b artifact.Lost) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
		})
		return snap, r.notes, &artifact.Incomplete{Items: r.lost}
	}
	return snap, r.notes, nil
}

func sameFiles(a, b []File) bool {
	return slices.EqualFunc(a, b, func(x, y File) bool { return x.Path == y.Path && x.Blob == y.Blob })
}

// Fetch brings one file of a snapshot into the store.
func (s *Source) Fetch(ctx context.Context, f artifact.File) error {
	if s.st.Has(f.Digest) {
		return nil // the store verified it when it came
	}
	name, commit, path, err := splitFilePath(f.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return s.up.fetch(ctx, name, commit, path, f.Digest, f.Size)
}

// Keep puts what branches stood for before in the place of revisions that
// could not be had. One that was asked for by commit has no predecessor.
func (s *Source) Keep(snap, prev *artifact.Snapshot, lost []artifact.Artifact) (*artifact.Snapshot, error) {
	meta, ok := RecordOf(snap)
	if !ok {
		return nil, fmt.Errorf("%s: the snapshot has no %s", s.name, recordPath)
	}
	b, err := s.st.ReadAll(meta.Digest, maxRecord)
	if err != nil {
		return nil, err
	}
	rec, err := decodeRecord(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", s.name, recordPath, err)
	}
	before, err := ReadSet(prev, s.st)
	if err != nil {
		return nil, err
	}
	out := *snap
	out.Artifacts = slices.Clone(snap.Artifacts)
	for _, a := range lost {
		for _, ref := range rec.remove(a.Name, a.Version) {
			name, err := hub.ParseRepo(a.Name)
			if err != nil {
				return nil, err
			}
			old, ok := before.Find(name, ref)
			if ok && rec.add(old, ref) {
				at := slices.IndexFunc(prev.Artifacts, func(p artifact.Artifact) bool { return p.Name == a.Name && p.Version == old.Commit })
				out.Artifacts = append(out.Artifacts, prev.Artifacts[at])
			}
		}
	}
	if b, err = rec.encode(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	d, err := s.st.PutBytes(b)
	if err != nil {
		return nil, err
	}
	out.Meta = slices.Clone(snap.Meta)
	for i := range out.Meta {
		if out.Meta[i].Path == recordPath {
			out.Meta[i].Digest, out.Meta[i].Size = d, int64(len(b))
		}
	}
	return &out, nil
}

// splitFilePath is the inverse of filePath.
func splitFilePath(p string) (name hub.Repo, commit, path string, err error) {
	parts := strings.Split(p, "/")
	for i, part := range parts {
		if i == 0 || i == len(parts)-1 || !hub.IsCommit(part) {
			continue
		}
		if name, err = hub.ParseRepo(strings.Join(parts[:i], "/")); err != nil {
			return name, "", "", err
		}
		return name, part, strings.Join(parts[i+1:], "/"), nil
	}
	return name, "", "", fmt.Errorf("path %q is no file of a revision", p)
}
