package scan

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan/walk"
)

const (
	// inspecting is how many files are inspected at once. An antivirus daemon
	// works on several files best, and small ones would wait on its answers.
	inspecting = 8
	// maxRemembered bounds the contents that a run remembers as inspected; a
	// file that is forgotten is inspected again.
	maxRemembered = 400_000
	// maxPerFile bounds what one engine may say of one file, in a record that
	// is kept.
	maxPerFile = 50
	// recordSchema is part of every key of the cache: raise it when a record
	// or what the walker does changes.
	recordSchema = "1"
)

// A Content is a blob's bytes, in any order, verified before the first read.
type Content interface {
	io.ReaderAt
	io.Closer
}

// A Cache keeps verdicts of blobs. What it cannot give is scanned again, so a
// damaged entry is a miss. Its methods may be called concurrently.
type Cache interface {
	Get(key artifact.Digest) ([]byte, bool)
	Put(key artifact.Digest, value []byte) error
}

// A blob is one file of an artifact with what changes how it is looked at.
type blob struct {
	file   artifact.File
	layer  bool // a file system of an image
	digest artifact.Digest
}

// name is what the walker calls the blob: rules look at it.
func (b blob) name() string { return path.Base(b.file.Path) }

// A record is what a walk over a blob found out, apart from what engines
// found in its files.
type record struct {
	Kind      walk.Kind      `json:"kind"`
	Problems  []walk.Problem `json:"problems,omitempty"`
	Evidence  []Evidence     `json:"evidence,omitempty"`
	Whiteouts []string       `json:"whiteouts,omitempty"` // of a layer: names that end in the marker files
	Kinds     []typed        `json:"kinds,omitempty"`     // the first file of each kind
	Files     int            `json:"files"`
	Bytes     int64          `json:"bytes"`
}

// typed is a kind of file and where the first of it lies.
type typed struct {
	Kind walk.Kind `json:"kind"`
	Path []string  `json:"path"`
}

// A blobResult is the record and every engine's findings.
type blobResult struct {
	record   record
	findings []Finding // of the inspectors, in their order
	err      error     // the blob could not be judged
}

// key names a cached value: whatever the value depends on goes in.
func key(parts ...string) artifact.Digest {
	h := sha256.New()
	for _, p := range parts {
		// A hash does not fail.
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return artifact.Digest(h.Sum(nil))
}

func (e Engine) parts() []string {
	return []string{e.Name, e.Version, e.Database.String(), e.Settings}
}

// keys are those of a blob's record and of each inspector's findings.
func (s *session) keys(b blob) (rec artifact.Digest, findings []artifact.Digest) {
	// A name may be all that tells a rule what it looks at.
	common := []string{recordSchema, b.digest.String(), b.name(), fmt.Sprint(b.layer), s.limits()}
	parts := append(slices.Clone(common), "record")
	for _, g := range s.Gatherers {
		// What is gathered does not depend on a database.
		e := g.Engine()
		parts = append(parts, e.Name, e.Version, e.Settings)
	}
	rec = key(parts...)
	for _, i := range s.Inspectors {
		findings = append(findings, key(append(append(slices.Clone(common), "findings"), i.Engine().parts()...)...))
	}
	return rec, findings
}

func (s *session) limits() string {
	return fmt.Sprintf("%+v", s.walkLimits())
}

// blob judges one blob: from the cache, or by walking it for whatever the
// cache lacks. The error is what ends the run; that the blob itself could not
// be judged is in the result.
func (s *session) blob(ctx context.Context, b blob) (*blobResult, error) {
	recKey, findKeys := s.keys(b)
	res := &blobResult{}
	known := s.load(recKey, &res.record)
	found := make([][]Finding, len(s.Inspectors))
	var todo []int
	for n := range s.Inspectors {
		if !s.load(findKeys[n], &found[n]) {
			todo = append(todo, n)
		}
	}
	if !known || len(todo) > 0 {
		rec, err := s.walk(ctx, b, todo, found)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil && (errors.Is(err, ErrEngine) || isHost(err)):
			return nil, err
		case err != nil:
			res.err = err
			return res, nil
		}
		res.record = *rec
		if err := s.save(recKey, rec); err != nil {
			return nil, err
		}
		for _, n := range todo {
			if found[n] == nil {
				found[n] = []Finding{}
			}
			if slices.ContainsFunc(found[n], func(f Finding) bool { return f.Kind == KindNotScanned }) {
				continue // what an engine could not look at, it may be able to next time
			}
			if err := s.save(findKeys[n], found[n]); err != nil {
				return nil, err
			}
		}
		s.count(rec)
	}
	for _, f := range found {
		res.findings = append(res.findings, f...)
	}
	return res, nil
}

