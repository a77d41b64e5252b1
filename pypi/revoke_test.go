package pypi

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

// lines are the actions of the record: "bundle action filename-or-project".
func (in *inside) lines(t *testing.T) []string {
	t.Helper()
	past, err := in.pub.revocations()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range past {
		if _, err := time.Parse(time.RFC3339, r.Time); err != nil || r.Source != "pypi/main" || (r.Filename == "") != (r.SHA256 == "") {
			t.Errorf("malformed: %+v", r)
		}
		name := r.Filename
		if name == "" {
			name = r.Project
		}
		out = append(out, fmt.Sprintf("%d %s %s", r.Seq, r.Action, name))
	}
	return out
}

func (in *inside) wantLines(t *testing.T, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, in.lines(t)); d != "" {
		t.Errorf("record (-want +got): %s", d)
	}
}

// file is what is served under a filename, or nil.
func (in *inside) file(t *testing.T, name string) *currentFile {
	t.Helper()
	cur, err := in.pub.previous()
	if err != nil {
		t.Fatal(err)
	}
	return cur.files()[name]
}

// What a later snapshot lacks stays as yanked, with its old bytes, and comes
// back when a snapshot has it again.
func TestRemovedIsYanked(t *testing.T) {
	in := newInside(t, sample(), nil)
	var log bytes.Buffer
	in.pub.log = slog.New(slog.NewTextHandler(&log, nil))
	in.publish(t, 1)
	in.wantLines(t)
	gone := sample()[0]
	in.load(t, sample()[1:], nil)
	if err := in.pub.Verify(t.Context(), in.snap, nil); err != nil {
		t.Fatal(err)
	}
	in.publish(t, 5)
	f := in.file(t, gone.Name)
	if f == nil || !f.File.Yanked || f.File.YankedReason != "not mirrored any more since bundle 5" || f.Kept != 5 || f.Metadata == "" || f.Blake2b == "" {
		t.Fatalf("got %+v", f)
	}
	in.wantLines(t, "5 kept "+gone.Name)
	if !strings.Contains(log.String(), "action=kept") || !strings.Contains(log.String(), gone.Name) {
		t.Errorf("log: %s", log.String())
	}
	h := NewHandler(in.dir, in.store, nil)
	if w := do(t, h, "/simple/foo-bar/", "Accept", typeJSON); !strings.Contains(w.Body.String(), `"yanked":"not mirrored any more since bundle 5"`) {
		t.Error(w.Body.String())
	}
	if w := do(t, h, "/"+packagesPath(gone)); w.Body.String() != string(gone.Body) {
		t.Errorf("the kept file: %d", w.Code)
	}
	// Later bundles change nothing of it.
	in.publish(t, 6)
	if f := in.file(t, gone.Name); f.Kept != 5 {
		t.Errorf("kept since %d", f.Kept)
	}
	kept, err := in.pub.Kept()
	if err != nil || len(kept) != 1 || kept[0].Name != "foo-bar" || kept[0].Version != "1.0+cu130" || kept[0].Files[0].Digest.Hex() != gone.SHA256() {
		t.Errorf("%+v, %v", kept, err)
	}
	in.load(t, sample(), nil)
	in.publish(t, 7)
	if f := in.file(t, gone.Name); f.File.Yanked || f.Kept != 0 {
		t.Errorf("restored: %+v", f)
	}
	in.wantLines(t, "5 kept "+gone.Name, "7 restored "+gone.Name)
}

