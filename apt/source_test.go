package apt

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// TestDefects runs one upstream per file of testdata/defect: a fault, the
// packages, the seeds, and the refusal that must come of it.
func TestDefects(t *testing.T) {
	files, err := filepath.Glob("testdata/defect/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d defects, err %v", len(files), err)
	}
	classes := map[string]error{"integrity": artifact.ErrIntegrity, "sequence": artifact.ErrSequence, "unavailable": artifact.ErrUnavailable}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := apttest.Suite{Packages: threePackages, ByHash: true}
			seeds := []string{"jq"}
			var code, class, stage, says string
			for _, f := range txtar.Parse(b).Files {
				text := strings.TrimSpace(string(f.Data))
				switch f.Name {
				case "fault":
					s.Fault = apttest.Fault(text)
				case "packages":
					s.Packages = string(f.Data)
				case "seeds":
					seeds = strings.Split(text, "\n")
				case "extra":
					s.Extra = string(f.Data)
				case "code":
					code = text
				case "class":
					class = text
				case "stage":
					stage = text
				case "says":
					says = text
				default:
					t.Fatalf("unknown section %q", f.Name)
				}
			}
			if classes[class] == nil || code == "" {
				t.Fatalf("class %q, code %q", class, code)
			}
			w := newWorld(t, s)
			src := w.source(w.config(seeds...))
			snap, _, err := src.Resolve(t.Context(), nil)
			if stage == "fetch" {
				if err != nil {
					t.Fatalf("resolve: %v", err)
				}
				for f := range snap.Files {
					err = errors.Join(err, src.Fetch(t.Context(), f))
				}
			} else if snap != nil {
				t.Error("a snapshot beside an error")
			}
			if !errors.Is(err, classes[class]) {
				t.Fatalf("err = %v, want class %s", err, class)
			}
			ref, ok := errors.AsType[*artifact.Refusal](err)
			if !ok || ref.Code != code {
				t.Fatalf("err = %v, want code %s", err, code)
			}
			if !strings.Contains(err.Error(), says) {
				t.Fatalf("err = %v, want %q in it", err, says)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages, ByHash: true, ValidFor: 24 * time.Hour})
	snap := w.resolve(w.config("jq"))
	if diff := cmp.Diff([]string{"jq 1.6-2.1", "libc6 2.36-9", "libjq1 1.6-2.1"}, artifactNames(snap)); diff != "" {
		t.Error(diff)
	}
	var meta []string
	for _, f := range snap.Meta {
		meta = append(meta, f.Path)
		if !w.st.Has(f.Digest) {
			t.Errorf("%s is not in the store", f.Path)
		}
	}
	if diff := cmp.Diff([]string{"debian/dists/test/InRelease", "debian/dists/test/main/binary-amd64/Packages.xz"}, meta); diff != "" {
		t.Error(diff)
	}
	i := slices.IndexFunc(snap.Artifacts, func(a artifact.Artifact) bool { return a.Name == "libjq1" })
	lib := snap.Artifacts[i]
	if lib.Why != "jq: Depends: libjq1 (= 1.6-2.1)" || lib.Files[0].Path != "debian/pool/main/libjq1/libjq1_1.6-2.1_amd64.deb" {
		t.Errorf("%+v", lib)
	}
	if !slices.ContainsFunc(w.up.Requests(), func(p string) bool { return strings.Contains(p, "/by-hash/SHA256/") }) {
		t.Error("by-hash was not used")
	}
	// Nothing has changed: one request, the same bytes.
	again, notes, err := w.source(w.config("jq")).Resolve(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/dists/test/InRelease"}, w.up.Requests()); diff != "" {
		t.Error(diff)
	}
	a, _ := snap.Encode()
	b, _ := again.Encode()
	if len(a) == 0 || string(a) != string(b) {
		t.Errorf("two plans of one state differ:\n%s\n%s", a, b)
	}
	if len(notes) != 1 || !strings.HasPrefix(notes[0], "debian/dists/test valid until ") {
		t.Errorf("notes %q", notes)
	}
}