func (s *session) load(k artifact.Digest, into any) bool {
	if s.Cache == nil {
		return false
	}
	b, ok := s.Cache.Get(k)
	return ok && json.Unmarshal(b, into) == nil
}

func (s *session) save(k artifact.Digest, v any) error {
	if s.Cache == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.Cache.Put(k, b)
}

// walk looks at every file of a blob with the inspectors named by todo, whose
// findings it puts into found.
func (s *session) walk(ctx context.Context, b blob, todo []int, found [][]Finding) (_ *record, err error) {
	content, err := s.Open(b.digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	rec := &record{}
	var mu sync.Mutex // of rec, found and seen
	seen := make(map[walk.Kind]bool)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inspecting)
	opts := walk.Options{Limits: s.walkLimits(), Scratch: s.Scratch, FileSystem: b.layer}
	result, werr := walk.Walk(gctx, b.name(), content, b.file.Size, opts, func(f *walk.File) error {
		if len(f.Path) == 1 {
			rec.Kind = f.Kind
		}
		mu.Lock()
		if f.Regular() && !seen[f.Kind] {
			seen[f.Kind] = true
			rec.Kinds = append(rec.Kinds, typed{f.Kind, f.Path[1:]})
		}
		mu.Unlock()
		if b.layer && isWhiteout(f) {
			rec.Whiteouts = append(rec.Whiteouts, rooted(f.Path[1:])[0])
		}
		f.Retain()
		g.Go(func() (err error) {
			defer func() { err = errors.Join(err, f.Release()) }()
			for _, n := range todo {
				list, err := s.inspect(gctx, n, f)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					mu.Lock()
					found[n] = append(found[n], list...)
					mu.Unlock()
				}
			}
			for _, gatherer := range s.Gatherers {
				ev, err := gatherer.Gather(gctx, f)
				if err != nil {
					return engineErr(gatherer.Engine().Name, walk.Join(f.Path), err)
				}
				if ev != nil {
					ev.Path = f.Path[1:]
					mu.Lock()
					rec.Evidence = append(rec.Evidence, *ev)
					mu.Unlock()
				}
			}
			return nil
		})
		return gctx.Err()
	})
	// The group's own error is why the walk ended, if it ended by it.
	if gerr := g.Wait(); gerr != nil {
		return nil, gerr
	}
	if werr != nil {
		return nil, werr
	}
	rec.Problems, rec.Files, rec.Bytes = result.Problems, result.Files, result.Bytes
	rec.sort()
	for _, n := range todo {
		sortFindings(found[n])
	}
	return rec, nil
}

// inspect asks one inspector about one file, once a run for the same bytes
// where nothing else matters to it.
func (s *session) inspect(ctx context.Context, n int, f *walk.File) ([]Finding, error) {
	in := s.Inspectors[n]
	byContent := in.ByContent() && f.Regular()
	if byContent && s.clean[n].has(f.Digest) {
		return nil, nil
	}
	list, err := in.Inspect(ctx, f)
	if err != nil {
		return nil, engineErr(in.Engine().Name, walk.Join(f.Path), err)
	}
	if len(list) == 0 {
		if byContent {
			s.clean[n].add(f.Digest)
		}
		return nil, nil
	}
	if more := len(list) - maxPerFile; more > 0 {
		// The gravest are named; what is cut off can only be less grave.
		sortFindings(list)
		list = list[:maxPerFile]
		list[maxPerFile-1].Text += fmt.Sprintf(" (and %d more in this file)", more)
	}
	for i := range list {
		list[i].Scanner = cmp.Or(list[i].Scanner, in.Engine().Name)
		list[i].Path = f.Inner()
	}
	return list, nil
}

// A digestSet is a bounded set.
type digestSet struct {
	mu sync.Mutex
	m  map[artifact.Digest]struct{}
}

func (d *digestSet) has(x artifact.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.m[x]
	return ok
}

func (d *digestSet) add(x artifact.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.m == nil {
		d.m = make(map[artifact.Digest]struct{})
	}
	if len(d.m) < maxRemembered {
		d.m[x] = struct{}{}
	}
}

// sort makes the record independent of which goroutine was first.
func (r *record) sort() {
	slices.SortFunc(r.Evidence, func(a, b Evidence) int {
		return cmp.Or(slices.Compare(a.Path, b.Path), strings.Compare(a.Form, b.Form))
	})
	slices.Sort(r.Whiteouts)
}

func sortFindings(list []Finding) {
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(rank(a.Severity), rank(b.Severity)), strings.Compare(a.ID, b.ID), strings.Compare(a.Path, b.Path),
			strings.Compare(a.Package, b.Package), strings.Compare(a.Scanner, b.Scanner), strings.Compare(a.Text, b.Text),
		)
	})
}
