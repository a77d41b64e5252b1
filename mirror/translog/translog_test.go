package translog

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func edSigner(name string) bundle.Signer {
	seed := artifact.Sum([]byte(name))
	return bundle.Signer{Name: name, Signer: ed25519.NewKeyFromSeed(seed[:])}
}

func ecSigner(t testing.TB, name string) bundle.Signer {
	t.Helper()
	seed := artifact.Sum([]byte(name))
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Signer{Name: name, Signer: key}
}

// entry is the nth of a stream.
func entry(n uint64) Entry {
	return Entry{
		Event: Sealed, Stream: "main", Seq: n, Bundle: artifact.Sum(fmt.Append(nil, n)),
		Time: time.Date(2026, 11, 23, 10, 0, int(n%60), 0, time.UTC), Signers: []string{"exporter-a"}, Detail: "a <b> & \"c\"",
	}
}

func mustOpen(t testing.TB, dir string, s bundle.Signer) *Log {
	t.Helper()
	l, err := Open(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustAppend(t testing.TB, l *Log, e Entry) int64 {
	t.Helper()
	i, err := l.Append(e)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// newLog makes a log of n entries.
func newLog(t testing.TB, n uint64) (string, *Log) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	l := mustOpen(t, dir, edSigner("exporter-a"))
	for i := range n {
		if at := mustAppend(t, l, entry(i+1)); at != int64(i) {
			t.Fatalf("entry %d has index %d", i, at)
		}
	}
	return dir, l
}

// wantRefused fails unless err is this package's refusal and says all of it.
func wantRefused(t testing.TB, err error, want ...string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != CodeLog || !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("got %v, want a refusal that says %q", err, want)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
}

func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	s := edSigner("exporter-a")
	l := mustOpen(t, dir, s)
	if l.Size() != 0 || l.Checkpoint() != nil || l.Check(t.Context()) != nil {
		t.Fatal("an empty log is not empty")
	}
	local := time.FixedZone("x", 3600)
	lost := Entry{Event: Lost, Stream: "b", Seq: 7, Time: time.Date(2026, 11, 23, 1, 0, 0, 999, local)}
	list := []Entry{entry(1), entry(2), lost, {Event: Imported, Stream: "main", Seq: 1, Bundle: entry(1).Bundle, Time: entry(1).Time}}
	for i, e := range list {
		if at := mustAppend(t, l, e); at != int64(i) {
			t.Fatalf("entry %d got index %d", i, at)
		}
	}
	// Again, at another time: nothing changes.
	before := tree(t, dir)
	for i, e := range list {
		e.Time, e.Detail = e.Time.Add(time.Hour), "again"
		if at := mustAppend(t, l, e); at != int64(i) {
			t.Fatalf("entry %d again has index %d", i, at)
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	// Another bundle of the same number is another fact.
	fork := entry(2)
	fork.Bundle = artifact.Sum([]byte("fork"))
	if at := mustAppend(t, l, fork); at != 4 {
		t.Fatal(at)
	}
	list = append(list, fork)
	list[2].Time = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for i := range list {
		if list[i].Signers == nil {
			list[i].Signers = []string{}
		}
	}
	for name, l := range map[string]*Log{"same": l, "opened again": mustOpen(t, dir, s), "read-only": mustOpen(t, dir, bundle.Signer{})} {
		if l.Size() != 5 {
			t.Fatalf("%s: size %d", name, l.Size())
		}
		for i, want := range list {
			got, err := l.Entry(int64(i))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("%s: %s %v", name, diff, err)
			}
		}
		for want, at := range map[int64]place{0: {Sealed, "main", 1}, 4: {Sealed, "main", 2}, 2: {Lost, "b", 7}, 3: {Imported, "main", 1}} {
			if got, ok := l.Find(at.event, at.stream, at.seq); !ok || got != want {
				t.Errorf("%s: %v: got %d %v, want %d", name, at, got, ok, want)
			}
		}
		if _, ok := l.Find(Imported, "main", 2); ok {
			t.Errorf("%s: found what is not there", name)
		}
		for _, i := range []int64{-1, 5} {
			if _, err := l.Entry(i); err == nil {
				t.Errorf("%s: entry %d", name, i)
			}
			if _, err := l.Prove(i); err == nil {
				t.Errorf("%s: proof of %d", name, i)
			}
		}
		if err := l.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := mustOpen(t, dir, bundle.Signer{}).Append(entry(9)); !errors.Is(err, errReadOnly) {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(dir, "none"), bundle.Signer{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	// The lines are what people and other programs read.
	want := `{"event":"sealed","stream":"main","seq":1,"bundle":"sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b","time":"2026-11-23T10:00:01Z","signers":["exporter-a"],"detail":"a <b> & \"c\""}`
	if got, _, _ := strings.Cut(before[entriesName], "\n"); got != want {
		t.Errorf("got %s", got)
	}
}

// A log has one key.
func TestOtherKey(t *testing.T) {
	dir, l := newLog(t, 2)
	_, err := Open(dir, edSigner("exporter-b"))
	wantRefused(t, err, "this log's key has not signed it", "want darkmirror/log/", "got "+l.key.name)
	if _, err := VerifyCheckpoint(l.Checkpoint(), edSigner("exporter-b").Public()); err == nil {
		t.Error("another key's checkpoint verifies")
	}
	if n, err := VerifyCheckpoint(l.Checkpoint(), edSigner("exporter-a").Public()); err != nil || n != 2 {
		t.Error(n, err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), append(make([]byte, 47), 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.TempDir(), bundle.Signer{Name: "x", Signer: key}); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Error(err)
	}
}

// Other implementations of notes read our checkpoints.
func TestCheckpointFormat(t *testing.T) {
	_, l := newLog(t, 3)
	pub := edSigner("exporter-a").Public().(ed25519.PublicKey)
	origin := "darkmirror/log/" + bundle.KeyID(pub)[:16]
	vkey, err := note.NewEd25519VerifierKey(origin, pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(l.Checkpoint(), note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s\n3\n%s\n", origin, base64.StdEncoding.EncodeToString(slowRoot(t, l, 3))); n.Text != want {
		t.Fatalf("got %q, want %q", n.Text, want)
	}

	// ECDSA: type 0x02, key id and signature taken apart by hand.
	s := ecSigner(t, "token-a")
	dir := t.TempDir()
	el := mustOpen(t, dir, s)
	mustAppend(t, el, entry(1))
	text, sigs, ok := bytes.Cut(el.Checkpoint(), []byte("\n\n"))
	fields := strings.Fields(string(sigs))
	if !ok || len(fields) != 3 {
		t.Fatalf("%s", el.Checkpoint())
	}
	raw, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	id, sum := sha256.Sum256(der), sha256.Sum256(append(text, '\n'))
	if !bytes.Equal(raw[:4], id[:4]) || !ecdsa.VerifyASN1(s.Public().(*ecdsa.PublicKey), sum[:], raw[4:]) {
		t.Fatalf("%s", el.Checkpoint())
	}
	el = mustOpen(t, dir, s)
	mustAppend(t, el, entry(2))
	p, err := el.Prove(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(el.Check(t.Context()), p.Verify(s.Public(), entry(1))); err != nil {
		t.Fatal(err)
	}

	// Signatures of witnesses beside ours are passed over where they come from
	// outside, and are no part of our own file.
	witness, err := newKey(edSigner("witness").Public())
	if err != nil {
		t.Fatal(err)
	}
	witness.signer = edSigner("witness")
	both, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs}, witness)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := VerifyCheckpoint(both, pub); err != nil || size != 3 {
		t.Fatal(size, err)
	}
	if err := l.Consistency(both); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.file(checkpointName), both, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(l.dir, edSigner("exporter-a"))
	wantRefused(t, err, "there are more signatures in it than this log writes")
}

// refuses is a key that does not sign when it is told so.
type refuses struct {
	crypto.Signer
	now *bool
}

func (r refuses) Sign(rand io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if *r.now {
		return nil, errors.New("the token is gone")
	}
	return r.Signer.Sign(rand, msg, opts)
}

// After an error the log goes on as if nothing had been asked.
func TestAppendAgain(t *testing.T) {
	var off bool
	s := bundle.Signer{Name: "exporter-a", Signer: refuses{edSigner("exporter-a"), &off}}
	dir := t.TempDir()
	l := mustOpen(t, dir, s)
	for n := range uint64(9) {
		off = true
		if _, err := l.Append(entry(100 + n)); err == nil || !strings.Contains(err.Error(), "the token is gone") {
			t.Fatal(err)
		}
		if l.Size() != int64(n) {
			t.Fatal(l.Size())
		}
		off = false
		if at := mustAppend(t, l, entry(n+1)); at != int64(n) {
			t.Fatal(at)
		}
	}
	want, _ := newLog(t, 9)
	if diff := cmp.Diff(tree(t, want), tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	// A bad entry is refused before anything is written.
	before := tree(t, dir)
	for name, e := range badEntries() {
		if _, err := l.Append(e); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	// A faulty token's signature is not used.
	l.key.signer = wrong{edSigner("exporter-a")}
	if _, err := l.Append(entry(10)); err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Fatal(err)
	}
	if again := mustOpen(t, dir, edSigner("exporter-a")); again.Size() != 9 {
		t.Fatal(again.Size())
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
}

// wrong signs like a faulty token.
type wrong struct{ crypto.Signer }

func (w wrong) Sign(rand io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := w.Signer.Sign(rand, msg, opts)
	if err == nil {
		sig[3] ^= 1
	}
	return sig, err
}

// A checkpoint that was signed and did not get its name is finished: somebody
// may have seen it, and another of the same size would be a fork.
func TestUnfinished(t *testing.T) {
	dir, l := newLog(t, 4)
	before := tree(t, dir)
	mustAppend(t, l, entry(5))
	after := tree(t, dir)
	s := edSigner("exporter-a")
	left := maps.Clone(after)
	left[durable.TempPrefix+"1"] = after[checkpointName]
	left[durable.TempPrefix+"0"] = after[checkpointName][:20]
	left[checkpointName] = before[checkpointName]
	writeTree(t, dir, left)
	if got := mustOpen(t, dir, bundle.Signer{}); got.Size() != 4 || got.Check(t.Context()) == nil {
		t.Fatalf("read-only: %d entries", got.Size())
	}
	if diff := cmp.Diff(left, tree(t, dir)); diff != "" {
		t.Fatalf("read-only, and written to: %s", diff)
	}
	if got := mustOpen(t, dir, s); got.Size() != 5 || got.Check(t.Context()) != nil {
		t.Fatal(got.Size())
	}
	if diff := cmp.Diff(after, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	// Not whole: the line is cut off.
	delete(left, durable.TempPrefix+"1")
	writeTree(t, dir, left)
	if got := mustOpen(t, dir, s); got.Size() != 4 {
		t.Fatal(got.Size())
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Fatal(diff)
	}
	// Signed, and the line is another one: no second checkpoint is made.
	left = maps.Clone(left)
	left[durable.TempPrefix+"1"] = after[checkpointName]
	left[entriesName] = strings.Replace(left[entriesName], `"seq":5`, `"seq":6`, 1)
	writeTree(t, dir, left)
	_, err := Open(dir, s)
	wantRefused(t, err, "line 5")
	// Of another key: nothing that is looked at.
	alien := mustOpen(t, t.TempDir(), edSigner("stranger"))
	for i := range uint64(5) {
		mustAppend(t, alien, entry(i+1))
	}
	left[durable.TempPrefix+"1"] = string(alien.Checkpoint())
	writeTree(t, dir, left)
	if got := mustOpen(t, dir, s); got.Size() != 4 {
		t.Fatal(got.Size())
	}
}

func TestConsistencyRefused(t *testing.T) {
	_, l := newLog(t, 6)
	other := mustOpen(t, t.TempDir(), edSigner("exporter-a"))
	mustAppend(t, other, entry(9))
	wantRefused(t, l.Consistency(other.Checkpoint()), "older checkpoint of 1 entries", "an entry was changed, or this is another log")
	alien := mustOpen(t, t.TempDir(), edSigner("stranger"))
	mustAppend(t, alien, entry(1))
	wantRefused(t, l.Consistency(alien.Checkpoint()), "this log's key has not signed it")
	wantRefused(t, l.Consistency(nil), "it is not a signed note")
	wantRefused(t, mustOpen(t, t.TempDir(), edSigner("exporter-a")).Consistency(l.Checkpoint()), "the log has fewer", "0 entries")
	k, err := newKey(edSigner("exporter-a").Public())
	if err != nil {
		t.Fatal(err)
	}
	k.signer = edSigner("exporter-a")
	for root, want := range map[tlog.Hash]string{sha256.Sum256(nil): "", {1}: "the entries do not give its root hash"} {
		c, err := k.sign(tlog.Tree{N: 0, Hash: root})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Consistency(c.raw); want == "" && err != nil {
			t.Error(err)
		} else if want != "" {
			wantRefused(t, err, want)
		}
	}
}
