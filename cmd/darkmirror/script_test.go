package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// TestMain makes this test binary the program of the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"darkmirror": main})
}

// TestScript runs testdata/script. Each script starts in $WORK, which holds
// exporter.key and exporter.key.pub, and may use, beside testscript's own:
//
//	exits STATUS CMD...           run a program; its exit status must be STATUS
//	upstream pypi NAME WHEEL...   a package index; see newIndex
//	upstream apt NAME OPTION...   an archive; see newArchive
//	upstream helm NAME CHART...   a classic Helm repository; see newCharts
//	wheel DIR NAME-VERSION...     write such a wheel as a file
//	close NAME                    nothing listens there any more
//	answer NAME STATUS            every request gets this status; 0 ends that
//	hold NAME, release NAME       requests wait in between
//	requests NAME                 print what was asked for since the last time
//	outside DIR [NAME|LINE]...    write the configuration of that role for these
//	inside DIR [NAME|LINE]...     upstreams, with further lines; see configure
//	carry FROM TO SEQ...          copy bundles from an outbox into an inbox, in
//	                              place of what is there; $BUNDLE is the last
//	find VAR PATTERN              the one file that matches
//	flip FILE OFFSET              change one bit; negative: from the end
//	truncate FILE SIZE            negative: from the end
//	tamper ENVELOPE OLD NEW       replace text in the manifest, not its signature
//	spare VAR BUNDLE              a volume that holds pieces of large blobs alone
//	redate PLAN AGE               make a saved plan older
//	stamp DIR                     print everything that a change would change
//	weigh DIR LEAST MOST          the files' sizes add up to this
//	[!] json FILE PATH [VALUE]    look into a document; see look
//	get STATUS URL [HEADER]       print an answer
//	freeport VAR                  an address on which nothing listens
//	waitfor ADDR|request NAME     until it answers, or a request has come
//	send METHOD STATUS URL [HEADER]  send a request without a body; print the answer
//	blob STORE DIGEST             $BLOB is its file there
//	[!] registry VERB ARG...      a container registry; see registryUsage
//	harbor VERB ARG...            a Harbor; see harborUsage
//	hub VERB ARG...               a model hub; see hubUsage
//
// Upstreams listen on the loopback interface; nothing else is contacted.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		ContinueOnError:     true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			w := &world{upstreams: make(map[string]*upstream), objects: make(map[string]*object)}
			env.Values[worldKey{}] = w
			env.Defer(w.close)
			// Under the race detector every program would sleep a second at
			// its end.
			env.Setenv("GORACE", "atexit_sleep_ms=10")
			private, public, err := bundle.GenerateKey("exporter-a")
			return errors.Join(err,
				os.WriteFile(filepath.Join(env.WorkDir, "exporter.key"), private, 0o600),
				os.WriteFile(filepath.Join(env.WorkDir, "exporter.key.pub"), public, 0o600))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    command("exits STATUS CMD...", 2, -1, exits),
			"upstream": command("upstream pypi|apt|helm NAME ARG...", 2, -1, startUpstream),
			"wheel": command("wheel DIR NAME-VERSION[,OPTION]...", 2, 2, func(ts *testscript.TestScript, a []string) {
				f, _ := newWheel(ts, strings.Split(a[1], ","))
				ts.Check(os.MkdirAll(ts.MkAbs(a[0]), 0o750))
				ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(a[0]), f.Name), f.Body, 0o600))
			}),
			"close":   command("close NAME", 1, 1, func(ts *testscript.TestScript, a []string) { the(ts, a[0]).srv.Close() }),
			"answer":  command("answer NAME STATUS", 2, 2, func(ts *testscript.TestScript, a []string) { the(ts, a[0]).answer(number(ts, a[1])) }),
			"hold":    command("hold NAME", 1, 1, func(ts *testscript.TestScript, a []string) { the(ts, a[0]).hold() }),
			"release": command("release NAME", 1, 1, func(ts *testscript.TestScript, a []string) { the(ts, a[0]).release() }),
			"requests": command("requests NAME", 1, 1, func(ts *testscript.TestScript, a []string) {
				out := ts.Stdout() // empty where nothing was asked for
				for _, r := range the(ts, a[0]).taken() {
					fmt.Fprintln(out, r)
				}
			}),
			"outside": command("outside DIR [NAME|LINE]...", 1, -1, outside),
			"inside":  command("inside DIR [NAME|LINE]...", 1, -1, inside),
			"carry":   command("carry FROM TO SEQ...", 3, -1, carryBundles),
			"find":    command("find VAR PATTERN", 2, 2, func(ts *testscript.TestScript, a []string) { ts.Setenv(a[0], only(ts, a[1])) }),
			"after": command("after VAR FILE PREFIX", 3, 3, func(ts *testscript.TestScript, a []string) {
				for line := range strings.Lines(ts.ReadFile(a[1])) {
					if rest, ok := strings.CutPrefix(strings.TrimSpace(line), a[2]); ok {
						ts.Setenv(a[0], rest)
						return
					}
				}
				ts.Fatalf("no line of %s begins with %q", a[1], a[2])
			}),
			"flip":     command("flip FILE OFFSET", 2, 2, flip),
			"truncate": command("truncate FILE SIZE", 2, 2, truncate),
			"tamper":   command("tamper ENVELOPE OLD NEW", 3, 3, tamper),
			"spare":    command("spare VAR BUNDLE", 2, 2, spare),
			"redate":   command("redate PLAN AGE", 2, 2, redate),
			"stamp":    command("stamp DIR", 1, 1, stamp),
			"weigh":    command("weigh DIR LEAST MOST", 3, 3, weigh),
			"json":     lookInto,
			"get":      command("get STATUS URL [HEADER]", 2, 3, get),
			"freeport": command("freeport VAR", 1, 1, freePort),
			"waitfor":  command("waitfor ADDR | waitfor request NAME | waitfor file NAME", 1, 2, waitFor),
			"send":     command("send METHOD STATUS URL [HEADER]", 3, 4, send),
			"blob":     command("blob STORE DIGEST", 2, 2, blobFile),
			"registry": registryCommand,
			"harbor":   command(harborUsage, 2, 5, harborCommand),
			"hub":      hubCommand,
		},
	})
}

