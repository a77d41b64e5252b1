package pypi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/resolve"
)

const (
	// walkers bounds what is asked for ahead at once; the client's pool bounds
	// the requests.
	walkers = 64
	// maxWalked bounds the versions whose metadata is read ahead; what the
	// solver needs beyond that it asks for itself.
	maxWalked = 5_000
	// mostBecause bounds who is named as the reason for one package.
	mostBecause = 3
)

// A view is what the indexes offer to one target; it answers the solver.
type view struct {
	o      *offers
	target *packaging.Target
	group  *group

	mu       sync.Mutex
	listings map[string]*listing
}

// A listing is what a project offers to the target.
type listing struct {
	once sync.Once
	l    *resolve.Listing
	best map[string]*offeredFile // by version
	err  error
}

func newView(o *offers, t *packaging.Target, g *group) *view {
	return &view{o: o, target: t, group: g, listings: make(map[string]*listing)}
}

// List implements resolve.Index.
func (v *view) List(ctx context.Context, project string) (*resolve.Listing, error) {
	l := v.listing(project)
	l.once.Do(func() { l.l, l.best, l.err = v.list(ctx, project) })
	return l.l, l.err
}

func (v *view) listing(project string) *listing {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.listings[project]
	if l == nil {
		l = &listing{}
		v.listings[project] = l
	}
	return l
}

func (v *view) list(ctx context.Context, project string) (*resolve.Listing, map[string]*offeredFile, error) {
	p, err := v.o.project(ctx, project)
	if err != nil {
		return nil, nil, err
	}
	l := &resolve.Listing{Missing: p.missing}
	best := make(map[string]*offeredFile, len(p.versions))
	for _, version := range p.versions {
		c := resolve.Candidate{Version: version}
		var f *offeredFile
		key := version.String()
		if f, c.Unusable = v.choose(p.files[key], project); f != nil {
			best[key] = f
			c.Yanked = f.Yanked
		} else if c.Unusable == "" || rankOf(c.Unusable) < rankOf(whyNoWheel) {
			c.Unusable = whySdist
			if p.wheels[key] {
				c.Unusable = whyNoWheel + v.target.Text
			}
		}
		l.Candidates = append(l.Candidates, c)
	}
	return l, best, nil
}

// choose picks the file of one version that an installer of the target would
// pick, or says why there is none. Files that are not yanked come first.
func (v *view) choose(files []*offeredFile, project string) (best *offeredFile, why string) {
	rules := v.o.s.rulesFor(project)
	wheel, sdist := v.group.formats.Allowed(project)
	hashes := v.group.hashes[project]
	var bestCand candidate
	reason := func(s string) {
		if rankOf(s) > rankOf(why) {
			why = s
		}
	}
	for _, f := range files {
		cand := candidate{file: f.pageFile, sdist: f.wheel.Filename == ""}
		if cand.sdist && !sdist || !cand.sdist && !wheel {
			reason(whyFormat + v.group.where)
			continue
		}
		if !cand.sdist {
			rank, ok := v.target.Rank(f.wheel)
			if !ok {
				reason(whyNoWheel + v.target.Text)
				continue
			}
			cand.rank, cand.build = rank, f.wheel.Build
		}
		switch {
		case !f.python.Contains(v.target.Python):
			reason(whyPython + v.target.Python.String())
			continue
		case f.Digest.IsZero() && !rules.firstUse:
			reason(whyNoHash)
			continue
		case hashes != nil && !hashes[f.Digest] && !f.Digest.IsZero(): // else see namedIn
			reason(whyOtherHash)
			continue
		case f.uploaded.IsZero() && rules.age > 0 && !rules.assumeOld:
			reason(whyNoTime)
			continue
		case rules.age > 0 && f.uploaded.After(v.o.now.Add(-rules.age)):
			reason(whyYoung + days(rules.age))
			continue
		}
		if best == nil || best.Yanked && !f.Yanked || best.Yanked == f.Yanked && better(cand, bestCand) < 0 {
			best, bestCand = f, cand
		}
	}
	if best != nil {
		return best, ""
	}
	return nil, why
}

// Why a version does not count, from the weakest reason on: of several files,
// the one that came closest tells.
const (
	whySdist     = "only as a source archive, and allow_sdist is off"
	whyNoWheel   = "without a wheel for "
	whyFormat    = "only in a format that is ruled out by "
	whyPython    = "not for Python "
	whyNoHash    = "without a sha256 on the index"
	whyOtherHash = "with other hashes than the requirement names"
	whyNoTime    = "without an upload time, which min_age needs (assume_old takes them)"
	whyYoung     = "newer than "
)

// rankOf is the strength of a reason.
func rankOf(why string) int {
	for i, w := range []string{whySdist, whyNoWheel, whyFormat, whyPython, whyNoHash, whyOtherHash, whyNoTime, whyYoung} {
		if strings.HasPrefix(why, w) {
			return i + 1
		}
	}
	return 0
}

func days(d time.Duration) string {
	if n := d / (24 * time.Hour); n > 0 && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", n)
	}
	return d.String()
}

// file is the file that List found for a version.
func (v *view) file(project string, version packaging.Version) *offeredFile {
	return v.listing(project).best[version.String()]
}

// hashed is that file with its hash, which the requirement may name where the
// index does not.
func (v *view) hashed(ctx context.Context, project string, version packaging.Version) (*pageFile, error) {
	f := v.file(project, version)
	if hashes := v.group.hashes[project]; hashes != nil && f.Digest.IsZero() {
		return v.o.namedIn(ctx, project, f.pageFile, hashes)
	}
	return v.o.named(ctx, project, f)
}