func TestRemovedIsHidden(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.pub.hide = true
	in.publish(t, 1)
	in.load(t, sample()[:2], nil) // a whole project goes
	in.publish(t, 2)
	if in.file(t, "baz-2.0.tar.gz") != nil {
		t.Error("it is still there")
	}
	h := NewHandler(in.dir, in.store, nil)
	for _, path := range []string{"/simple/baz/", "/" + packagesPath(sample()[2])} {
		if w := do(t, h, path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	in.load(t, sample(), nil)
	in.publish(t, 3)
	in.wantLines(t, "2 removed baz-2.0.tar.gz", "3 restored baz-2.0.tar.gz")
}

// TestHiddenFileChanged: a file that is served no longer must not come again
// with other bytes.
func TestHiddenFileChanged(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.pub.hide = true
	in.publish(t, 1)
	in.load(t, sample()[1:], nil)
	in.publish(t, 2)
	prev := in.snap
	files := sample()
	files[0] = pypitest.Wheel(files[0].Name, ">=3.9,<4", pypitest.Entry{Name: "evil.py"})
	in.load(t, files, nil)
	wantRefusal(t, in.pub.Verify(t.Context(), in.snap, prev), artifact.ErrIntegrity, "PYPI-FILE-CHANGED", files[0].Name)
}

// TestTargetFiles: a target is told of everything that it may have.
func TestTargetFiles(t *testing.T) {
	in := newInside(t, sample(), nil)
	states := func() map[string]upload.State {
		t.Helper()
		cur, err := in.pub.previous()
		if err != nil {
			t.Fatal(err)
		}
		files, err := in.pub.targetFiles(cur)
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]upload.State)
		for i := range files {
			out[files[i].Filename] = files[i].State
		}
		if len(out) != len(files) {
			t.Errorf("a file is told of twice: %v", files)
		}
		return out
	}
	names := []string{sample()[0].Name, sample()[1].Name, sample()[2].Name}
	want := func(when string, s ...upload.State) {
		t.Helper()
		if d := cmp.Diff(map[string]upload.State{names[0]: s[0], names[1]: s[1], names[2]: s[2]}, states()); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	in.publish(t, 1)
	want("first", upload.Offered, upload.Offered, upload.Offered)
	in.load(t, sample()[1:], func(d *indexDoc) { d.Projects[1].Status = quarantined })
	in.publish(t, 2)
	want("kept, quarantined", upload.Withheld, upload.Withheld, upload.Offered)
	in.load(t, sample()[1:], nil)
	in.publish(t, 3)
	want("released", upload.Kept, upload.Offered, upload.Offered)
	in.snap.Artifacts = in.snap.Artifacts[1:] // held by the policy
	in.pub.hide = true
	in.publish(t, 4)
	want("held, removed", upload.Gone, upload.Withheld, upload.Offered)
	in.pub.hide = false
	in.load(t, sample(), nil)
	in.publish(t, 5)
	want("restored", upload.Offered, upload.Offered, upload.Offered)
}

// What somebody has decided against is in index.json and not in the snapshot.
// It must go at once, whatever the policy for removed files.
func TestHeldIsHidden(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	held := in.snap.Artifacts[0].Files[0].Path
	in.snap.Artifacts = in.snap.Artifacts[1:]
	in.publish(t, 1) // as a new scan inside does: the same bundle
	if in.file(t, held) != nil {
		t.Error("it is still there")
	}
	in.wantLines(t, "1 hidden "+held)
}

func TestYankedUpstream(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	files := sample()
	files[0].Yanked, files[0].YankedReason, files[1].Yanked, files[1].YankedReason = true, "broken", false, ""
	in.load(t, files, nil)
	in.publish(t, 2)
	if f := in.file(t, files[0].Name); !f.File.Yanked || f.File.YankedReason != "broken" || f.Kept != 0 {
		t.Errorf("got %+v", f)
	}
	in.wantLines(t, "2 unyanked "+files[1].Name, "2 yanked "+files[0].Name)
	// One that upstream had yanked keeps upstream's reason when it goes.
	in.load(t, files[1:], nil)
	in.publish(t, 3)
	if f := in.file(t, files[0].Name); f.File.YankedReason != "broken" || f.Kept != 3 {
		t.Errorf("got %+v", f)
	}
}

// Quarantine hides a project's files at once, those that were kept too, and
// does not end by the project's vanishing.
func TestQuarantined(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	lock := func(d *indexDoc) { d.Projects[1].Status, d.Projects[1].StatusReason = quarantined, "malware" }
	// The kept file is served until the quarantine, and not in it.
	in.load(t, sample()[1:], nil)
	in.publish(t, 2)
	in.load(t, sample()[1:], lock)
	in.publish(t, 3)
	h := NewHandler(in.dir, in.store, nil)
	locked := func(when string) {
		t.Helper()
		for _, f := range sample()[:2] {
			if w := do(t, h, "/"+packagesPath(f)); w.Code != 404 {
				t.Errorf("%s: %s: %d", when, f.Name, w.Code)
			}
		}
		if w := do(t, h, "/simple/foo-bar/", "Accept", typeJSON); !strings.Contains(w.Body.String(), `"status":"quarantined"`) || !strings.Contains(w.Body.String(), `"files":[]`) {
			t.Errorf("%s: %s", when, w.Body.String())
		}
	}
	locked("quarantine")
	in.load(t, sample()[2:], nil)
	in.publish(t, 4)
	locked("vanished")
	in.load(t, sample(), nil)
	in.publish(t, 5)
	if w := do(t, h, "/"+packagesPath(sample()[0])); w.Code != 200 {
		t.Errorf("released: %d", w.Code)
	}
	got := in.lines(t)
	if i, j := slices.Index(got, "3 quarantined foo-bar"), slices.Index(got, "5 released foo-bar"); i < 0 || j < i {
		t.Errorf("got %q", got)
	}
}

// Other bytes under the name of a kept file are refused, though the snapshot
// before lacks it.
func TestKeptFileChanged(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	in.load(t, sample()[1:], nil)
	in.publish(t, 2)
	prev := in.snap
	files := sample()
	files[0] = pypitest.Wheel(files[0].Name, ">=3.9,<4", pypitest.Entry{Name: "evil.py"})
	in.load(t, files, nil)
	wantRefusal(t, in.pub.Verify(t.Context(), in.snap, prev), artifact.ErrIntegrity, "PYPI-FILE-CHANGED", files[0].Name)
	if _, err := in.pub.Publish(t.Context(), in.snap, 3, time.Now()); err == nil {
		t.Error("published all the same")
	}
	if f := in.file(t, files[0].Name); f.File.SHA256.Hex() != sample()[0].SHA256() {
		t.Error("the bytes were exchanged")
	}
}

func TestHideKept(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	in.load(t, sample()[1:2], nil)
	in.publish(t, 2)
	bad, still := sample()[0], sample()[1]
	digests := []artifact.Digest{artifact.Sum(bad.Body), artifact.Sum(still.Body), artifact.Sum(sample()[2].Body)}
	before, err := in.pub.previous()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := in.pub.Hide(t.Context(), digests, "malware", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	after, err := in.pub.previous()
	if err != nil || after.Serial != before.Serial+1 || len(after.Projects) != 1 {
		t.Errorf("%+v, %v", after, err)
	}
	if in.file(t, bad.Name) != nil || in.file(t, still.Name) == nil {
		t.Error("want the kept file gone, and the snapshot's own left")
	}
	in.publish(t, 2) // does not bring it back
	if in.file(t, bad.Name) != nil {
		t.Error("it came back")
	}
	if got := in.lines(t); !slices.Contains(got, "2 hidden "+bad.Name) || len(got) != 4 {
		t.Errorf("got %q", got)
	}
}

// A kept file whose blob is gone cannot be served.
func TestKeptWithoutBlob(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	d := artifact.Sum(sample()[0].Body)
	damage(t, in.store, d)
	if _, err := in.store.File(d); !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatal(err) // moves it to quarantine
	}
	in.load(t, sample()[1:], nil)
	in.publish(t, 2)
	if in.file(t, sample()[0].Name) != nil {
		t.Error("it is still listed")
	}
	in.wantLines(t, "2 removed "+sample()[0].Name)
}

// A damaged record or publication does not keep anything from being
// published.
func TestReviseAfterDamage(t *testing.T) {
	in := newInside(t, sample(), nil)
	in.publish(t, 1)
	in.load(t, sample()[1:], nil)
	in.publish(t, 2)
	record := filepath.Join(in.dir, revocationsName)
	b, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, append([]byte("{]\n"), b...), 0o600); err != nil {
		t.Fatal(err)
	}
	in.load(t, sample()[2:], nil)
	in.publish(t, 3)
	in.wantLines(t, "2 kept "+sample()[0].Name, "3 kept "+sample()[1].Name)
	if err := os.WriteFile(filepath.Join(in.dir, currentName), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	in.load(t, sample(), nil)
	in.publish(t, 4)
	if f := in.file(t, sample()[0].Name); f == nil || f.File.Yanked {
		t.Errorf("got %+v", f)
	}
	// Two sources must not share a folder.
	in.edit(t, func(c *current) { c.Source = "pypi/other" })
	if _, err := in.pub.Publish(t.Context(), in.snap, 5, time.Now()); err == nil {
		t.Error("a folder of another source was taken")
	}
}

func TestPublishConfig(t *testing.T) {
	for _, ok := range []string{"", "yank", "hide"} {
		if err := (&PublishConfig{Removed: ok}).Validate(); err != nil {
			t.Error(err)
		}
	}
	if err := (&PublishConfig{Removed: "keep"}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "removed: ") {
		t.Errorf("got %v", err)
	}
}
