package ollama

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/place"
	"github.com/darkmirror/darkmirror/models/repo"
)

// A world is a store and a folder on one file system.
type world struct {
	dir string // the folder
	st  *store.Store
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return worldIn(t, t.TempDir())
}

func worldIn(t *testing.T, dir string) *world {
	t.Helper()
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	return &world{dir: filepath.Join(dir, "ollama"), st: st}
}

// rev makes a revision: files whose name ends in .gguf are large ones.
func (w *world) rev(t *testing.T, name, commit string, refs []string, files map[string]string) models.Revision {
	t.Helper()
	id, err := hub.ParseRepo(name)
	if err != nil {
		t.Fatal(err)
	}
	r := models.Revision{Repo: id, Commit: commit, Refs: refs, Profile: "all", Origin: "local"}
	for path, text := range files {
		d, err := w.st.PutBytes([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		e := hub.Entry{Path: path, Size: int64(len(text)), OID: hub.SumBlob([]byte(text))}
		if strings.HasSuffix(path, ".gguf") {
			pointer := hub.Pointer(d, e.Size)
			e.OID, e.LFS = hub.SumBlob(pointer), &hub.LFS{SHA256: d, PointerSize: int64(len(pointer))}
		}
		r.Files = append(r.Files, models.File{Entry: e, Blob: d})
	}
	slices.SortFunc(r.Files, func(a, b models.File) int { return strings.Compare(a.Path, b.Path) })
	return r
}

func (w *world) target(t *testing.T, o Options) *Target {
	t.Helper()
	if o.Host == "" {
		o.Host = "models.example"
	}
	if o.Name == "" {
		o.Name = "models/llm"
	}
	target, err := New(w.dir, o, w.st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func publish(t *testing.T, target *Target, revs ...models.Revision) string {
	t.Helper()
	text, err := target.Publish(t.Context(), &models.Set{Revisions: revs}, 1, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// tree lists what lies in the folder, without our records: files with
// their content, links with their text, empty folders.
func (w *world) tree(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(w.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(w.dir, name)
		if err != nil {
			return err
		}
		switch {
		case rel == place.Corner:
			for _, e := range readDir(t, name) {
				if strings.HasPrefix(e, ".") {
					t.Errorf("%s holds %s", rel, e)
				}
			}
			return fs.SkipDir
		case d.IsDir():
			if len(readDir(t, name)) == 0 {
				all[strings.TrimPrefix(rel, ".")+"/"] = ""
			}
		case d.Type() == fs.ModeSymlink:
			text, err := os.Readlink(name)
			if err != nil {
				return err
			}
			all[rel] = "-> " + text
		default:
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			all[rel] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func readDir(t *testing.T, name string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// put writes a file of somebody else.
func (w *world) put(t *testing.T, rel, text string) {
	t.Helper()
	name := filepath.Join(w.dir, rel)
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var (
	c1 = strings.Repeat("1", 40)
	c2 = strings.Repeat("2", 40)
)

// A kv is one piece of GGUF metadata: a string, an int (u32) or a []string.
type kv struct {
	key   string
	value any
}

// ggufFile writes a GGUF file with one tensor of n numbers.
func ggufFile(n int, kvs ...kv) string {
	le := binary.LittleEndian
	str := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	b := le.AppendUint64(le.AppendUint64(le.AppendUint32([]byte("GGUF"), 3), 1), uint64(len(kvs)))
	for _, e := range kvs {
		b = str(b, e.key)
		switch v := e.value.(type) {
		case string:
			b = str(le.AppendUint32(b, 8), v)
		case int:
			b = le.AppendUint32(le.AppendUint32(b, 4), uint32(v))
		case uint16:
			b = le.AppendUint16(le.AppendUint32(b, 2), v)
		}
	}
	b = str(b, "token_embd.weight")
	b = le.AppendUint64(le.AppendUint32(b, 1), uint64(n))
	b = le.AppendUint64(le.AppendUint32(b, 0), 0) // F32
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	for i := range n {
		b = le.AppendUint32(b, math.Float32bits(float32(i)))
	}
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	return string(b)
}

const jinja = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"

// llama is a small model; fileType is llama.cpp's number.
func llama(fileType int, more ...kv) string {
	return ggufFile(2000, append([]kv{{"general.architecture", "llama"}, {"general.file_type", fileType}, {"llama.block_count", 1}}, more...)...)
}

const (
	q4km = 15
	q80  = 7
	f16  = 1
)

// names lists the models that Ollama would find, with the kinds of their
// layers; it reports every blob that is missing, too many or not what it is
// called.
func (w *world) names(t *testing.T) map[string]string {
	t.Helper()
	all, used := make(map[string]string), make(map[string]bool)
	manifests, err := filepath.Glob(filepath.Join(w.dir, "manifests", "*", "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range manifests {
		m := w.manifest(t, name)
		var kinds []string
		for _, l := range append(m.Layers, m.Config) {
			b, err := os.ReadFile(filepath.Join(w.dir, blobPath(l.Digest)))
			if err != nil || artifact.Sum(b) != l.Digest || int64(len(b)) != l.Size {
				t.Errorf("%s: %s %s: %d bytes, %v", name, l.MediaType, l.Digest, len(b), err)
			}
			used["sha256-"+l.Digest.Hex()] = true
			kinds = append(kinds, strings.TrimPrefix(l.MediaType, layerType))
		}
		rel, err := filepath.Rel(filepath.Join(w.dir, "manifests"), name)
		if err != nil {
			t.Fatal(err)
		}
		all[rel] = strings.Join(kinds[:len(kinds)-1], " ")
	}
	if blobs, err := os.ReadDir(filepath.Join(w.dir, "blobs")); err == nil {
		for _, e := range blobs {
			if !used[e.Name()] {
				t.Errorf("blob %s is of no model", e.Name())
			}
		}
	}
	return all
}

func (w *world) manifest(t *testing.T, name string) manifest {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil || m.SchemaVersion != 2 || m.MediaType != manifestType || m.Config.MediaType != configType {
		t.Fatalf("%s: %+v %v", name, m, err)
	}
	return m
}

// about reads the configuration of a tag.
func (w *world) about(t *testing.T, name string) (c config) {
	t.Helper()
	m := w.manifest(t, filepath.Join(w.dir, "manifests", name))
	b, err := os.ReadFile(filepath.Join(w.dir, blobPath(m.Config.Digest)))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPublish(t *testing.T) {
	w := newWorld(t)
	rev := w.rev(t, "Team/Small-GGUF", c1, []string{"main", "v1.0"}, map[string]string{
		"small-Q8_0.gguf": llama(q80, kv{"tokenizer.chat_template", jinja}), "small-Q4_K_M.gguf": llama(q4km, kv{"tokenizer.chat_template", jinja}),
		"mmproj-F16.gguf": ggufFile(10, kv{"general.architecture", "clip"}), "LICENSE": "mit", "README.md": "# small", "config.json": "{}",
	})
	rev.Licence = repo.Licence{ID: "mit", Files: []string{"LICENSE", "README.md"}}
	plain := w.rev(t, "team/plain", c1, []string{"main"}, map[string]string{"model.safetensors": "x"})
	data := w.rev(t, "datasets/team/data", c2, []string{"main"}, map[string]string{"x.gguf": "no"})
	old := w.rev(t, "old.model", c2, nil, map[string]string{"x.gguf": llama(f16)})
	set := []models.Revision{rev, plain, data, old}
	if text := publish(t, w.target(t, Options{Host: "Models.Example"}), set...); text != "2 models, 9 tags   "+w.dir {
		t.Errorf("text %q", text)
	}
	const all = "model projector license template params"
	base := "models.example/team/small-gguf/"
	want := map[string]string{"models.example/library/old.model/" + c2: "model", "models.example/library/old.model/" + c2 + "-f16": "model"}
	for _, tag := range []string{"latest", "main", "q4_k_m", "q8_0", "v1.0", "v1.0-q4_k_m", "v1.0-q8_0"} {
		want[base+tag] = all
	}
	if diff := cmp.Diff(want, w.names(t)); diff != "" {
		t.Fatal(diff)
	}
	got := w.about(t, base+"latest")
	got.RootFS.DiffIDs = nil
	if diff := cmp.Diff(config{Format: "gguf", Family: "llama", Families: []string{"llama"}, Type: "2K", FileType: "Q4_K_M", Architecture: "amd64", OS: "linux", RootFS: rootFS{Type: "layers"}}, got); diff != "" {
		t.Error(diff)
	}
	m := w.manifest(t, filepath.Join(w.dir, "manifests", base+"q8_0"))
	f, ok := rev.File("small-Q8_0.gguf")
	if !ok || m.Layers[0].Digest != f.Blob || m.Layers[0].Size != f.Size {
		t.Errorf("layer %+v, want %s", m.Layers[0], f.Blob)
	}
	w.sharesBlob(t, blobPath(f.Blob), llama(q80, kv{"tokenizer.chat_template", jinja}))
	before := w.stamps(t)
	publish(t, w.target(t, Options{}), set...)
	if diff := cmp.Diff(before, w.stamps(t)); diff != "" {
		t.Errorf("publishing again changed something: %s", diff)
	}
	publish(t, w.target(t, Options{}))
	if diff := cmp.Diff(map[string]string{"/": ""}, w.tree(t)); diff != "" {
		t.Errorf("something is left: %s", diff)
	}
}

// Files of Ollama's own form win over what is guessed.
func TestDocuments(t *testing.T) {
	w := newWorld(t)
	files := map[string]string{"a.gguf": llama(f16, kv{"tokenizer.chat_template", jinja}), "template": "{{ .Prompt }}", "system": "be kind", "params": `{"temperature":0}`}
	publish(t, w.target(t, Options{}), w.rev(t, "team/model", c1, []string{"main"}, files))
	if got := w.names(t)["models.example/team/model/f16"]; got != "model template system params" {
		t.Errorf("layers %q", got)
	}
	files["params"], files["system"] = "no JSON", "\xff"
	delete(files, "template")
	publish(t, w.target(t, Options{}), w.rev(t, "team/model", c2, []string{"main"}, files))
	if got := w.names(t)["models.example/team/model/f16"]; got != "model template params" {
		t.Errorf("layers %q", got)
	}
}

// A branch moves, a repository goes; what others have there stays.
func TestMove(t *testing.T) {
	w := newWorld(t)
	target := w.target(t, Options{})
	shared, gone := llama(q80), llama(q4km)
	publish(t, target,
		w.rev(t, "team/gone", c1, []string{"main"}, map[string]string{"x-Q4_K_M.gguf": gone}),
		w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"a-Q8_0.gguf": shared, "a-F16.gguf": llama(f16)}))
	// Somebody made a model of their own from our blob.
	theirs := `{"schemaVersion":2,"mediaType":"` + manifestType + `","config":{"mediaType":"` + configType + `","digest":"` + artifact.Sum([]byte(gone)).String() + `","size":` + fmt.Sprint(len(gone)) + `},"layers":[]}`
	w.put(t, "manifests/other.example/me/mine/latest", theirs)
	publish(t, target, w.rev(t, "team/model", c2, []string{"main"}, map[string]string{"b-Q8_0.gguf": shared}))
	want := map[string]string{"other.example/me/mine/latest": ""}
	for _, tag := range []string{"latest", "main", "q8_0"} {
		want["models.example/team/model/"+tag] = "model"
	}
	if diff := cmp.Diff(want, w.names(t)); diff != "" {
		t.Error(diff)
	}
	publish(t, target)
	if diff := cmp.Diff([]string{"other.example/me/mine/latest"}, slices.Collect(maps.Keys(w.names(t)))); diff != "" {
		t.Error(diff)
	}
}

func TestTwoSources(t *testing.T) {
	w := newWorld(t)
	a, b := w.target(t, Options{}), w.target(t, Options{Name: "models/other"})
	file := map[string]string{"a-Q8_0.gguf": llama(q80)}
	publish(t, a, w.rev(t, "team/model", c1, []string{"main"}, file))
	publish(t, b, w.rev(t, "team/model", c1, []string{"main", "v1"}, file))
	publish(t, a)
	if got := len(w.names(t)); got != 5 {
		t.Errorf("%d tags, want those of the other source", got)
	}
	publish(t, b)
	if got := w.names(t); len(got) != 0 {
		t.Errorf("%v is left", got)
	}
}

// What cannot be published is said, and the rest is.
func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		files  map[string]string
		refs   []string
		reason string
		names  int
	}{
		{"split", map[string]string{"a-Q8_0-00001-of-00002.gguf": llama(q80, kv{"split.no", uint16(0)}, kv{"split.count", uint16(2)}), "a-F16.gguf": llama(f16)}, nil, "one of 2 files", 3},
		{"no GGUF", map[string]string{"a-Q8_0.gguf": "PK", "a-F16.gguf": llama(f16)}, nil, "not what its name says", 3},
		{"two of one name", map[string]string{"a-Q8_0.gguf": llama(q80), "b-Q8_0.gguf": llama(q80, kv{"general.name", "b"})}, nil, "b-Q8_0.gguf has no name", 3},
		{"a branch called like a quantisation", map[string]string{"a-Q8_0.gguf": llama(q80), "a-F16.gguf": llama(f16)}, []string{"q8_0"}, "no name of its own", 6},
		{"a long branch", map[string]string{"a-Q8_0.gguf": llama(q80)}, []string{strings.Repeat("x", 81)}, "cannot be called so", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			rev := w.rev(t, "team/model", c1, append([]string{"main"}, c.refs...), c.files)
			_, err := w.target(t, Options{}).Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev}}, 1, time.Unix(1, 0))
			in, ok := errors.AsType[*artifact.Incomplete](err)
			if !ok || in.Items[0].Name != "team/model" || in.Items[0].Version != c1 || !strings.Contains(err.Error(), c.reason) {
				t.Fatalf("got %v", err)
			}
			if got := w.names(t); len(got) != c.names {
				t.Errorf("%v, want %d", got, c.names)
			}
		})
	}
	t.Run("two repositories of one name", func(t *testing.T) {
		w := newWorld(t)
		one := w.rev(t, "Team/model", c1, []string{"main"}, map[string]string{"a-Q8_0.gguf": llama(q80)})
		two := w.rev(t, "team/model", c2, []string{"main"}, map[string]string{"a-Q8_0.gguf": llama(q80)})
		_, err := w.target(t, Options{}).Publish(t.Context(), &models.Set{Revisions: []models.Revision{one, two}}, 1, time.Unix(1, 0))
		if in, ok := errors.AsType[*artifact.Incomplete](err); !ok || len(in.Items) != 1 || in.Items[0].Name != "team/model" {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a name that is taken", func(t *testing.T) {
		w := newWorld(t)
		w.put(t, "manifests/models.example/team/model/latest", "theirs")
		rev := w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"a-Q8_0.gguf": llama(q80)})
		target := w.target(t, Options{})
		_, err := target.Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev}}, 1, time.Unix(1, 0))
		if in, ok := errors.AsType[*artifact.Incomplete](err); !ok || len(in.Items) != 1 || !strings.Contains(err.Error(), "taken") {
			t.Fatalf("got %v", err)
		}
		publish(t, target)
		if diff := cmp.Diff(map[string]string{"manifests/models.example/team/model/latest": "theirs"}, w.tree(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// What somebody has spoilt is put right, also what Ollama has cleared up.
func TestHeals(t *testing.T) {
	file := llama(q80)
	blob := blobPath(artifact.Sum([]byte(file)))
	for name, spoil := range map[string]func(dir string) error{
		"other bytes": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, blob)), os.WriteFile(filepath.Join(dir, blob), []byte("x"), 0o600))
		},
		"no blob":  func(dir string) error { return os.Remove(filepath.Join(dir, blob)) },
		"no blobs": func(dir string) error { return os.RemoveAll(filepath.Join(dir, "blobs")) },
		"no tag": func(dir string) error {
			return os.Remove(filepath.Join(dir, "manifests/models.example/team/model/q8_0"))
		},
		"no record": func(dir string) error { return os.RemoveAll(filepath.Join(dir, place.Corner)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			target := w.target(t, Options{})
			rev := w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"a-Q8_0.gguf": file})
			publish(t, target, rev)
			want := w.tree(t)
			if err := spoil(w.dir); err != nil {
				t.Fatal(err)
			}
			publish(t, target, rev)
			if diff := cmp.Diff(want, w.tree(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A link in place of a folder leads nothing out, and stays.
func TestLinksThatLeadOut(t *testing.T) {
	for _, rel := range []string{"blobs", "manifests", "manifests/models.example", "manifests/models.example/team", "manifests/models.example/team/model", place.Corner, place.Corner + "/models--llm"} {
		t.Run(rel, func(t *testing.T) {
			w := newWorld(t)
			out := t.TempDir()
			name := filepath.Join(w.dir, rel)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o750), os.Symlink(out, name)); err != nil {
				t.Fatal(err)
			}
			target := w.target(t, Options{})
			rev := w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"a-Q8_0.gguf": llama(q80)})
			if _, err := target.Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev}}, 1, time.Unix(1, 0)); err == nil {
				t.Fatal("taken")
			}
			_, _ = target.Publish(t.Context(), &models.Set{}, 2, time.Unix(2, 0)) // may complain, must not follow
			if names := readDir(t, out); len(names) != 0 {
				t.Errorf("written outside: %v", names)
			}
			if text, err := os.Readlink(name); err != nil || text != out {
				t.Errorf("the link: %q %v", text, err)
			}
		})
	}
}

