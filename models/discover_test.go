package models

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiscover(t *testing.T) {
	home := t.TempDir()
	token := filepath.Join(home, ".cache", "huggingface", "token")
	for _, c := range []struct {
		name string
		env  []string
		want []Found
	}{
		{"nothing", nil, nil},
		{"no address", []string{"HF_ENDPOINT=hub"}, nil},
		{"plain", []string{"A=b", "HF_ENDPOINT=https://hub.example/"}, []Found{{"HF_ENDPOINT", "https://hub.example", ""}}},
		{"login", []string{"HF_ENDPOINT=https://u:secret@hub.example/x?y=z"}, []Found{{"HF_ENDPOINT", "https://hub.example/x", "its login is not copied"}}},
	} {
		if diff := cmp.Diff(c.want, Discover(c.env, home)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	if err := os.MkdirAll(filepath.Dir(token), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(token, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Discover([]string{"HF_ENDPOINT=https://hub.example"}, home)
	if len(got) != 1 || got[0].Note == "" {
		t.Fatalf("the token is not mentioned: %+v", got)
	}
}
