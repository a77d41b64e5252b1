package apt

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// state lists a tree: path to content.
func state(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func published(t *testing.T, p *Publisher) *Release {
	t.Helper()
	b, err := os.ReadFile(p.inTree("debian/dists/test/InRelease"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := acceptedRelease(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What we publish is read again by our own source, with the inside key as the
// pinned one.
func TestPublishedIsAnUpstream(t *testing.T) {
	w := newWorld(t, apttest.Suite{
		Packages: threePackages, ValidFor: time.Hour, ByHash: true,
		Extra: "NotAutomatic: yes\nButAutomaticUpgrades: yes\nSigned-By: " + strings.Repeat("A", 40) + "\nSnapshots: https://mirror.example/@SNAPSHOTID@\nChangelogs: https://mirror.example/@CHANGEPATH@\n",
	})
	snap := w.resolve(w.config("jq"))
	w.publish(snap, 1, time.Now())
	p := w.publisher()
	inside := httptest.NewServer(NewHandler(p.Tree(), w.dir, w.st, nil))
	defer inside.Close()

	c := w.config("jq")
	c.Archives[0].URL = inside.URL + "/debian"
	c.Archives[0].SignedBy = []string{filepath.Join(p.Tree(), keyringText)}
	st := newStore(t)
	src := sourceOf(t, c, st, inside.URL)
	again, _, err := src.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(artifactNames(snap), artifactNames(again)); diff != "" {
		t.Error(diff)
	}
	for f := range again.Files {
		if err := src.Fetch(t.Context(), f); err != nil {
			t.Error(err)
		}
	}
	r := published(t, p)
	if r.Origin != "Test" || r.Suite != "test" || !r.NotAutomatic || !r.ButAutomaticUpgrades || !r.AcquireByHash || !r.NoSupportAll || !r.ValidUntil.IsZero() {
		t.Errorf("%+v", r)
	}
	text, err := os.ReadFile(p.inTree("debian/dists/test/Release"))
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"Signed-By", "Snapshots", "Valid-Until", "mirror.example", "MD5Sum"} {
		if bytes.Contains(text, []byte(gone)) {
			t.Errorf("%s is still there:\n%s", gone, text)
		}
	}
	// Stanzas are upstream's bytes, and only the selected ones.
	up, err := os.ReadFile(p.inTree("debian/dists/test/main/binary-amd64/Packages"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(up, []byte("Description: command-line JSON processor\n It has a long description, which is\n .\n kept byte for byte.\n")) {
		t.Errorf("the description was changed:\n%s", up)
	}
	if !bytes.HasSuffix(up, []byte("\n\n")) {
		t.Error("no empty line after the last stanza")
	}
	if bytes.Contains(up, []byte("Package: other")) {
		t.Error("a package that was not selected is published")
	}
}

func TestPublishAgain(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	snap := w.resolve(w.config("jq"))
	now := time.Now()
	w.publish(snap, 1, now)
	p := w.publisher()
	before := state(t, p.Tree())
	first := published(t, p).Date

	// The same again, an hour later: nothing changes.
	w.publish(snap, 1, now.Add(time.Hour))
	if diff := cmp.Diff(before, state(t, p.Tree())); diff != "" {
		t.Error(diff)
	}

	// Damage of every file is healed.
	for name := range before {
		if strings.HasSuffix(name, ".deb") {
			continue // the same inode as in the store, which looks after it
		}
		full := filepath.Join(p.Tree(), name)
		if err := os.Remove(full); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.publish(snap, 1, now.Add(time.Hour))
		after := state(t, p.Tree())
		for n, b := range before {
			if strings.HasSuffix(n, "InRelease") || strings.HasSuffix(n, ".gpg") {
				continue // signatures have a random part
			}
			if after[n] != b {
				t.Errorf("after damage to %s: %s is not what it was", name, n)
			}
		}
		if len(after) != len(before) {
			t.Errorf("after damage to %s: %d files, want %d", name, len(after), len(before))
		}
	}
	if got := published(t, p).Date; !got.Equal(first) {
		t.Errorf("Date rose from %v to %v without a change", first, got)
	}
}

func TestDateRises(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	a, b := w.resolve(w.config("jq")), w.resolve(w.config("jq", "other"))
	now := time.Now()
	var last time.Time
	for i, snap := range []*artifact.Snapshot{a, b, a, b, a} {
		w.publish(snap, uint64(i), now)
		got := published(t, w.publisher()).Date
		if !got.After(last) || got.After(now) {
			t.Fatalf("publication %d is dated %v after %v", i, got, last)
		}
		last = got
	}
	// A clock that was set back cannot publish anything newer.
	_, err := w.publisher().Publish(t.Context(), b, 9, last.Add(-time.Hour))
	if ref, ok := errors.AsType[*artifact.Refusal](err); !ok || ref.Code != codeClock || !errors.Is(err, artifact.ErrSequence) {
		t.Fatalf("err = %v", err)
	}
}

func TestRetention(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	now := time.Now()
	p := w.publisher()
	objects := func() int {
		n := 0
		for name := range state(t, p.Tree()) {
			if strings.Contains(name, "/by-hash/") {
				n++
			}
		}
		return n
	}
	other := p.inTree("debian/pool/main/other/other_3.0+x~1_all.deb")
	w.publish(w.resolve(w.config("jq", "other")), 1, now)
	w.publish(w.resolve(w.config("jq")), 2, now)
	w.publish(w.resolve(w.config("libjq1")), 3, now)
	w.publish(w.resolve(w.config("libc6")), 4, now)
	if _, err := os.Stat(other); err != nil || objects() != 12 {
		t.Errorf("%d objects, %v: removed within the week", objects(), err)
	}
	w.publish(w.resolve(w.config("libc6")), 5, now.Add(retainTime+time.Hour))
	if _, err := os.Stat(other); !errors.Is(err, fs.ErrNotExist) || objects() != 9 {
		t.Errorf("%d objects, %v: the first publication is kept for ever", objects(), err)
	}
	if _, err := os.Stat(p.inTree("debian/pool/main/jq/jq_1.6-2.1_amd64.deb")); err != nil {
		t.Errorf("the third from last is gone: %v", err)
	}
}

func TestIdentity(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	w.publish(w.resolve(w.config("jq")), 1, time.Now())
	w.add(apttest.Suite{Packages: threePackages, Origin: "Another"})
	snap := w.resolve(w.config("jq"))
	p := w.publisher()
	before := state(t, p.Tree())
	_, err := p.Publish(t.Context(), snap, 2, time.Now())
	if ref, ok := errors.AsType[*artifact.Refusal](err); !ok || ref.Code != codeIdentity {
		t.Fatalf("err = %v", err)
	}
	if diff := cmp.Diff(before, state(t, p.Tree())); diff != "" {
		t.Error(diff)
	}
	p.cfg.AllowIdentityChange = true
	if _, err := p.Publish(t.Context(), snap, 2, time.Now()); err != nil {
		t.Fatal(err)
	}
	p.cfg.Archives[0].Origin = "Test"
	if err := p.Verify(t.Context(), snap, nil); !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("a pinned Origin is not asked for: %v", err)
	}
}

// TestVerifyRefuses: a bastion in wrong hands changes a snapshot in each way
// that would get something past upstream's signature.
func TestVerifyRefuses(t *testing.T) {
	date := time.Now().Add(-time.Hour)
	w := newWorld(t, apttest.Suite{Packages: threePackages, Date: date})
	good := w.resolve(w.config("jq"))
	if err := w.publisher().Verify(t.Context(), good, good); err != nil {
		t.Fatal(err)
	}
	evil, err := apttest.Deb("Package: jq\nVersion: 1.6-2.1\nArchitecture: amd64\nDescription: evil\n")
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) (artifact.Digest, int64) {
		d, err := w.st.PutBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		return d, int64(len(b))
	}
	jq := func(s *artifact.Snapshot) *artifact.Artifact {
		return &s.Artifacts[slices.IndexFunc(s.Artifacts, func(a artifact.Artifact) bool { return a.Name == "jq" })]
	}
	for name, c := range map[string]struct {
		change func(s *artifact.Snapshot)
		code   string
	}{
		"other bytes": {func(s *artifact.Snapshot) { f := &jq(s).Files[0]; f.Digest, f.Size = put(evil) }, codeNotUpstream},
		"one more package": {func(s *artifact.Snapshot) {
			d, n := put(evil)
			s.Artifacts = append(s.Artifacts, artifact.Artifact{Name: "evil", Version: "1", Files: []artifact.File{{Path: "debian/pool/evil.deb", Digest: d, Size: n}}})
		}, codeNotUpstream},
		"another archive": {func(s *artifact.Snapshot) {
			jq(s).Files[0].Path = strings.Replace(jq(s).Files[0].Path, "debian/", "else/", 1)
		}, codeNotUpstream},
		"another version": {func(s *artifact.Snapshot) { jq(s).Version = "99" }, codeNotUpstream},
		"another name":    {func(s *artifact.Snapshot) { jq(s).Name = "bash" }, codeNotUpstream},
		"another index": {func(s *artifact.Snapshot) {
			f := &s.Meta[slices.IndexFunc(s.Meta, func(f artifact.File) bool { return strings.HasSuffix(f.Path, ".xz") })]
			f.Digest, f.Size = put([]byte("evil"))
		}, codeNotUpstream},
		"no index":    {func(s *artifact.Snapshot) { s.Meta = s.Meta[:1] }, codeNotUpstream},
		"no metadata": {func(s *artifact.Snapshot) { s.Meta = nil }, codeNotUpstream},
		"a stray file": {func(s *artifact.Snapshot) {
			d, n := put(evil)
			s.Meta = append(s.Meta, artifact.File{Path: "debian/dists/test/hooks", Digest: d, Size: n})
		}, codeNotUpstream},
		"another suite": {func(s *artifact.Snapshot) {
			for i := range s.Meta {
				s.Meta[i].Path = strings.Replace(s.Meta[i].Path, "/test/", "/prod/", 1)
			}
		}, codeSuite},
		"an archive without keys": {func(s *artifact.Snapshot) {
			for i := range s.Meta {
				s.Meta[i].Path = strings.Replace(s.Meta[i].Path, "debian/", "else/", 1)
			}
		}, codeSignature},
		"signed by the bastion": {func(s *artifact.Snapshot) {
			key, err := apttest.NewKey("bastion")
			if err != nil {
				t.Fatal(err)
			}
			old, err := w.st.ReadAll(s.Meta[0].Digest, maxRelease)
			if err != nil {
				t.Fatal(err)
			}
			text, _, _ := strings.Cut(string(old)[strings.Index(string(old), "Origin:"):], "-----BEGIN")
			doc, err := apttest.Clearsign(key, text, 0)
			if err != nil {
				t.Fatal(err)
			}
			s.Meta[0].Digest, s.Meta[0].Size = put(doc)
		}, codeSignature},
		"another source": {func(s *artifact.Snapshot) { s.Source = "apt/else" }, codeNotUpstream},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := good.Encode()
			if err != nil {
				t.Fatal(err)
			}
			s, err := artifact.DecodeSnapshot(b)
			if err != nil {
				t.Fatal(err)
			}
			c.change(s)
			err = w.publisher().Verify(t.Context(), s, nil)
			ref, ok := errors.AsType[*artifact.Refusal](err)
			if !ok || ref.Code != c.code || !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("err = %v, want %s", err, c.code)
			}
		})
	}
	// An older Release than the one before is a replay.
	w.add(apttest.Suite{Packages: threePackages, Date: date.Add(-time.Hour)})
	old := w.resolve(w.config("jq"))
	err = w.publisher().Verify(t.Context(), old, good)
	if ref, ok := errors.AsType[*artifact.Refusal](err); !ok || ref.Code != codeRollback {
		t.Fatalf("err = %v", err)
	}
}

// A Release may expire while it crosses.
func TestVerifyExpired(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages, ValidFor: time.Hour})
	snap := w.resolve(w.config("jq"))
	p := w.publisher()
	p.Now = func() time.Time { return time.Now().AddDate(0, 1, 0) }
	if err := p.Verify(t.Context(), snap, nil); err != nil {
		t.Fatal(err)
	}
}

func TestPublishCancelled(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	snap := w.resolve(w.config("jq"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.publisher().Publish(ctx, snap, 1, time.Now()); !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v", err)
	}
}

func TestSigningKey(t *testing.T) {
	w := newWorld(t, apttest.Suite{Packages: threePackages})
	snap := w.resolve(w.config("jq"))
	p := w.publisher()
	p.cfg.SigningKey = filepath.Join(t.TempDir(), "none.asc")
	if _, err := p.Publish(t.Context(), snap, 1, time.Now()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a configured key that is missing: %v", err)
	}
	w.publish(snap, 1, time.Now())
	fi, err := os.Stat(filepath.Join(w.dir, "signing-key.asc"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", fi, err)
	}
	for name, b := range state(t, w.publisher().Tree()) {
		if strings.Contains(b, "PRIVATE KEY") {
			t.Errorf("%s holds the private key", name)
		}
	}
}
