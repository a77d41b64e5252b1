package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/darkmirror/darkmirror/models/hubtest"
)

// hubUsage is the command hub. REPO is team/model or datasets/team/name.
//
//	hub up NAME [page=N] [xet]    start a hub. It is an upstream: outside,
//	                              inside, close, answer, hold and requests know
//	                              it. Its large files come from $NAME_CDN
//	hub put NAME REPO[@BRANCH] VAR FILE=CONTENT...
//	                              commit exactly these files; $VAR is the commit.
//	                              size=SIZE as the content makes so many bytes,
//	                              @FILE those of a file of the script
//	hub tag NAME REPO TAG COMMIT
//	hub gate NAME REPO            its files are for friends
//	hub token NAME TOKEN          makes a friend
//	hub remove NAME REPO
//	hub break NAME REPO FILE FAULT...
//	                              corrupt, cut=N, expire=N, fail=STATUS, no-range,
//	                              truncate=N; with times=N only so often, with
//	                              skip=N not at first
//	hub heal NAME                 take the faults away
//	hub busy NAME N STATUS [RETRY-AFTER]
//	                              the next N requests get this
//	hub sent NAME LEAST MOST      so many bytes of large files were sent since it
//	                              was last asked
const hubUsage = "hub up|put|tag|gate|token|remove|break|heal|busy|sent NAME ARG..."

func hubCommand(ts *testscript.TestScript, neg bool, args []string) {
	commands := map[string]struct {
		least, most int
		run         func(*testscript.TestScript, *fakeHub, []string)
	}{
		"put":    {3, -1, hubPut},
		"tag":    {3, 3, func(_ *testscript.TestScript, h *fakeHub, a []string) { h.repo(a[0]).SetRef("refs/tags/"+a[1], a[2]) }},
		"gate":   {1, 1, func(_ *testscript.TestScript, h *fakeHub, a []string) { h.repo(a[0]).Gate("manual", "friend") }},
		"token":  {1, 1, func(_ *testscript.TestScript, h *fakeHub, a []string) { h.AddToken(a[0], "friend") }},
		"remove": {1, 1, func(_ *testscript.TestScript, h *fakeHub, a []string) { h.Remove(a[0]) }},
		"break":  {3, -1, hubBreak},
		"heal":   {0, 0, func(_ *testscript.TestScript, h *fakeHub, _ []string) { h.Heal() }},
		"busy":   {2, 3, hubBusy},
		"sent":   {2, 2, hubSent},
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: %s", hubUsage)
	}
	if args[0] == "up" {
		hubUp(ts, args[1:])
		return
	}
	c, ok := commands[args[0]]
	h, is := the(ts, args[1]).content.(*fakeHub)
	if !ok || !is || len(args)-2 < c.least || c.most >= 0 && len(args)-2 > c.most {
		ts.Fatalf("usage: %s", hubUsage)
	}
	c.run(ts, h, args[2:])
}

// A fakeHub is a hub as the content of an upstream.
type fakeHub struct {
	*hubtest.Hub
	http.Handler
	repos map[string]*hubtest.Repo
}

func hubUp(ts *testscript.TestScript, args []string) {
	name := args[0]
	var o hubtest.Options
	for _, arg := range args[1:] {
		switch key, value, _ := strings.Cut(arg, "="); key {
		case "page":
			o.Page = number(ts, value)
		case "xet":
			o.Xet = true
		default:
			ts.Fatalf("hub option %s", arg)
		}
	}
	h := hubtest.New(o)
	u := addUpstream(ts, "models", name, &fakeHub{h, h.Handler(), make(map[string]*hubtest.Repo)})
	cdn := httptest.NewServer(h.CDNHandler())
	w := worldOf(ts)
	w.servers = append(w.servers, cdn)
	h.URL, h.CDN = u.srv.URL, cdn.URL
	ts.Setenv(strings.ToUpper(name)+"_CDN", strings.TrimPrefix(cdn.URL, "http://"))
}

