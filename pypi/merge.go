package pypi

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// maxLocalFiles bounds a folder of a site's own packages: more belong into an
// index of their own.
const maxLocalFiles = 100_000

// A merged index is several publications as one.
type merged struct {
	layers   []*Handler
	local    int // so many of the layers are the site's own
	reserved []string

	mu  sync.Mutex
	now *state
	of  []*state // what now is made of
}

// NewMerged serves several indexes as one, so that a client needs one address
// and cannot mix them. A project is served by the first index that has it, and
// by no other: neither its page nor any file of it comes from a later one.
//
// local are the site's own and come first. imported are what came from
// outside; reserved are the names, or patterns of names, that they must never
// serve, whether the site has published them yet or not.
func NewMerged(local, imported []*Handler, reserved []string, log *slog.Logger) (*Handler, error) {
	var errs []error
	checkPatterns("reserved", reserved, true, func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	})
	if len(local)+len(imported) == 0 {
		errs = append(errs, errors.New("no index to serve"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Handler{&merged{layers: slices.Concat(local, imported), local: len(local), reserved: slices.Clone(reserved)}, log}, nil
}

// load merges again if one of the publications was replaced. Where one cannot
// be read at all, nothing is served: the names of a missing index would
// otherwise be taken from the next.
func (m *merged) load() (*state, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	of := make([]*state, len(m.layers))
	var errs []error
	for i, h := range m.layers {
		s, err := h.load()
		if err != nil {
			errs = append(errs, err) // its old state is served, if there is one
		}
		if s == nil {
			return nil, errors.Join(errs...)
		}
		if i < m.local && s.info == nil {
			return nil, errors.Join(append(errs, errors.New("an index of the site's own was never published"))...)
		}
		of[i] = s
	}
	if !slices.Equal(of, m.of) {
		m.now, m.of = m.merge(of), of
	}
	return m.now, errors.Join(errs...)
}

func (m *merged) merge(of []*state) *state {
	out := newState()
	for i, s := range of {
		out.info = s.info
		out.serial += s.serial // each grows only, so the sum does
		for _, name := range s.names {
			if out.projects[name] != nil || i >= m.local && matches(m.reserved, name) {
				continue
			}
			p := s.projects[name]
			out.projects[name] = &project{currentProject: p.currentProject}
			out.names = append(out.names, name)
			for j := range p.Files {
				for _, k := range p.Files[j].keys() {
					out.files[k] = s.files[k]
				}
			}
		}
	}
	slices.Sort(out.names)
	out.finish()
	return out
}

// PublishFolder publishes what lies in folder, at any depth: the wheels and
// source archives of the site itself. Each is checked and copied into the
// store. Names that start with a dot are passed over, as are other files; a
// wheel or a source archive that is not right is refused, and nothing changes.
func (p *Publisher) PublishFolder(ctx context.Context, folder string, now time.Time) (text string, err error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	var names []string
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(base, "."):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type().IsRegular() && (packaging.IsWheel(base) || strings.HasSuffix(base, ".tar.gz") || strings.HasSuffix(base, ".zip")):
			names = append(names, name)
		case !d.IsDir():
			p.log.WarnContext(ctx, "not a wheel or source archive", slog.String("source", p.name), slog.String("artifact", base))
		}
		if len(names) > maxLocalFiles {
			return fmt.Errorf("%s: more than %d files", folder, maxLocalFiles)
		}
		return ctx.Err()
	})
	if err != nil {
		return "", err
	}
	snap, err := p.snapshotOf(ctx, root, names)
	if err != nil {
		return "", err
	}
	if err := p.Verify(ctx, snap, nil); err != nil {
		return "", err
	}
	return p.Publish(ctx, snap, 0, now)
}

// snapshotOf puts files into the store and describes them.
func (p *Publisher) snapshotOf(ctx context.Context, root *os.Root, names []string) (*artifact.Snapshot, error) {
	snap := &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: p.name}
	projects := make(map[string]*indexProject)
	seen := make(map[string]string)
	for _, name := range names {
		base := path.Base(name)
		if other, ok := seen[base]; ok {
			return nil, fmt.Errorf("%s: %s is there twice: %s and %s", root.Name(), base, other, name)
		}
		seen[base] = name
		project, version, err := packaging.ParseDistName(base)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		d, size, err := p.take(ctx, root, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if projects[project] == nil {
			projects[project] = &indexProject{Name: project}
		}
		pr := projects[project]
		pr.Files = append(pr.Files, indexFile{Filename: base, Version: version.String(), SHA256: d, Size: size})
		snap.Artifacts = append(snap.Artifacts, artifact.Artifact{
			Name: project, Version: version.String(), Why: "the site's own", Files: []artifact.File{{Path: base, Digest: d, Size: size}},
		})
	}
	var doc indexDoc
	for _, pr := range projects {
		doc.Projects = append(doc.Projects, *pr)
	}
	b, err := doc.encode()
	if err != nil {
		return nil, err
	}
	d, err := p.store.PutBytes(b)
	if err != nil {
		return nil, err
	}
	snap.Meta = []artifact.File{{Path: indexName, Digest: d, Size: int64(len(b))}}
	return snap, nil
}

// take reads a file twice: the store wants to know the digest first. A file
// that changes in between is refused by the store.
func (p *Publisher) take(ctx context.Context, root *os.Root, name string) (d artifact.Digest, size int64, err error) {
	f, err := root.Open(name)
	if err != nil {
		return d, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return d, 0, err
	}
	d = artifact.Digest(h.Sum(nil))
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return d, 0, err
	}
	return d, size, p.store.Put(ctx, f, d, size)
}
