package files

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// A world is a store, a publisher's own folder and a folder that programs
// read.
type world struct {
	st    *store.Store
	state string
	dir   string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	at := t.TempDir()
	st, err := store.Open(filepath.Join(at, "store"))
	must(t, err)
	return &world{st: st, state: filepath.Join(at, "state"), dir: filepath.Join(at, "folder")}
}

func (w *world) publisher(t testing.TB, c PublishConfig) *Publisher {
	t.Helper()
	c.Name = "db"
	p, err := NewPublisher(c, sourceName, w.st, w.state, nil)
	must(t, err)
	return p
}

// publish verifies and publishes sets.
func (w *world) publish(t testing.TB, c PublishConfig, sets map[string]tree) (string, error) {
	t.Helper()
	p, snap := w.publisher(t, c), snapshotOf(t, w.st, sets)
	must(t, p.Verify(t.Context(), snap, nil))
	return p.Publish(t.Context(), snap, 1, time.Unix(1, 0))
}

func (w *world) mustPublish(t testing.TB, c PublishConfig, sets map[string]tree) string {
	t.Helper()
	text, err := w.publish(t, c, sets)
	must(t, err)
	return text
}

func (w *world) plain() PublishConfig     { return PublishConfig{Folder: w.dir} }
func (w *world) versioned() PublishConfig { return PublishConfig{Folder: w.dir, Versioned: true} }

// What the engine calls.
var (
	_ mirror.Source    = (*Source)(nil)
	_ mirror.Keeper    = (*Source)(nil)
	_ mirror.Publisher = (*Publisher)(nil)
)

func TestPlainFolder(t *testing.T) {
	w := newWorld(t)
	put(t, w.dir, tree{"theirs": "kept", "made/by/them/": ""})
	first := tree{"main.cvd": "main", "daily.cvd": "1", "deep/er/own.ndb": "ours", "made/a": "x"}
	text := w.mustPublish(t, w.plain(), map[string]tree{"clamav": first})
	if !strings.Contains(text, "1 set, 4 files, 10 B   /files/db/\n4 files, 10 B   "+w.dir) {
		t.Errorf("text %q", text)
	}
	want := tree{"theirs": "kept", "made/by/them/": ""}
	for k, v := range first {
		want[k] = v
	}
	same(t, want, read(t, w.dir))

	// Again: nothing is written.
	before := stamps(t, w.dir, w.state)
	w.mustPublish(t, w.plain(), map[string]tree{"clamav": first})
	same(t, before, stamps(t, w.dir, w.state))

	// A new state: a file changes, one goes, one comes, one stays.
	main := stamps(t, w.dir)["main.cvd"]
	w.mustPublish(t, w.plain(), map[string]tree{"clamav": {"main.cvd": "main", "daily.cvd": "2", "new.cvd": "n", "made/a": "x"}})
	same(t, tree{"theirs": "kept", "made/by/them/": "", "main.cvd": "main", "daily.cvd": "2", "new.cvd": "n", "made/a": "x"}, read(t, w.dir))
	same(t, main, stamps(t, w.dir)["main.cvd"])

	// What is gone is gone, and what was theirs is theirs.
	w.mustPublish(t, w.plain(), nil)
	same(t, tree{"theirs": "kept", "made/by/them/": ""}, read(t, w.dir))
}

// stamps tells whether anything was written.
func stamps(t testing.TB, dirs ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range dirs {
		must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, name)
			all[rel] = identityText(fi)
			return err
		}))
	}
	return all
}

func TestModes(t *testing.T) {
	w := newWorld(t)
	for mode, want := range map[string][2]fs.FileMode{"": {0o644, 0o755}, "0640": {0o640, 0o750}, "0600": {0o600, 0o700}} {
		c := w.versioned()
		c.Mode = mode
		w.mustPublish(t, c, map[string]tree{"db 1": {"sub/a": "1"}})
		file, err := os.Stat(filepath.Join(w.dir, "1", "sub", "a"))
		must(t, err)
		same(t, want[0], file.Mode().Perm())
		c = PublishConfig{Folder: filepath.Join(t.TempDir(), "plain"), Mode: mode}
		w.mustPublish(t, c, map[string]tree{"db 1": {"sub/a": "1"}})
		dir, err := os.Stat(filepath.Join(c.Folder, "sub"))
		must(t, err)
		same(t, want[1], dir.Mode().Perm())
	}
}