// command checks the arguments of a script command that cannot be negated.
func command(usage string, least, most int, run func(*testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < least || most >= 0 && len(args) > most {
			ts.Fatalf("usage: %s", usage)
		}
		run(ts, args)
	}
}

func exits(ts *testscript.TestScript, args []string) {
	want, got := number(ts, args[0]), 0
	err := ts.Exec(args[1], args[2:]...)
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func number(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

func bytesOf(ts *testscript.TestScript, s string) int64 {
	n, err := config.ParseSize(s)
	ts.Check(err)
	return n.Bytes()
}

// ---- upstreams

type worldKey struct{}

// A world is what one script has started.
type world struct {
	upstreams map[string]*upstream
	servers   []*httptest.Server // beside those
	objects   map[string]*object // manifests of images, by the script's names
}

func (w *world) close() {
	for _, u := range w.upstreams {
		u.release()
		u.srv.Close()
	}
	for _, s := range w.servers {
		s.Close()
	}
}

func worldOf(ts *testscript.TestScript) *world {
	w, ok := ts.Value(worldKey{}).(*world)
	if !ok {
		ts.Fatalf("no setup")
	}
	return w
}

func the(ts *testscript.TestScript, name string) *upstream {
	u := worldOf(ts).upstreams[name]
	if u == nil {
		ts.Fatalf("no upstream %s", name)
	}
	return u
}

// An upstream keeps its address while its content changes.
type upstream struct {
	kind, name string
	srv        *httptest.Server
	archive    *apttest.Upstream // of apt

	mu       sync.Mutex
	content  http.Handler
	status   int           // instead of the content, unless 0
	gate     chan struct{} // requests wait until it is closed, unless nil
	requests []string
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.requests = append(u.requests, r.Method+" "+r.URL.Path)
	content, status, gate := u.content, u.status, u.gate
	u.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
	}
	if status != 0 {
		http.Error(w, http.StatusText(status), status)
		return
	}
	content.ServeHTTP(w, r)
}

func (u *upstream) answer(status int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.status = status
}

func (u *upstream) hold() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.gate, u.requests = make(chan struct{}), nil
}

func (u *upstream) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gate != nil {
		close(u.gate)
		u.gate = nil
	}
}

func (u *upstream) taken() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.requests
	u.requests = nil
	return r
}

