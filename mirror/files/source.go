package files

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// clockSkew is how far in the future a file's time may lie and still count
// for max_age.
const clockSkew = 24 * time.Hour

// A Source reads folders of this host and pinned addresses.
type Source struct {
	cfg    Config
	name   string // "files/databases"
	client *fetch.Client
	st     *store.Store
	log    *slog.Logger
	now    func() time.Time
}

// NewSource makes a source of a configuration that is valid. client reaches
// the hosts of the addresses; it is nil where there are none. A nil log
// discards.
func NewSource(cfg Config, name string, client *fetch.Client, st *store.Store, log *slog.Logger) (*Source, error) {
	if err := errors.Join(cfg.Validate(), artifact.CheckSource(name)); err != nil {
		return nil, err
	}
	if client == nil && len(cfg.Addresses()) > 0 {
		return nil, fmt.Errorf("%s: addresses are to be fetched, and there is no client", name)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Source{cfg: cfg, name: name, client: client, st: st, log: log, now: time.Now}, nil
}

// Name is "files/databases".
func (s *Source) Name() string { return s.name }

// Resolve lists and hashes the files of the folders, and asks servers for the
// sizes that the configuration does not tell. It copies and fetches no file.
// A set that cannot be had is listed in the *artifact.Incomplete, and stays as
// it was sealed before.
func (s *Source) Resolve(ctx context.Context, prev *artifact.Snapshot) (*artifact.Snapshot, []string, error) {
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: s.name, Meta: []artifact.File{}, Artifacts: []artifact.Artifact{}}
	var notes []string
	var lost []artifact.Lost
	sizes := make(map[artifact.Digest]int64)
	for i := range s.cfg.Sets {
		c := &s.cfg.Sets[i]
		old := setOf(prev, c.Name)
		a, note, err := s.resolve(ctx, c, old, sizes)
		switch {
		case err == nil:
			snap.Artifacts = append(snap.Artifacts, *a)
			notes = append(notes, note)
			continue
		case !itsOwn(ctx, err):
			return nil, nil, err
		}
		version := cmp.Or(c.Version, "?")
		if old != nil {
			version = old.Version
			err = fmt.Errorf("%w; it stays as it was sealed before", err)
			snap.Artifacts = append(snap.Artifacts, *old)
		}
		lost = append(lost, artifact.Lost{Name: c.Name, Version: version, Err: err})
	}
	if len(lost) > 0 {
		return snap, notes, &artifact.Incomplete{Items: lost}
	}
	return snap, notes, nil
}

// itsOwn tells what is wrong with one set from what stops a run: a host that
// nobody has allowed, say.
func itsOwn(ctx context.Context, err error) bool {
	_, refused := errors.AsType[*artifact.Refusal](err)
	return ctx.Err() == nil && (refused || errors.Is(err, artifact.ErrUnavailable))
}

// setOf is a set as it was sealed before, or nil.
func setOf(snap *artifact.Snapshot, name string) *artifact.Artifact {
	if snap == nil {
		return nil
	}
	i := slices.IndexFunc(snap.Artifacts, func(a artifact.Artifact) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &snap.Artifacts[i]
}

// resolve fixes every digest of one set. sizes are those of the sets before:
// one digest has one size.
func (s *Source) resolve(ctx context.Context, c *Set, old *artifact.Artifact, sizes map[artifact.Digest]int64) (*artifact.Artifact, string, error) {
	subject := s.name + ": " + c.Name
	set := &fileSet{name: c.Name}
	var newest time.Time
	var err error
	if c.Folder != "" {
		set.files, newest, err = s.readFolder(ctx, c, subject)
	} else {
		set.files, err = s.pinned(ctx, c, subject, old)
	}
	if err != nil {
		return nil, "", err
	}
	slices.SortFunc(set.files, func(a, b setFile) int { return strings.Compare(a.path, b.path) })
	set.version = cmp.Or(c.Version, derive(set.files))
	if err := set.check(); err != nil {
		return nil, "", &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodePath, Subject: subject, Reason: "its list of files cannot be carried", Err: err}
	}
	if err := sameVersion(subject, set, old); err != nil {
		return nil, "", err
	}
	for _, f := range set.files {
		if n, ok := sizes[f.digest]; ok && n != f.size {
			return nil, "", wrongSize(subject, f.path, n, f.size)
		}
	}
	for _, f := range set.files {
		sizes[f.digest] = f.size
	}
	a := set.artifact("sets: " + c.Name)
	note := fmt.Sprintf("%s %s: %s", set.name, set.version, count(len(set.files), set.bytes()))
	if !newest.IsZero() {
		note += ", the newest of " + newest.UTC().Format(time.DateTime) + " UTC"
	}
	return &a, note, nil
}