func TestRecordsThatLie(t *testing.T) {
	record := func(repo, manifests, blobs string) string {
		return `{"schema":"` + recordSchema + `","source":"models/llm","repo":"` + repo + `","manifests":[` + manifests + `],"blobs":[` + blobs + `],"heads":[]}`
	}
	digest := artifact.Sum(nil).String()
	for name, text := range map[string]string{
		"not JSON":           "{",
		"another schema":     strings.Replace(record("team/model", "", ""), recordSchema, "x", 1),
		"another repo":       record("team/other", "", ""),
		"another's manifest": record("team/model", `{"name":"models.example/team/models/x","digest":"`+digest+`"}`, ""),
		"a manifest outside": record("team/model", `{"name":"../team/model/x","digest":"`+digest+`"}`, ""),
		"a tag outside":      record("team/model", `{"name":"models.example/team/model/../../x","digest":"`+digest+`"}`, ""),
		"a blob":             record("team/model", "", `{"digest":"sha256:..","is":""}`),
	} {
		for _, source := range []string{"models/llm", "models/other"} {
			t.Run(name+" "+source, func(t *testing.T) {
				w := newWorld(t)
				w.put(t, recordPath(source, "models--team--model"), text)
				rev := w.rev(t, "team/model", c1, nil, map[string]string{"a-Q8_0.gguf": llama(q80)})
				_, err := w.target(t, Options{}).Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev}}, 1, time.Unix(1, 0))
				if _, ok := errors.AsType[*artifact.Incomplete](err); !ok || !strings.Contains(err.Error(), place.Corner) {
					t.Fatalf("got %v", err)
				}
			})
		}
	}
}

