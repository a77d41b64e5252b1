// Command hub serves a folder of models and datasets as a model hub with a CDN
// behind it, for the demo and the benchmark. It is the fake hub of the tests:
// no code of the client or of the inside hub is in it.
//
//	ROOT/models/ORG/NAME/...     becomes the model ORG/NAME, branch main
//	ROOT/datasets/ORG/NAME/...   becomes the dataset ORG/NAME
//
// Each file is hashed once, at the start; nothing is kept on disk. Large files
// leave by sendfile unless -conn-rate is set. When it is ready it prints one
// line, "hub http://HOST:PORT cdn http://HOST:PORT"; SIGTERM ends it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/darkmirror/darkmirror/models/hubtest"
)

type options struct {
	dir    string
	token  string
	gated  words
	noise  words
	tags   words
	tally  string
	log    string
	hub    hubtest.Options
	limits string
}

// words is a flag that may be repeated.
type words []string

// String is what flag prints.
func (w *words) String() string { return strings.Join(*w, ",") }

// Set adds one.
func (w *words) Set(v string) error {
	*w = append(*w, v)
	return nil
}

func main() {
	var o options
	flag.StringVar(&o.hub.Listen, "listen", "127.0.0.1:0", "address of the hub")
	flag.StringVar(&o.hub.CDNListen, "cdn-listen", "127.0.0.1:0", "address of the CDN")
	flag.StringVar(&o.hub.CDNURL, "cdn-url", "", "what redirects name in place of -cdn-listen")
	flag.StringVar(&o.dir, "dir", "", "folder of models/ORG/NAME and datasets/ORG/NAME")
	flag.Var(&o.noise, "noise", "`REPO/FILE=SIZE`, a file of made bytes that need neither disk nor memory; may be repeated")
	flag.DurationVar(&o.hub.Delay, "delay", 0, "wait before each reply")
	flag.DurationVar(&o.hub.ConnDelay, "conn-delay", 0, "wait before the first reply of a connection")
	flag.Int64Var(&o.hub.Rate, "conn-rate", 0, "bytes a second that one connection carries; 0 is no limit")
	flag.IntVar(&o.hub.Page, "page", 0, "entries in a page of a tree (1000)")
	flag.StringVar(&o.token, "token", "", "a token that is valid, and opens what is gated")
	flag.Var(&o.gated, "gated", "`REPO` that is gated: team/model, datasets/team/name; may be repeated")
	flag.StringVar(&o.limits, "limit", "", "requests in five minutes, `API,RESOLVER`")
	flag.BoolVar(&o.hub.Xet, "xet", false, "offer the other way to large files; nothing stands behind it")
	flag.BoolVar(&o.hub.Gzip, "gzip", false, "compress small files")
	flag.DurationVar(&o.hub.Expire, "expire", 0, "how long a link to the CDN holds (1h)")
	flag.Var(&o.tags, "tag", "`REPO=TAG`, a tag at the head of main; may be repeated")
	flag.StringVar(&o.tally, "tally", "", "file for the counts of requests, written at the end")
	flag.StringVar(&o.log, "log", "", "file for the requests one by one, written at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		log.Fatal(err)
	}
}

// user is who has the token.
const user = "bench"

func run(ctx context.Context, out io.Writer, o options) error {
	if o.dir == "" && len(o.noise) == 0 {
		return errors.New("neither -dir nor -noise is given")
	}
	if err := o.setLimits(); err != nil {
		return err
	}
	h := hubtest.New(o.hub)
	if o.token != "" {
		h.AddToken(o.token, user)
	}
	repos, err := o.files()
	if err != nil {
		return err
	}
	for _, name := range o.gated {
		if repos[name] == nil {
			return fmt.Errorf("-gated %s: no such repository", name)
		}
	}
	for _, t := range o.tags {
		if name, tag, ok := strings.Cut(t, "="); !ok || tag == "" || repos[name] == nil {
			return fmt.Errorf("-tag %s: want REPO=TAG of a repository that is there", t)
		}
	}
	for name, files := range repos {
		r := add(h, name)
		if _, err := r.CommitTo("main", files); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if slices.Contains(o.gated, name) {
			r.Gate("manual", user)
		}
		for _, t := range o.tags {
			if tag, ok := strings.CutPrefix(t, name+"="); ok {
				r.SetRef("refs/tags/"+tag, r.Head())
			}
		}
	}
	if err := h.Start(); err != nil {
		return err
	}
	defer h.Close()
	if _, err := fmt.Fprintf(out, "hub %s cdn %s\n", h.URL, h.CDN); err != nil {
		return err
	}
	<-ctx.Done()
	return errors.Join(writeTally(o.tally, h), writeLog(o.log, h))
}

