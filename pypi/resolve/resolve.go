package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// defaultSteps bounds the decisions and learned conflicts of one problem.
// Closures of 300 projects take some hundred steps; a problem that needs a
// hundred times that many is hostile or hopeless.
const defaultSteps = 50_000

// defaultTime bounds the solver's own work; that of the largest real closures
// takes seconds. What the index takes to answer is not counted.
const defaultTime = 10 * time.Minute

// A Candidate is one version of a project, as an index offers it to a target.
type Candidate struct {
	Version packaging.Version
	Yanked  bool
	// Unusable says why the version does not count: "no wheel for
	// cp312-win_amd64", "newer than 14 days". Words that several versions
	// share are told once, with their number.
	Unusable string
}

// A Listing is what an index has of a project.
type Listing struct {
	Candidates []Candidate // in any order
	// Missing says why there is none at all: "the index does not have it".
	Missing string
}

// An Index answers for one target. Its answers must not change while a
// problem is solved. An error ends the work.
type Index interface {
	// List gives the versions of a project, whose name is in normal form.
	List(ctx context.Context, project string) (*Listing, error)
	// Metadata reads what a version requires. An [*UnusableError] takes the
	// version out and goes on.
	Metadata(ctx context.Context, project string, version packaging.Version) (*packaging.Metadata, error)
}

// An UnusableError says why a version's metadata does not serve.
type UnusableError struct{ Reason string }

func (e *UnusableError) Error() string { return e.Reason }

// A Want is a requirement with the place that it stands at.
type Want struct {
	packaging.Requirement
	Where string // "requirements.txt:3"
}

// A Problem is what somebody wants on one target.
type Problem struct {
	Target      *packaging.Target
	Wants       []Want
	Constraints []Want // hold for what is chosen, and choose nothing
	// Prereleases names the projects whose pre-releases count.
	Prereleases map[string]bool
	// AllPrereleases lets those of every project count.
	AllPrereleases bool
	// Steps and Time bound the work as a whole, waiting for the index not
	// counted; 0 is the default.
	Steps int
	Time  time.Duration
}

// A Package is one project of a solution.
type Package struct {
	Name    string
	Version packaging.Version
	Extras  []string // sorted
	// Because names who asked for it: the place of a want, or "name version"
	// of another package; sorted.
	Because []string
}

// A Solution is one version of each project.
type Solution struct {
	Packages []Package // sorted by name
	Notes    []string  // sorted: what does not matter for the choice
	Steps    int       // the work it took
}

// A ConflictError says why there is no solution.
type ConflictError struct {
	Target string
	// Lines are who wants what, from the wants on.
	Lines []string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("target %s: the requirements cannot all be met:\n  %s", e.Target, strings.Join(e.Lines, "\n  "))
}

// A LimitError says that the bound on the work was reached.
type LimitError struct {
	Target string
	Steps  int           // the bound, or those that were taken until the time was over
	Time   time.Duration // the bound that was reached; 0 if it was that on steps
	Lines  []string      // the last conflict, as in [ConflictError]; nil if there was none
}

func (e *LimitError) Error() string {
	text := fmt.Sprintf("target %s: no solution within %d steps", e.Target, e.Steps)
	if e.Time > 0 {
		text = fmt.Sprintf("target %s: no solution within %s of work and %d steps", e.Target, e.Time, e.Steps)
	}
	if len(e.Lines) == 0 {
		return text
	}
	return text + "; the last conflict was:\n  " + strings.Join(e.Lines, "\n  ")
}

// Solve answers with one version of every project that the wants need. Without
// one the error is a [*ConflictError] or a [*LimitError], or what the index
// said.
func Solve(ctx context.Context, index Index, p Problem) (*Solution, error) {
	p.Steps, p.Time = cmp.Or(p.Steps, defaultSteps), cmp.Or(p.Time, defaultTime)
	unlocked, spent := make(map[string]*unlock), &spent{began: time.Now()}
	for {
		s := newSolver(ctx, index, &p, unlocked, spent)
		err := s.run()
		switch {
		case err == nil:
			return s.solution(), nil
		case !errors.Is(err, errAgain):
			return nil, err
		}
		// A requirement needs versions that did not count so far, of a project
		// that is known already. What was learned without them may be wrong:
		// begin again. Every round adds a version, so this ends.
	}
}

// errAgain asks for a round with what was unlocked; Solve's callers never see
// it.
var errAgain = errors.New("resolve: begin again")

// spent is the work of all rounds.
type spent struct {
	steps  int
	began  time.Time
	waited time.Duration // for the index
}

// waits counts the time since began as waiting.
func (w *spent) waits(began time.Time) { w.waited += time.Since(began) }

// An unlock names versions of a project that count after all.
type unlock struct {
	project string
	pre     bool
	yanked  []packaging.Version
}

// unlock makes versions count from the next listing of their project on.
func (s *solver) unlock(u *unlock) {
	old := s.unlocked[u.project]
	if old == nil {
		s.unlocked[u.project] = u
		return
	}
	old.pre = old.pre || u.pre
	old.yanked = append(old.yanked, u.yanked...)
}

func (u *unlock) has(v packaging.Version) bool {
	return u != nil && slices.ContainsFunc(u.yanked, func(w packaging.Version) bool { return w.Compare(v) == 0 })
}
