package models

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/hubtest"
)

// hubSource makes a source of a fake hub.
func hubSource(t *testing.T, h *hubtest.Hub, st *store.Store, cfg Config) *Source {
	t.Helper()
	cfg.Name, cfg.Hub, cfg.AllowHTTP = "llm", h.URL, true
	fc := cfg.Fetch("models/llm")
	for _, u := range []string{h.URL, h.CDN} {
		host, err := fetch.Host(u)
		if err != nil {
			t.Fatal(err)
		}
		fc.Hosts = append(fc.Hosts, host)
	}
	fc.RetryWait, fc.MaxRetries = time.Millisecond, 2
	client, err := fetch.New(fetch.NewPool(cfg.PerHost(), 0), fc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSource(cfg, "models/llm", client, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// small is a model of a few files.
func small() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte(`{"model_type":"bert"}`), "model.safetensors": bytes.Repeat([]byte("weights "), 1000),
		"pytorch_model.bin": bytes.Repeat([]byte("pickled "), 1000), "README.md": []byte("---\nlicense: mit\nbase_model: team/base\n---\n"),
		"a folder/x+y.txt": []byte("z"),
	}
}

func TestHubSource(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{Page: 2, Xet: true, Gzip: true})
	r := h.AddModel("team/model")
	first := r.Commit(small())
	r.SetRef("refs/tags/v1.0", first)
	d := h.AddDataset("team/data")
	d.Commit(map[string][]byte{"train.csv": []byte("a,b\n")})
	st := newStore(t)
	s := hubSource(t, h, st, Config{Repositories: []string{"team/model", "team/model@v1.0", "datasets/team/data"}})
	snap := resolved(t, s, nil)
	fetchAll(t, s, snap)
	set, err := ReadSet(snap, st)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Revisions) != 2 {
		t.Fatalf("two names of one commit are %d revisions", len(set.Revisions))
	}
	rev, ok := set.Find(hub.Repo{Kind: hub.Model, ID: "team/model"}, "v1.0")
	if !ok || rev.Commit != first || strings.Join(rev.Refs, " ") != "main v1.0" || rev.Licence.ID != "mit" || len(rev.Files) != len(small()) {
		t.Fatalf("got %+v", rev)
	}
	for path, want := range small() {
		f, ok := rev.File(path)
		if !ok {
			t.Fatalf("%s is missing", path)
		}
		if got, err := st.ReadAll(f.Blob, 1<<20); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", path, err)
		}
		if e, ok := r.Entry("main", path); !ok || e.ETag() != f.ETag() {
			t.Errorf("%s: ETag %s, want %s", path, f.ETag(), e.ETag())
		}
	}
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			if !strings.HasPrefix(f.URL, h.URL) || strings.Contains(f.URL, "?") {
				t.Errorf("%s has the address %s", f.Path, f.URL)
			}
		}
	}

	// Nothing has changed: the same snapshot, and no file is asked for.
	h.ResetLog()
	again := resolved(t, s, snap)
	a, _ := snap.Encode()
	b, _ := again.Encode()
	if !bytes.Equal(a, b) {
		t.Error("an unchanged hub gives another snapshot")
	}
	if n := h.Count(hubtest.OnHub, "GET", "/resolve"); n != 0 {
		t.Errorf("%d files were asked for again", n)
	}

	// One file changes and the branch moves: that file alone is fetched.
	files := small()
	files["config.json"] = []byte(`{"model_type":"gpt2"}`)
	second := r.Commit(files)
	h.ResetLog()
	moved, notes, err := s.Resolve(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	fetchAll(t, s, moved)
	if n := h.Count(hubtest.OnHub, "GET", "/resolve/"); n != 1 {
		t.Errorf("%d files were asked for, want the one that changed", n)
	}
	if !strings.Contains(strings.Join(notes, "\n"), "main now stands for "+second[:12]) {
		t.Errorf("notes %q", notes)
	}
	if set, err = ReadSet(moved, st); err != nil || len(set.Revisions) != 3 {
		t.Fatalf("%v: the tag keeps its commit: %+v", err, set)
	}
}

