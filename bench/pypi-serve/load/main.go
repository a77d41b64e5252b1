// Command load asks an index for what pip asks for, as many clients at once:
//
//	load -index URL -clients 2000 -rounds 3 [-close]
//
// Each client has a connection of its own (with -close a new one for each
// request) and takes a project's page as JSON, gzip if the server has it, then
// METADATA and the wheel of one of its files. Every page is parsed, every
// METADATA and wheel compared with the digest that the page names. All clients
// start together. It prints how many requests there were, how many failed, and
// how long they took.
package main

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
	// largest bounds the wheels that are asked for: what is measured is
	// requests, not the memory's bandwidth.
	largest = 256 << 10
	// patience is how long one request may take.
	patience = time.Minute
	// mostErrors is how many errors are printed.
	mostErrors = 5
)

type hashes struct {
	SHA256 string `json:"sha256"`
}

type file struct {
	URL      string  `json:"url"`
	Size     int64   `json:"size"`
	Hashes   hashes  `json:"hashes"`
	Metadata *hashes `json:"core-metadata"`
}

type page struct {
	Projects []struct{ Name string } `json:"projects"`
	Files    []file                  `json:"files"`
}

func main() {
	index := flag.String("index", "", "the index, with /simple/")
	clients := flag.Int("clients", 2000, "clients at once")
	rounds := flag.Int("rounds", 3, "how often each client asks for a project")
	closing := flag.Bool("close", false, "a new connection for each request")
	flag.Parse()
	if err := run(os.Stdout, *index, *clients, *rounds, *closing); err != nil {
		log.Fatal(err)
	}
}

// A client is one pip.
type client struct {
	http *http.Client
	took []time.Duration
	errs []error
}

func newClient(closing bool) *client {
	return &client{http: &http.Client{Timeout: patience, Transport: &http.Transport{
		MaxConnsPerHost: 1, DisableKeepAlives: closing, DisableCompression: true,
	}}}
}

func run(out io.Writer, index string, clients, rounds int, closing bool) error {
	base, err := url.Parse(index)
	if err != nil {
		return err
	}
	projects, err := small(newClient(false), base)
	if err != nil {
		return err
	}
	all := make([]*client, clients)
	start := make(chan struct{})
	var done sync.WaitGroup
	for i := range all {
		all[i] = newClient(closing)
		done.Go(func() {
			<-start
			for n := range rounds {
				if err := all[i].session(base.JoinPath(projects[(i+n)%len(projects)], "/")); err != nil {
					all[i].errs = append(all[i].errs, err)
				}
			}
			all[i].http.CloseIdleConnections()
		})
	}
	began := time.Now()
	close(start)
	done.Wait()
	return report(out, all, time.Since(began))
}

func report(out io.Writer, all []*client, span time.Duration) error {
	var took []time.Duration
	var errs []error
	for _, c := range all {
		took, errs = append(took, c.took...), append(errs, c.errs...)
	}
	if len(took) == 0 {
		return errors.Join(append(errs, errors.New("no reply"))...)
	}
	slices.Sort(took)
	at := func(p float64) float64 { return took[min(len(took)-1, int(p*float64(len(took))))].Seconds() * 1000 }
	if _, err := fmt.Fprintf(out, "clients %d requests %d errors %d a second %.0f ms p50 %.1f p99 %.1f max %.1f\n",
		len(all), len(took), len(errs), float64(len(took))/span.Seconds(), at(0.5), at(0.99), at(1)); err != nil {
		return err
	}
	return errors.Join(errs[:min(len(errs), mostErrors)]...)
}

// small lists the projects that have a file which is small enough.
func small(c *client, base *url.URL) ([]string, error) {
	var list page
	if err := c.page(base, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, p := range list.Projects {
		var pg page
		if err := c.page(base.JoinPath(p.Name, "/"), &pg); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(pg.Files, wanted) {
			out = append(out, p.Name)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no project with a small wheel")
	}
	return out, nil
}

func wanted(f file) bool { return f.Metadata != nil && f.Size <= largest }

// session is what pip does for one project.
func (c *client) session(u *url.URL) error {
	var pg page
	if err := c.page(u, &pg); err != nil {
		return err
	}
	i := slices.IndexFunc(pg.Files, wanted)
	if i < 0 {
		return fmt.Errorf("%s: its files have gone", u)
	}
	f := pg.Files[i]
	at, err := u.Parse(f.URL)
	if err != nil {
		return err
	}
	meta := *at
	meta.Path, meta.RawPath = at.Path+".metadata", ""
	if err := c.check(&meta, f.Metadata.SHA256); err != nil {
		return err
	}
	return c.check(at, f.Hashes.SHA256)
}

func (c *client) page(u *url.URL, into *page) error {
	b, err := c.get(u, accept)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func (c *client) check(u *url.URL, want string) error {
	b, err := c.get(u, "*/*")
	if err != nil {
		return err
	}
	if d := sha256.Sum256(b); hex.EncodeToString(d[:]) != want {
		return fmt.Errorf("%s: another digest", u)
	}
	return nil
}

func (c *client) get(u *url.URL, accept string) (b []byte, err error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Accept-Encoding", "gzip, deflate")
	req.Header.Set("User-Agent", "pypi-serve-load")
	began := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", u, resp.Status)
	}
	var r io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	}
	if b, err = io.ReadAll(r); err != nil {
		return nil, err
	}
	c.took = append(c.took, time.Since(began))
	return b, nil
}