// Whoever writes to a file of the folder does not write to the store.
func TestFilesAreCopies(t *testing.T) {
	w := newWorld(t)
	w.mustPublish(t, w.plain(), map[string]tree{"db": {"trivy.db": "right"}})
	f, err := os.OpenFile(filepath.Join(w.dir, "trivy.db"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("WRONG")
	must(t, errors.Join(err, f.Close()))
	b, err := w.st.ReadAll(artifact.Sum([]byte("right")), 10)
	must(t, err)
	same(t, "right", string(b))
	// It is put right again: the name is ours.
	w.mustPublish(t, w.plain(), map[string]tree{"db": {"trivy.db": "right"}})
	same(t, tree{"trivy.db": "right"}, read(t, w.dir))
	must(t, os.Remove(filepath.Join(w.dir, "trivy.db")))
	w.mustPublish(t, w.plain(), map[string]tree{"db": {"trivy.db": "right"}})
	same(t, tree{"trivy.db": "right"}, read(t, w.dir))
}

func TestForeign(t *testing.T) {
	outside := t.TempDir()
	for what, c := range map[string]struct {
		theirs    tree
		versioned bool
	}{
		"a file":                      {tree{"a": "theirs"}, false},
		"the very same file":          {tree{"a": "1"}, false},
		"a link":                      {tree{"a": "-> b"}, false},
		"a folder":                    {tree{"a/x": "theirs"}, false},
		"a file for a folder":         {tree{"d": "theirs"}, false},
		"a link for a folder":         {tree{"d": "-> " + outside}, false},
		"a version":                   {tree{"1.0/x": "theirs"}, true},
		"a version that is a file":    {tree{"1.0": "theirs"}, true},
		"the link":                    {tree{"current": "-> theirs"}, true},
		"a folder that is the link's": {tree{"current/x": "theirs"}, true},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			put(t, w.dir, c.theirs)
			config := w.plain()
			config.Versioned = c.versioned
			sets := map[string]tree{"db 1.0": {"a": "1", "d/b": "2"}}
			for range 2 { // the first try leaves nothing that the second one trusts
				text, err := w.publish(t, config, sets)
				l := lostSet(t, err)
				refused(t, l.Err, CodeForeign, artifact.ErrUnavailable)
				if l.Name != "db" || l.Version != "1.0" || strings.Contains(text, w.dir) {
					t.Errorf("lost %+v, text %q", l, text)
				}
				same(t, c.theirs, read(t, w.dir))
			}
			must(t, os.RemoveAll(w.dir))
			w.mustPublish(t, config, sets)
		})
	}
	same(t, tree{}, read(t, outside))
}

// A file that somebody else has changed is not taken away with ours.
func TestChangedByOthers(t *testing.T) {
	w := newWorld(t)
	w.mustPublish(t, w.plain(), map[string]tree{"db": {"a": "1", "d/b": "2", "d/c": "3", "e": "4"}})
	must(t, errors.Join(os.Remove(w.dir+"/a"), os.Mkdir(w.dir+"/a", 0o700), os.Remove(w.dir+"/d/b")))
	put(t, w.dir, tree{"d/b": "theirs"})
	text := w.mustPublish(t, w.plain(), map[string]tree{"db": {"e": "4"}})
	if !strings.Contains(text, "2 old files of ours") {
		t.Errorf("text %q", text)
	}
	same(t, tree{"a/": "", "d/b": "theirs", "e": "4"}, read(t, w.dir))
	// From now on it is foreign.
	_, err := w.publish(t, w.plain(), map[string]tree{"db": {"d/b": "5"}})
	refused(t, lostSet(t, err).Err, CodeForeign, artifact.ErrUnavailable)
	same(t, tree{"a/": "", "d/b": "theirs", "e": "4"}, read(t, w.dir))
}

