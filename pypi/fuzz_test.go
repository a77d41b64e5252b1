package pypi

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// seed adds the seeds and fails if there are none.
func seed[T string | []byte](f *testing.F, seeds ...T) {
	f.Helper()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
}

// pageSeeds are the hostile pages of that kind.
func pageSeeds(f *testing.F, kind string) [][]byte {
	f.Helper()
	files, err := filepath.Glob("testdata/pages/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	var seeds [][]byte
	for _, name := range files {
		a, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, p := range a.Files {
			if p.Name == "page."+kind {
				seeds = append(seeds, p.Data)
			}
		}
	}
	return seeds
}

// pages checks what every page that is read must hold.
func checkPage(t *testing.T, pg *page) {
	t.Helper()
	for _, p := range pg.Files {
		u, err := url.Parse(p.URL)
		if err != nil || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Host == "" {
			t.Fatalf("URL %q: %v", p.URL, err)
		}
		if err := packaging.CheckFilename(p.Filename); err != nil {
			t.Fatal(err)
		}
		if plain(p.YankedReason) != p.YankedReason || plain(p.RequiresPython) != p.RequiresPython {
			t.Fatalf("%q %q", p.YankedReason, p.RequiresPython)
		}
	}
}

func fuzzPage(f *testing.F, contentType string, seeds [][]byte) {
	seed(f, seeds...)
	base, err := url.Parse("https://index.example/simple/foo/")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pg, err := parsePage(contentType, b, base, func(string) bool { return true })
		if err == nil {
			checkPage(t, pg)
		}
	})
}

func FuzzSimpleJSON(f *testing.F) { fuzzPage(f, typeJSON, pageSeeds(f, "json")) }

func FuzzSimpleHTML(f *testing.F) { fuzzPage(f, typePlain, pageSeeds(f, "html")) }

func checkPins(t *testing.T, l *Lock) {
	t.Helper()
	for _, p := range l.Pins {
		if p.Version.IsZero() || len(p.Digests) == 0 && len(p.Files) == 0 && !strings.HasPrefix(p.Where, "pylock") && !strings.HasPrefix(p.Where, "uv.lock") {
			t.Fatalf("a pin without version or hash: %+v", p)
		}
		if n, err := packaging.NormalizeName(p.Name); err != nil || n != p.Name {
			t.Fatalf("name %q", p.Name)
		}
		for _, file := range p.Files {
			if err := packaging.CheckFilename(file.Name); err != nil || file.Digest.IsZero() {
				t.Fatalf("%+v: %v", file, err)
			}
		}
	}
}

func FuzzRequirements(f *testing.F) {
	seed(f, []byte("# c\nfoo==1.0 ; os_name == 'nt' \\\n  --hash=sha256:"+hashA+" \\\n  --hash sha256:"+hashB+"\n  # via x\n-r other.txt\n"),
		[]byte("--index-url=https://index.example\r\nfoo[a]===1 --hash=sha256:"+hashA), []byte("-e .\n"), []byte("\ufefffoo==1\\"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReqFile(b, "requirements.txt", nil)
		if err != nil {
			return
		}
		checkWants(t, r)
		if l, err := r.lock(); err == nil {
			checkPins(t, l)
		} else if r.Pinned() {
			t.Fatalf("pinned, but no lock: %v", err)
		}
	})
}

func FuzzPylock(f *testing.F) {
	seed(f, []byte(pylockHead+"[[packages]]\nname = \"x\"\nversion = \"1\"\nmarker = \"'a' in extras\"\nwheels = [{url = \"https://files.example/x-1-py3-none-any.whl\", size = 3, hashes = {sha256 = \""+hashA+"\"}}]\n[packages.sdist]\nname = \"x-1.tar.gz\"\nhashes = {sha256 = \""+hashB+"\"}\n"),
		[]byte("lock-version = \"1.1\"\npackages = []"), []byte("lock-version = \"1.0\"\n[[packages]]\nname = \"x\"\nversion=\"1\"\n[packages.vcs]\n"), []byte(strings.Repeat("a=[", 500)))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parsePylock(b, "pylock.toml")
		if err == nil {
			checkPins(t, l)
		}
	})
}

// FuzzWheel: never panics; what is accepted names its project.
func FuzzWheel(f *testing.F) {
	seed(f, pypitest.Wheel(wheelName, ">=3.9").Body, pypitest.Zip(pypitest.Entry{Name: "a", Body: "b"}), pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "../a"}).Body)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := CheckWheel(wheelName, bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		m, err := packaging.ParseMetadata(c.Metadata)
		if err != nil || m.Name != "x" || m.Version.String() != "1.0" {
			t.Fatalf("%+v, %v", m, err)
		}
	})
}

func FuzzSdist(f *testing.F) {
	seed(f, pypitest.Sdist("foo-1.0.tar.gz").Body, pypitest.TarGz(pypitest.Entry{Name: "foo-1.0/PKG-INFO", Body: "Name: foo"}), []byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := CheckSdist("foo-1.0.tar.gz", bytes.NewReader(b), int64(len(b)))
		if err == nil && c.Metadata != nil {
			t.Fatal("a source archive has no METADATA")
		}
	})
}

// FuzzIndex: what is accepted encodes to the same state.
func FuzzIndex(f *testing.F) {
	d := indexDoc{Projects: []indexProject{{Name: "foo", Files: []indexFile{{Filename: "foo-1.0-py3-none-any.whl", Version: "1.0", SHA256: [32]byte{1}, Size: 5, Yanked: true, YankedReason: "x", UploadTime: "2026-01-01T00:00:00Z"}}}}}
	b, err := d.encode()
	if err != nil {
		f.Fatal(err)
	}
	seed(f, b, []byte(`{"schema":"darkmirror.pypi/v1","projects":[]}`), []byte(`{"schema":"darkmirror.pypi/v1","projects":[{"name":"A","files":[]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeIndex(b)
		if err != nil {
			return
		}
		one, err := d.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeIndex(one)
		if err != nil {
			t.Fatal(err)
		}
		if two, err := again.encode(); err != nil || !bytes.Equal(one, two) {
			t.Fatalf("not a fixed point: %v", err)
		}
	})
}

// FuzzCurrent reads what this host wrote itself, and must not panic on a
// damaged file.
func FuzzCurrent(f *testing.F) {
	seed(f, []byte(`{"schema":"darkmirror.pypi-current/v1","source":"pypi/main","seq":1,"projects":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), currentName)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := (&publication{file: name}).read()
		if err == nil && s.info == nil {
			t.Fatal("no identity")
		}
	})
}

func FuzzNegotiate(f *testing.F) {
	seed(f, acceptPage, "*/*", "text/html;q=0.3, application/*;q=1", "", ";;,q=,")
	f.Fuzz(func(t *testing.T, s string) {
		kind, ok := negotiate(s)
		if ok != (kind == typeJSON || kind == typeHTML || kind == typePlain) {
			t.Fatalf("%q: %q %v", s, kind, ok)
		}
		acceptsGzip(s)
	})
}
