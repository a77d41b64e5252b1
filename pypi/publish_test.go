package pypi

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// inside is a store with a snapshot in it, as an import leaves it.
type inside struct {
	store *store.Store
	dir   string
	pub   *Publisher
	doc   indexDoc
	snap  *artifact.Snapshot
}

// newInside puts files and the index.json that goes with them into a store.
// change, if any, spoils the document first.
func newInside(t *testing.T, files []pypitest.File, change func(*indexDoc)) *inside {
	t.Helper()
	in := &inside{store: newStore(t), dir: filepath.Join(t.TempDir(), "state")}
	var err error
	if in.pub, err = NewPublisher(PublishConfig{}, "pypi/main", in.store, in.dir, nil); err != nil {
		t.Fatal(err)
	}
	in.load(t, files, change)
	return in
}

func (in *inside) load(t *testing.T, files []pypitest.File, change func(*indexDoc)) {
	t.Helper()
	in.snap = &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: "pypi/main"}
	in.doc = indexDoc{}
	byName := make(map[string]int)
	for _, f := range files {
		d, err := in.store.PutBytes(f.Body)
		if err != nil {
			t.Fatal(err)
		}
		project, version, err := packaging.ParseDistName(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		i, ok := byName[project]
		if !ok {
			i = len(in.doc.Projects)
			byName[project] = i
			in.doc.Projects = append(in.doc.Projects, indexProject{Name: project})
		}
		entry := indexFile{
			Filename: f.Name, Version: version.String(), SHA256: d, Size: int64(len(f.Body)), RequiresPython: f.RequiresPython,
			Yanked: f.Yanked, YankedReason: f.YankedReason, UploadTime: f.UploadTime,
		}
		if f.Metadata != nil {
			entry.CoreMetadata = artifact.Sum(f.Metadata).String()
		}
		in.doc.Projects[i].Files = append(in.doc.Projects[i].Files, entry)
		in.snap.Artifacts = append(in.snap.Artifacts, artifact.Artifact{Name: project, Version: version.String(), Why: "r.txt:1", Files: []artifact.File{{Path: f.Name, Digest: d, Size: int64(len(f.Body))}}})
	}
	b, err := in.doc.encode()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&in.doc)
		if b, err = json.Marshal(&in.doc); err != nil {
			t.Fatal(err)
		}
	}
	d, err := in.store.PutBytes(b)
	if err != nil {
		t.Fatal(err)
	}
	in.snap.Meta = []artifact.File{{Path: indexName, Digest: d, Size: int64(len(b))}}
}

func sample() []pypitest.File {
	wheel := pypitest.Wheel("foo_bar-1.0+cu130-py3-none-any.whl", ">=3.9,<4")
	wheel.UploadTime = "2026-01-02T03:04:05.678901Z"
	bad := yanked(pypitest.Wheel("foo_bar-0.9-py3-none-any.whl", ""), `broken "quotes" & <script>`)
	return []pypitest.File{wheel, bad, pypitest.Sdist("baz-2.0.tar.gz")}
}

