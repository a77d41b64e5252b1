package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// small are limits that cut a bundle of a few kilobytes into many pieces.
var small = limits{volume: 4 << 10, segment: MaxSegment, zstd: 1 << 10}

// content is a fake store. Each blob may be opened once a seal.
type content map[artifact.Digest][]byte

func (c content) add(b []byte) Blob {
	d := artifact.Sum(b)
	c[d] = b
	return Blob{Digest: d, Size: int64(len(b))}
}

func (c content) open(d artifact.Digest) (io.ReadCloser, error) {
	b, ok := c[d]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return b
}

// prose shrinks to about a third.
func prose(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < n {
		fmt.Fprintf(&b, "Package: lib%x\nVersion: 1.%d\n", r.Uint32(), r.Uint32N(1000))
	}
	return []byte(b.String()[:n])
}

func testSigner(t testing.TB, name string) (Signer, TrustedKey) {
	t.Helper()
	seed := artifact.Sum([]byte(name))
	key := ed25519.NewKeyFromSeed(seed[:])
	return Signer{Name: name, Signer: key}, TrustedKey{Name: name, Role: RoleExporter, Public: key.Public()}
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// newManifest describes blobs; the first two are the snapshots of its two
// sources.
func newManifest(blobs ...Blob) *Manifest {
	return &Manifest{
		Stream: "main", Seq: 1, Issued: at("2026-11-22T20:15:00Z"), Expires: at("2027-02-20T20:15:00Z"),
		Sources: []SourceRef{
			{Name: "pypi/main", Snapshot: blobs[1].Digest, Artifacts: 1, Files: 2, Bytes: 3},
			{Name: "apt/bookworm", Snapshot: blobs[0].Digest, Artifacts: 1, Files: 2, Bytes: 3},
		},
		Blobs: blobs,
		Held:  []LeftOut{{Source: "pypi/main", Artifact: "evil", Version: "1", Code: "KNOWN", Reason: "tab\there \xff"}},
	}
}

// fixture is a sealed bundle, small and in many pieces.
type fixture struct {
	content content
	m       *Manifest
	sealed  *Sealed
	trust   Trust
	outbox  string
}

func smallContent() (content, *Manifest) {
	c := make(content)
	blobs := []Blob{
		c.add([]byte(`{"snapshot":"apt"}`)), c.add([]byte(`{"snapshot":"pypi"}`)),
		c.add(prose(1, 6000)), c.add(noise(2, 5000)), c.add(noise(3, 700)), c.add(nil), c.add(noise(4, 1)),
	}
	return c, newManifest(blobs...)
}

func sealSmall(t testing.TB, outbox string) *fixture {
	t.Helper()
	c, m := smallContent()
	signer, key := testSigner(t, "exporter-a")
	s, err := seal(t.Context(), outbox, m, c.open, signer, SealOptions{VolumeSize: small.volume}, small)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{content: c, m: m, sealed: s, trust: Trust{Keys: []TrustedKey{key}}, outbox: outbox}
}

// openBundle opens and verifies; the reader is closed with the test.
func (f *fixture) openBundle(t testing.TB, dirs ...string) *Reader {
	t.Helper()
	if len(dirs) == 0 {
		dirs = []string{f.sealed.Dir}
	}
	r, err := Open(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, _, err := r.Verify(f.trust); err != nil {
		t.Fatal(err)
	}
	return r
}

// copyAll reads every blob; what comes without an error must be right.
func copyAll(ctx context.Context, r *Reader, c content) error {
	var errs []error
	for _, b := range r.m.Blobs {
		var buf bytes.Buffer
		if err := r.Copy(ctx, b, &buf); err != nil {
			errs = append(errs, err)
			continue
		}
		if !bytes.Equal(buf.Bytes(), c[b.Digest]) {
			panic("wrong bytes were accepted: " + b.Digest.String())
		}
	}
	return errors.Join(errs...)
}

// codes lists the codes of all refusals in an error.
func codes(err error) []string {
	var list []string
	var walk func(error)
	walk = func(err error) {
		switch e := err.(type) { //nolint:errorlint // the tree itself is walked
		case nil:
		case *artifact.Refusal:
			list = append(list, e.Code)
		case interface{ Unwrap() []error }:
			for _, sub := range e.Unwrap() {
				walk(sub)
			}
		default:
			walk(errors.Unwrap(err))
		}
	}
	walk(err)
	slices.Sort(list)
	return list
}

// wantCode fails unless the error is a refusal of that code and class.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	class := artifact.ErrIntegrity
	switch code {
	case CodeStream, CodeReplay, CodeFork, CodeGap, CodeExpired, CodeFuture, CodeRequires:
		class = artifact.ErrSequence
	}
	if got := codes(err); !slices.Contains(got, code) || !errors.Is(err, class) {
		t.Fatalf("got %v %v, want %s", got, err, code)
	}
}

// tree reads a folder for comparison.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// newHash reads all of r and returns its SHA-256.
func newHash(t testing.TB, r io.Reader) []byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil)
}

func mapKeys(m map[string]string) func(func(string) bool) { return maps.Keys(m) }

func closeIt(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
