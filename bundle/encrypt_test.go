package bundle

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// testRoot are the root files of test bundles.
func testRoot() map[string][]byte {
	return map[string][]byte{"1.root.json": []byte("first"), "2.root.json": []byte("second"), "10.root.json": []byte("tenth")}
}

// An encryptedFixture is a bundle that was sealed and encrypted.
type encryptedFixture struct {
	*fixture // the plain one
	toy      toy
	out      *Sealed
}

func encryptSmall(t testing.TB, y toy) *encryptedFixture {
	t.Helper()
	c, m := smallContent()
	return encryptContent(t, c, m, y, SealOptions{VolumeSize: small.volume, Root: testRoot()})
}

func encryptContent(t testing.TB, c content, m *Manifest, y toy, o SealOptions) *encryptedFixture {
	t.Helper()
	signer, key := testSigner(t, "exporter-a")
	s, err := seal(t.Context(), t.TempDir(), m, c.open, signer, o, small)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{content: c, m: m, sealed: s, trust: Trust{Keys: []TrustedKey{key}}, outbox: filepath.Join(t.TempDir(), "out")}
	out, err := Encrypt(t.Context(), []string{s.Dir}, f.outbox, y, signer, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &encryptedFixture{f, y, out}
}

// copyTree copies the encrypted bundle, for a test that spoils it.
func (f *encryptedFixture) copyTree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), filepath.Base(f.out.Dir))
	writeTree(t, dir, tree(t, f.out.Dir))
	return dir
}

// attempt is the package's, with a decrypter.
func (f *encryptedFixture) attempt(t *testing.T, d Decrypter, dirs ...string) (warnings []string, err error) {
	t.Helper()
	r, err := Open(dirs...)
	if err != nil {
		return nil, err
	}
	defer closeIt(t, r)
	r.UseDecrypter(d)
	if _, _, err := r.Verify(f.trust); err != nil {
		return nil, err
	}
	vols, err := r.Volumes()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, v := range vols {
		errs = append(errs, v.Err(len(vols)))
	}
	warnings, err = r.Check(t.Context(), nil)
	copied := copyAll(t.Context(), r, f.content) // panics on wrong bytes
	return warnings, errors.Join(append(errs, err, copied)...)
}

func (f *encryptedFixture) checkCarried(t *testing.T, dirs ...string) error {
	t.Helper()
	r, err := Open(dirs...)
	if err != nil {
		return err
	}
	defer closeIt(t, r)
	_, _, err = r.CheckCarried(t.Context(), f.trust, nil)
	return err
}

func TestEncryptRoundTrip(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa", "recip-bb"))
	plain, carried := tree(t, f.sealed.Dir), tree(t, f.out.Dir)
	if filepath.Base(f.out.Dir) != filepath.Base(f.sealed.Dir) || f.out.ID != f.sealed.ID {
		t.Fatalf("%+v of %+v", f.out, f.sealed)
	}
	// The files are those of the plain bundle, and each but the root files and
	// the list is encrypted.
	want := []string{carriedName}
	for name := range plain {
		if !strings.HasPrefix(name, rootDir+"/") {
			name += encryptedExt
		} else if carried[name] != plain[name] {
			t.Errorf("%s is not the same", name)
		}
		want = append(want, name)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(mapKeys(carried))); diff != "" {
		t.Fatal(diff)
	}
	var size int64
	for name, data := range carried {
		size += int64(len(data))
		for d, blob := range f.content {
			if len(blob) > 16 && strings.Contains(data, string(blob[:16])) || strings.Contains(data, d.Hex()) {
				t.Errorf("%s holds blob %s", name, d)
			}
		}
	}
	if size != f.out.Bytes {
		t.Fatalf("%d bytes on disk, %d reported", size, f.out.Bytes)
	}
	for i, v := range f.out.Volumes {
		if v.Name != volumeName(i+1)+encryptedExt || int64(len(carried[filepath.Join(volumesDir, v.Name)])) != v.Size {
			t.Errorf("volume %+v", v)
		}
	}
	for _, who := range []string{"recip-aa", "recip-bb"} {
		if w, err := f.attempt(t, newToy(9, who), f.out.Dir); err != nil || len(w) > 0 {
			t.Fatalf("%s: %v %v", who, w, err)
		}
	}
	if err := f.checkCarried(t, f.out.Dir); err != nil {
		t.Fatal(err)
	}
	if found, err := Find(f.outbox); err != nil || len(found) != 1 || found[0].Dirs[0] != f.out.Dir {
		t.Fatal(found, err)
	}
	r, err := Open(f.out.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, r)
	files, err := r.RootFiles() // before anything is decrypted or verified
	if diff := cmp.Diff(testRoot(), files); err != nil || diff != "" {
		t.Fatal(err, diff)
	}
	r.UseDecrypter(f.toy)
	m, rep, err := r.Verify(f.trust)
	if err != nil || !cmp.Equal(m, f.m) || rep.ID != f.sealed.ID {
		t.Fatal(m, rep, err)
	}
	if len(rep.Steps) != 8 || !strings.HasPrefix(rep.Steps[1], "carried: signature: good, exporter exporter-a") {
		t.Fatalf("%q", rep.Steps)
	}
	if diff := cmp.Diff(plain, tree(t, f.sealed.Dir)); diff != "" {
		t.Fatal("the source changed", diff)
	}
}