// A name may be a file's in one state and a folder's in the next.
func TestFileAndFolder(t *testing.T) {
	w := newWorld(t)
	states := []tree{{"a": "1", "z": "0"}, {"a/b": "2"}, {"a/b/c": "3", "a/d": "4"}, {"a": "5"}, {"a/b/c": "6"}}
	for _, s := range states {
		w.mustPublish(t, w.plain(), map[string]tree{"db": s})
		same(t, s, read(t, w.dir))
	}
	put(t, w.dir, tree{"a/b/theirs": "x"})
	_, err := w.publish(t, w.plain(), map[string]tree{"db": {"a": "7"}})
	refused(t, lostSet(t, err).Err, CodeTarget, artifact.ErrUnavailable)
	if got := read(t, w.dir); got["a/b/theirs"] != "x" {
		t.Errorf("got %v", got)
	}
}

// order notes in which order names appear in a folder.
func order(t *testing.T, dir string, work func()) []string {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o755))
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	defer func() { must(t, unix.Close(fd)) }()
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_DELETE)
	must(t, err)
	work()
	buf := make([]byte, 64<<10)
	n, err := unix.Read(fd, buf)
	must(t, err)
	var names []string
	for b := buf[:n]; len(b) > 0; {
		mask := uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24
		size := int(b[12]) | int(b[13])<<8
		name := strings.TrimRight(string(b[16:16+size]), "\x00")
		switch {
		case mask&unix.IN_ISDIR != 0: // the corner
		case mask&unix.IN_DELETE != 0:
			names = append(names, "-"+name)
		default:
			names = append(names, name)
		}
		b = b[16+size:]
	}
	return names
}

func TestOrder(t *testing.T) {
	w := newWorld(t)
	one := map[string]tree{"db": {"metadata.json": "1", "trivy.db": "1", "a": "1"}}
	same(t, []string{"a", "trivy.db", "metadata.json"}, order(t, w.dir, func() { w.mustPublish(t, w.plain(), one) }))
	two := map[string]tree{"db": {"metadata.json": "2", "trivy.db": "2", "b": "1"}}
	same(t, []string{"b", "trivy.db", "metadata.json", "-a"}, order(t, w.dir, func() { w.mustPublish(t, w.plain(), two) }))
	c := w.plain()
	c.Last = []string{"*.db", "a*"}
	three := map[string]tree{"db": {"metadata.json": "3", "trivy.db": "3", "a": "3", "b": "3"}}
	same(t, []string{"b", "metadata.json", "trivy.db", "a"}, order(t, w.dir, func() { w.mustPublish(t, c, three) }))
}