func TestRollbackOutside(t *testing.T) {
	now := time.Now()
	w := newWorld(t, apttest.Suite{Packages: threePackages, Date: now.Add(-time.Hour)})
	snap := w.resolve(w.config("jq"))
	w.add(apttest.Suite{Packages: threePackages, Date: now.Add(-2 * time.Hour)})
	_, _, err := w.source(w.config("jq")).Resolve(t.Context(), snap)
	ref, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || ref.Code != codeRollback || !errors.Is(err, artifact.ErrSequence) {
		t.Fatalf("err = %v", err)
	}
	w.add(apttest.Suite{Packages: threePackages, Date: now.Add(-time.Hour)})
	if _, _, err := w.source(w.config("jq")).Resolve(t.Context(), snap); err != nil {
		t.Fatalf("the same Date: %v", err)
	}
}

// Upstream is changed between InRelease and the index: the new InRelease is
// read, and the run goes on.
func TestUpstreamMoves(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages, Date: time.Now().Add(-time.Hour)})
	moved := false
	w.up.OnRequest(func(p string) {
		if !moved && strings.HasSuffix(p, "/Packages.xz") {
			moved = true
			w.add(apttest.Suite{Packages: strings.ReplaceAll(threePackages, "1.6-2.1", "1.6-2.2")})
		}
	})
	snap := w.resolve(w.config("jq"))
	if !moved || !slices.Contains(artifactNames(snap), "jq 1.6-2.2") {
		t.Fatalf("moved %v, %v", moved, artifactNames(snap))
	}
}

func TestLayouts(t *testing.T) {
	for name, s := range map[string]apttest.Suite{
		"detached": {Packages: threePackages, Detached: true},
		"prefix":   {Packages: threePackages, Prefix: "updates/"},
		"own all":  {Packages: threePackages, OwnAll: true},
		"no xz":    {Packages: threePackages, Fault: apttest.NoXZ, ByHash: true},
		"slash":    {Packages: threePackages, Name: "test/updates", Codename: "test"},
		"two arches": {
			Packages:      threePackages + "\nPackage: jq\nVersion: 1.6-2.1\nArchitecture: i386\nDepends: other\n",
			Architectures: []string{"amd64", "i386"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, s)
			c := w.config("jq", "other")
			want := []string{"jq 1.6-2.1", "libc6 2.36-9", "libjq1 1.6-2.1", "other 1:3.0+x~1"}
			if s.Name != "" {
				c.Archives[0].Suites = []string{s.Name}
			}
			if len(s.Architectures) > 1 {
				c.Architectures = s.Architectures
				want = slices.Insert(want, 1, "jq:i386 1.6-2.1")
			}
			snap := w.resolve(c)
			if diff := cmp.Diff(want, artifactNames(snap)); diff != "" {
				t.Error(diff)
			}
			w.publish(snap, 1, time.Now())
		})
	}
}

// A redirect to a host that is not configured is a problem of the
// configuration, not an absent upstream.
func TestHostNotAllowed(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	c := w.config("jq")
	c.Archives[0].URL = "http://mirror.example/debian"
	_, _, err := w.source(c).Resolve(t.Context(), nil)
	if !errors.Is(err, fetch.ErrHost) || errors.Is(err, artifact.ErrUnavailable) {
		t.Fatalf("err = %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	bad := Config{
		Name: "Bad", Architectures: []string{"all", "amd64", "amd64"}, Packages: []string{"a b", "jq:arm64"}, Essential: "some",
		User: "u",
		Archives: []Archive{
			{URL: "http://mirror.example/debian", Suites: []string{"./"}, SignedBy: []string{"x.gpg"}},
			{URL: "https://u:p@mirror.example/debian"},
		},
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	var got []string
	for line := range strings.Lines(err.Error()) {
		field, _, _ := strings.Cut(line, ": ")
		got = append(got, field)
	}
	want := []string{
		"name", "architectures[0]", "architectures[2]", "essential", "packages[0]", "packages[1]",
		"archives[0].url", "archives[0].suites[0]", "archives[0].components", "archives[0].signed_by[0]",
		"archives[1].url", "archives[1].name", "archives[1].suites", "archives[1].components", "archives[1].signed_by",
		"password_file",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	good := Config{
		Name: "bookworm", Architectures: []string{"amd64"}, Packages: []string{"jq", "tini (>= 0.19)"},
		Archives: []Archive{{URL: "https://mirror.example/debian", Suites: []string{"bookworm"}, Components: []string{"main"}, SignedBy: []string{"/k.gpg"}}},
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"mirror.example"}, good.Hosts()); diff != "" {
		t.Error(diff)
	}
}
