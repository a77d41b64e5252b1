package files

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func seed(f *testing.F, seeds ...[]byte) {
	f.Helper()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
}

// FuzzSnapshot: what is read as sets can be published: it has clean and
// distinct names, and is the snapshot that it came from.
func FuzzSnapshot(f *testing.F) {
	st := openStore(f)
	var seeds [][]byte
	for _, sets := range []map[string]tree{
		{"clamav": {"main.cvd": "1", "own/site.ndb": "2"}},
		{"tool 1.0": {"x": ""}, "trivy 7": {"trivy.db": "3", "metadata.json": "4"}},
		{},
	} {
		b, err := snapshotOf(f, st, sets).Encode()
		must(f, err)
		seeds = append(seeds, b, bytes.ReplaceAll(b, []byte("/own/"), []byte("/../")), bytes.ReplaceAll(b, []byte("1.0"), []byte("current")))
	}
	seed(f, seeds...)
	f.Fuzz(func(t *testing.T, b []byte) {
		snap, err := artifact.DecodeSnapshot(b)
		if err != nil {
			return
		}
		sets, err := readSets(snap, sourceName)
		if err != nil {
			refused(t, err, CodeSnapshot, artifact.ErrIntegrity)
			return
		}
		again := &artifact.Snapshot{Source: snap.Source}
		why := make(map[string]string)
		for _, a := range snap.Artifacts {
			why[a.Name] = a.Why
		}
		for _, s := range sets {
			if s.name == "" || strings.ContainsAny(s.name+s.version, "/\\ \n") || strings.HasPrefix(s.version, ".") {
				t.Fatalf("set %q %q", s.name, s.version)
			}
			again.Artifacts = append(again.Artifacts, s.artifact(why[s.name]))
		}
		want, err := snap.Encode()
		must(t, err)
		got, err := again.Encode()
		must(t, err)
		same(t, string(want), string(got))
	})
}

// FuzzRecord: a record that is read has clean names, and is written as it was
// read.
func FuzzRecord(f *testing.F) {
	d := artifact.Sum(nil)
	r := record{
		Schema: recordSchema, Source: sourceName, Folder: "/srv/db",
		Files:    []recordFile{{Path: "1.0/a", Digests: []artifact.Digest{d}, Is: "1 2 3"}, {Path: "1.0/b", Digests: []artifact.Digest{d, d}}},
		Folders:  []string{"1.0"},
		Versions: []recordVersion{{Folder: "1.0", Listing: d}, {Folder: "1.0-0123456789ab", Listing: d}},
		Current:  "1.0", Next: "1.0-0123456789ab",
	}
	b, err := json.Marshal(r)
	must(f, err)
	seed(f, b, bytes.Replace(b, []byte("1.0/a"), []byte("../a"), 1), bytes.Replace(b, []byte(`["1.0"]`), []byte(`["/"]`), 1), []byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		for _, name := range r.Folders {
			if artifact.CheckPath(name) != nil {
				t.Fatalf("folder %q", name)
			}
		}
		for _, file := range r.Files {
			if artifact.CheckPath(file.Path) != nil || r.file(file.Path) == nil {
				t.Fatalf("file %q", file.Path)
			}
		}
		for _, v := range r.Versions {
			if strings.ContainsAny(v.Folder, "/\\") || v.Folder == "" || v.Folder[0] == '.' {
				t.Fatalf("version %q", v.Folder)
			}
		}
		out, err := json.Marshal(r)
		must(t, err)
		again, err := decodeRecord(out)
		must(t, err)
		if diff := cmp.Diff(r, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzCurrent: a pointer that is read is written as it was read.
func FuzzCurrent(f *testing.F) {
	b, err := json.Marshal(current{Schema: currentSchema, Source: sourceName, Snapshot: artifact.Sum(nil), Seq: 7})
	must(f, err)
	seed(f, b, []byte("{}"), bytes.Replace(b, []byte("files/db"), []byte("../db"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCurrent(b)
		if err != nil {
			return
		}
		out, err := json.Marshal(c)
		must(t, err)
		again, err := decodeCurrent(out)
		if err != nil || again.Snapshot != c.Snapshot || again.Source != c.Source || !again.Time.Equal(c.Time) {
			t.Fatalf("%s: %v", out, err)
		}
	})
}
