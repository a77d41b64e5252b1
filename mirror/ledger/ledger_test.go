package ledger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// childEnv makes the test binary a child process that holds the ledger it
// names, with a record half written, until it is killed.
const childEnv = "LEDGER_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(child(path))
	}
	os.Exit(m.Run())
}

func child(path string) int {
	l, err := Open(path, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err = l.db.Update(func(tx *bolt.Tx) error {
		rec := sealed(2, artifact.Sum([]byte("1")))
		if err := put(stream(tx, bucketSealed, "main"), seqKey(2), &rec); err != nil {
			return err
		}
		fmt.Println("holding")
		// Until SIGKILL, or until the parent is gone.
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return err
		}
		return errors.New("not killed")
	})
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func day(n int) time.Time { return time.Date(2026, 11, n, 8, 0, 0, 0, time.UTC) }

func sealed(seq uint64, prev artifact.Digest) Sealed {
	return Sealed{
		Stream: "main", Seq: seq, ID: artifact.Sum(fmt.Append(nil, seq)), Prev: prev, Base: seq - 1,
		Issued: day(int(seq)), Expires: day(int(seq) + 20), Bytes: 4096, PayloadBytes: 1000, Blobs: 3, Volumes: 1, Dir: "outbox/x",
		Held: 1, Missing: 2, Sources: []SourceState{{Name: "pypi/main", Snapshot: artifact.Sum([]byte("s"))}}, State: StateSealed,
	}
}

func imported(seq uint64, issued time.Time) Imported {
	return Imported{
		Stream: "main", Seq: seq, ID: artifact.Sum(fmt.Append(nil, seq)), Issued: issued, Expires: issued.AddDate(0, 1, 0),
		Time: issued.Add(time.Hour), SignedBy: []string{"exporter-a"}, Sources: []SourceState{}, Missing: 1,
	}
}

func blobs(from, to int) []artifact.Digest {
	var ds []artifact.Digest
	for i := from; i < to; i++ {
		ds = append(ds, artifact.Sum(fmt.Append(nil, "blob", i)))
	}
	return ds
}

func newLedger(t *testing.T) (*Ledger, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	return reopen(t, path), path
}

func reopen(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSealedRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := Open(path, 0)
	must(t, err)
	one := sealed(1, artifact.Digest{})
	two := sealed(2, one.ID)
	must(t, l.RecordSealed(one, blobs(0, 3)))
	must(t, l.RecordSealed(two, blobs(2, 5)))
	must(t, l.Close())

	l = reopen(t, path)
	all, err := l.Sealed("main")
	must(t, err)
	if diff := cmp.Diff([]Sealed{one, two}, all); diff != "" {
		t.Errorf("Sealed (-want +got):\n%s", diff)
	}
	lastRec, ok, err := l.LastSealed("main")
	must(t, err)
	if !ok || lastRec.Seq != 2 {
		t.Errorf("LastSealed = %06d, %v, want 000002", lastRec.Seq, ok)
	}
	// Blob 2 is in both bundles: the first is the one to require.
	for i, want := range []uint64{1, 1, 1, 2, 2} {
		seq, ok, err := l.Carried("main", blobs(i, i+1)[0])
		if err != nil || !ok || seq != want {
			t.Errorf("Carried(blob %d) = %d, %v, %v, want %d", i, seq, ok, err, want)
		}
	}
	if _, ok, err := l.Carried("main", blobs(5, 6)[0]); ok || err != nil {
		t.Errorf("Carried(absent) = %v, %v", ok, err)
	}
	if _, ok, err := l.Carried("other", blobs(0, 1)[0]); ok || err != nil {
		t.Errorf("Carried(other stream) = %v, %v", ok, err)
	}
	if _, ok, err := l.LastSealed("other"); ok || err != nil {
		t.Errorf("LastSealed(other stream) = %v, %v", ok, err)
	}
}

func TestRecordSealedRefusesWhatDoesNotFollow(t *testing.T) {
	l, _ := newLedger(t)
	if err := l.RecordSealed(sealed(2, artifact.Digest{}), nil); !errors.Is(err, artifact.ErrSequence) {
		t.Errorf("first bundle 000002: %v, want a sequence refusal", err)
	}
	one := sealed(1, artifact.Digest{})
	must(t, l.RecordSealed(one, blobs(0, 1)))
	for name, rec := range map[string]Sealed{
		"same again":  one,
		"gap":         sealed(3, one.ID),
		"zero":        sealed(0, one.ID),
		"other prev":  sealed(2, artifact.Sum([]byte("fork"))),
		"absent prev": sealed(2, artifact.Digest{}),
	} {
		t.Run(name, func(t *testing.T) {
			err := l.RecordSealed(rec, blobs(10, 12))
			if !errors.Is(err, artifact.ErrSequence) {
				t.Errorf("got %v, want a sequence refusal", err)
			}
			r, ok := errors.AsType[*artifact.Refusal](err)
			if !ok || r.Code != "LEDGER-SEQUENCE" {
				t.Errorf("code of %v, want LEDGER-SEQUENCE", err)
			}
		})
	}
	// Nothing of a refused record stays: neither its blobs nor its number.
	if _, ok, err := l.Carried("main", blobs(10, 11)[0]); ok || err != nil {
		t.Errorf("a refused bundle's blob counts as carried (%v)", err)
	}
	if all, err := l.Sealed("main"); err != nil || len(all) != 1 {
		t.Errorf("%d bundles, %v, want 1", len(all), err)
	}
	bad := sealed(2, one.ID)
	bad.Stream = "../x"
	if err := l.RecordSealed(bad, nil); err == nil {
		t.Error("a stream name that is a path was accepted")
	}
	bad = sealed(2, one.ID)
	bad.Dir = "not\xffutf8"
	if err := l.RecordSealed(bad, nil); err == nil {
		t.Error("a record that cannot be read back was accepted")
	}
}

func TestMarkLostFreesWhatItCarriedFirst(t *testing.T) {
	l, _ := newLedger(t)
	one := sealed(1, artifact.Digest{})
	must(t, l.RecordSealed(one, blobs(0, 500)))
	must(t, l.RecordSealed(sealed(2, one.ID), blobs(400, 900)))
	for range 2 {
		must(t, l.MarkLost("main", 2))
	}
	for i := range 900 {
		_, ok, err := l.Carried("main", blobs(i, i+1)[0])
		if want := i < 500; err != nil || ok != want {
			t.Fatalf("Carried(blob %d) = %v, %v, want %v", i, ok, err, want)
		}
	}
	rec, _, err := l.LastSealed("main")
	if err != nil || rec.State != StateLost || rec.Seq != 2 {
		t.Errorf("LastSealed = %06d %s, %v, want 000002 lost", rec.Seq, rec.State, err)
	}
	for _, name := range []string{"main", "other"} {
		if err := l.MarkLost(name, 7); !errors.Is(err, ErrUnknownBundle) {
			t.Errorf("MarkLost(%s, 7) = %v, want ErrUnknownBundle", name, err)
		}
	}
	// The sequence goes on, and the blobs are carried again.
	must(t, l.RecordSealed(sealed(3, rec.ID), blobs(500, 501)))
	if seq, ok, err := l.Carried("main", blobs(500, 501)[0]); seq != 3 || !ok || err != nil {
		t.Errorf("Carried = %d, %v, %v, want 3", seq, ok, err)
	}
}

func TestImportedRaisesFloor(t *testing.T) {
	l, _ := newLedger(t)
	if f, err := l.Floor(); err != nil || !f.IsZero() {
		t.Errorf("Floor = %v, %v, want zero", f, err)
	}
	three := imported(3, day(3).Add(1500*time.Millisecond))
	must(t, l.RecordImported(three))
	must(t, l.RecordImported(imported(2, day(1)))) // late, and older
	must(t, l.RecordImported(three))               // a rerun
	if f, err := l.Floor(); err != nil || !f.Equal(three.Issued) {
		t.Errorf("Floor = %v, %v, want %v", f, err, three.Issued)
	}
	got, ok, err := l.Imported("main", 3)
	must(t, err)
	if diff := cmp.Diff(three, got); !ok || diff != "" {
		t.Errorf("Imported (-want +got):\n%s", diff)
	}
	if rec, ok, err := l.LastImported("main"); err != nil || !ok || rec.Seq != 3 {
		t.Errorf("LastImported = %d, %v, %v, want 3", rec.Seq, ok, err)
	}
	if _, ok, err := l.Imported("main", 1); ok || err != nil {
		t.Errorf("Imported(absent) = %v, %v", ok, err)
	}
	fork := imported(3, day(9))
	fork.ID = artifact.Sum([]byte("fork"))
	if err := l.RecordImported(fork); !errors.Is(err, artifact.ErrSequence) {
		t.Errorf("another bundle 000003: %v, want a sequence refusal", err)
	}
	if err := l.RecordImported(imported(0, day(9))); !errors.Is(err, artifact.ErrSequence) {
		t.Errorf("bundle 000000: %v, want a sequence refusal", err)
	}
	if f, err := l.Floor(); err != nil || !f.Equal(three.Issued) {
		t.Errorf("Floor after refusals = %v, %v, want %v", f, err, three.Issued)
	}
}

func TestPublished(t *testing.T) {
	l, _ := newLedger(t)
	if _, ok, err := l.PublishedSnapshot("pypi/main"); ok || err != nil {
		t.Errorf("PublishedSnapshot before any = %v, %v", ok, err)
	}
	old := Published{Source: "pypi/main", Snapshot: artifact.Sum([]byte("a")), Stream: "main", Seq: 4, Time: day(1)}
	apt := Published{Source: "apt/bookworm", Snapshot: artifact.Sum([]byte("b")), Stream: "main", Seq: 4, Time: day(1)}
	must(t, l.RecordPublished(old))
	must(t, l.RecordPublished(apt))
	back := old
	back.Seq, back.Time = 2, day(2).In(time.FixedZone("", 3600))
	must(t, l.RecordPublished(back))
	rec, ok, err := l.PublishedSnapshot("pypi/main")
	must(t, err)
	if diff := cmp.Diff(back, rec); !ok || diff != "" {
		t.Errorf("PublishedSnapshot (-want +got):\n%s", diff)
	}
	all, err := l.Published()
	must(t, err)
	if diff := cmp.Diff([]Published{apt, back}, all); diff != "" {
		t.Errorf("Published (-want +got):\n%s", diff)
	}
	if err := l.RecordPublished(Published{Source: "PyPI"}); err == nil {
		t.Error("a malformed source name was accepted")
	}
}

func TestStreams(t *testing.T) {
	l, _ := newLedger(t)
	must(t, l.RecordSealed(sealed(1, artifact.Digest{}), nil))
	must(t, l.RecordImported(imported(1, day(1))))
	other := imported(1, day(1))
	other.Stream = "edge"
	must(t, l.RecordImported(other))
	got, err := l.Streams()
	must(t, err)
	if diff := cmp.Diff([]string{"edge", "main"}, got); diff != "" {
		t.Errorf("Streams (-want +got):\n%s", diff)
	}
}

func TestRunsKeepsTheLast(t *testing.T) {
	l, path := newLedger(t)
	l.db.NoSync = true // 203 fsyncs prove nothing here
	for i := range keepRuns + 3 {
		must(t, l.RecordRun(Run{Command: "export", Started: day(1), Finished: day(1).Add(time.Duration(i) * time.Second), ExitCode: i % 5, Note: "bad \xff and \ufffd"}))
	}
	runs, err := l.Runs(1000)
	must(t, err)
	if len(runs) != keepRuns {
		t.Fatalf("%d runs are kept, want %d", len(runs), keepRuns)
	}
	want := Run{Command: "export", Started: day(1), Finished: day(1).Add((keepRuns + 2) * time.Second), ExitCode: (keepRuns + 2) % 5, Note: "bad ? and ?"}
	if diff := cmp.Diff(want, runs[0]); diff != "" {
		t.Errorf("newest run of %s (-want +got):\n%s", path, diff)
	}
	if few, err := l.Runs(2); err != nil || len(few) != 2 {
		t.Errorf("Runs(2) gives %d, %v", len(few), err)
	}
	must(t, l.RecordRun(Run{Command: "long", Note: strings.Repeat("é", maxNote)}))
	if runs, err = l.Runs(1); err != nil || len(runs[0].Note) > maxNote {
		t.Errorf("a long note is kept with %d bytes, %v", len(runs[0].Note), err)
	}
}

func TestOpenSecondIsLocked(t *testing.T) {
	l, path := newLedger(t)
	must(t, l.RecordSealed(sealed(1, artifact.Digest{}), nil))
	for name, try := range map[string]func() (*Ledger, error){
		"writer":         func() (*Ledger, error) { return Open(path, 0) },
		"waiting writer": func() (*Ledger, error) { return Open(path, 120*time.Millisecond) },
		"reader":         func() (*Ledger, error) { return OpenReadOnly(path) },
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := try()
			le, ok := errors.AsType[*LockedError](err)
			if !ok || !errors.Is(err, ErrLocked) || le.Path != path {
				t.Fatalf("got %v, want a LockedError of %s", err, path)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("it took %v to say so", d)
			}
		})
	}
	if err := l.RecordSealed(sealed(2, sealed(1, artifact.Digest{}).ID), nil); err != nil {
		t.Errorf("the holder of the lock was disturbed: %v", err)
	}
}

func TestOpenReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if _, err := OpenReadOnly(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v, want fs.ErrNotExist", err)
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := OpenReadOnly(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty: %v, want fs.ErrNotExist", err)
	}
	w, err := Open(path, 0) // heals the empty file
	must(t, err)
	must(t, w.RecordSealed(sealed(1, artifact.Digest{}), blobs(0, 1)))
	must(t, w.Close())

	a, err := OpenReadOnly(path)
	must(t, err)
	b, err := OpenReadOnly(path)
	must(t, err)
	for _, l := range []*Ledger{a, b} {
		if all, err := l.Sealed("main"); err != nil || len(all) != 1 {
			t.Errorf("a reader sees %d bundles, %v", len(all), err)
		}
	}
	if err := a.RecordRun(Run{Command: "status"}); err == nil {
		t.Error("a reader could write")
	}
	if _, err := Open(path, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("a writer beside readers: %v, want ErrLocked", err)
	}
	must(t, errors.Join(a.Close(), b.Close()))
}

// A run killed between bbolt's first pages and our layout leaves a file that
// reads as empty and that the next run completes.
func TestOpenHealsFileWithoutLayout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Close())
	l, err := OpenReadOnly(path)
	must(t, err)
	if _, ok, err := l.LastSealed("main"); ok || err != nil {
		t.Errorf("LastSealed = %v, %v", ok, err)
	}
	if runs, err := l.Runs(3); len(runs) != 0 || err != nil {
		t.Errorf("Runs = %v, %v", runs, err)
	}
	if names, err := l.Streams(); len(names) != 0 || err != nil {
		t.Errorf("Streams = %v, %v", names, err)
	}
	must(t, l.Close())
	w := reopen(t, path)
	must(t, w.RecordSealed(sealed(1, artifact.Digest{}), nil))
}

func TestOpenRefusesNewerVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	for _, v := range []string{"3", "0", "x", ""} {
		l, err := Open(path, 0)
		must(t, err)
		must(t, l.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyVersion, []byte(v)) }))
		must(t, l.Close())
		if _, err := Open(path, 0); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("version %q: Open says %v, want a refusal that names the file", v, err)
		}
		if _, err := OpenReadOnly(path); err == nil {
			t.Errorf("version %q: OpenReadOnly accepts it", v)
		}
		must(t, os.Remove(path))
	}
}

func TestDamagedRecordIsReported(t *testing.T) {
	l, _ := newLedger(t)
	must(t, l.RecordSealed(sealed(1, artifact.Digest{}), blobs(0, 1)))
	d := blobs(0, 1)[0]
	must(t, l.db.Update(func(tx *bolt.Tx) error {
		return errors.Join(
			stream(tx, bucketSealed, "main").Put(seqKey(1), []byte(`{"seq":1,"seq":2}`)),
			stream(tx, bucketCarried, "main").Put(d[:], []byte("short")),
			tx.Bucket(bucketMeta).Put(keyFloor, []byte("yesterday")),
		)
	}))
	if rec, _, err := l.LastSealed("main"); err == nil || rec.Seq != 0 {
		t.Errorf("LastSealed = %+v, %v, want an error", rec, err)
	}
	if all, err := l.Sealed("main"); err == nil || all != nil {
		t.Errorf("Sealed = %v, %v, want an error", all, err)
	}
	if seq, ok, err := l.Carried("main", d); err == nil || ok || seq != 0 {
		t.Errorf("Carried = %v, %v, %v, want an error", seq, ok, err)
	}
	if _, err := l.Floor(); err == nil {
		t.Error("Floor accepts a time that is none")
	}
	if err := l.RecordSealed(sealed(2, artifact.Digest{}), nil); err == nil {
		t.Error("a bundle was recorded after one that cannot be read")
	}
}

