package models

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/hub"
)

// write makes files below dir.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func newStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// folderWith is a folder of one small model.
func folderWith(t *testing.T) (root string, files map[string]string) {
	t.Helper()
	root = t.TempDir()
	files = map[string]string{
		"config.json": `{"model_type":"bert"}`, "model.safetensors": "weights", "README.md": "---\nlicense: mit\n---\n# Card\n",
		"sub folder/vocab.txt": "a\nb\n",
	}
	write(t, filepath.Join(root, "team", "model"), files)
	return root, files
}

func resolved(t *testing.T, s *Source, prev *artifact.Snapshot) *artifact.Snapshot {
	t.Helper()
	snap, _, err := s.Resolve(t.Context(), prev)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func fetchAll(t *testing.T, s *Source, snap *artifact.Snapshot) {
	t.Helper()
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			if err := s.Fetch(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFolder(t *testing.T) {
	root, files := folderWith(t)
	write(t, filepath.Join(root, "team", "model"), map[string]string{".git/config": "x", ".cache/huggingface/y": "x"})
	st := newStore(t)
	s, err := NewSource(Config{Name: "local", Folder: root, Repositories: []string{"team/model"}}, "models/local", nil, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	snap := resolved(t, s, nil)
	fetchAll(t, s, snap)
	set, err := ReadSet(snap, st)
	if err != nil {
		t.Fatal(err)
	}
	name := hub.Repo{Kind: hub.Model, ID: "team/model"}
	rev, ok := set.Find(name, "main")
	if !ok || len(set.Revisions) != 1 || len(rev.Files) != len(files) {
		t.Fatalf("got %+v", set)
	}
	if head, ok := set.Find(name, "HEAD"); !ok || head != rev {
		t.Error("HEAD is not main")
	}
	if byCommit, ok := set.Find(name, rev.Commit); !ok || byCommit != rev {
		t.Error("the commit does not name the revision")
	}
	for path, text := range files {
		f, ok := rev.File(path)
		if !ok {
			t.Fatalf("%s is missing", path)
		}
		if got, err := st.ReadAll(f.Blob, 1000); err != nil || string(got) != text {
			t.Errorf("%s: %q %v", path, got, err)
		}
		if lfs := strings.HasSuffix(path, ".safetensors"); lfs != (f.LFS != nil) {
			t.Errorf("%s: LFS %v, want %v", path, f.LFS != nil, lfs)
		}
		if f.LFS == nil && f.OID != hub.SumBlob([]byte(text)) {
			t.Errorf("%s: git id %s", path, f.OID)
		}
	}
	if rev.Licence.ID != "mit" {
		t.Errorf("licence %+v", rev.Licence)
	}
	again := resolved(t, s, snap)
	a, _ := snap.Encode()
	b, _ := again.Encode()
	if string(a) != string(b) {
		t.Error("the same folder gives another snapshot")
	}
	write(t, filepath.Join(root, "team", "model"), map[string]string{"config.json": `{"model_type":"gpt2"}`})
	if moved := resolved(t, s, snap); moved.Artifacts[0].Version == snap.Artifacts[0].Version {
		t.Error("another folder has the same commit")
	}
}

// A file that changes between the plan and the copy is refused.
func TestFolderChangesUnderUs(t *testing.T) {
	root, _ := folderWith(t)
	st := newStore(t)
	s, err := NewSource(Config{Name: "local", Folder: root, Repositories: []string{"team/model"}}, "models/local", nil, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	snap := resolved(t, s, nil)
	write(t, filepath.Join(root, "team", "model"), map[string]string{"model.safetensors": "wEights"})
	var bad error
	for _, f := range snap.Artifacts[0].Files {
		bad = errors.Join(bad, s.Fetch(t.Context(), f))
	}
	if !errors.Is(bad, artifact.ErrIntegrity) {
		t.Fatalf("got %v", bad)
	}
}

func TestFolderRefuses(t *testing.T) {
	for _, c := range []struct {
		name, repo string
		spoil      func(dir string) error
		code       string
	}{
		{"not there", "team/other", func(string) error { return nil }, CodeLocal},
		{"no such branch", "team/model@v1", func(string) error { return nil }, CodeLocal},
		{"another commit", "team/model@" + strings.Repeat("a", 40), func(string) error { return nil }, CodeLocal},
		{"case clash", "team/model", func(dir string) error { return os.WriteFile(filepath.Join(dir, "CONFIG.json"), nil, 0o600) }, CodeLocal},
		{"index without weights", "team/model", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), []byte(`{"weight_map":{"a":"model-00001-of-00002.safetensors"}}`), 0o600)
		}, CodeIndex},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, _ := folderWith(t)
			if err := c.spoil(filepath.Join(root, "team", "model")); err != nil {
				t.Fatal(err)
			}
			s, err := NewSource(Config{Name: "local", Folder: root, Repositories: []string{c.repo}}, "models/local", nil, newStore(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			snap, _, err := s.Resolve(t.Context(), nil)
			in, ok := errors.AsType[*artifact.Incomplete](err)
			if !ok || snap == nil || len(in.Items) != 1 {
				t.Fatalf("got %v", err)
			}
			if r, ok := errors.AsType[*artifact.Refusal](in.Items[0].Err); !ok || r.Code != c.code {
				t.Fatalf("want %s, got %v", c.code, in.Items[0].Err)
			}
		})
	}
	t.Run("a link that leads out", func(t *testing.T) {
		root, _ := folderWith(t)
		if err := os.Symlink("/etc/passwd", filepath.Join(root, "team", "model", "passwd")); err != nil {
			t.Fatal(err)
		}
		s, err := NewSource(Config{Name: "local", Folder: root, Repositories: []string{"team/model"}}, "models/local", nil, newStore(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Resolve(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "leads out") {
			t.Fatalf("got %v", err)
		}
	})
}

// cacheWith writes a cache as huggingface_hub does.
func cacheWith(t *testing.T) (root, commit string) {
	t.Helper()
	root, commit = t.TempDir(), strings.Repeat("c", 40)
	base := filepath.Join(root, "models--team--model")
	config, weights := `{"model_type":"bert"}`, "weights"
	blobs := map[string]string{
		string(hub.SumBlob([]byte(config))): config,
		artifact.Sum([]byte(weights)).Hex(): weights,
	}
	write(t, filepath.Join(base, "blobs"), blobs)
	write(t, base, map[string]string{"refs/main": commit})
	dir := filepath.Join(base, "snapshots", commit)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.json": config, "model.safetensors": weights} {
		blob := string(hub.SumBlob([]byte(text)))
		if name == "model.safetensors" {
			blob = artifact.Sum([]byte(text)).Hex()
		}
		if err := os.Symlink("../../blobs/"+blob, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root, commit
}

func TestCacheAsSource(t *testing.T) {
	root, commit := cacheWith(t)
	for _, repo := range []string{"team/model", "team/model@" + commit} {
		st := newStore(t)
		s, err := NewSource(Config{Name: "local", Cache: root, Repositories: []string{repo}}, "models/local", nil, st, nil)
		if err != nil {
			t.Fatal(err)
		}
		snap := resolved(t, s, nil)
		fetchAll(t, s, snap)
		if a := snap.Artifacts[0]; a.Version != commit || len(a.Files) != 2 {
			t.Fatalf("%s: got %+v", repo, a)
		}
	}
	// The client that filled it did not look at what it got.
	blobs := filepath.Join(root, "models--team--model", "blobs")
	write(t, blobs, map[string]string{artifact.Sum([]byte("weights")).Hex(): "wEights"})
	s, err := NewSource(Config{Name: "local", Cache: root, Repositories: []string{"team/model"}}, "models/local", nil, newStore(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Resolve(t.Context(), nil); !errors.Is(err, artifact.ErrIntegrity) {
		t.Fatalf("wrong bytes in the cache: %v", err)
	}
}

// published carries a folder inside and publishes it.
func published(t *testing.T, cfg PublishConfig, targets ...Target) (*Source, *Publisher, *store.Store, string, *artifact.Snapshot) {
	t.Helper()
	root, _ := folderWith(t)
	st := newStore(t)
	s, err := NewSource(Config{Name: "llm", Folder: root, Repositories: []string{"team/model"}}, "models/llm", nil, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	snap := resolved(t, s, nil)
	fetchAll(t, s, snap)
	cfg.Name = "llm"
	p, err := NewPublisher(cfg, "models/llm", st, filepath.Join(t.TempDir(), "published"), nil, targets...)
	if err != nil {
		t.Fatal(err)
	}
	return s, p, st, root, snap
}

func publish(t *testing.T, p *Publisher, snap, prev *artifact.Snapshot, seq uint64) *Set {
	t.Helper()
	if err := p.Verify(t.Context(), snap, prev); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), snap, seq, time.Unix(int64(seq), 0)); err != nil {
		t.Fatal(err)
	}
	at, ok, err := ReadPublished(p.dir)
	if err != nil || !ok || at.Seq != seq {
		t.Fatalf("%+v %v %v", at, ok, err)
	}
	set, err := at.Load(p.st)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// A branch that moves leaves its former commit served, and that alone; a
// third one displaces the first.
func TestPublishKeepsFormerRevisions(t *testing.T) {
	s, p, st, root, snap := published(t, PublishConfig{})
	var commits []string
	prev := (*artifact.Snapshot)(nil)
	for i := range 3 {
		if i > 0 {
			write(t, filepath.Join(root, "team", "model"), map[string]string{"config.json": strings.Repeat(" ", i) + "{}"})
			snap = resolved(t, s, snap)
			fetchAll(t, s, snap)
		}
		set := publish(t, p, snap, prev, uint64(i+1))
		prev = snap
		commits = append(commits, snap.Artifacts[0].Version)
		if want := min(i+1, 2); len(set.Revisions) != want {
			t.Fatalf("publication %d: %d revisions, want %d", i+1, len(set.Revisions), want)
		}
		name := hub.Repo{Kind: hub.Model, ID: "team/model"}
		if r, ok := set.Find(name, "main"); !ok || r.Commit != commits[i] {
			t.Fatalf("main is %+v", r)
		}
		if i > 0 {
			if r, ok := set.Find(name, commits[i-1]); !ok || len(r.Refs) != 0 {
				t.Fatalf("the former revision is %+v", r)
			}
		}
	}
	// The same again changes nothing.
	before, err := os.ReadFile(filepath.Join(p.dir, CurrentName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), snap, 9, time.Unix(9, 0)); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(p.dir, CurrentName))
	if err != nil || string(after) != string(before) {
		t.Errorf("publishing again changed the pointer: %v\n%s\n%s", err, before, after)
	}
	// A repository that is gone is gone with all of its revisions.
	empty, err := NewSource(Config{Name: "llm", Folder: root}, "models/llm", nil, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set := publish(t, p, resolved(t, empty, snap), snap, 10); len(set.Revisions) != 0 {
		t.Errorf("%d revisions of a repository that was taken away", len(set.Revisions))
	}
}

func TestVerifyRefuses(t *testing.T) {
	_, p, st, _, snap := published(t, PublishConfig{})
	rec, ok := RecordOf(snap)
	if !ok {
		t.Fatal("no record")
	}
	raw, err := st.ReadAll(rec.Digest, maxRecord)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(t *testing.T, text string) *artifact.Snapshot {
		t.Helper()
		d, err := st.PutBytes([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		forged := *snap
		forged.Meta = []artifact.File{{Path: recordPath, Digest: d, Size: int64(len(text))}}
		return &forged
	}
	oid := string(hub.SumBlob([]byte(`{"model_type":"bert"}`)))
	for _, c := range []struct{ name, old, new, code string }{
		{"another git id", oid, strings.Repeat("1", 40), CodeFile},
		{"a file too many", `"files":[`, `"files":[{"path":"x","oid":"` + oid + `"},`, CodeRecord},
		{"another path", `"path":"config.json"`, `"path":"Config.json"`, CodeRecord},
		{"unknown key", `"schema"`, `"schema2"`, CodeRecord},
		{"a branch that is a commit", `"refs":["main"]`, `"refs":["` + strings.Repeat("2", 40) + `"]`, CodeRecord},
		{"a branch that escapes", `"refs":["main"]`, `"refs":["../x"]`, CodeRecord},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(string(raw), c.old, c.new, 1)
			if text == string(raw) {
				t.Fatal("nothing was forged")
			}
			err := p.Verify(context.Background(), forge(t, text), nil)
			if r, ok := errors.AsType[*artifact.Refusal](err); !ok || r.Code != c.code || !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("want %s, got %v", c.code, err)
			}
		})
	}
}

// refusingTarget takes nothing.
type refusingTarget struct{}

func (refusingTarget) Publish(context.Context, *Set, uint64, time.Time) (string, error) {
	return "0 revisions", &artifact.Incomplete{Items: []artifact.Lost{{Name: "team/model", Version: "main", Err: refuse(CodeTarget, "x", "no", nil)}}}
}

func TestTargetsThatRefuse(t *testing.T) {
	_, p, _, _, snap := published(t, PublishConfig{}, refusingTarget{})
	text, err := p.Publish(t.Context(), snap, 1, time.Now())
	if in, ok := errors.AsType[*artifact.Incomplete](err); !ok || len(in.Items) != 1 {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(text, "1 revision, 4 files") || !strings.Contains(text, "0 revisions") {
		t.Errorf("text %q", text)
	}
	if _, ok, err := ReadPublished(p.dir); !ok || err != nil {
		t.Errorf("the embedded hub has nothing: %v", err)
	}
}

func TestAnnounce(t *testing.T) {
	_, p, _, _, snap := published(t, PublishConfig{})
	if err := p.Announce(t.Context(), snap); err != nil {
		t.Fatal(err)
	}
	if at, ok, err := ReadArriving(p.dir); !ok || err != nil || at.Snapshot.IsZero() {
		t.Fatalf("%+v %v %v", at, ok, err)
	}
	publish(t, p, snap, nil, 1)
	if _, ok, err := ReadArriving(p.dir); ok || err != nil {
		t.Fatalf("still arriving: %v", err)
	}
}