func TestHubProfileAndNeeds(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{})
	files := small()
	files["adapter_config.json"] = []byte(`{"base_model_name_or_path":"team/base","peft_type":"LORA"}`)
	h.AddModel("team/model").Commit(files)
	h.AddModel("team/base").Commit(map[string][]byte{"config.json": []byte("{}"), "model.safetensors": []byte("w")})
	st := newStore(t)
	s := hubSource(t, h, st, Config{Repositories: []string{"team/model"}, Profile: "vllm"})
	snap, notes, err := s.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(notes, "\n")
	for _, want := range []string{"profile vllm leaves out 1 file and saves 7.8 KiB", "loading it asks for team/base"} {
		if !strings.Contains(text, want) {
			t.Errorf("no note %q in\n%s", want, text)
		}
	}
	set, err := ReadSet(snap, st)
	if err != nil {
		t.Fatal(err)
	}
	if rev := set.Revisions[0]; len(rev.Left) != 1 || rev.Left[0].Path != "pytorch_model.bin" || !strings.Contains(rev.Left[0].Why, "model.safetensors") {
		t.Errorf("left %+v", rev.Left)
	}

	s = hubSource(t, h, newStore(t), Config{Repositories: []string{"team/model"}, WithDeps: true})
	if snap = resolved(t, s, nil); len(snap.Artifacts) != 2 {
		t.Errorf("with_deps brings %d repositories", len(snap.Artifacts))
	}
}

// A repository that is not to be had takes nothing else with it, and stays as
// it was sealed.
func TestHubLost(t *testing.T) {
	h := hubtest.Start(t, hubtest.Options{})
	h.AddModel("team/good").Commit(small())
	bad := h.AddModel("team/bad")
	was := bad.Commit(small())
	st := newStore(t)
	s := hubSource(t, h, st, Config{Repositories: []string{"team/good", "team/bad", "team/never"}})
	snap, _, err := s.Resolve(t.Context(), nil)
	in, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok || len(in.Items) != 1 || in.Items[0].Name != "team/never" || len(snap.Artifacts) != 2 {
		t.Fatalf("got %v", err)
	}
	bad.Disable()
	after, _, err := s.Resolve(t.Context(), snap)
	in, ok = errors.AsType[*artifact.Incomplete](err)
	if !ok || len(in.Items) != 2 || !strings.Contains(in.Error(), "stays as it was sealed") {
		t.Fatalf("got %v", err)
	}
	if len(after.Artifacts) != 2 || after.Artifacts[0].Version != was {
		t.Errorf("got %+v", after.Artifacts)
	}
}

// Wrong bytes of the right size are refused: huggingface_hub accepts them.
func TestHubCorruption(t *testing.T) {
	for _, path := range []string{"model.safetensors", "config.json"} {
		h := hubtest.Start(t, hubtest.Options{})
		h.AddModel("team/model").Commit(small())
		h.Break("team/model", path, hubtest.Corrupt(-1))
		st := newStore(t)
		s := hubSource(t, h, st, Config{Repositories: []string{"team/model"}})
		snap, _, err := s.Resolve(t.Context(), nil)
		if err == nil {
			for _, f := range snap.Artifacts[0].Files {
				err = errors.Join(err, s.Fetch(t.Context(), f))
			}
		}
		if !errors.Is(err, artifact.ErrIntegrity) {
			t.Fatalf("%s: %v", path, err)
		}
		h.Heal()
		fetchAll(t, s, resolved(t, s, nil))
	}
}

// A link that expires in the middle of a file, and a connection that is cut,
// cost what was under way and no more.
func TestHubExpiryAndCuts(t *testing.T) {
	for name, f := range map[string]hubtest.Fault{"expires": hubtest.ExpireAfter(10 << 20), "cut": hubtest.Cut(5 << 20).Times(3)} {
		t.Run(name, func(t *testing.T) {
			h := hubtest.Start(t, hubtest.Options{})
			big := hubtest.Noise(40<<20, "weights")
			if _, err := h.AddModel("team/model").CommitTo("main", hubtest.Files{"model.safetensors": big}); err != nil {
				t.Fatal(err)
			}
			h.Break("team/model", "model.safetensors", f)
			s := hubSource(t, h, newStore(t), Config{Repositories: []string{"team/model"}, Connections: 4})
			fetchAll(t, s, resolved(t, s, nil))
			if sent := h.Sent(hubtest.OnCDN, "GET", ""); sent > 60<<20 {
				t.Errorf("%d bytes were sent for 40 MiB", sent)
			}
		})
	}
}