func (u *upstream) asked() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.requests) > 0
}

// startUpstream starts an upstream, or gives one that runs a new content. Its
// URL is in $NAME_URL, its host and port in $NAME_HOST.
func startUpstream(ts *testscript.TestScript, args []string) {
	w, kind, name := worldOf(ts), args[0], args[1]
	u := w.upstreams[name]
	if u == nil {
		u = addUpstream(ts, kind, name, http.NotFoundHandler())
	}
	var content http.Handler
	switch {
	case kind == "pypi" && u.kind == kind:
		content = newIndex(ts, name, args[2:])
	case kind == "apt" && u.kind == kind:
		content = newArchive(ts, u, args[2:])
	case kind == "helm" && u.kind == kind:
		content = newCharts(ts, args[2:])
	default:
		ts.Fatalf("upstream %s is of kind %s", name, kind)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.content = content
}

// newIndex makes a package index and writes its lock, $WORK/NAME.txt. An
// argument is NAME-VERSION of a wheel, with options after commas:
//
//	data=SIZE     carry so many incompressible bytes
//	file=NAME=TEXT  carry this file; a ~ in TEXT is a space, a ; starts a line
//	requires=A;B  its METADATA requires these; a ~ is a space
//	bytes         the file is not what index and lock say, but as long
//	short, long   the same, a byte shorter or longer
//	hash          the index names another hash than the lock
//	size=N        the index names this size
//	link=URL      the index links here instead
//	redirect=URL  a request for the file is sent on
//	cut=N         the first answer ends after so many bytes
//
// or one of html (no JSON is offered), page:PROJECT=FILE (a JSON page instead
// of a made one), quarantine=PROJECT, login=USER:PASSWORD and lock=keep.
func newIndex(ts *testscript.TestScript, name string, args []string) *pypitest.Index {
	var files []pypitest.File
	var lock []string
	x := pypitest.New()
	keep := false
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		if project, ok := strings.CutPrefix(key, "page:"); ok {
			x.Pages[project] = pypitest.Page{ContentType: "application/vnd.pypi.simple.v1+json", Body: ts.ReadFile(value)}
			continue
		}
		switch key {
		case "html":
			x.HTML = true
		case "quarantine":
			x.Status[value] = "quarantined"
		case "login":
			x.User, x.Secret, _ = strings.Cut(value, ":")
		case "lock":
			keep = value == "keep"
		default:
			f, pin := newWheel(ts, strings.Split(arg, ","))
			files, lock = append(files, f), append(lock, pin)
		}
	}
	made := pypitest.New(files...)
	made.HTML, made.Pages, made.Status, made.User, made.Secret = x.HTML, x.Pages, x.Status, x.User, x.Secret
	if !keep {
		ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), name+".txt"), []byte(strings.Join(lock, "\n")+"\n"), 0o600))
	}
	return made
}

func newWheel(ts *testscript.TestScript, words []string) (f pypitest.File, pin string) {
	options := make(map[string]string)
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		options[k] = v
	}
	var extra []pypitest.Entry
	if v, ok := options["data"]; ok {
		data := make([]byte, bytesOf(ts, v))
		// No test depends on these bytes; they are the same each time.
		_, err := rand.NewChaCha8(sha256.Sum256([]byte(words[0]))).Read(data)
		ts.Check(err)
		module, _, _ := strings.Cut(words[0], "-")
		extra = append(extra, pypitest.Entry{Name: module + "/data.bin", Body: string(data), Store: true})
	}
	if v, ok := options["file"]; ok {
		name, text, _ := strings.Cut(v, "=")
		text = strings.NewReplacer("~", " ", ";", "\n").Replace(text)
		extra = append(extra, pypitest.Entry{Name: name, Body: text + "\n", Store: true})
	}
	f = pypitest.Wheel(words[0]+"-py3-none-any.whl", "", extra...)
	if v, ok := options["requires"]; ok {
		var lines []string
		for r := range strings.SplitSeq(v, ";") {
			lines = append(lines, "Requires-Dist: "+strings.ReplaceAll(r, "~", " "))
		}
		f = pypitest.Requiring(words[0]+"-py3-none-any.whl", "", lines...)
	}
	pin = pypitest.Pin(f)
	for k, v := range options {
		sum, size := f.SHA256(), int64(len(f.Body))
		switch k {
		case "data", "file", "requires":
		case "bytes":
			f.Hash, f.Body = sum, slices.Clone(f.Body)
			f.Body[len(f.Body)/2] ^= 1
		case "short":
			f.Hash, f.Size, f.Body = sum, size, f.Body[:size-1]
		case "long":
			f.Hash, f.Size, f.Body = sum, size, append(slices.Clone(f.Body), 0)
		case "hash":
			f.Hash = strings.Repeat("1", 2*sha256.Size)
		case "size":
			f.Size = int64(number(ts, v))
		case "link":
			f.URL = v
		case "redirect":
			f.Redirect = v
		case "cut":
			f.Cut = number(ts, v)
		default:
			ts.Fatalf("wheel option %s", k)
		}
	}
	return f, pin
}