// sameVersion refuses a version that was sealed before with other files.
func sameVersion(subject string, set *fileSet, old *artifact.Artifact) error {
	if old == nil || old.Version != set.version {
		return nil
	}
	before, err := readSet(old)
	if err == nil && derive(before.files) == derive(set.files) {
		return nil
	}
	r := &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: CodeVersion, Subject: subject, Err: err,
		Reason: "version " + set.version + " was sealed before with other files; what has changed needs another version, or none",
		Got:    "listing " + derive(set.files),
	}
	if before != nil {
		r.Want = "listing " + derive(before.files)
	}
	return r
}

func wrongSize(subject, path string, want, got int64) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: CodeSize, Subject: subject + ": " + path, Reason: "the same digest has another size",
		Want: strconv.FormatInt(want, 10), Got: strconv.FormatInt(got, 10),
	}
}

// readFolder lists and hashes a folder's files, and holds max_age.
func (s *Source) readFolder(ctx context.Context, c *Set, subject string) (_ []setFile, newest time.Time, err error) {
	refuse := func(class error, code, reason string, cause error) ([]setFile, time.Time, error) {
		return nil, newest, &artifact.Refusal{Class: class, Code: code, Subject: subject + ": " + c.Folder, Reason: reason, Err: cause}
	}
	want, err := parsePatterns(c.Match)
	if err != nil {
		return nil, newest, err
	}
	root, err := os.OpenRoot(c.Folder)
	if err != nil {
		return refuse(artifact.ErrUnavailable, CodeFile, "the folder cannot be opened", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	f := &folder{root: root, subject: subject + ": " + c.Folder, want: want}
	list, newest, err := f.read(ctx)
	if err != nil {
		return nil, newest, err
	}
	if len(list) == 0 {
		return refuse(artifact.ErrUnavailable, CodeEmpty, "no file is in it, or none that match names", nil)
	}
	if c.MaxAge == 0 {
		return list, newest, nil
	}
	now := s.now()
	if newest.After(now.Add(clockSkew)) {
		return refuse(artifact.ErrSequence, CodeStale, "its newest file is of the future, "+newest.UTC().Format(time.DateTime)+" UTC, so nobody knows how old it is", nil)
	}
	if age := now.Sub(newest); age > c.MaxAge {
		return nil, newest, &artifact.Refusal{
			Class: artifact.ErrSequence, Code: CodeStale, Subject: subject + ": " + c.Folder, Reason: "its newest file is too old: what fills it has stopped",
			Want: "at most " + c.MaxAge.String(), Got: age.Round(time.Minute).String(),
		}
	}
	return list, newest, nil
}

// pinned lists the files at addresses. Their sizes are those of the
// configuration, of a blob that is here, of the snapshot before, or what the
// server says.
func (s *Source) pinned(ctx context.Context, c *Set, subject string, old *artifact.Artifact) ([]setFile, error) {
	list := make([]setFile, 0, len(c.URLs))
	for i := range c.URLs {
		p := &c.URLs[i]
		d, err := p.digest()
		if err != nil {
			return nil, err
		}
		size, err := s.size(ctx, p, d, subject, old)
		if err != nil {
			return nil, err
		}
		list = append(list, setFile{path: p.path(), digest: d, size: size, url: fetch.Redact(p.URL)})
	}
	return list, nil
}

func (s *Source) size(ctx context.Context, p *Pinned, d artifact.Digest, subject string, old *artifact.Artifact) (int64, error) {
	if n, err := s.st.Size(d); err == nil {
		if p.Size > 0 && p.Size != n {
			return 0, wrongSize(subject, p.path(), p.Size, n)
		}
		return n, nil
	}
	if p.Size > 0 {
		return p.Size, nil
	}
	if old != nil {
		for _, f := range old.Files {
			if f.Digest == d {
				return f.Size, nil
			}
		}
	}
	resp, err := s.client.Head(ctx, p.URL)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64)
	if err != nil || n < 0 || n > maxSetBytes {
		return 0, &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: CodeSize, Subject: subject + ": " + p.path(),
			Reason: "the server does not say how large the file is; its size belongs beside its digest then", Got: clip(resp.Header.Get("Content-Length")),
		}
	}
	return n, nil
}