func TestVersions(t *testing.T) {
	w := newWorld(t)
	state := func(n string) tree { return tree{"trivy.db": n, "sub/metadata.json": n} }
	sets := func(version, n string) map[string]tree { return map[string]tree{"db " + version: state(n)} }
	below := func(want tree, version, n string) tree {
		for k, v := range state(n) {
			want[version+"/"+k] = v
		}
		return want
	}
	put(t, w.dir, tree{"theirs": "kept"})
	text := w.mustPublish(t, w.versioned(), sets("1.0", "1"))
	if !strings.HasSuffix(text, w.dir+"/current") {
		t.Errorf("text %q", text)
	}
	same(t, below(tree{"theirs": "kept", "current": "-> 1.0"}, "1.0", "1"), read(t, w.dir))
	before := stamps(t, w.dir, w.state)
	w.mustPublish(t, w.versioned(), sets("1.0", "1"))
	same(t, before, stamps(t, w.dir, w.state))

	// The version before stays, the one before that goes.
	w.mustPublish(t, w.versioned(), sets("2.0", "2"))
	same(t, below(below(tree{"theirs": "kept", "current": "-> 2.0"}, "1.0", "1"), "2.0", "2"), read(t, w.dir))
	w.mustPublish(t, w.versioned(), sets("2.0", "2"))
	w.mustPublish(t, w.versioned(), sets("3.0", "3"))
	same(t, below(below(tree{"theirs": "kept", "current": "-> 3.0"}, "2.0", "2"), "3.0", "3"), read(t, w.dir))

	// A version's folder is ours, and what programs wrote into our files goes
	// with it; what they made there does not.
	put(t, w.dir, tree{"2.0/trivy.db": "written to", "2.0/trivy.db.lock": "theirs"})
	w.mustPublish(t, w.versioned(), sets("3.5", "3"))
	want35 := below(below(tree{"theirs": "kept", "2.0/trivy.db.lock": "theirs", "current": "-> 3.5"}, "3.0", "3"), "3.5", "3")
	same(t, want35, read(t, w.dir))
	must(t, os.Remove(w.dir+"/2.0/trivy.db.lock"))
	w.mustPublish(t, w.versioned(), sets("2.0", "2"))
	w.mustPublish(t, w.versioned(), sets("3.0", "3"))
	same(t, below(below(tree{"theirs": "kept", "current": "-> 3.0"}, "2.0", "2"), "3.0", "3"), read(t, w.dir))

	// Back to one that is still there.
	w.mustPublish(t, w.versioned(), sets("2.0", "2"))
	same(t, below(below(tree{"theirs": "kept", "current": "-> 2.0"}, "2.0", "2"), "3.0", "3"), read(t, w.dir))

	// One name with other files: what somebody reads does not change.
	w.mustPublish(t, w.versioned(), sets("2.0", "4"))
	other := "2.0-" + derive(mustSet(t, w.st, state("4")))
	want := below(below(tree{"theirs": "kept", "current": "-> " + other}, "2.0", "2"), other, "4")
	same(t, want, read(t, w.dir))
	w.mustPublish(t, w.versioned(), sets("2.0", "4"))
	same(t, want, read(t, w.dir))

	// What is spoilt is put right, in its place.
	must(t, os.Remove(filepath.Join(w.dir, "current", "trivy.db")))
	put(t, w.dir, tree{other + "/sub/metadata.json": "spoilt"})
	w.mustPublish(t, w.versioned(), sets("2.0", "4"))
	same(t, want, read(t, w.dir))

	// To the plain layout and back.
	w.mustPublish(t, w.plain(), sets("5", "5"))
	same(t, tree{"theirs": "kept", "trivy.db": "5", "sub/metadata.json": "5"}, read(t, w.dir))
	w.mustPublish(t, w.versioned(), sets("6", "6"))
	same(t, below(tree{"theirs": "kept", "current": "-> 6"}, "6", "6"), read(t, w.dir))
	w.mustPublish(t, w.versioned(), nil)
	same(t, tree{"theirs": "kept"}, read(t, w.dir))
}

func mustSet(t *testing.T, st *store.Store, files tree) []setFile {
	t.Helper()
	s, err := readSet(&snapshotOf(t, st, map[string]tree{"x 1": files}).Artifacts[0])
	must(t, err)
	return s.files
}

// Who reads through the link sees one version whole.
func TestReadersSeeOneVersion(t *testing.T) {
	w := newWorld(t)
	publish := func(n string) {
		w.mustPublish(t, w.versioned(), map[string]tree{"db " + n: {"trivy.db": n, "metadata.json": n}})
	}
	publish("0")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	seen := make(chan struct{})
	wg.Go(func() {
		defer close(seen)
		for ctx.Err() == nil {
			root, err := os.OpenRoot(filepath.Join(w.dir, "current"))
			if err != nil {
				t.Error(err)
				return
			}
			a, err1 := root.ReadFile("metadata.json")
			b, err2 := root.ReadFile("trivy.db")
			if err := errors.Join(err1, err2, root.Close()); err != nil || string(a) != string(b) {
				t.Errorf("%s and %s: %v", a, b, err)
				return
			}
			select {
			case seen <- struct{}{}:
			default:
			}
		}
	})
	for _, n := range strings.Split("123456789", "") {
		// A version stays for as long as one more comes: whoever has opened
		// one reads on in the meantime.
		publish(n)
		for range 2 {
			<-seen
		}
	}
	stop()
	wg.Wait()
}

