//go:build failpoint

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	// killEnv asks for every passage of every fail point ("all"), in place of
	// the first and the last of most.
	killEnv = "DARKMIRROR_KILL"
	// killLeast is how many named places must have been killed at.
	killLeast = 180
	// killAtOnce bounds the programs that run side by side, whatever
	// -parallel says: the machine that this is promised for has two cores.
	killAtOnce = 2
	// killPatience ends a program that hangs.
	killPatience = time.Minute
)

// killElsewhere names the fail points that no scenario passes, and why.
// One that ends in a dot stands for all that begin so.
var killElsewhere = map[string]string{
	"store.copy-created": "a link across file systems",
	"store.copied":       "a link across file systems",
	"s3.":                "an object store: TestKill of models/s3",
	"files.":             "plain files: TestKill of mirror/files",

	"carry.": "media: TestKill of bundle/carry",
	"root.":  "root files: TestKillStore of bundle/root",

	"recovery.": "recovery files: TestKill of bundle/recovery",

	"pypi.tree-file-removed":  "an index as files: TestCrash of pypi",
	"pypi.tree-folder":        "the same",
	"pypi.tree-link-made":     "the same",
	"pypi.tree-linked":        "the same",
	"pypi.tree-pages-begun":   "the same",
	"pypi.tree-pages-named":   "the same",
	"pypi.tree-pages-removed": "the same",
	"pypi.tree-pages-synced":  "the same",
	"pypi.tree-pages-written": "the same",
	"pypi.tree-staged":        "the same",
	"pypi.tree-turned":        "the same",

	"translog.cut":        "a log with a line that nobody signed: TestKillAnywhere of mirror/translog",
	"translog.unfinished": "the same",

	"bundle.recut-tmpdir":           "another cut: TestKillRecut of bundle",
	"bundle.recut-volumes-synced":   "the same",
	"bundle.encrypt-tmpdir":         "an encrypted bundle: TestKillEncrypt of bundle",
	"bundle.encrypt-volumes-synced": "the same",
	"bundle.carried-written":        "the same",
	"bundle.root-created":           "root files: TestKillAnywhere of bundle",
	"bundle.root-synced":            "the same",

	"bundle.approval-signed":  "an approval: TestKillApproval of bundle",
	"bundle.approval-swept":   "the same",
	"bundle.approval-written": "the same",
}

// TestKillExport kills the outside program with SIGKILL at every fail point
// that it passes, while it plans, exports for the first time, exports a
// delta, adopts the bundle of an earlier killed run, or marks one as lost,
// and runs it again. The whole folder must then be that of a run that nobody
// disturbed, byte for byte: bundles, store, plan; and the ledger record for
// record. Between kill and rerun every bundle in the outbox must be whole.
func TestKillExport(t *testing.T) {
	w := newKillWorld(t)
	w.outside(t)
	w.run(t)
}

// TestKillImport does the same inside, for the import of two bundles into
// nothing, for one late import that also sweeps what old publications left,
// and for one that meets a damaged blob; and where what is published is judged
// again and withdrawn. Between kill and rerun, whatever clients are offered must
// be whole.
//
// Two things of the published trees depend on the run: times, which are
// masked, and signatures, which are verified instead, as is the key where
// the import makes it.
func TestKillImport(t *testing.T) {
	w := newKillWorld(t)
	w.outside(t)
	w.scenarios = nil
	w.inside(t)
	w.run(t)
}

// TestKillImages does the same for images: where they are planned and fetched,
// one that has its bytes named by SHA-512 among them, and where they are
// published and pushed into a registry. The registry must end as if nothing
// had been, and in between no tag may point at an image that is not whole.
func TestKillImages(t *testing.T) {
	w := newKillWorld(t)
	w.images(t)
	w.layer(t)
	w.run(t)
}

// TestKillModels does the same for models: where they are planned, fetched from
// a hub and read from a folder, and where they are published into each kind of
// folder and as artifacts. In between whatever a name stands for must be whole.
func TestKillModels(t *testing.T) {
	w := newKillWorld(t)
	w.models(t)
	w.run(t)
}