// repo is a repository, made if it is not there.
func (h *fakeHub) repo(name string) *hubtest.Repo {
	if h.repos[name] == nil {
		if id, ok := strings.CutPrefix(name, "datasets/"); ok {
			h.repos[name] = h.AddDataset(id)
		} else {
			h.repos[name] = h.AddModel(name)
		}
	}
	return h.repos[name]
}

func hubPut(ts *testscript.TestScript, h *fakeHub, args []string) {
	name, branch, _ := strings.Cut(args[0], "@")
	if branch == "" {
		branch = "main"
	}
	files := make(map[string][]byte)
	for _, arg := range args[2:] {
		path, content, ok := strings.Cut(arg, "=")
		if !ok {
			ts.Fatalf("%s: want FILE=CONTENT", arg)
		}
		if size, is := strings.CutPrefix(content, "size="); is {
			b := make([]byte, bytesOf(ts, size))
			// The same bytes for the same path, each time.
			_, err := rand.NewChaCha8(sha256.Sum256([]byte(path))).Read(b)
			ts.Check(err)
			files[path] = b
			continue
		}
		if file, is := strings.CutPrefix(content, "@"); is {
			content = ts.ReadFile(file)
		}
		files[path] = bytes.Clone([]byte(content))
	}
	commit, err := h.repo(name).CommitTo(branch, hubtest.Memory(files))
	ts.Check(err)
	ts.Setenv(args[1], commit)
}

func hubBreak(ts *testscript.TestScript, h *fakeHub, args []string) {
	times, skip := 0, 0
	var faults []hubtest.Fault
	for _, arg := range args[2:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "corrupt":
			faults = append(faults, hubtest.Corrupt(-1))
		case "cut":
			faults = append(faults, hubtest.Cut(bytesOf(ts, value)))
		case "expire":
			faults = append(faults, hubtest.ExpireAfter(bytesOf(ts, value)))
		case "fail":
			faults = append(faults, hubtest.Fail(number(ts, value)))
		case "no-range":
			faults = append(faults, hubtest.NoRange())
		case "truncate":
			faults = append(faults, hubtest.Truncate(bytesOf(ts, value)))
		case "times":
			times = number(ts, value)
		case "skip":
			skip = number(ts, value)
		default:
			ts.Fatalf("hub fault %s", arg)
		}
	}
	for _, f := range faults {
		if times > 0 {
			f = f.Times(times)
		}
		h.Break(args[0], args[1], f.Skip(skip))
	}
}

func hubBusy(ts *testscript.TestScript, h *fakeHub, args []string) {
	after := ""
	if len(args) > 2 {
		after = args[2]
	}
	h.Busy(hubtest.OnHub, number(ts, args[0]), number(ts, args[1]), after)
}

// spare finds a volume without which every small document of a bundle is there.
func spare(ts *testscript.TestScript, args []string) {
	const small = 64 << 10
	var index struct {
		Volumes []struct{ Name string }
		Extents [][]struct{ Vol, Len int }
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(filepath.Join(args[1], "volumes.json"))), &index))
	needed := make(map[int]bool)
	for _, blob := range index.Extents {
		size := 0
		for _, e := range blob {
			size += e.Len
		}
		for _, e := range blob {
			needed[e.Vol] = needed[e.Vol] || size < small
		}
	}
	for i, v := range index.Volumes {
		if !needed[i+1] { // they count from one
			ts.Setenv(args[0], filepath.Join(args[1], "volumes", v.Name))
			return
		}
	}
	ts.Fatalf("every volume holds a small blob")
}

func hubSent(ts *testscript.TestScript, h *fakeHub, args []string) {
	sent := h.Sent(hubtest.OnCDN, "GET", "")
	h.ResetLog()
	if least, most := bytesOf(ts, args[0]), bytesOf(ts, args[1]); sent < least || sent > most {
		ts.Fatalf("%d bytes were sent, want %d to %d", sent, least, most)
	}
}
