package cachedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/place"
	"github.com/darkmirror/darkmirror/models/repo"
)

// A world is a store and a cache folder on one file system.
type world struct {
	dir string // the cache folder
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
	return &world{dir: filepath.Join(dir, "hf"), st: st}
}

// rev makes a revision: files whose name ends in .safetensors are large ones.
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
		if strings.HasSuffix(path, ".safetensors") {
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

// tree lists what lies in the cache folder, without our records: files with
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
		case d.Name() == place.Corner:
			for _, e := range readDir(t, name) {
				if !strings.HasPrefix(e, "models--") || !strings.HasSuffix(e, recordSuffix) {
					t.Errorf("%s holds %s", rel, e)
				}
			}
			return fs.SkipDir
		case d.IsDir():
			if len(readDir(t, name)) == 0 {
				all[rel+"/"] = ""
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

func oid(text string) string { return string(hub.SumBlob([]byte(text))) }
func sha(text string) string { return artifact.Sum([]byte(text)).Hex() }

var (
	c1 = strings.Repeat("1", 40)
	c2 = strings.Repeat("2", 40)
)

const config = `{"model_type":"bert"}`

func small() map[string]string {
	return map[string]string{"config.json": config, "a folder/x+y.txt": "z", "model.safetensors": "weights"}
}

func wantTree(entries string) string {
	return "{\n \"format_version\": 1,\n \"files\": {\n" + entries + "\n }\n}"
}

func entry(path, text string) string {
	if strings.HasSuffix(path, ".safetensors") {
		pointer := hub.Pointer(artifact.Sum([]byte(text)), int64(len(text)))
		return fmt.Sprintf("  \"%s\": {\n   \"size\": %d,\n   \"blob_id\": \"%s\",\n   \"lfs_sha256\": \"%s\",\n   \"lfs_size\": %d\n  }", path, len(text), hub.SumBlob(pointer), sha(text), len(text))
	}
	return fmt.Sprintf("  \"%s\": {\n   \"size\": %d,\n   \"blob_id\": \"%s\"\n  }", path, len(text), oid(text))
}

// smallTree is what lies there of small.
func smallTree(commit string) map[string]string {
	base := "models--team--model/"
	return map[string]string{
		"CACHEDIR.TAG":                tag,
		base + "blobs/" + oid(config): config, base + "blobs/" + oid("z"): "z", base + "blobs/" + sha("weights"): "weights",
		base + "snapshots/" + commit + "/config.json":       "-> ../../blobs/" + oid(config),
		base + "snapshots/" + commit + "/a folder/x+y.txt":  "-> ../../../blobs/" + oid("z"),
		base + "snapshots/" + commit + "/model.safetensors": "-> ../../blobs/" + sha("weights"),
		base + "refs/main":                 commit,
		base + "trees/" + commit + ".json": wantTree(strings.Join([]string{entry("a folder/x+y.txt", "z"), entry("config.json", config), entry("model.safetensors", "weights")}, ",\n")),
	}
}

func TestPublish(t *testing.T) {
	w := newWorld(t)
	set := []models.Revision{
		w.rev(t, "datasets/team/data", c2, []string{"main", "refs/pr/1"}, map[string]string{"train.csv": "a,b\n"}),
		w.rev(t, "team/model", c1, []string{"main"}, small()),
	}
	target := w.target(t, Options{})
	if text := publish(t, target, set...); text != "1 model, 1 dataset   "+w.dir {
		t.Errorf("text %q", text)
	}
	want := smallTree(c1)
	want["datasets--team--data/blobs/"+oid("a,b\n")] = "a,b\n"
	want["datasets--team--data/snapshots/"+c2+"/train.csv"] = "-> ../../blobs/" + oid("a,b\n")
	want["datasets--team--data/refs/main"] = c2
	want["datasets--team--data/refs/refs/pr/1"] = c2
	want["datasets--team--data/trees/"+c2+".json"] = wantTree(entry("train.csv", "a,b\n"))
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
	w.sharesBlob(t, "models--team--model/blobs/"+sha("weights"), "weights")
	before := w.stamps(t)
	publish(t, w.target(t, Options{}), set...)
	if diff := cmp.Diff(before, w.stamps(t)); diff != "" {
		t.Errorf("publishing again changed something: %s", diff)
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

func TestPublishWithoutLinks(t *testing.T) {
	w := newWorld(t)
	rev := w.rev(t, "team/model", c1, []string{"main"}, small())
	publish(t, w.target(t, Options{}), rev) // with links first
	target := w.target(t, Options{Links: models.LinksNone})
	publish(t, target, rev)
	base := "models--team--model/"
	want := map[string]string{
		"CACHEDIR.TAG": tag,
		base + "snapshots/" + c1 + "/config.json":       config,
		base + "snapshots/" + c1 + "/a folder/x+y.txt":  "z",
		base + "snapshots/" + c1 + "/model.safetensors": "weights",
		base + "refs/main":                              c1,
		base + "trees/" + c1 + ".json":                  smallTree(c1)[base+"trees/"+c1+".json"],
	}
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
	w.sharesBlob(t, base+"snapshots/"+c1+"/model.safetensors", "weights")
	before := w.stamps(t)
	publish(t, target, rev)
	if diff := cmp.Diff(before, w.stamps(t)); diff != "" {
		t.Errorf("publishing again changed something: %s", diff)
	}
	publish(t, w.target(t, Options{}), rev) // and back
	if diff := cmp.Diff(smallTree(c1), w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
}

func TestNoExist(t *testing.T) {
	w := newWorld(t)
	rev := w.rev(t, "team/model", c1, []string{"main"}, small())
	rev.Left = []repo.Left{{Path: "tokenizer.json"}}
	data := w.rev(t, "datasets/team/data", c2, nil, map[string]string{"train.csv": ""})
	publish(t, w.target(t, Options{NoExist: true}), data, rev)
	got := w.tree(t)
	for name, want := range map[string]bool{"adapter_config.json": true, "custom_generate/generate.py": true, "config.json": false, "tokenizer.json": false} {
		if _, ok := got["models--team--model/.no_exist/"+c1+"/"+name]; ok != want {
			t.Errorf("%s is known not to exist: %v", name, ok)
		}
	}
	publish(t, w.target(t, Options{}), rev)
	if diff := cmp.Diff(smallTree(c1), w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

// A branch moves, a repository goes; what others put there stays.
func TestMove(t *testing.T) {
	w := newWorld(t)
	target := w.target(t, Options{})
	first := w.rev(t, "team/model", c1, []string{"main", "v1"}, small())
	gone := w.rev(t, "team/gone", c1, []string{"main"}, map[string]string{"config.json": "{}"})
	publish(t, target, gone, first)

	// Others: a snapshot that links to our blob, a ref of their own, a file in
	// a folder of ours.
	base := "models--team--model/"
	foreign := strings.Repeat("f", 40)
	w.put(t, base+"refs/theirs", foreign+"\n")
	w.put(t, "models--team--gone/blobs/note", "kept")
	w.put(t, "version.txt", "1")
	if err := os.MkdirAll(filepath.Join(w.dir, base, "snapshots", foreign), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../blobs/"+oid("z"), filepath.Join(w.dir, base, "snapshots", foreign, "z.txt")); err != nil {
		t.Fatal(err)
	}

	files := small()
	delete(files, "a folder/x+y.txt")
	files["config.json"] = "{}"
	second := w.rev(t, "team/model", c2, []string{"main", "v1/2"}, files)
	publish(t, target, second)
	got := w.tree(t)
	want := map[string]string{
		"CACHEDIR.TAG": tag, "version.txt": "1", "models--team--gone/blobs/note": "kept",
		base + "refs/theirs":                     foreign + "\n",
		base + "snapshots/" + foreign + "/z.txt": "-> ../../blobs/" + oid("z"),
		base + "blobs/" + oid("z"):               "z",
		base + "blobs/" + oid("{}"):              "{}", base + "blobs/" + sha("weights"): "weights",
		base + "snapshots/" + c2 + "/config.json":       "-> ../../blobs/" + oid("{}"),
		base + "snapshots/" + c2 + "/model.safetensors": "-> ../../blobs/" + sha("weights"),
		base + "refs/main":                              c2,
		base + "refs/v1/2":                              c2,
		base + "trees/" + c2 + ".json":                  wantTree(entry("config.json", "{}") + ",\n" + entry("model.safetensors", "weights")),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	// A former revision that is kept answers to its commit.
	first.Refs = nil
	publish(t, target, first, second)
	if got := w.tree(t); got[base+"refs/main"] != c2 || got[base+"trees/"+c1+".json"] == "" || got[base+"snapshots/"+c1+"/config.json"] == "" {
		t.Errorf("the kept revision is not there: %v", got)
	}
	// Nothing at all is left of ours in the end.
	if text := publish(t, target); text != "0 models   "+w.dir {
		t.Errorf("text %q", text)
	}
	for name := range w.tree(t) {
		if name != "CACHEDIR.TAG" && name != "version.txt" && !strings.HasSuffix(name, "/note") && !strings.Contains(name, "theirs") && !strings.Contains(name, foreign) && !strings.HasSuffix(name, oid("z")) {
			t.Errorf("%s is left", name)
		}
	}
}

// Another profile of the same commit.
func TestOtherFiles(t *testing.T) {
	w := newWorld(t)
	target := w.target(t, Options{})
	files := small()
	files["extra.bin"] = "extra"
	publish(t, target, w.rev(t, "team/model", c1, []string{"main"}, files))
	publish(t, target, w.rev(t, "team/model", c1, []string{"main"}, small()))
	if diff := cmp.Diff(smallTree(c1), w.tree(t)); diff != "" {
		t.Error(diff)
	}
	publish(t, target, w.rev(t, "team/model", c1, []string{"main"}, files))
	if got := w.tree(t); !strings.Contains(got["models--team--model/trees/"+c1+".json"], "extra.bin") || got["models--team--model/snapshots/"+c1+"/extra.bin"] == "" {
		t.Errorf("extra.bin is not back: %v", got)
	}
}

// Two sources share a folder and a repository.
func TestTwoSources(t *testing.T) {
	w := newWorld(t)
	a, b := w.target(t, Options{}), w.target(t, Options{Name: "models/other"})
	weights := map[string]string{"model.safetensors": "weights", "extra.bin": "extra"}
	publish(t, a, w.rev(t, "team/model", c1, []string{"main"}, small()))
	publish(t, b, w.rev(t, "team/model", c1, []string{"main", "v1"}, weights))
	base := "models--team--model/"
	both := w.tree(t)
	for _, name := range []string{"config.json", "extra.bin", "model.safetensors"} {
		if both[base+"snapshots/"+c1+"/"+name] == "" || !strings.Contains(both[base+"trees/"+c1+".json"], name) {
			t.Errorf("%s is missing: %v", name, both)
		}
	}
	publish(t, b)
	if diff := cmp.Diff(smallTree(c1), w.tree(t)); diff != "" {
		t.Error(diff)
	}
	// Of two commits for one branch the last to speak wins; the other one has
	// it back when that is gone.
	publish(t, b, w.rev(t, "team/model", c2, []string{"main"}, weights))
	if got := w.tree(t)[base+"refs/main"]; got != c2 {
		t.Errorf("main is %q", got)
	}
	publish(t, b)
	if diff := cmp.Diff(smallTree(c1), w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

// What somebody has spoilt is put right.
func TestHeals(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
	}{
		{"other bytes", func(dir string) error {
			name := filepath.Join(dir, "blobs", sha("weights"))
			return errors.Join(os.Remove(name), os.WriteFile(name, []byte("wEights"), 0o600))
		}},
		{"a link for a blob", func(dir string) error {
			name := filepath.Join(dir, "blobs", sha("weights"))
			return errors.Join(os.Remove(name), os.Symlink("/etc/passwd", name))
		}},
		{"another link", func(dir string) error {
			name := filepath.Join(dir, "snapshots", c1, "config.json")
			return errors.Join(os.Remove(name), os.Symlink("../../blobs/x", name))
		}},
		{"a ref with a newline", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "refs", "main"), []byte(c1+"\n"), 0o600)
		}},
		{"no records", func(dir string) error { return os.RemoveAll(filepath.Join(dir, place.Corner)) }},
		{"no snapshot", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "snapshots")) }},
		{"no tree", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "trees")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			target := w.target(t, Options{})
			rev := w.rev(t, "team/model", c1, []string{"main"}, small())
			publish(t, target, rev)
			if err := c.spoil(filepath.Join(w.dir, "models--team--model")); err != nil {
				t.Fatal(err)
			}
			publish(t, target, rev)
			if diff := cmp.Diff(smallTree(c1), w.tree(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A link in place of a folder leads nothing out.
func TestLinksThatLeadOut(t *testing.T) {
	for _, rel := range []string{"", "/blobs", "/snapshots", "/snapshots/" + c1, "/snapshots/" + c1 + "/a folder", "/trees", "/refs", "/.no_exist", "/" + place.Corner} {
		t.Run("model"+rel, func(t *testing.T) {
			w := newWorld(t)
			out := t.TempDir()
			name := filepath.Join(w.dir, "models--team--model"+rel)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o750), os.Symlink(out, name)); err != nil {
				t.Fatal(err)
			}
			target := w.target(t, Options{NoExist: true})
			rev := w.rev(t, "team/model", c1, []string{"main"}, small())
			other := w.rev(t, "team/other", c1, []string{"main"}, small())
			text, err := target.Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev, other}}, 1, time.Unix(1, 0))
			in, ok := errors.AsType[*artifact.Incomplete](err)
			if !ok || len(in.Items) != 1 || in.Items[0].Name != "team/model" || !errors.Is(err, artifact.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
			if text != "1 model   "+w.dir {
				t.Errorf("text %q", text)
			}
			if names := readDir(t, out); len(names) != 0 {
				t.Errorf("written outside: %v", names)
			}
		})
	}
}

func TestRecordsThatLie(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":       "{",
		"another schema": `{"schema":"x","source":"models/llm","refs":[],"revisions":[],"files":[]}`,
		"escapes":        `{"schema":"` + recordSchema + `","source":"models/llm","refs":[{"name":"../../x","commit":""}],"revisions":[],"files":[]}`,
		"no commit":      `{"schema":"` + recordSchema + `","source":"models/llm","refs":[],"revisions":[{"commit":"..","files":[]}],"files":[]}`,
		"no digest":      `{"schema":"` + recordSchema + `","source":"models/llm","refs":[],"revisions":[{"commit":"` + c1 + `","files":[{"path":"x","size":1,"oid":"../x"}]}],"files":[]}`,
	} {
		for _, source := range []string{"models/llm", "models/other"} {
			t.Run(name+" "+source, func(t *testing.T) {
				w := newWorld(t)
				w.put(t, "models--team--model/"+recordPath(source), text)
				_, err := w.target(t, Options{}).Publish(t.Context(), &models.Set{Revisions: []models.Revision{w.rev(t, "team/model", c1, nil, small())}}, 1, time.Unix(1, 0))
				if _, ok := errors.AsType[*artifact.Incomplete](err); !ok || !strings.Contains(err.Error(), place.Corner) {
					t.Fatalf("got %v", err)
				}
			})
		}
	}
}

func TestBlobIsMissing(t *testing.T) {
	w := newWorld(t)
	rev := w.rev(t, "team/model", c1, []string{"main"}, small())
	rev.Files[2].Blob = artifact.Sum([]byte("not there"))
	target := w.target(t, Options{})
	_, err := target.Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev}}, 1, time.Unix(1, 0))
	if _, ok := errors.AsType[*artifact.Incomplete](err); !ok || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	for name := range w.tree(t) {
		if strings.Contains(name, "snapshots/") || strings.Contains(name, "refs/") {
			t.Errorf("%s of a revision that is not whole", name)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	for _, o := range []Options{{}, {Name: "models/llm", Links: "hard"}} {
		if _, err := New(w.dir, o, w.st, nil); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// The listing is what Python's json.dump(indent=1) makes of it.
func TestEncodeTree(t *testing.T) {
	got, err := encodeTree(map[string]treeFile{"é\"<\U0001f600\u2028.txt": {Size: 1, BlobID: c1}})
	if err != nil {
		t.Fatal(err)
	}
	want := "{\n \"format_version\": 1,\n \"files\": {\n  \"\\u00e9\\\"<\\ud83d\\ude00\\u2028.txt\": {\n   \"size\": 1,\n   \"blob_id\": \"" + c1 + "\"\n  }\n }\n}"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}