func TestSeveralSets(t *testing.T) {
	w := newWorld(t)
	c := w.plain()
	c.Sets = []PublishSet{{Name: "trivy", Folder: w.dir + "-trivy", Versioned: true}, {Name: "none", Folder: w.dir + "-none"}}
	sets := map[string]tree{"clamav": {"main.cvd": "1"}, "ours": {"own.ndb": "2"}, "trivy 7": {"trivy.db": "3"}}
	w.mustPublish(t, c, sets)
	same(t, tree{"main.cvd": "1", "own.ndb": "2"}, read(t, w.dir))
	same(t, tree{"7/trivy.db": "3", "current": "-> 7"}, read(t, w.dir+"-trivy"))
	if _, err := os.Stat(w.dir + "-none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder for nothing: %v", err)
	}

	// Two sets with one name: the first is published, and what the other had
	// goes.
	sets["ours"] = tree{"MAIN.cvd": "2"}
	_, err := w.publish(t, c, sets)
	l := lostSet(t, err)
	refused(t, l.Err, CodeClash, artifact.ErrUnavailable)
	same(t, "ours", l.Name)
	same(t, tree{"main.cvd": "1"}, read(t, w.dir))

	// Together they have a version of their own.
	together := PublishConfig{Folder: w.dir + "-all", Versioned: true}
	sets["ours"] = tree{"own.ndb": "2"}
	w.mustPublish(t, together, sets)
	link, err := os.Readlink(together.Folder + "/current")
	must(t, err)
	same(t, derive(mustSet(t, w.st, tree{"main.cvd": "1", "own.ndb": "2", "trivy.db": "3"})), link)
	same(t, tree{"main.cvd": "1", "own.ndb": "2", "trivy.db": "3"}, read(t, together.Folder+"/"+link))
}

func TestVerifyRefuses(t *testing.T) {
	w := newWorld(t)
	p := w.publisher(t, PublishConfig{})
	same(t, sourceName, p.Name())
	for what, change := range map[string]func(*artifact.Snapshot){
		"of another":     func(s *artifact.Snapshot) { s.Source = "files/other" },
		"metadata":       func(s *artifact.Snapshot) { s.Meta = s.Artifacts[0].Files },
		"a set's name":   func(s *artifact.Snapshot) { s.Artifacts[0].Name = "../db" },
		"a listing":      func(s *artifact.Snapshot) { s.Artifacts[0].Name = "index.json" },
		"a version":      func(s *artifact.Snapshot) { s.Artifacts[0].Version = ".." },
		"the link":       func(s *artifact.Snapshot) { s.Artifacts[0].Version = "current" },
		"not the files'": func(s *artifact.Snapshot) { s.Artifacts[0].Version = "0123456789ab" },
		"twice":          func(s *artifact.Snapshot) { s.Artifacts = append(s.Artifacts, s.Artifacts[0]) },
		"another set's":  func(s *artifact.Snapshot) { s.Artifacts[0].Files[0].Path = "other/a" },
		"up":             func(s *artifact.Snapshot) { s.Artifacts[0].Files[0].Path = "db/../../a" },
		"file and folder": func(s *artifact.Snapshot) {
			f := s.Artifacts[0].Files[0]
			f.Path = "db/A/b"
			s.Artifacts[0].Files = append(s.Artifacts[0].Files, f)
		},
		"no files": func(s *artifact.Snapshot) { s.Artifacts[0].Files = nil },
		"a size":   func(s *artifact.Snapshot) { s.Artifacts[0].Files[0].Size = -1 },
	} {
		t.Run(what, func(t *testing.T) {
			snap := snapshotOf(t, w.st, map[string]tree{"db 1": {"a": "1"}})
			must(t, p.Verify(t.Context(), snap, nil))
			change(snap)
			refused(t, p.Verify(t.Context(), snap, nil), CodeSnapshot, artifact.ErrIntegrity)
			_, err := p.Publish(t.Context(), snap, 1, time.Unix(1, 0))
			refused(t, err, CodeSnapshot, artifact.ErrIntegrity)
		})
	}
	for _, change := range []func(*artifact.File){
		func(f *artifact.File) { f.Size++ },
		func(f *artifact.File) { f.Digest = artifact.Sum([]byte("not here")) },
	} {
		snap := snapshotOf(t, w.st, map[string]tree{"db 1": {"a": "1"}})
		change(&snap.Artifacts[0].Files[0])
		refused(t, p.Verify(t.Context(), snap, nil), CodeSize, artifact.ErrIntegrity)
	}
	if _, err := os.Stat(w.state); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Verify writes: %v", err)
	}
}