// A run that is killed inside a transaction frees the lock and leaves the
// state before it.
func TestKilledRunLeavesTheStateBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l, err := Open(path, 0)
	must(t, err)
	must(t, l.RecordSealed(sealed(1, artifact.Digest{}), blobs(0, 1)))
	must(t, l.Close())

	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "holding\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	if _, err := Open(path, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("while the child holds it: %v, want ErrLocked", err)
	}
	must(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Error("the child was not killed")
	}

	l = reopen(t, path)
	all, err := l.Sealed("main")
	must(t, err)
	if diff := cmp.Diff([]Sealed{sealed(1, artifact.Digest{})}, all); diff != "" {
		t.Errorf("after the kill (-want +got):\n%s", diff)
	}
	must(t, l.RecordSealed(sealed(2, all[0].ID), nil))
}

// Memory of a transaction with many digests must leave room for the rest of
// an export.
func TestRecordSealedManyBlobs(t *testing.T) {
	l, _ := newLedger(t)
	const n, mostEach = 50_000, 2500
	ds := make([]artifact.Digest, n)
	for i := range ds {
		binary.LittleEndian.PutUint32(ds[i][:], uint32(i)*2654435761)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	must(t, l.RecordSealed(sealed(1, artifact.Digest{}), ds))
	runtime.ReadMemStats(&after)
	// All that is ever allocated, of which about a fifth is held at once;
	// twice what it is now would show that something is kept for each digest.
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > mostEach {
		t.Errorf("%d bytes are allocated for each digest, want at most %d", each, mostEach)
	}
	for _, i := range []int{0, n / 2, n - 1} {
		if seq, ok, err := l.Carried("main", ds[i]); seq != 1 || !ok || err != nil {
			t.Errorf("Carried(%d) = %d, %v, %v", i, seq, ok, err)
		}
	}
}