// TestKillPlaces holds the scenarios to the fail points that are in the
// code: one that nothing passes is not tested.
func TestKillPlaces(t *testing.T) {
	w := newKillWorld(t)
	w.outside(t)
	w.inside(t)
	w.images(t)
	w.layer(t)
	w.models(t)
	passed := make(map[string]bool)
	for name := range w.pushes(t).passages {
		passed[name] = true
	}
	for _, s := range w.scenarios {
		for name := range s.passages {
			if s.only == nil || s.only.MatchString(name) {
				passed[name] = true
			}
		}
	}
	if len(passed) < killLeast {
		t.Errorf("%d fail points are killed at, want %d at least", len(passed), killLeast)
	}
	want := killPlacesInSource(t)
	for name, why := range killElsewhere {
		if strings.HasSuffix(name, ".") {
			n := len(want)
			maps.DeleteFunc(want, func(place string, _ bool) bool { return strings.HasPrefix(place, name) && !passed[place] })
			if len(want) == n {
				t.Errorf("nothing of %s is left out", name)
			}
			continue
		}
		if passed[name] || !want[name] {
			t.Errorf("%s is listed as not passed (%s): passed %v, in the source %v", name, why, passed[name], want[name])
		}
		delete(want, name)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(passed))); diff != "" {
		t.Errorf("fail points in the source, and those killed at (-source +killed):\n%s", diff)
	}
	t.Logf("%d fail points", len(passed))
}

// killPlacesInSource lists the literals of every failpoint.Here.
func killPlacesInSource(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	err := filepath.WalkDir("../..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.') {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Here" {
				return true
			}
			if lit, ok := call.Args[0].(*ast.BasicLit); ok {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					all[s] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// trace runs a scenario twice undisturbed: for its fail points and for its
// end, which must be the same both times or nothing could be compared.
func (w *killWorld) trace(t *testing.T, s *killScenario) {
	t.Helper()
	for _, run := range []string{"-undisturbed", "-again"} {
		dir := w.path(s.name + run)
		w.copy(t, s.template, s.name+run)
		s.begin(t, dir)
		status, out := w.program(t, dir, []string{"DARKMIRROR_FAILPOINT_TRACE=" + dir + ".trace"}, s.args...)
		if status != s.first {
			t.Fatalf("%s: exit %d, want %d\n%s", s.name, status, s.first, out)
		}
		if s.first != 0 {
			w.must(t, s.name+run, s.args...)
		}
		s.check(t, dir)
		state := s.end(t, dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if s.want == nil {
			s.want, s.passages = state, killTrace(t, dir+".trace")
			continue
		}
		if diff := cmp.Diff(s.want, state); diff != "" {
			t.Fatalf("%s: two undisturbed runs differ:\n%s", s.name, diff)
		}
	}
	w.scenarios = append(w.scenarios, s)
}

// run is the test proper.
func (w *killWorld) run(t *testing.T) {
	places, cases := make(map[string]bool), 0
	for _, s := range w.scenarios {
		for _, place := range slices.Sorted(maps.Keys(s.passages)) {
			if s.only != nil && !s.only.MatchString(place) {
				continue
			}
			places[place] = true
			for nth := 1; nth <= s.passages[place]; nth++ {
				// Each passage of a durable write is another file.
				always := nth == 1 || nth == s.passages[place] || strings.HasPrefix(place, "durable.")
				if !always && os.Getenv(killEnv) != "all" {
					continue
				}
				cases++
				t.Run(fmt.Sprintf("%s/%s:%d", s.name, place, nth), func(t *testing.T) {
					t.Parallel()
					w.slots <- struct{}{}
					defer func() { <-w.slots }()
					w.kill(t, s, place, nth)
				})
			}
		}
	}
	t.Logf("%d fail points, %d kills", len(places), cases)
}

// kill is one kill and what comes after it.
func (w *killWorld) kill(t *testing.T, s *killScenario, place string, nth int) {
	name := fmt.Sprintf("kill-%s-%s-%d", s.name, place, nth)
	dir := w.path(name)
	w.copy(t, s.template, name)
	s.begin(t, dir)
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	w.killAt(t, dir, place, nth, s.args...)
	s.check(t, dir)
	status, out := w.program(t, dir, nil, s.args...)
	if s.first != 0 && status == s.first {
		status, out = w.program(t, dir, nil, s.args...)
	}
	if status != 0 {
		t.Fatalf("the rerun: exit %d\n%s", status, out)
	}
	s.check(t, dir)
	if diff := cmp.Diff(s.want, s.end(t, dir)); diff != "" {
		t.Errorf("after the rerun (-undisturbed +killed):\n%s", diff)
	}
}
