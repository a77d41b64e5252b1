// Command ours resolves a file of requirements as the exporter does and
// prints the versions, for comparison with other resolvers:
//
//	INDEX=https://index.example/simple/ ours FILE TARGET [CONSTRAINTS]
//
// FILE_HOSTS names the hosts of the index's files, STORE keeps metadata for the
// next time, BEFORE (a date) leaves out what the index got later, and WHEELS is a
// folder that gets a wheel without content for each that was chosen: its
// metadata alone, for others to resolve with. It fetches no package.
package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
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
	var age time.Duration
	if before := os.Getenv("BEFORE"); before != "" {
		date, err := time.Parse(time.DateOnly, before)
		if err != nil {
			return err
		}
		age = time.Since(date)
	}
	cfg := pypi.Config{
		Index: os.Getenv("INDEX"), AllowHTTP: true, AllowHosts: strings.Fields(os.Getenv("FILE_HOSTS")), MaxPerHost: 10,
		Requirements: []pypi.RequirementsConfig{{File: args[0]}}, Targets: args[1:2], Constraints: args[2:], MinAge: &age,
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
	if dir := os.Getenv("WHEELS"); dir != "" {
		if err := empty(st, snap, dir); err != nil {
			return err
		}
	}
	slices.Sort(lines)
	_, err = os.Stdout.WriteString(strings.Join(lines, "\n") + "\n")
	return err
}

// empty writes wheels of which nothing is there but the metadata.
func empty(st *store.Store, snap *artifact.Snapshot, dir string) error {
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			name, ok := strings.CutSuffix(f.Path, ".whl")
			if !ok {
				continue
			}
			d, ok := st.Alias("pypi-metadata-" + f.Digest.Hex())
			if !ok {
				return fmt.Errorf("%s: its metadata is not kept", f.Path)
			}
			metadata, err := st.ReadAll(d, 16<<20)
			if err != nil {
				return err
			}
			parts := strings.Split(name, "-")
			info := parts[0] + "-" + parts[1] + ".dist-info/"
			var b bytes.Buffer
			z := zip.NewWriter(&b)
			for _, e := range [][2]string{
				{"METADATA", string(metadata)},
				{"WHEEL", "Wheel-Version: 1.0\nGenerator: ours\nRoot-Is-Purelib: false\nTag: " + strings.Join(parts[len(parts)-3:], "-") + "\n"},
				{"RECORD", ""},
			} {
				w, err := z.Create(info + e[0])
				if err != nil {
					return err
				}
				if _, err := w.Write([]byte(e[1])); err != nil {
					return err
				}
			}
			if err := z.Close(); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, f.Path), b.Bytes(), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