// A record that cannot be read stops, since nothing could be taken away.
func TestDamagedRecord(t *testing.T) {
	w := newWorld(t)
	sets := map[string]tree{"db": {"a": "1"}}
	w.mustPublish(t, w.plain(), sets)
	name := recordName(w.state, w.dir)
	good, err := os.ReadFile(name)
	must(t, err)
	for _, bad := range []string{
		"", "{}", strings.Replace(string(good), `"a"`, `"../a"`, 1), strings.Replace(string(good), w.dir, "/other", 1),
		strings.Replace(string(good), `"versions":[]`, `"versions":[{"folder":"..","listing":"sha256:`+anyDigest+`"}]`, 1),
		strings.Replace(string(good), `"versions":[]`, `"versions":[],"current":"x"`, 1),
	} {
		must(t, os.WriteFile(name, []byte(bad), 0o600))
		_, err := w.publish(t, w.plain(), sets)
		refused(t, lostSet(t, err).Err, CodeTarget, artifact.ErrUnavailable)
		same(t, tree{"a": "1"}, read(t, w.dir))
	}
	must(t, os.WriteFile(name, good, 0o600))
	w.mustPublish(t, w.plain(), nil)
	same(t, tree{}, read(t, w.dir))
}

// A blob that is damaged in the store is not put anywhere.
func TestDamagedBlob(t *testing.T) {
	w := newWorld(t)
	w.mustPublish(t, w.plain(), map[string]tree{"db": {"a": "1", "b": "1"}})
	snap := snapshotOf(t, w.st, map[string]tree{"db": {"a": "2", "b": "other"}})
	h := artifact.Sum([]byte("other")).Hex()
	blob := filepath.Join(filepath.Dir(w.state), "store", "blobs", "sha256", h[:2], h)
	must(t, os.Chmod(blob, 0o600))
	must(t, os.WriteFile(blob, []byte("OTHER"), 0o600))
	_, err := w.publisher(t, w.plain()).Publish(t.Context(), snap, 2, time.Unix(2, 0))
	l := lostSet(t, err)
	if !errors.Is(l.Err, artifact.ErrIntegrity) {
		t.Errorf("got %v", l.Err)
	}
	same(t, tree{"a": "1", "b": "1"}, read(t, w.dir))
	w.mustPublish(t, w.plain(), map[string]tree{"db": {"a": "2", "b": "other"}})
	same(t, tree{"a": "2", "b": "other"}, read(t, w.dir))
}

func TestPublishEnds(t *testing.T) {
	w := newWorld(t)
	snap := snapshotOf(t, w.st, map[string]tree{"db": {"a": "2"}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.publisher(t, w.plain()).Publish(ctx, snap, 1, time.Unix(1, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	same(t, tree{}, read(t, w.dir))
}