// A rerun finds what is there, unless it is something else.
func TestEncryptTwice(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa"))
	before := tree(t, f.out.Dir)
	signer, _ := testSigner(t, "exporter-a")
	again := func(y toy) (*Sealed, error) {
		return Encrypt(t.Context(), []string{f.sealed.Dir}, f.outbox, y, signer, nil)
	}
	out, err := again(newToy(2, "recip-aa"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.out, out); diff != "" {
		t.Fatal(diff)
	}
	refused := func(t *testing.T, text string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "already there") {
			t.Fatalf("got %v, want %s", err, text)
		}
	}
	_, err = again(newToy(1, "recip-bb"))
	refused(t, "encrypted to others", err)
	_, err = Encrypt(t.Context(), []string{f.sealed.Dir}, filepath.Dir(f.sealed.Dir), f.toy, signer, nil)
	refused(t, "not encrypted", err)
	if err := os.WriteFile(filepath.Join(f.sealed.Dir, "root/11.root.json"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = again(f.toy)
	refused(t, "other root files", err)
	if err := os.Remove(filepath.Join(f.sealed.Dir, "root/11.root.json")); err != nil {
		t.Fatal(err)
	}
	approver, _ := testSigner(t, "approver-a")
	if _, err := Approve(f.sealed.Dir, approver, f.trust, Approval{ID: f.sealed.ID, Now: f.m.Issued}); err != nil {
		t.Fatal(err)
	}
	_, err = again(f.toy)
	refused(t, "other signatures", err)
	if diff := cmp.Diff(before, tree(t, f.out.Dir)); diff != "" {
		t.Fatal(diff)
	}
	if err := os.Truncate(filepath.Join(f.out.Dir, volumesDir, f.out.Volumes[0].Name), 9); err != nil {
		t.Fatal(err)
	}
	if _, err := again(f.toy); err == nil {
		t.Fatal("a damaged bundle was accepted")
	}
}

// What was approved before it was encrypted is approved inside.
func TestEncryptApproved(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	signer, _ := testSigner(t, "exporter-a")
	approver, key := testSigner(t, "approver-a")
	if _, err := Approve(f.sealed.Dir, approver, f.trust, Approval{ID: f.sealed.ID, Now: f.m.Issued}); err != nil {
		t.Fatal(err)
	}
	y := newToy(1, "recip-aa")
	out, err := Encrypt(t.Context(), []string{f.sealed.Dir}, filepath.Join(t.TempDir(), "o"), y, signer, nil)
	if err != nil {
		t.Fatal(err)
	}
	key.Role = RoleApprover
	f.trust.Keys = append(f.trust.Keys, key)
	f.trust.Approvals = 1
	e := &encryptedFixture{f, y, out}
	if w, err := e.attempt(t, y, out.Dir); err != nil || len(w) > 0 {
		t.Fatal(w, err)
	}
}

func TestEncryptRefuses(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	signer, _ := testSigner(t, "exporter-a")
	other, _ := testSigner(t, "exporter-b")
	y := newToy(1, "recip-aa")
	spoiled := filepath.Join(t.TempDir(), "s")
	writeTree(t, spoiled, tree(t, f.sealed.Dir))
	flip(t, filepath.Join(spoiled, volumesDir, volumeName(2)), 1000)
	short := filepath.Join(t.TempDir(), "s")
	writeTree(t, short, tree(t, f.sealed.Dir))
	if err := os.Remove(filepath.Join(short, volumesDir, volumeName(1))); err != nil {
		t.Fatal(err)
	}
	encrypted := encryptSmall(t, y).out.Dir
	for name, tc := range map[string]struct {
		dir    string
		enc    Encrypter
		signer Signer
		text   string
	}{
		"another signer":  {f.sealed.Dir, y, other, CodeKey},
		"no signer":       {f.sealed.Dir, y, Signer{}, "no signing key"},
		"no recipient":    {f.sealed.Dir, newToy(1), signer, "0 recipients"},
		"many recipients": {f.sealed.Dir, newToy(1, slices.Repeat([]string{"recip-aa"}, MaxRecipients+1)...), signer, "65 recipients"},
		"odd recipient":   {f.sealed.Dir, newToy(1, "recip\naa"), signer, "printable"},
		"damaged source":  {spoiled, y, signer, CodeVolume},
		"missing volume":  {short, y, signer, CodeVolume},
		"encrypted":       {encrypted, y, signer, "encrypted already"},
	} {
		t.Run(name, func(t *testing.T) {
			outbox := t.TempDir()
			out, err := Encrypt(t.Context(), []string{tc.dir}, outbox, tc.enc, tc.signer, nil)
			if out != nil || err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("%v, %v, want %s", out, err, tc.text)
			}
			if left := tree(t, outbox); len(left) > 0 {
				t.Fatalf("left %v", slices.Sorted(mapKeys(left)))
			}
		})
	}
}

// wantDecrypt wants the refusal of somebody who cannot read it.
func wantDecrypt(t *testing.T, err error, texts ...string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != CodeDecrypt || r.Class != nil || !errors.Is(err, ErrNoIdentity) {
		t.Fatalf("got %v, want %s", err, CodeDecrypt)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("no %q in %v", text, err)
		}
	}
}