// defaultPackages is what an archive has unless packages=FILE says otherwise.
const defaultPackages = `Package: hello
Version: 2.10-3
Architecture: amd64
Depends: libhello (>= 1)

Package: libhello
Version: 1.2
Architecture: amd64
`

// newArchive gives an archive its one suite, "test". An option is a fault of
// apttest, packages=FILE (control stanzas), age=DURATION (of the Release) or
// valid=DURATION (from its date on). The keyring is $WORK/NAME.asc.
func newArchive(ts *testscript.TestScript, u *upstream, args []string) http.Handler {
	if u.archive == nil {
		var err error
		u.archive, err = apttest.New()
		ts.Check(err)
		keyring, err := u.archive.Keyring()
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), u.name+".asc"), keyring, 0o600))
	}
	s := apttest.Suite{Packages: defaultPackages}
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		var err error
		var d time.Duration
		switch {
		case !ok:
			s.Fault = apttest.Fault(arg)
		case k == "packages":
			s.Packages = ts.ReadFile(v)
		case k == "age":
			d, err = time.ParseDuration(v)
			s.Date = time.Now().Add(-d)
		case k == "valid":
			s.ValidFor, err = time.ParseDuration(v)
		default:
			ts.Fatalf("archive option %s", arg)
		}
		ts.Check(err)
	}
	ts.Check(u.archive.Add(s))
	return u.archive
}

// ---- configurations

// settings are lines of YAML; a later line of a key replaces the one before.
type settings []string

func (s *settings) set(lines ...string) {
	for _, line := range lines {
		key, _, _ := strings.Cut(line, ":")
		i := slices.IndexFunc(*s, func(have string) bool { return strings.HasPrefix(have, key+":") })
		if i >= 0 {
			(*s)[i] = line
		} else {
			*s = append(*s, line)
		}
	}
}

// configure writes DIR/darkmirror.yaml. An argument is the name of an
// upstream, a line ("gap: refuse"), or a line of one source ("main max_page:
// 100").
func configure(ts *testscript.TestScript, args []string, top settings, source func(*upstream) []string) {
	var names []string
	sources := make(map[string]*settings)
	for _, arg := range args[1:] {
		word, rest, more := strings.Cut(arg, " ")
		switch {
		case strings.HasSuffix(word, ":"):
			top.set(arg)
		case !more:
			names = append(names, arg)
			s := settings(source(the(ts, arg)))
			sources[arg] = &s
		case sources[word] == nil:
			ts.Fatalf("a line of %s before its name", word)
		default:
			sources[word].set(rest)
		}
	}
	text := strings.Join(top, "\n") + "\n"
	for _, kind := range []string{"pypi", "apt", "oci", "models"} {
		section := ""
		for _, name := range names {
			if k := the(ts, name).kind; k == kind || kind == "oci" && k == "helm" {
				section += "  - name: " + name + "\n    " + strings.Join(*sources[name], "\n    ") + "\n"
			}
		}
		if section != "" {
			text += kind + ":\n" + section
		}
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "darkmirror.yaml"), []byte(text), 0o600))
}

// noWeights lets the files of the fake hub pass, whose tensors are noise.
const noWeights = "scan: {models: {hold: [critical]}, unscanned: warn}"

