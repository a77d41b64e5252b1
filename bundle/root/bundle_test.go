package root_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/root"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func key(t *testing.T, name string) (bundle.Signer, root.Key) {
	t.Helper()
	seed := artifact.Sum([]byte(name))
	private := ed25519.NewKeyFromSeed(seed[:])
	k, err := root.NewKey(name, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Signer{Name: name, Signer: private}, k
}

// sealed makes a bundle with root files and opens it.
func sealed(t *testing.T, seq uint64, s bundle.Signer, files map[string][]byte) *bundle.Reader {
	t.Helper()
	blob := []byte(`{"snapshot":"of ` + strconv.FormatUint(seq, 10) + `"}`)
	issued := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	m := &bundle.Manifest{
		Stream: "main", Seq: seq, Issued: issued, Expires: issued.AddDate(0, 1, 0),
		Sources: []bundle.SourceRef{{Name: "pypi/main", Snapshot: artifact.Sum(blob)}},
		Blobs:   []bundle.Blob{{Digest: artifact.Sum(blob), Size: int64(len(blob))}},
	}
	if seq > 1 {
		m.Prev = artifact.Sum(nil).String()
	}
	open := func(artifact.Digest) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }
	out, err := bundle.Seal(t.Context(), t.TempDir(), m, open, s, bundle.SealOptions{Root: files})
	if err != nil {
		t.Fatal(err)
	}
	r, err := bundle.Open(out.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// The whole way: the outside keeps a chain and puts it into bundles; the
// inside pins version 1 and trusts what the chain says for each bundle.
func TestChainInBundles(t *testing.T) {
	now := time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC)
	alice, aliceKey := key(t, "alice")
	bastion, bastionKey := key(t, "bastion")
	second, secondKey := key(t, "bastion-2")
	role := func(k root.Key) root.Role { return root.Role{Threshold: 1, Keys: []string{k.ID}} }
	one := root.New("main", now, now.AddDate(1, 0, 0), []root.Key{aliceKey, bastionKey}, root.Roles{Root: role(aliceKey), Exporter: role(bastionKey)})
	file, err := root.Sign(one, alice)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := root.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := parsed.NextVersion(now, now).Prev
	outside, inside := store(t), store(t)
	for _, s := range []*root.Store{outside, inside} {
		if err := s.Pin(file, fingerprint, now); err != nil {
			t.Fatal(err)
		}
	}
	first := sealed(t, 1, bastion, chainFiles(t, outside))
	verify(t, inside, first, "")

	two := one.NextVersion(now, now.AddDate(1, 0, 0))
	if err := errors.Join(two.Revoke(bastionKey.ID, 1, "the bastion was broken into", now), two.Add(root.RoleExporter, secondKey)); err != nil {
		t.Fatal(err)
	}
	if file, err = root.Sign(two, alice); err != nil {
		t.Fatal(err)
	}
	if _, err := outside.Advance(map[int][]byte{2: file}, now); err != nil {
		t.Fatal(err)
	}
	genuine := sealed(t, 2, second, chainFiles(t, outside))
	stolen := sealed(t, 2, bastion, nil)
	// Before the inside knows version 2, the new key is a stranger's.
	current, _ := inside.Current()
	if _, _, err := genuine.Verify(current.Trust(2)); err == nil {
		t.Fatal("an unknown key was trusted")
	}
	advance(t, inside, genuine, now, 2)
	verify(t, inside, genuine, "")
	verify(t, inside, stolen, bundle.CodeKey)
	// What the old key signed before it was stolen is still good.
	advance(t, inside, first, now)
	verify(t, inside, first, "")

	// Two exporters are asked for: one is too few.
	three := two.NextVersion(now, now.AddDate(1, 0, 0))
	third, thirdKey := key(t, "bastion-3")
	if err := errors.Join(three.Add(root.RoleExporter, thirdKey), three.Threshold(root.RoleExporter, 2)); err != nil {
		t.Fatal(err)
	}
	if file, err = root.Sign(three, alice); err != nil {
		t.Fatal(err)
	}
	if _, err := outside.Advance(map[int][]byte{3: file}, now); err != nil {
		t.Fatal(err)
	}
	alone := sealed(t, 3, third, chainFiles(t, outside))
	advance(t, inside, alone, now, 3)
	verify(t, inside, alone, bundle.CodeThreshold)
}

func store(t *testing.T) *root.Store {
	t.Helper()
	s, err := root.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func chainFiles(t *testing.T, s *root.Store) map[string][]byte {
	t.Helper()
	files, err := s.Files()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// advance applies the root files of a bundle.
func advance(t *testing.T, s *root.Store, r *bundle.Reader, now time.Time, want ...int) {
	t.Helper()
	named, err := r.RootFiles()
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[int][]byte)
	for name, data := range named {
		n, err := strconv.Atoi(strings.TrimSuffix(name, ".root.json"))
		if err != nil {
			t.Fatal(err)
		}
		files[n] = data
	}
	applied, err := s.Advance(files, now)
	if diff := cmp.Diff(want, applied); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
}

// verify wants a bundle to be good, or refused with a code.
func verify(t *testing.T, s *root.Store, r *bundle.Reader, code string) {
	t.Helper()
	m, err := r.Unverified()
	if err != nil {
		t.Fatal(err)
	}
	current, ok := s.Current()
	if !ok {
		t.Fatal("nothing is pinned")
	}
	_, _, err = r.Verify(current.Trust(m.Seq))
	if code == "" && err != nil {
		t.Fatal(err)
	}
	if no, ok := errors.AsType[*artifact.Refusal](err); code != "" && (!ok || no.Code != code) {
		t.Fatalf("got %v, want %s", err, code)
	}
}