// Metadata implements resolve.Index.
func (v *view) Metadata(ctx context.Context, project string, version packaging.Version) (*packaging.Metadata, error) {
	f := v.file(project, version)
	if f == nil {
		return nil, fmt.Errorf("%s: %s %s was not listed", v.o.s.name, project, version)
	}
	return v.o.metadataOf(ctx, project, f)
}

// walk asks ahead for what the newest versions need, as far as it goes, so
// that the solver seldom waits. What it finds decides nothing.
func (v *view) walk(ctx context.Context, wants []resolve.Want) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(walkers)
	w := &walker{v: v, seen: make(map[string]bool)}
	todo := make([]packaging.Requirement, 0, len(wants))
	for i := range wants {
		todo = append(todo, wants[i].Requirement)
	}
	// Level by level would wait for the slowest of each; a queue does not.
	queue := make(chan []packaging.Requirement, maxWalked+1)
	queue <- todo
	pending := 1
	var mu sync.Mutex
	done := func() {
		mu.Lock()
		defer mu.Unlock()
		if pending--; pending == 0 {
			close(queue)
		}
	}
	for reqs := range queue {
		for _, r := range w.fresh(reqs) {
			mu.Lock()
			pending++
			mu.Unlock()
			g.Go(func() error {
				defer done()
				more := w.step(ctx, r)
				if len(more) > 0 && ctx.Err() == nil {
					mu.Lock()
					pending++
					mu.Unlock()
					queue <- more
				}
				return ctx.Err()
			})
		}
		done()
	}
	return g.Wait()
}

type walker struct {
	v  *view
	mu sync.Mutex
	// seen are the requirements that were looked at.
	seen map[string]bool
}

// fresh leaves out what was looked at before, or is none of the target's.
func (w *walker) fresh(reqs []packaging.Requirement) []packaging.Requirement {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []packaging.Requirement
	for _, r := range reqs {
		key := r.Name + "[" + strings.Join(r.Extras, ",") + "]" + r.Specifiers.String()
		if r.URL != "" || w.seen[key] || len(w.seen) >= maxWalked {
			continue
		}
		w.seen[key] = true
		out = append(out, r)
	}
	return out
}

// step reads the page and the newest version's metadata of one requirement,
// and returns what that requires. Errors are left to the solver.
func (w *walker) step(ctx context.Context, r packaging.Requirement) []packaging.Requirement {
	l, err := w.v.List(ctx, r.Name)
	if err != nil {
		return nil
	}
	var newest *resolve.Candidate
	for i := range l.Candidates {
		c := &l.Candidates[i]
		if c.Unusable != "" || c.Yanked || !r.Specifiers.Contains(c.Version) {
			continue
		}
		stable := !c.Version.IsPrerelease() || r.Specifiers.NamesPrerelease()
		if newest == nil || stable || newest.Version.IsPrerelease() {
			newest = c
		}
	}
	if newest == nil {
		return nil
	}
	m, err := w.v.Metadata(ctx, r.Name, newest.Version)
	if err != nil {
		return nil
	}
	env := w.v.target.Env
	return slices.DeleteFunc(slices.Clone(m.Requires), func(q packaging.Requirement) bool {
		for _, extra := range append([]string{""}, r.Extras...) {
			env.Extra = extra
			if q.Marker.Eval(&env) != packaging.False {
				return false
			}
		}
		return true
	})
}

// closure resolves one group for one target into pins.
func (s *Source) closure(ctx context.Context, o *offers, g *group, t *packaging.Target) ([]*Pin, []string, error) {
	v := newView(o, t, g)
	if err := v.walk(ctx, g.wants); err != nil {
		return nil, nil, err
	}
	sol, err := resolve.Solve(ctx, v, resolve.Problem{Target: t, Wants: g.wants, Constraints: g.constraints, Prereleases: s.prereleases(g), AllPrereleases: g.pre})
	if err != nil {
		return nil, nil, s.unresolved(g, err)
	}
	pins := make([]*Pin, 0, len(sol.Packages))
	for i := range sol.Packages {
		p := &sol.Packages[i]
		f, err := v.hashed(ctx, p.Name, p.Version)
		if err != nil {
			return nil, nil, err
		}
		pins = append(pins, &Pin{Name: p.Name, Version: p.Version, Where: whyOf(p.Because), chosen: f})
	}
	notes := make([]string, 0, len(sol.Notes)+1)
	for _, n := range sol.Notes {
		notes = append(notes, g.where+": "+n)
	}
	notes = append(notes, fmt.Sprintf("%s: %d packages for %s", g.where, len(pins), t.Text))
	return pins, notes, nil
}

func whyOf(because []string) string {
	if more := len(because) - mostBecause; more > 0 {
		because = append(slices.Clone(because[:mostBecause]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(because, ", ")
}

// unresolved makes a refusal of what the solver says.
func (s *Source) unresolved(g *group, err error) error {
	r := &artifact.Refusal{Class: ErrLock, Subject: s.name + ": " + g.where, Reason: err.Error()}
	if _, ok := errors.AsType[*resolve.ConflictError](err); ok {
		r.Code = "PYPI-CONFLICT"
		return r
	}
	if _, ok := errors.AsType[*resolve.LimitError](err); ok {
		r.Code = "PYPI-RESOLVE-LIMIT"
		return r
	}
	return err
}
