//go:build failpoint

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hubtest"
)

// killHub is a hub of two models and a dataset.
func killHub(t testing.TB, files map[string][]byte) (*hubtest.Hub, *hubtest.Repo) {
	t.Helper()
	h := hubtest.Start(t, hubtest.Options{LFSAbove: 1 << 20})
	r := h.AddModel("team/model")
	r.Commit(files)
	return h, r
}

// modelsOutside writes a configuration outside that asks for these models.
func (w *killWorld) modelsOutside(t testing.TB, dir string, h *hubtest.Hub, repositories ...string) {
	t.Helper()
	w.write(t, dir+"/darkmirror.yaml", fmt.Appendf(nil, `version: 1
role: outside
state_dir: state
signing_key: %s
volume_size: 1MiB
`+noWeights+`
models:
  - name: llm
    hub: %s
    allow_http: true
    allow_hosts: ["%s"]
    repositories: [%s]
`, w.path("signing.key"), h.URL, strings.TrimPrefix(h.CDN, "http://"), strings.Join(repositories, ", ")))
}

// models traces the scenarios of models: a plan, an export, and the import of
// two bundles into every kind of folder.
func (w *killWorld) models(t *testing.T) {
	t.Helper()
	gguf := killGGUF(0)
	weights := killNoise(t, 9<<20, "weights") // two parts
	h, r := killHub(t, map[string][]byte{"config.json": []byte("{}"), "model.safetensors": weights, "sub/old.txt": []byte("old"), "a.Q8_0.gguf": gguf})
	gone := h.AddModel("team/gone")
	gone.Commit(map[string][]byte{"config.json": []byte("[]"), "b.F32.gguf": killGGUF(1)})
	w.write(t, "local/team/local/config.json", []byte("{}"))
	w.write(t, "local/team/local/model.safetensors", []byte("local weights"))
	local := fmt.Sprintf("  - name: local\n    folder: %s\n    repositories: [team/local]\n", w.path("local"))
	configure := func(dir string, repositories ...string) {
		w.modelsOutside(t, dir, h, repositories...)
		b, err := os.ReadFile(w.path(dir + "/darkmirror.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, dir+"/darkmirror.yaml", append(b, local...))
	}
	configure("models", "team/model", "team/gone")
	w.copy(t, "models", "models-plan")
	w.must(t, "models", "plan", "--save", "plan.json")
	w.copy(t, "models", "models-export")
	w.must(t, "models", "export", "--plan", "plan.json")
	r.Commit(map[string][]byte{"config.json": []byte(`{"a":1}`), "model.safetensors": weights, "sub/new.txt": []byte("new"), "a.Q8_0.gguf": gguf})
	configure("models", "team/model")
	w.must(t, "models", "export")
	// What is planned and killed sees the hub as it is now, from the start.
	w.copy(t, "models/state/outbox", "models-inbox")
	w.write(t, "models-import/darkmirror.yaml", fmt.Appendf(nil, `version: 1
role: inside
state_dir: state
inbox: [%s]
trust: [%s]
models:
  - name: llm
    keep_revisions: 0
    cache: {dir: hf, no_exist: true}
    folder: plain
    ollama: {dir: ollama, host: models.example}
  - name: local
    cache: {dir: files, links: none}
oci:
  - name: artifacts
    models: llm
    modelcar: true
`, w.path("models-inbox"), w.path("signing.key.pub")))
	outbox := killCheckOutbox(w.path("models/state/outbox"))
	for _, s := range []*killScenario{
		{name: "models-plan", template: "models-plan", args: []string{"plan", "--save", "plan.json"}, only: regexp.MustCompile(`^models\.`), check: outbox},
		{name: "models-export", template: "models-export", args: []string{"export", "--plan", "plan.json"}, only: regexp.MustCompile(`^(models|fetch\.parts|store\.part)`), check: outbox},
		{
			name: "models-import", template: "models-import", args: []string{"import"}, check: killCheckModels,
			only: regexp.MustCompile(`^(models|cachedir|plaindir|ollama|import\.announced|oci\.(manifests|record)-made)`),
		},
	} {
		w.trace(t, s)
	}
}

// killGGUF is a GGUF file of one tensor that says it is of this type.
func killGGUF(fileType uint32) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if s, ok := v.(string); ok {
				_ = binary.Write(&b, binary.LittleEndian, uint64(len(s))) // to memory: cannot fail
				b.WriteString(s)
				continue
			}
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	b.WriteString("GGUF")
	put(uint32(3), uint64(1), uint64(2))
	put("general.architecture", uint32(8), "llama", "general.file_type", uint32(4), fileType)
	put("output.weight", uint32(1), uint64(8), uint32(0), uint64(0))
	for b.Len()%32 != 0 {
		b.WriteByte(0)
	}
	b.Write(make([]byte, 32))
	return b.Bytes()
}

// killCheckModels wants what a name stands for to be whole: in the embedded
// hub, in the cache folders, and in the folder.
func killCheckModels(t testing.TB, dir string) {
	t.Helper()
	for _, name := range []string{"llm", "local"} {
		at, ok, err := models.ReadPublished(filepath.Join(dir, "state/published/models", name))
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			continue
		}
		st, err := store.Open(filepath.Join(dir, "state/store"))
		if err != nil {
			t.Fatal(err)
		}
		set, err := at.Load(st)
		if err != nil || len(set.Revisions) == 0 {
			t.Fatalf("what is published cannot be read: %v", err)
		}
		for _, r := range set.Revisions {
			for _, f := range r.Files {
				killCheckFile(t, killBlob(dir, f.Blob.Hex()), f.Blob.Hex(), f.Size)
			}
		}
	}
	for _, ref := range killGlob(t, filepath.Join(dir, "*/models--*/refs/main")) {
		commit, err := os.ReadFile(ref)
		if err != nil {
			t.Fatal(err)
		}
		killCheckFolder(t, filepath.Join(filepath.Dir(filepath.Dir(ref)), "snapshots", string(commit)))
	}
	for _, folder := range killGlob(t, filepath.Join(dir, "plain/team/*")) {
		killCheckFolder(t, folder)
	}
	for _, name := range killGlob(t, filepath.Join(dir, "ollama/manifests/models.example/*/*/*")) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"digest":"sha256:([0-9a-f]{64})"`).FindAllSubmatch(b, -1) {
			if got, err := os.ReadFile(filepath.Join(dir, "ollama/blobs/sha256-"+string(m[1]))); err != nil || artifact.Sum(got).Hex() != string(m[1]) {
				t.Errorf("%s names %s: %v", name, m[1], err)
			}
		}
	}
}

func killGlob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// killCheckFolder wants a model's files, of which there are always these.
func killCheckFolder(t testing.TB, folder string) {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(folder, "config.json"))
	if err != nil {
		t.Errorf("a name stands for what is not whole: %v", err)
		return
	}
	want := map[string]string{"{}": "sub/old.txt", `{"a":1}`: "sub/new.txt", "[]": "b.F32.gguf"}[string(config)]
	if strings.Contains(folder, "local") {
		want = "model.safetensors"
	}
	if _, err := os.Stat(filepath.Join(folder, want)); err != nil {
		t.Errorf("a name stands for what is not whole: %v", err)
	}
}

// killNoise is n bytes that no other call gives.
func killNoise(t testing.TB, n int64, seed string) []byte {
	t.Helper()
	b := make([]byte, n)
	f, err := hubtest.Noise(n, seed).Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKillModelDownload kills a fetch of a large file in the middle. What is
// fetched afterwards is what was missing, and less than one part more.
func TestKillModelDownload(t *testing.T) {
	const size, part = 40 << 20, 8 << 20
	w := newKillWorld(t)
	h, _ := killHub(t, map[string][]byte{"config.json": []byte("{}"), "model.safetensors": killNoise(t, size, "large")})
	w.modelsOutside(t, "model", h, "team/model")
	w.must(t, "model", "plan") // small files are read now
	for i, c := range []struct {
		place   string
		nth     int
		missing int64
	}{
		{"fetch.parts-half", 1, size / 2},
		{"store.part-written", 100, size - 99<<18}, // in pieces of 256 KiB
		{"store.part-recorded", 100, size - 100<<18},
		{"fetch.parts-complete", 1, 0},
		{"store.parts-complete", 1, 0},
		{"store.parts-published", 1, 0},
	} {
		t.Run(c.place, func(t *testing.T) {
			name := fmt.Sprintf("model-%d", i)
			w.copy(t, "model", name)
			dir := w.path(name)
			w.killAt(t, dir, c.place, c.nth, "export")
			h.ResetLog()
			if status, out := w.program(t, dir, nil, "export"); status != 0 {
				t.Fatalf("the rerun: exit %d\n%s", status, out)
			}
			if sent := h.Sent(hubtest.OnCDN, http.MethodGet, ""); sent > c.missing+part || sent < c.missing-part {
				t.Errorf("%d bytes were fetched by the rerun, %d were missing; want one part of %d more at most", sent, c.missing, part)
			}
			killCheckOutbox(w.path(name+"/state/outbox"))(t, dir)
		})
	}
}