// Fetch brings one file of a snapshot into the store: from its folder, which
// may have changed since the plan was made and is refused then, or from its
// address.
func (s *Source) Fetch(ctx context.Context, f artifact.File) error {
	if s.st.Has(f.Digest) {
		return nil // the store verified it when it came
	}
	refuse := func(code, reason string) error {
		return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: s.name + ": " + f.Path, Reason: reason}
	}
	name, rel, _ := strings.Cut(f.Path, "/")
	i := slices.IndexFunc(s.cfg.Sets, func(c Set) bool { return c.Name == name })
	if i < 0 || artifact.CheckPath(rel) != nil {
		return refuse(CodeChanged, "no set of the configuration has this file any more")
	}
	c := &s.cfg.Sets[i]
	if c.Folder != "" {
		return s.copy(ctx, c, rel, f)
	}
	for j := range c.URLs {
		p := &c.URLs[j]
		if p.path() != rel {
			continue
		}
		if d, err := p.digest(); err != nil || d != f.Digest {
			return refuse(CodeChanged, "another digest is pinned now than the plan has")
		}
		return s.download(ctx, p, f)
	}
	return refuse(CodeChanged, "no address of the configuration has this file any more")
}

// copy brings a file of a folder into the store, which checks its digest. A
// file that is another one by now is no sign of an attack: the folder's
// owner updates it.
func (s *Source) copy(ctx context.Context, c *Set, rel string, f artifact.File) (err error) {
	refuse := func(reason, got string, cause error) error {
		return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeChanged, Subject: s.name + ": " + f.Path, Reason: reason, Want: f.Digest.String(), Got: got, Err: cause}
	}
	root, err := os.OpenRoot(c.Folder)
	if err != nil {
		return refuse("its folder cannot be opened", "", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	file, err := openRegular(root, rel)
	if err != nil {
		return refuse("the file is gone since the plan was made, or cannot be read", "", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	id, err := stat(file)
	if err != nil {
		return err
	}
	if id.size != f.Size {
		return refuse("the file has changed since the plan was made", fmt.Sprintf("%d bytes, not %d", id.size, f.Size), nil)
	}
	failpoint.Here("files.copy")
	err = s.st.Put(ctx, file, f.Digest, f.Size)
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		// Its text alone: the store's class is that of damage.
		return refuse("the file has changed since the plan was made", r.Got, nil)
	}
	return err
}

// download brings a file at an address into the store, going on where an
// earlier run stopped.
func (s *Source) download(ctx context.Context, c *Pinned, f artifact.File) (err error) {
	p, err := s.st.Partial(f.Digest, f.Size)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", s.name, f.Path, err)
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if s.st.Has(f.Digest) {
		return nil // another set has the same file, and was faster
	}
	failpoint.Here("files.fetch")
	return s.client.Download(ctx, c.URL, p)
}

// Keep puts what was sealed before in the place of sets that could not be
// had.
func (s *Source) Keep(snap, prev *artifact.Snapshot, lost []artifact.Artifact) (*artifact.Snapshot, error) {
	out := *snap
	out.Artifacts = slices.Clone(snap.Artifacts)
	for _, a := range lost {
		old := setOf(prev, a.Name)
		if old == nil || setOf(&out, a.Name) != nil {
			continue
		}
		out.Artifacts = append(out.Artifacts, *old)
	}
	return &out, nil
}