func TestNoIdentityFits(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa", "recip-bb"))
	_, err := f.attempt(t, newToy(1, "recip-cc"), f.out.Dir)
	wantDecrypt(t, err, "recip-aa, recip-bb", "recip-cc", "encrypted to others")
	_, err = f.attempt(t, nil, f.out.Dir)
	wantDecrypt(t, err, "recip-aa, recip-bb", "no identity was given")
	_, err = Recut(t.Context(), []string{f.out.Dir}, t.TempDir(), SealOptions{})
	if err == nil || !strings.Contains(err.Error(), "encrypted") {
		t.Fatal(err)
	}
	r, err := Open(f.out.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, r)
	vols, err := r.Volumes()
	if err != nil || len(vols) != len(f.out.Volumes) {
		t.Fatal(vols, err)
	}
	for _, v := range vols {
		if v.State != Have || v.Err(len(vols)) != nil || !strings.HasSuffix(v.Name, ".tar.age") {
			t.Errorf("%+v", v)
		}
	}
	if _, err := r.Unverified(); err == nil {
		t.Fatal("read without an identity")
	}
	// The same reader goes on once there is one.
	r.UseDecrypter(f.toy)
	if _, _, err := r.Verify(f.trust); err != nil {
		t.Fatal(err)
	}
	if err := copyAll(t.Context(), r, f.content); err != nil {
		t.Fatal(err)
	}
}

// Nothing is decrypted before the outer signature and the digest are good.
func TestNothingIsDecryptedBeforeTheSignature(t *testing.T) {
	f := encryptSmall(t, newToy(1, "recip-aa"))
	_, stranger := testSigner(t, "exporter-b")
	for name, tc := range map[string]struct {
		trust Trust
		spoil string // a file
		opens int
		code  string
	}{
		"stranger":         {Trust{Keys: []TrustedKey{stranger}}, "", 0, CodeKey},
		"list":             {f.trust, carriedName, 0, CodeFormat},
		"envelope":         {f.trust, envelopeName + encryptedExt, 0, CodeFormat},
		"volumes.json":     {f.trust, volumesName + encryptedExt, 1, CodeVolumes},
		"head of a volume": {f.trust, "volumes/volume-00001.tar.age", 2, CodeVolume},
	} {
		t.Run(name, func(t *testing.T) {
			dir := f.copyTree(t)
			if tc.spoil != "" {
				flip(t, filepath.Join(dir, tc.spoil), 30)
			}
			y := newToy(1, "recip-aa")
			r, err := Open(dir)
			if err == nil {
				defer closeIt(t, r)
				r.UseDecrypter(y)
				_, _, err = r.Verify(tc.trust)
			}
			if err == nil {
				err = r.Copy(t.Context(), r.m.Blobs[0], &bytes.Buffer{})
			}
			wantCode(t, err, tc.code)
			if *y.decrypted != tc.opens {
				t.Fatalf("%d files were decrypted, want %d", *y.decrypted, tc.opens)
			}
		})
	}
}

func flip(t testing.TB, path string, at int) {
	t.Helper()
	data := readFile(t, path)
	data[at] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
