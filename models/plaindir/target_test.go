package plaindir

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
	return &world{dir: filepath.Join(dir, "models"), st: st}
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

const config = `{"model_type":"bert"}`

func small() map[string]string {
	return map[string]string{"config.json": config, "a folder/x+y.txt": "z", "model.safetensors": "weights"}
}

// wantTree is what lies there of one revision and the links to it.
func (w *world) wantTree(t *testing.T, rev models.Revision, links ...string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	w.addTree(t, all, rev, links...)
	return all
}

func (w *world) addTree(t *testing.T, all map[string]string, rev models.Revision, links ...string) {
	t.Helper()
	base := ".revisions/" + rev.Repo.CacheFolder() + "/" + revisionFolder(&rev)
	for _, f := range rev.Files {
		b, err := w.st.ReadAll(f.Blob, 1000)
		if err != nil {
			t.Fatal(err)
		}
		all[base+"/"+f.Path] = string(b)
	}
	for _, l := range links {
		all[l] = "-> " + strings.Repeat("../", strings.Count(l, "/")) + base
	}
}

func TestPublish(t *testing.T) {
	w := newWorld(t)
	data := w.rev(t, "datasets/team/data", c2, []string{"main"}, map[string]string{"train.csv": "a,b\n"})
	old := w.rev(t, "gpt2", c2, nil, map[string]string{"config.json": "{}"})
	model := w.rev(t, "team/model", c1, []string{"feature/x", "main", "v1.5"}, small())
	if text := publish(t, w.target(t, Options{}), data, old, model); text != "2 models, 1 dataset   "+w.dir {
		t.Errorf("text %q", text)
	}
	want := w.wantTree(t, model, "team/model", "team/model@v1.5", "team/model@feature-x")
	w.addTree(t, want, data, "datasets/team/data")
	w.addTree(t, want, old, "gpt2@"+c2)
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
	w.sharesBlob(t, "team/model/model.safetensors", "weights")
	before := w.stamps(t)
	publish(t, w.target(t, Options{}), data, old, model)
	if diff := cmp.Diff(before, w.stamps(t)); diff != "" {
		t.Errorf("publishing again changed something: %s", diff)
	}
	publish(t, w.target(t, Options{}))
	if diff := cmp.Diff(map[string]string{"/": ""}, w.tree(t)); diff != "" {
		t.Errorf("something is left: %s", diff)
	}
}

