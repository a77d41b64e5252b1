package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// blobs is how many blobs are walked at once: a small bastion has two cores.
const blobs = 2

// Codes of findings that this package makes itself.
const (
	CodeUnknownType = "TYPE-UNKNOWN" // a package or layer of no type that its ecosystem has
	CodeRefusedType = "TYPE-REFUSED" // a type that the policy does not let in
)

// A Runner judges artifacts. Its fields are set before the first run; it may
// be used for several runs, one at a time.
type Runner struct {
	Policy     Policy
	Inspectors []Inspector
	Gatherers  []Gatherer
	Judges     []Judge
	// Cache may be nil: then every run scans everything.
	Cache Cache
	// Open gives a blob's verified bytes.
	Open func(artifact.Digest) (Content, error)
	// Scratch is the folder for what is unpacked and does not fit in memory.
	Scratch string
	OnEvent func(artifact.Event)

	ready time.Time // of the run that the engines were asked for
}

// A session is one run.
type session struct {
	*Runner
	now   time.Time
	clean []digestSet // by inspector: contents without a finding

	mu      sync.Mutex
	files   int
	bytes   int64
	walked  int
	results map[blobID]*blobResult
}

// A blobID tells apart what is scanned apart.
type blobID struct {
	digest artifact.Digest
	name   string
	layer  bool
}

func (b blob) id() blobID { return blobID{b.digest, b.name(), b.layer} }

// An engine is whatever names itself.
type engine interface{ Engine() Engine }

// Engines are the engines of the runner, some of them more than once: one
// that inspects may also judge.
func (r *Runner) Engines() []Engine {
	var list []Engine
	for _, e := range r.engines() {
		list = append(list, e.Engine())
	}
	return list
}

// engines lists what the runner was given.
func (r *Runner) engines() []engine {
	var list []engine
	for _, i := range r.Inspectors {
		list = append(list, i)
	}
	for _, g := range r.Gatherers {
		list = append(list, g)
	}
	for _, j := range r.Judges {
		list = append(list, j)
	}
	return list
}

