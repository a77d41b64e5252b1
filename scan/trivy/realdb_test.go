package trivy

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

// realDatabase unpacks the larger test database, made of public advisories,
// if it lies beside the repository. It is not part of it.
func realDatabase(t *testing.T) string {
	t.Helper()
	from := ""
	for dir := tree(t); ; dir = filepath.Dir(dir) {
		from = filepath.Join(dir, "shared", "data", "trivy-db-test.tar.zst")
		if _, err := os.Stat(from); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Skip("shared/data/trivy-db-test.tar.zst is not here; TestJudge* compare with the small database")
		}
	}
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	// It is only read.
	defer func() { _ = f.Close() }()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	dir := t.TempDir()
	r := tar.NewReader(z)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPublicAdvisories(t *testing.T) {
	dir := realDatabase(t)
	s := newScanner(t, func(c *Config) {
		c.Database, c.MaxAge = dir, 0
		c.Distro = func(string) (string, string) { return "debian", "11" }
	})
	sub, inv := wheel(t, s, "pip", "18.1")
	if list := judge(t, s, sub, inv); !slices.ContainsFunc(list, func(f scan.Finding) bool {
		return f.ID == "CVE-2019-20916" && f.Package == "pkg:pypi/pip@18.1"
	}) {
		t.Errorf("pip 18.1: %v", ids(list))
	}
	ev := gather(t, s, "Package: libssl1.1\nSource: openssl\nVersion: 1.1.1k-1+deb11u1\nArchitecture: amd64\n", "x.deb", "control.tar.xz", "", "./control")
	inv = &scan.Inventory{Parts: []scan.Part{{Name: "x.deb", Evidence: []scan.Evidence{ev}}}}
	sub = scan.Subject{Source: "apt/bullseye", Artifact: artifact.Artifact{Name: "libssl1.1", Version: "1.1.1k-1+deb11u1"}}
	list := judge(t, s, sub, inv)
	if !slices.ContainsFunc(list, func(f scan.Finding) bool { return f.ID == "CVE-2022-0778" && f.Fixed == "1.1.1k-1+deb11u2" }) {
		t.Errorf("openssl: %v", ids(list))
	}
	if list[0].ID != IDEndOfLife {
		t.Errorf("the first finding is %v, want %s", list[0], IDEndOfLife)
	}
	unknown := 0
	for _, f := range list {
		if f.Severity == scan.Unknown {
			unknown++
		}
	}
	if unknown == 0 {
		t.Errorf("no finding of unknown severity among %v, though few of these have one", ids(list))
	}
}

// BenchmarkJudge is what judging one inventory again costs; S23 wants 10,000
// in a minute.
func BenchmarkJudge(b *testing.B) {
	s, err := New(Config{Database: fixture, Scratch: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Start(b.Context(), noon); err != nil {
		b.Fatal(err)
	}
	ev := scan.Evidence{Path: []string{"pip-18.1.dist-info/METADATA"}, Form: formDistInfo, Packages: []scan.Package{{Type: "pypi", Name: "pip", Version: "18.1"}}}
	inv := &scan.Inventory{Parts: []scan.Part{{Name: "pip-18.1-py3-none-any.whl", Evidence: []scan.Evidence{ev}}}}
	sub := scan.Subject{Source: "pypi/main", Artifact: artifact.Artifact{Name: "pip", Version: "18.1"}}
	for b.Loop() {
		if list, err := s.Judge(b.Context(), sub, inv); err != nil || len(list) != 1 {
			b.Fatalf("%v, %v", list, err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
