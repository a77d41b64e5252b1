package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestAlias(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.PutBytes([]byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	const name = "git-6b584e8ece562ebffc15d38808cd6b98fc3d97ea"
	if _, ok := s.Alias(name); ok {
		t.Fatal("an alias that nobody set")
	}
	for range 2 { // the second one replaces the first
		if err := s.SetAlias(name, d); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := s.Alias(name); !ok || got != d {
		t.Fatalf("got %v %v", got, ok)
	}
	at, err := s.aliasName(name)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(filepath.Dir(at), durable.TempPrefix+"x")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(left); err == nil {
		t.Fatal("the sweep left a temporary file")
	}
	if err := os.WriteFile(at, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Alias(name); ok {
		t.Fatal("a torn alias is believed")
	}
	if err := s.SetAlias(name, artifact.Sum([]byte("not there"))); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Alias(name); ok {
		t.Fatal("an alias of a blob that is not there")
	}
	for _, bad := range []string{"", "a", "../../etc", "A-b", "a/b", "a.b"} {
		if err := s.SetAlias(bad, d); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}
