// Command ours resolves a file of requirements as the exporter does and
// prints the versions, for comparison with other resolvers:
//
//	INDEX=https://index.example/simple/ ours FILE TARGET [CONSTRAINTS]
//
// It fetches no package.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ours:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if len(args) < 2 || os.Getenv("INDEX") == "" {
		return errors.New("usage: INDEX=URL ours FILE TARGET [CONSTRAINTS]")
	}
	var none time.Duration
	cfg := pypi.Config{
		Index: os.Getenv("INDEX"), AllowHTTP: true, AllowHosts: strings.Fields(os.Getenv("FILE_HOSTS")), MaxPerHost: 10,
		Requirements: []pypi.RequirementsConfig{{File: args[0]}}, Targets: args[1:2], Constraints: args[2:], MinAge: &none,
	}
	u, err := url.Parse(cfg.Index)
	if err != nil {
		return err
	}
	cfg.AllowHosts = append(cfg.AllowHosts, u.Host)
	dir := os.Getenv("STORE")
	if dir == "" {
		if dir, err = os.MkdirTemp("", "ours"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	st, err := store.Open(dir)
	if err != nil {
		return err
	}
	var clients []*fetch.Client
	for _, fc := range cfg.Fetches("pypi/ours") {
		c, err := fetch.New(fetch.NewPool(10, 10), fc)
		if err != nil {
			return err
		}
		clients = append(clients, c)
	}
	s, err := pypi.NewSource(cfg, "pypi/ours", clients, st, nil)
	if err != nil {
		return err
	}
	snap, _, err := s.Resolve(context.Background(), nil)
	if err != nil {
		return err
	}
	lines := make([]string, 0, len(snap.Artifacts))
	for _, a := range snap.Artifacts {
		lines = append(lines, a.Name+"=="+a.Version)
	}
	slices.Sort(lines)
	_, err = os.Stdout.WriteString(strings.Join(lines, "\n") + "\n")
	return err
}
