package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFind(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	const id = "-0123456789abcdef"
	for _, dir := range []string{
		"main-000002" + id, "main-000010" + id, "lab-x_1-000001" + id, "main-1234567" + id,
		".tmp-123", ".tmp-main-000003" + id, "main-000003", "main-3" + id, "main-0000003" + id, "Main-000003" + id,
		"main-000003-0123456789ABCDEF", "lost+found", "-000003" + id, "main-99999999999999999999" + id,
	} {
		if err := os.Mkdir(filepath.Join(one, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"main-000002" + id, "main-000001" + id} {
		if err := os.Mkdir(filepath.Join(two, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(one, "main-000004"+id), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(one, "main-000002"+id), filepath.Join(two, "main-000005"+id)); err != nil {
		t.Fatal(err)
	}
	got, err := Find(one, two, two, filepath.Join(one, "absent"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Candidate{
		{"lab-x_1-000001" + id, "lab-x_1", 1, []string{filepath.Join(one, "lab-x_1-000001"+id)}},
		{"main-000001" + id, "main", 1, []string{filepath.Join(two, "main-000001"+id)}},
		{"main-000002" + id, "main", 2, []string{filepath.Join(one, "main-000002"+id), filepath.Join(two, "main-000002"+id)}},
		{"main-000010" + id, "main", 10, []string{filepath.Join(one, "main-000010"+id)}},
		{"main-1234567" + id, "main", 1234567, []string{filepath.Join(one, "main-1234567"+id)}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if _, err := Find(filepath.Join(one, "main-000004"+id)); err == nil {
		t.Fatal("a file was listed")
	}
}

func TestFindSealed(t *testing.T) {
	f := sealSmall(t, t.TempDir())
	got, err := Find(f.outbox)
	if err != nil || len(got) != 1 || got[0].Dirs[0] != f.sealed.Dir || got[0].Stream != "main" || got[0].Seq != 1 {
		t.Fatal(got, err)
	}
}