func TestVerifyAndPublish(t *testing.T) {
	in := newInside(t, sample(), nil)
	if err := in.pub.Verify(t.Context(), in.snap, nil); err != nil {
		t.Fatal(err)
	}
	if err := in.pub.Verify(t.Context(), in.snap, in.snap); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(in.dir, currentName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("verifying wrote: %v", err)
	}
	var first []byte
	for range 2 {
		text, err := in.pub.Publish(t.Context(), in.snap, 7, time.Now())
		if err != nil || text != "3 files   /pypi/main/simple/" {
			t.Fatalf("%q, %v", text, err)
		}
		b, err := os.ReadFile(filepath.Join(in.dir, currentName))
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, b) {
			t.Error("publishing again changed the publication")
		}
		first = b
	}
	cur, err := decodeCurrent(first)
	if err != nil || cur.Seq != 7 || cur.Source != "pypi/main" || len(cur.Projects) != 2 {
		t.Fatalf("%+v, %v", cur, err)
	}
	d, err := artifact.ParseDigest(cur.Projects[1].Files[1].Metadata)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := in.store.ReadAll(d, packaging.MaxMetadata); err != nil || !bytes.Equal(b, sample()[0].Metadata) {
		t.Errorf("METADATA: %q, %v", b, err)
	}
	entries, err := os.ReadDir(in.dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestPublishEmpty(t *testing.T) {
	in := newInside(t, nil, nil)
	if _, err := in.pub.Publish(t.Context(), in.snap, 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(in.dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeCurrent(b); err != nil {
		t.Error(err)
	}
}

func TestVerifyRefused(t *testing.T) {
	file := func(d *indexDoc) *indexFile { return &d.Projects[1].Files[1] }
	for name, c := range map[string]struct {
		doc  func(*indexDoc)
		snap func(*artifact.Snapshot)
		code string
	}{
		"schema":           {func(d *indexDoc) { d.Schema = "v0" }, nil, "PYPI-INDEX"},
		"order":            {func(d *indexDoc) { d.Projects[0], d.Projects[1] = d.Projects[1], d.Projects[0] }, nil, "PYPI-INDEX"},
		"name":             {func(d *indexDoc) { d.Projects[0].Name = "Baz" }, nil, "PYPI-INDEX"},
		"other project":    {func(d *indexDoc) { d.Projects[0].Name = "bay" }, nil, "PYPI-INDEX"},
		"digest":           {func(d *indexDoc) { file(d).SHA256 = artifact.Sum(nil) }, nil, "PYPI-INDEX"},
		"size":             {func(d *indexDoc) { file(d).Size++ }, nil, "PYPI-INDEX"},
		"version":          {func(d *indexDoc) { file(d).Version = "1.0" }, nil, "PYPI-INDEX"},
		"filename":         {func(d *indexDoc) { file(d).Filename = "../foo_bar-1.0+cu130-py3-none-any.whl" }, nil, "PYPI-INDEX"},
		"reason":           {func(d *indexDoc) { file(d).YankedReason = "x" }, nil, "PYPI-INDEX"},
		"control":          {func(d *indexDoc) { file(d).RequiresPython = "a\nb" }, nil, "PYPI-INDEX"},
		"time":             {func(d *indexDoc) { file(d).UploadTime = "yesterday" }, nil, "PYPI-INDEX"},
		"file less":        {func(d *indexDoc) { d.Projects[1].Files = d.Projects[1].Files[:1] }, nil, "PYPI-INDEX"},
		"project less":     {func(d *indexDoc) { d.Projects = d.Projects[1:] }, nil, "PYPI-INDEX"},
		"core metadata":    {func(d *indexDoc) { file(d).CoreMetadata = artifact.Sum(nil).String() }, nil, "PYPI-METADATA-MISMATCH"},
		"source":           {nil, func(s *artifact.Snapshot) { s.Source = "pypi/other" }, "PYPI-INDEX"},
		"no index":         {nil, func(s *artifact.Snapshot) { s.Meta = nil }, "PYPI-INDEX"},
		"more metadata":    {nil, func(s *artifact.Snapshot) { s.Meta = append(s.Meta, artifact.File{Path: "x"}) }, "PYPI-INDEX"},
		"artifact version": {nil, func(s *artifact.Snapshot) { s.Artifacts[0].Version = "1.0" }, "PYPI-INDEX"},
	} {
		t.Run(name, func(t *testing.T) {
			in := newInside(t, sample(), c.doc)
			if c.snap != nil {
				c.snap(in.snap)
			}
			wantRefusal(t, in.pub.Verify(t.Context(), in.snap, nil), artifact.ErrIntegrity, c.code, "")
			if _, err := in.pub.Publish(t.Context(), in.snap, 1, time.Now()); err == nil {
				t.Error("published all the same")
			}
		})
	}
}

func TestVerifyChecksArchives(t *testing.T) {
	bad := pypitest.Wheel("foo-1.0-py3-none-any.whl", "")
	bad.Body, bad.Metadata = append([]byte("MZ"), bad.Body...), nil
	in := newInside(t, append(sample(), bad), nil)
	wantRefusal(t, in.pub.Verify(t.Context(), in.snap, nil), artifact.ErrIntegrity, "PYPI-WHEEL", bad.Name)

	in = newInside(t, sample(), nil)
	damage(t, in.store, in.snap.Artifacts[0].Files[0].Digest)
	if err := in.pub.Verify(t.Context(), in.snap, nil); !errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("a damaged blob: %v", err)
	}
}

func TestVerifyFileChanged(t *testing.T) {
	in := newInside(t, sample(), nil)
	prev := in.snap
	files := sample()
	files[0] = pypitest.Wheel(files[0].Name, ">=3.9,<4", pypitest.Entry{Name: "evil.py"})
	in.load(t, files, nil)
	err := in.pub.Verify(t.Context(), in.snap, prev)
	wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-FILE-CHANGED", files[0].Name)
	if !strings.Contains(err.Error(), prev.Artifacts[0].Files[0].Digest.String()) {
		t.Errorf("the old digest is not named: %v", err)
	}
}

// What was held back outside is in index.json and not in the snapshot: it is
// not published, and the rest is.
func TestPublishWithoutHeldArtifact(t *testing.T) {
	in := newInside(t, sample(), nil)
	all := len(in.snap.Artifacts)
	held := in.snap.Artifacts[0]
	in.snap.Artifacts = in.snap.Artifacts[1:]
	if err := in.pub.Verify(t.Context(), in.snap, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := in.pub.Publish(t.Context(), in.snap, 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(in.pub.dir, currentName))
	if err != nil {
		t.Fatal(err)
	}
	cur, err := decodeCurrent(b)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, pr := range cur.Projects {
		for _, f := range pr.Files {
			files++
			if f.File.Filename == held.Files[0].Path {
				t.Errorf("%s was published", f.File.Filename)
			}
		}
	}
	if files == 0 || all < 2 {
		t.Fatalf("%d files of %d artifacts published: the test says nothing", files, all)
	}
}

// The inside compares what RECORD says of sizes again; what the outside allowed
// decides nothing here.
func TestVerifyRecord(t *testing.T) {
	const name = "foo-1.0-py3-none-any.whl"
	entries := pypitest.WheelEntries(name, "")
	entries[0].Body += "import os\n"
	longer := pypitest.File{Name: name, Body: pypitest.Zip(entries...)}
	in := newInside(t, []pypitest.File{longer}, nil)
	err := in.pub.Verify(t.Context(), in.snap, nil)
	wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-RECORD", name)
	if !strings.Contains(err.Error(), "foo/__init__.py: 30 bytes, 20 in RECORD") {
		t.Errorf("got %v", err)
	}
	in.pub.anyRecord = []string{"fo*"}
	if err := in.pub.Verify(t.Context(), in.snap, nil); err != nil {
		t.Errorf("allowed: %v", err)
	}
}
