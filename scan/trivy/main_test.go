package trivy

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	dbtypes "github.com/aquasecurity/trivy-db/pkg/types"
	bolt "go.etcd.io/bbolt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// noon is the time of all tests; the database is an hour older.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// fixture is the folder of the test database.
var fixture string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "trivy-test-")
	if err == nil {
		fixture = dir
		err = buildDatabase(dir)
	}
	if err != nil {
		slog.Error("no test database", slog.Any("error", err))
		os.Exit(1)
	}
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		slog.Error("cannot clean up", slog.Any("error", err))
		code = 1
	}
	os.Exit(code)
}

// buildDatabase makes a database of testdata/advisories.json with the writing
// half of Trivy's own package.
func buildDatabase(dir string) (err error) {
	raw, err := os.ReadFile("testdata/advisories.json")
	if err != nil {
		return err
	}
	var fx struct {
		Sources    map[string]dbtypes.DataSource
		Advisories []struct {
			Bucket, Package, ID string
			Advisory            dbtypes.Advisory
		}
		Vulnerabilities map[string]dbtypes.Vulnerability
	}
	if err := json.Unmarshal(raw, &fx); err != nil {
		return err
	}
	if err := db.Init(dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	dbc := db.Config{}
	err = dbc.Connection().Update(func(tx *bolt.Tx) error {
		for bucket, src := range fx.Sources {
			if err := dbc.PutDataSource(tx, bucket, src); err != nil {
				return err
			}
		}
		for _, a := range fx.Advisories {
			if err := dbc.PutAdvisory(tx, []string{a.Bucket, a.Package}, a.ID, a.Advisory); err != nil {
				return err
			}
		}
		for id, v := range fx.Vulnerabilities {
			if err := dbc.PutVulnerability(tx, id, v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return writeMetadata(dir, schema, noon.Add(-time.Hour))
}

func writeMetadata(dir string, version int, updated time.Time) error {
	b, err := json.Marshal(map[string]any{"Version": version, "UpdatedAt": updated, "source": "test"})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, metaFile), b, 0o600)
}

// databaseCopy is a folder with a copy of the fixture that a test may spoil.
func databaseCopy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range []string{dbFile, metaFile} {
		b, err := os.ReadFile(filepath.Join(fixture, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func fixtureDigest(t *testing.T) artifact.Digest {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(fixture, dbFile))
	if err != nil {
		t.Fatal(err)
	}
	return artifact.Sum(b)
}

func distro(source string) (string, string) {
	if source == "apt/unknown" {
		return "", ""
	}
	return "debian", "12"
}

// newScanner makes a started scanner of the fixture.
func newScanner(t *testing.T, change ...func(*Config)) *Scanner {
	t.Helper()
	c := Config{Database: fixture, MaxAge: 72 * time.Hour, Scratch: t.TempDir(), Distro: distro}
	for _, f := range change {
		f(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// gathering is a scanner without a database.
func gathering(t *testing.T) *Scanner {
	t.Helper()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// gather reads a file, which must tell something.
func gather(t *testing.T, s *Scanner, content string, path ...string) scan.Evidence {
	t.Helper()
	ev, err := s.Gather(t.Context(), walk.NewFile(walk.Text, []byte(content), path...))
	if err != nil {
		t.Fatalf("%s: %v", walk.Join(path), err)
	}
	if ev == nil {
		t.Fatalf("%s tells nothing", walk.Join(path))
	}
	return *ev
}

func metadata(name, version string) string {
	return "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n\nText.\n"
}

// wheel is the part of a wheel with the given name and version.
func wheel(t *testing.T, s *Scanner, name, version string) (scan.Subject, *scan.Inventory) {
	t.Helper()
	file := name + "-" + version + "-py3-none-any.whl"
	ev := gather(t, s, metadata(name, version), file, name+"-"+version+".dist-info/METADATA")
	return scan.Subject{Source: "pypi/main", Artifact: artifact.Artifact{Name: name, Version: version}},
		&scan.Inventory{Parts: []scan.Part{{Name: file, Evidence: []scan.Evidence{ev}}}}
}

// image is the part of an image's root file system.
func image(evidence ...scan.Evidence) (scan.Subject, *scan.Inventory) {
	return scan.Subject{Source: "oci/platform", Artifact: artifact.Artifact{Name: "app", Version: "1"}},
		&scan.Inventory{Parts: []scan.Part{{Name: "linux/amd64", Root: true, Evidence: evidence}}}
}

func judge(t *testing.T, s *Scanner, sub scan.Subject, inv *scan.Inventory) []scan.Finding {
	t.Helper()
	list, err := s.Judge(t.Context(), sub, inv)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// ids are the findings' kinds and identifiers.
func ids(list []scan.Finding) []string {
	var out []string
	for _, f := range list {
		out = append(out, f.Kind+" "+f.ID)
	}
	return out
}

// tree is the top folder of the module.
func tree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal(io.ErrUnexpectedEOF)
		}
		dir = up
	}
}