func outside(ts *testscript.TestScript, args []string) {
	work := ts.Getenv("WORK")
	own := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "scan:") })
	if models := slices.ContainsFunc(args[1:], func(a string) bool { return isModels(ts, a) }); models && !own {
		args = append(slices.Clone(args), noWeights)
	}
	configure(ts, args, settings{"version: 1", "role: outside", "state_dir: state", "signing_key: " + work + "/exporter.key"}, func(u *upstream) []string {
		switch u.kind {
		case "pypi":
			return []string{"index: " + u.srv.URL + "/simple/", "allow_http: true", "targets: [cp312-manylinux_2_28_x86_64]", "locks: [{file: " + work + "/" + u.name + ".txt}]"}
		case "helm":
			return []string{"helm: " + u.srv.URL + "/charts", "host: charts.example", "allow_http: true"}
		case "oci":
			return []string{"registry: " + u.srv.URL, "host: registry.example", "allow_http: true"}
		case "models":
			return []string{"hub: " + u.srv.URL, "allow_http: true", "allow_hosts: [" + ts.Getenv(strings.ToUpper(u.name)+"_CDN") + "]"}
		}
		return []string{
			"allow_http: true", "architectures: [amd64]", "packages: [hello]",
			"archives: [{name: debian, url: " + u.srv.URL + ", suites: [test], components: [main], signed_by: [" + work + "/" + u.name + ".asc]}]",
		}
	})
}

// isModels reports whether an argument names a hub, or is a line about models.
func isModels(ts *testscript.TestScript, arg string) bool {
	w, _ := ts.Value(worldKey{}).(*world)
	u := w.upstreams[arg]
	return u != nil && u.kind == "models" || strings.HasPrefix(arg, "models:")
}

func inside(ts *testscript.TestScript, args []string) {
	work := ts.Getenv("WORK")
	configure(ts, args, settings{"version: 1", "role: inside", "state_dir: state", "inbox: [inbox]", "trust: [" + work + "/exporter.key.pub]"}, func(u *upstream) []string {
		if u.kind != "apt" {
			return nil
		}
		return []string{"archives: [{name: debian, signed_by: [" + work + "/" + u.name + ".asc]}]"}
	})
	ts.Check(os.MkdirAll(filepath.Join(ts.MkAbs(args[0]), "inbox"), 0o755))
}

// ---- bundles and files

func only(ts *testscript.TestScript, pattern string) string {
	found, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(found) != 1 {
		ts.Fatalf("%d files match %s: %q", len(found), pattern, found)
	}
	return found[0]
}

// carry copies whole folders; FROM and TO are the folders of configurations.
func carryBundles(ts *testscript.TestScript, args []string) {
	work := ts.Getenv("WORK")
	for _, seq := range args[2:] {
		from := only(ts, filepath.Join(work, args[0], "state", "outbox", "*-"+seq+"-*"))
		to := filepath.Join(work, args[1], "inbox", filepath.Base(from))
		ts.Check(errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))))
		ts.Setenv("BUNDLE", to)
	}
}

func readFile(ts *testscript.TestScript, name string) []byte {
	b, err := os.ReadFile(ts.MkAbs(name))
	ts.Check(err)
	return b
}

