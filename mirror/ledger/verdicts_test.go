package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestVerdicts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "verdicts.db")
	v, err := OpenVerdicts(path)
	if err != nil {
		t.Fatal(err)
	}
	n := flushEntries + 10 // some written by a transaction, some pending
	for i := range n {
		if err := v.Put(artifact.Sum([]byte{byte(i), byte(i >> 8)}), []byte{byte(i), 1}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(v *Verdicts) {
		t.Helper()
		for i := range n {
			got, ok := v.Get(artifact.Sum([]byte{byte(i), byte(i >> 8)}))
			if !ok || !bytes.Equal(got, []byte{byte(i), 1}) {
				t.Fatalf("entry %d: %v, %v", i, got, ok)
			}
		}
		if _, ok := v.Get(artifact.Sum([]byte("absent"))); ok {
			t.Fatal("an entry that was never put is there")
		}
	}
	check(v)
	if err := v.Put(artifact.Sum([]byte("huge")), make([]byte, maxVerdict+1)); err != nil {
		t.Fatal(err)
	}
	if _, ok := v.Get(artifact.Sum([]byte("huge"))); ok {
		t.Error("an entry over the limit was kept")
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err = OpenVerdicts(path); err != nil {
		t.Fatal(err)
	}
	check(v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
}

// A verdict that a disk has changed must not be believed.
func TestVerdictsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "verdicts.db")
	v, err := OpenVerdicts(path)
	if err != nil {
		t.Fatal(err)
	}
	key, value := artifact.Sum([]byte("key")), bytes.Repeat([]byte("a clean verdict, "), 50)
	if err := v.Put(key, value); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(raw, []byte("a clean verdict"))
	if at < 0 {
		t.Fatal("the entry is not in the file")
	}
	raw[at+20] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err = OpenVerdicts(path); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got, ok := v.Get(key); ok {
		t.Errorf("a damaged entry was given: %q", got)
	}
}