// A branch moves: a reader who has a file open keeps it, the former folder
// goes, and what others put there stays.
func TestMove(t *testing.T) {
	w := newWorld(t)
	target := w.target(t, Options{})
	first := w.rev(t, "team/model", c1, []string{"main", "v1"}, small())
	gone := w.rev(t, "team/gone", c1, []string{"main"}, map[string]string{"config.json": "{}"})
	publish(t, target, gone, first)
	w.put(t, "team/notes.txt", "theirs")
	w.put(t, "team/gone/converted.bin", "theirs") // as TGI does
	f, err := os.Open(filepath.Join(w.dir, "team/model/config.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // opened for reading

	files := small()
	files["config.json"] = "{}"
	second := w.rev(t, "team/model", c2, []string{"main"}, files)
	publish(t, target, second)
	want := w.wantTree(t, second, "team/model")
	want["team/notes.txt"] = "theirs"
	want[".revisions/models--team--gone/"+revisionFolder(&gone)+"/converted.bin"] = "theirs"
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
	b := make([]byte, len(config))
	if _, err := f.Read(b); err != nil || string(b) != config {
		t.Errorf("the open file: %q %v", b, err)
	}
	// A former revision that is kept has its commit for a name.
	first.Refs = nil
	publish(t, target, first, second)
	w.addTree(t, want, first, "team/model@"+c1)
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Fatal(diff)
	}
}

// Another choice of the same commit's files is another folder.
func TestOtherFiles(t *testing.T) {
	w := newWorld(t)
	target := w.target(t, Options{})
	files := small()
	files["extra.bin"] = "extra"
	publish(t, target, w.rev(t, "team/model", c1, []string{"main"}, files))
	less := w.rev(t, "team/model", c1, []string{"main"}, small())
	publish(t, target, less)
	if diff := cmp.Diff(w.wantTree(t, less, "team/model"), w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

func TestTwoSources(t *testing.T) {
	w := newWorld(t)
	a, b := w.target(t, Options{}), w.target(t, Options{Name: "models/other"})
	mine := w.rev(t, "team/model", c1, []string{"main"}, small())
	publish(t, a, mine)
	publish(t, b, w.rev(t, "team/model", c1, []string{"v1"}, small()))
	if diff := cmp.Diff(w.wantTree(t, mine, "team/model", "team/model@v1"), w.tree(t)); diff != "" {
		t.Error(diff)
	}
	publish(t, b, w.rev(t, "team/model", c2, []string{"main"}, map[string]string{"config.json": "{}"}))
	if got := w.tree(t)["team/model"]; !strings.Contains(got, c2) {
		t.Errorf("main is %q", got)
	}
	publish(t, b)
	if diff := cmp.Diff(w.wantTree(t, mine, "team/model"), w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

// Branches whose names would be the same.
func TestNamesClash(t *testing.T) {
	w := newWorld(t)
	one := w.rev(t, "team/model", c1, []string{"feature/x", "main"}, small())
	two := w.rev(t, "team/model", c2, []string{"feature-x"}, map[string]string{"config.json": "{}"})
	text, err := w.target(t, Options{}).Publish(t.Context(), &models.Set{Revisions: []models.Revision{one, two}}, 1, time.Unix(1, 0))
	in, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok || len(in.Items) != 1 || in.Items[0].Version != c1 || !strings.Contains(err.Error(), "feature/x") {
		t.Fatalf("got %v", err)
	}
	if text != "1 model   "+w.dir {
		t.Errorf("text %q", text)
	}
	want := w.wantTree(t, one, "team/model")
	w.addTree(t, want, two, "team/model@feature-x")
	if diff := cmp.Diff(want, w.tree(t)); diff != "" {
		t.Error(diff)
	}
}

// A name at which something else lies is not touched.
func TestNamesTaken(t *testing.T) {
	for name, take := range map[string]func(w *world, at string) error{
		"folder": func(_ *world, at string) error { return os.MkdirAll(filepath.Join(at, "sub"), 0o750) },
		"file":   func(_ *world, at string) error { return os.WriteFile(at, []byte("theirs"), 0o600) },
		"link":   func(_ *world, at string) error { return os.Symlink("../elsewhere", at) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.put(t, "team/notes.txt", "theirs")
			if err := take(w, filepath.Join(w.dir, "team", "model")); err != nil {
				t.Fatal(err)
			}
			before := w.stamps(t)
			rev := w.rev(t, "team/model", c1, []string{"main", "v1"}, small())
			target := w.target(t, Options{})
			_, err := target.Publish(t.Context(), &models.Set{Revisions: []models.Revision{rev}}, 1, time.Unix(1, 0))
			if in, ok := errors.AsType[*artifact.Incomplete](err); !ok || len(in.Items) != 1 || !errors.Is(err, artifact.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
			if got := w.tree(t)["team/model@v1"]; !strings.Contains(got, c1) {
				t.Errorf("the other name: %q", got)
			}
			publish(t, target)
			if diff := cmp.Diff(before, w.stamps(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What somebody has spoilt is put right.
func TestHeals(t *testing.T) {
	for name, spoil := range map[string]func(w *world, revision string) error{
		"other bytes": func(_ *world, revision string) error {
			at := filepath.Join(revision, "config.json")
			return errors.Join(os.Remove(at), os.WriteFile(at, []byte(strings.ToUpper(config)), 0o600))
		},
		"a link for a file": func(_ *world, revision string) error {
			at := filepath.Join(revision, "config.json")
			return errors.Join(os.Remove(at), os.Symlink("/etc/passwd", at))
		},
		"a blob that was damaged and brought again": func(w *world, revision string) error {
			at := filepath.Join(revision, "config.json")
			fi, err := os.Stat(at)
			err = errors.Join(err, os.WriteFile(at, []byte(strings.ToUpper(config)), 0o600), os.Chtimes(at, time.Time{}, fi.ModTime()))
			if f, damage := w.st.File(artifact.Sum([]byte(config))); !errors.Is(damage, artifact.ErrIntegrity) {
				return errors.Join(err, fmt.Errorf("%v, want damage, got %w", f, damage))
			}
			_, again := w.st.PutBytes([]byte(config))
			return errors.Join(err, again)
		},
		"no file":    func(_ *world, revision string) error { return os.Remove(filepath.Join(revision, "config.json")) },
		"no folder":  func(_ *world, revision string) error { return os.RemoveAll(revision) },
		"no link":    func(w *world, _ string) error { return os.Remove(filepath.Join(w.dir, "team/model")) },
		"no records": func(w *world, _ string) error { return os.RemoveAll(filepath.Join(w.dir, place.Corner)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			target := w.target(t, Options{})
			rev := w.rev(t, "team/model", c1, []string{"main"}, small())
			publish(t, target, rev)
			if err := spoil(w, filepath.Join(w.dir, ".revisions/models--team--model", revisionFolder(&rev))); err != nil {
				t.Fatal(err)
			}
			publish(t, target, rev)
			if diff := cmp.Diff(w.wantTree(t, rev, "team/model"), w.tree(t)); diff != "" {
				t.Error(diff)
			}
			publish(t, target)
			if diff := cmp.Diff(map[string]string{"/": ""}, w.tree(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A link in place of a folder leads nothing out, and stays.
func TestLinksThatLeadOut(t *testing.T) {
	rev := newWorld(t).rev(t, "team/model", c1, []string{"main"}, small())
	base := ".revisions/models--team--model"
	for _, rel := range []string{"team", ".revisions", base, base + "/" + revisionFolder(&rev), base + "/" + revisionFolder(&rev) + "/a folder", place.Corner, place.Corner + "/models--llm"} {
		t.Run(rel, func(t *testing.T) {
			w := newWorld(t)
			out := t.TempDir()
			name := filepath.Join(w.dir, rel)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o750), os.Symlink(out, name)); err != nil {
				t.Fatal(err)
			}
			target := w.target(t, Options{})
			w.rev(t, "team/model", c1, nil, small())
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
	record := func(repo, links, revisions string) string {
		return `{"schema":"` + recordSchema + `","source":"models/llm","repo":"` + repo + `","links":[` + links + `],"revisions":[` + revisions + `]}`
	}
	folder := c1 + "-" + strings.Repeat("0", idLength)
	for name, text := range map[string]string{
		"not JSON":       "{",
		"another schema": strings.Replace(record("team/model", "", ""), recordSchema, "x", 1),
		"another repo":   record("team/other", "", ""),
		"another's link": record("team/model", `{"name":"team/models","revision":"`+folder+`"}`, ""),
		"a link deeper":  record("team/model", `{"name":"team/model@/../../x","revision":"`+folder+`"}`, ""),
		"a folder":       record("team/model", "", `{"folder":"..","files":[]}`),
		"a path":         record("team/model", "", `{"folder":"`+folder+`","files":[{"path":"../x","is":""}]}`),
	} {
		for _, source := range []string{"models/llm", "models/other"} {
			t.Run(name+" "+source, func(t *testing.T) {
				w := newWorld(t)
				w.put(t, recordPath(source, "models--team--model"), text)
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
	target := w.target(t, Options{})
	first := w.rev(t, "team/model", c1, []string{"main"}, small())
	publish(t, target, first)
	second := w.rev(t, "team/model", c2, []string{"main"}, small())
	second.Files[2].Blob = artifact.Sum([]byte("not there"))
	_, err := target.Publish(t.Context(), &models.Set{Revisions: []models.Revision{second}}, 1, time.Unix(1, 0))
	if _, ok := errors.AsType[*artifact.Incomplete](err); !ok || !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	// What was there is still there, whole.
	if diff := cmp.Diff(w.wantTree(t, first, "team/model"), w.tree(t)); diff != "" {
		t.Error(diff)
	}
	publish(t, target)
	if diff := cmp.Diff(map[string]string{"/": ""}, w.tree(t)); diff != "" {
		t.Error(diff)
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