func flip(ts *testscript.TestScript, args []string) {
	b, at := readFile(ts, args[0]), number(ts, args[1])
	if at < 0 {
		at += len(b)
	}
	if at < 0 || at >= len(b) {
		ts.Fatalf("%s has %d bytes", args[0], len(b))
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

func truncate(ts *testscript.TestScript, args []string) {
	size := int64(number(ts, args[1]))
	if size < 0 {
		size += int64(len(readFile(ts, args[0])))
	}
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

func tamper(ts *testscript.TestScript, args []string) {
	var e struct {
		PayloadType string          `json:"payloadType"`
		Payload     []byte          `json:"payload"`
		Signatures  json.RawMessage `json:"signatures"`
	}
	ts.Check(json.Unmarshal(readFile(ts, args[0]), &e))
	if !bytes.Contains(e.Payload, []byte(args[1])) {
		ts.Fatalf("the manifest has no %q: %s", args[1], e.Payload)
	}
	e.Payload = bytes.Replace(e.Payload, []byte(args[1]), []byte(args[2]), 1)
	b, err := json.Marshal(map[string]any{"payloadType": e.PayloadType, "payload": base64.StdEncoding.EncodeToString(e.Payload), "signatures": e.Signatures})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

func redate(ts *testscript.TestScript, args []string) {
	age, err := time.ParseDuration(args[1])
	ts.Check(err)
	var plan map[string]any
	ts.Check(json.Unmarshal(readFile(ts, args[0]), &plan))
	plan["made"] = time.Now().Add(-age).UTC().Truncate(time.Second)
	b, err := json.Marshal(plan)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

func walk(ts *testscript.TestScript, dir string, visit func(path string, info fs.FileInfo)) {
	ts.Check(filepath.WalkDir(ts.MkAbs(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			visit(path, info)
		}
		return err
	}))
}

func stamp(ts *testscript.TestScript, args []string) {
	walk(ts, args[0], func(path string, info fs.FileInfo) {
		sum := ""
		if info.Mode().IsRegular() {
			d := sha256.Sum256(readFile(ts, path))
			sum = hex.EncodeToString(d[:])
		}
		fmt.Fprintln(ts.Stdout(), path, info.Mode(), info.Size(), info.ModTime().UnixNano(), sum)
	})
}

func weigh(ts *testscript.TestScript, args []string) {
	var sum int64
	walk(ts, args[0], func(_ string, info fs.FileInfo) {
		if info.Mode().IsRegular() {
			sum += info.Size()
		}
	})
	if sum < bytesOf(ts, args[1]) || sum > bytesOf(ts, args[2]) {
		ts.Fatalf("%s has %d bytes, want %s to %s", args[0], sum, args[1], args[2])
	}
}

// lookInto is the command json. FILE may be stdout or stderr; of several
// lines the last counts. PATH is made of keys, indexes and "len" (how
// many), with points between. Without VALUE something must be there; VALUE is the
// text of a string, or else JSON. With "!" it must not be so.
func lookInto(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: [!] json FILE PATH [VALUE]")
	}
	text := strings.TrimSpace(ts.ReadFile(args[0]))
	if !json.Valid([]byte(text)) {
		text = text[strings.LastIndexByte(text, '\n')+1:]
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	got, there := at(v, strings.Split(args[1], "."))
	if !there {
		if !neg {
			ts.Fatalf("%s: no %s", args[0], args[1])
		}
		return
	}
	if same := len(args) == 2 || got == args[2]; same == neg {
		ts.Fatalf("%s: %s is %s", args[0], args[1], got)
	}
}

// at is the text of what stands at a path.
func at(v any, path []string) (string, bool) {
	for _, key := range path {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[key]; !ok {
				return "", false
			}
		case []any:
			n, err := strconv.Atoi(key)
			switch {
			case key == "len":
				v = json.Number(strconv.Itoa(len(x)))
			case err != nil || n < 0 || n >= len(x):
				return "", false
			default:
				v = x[n]
			}
		default:
			return "", false
		}
	}
	if s, ok := v.(string); ok {
		return s, true
	}
	b, err := json.Marshal(v)
	return string(b), err == nil
}

// ---- the server

func get(ts *testscript.TestScript, args []string) {
	req, err := http.NewRequest(http.MethodGet, args[1], nil)
	ts.Check(err)
	if len(args) == 3 {
		k, v, _ := strings.Cut(args[2], ": ")
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	body, err := io.ReadAll(resp.Body)
	ts.Check(errors.Join(err, resp.Body.Close()))
	if want := number(ts, args[0]); resp.StatusCode != want {
		ts.Fatalf("%s: %s, want %d", args[1], resp.Status, want)
	}
	fmt.Fprintf(ts.Stdout(), "%s", body)
}

func freePort(ts *testscript.TestScript, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	addr := l.Addr().String()
	ts.Setenv(args[0], addr)
	ts.Setenv(args[0]+"_PORT", addr[strings.LastIndexByte(addr, ':')+1:])
	ts.Check(l.Close())
}

// patience is long: the machine may be busy.
const patience = 20 * time.Second

// waitForFile waits for a file to be there.
func waitForFile(ts *testscript.TestScript, name string) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(name)); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear", name)
}

func waitFor(ts *testscript.TestScript, args []string) {
	if args[0] == "file" {
		waitForFile(ts, args[1])
		return
	}
	ready := func() bool {
		c, err := net.Dial("tcp", args[0])
		return err == nil && c.Close() == nil
	}
	if args[0] == "request" && len(args) == 2 {
		ready = the(ts, args[1]).asked
	}
	for end := time.Now().Add(patience); !ready(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("waited %v", patience)
		}
	}
}
