package mirror

import (
	"context"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// data is an engine with a database.
type data struct{ engine scan.Engine }

func (d data) Engine() scan.Engine { return d.engine }

func (data) ByContent() bool { return true }

func (data) Inspect(context.Context, *walk.File) ([]scan.Finding, error) { return nil, nil }

// A bundle is judged again where an engine here has newer data than it was
// judged with, or has data and did not judge it at all.
func TestNewer(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	of := func(name, db string, at time.Time) bundle.Scanner {
		s := bundle.Scanner{Name: name, Version: "1"}
		if db != "" {
			s.Database, s.DatabaseDate = artifact.Sum([]byte(db)), at.Format(time.RFC3339)
		}
		return s
	}
	here := func(name, db string, at time.Time) scan.Engine {
		e := scan.Engine{Name: name, Version: "1", Dated: at}
		if db != "" {
			e.Database = artifact.Sum([]byte(db))
		}
		return e
	}
	for name, c := range map[string]struct {
		engine scan.Engine
		judged []bundle.Scanner
		want   bool
	}{
		"the same data":         {here("clamav", "a", noon), []bundle.Scanner{of("clamav", "a", noon)}, false},
		"newer here":            {here("clamav", "b", noon.Add(time.Hour)), []bundle.Scanner{of("clamav", "a", noon)}, true},
		"older here":            {here("clamav", "b", noon.Add(-time.Hour)), []bundle.Scanner{of("clamav", "a", noon)}, false},
		"not judged by it":      {here("clamav", "a", noon), []bundle.Scanner{of("trivy", "a", noon)}, true},
		"judged without data":   {here("trivy", "a", noon), []bundle.Scanner{of("trivy", "", noon)}, true},
		"no data that could be": {here("weights", "", time.Time{}), nil, false},
	} {
		i := &Importer{Scanner: &scan.Runner{Inspectors: []scan.Inspector{data{c.engine}}}}
		if got := i.newer(&bundle.Manifest{Scanners: c.judged}); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What brings the scanners' data is published before anything is judged.
func TestDataFirst(t *testing.T) {
	var snaps []*artifact.Snapshot
	for _, s := range []string{"apt/a", "files/signatures", "pypi/main", "files/drivers"} {
		snaps = append(snaps, &artifact.Snapshot{Source: s})
	}
	first, rest := dataFirst(snaps)
	if len(first) != 2 || len(rest) != 2 || first[0].Source != "files/signatures" || rest[0].Source != "apt/a" {
		t.Errorf("first %v, rest %v", first, rest)
	}
}