func (o *options) setLimits() error {
	if o.limits == "" {
		return nil
	}
	api, resolver, ok := strings.Cut(o.limits, ",")
	a, errA := strconv.Atoi(api)
	r, errR := strconv.Atoi(resolver)
	if !ok || errA != nil || errR != nil || a < 0 || r < 0 {
		return fmt.Errorf("-limit %q: want API,RESOLVER", o.limits)
	}
	o.hub.Limit = hubtest.Limit{API: a, Resolve: r}
	return nil
}

func add(h *hubtest.Hub, name string) *hubtest.Repo {
	if id, ok := strings.CutPrefix(name, "datasets/"); ok {
		return h.AddDataset(id)
	}
	return h.AddModel(name)
}

// files is what each repository holds.
func (o *options) files() (map[string]hubtest.Files, error) {
	repos := make(map[string]hubtest.Files)
	if o.dir != "" {
		for kind, prefix := range map[string]string{"models": "", "datasets": "datasets/"} {
			dirs, err := filepath.Glob(filepath.Join(o.dir, kind, "*", "*"))
			if err != nil {
				return nil, err
			}
			for _, dir := range dirs {
				if info, err := os.Stat(dir); err != nil || !info.IsDir() {
					continue
				}
				name := prefix + filepath.Base(filepath.Dir(dir)) + "/" + filepath.Base(dir)
				if repos[name], err = hubtest.Folder(dir); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, n := range o.noise {
		repo, file, size, err := parseNoise(n)
		if err != nil {
			return nil, err
		}
		if repos[repo] == nil {
			repos[repo] = make(hubtest.Files)
		}
		repos[repo][file] = hubtest.Noise(size, n)
	}
	if len(repos) == 0 {
		return nil, fmt.Errorf("%s: no models/ORG/NAME and no datasets/ORG/NAME", o.dir)
	}
	return repos, nil
}

// parseNoise reads ORG/NAME/PATH=SIZE or datasets/ORG/NAME/PATH=SIZE.
func parseNoise(s string) (repo, file string, size int64, err error) {
	name, value, ok := strings.Cut(s, "=")
	n := 2
	if strings.HasPrefix(name, "datasets/") {
		n = 3
	}
	parts := strings.SplitN(name, "/", n+1)
	if ok && len(parts) == n+1 && parts[n] != "" {
		size, err = strconv.ParseInt(value, 10, 64)
		if err == nil && size >= 0 {
			return strings.Join(parts[:n], "/"), parts[n], size, nil
		}
	}
	return "", "", 0, fmt.Errorf("-noise %q: want ORG/NAME/FILE=SIZE", s)
}

func writeTally(name string, h *hubtest.Hub) error {
	if name == "" {
		return nil
	}
	type side struct {
		Connections int   `json:"connections"`
		AtOnce      int   `json:"at_once"`
		Requests    int   `json:"requests"`
		Bytes       int64 `json:"bytes"`
	}
	counts := h.Counts()
	sides := make(map[hubtest.Server]*side)
	for _, at := range []hubtest.Server{hubtest.OnHub, hubtest.OnCDN} {
		all, peak := h.Connections(at)
		sides[at] = &side{Connections: all, AtOnce: peak}
	}
	for _, c := range counts {
		sides[c.Server].Requests += c.Requests
		sides[c.Server].Bytes += c.Bytes
	}
	b, err := json.MarshalIndent(map[string]any{"servers": sides, "counts": counts}, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(name, string(b)+"\n")
}

func writeLog(name string, h *hubtest.Hub) error {
	if name == "" {
		return nil
	}
	var b strings.Builder
	for _, q := range h.Requests() {
		fmt.Fprintf(&b, "%s\t%s\t%s\trange=%q\taccept=%q\tencoding=%q\tauth=%t\tagent=%q\t%d bytes\n", q.Time.Format(time.TimeOnly), q.Server, q, q.Header.Get("Range"),
			q.Header.Get("Accept"), q.Header.Get("Accept-Encoding"), q.Header.Get("Authorization") != "", q.Header.Get("User-Agent"), q.Bytes)
	}
	return writeFile(name, b.String())
}

// writeFile writes a file that is whole when its name appears.
func writeFile(name, text string) error {
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