// Run judges every artifact of the snapshots at the time now. The error is
// what ended the run: an engine that cannot work ([ErrEngine]), no space, the
// context. Held artifacts are no error here, see [Report.Err].
func (r *Runner) Run(ctx context.Context, snaps []*artifact.Snapshot, now time.Time) (*Report, error) {
	s := &session{Runner: r, now: now, clean: make([]digestSet, len(r.Inspectors)), results: make(map[blobID]*blobResult)}
	if err := r.Ready(ctx, now); err != nil {
		return nil, err
	}
	var subjects []Subject
	for _, snap := range snaps {
		for _, a := range snap.Artifacts {
			subjects = append(subjects, Subject{Source: snap.Source, Artifact: a})
		}
	}
	s.event(artifact.Event{Stage: "scan", TotalItems: len(subjects)})
	rep := &Report{Held: []Held{}, Waived: []Waived{}, Scanned: len(subjects), Items: make([]Item, len(subjects))}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(blobs)
	for n, sub := range subjects {
		g.Go(func() error {
			item, err := s.subject(gctx, sub)
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			if err != nil {
				return err
			}
			rep.Items[n] = *item
			s.event(artifact.Event{Stage: "scan", Source: sub.Source, Item: sub.Artifact.Name, Items: 1})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	s.finish(rep)
	return rep, nil
}

func (s *session) event(ev artifact.Event) {
	if s.OnEvent != nil {
		s.OnEvent(ev)
	}
}

// Ready asks every engine once whether it can work in the run of that time,
// which [Runner.Run] does itself. Before that, an engine need not know the
// data that it has. The error is [ErrEngine].
func (r *Runner) Ready(ctx context.Context, now time.Time) error {
	if !r.ready.IsZero() && r.ready.Equal(now) {
		return nil
	}
	asked := make(map[Starter]bool)
	var errs []error
	for _, e := range r.engines() {
		st, ok := e.(Starter)
		if !ok || asked[st] {
			continue
		}
		asked[st] = true
		if err := st.Start(ctx, now); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			errs = append(errs, &EngineError{Engine: e.Engine().Name, Err: err})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.ready = now
	return nil
}

// engineErr says which engine failed, and on what if it is about that.
func engineErr(name, what string, err error) error {
	switch {
	case errors.Is(err, ErrEngine):
		return &EngineError{Engine: name, Err: err}
	case what == "":
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %s: %w", name, what, err)
}

// isHost tells errors of this host from those of an artifact.
func isHost(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EMFILE)
}

func (s *session) walkLimits() walk.Limits {
	l := walk.DefaultLimits
	a := s.Policy.config.Archives
	l.Depth = cmp.Or(a.Depth, l.Depth)
	l.Entries = cmp.Or(a.Entries, l.Entries)
	l.Unpacked = cmp.Or(a.Unpacked<<30, l.Unpacked)
	l.Ratio = cmp.Or(int64(a.Ratio), l.Ratio)
	return l
}

func (s *session) count(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.walked++
	s.files += r.Files
	s.bytes += r.Bytes
}

// shared scans a blob once a run, however many artifacts have it. Two
// artifacts that come to it at the same time may both scan it: that costs
// time in a rare case, and waiting would need more than it saves.
func (s *session) shared(ctx context.Context, b blob) (*blobResult, error) {
	s.mu.Lock()
	res, ok := s.results[b.id()]
	s.mu.Unlock()
	if ok {
		return res, nil
	}
	res, err := s.blob(ctx, b)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[b.id()] = res
	return res, nil
}

// subject judges one artifact: its blobs, then the whole. The error ends the
// run.
func (s *session) subject(ctx context.Context, sub Subject) (*Item, error) {
	item := &Item{Source: sub.Source, Name: sub.Artifact.Name, Version: sub.Artifact.Version, Why: sub.Artifact.Why}
	for _, f := range sub.Artifact.Files {
		item.Files++
		item.Size += f.Size
	}
	if b, ok := s.Policy.blocked(sub); ok {
		item.hold(Findings, CodeBlocked, b.Reason)
		return item, nil
	}
	found, err := s.findings(ctx, sub, item)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		if errors.Is(err, ErrEngine) || isHost(err) {
			return nil, err
		}
		item.hold(Error, CodeError, "could not be judged: "+err.Error())
		return item, nil
	}
	s.decide(sub, item, found)
	return item, nil
}

// findings are what every engine says of an artifact.
func (s *session) findings(ctx context.Context, sub Subject, item *Item) ([]Finding, error) {
	pieces, platforms, err := s.pieces(sub)
	if err != nil {
		return nil, err
	}
	var all []Finding
	results := make([]*blobResult, len(pieces))
	for n, p := range pieces {
		res, err := s.shared(ctx, p.blob)
		if err != nil {
			return nil, err
		}
		if res.err != nil {
			return nil, fmt.Errorf("%s: %w", walk.Join(p.where), res.err)
		}
		results[n] = res
		for _, f := range slices.Concat(res.findings, s.ofRecord(p, &res.record, sub.Source)) {
			f.Path = walk.Join(append(slices.Clone(p.where), f.Path))
			all = append(all, f)
		}
	}
	inv := inventory(pieces, platforms, results)
	item.Packages = inv.count()
	for _, j := range s.Judges {
		list, err := j.Judge(ctx, sub, inv)
		if err != nil {
			return nil, engineErr(j.Engine().Name, "", err)
		}
		for _, f := range list {
			f.Scanner = cmp.Or(f.Scanner, j.Engine().Name)
			all = append(all, f)
		}
	}
	all = append(all, s.licences(inv)...)
	item.inventory = inv
	sortFindings(all)
	return slices.Compact(all), nil
}

// ofRecord turns what the walker met into findings.
func (s *session) ofRecord(p piece, rec *record, source string) []Finding {
	const scanner = "archives"
	var list []Finding
	for _, pr := range rec.Problems {
		f := Finding{Scanner: scanner, Kind: KindArchive, ID: pr.Code, Severity: pr.Severity, Text: pr.Text, Path: walk.Join(pr.Path[min(1, len(pr.Path)):])}
		if pr.NotScanned {
			f.Kind = KindNotScanned
		} else if f.Severity == High && withinPackage(source, pr.Path) {
			// No installer reads it, and what it holds was looked at.
			f.Severity = Medium
		}
		list = append(list, f)
	}
	allowed := s.Policy.config.Types.Unknown == ActionAllow
	if want := expected(source, p); want != nil && !allowed && !slices.Contains(want, rec.Kind) {
		list = append(list, Finding{
			Scanner: scanner, Kind: KindType, ID: CodeUnknownType, Severity: High,
			Text: fmt.Sprintf("is %s by its content, want one of %s", rec.Kind, kinds(want)),
		})
	}
	for _, t := range rec.Kinds {
		if slices.Contains(s.Policy.config.Types.Refuse, string(t.Kind)) {
			list = append(list, Finding{
				Scanner: scanner, Kind: KindType, ID: CodeRefusedType, Severity: High, Path: walk.Join(t.Path),
				Text: fmt.Sprintf("is %s by its content, which the policy does not let in", t.Kind),
			})
		}
	}
	return list
}

// withinPackage reports whether a path leads into an archive that is itself
// data of a package: deeper than the entries that an installer unpacks, which
// for a .deb lie in its data.tar.
func withinPackage(source string, p []string) bool {
	depth := len(rooted(p))
	return strings.HasPrefix(source, "pypi/") && depth > 2 || strings.HasPrefix(source, "apt/") && depth > 3
}

// expected are the kinds that a blob may have; nil where anything goes.
func expected(source string, p piece) []walk.Kind {
	eco, _, _ := strings.Cut(source, "/")
	switch {
	case eco == "pypi":
		return []walk.Kind{walk.Zip, walk.Gzip, walk.Bzip2, walk.XZ, walk.Tar}
	case eco == "apt":
		return []walk.Kind{walk.Ar}
	case p.wants == "layer":
		return []walk.Kind{walk.Gzip, walk.Zstd, walk.Tar}
	}
	return nil
}

func kinds(list []walk.Kind) string {
	words := make([]string, len(list))
	for i, k := range list {
		words[i] = string(k)
	}
	return strings.Join(words, ", ")
}

// inventory gathers the evidence of an artifact's blobs: that of an image's
// layers as the file system that they make, that of other blobs as it is.
func inventory(pieces []piece, platforms []platform, results []*blobResult) *Inventory {
	inv := &Inventory{}
	used := make(map[int]bool)
	for _, pl := range platforms {
		var layers []*blobResult
		for _, at := range pl.layers {
			used[at] = true
			layers = append(layers, results[at])
		}
		inv.Parts = append(inv.Parts, Part{Name: pl.name, Digest: pl.digest, Root: true, Evidence: merge(layers)})
	}
	for n, p := range pieces {
		if used[n] || len(results[n].record.Evidence) == 0 && len(platforms) > 0 {
			continue
		}
		inv.Parts = append(inv.Parts, Part{Name: p.file.Path, Digest: p.digest.String(), Evidence: results[n].record.Evidence})
	}
	return inv
}

func (inv *Inventory) count() (n int) {
	for _, p := range inv.Parts {
		for _, e := range p.Evidence {
			n += len(e.Packages)
		}
	}
	return n
}

// licences are the refused ones among an artifact's packages.
func (s *session) licences(inv *Inventory) []Finding {
	c := s.Policy.config.Licences
	if len(c.Refuse) == 0 {
		return nil
	}
	var list []Finding
	for _, part := range inv.Parts {
		for _, ev := range part.Evidence {
			for _, p := range ev.Packages {
				for _, l := range p.Licences {
					if !refused(l, c.Refuse) {
						continue
					}
					list = append(list, Finding{
						Scanner: "licences", Kind: KindLicence, ID: "LICENCE-" + l, Severity: Medium,
						Path: walk.Join(append([]string{part.Name}, ev.Path...)), Text: p.Name + " " + p.Version + " is under " + l,
					})
				}
			}
		}
	}
	return list
}

func refused(licence string, list []string) bool {
	for _, r := range list {
		prefix, star := strings.CutSuffix(r, "*")
		if strings.EqualFold(licence, r) || star && len(licence) >= len(prefix) && strings.EqualFold(licence[:len(prefix)], prefix) {
			return true
		}
	}
	return false
}

// decide applies policy and waivers to the findings of an artifact.
func (s *session) decide(sub Subject, item *Item, found []Finding) {
	item.Verdict = Clean
	var holding []Finding
	for _, f := range found {
		f = f.cleaned()
		j := Judged{Finding: f, Action: s.Policy.action(f)}
		switch {
		case f.Kind == KindMalware:
			item.Verdict = Malicious
		case f.Kind == KindNotScanned && item.Verdict != Malicious:
			item.Verdict = NotScanned
		case item.Verdict == Clean:
			item.Verdict = Findings
		}
		if j.Action == ActionHold {
			if w, ok := s.Policy.waived(sub, f, s.now); ok {
				j.Action, j.Waiver = ActionWaived, &w
			} else {
				holding = append(holding, f)
			}
		}
		item.Findings = append(item.Findings, j)
	}
	if len(holding) == 0 {
		return
	}
	code := CodeFinding
	switch {
	case slices.ContainsFunc(holding, func(f Finding) bool { return f.Kind == KindMalware }):
		code = CodeMalicious
	case !slices.ContainsFunc(holding, func(f Finding) bool { return f.Kind != KindNotScanned }):
		code = CodeNotScanned
	}
	item.hold(item.Verdict, code, describe(holding))
}