func TestBlobIsMissing(t *testing.T) {
	w := newWorld(t)
	target := w.target(t, Options{})
	publish(t, target, w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"a-Q8_0.gguf": llama(q80)}))
	want := w.tree(t)
	rev := w.rev(t, "team/model", c2, []string{"main"}, map[string]string{"a-Q8_0.gguf": llama(q80)})
	rev.Files[0].Blob = artifact.Sum([]byte("not there"))
	_, err := target.Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev}}, 1, time.Unix(1, 0))
	if _, ok := errors.AsType[*artifact.Incomplete](err); !ok || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ file, fileType, want string }{
		{"small-Q4_K_M.gguf", "Q8_0", "q4_k_m"},
		{"small.Q8_0.GGUF", "", "q8_0"},
		{"UD-Q4_K_XL/small-UD-Q4_K_XL-00001-of-00003.gguf", "Q4_K_M", "ud-q4_k_xl"},
		{"small.i1-IQ2_XXS.gguf", "", "i1-iq2_xxs"},
		{"BF16/weights.gguf", "", "bf16"},
		{"gpt-MXFP4_MOE.gguf", "", "mxfp4_moe"},
		{"ggml-model.gguf", "Q5_0", "q5_0"},
		{"My Model+.gguf", "", "my-model-"},
	} {
		if got := quantTag(c.file, c.fileType); got != c.want {
			t.Errorf("%s: %q, want %q", c.file, got, c.want)
		}
	}
	for id, want := range map[string]string{"Team/Model.v1": "team/model.v1", "a.b/c": "a-b/c", "gpt2": "library/gpt2", "team/" + strings.Repeat("x", 81): "", "_x/y": "_x/y"} {
		got, err := modelName(hub.Repo{Kind: hub.Model, ID: id})
		if (want == "") != (err != nil) || err == nil && got != want {
			t.Errorf("%s: %q %v", id, got, err)
		}
	}
	for ref, want := range map[string]string{"refs/pr/1": "refs-pr-1", "V1.0+x": "v1.0-x"} {
		if got := refTag(ref); got != want {
			t.Errorf("%s: %q", ref, got)
		}
	}
	for n, want := range map[int64]string{7: "7", 2000: "2K", 135_000_000: "135M", 134_515_008: "134.52M", 8_000_000_000: "8B", 8_030_000_000: "8B", 1_540_000_000: "1.5B"} {
		if got := (&head{Parameters: n}).size(); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// Each way to write a conversation is one of Ollama's template language, ends
// where the model goes on, and is found by its own marks alone.
func TestChats(t *testing.T) {
	type message struct{ Role, Content string }
	talk := map[string]any{"Messages": []message{{"system", "be kind"}, {"user", "hello"}, {"assistant", "hi"}, {"user", "bye"}}}
	for name, want := range map[string]string{
		"chatml":  "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n",
		"llama3":  "<|start_header_id|>system<|end_header_id|>\n\nbe kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nbye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
		"gemma":   "<start_of_turn>user\nbe kind\n\nhello<end_of_turn>\n<start_of_turn>model\nhi<end_of_turn>\n<start_of_turn>user\nbye<end_of_turn>\n<start_of_turn>model\n",
		"phi3":    "<|system|>\nbe kind<|end|>\n<|user|>\nhello<|end|>\n<|assistant|>\nhi<|end|>\n<|user|>\nbye<|end|>\n<|assistant|>\n",
		"mistral": "[INST] be kind\n\nhello[/INST] hi</s>[INST] bye[/INST]",
	} {
		c, ok := chats()[name]
		if !ok {
			t.Fatalf("%s is not known", name)
		}
		tm, err := template.New(name).Parse(c.template)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := tm.Execute(&b, talk); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b.String()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if got := chatOf(strings.Join(c.marks, " ")); got != name {
			t.Errorf("%s is taken for %q", name, got)
		}
	}
	if got := chatOf("<|im_start|><|im_end|>[INST][/INST]"); got != "" {
		t.Errorf("two at once are %q", got)
	}
}

// sharesBlob expects a file to be the store's own.
func (w *world) sharesBlob(t *testing.T, rel, text string) {
	t.Helper()
	f, err := w.st.File(artifact.Sum([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // opened for reading
	a, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Lstat(filepath.Join(w.dir, rel))
	if err != nil || !os.SameFile(a, b) {
		t.Errorf("%s is not the store's file: %v", rel, err)
	}
}

// stamps lists everything with its inode and times.
func (w *world) stamps(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(w.dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("no inode")
		}
		all[name] = fmt.Sprint(st.Ino, st.Mtim, st.Ctim, st.Nlink)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	for _, o := range []Options{{Host: "models.example"}, {Name: "models/llm"}, {Name: "models/llm", Host: "a/b"}, {Name: "models/llm", Host: ".."}} {
		if _, err := New(w.dir, o, w.st, nil); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
