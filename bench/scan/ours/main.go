// Command ours prints what package scan/trivy finds in wheels and in a root
// file system, one "package version vulnerability" a line, for
// compare-trivy.sh.
package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/trivy"
	"github.com/darkmirror/darkmirror/scan/walk"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	database := flag.String("db", "", "folder of trivy.db")
	root := flag.String("root", "", "tar archive of a root file system")
	flag.Parse()
	scratch, err := os.MkdirTemp("", "ours-")
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, os.RemoveAll(scratch)) }()
	s, err := trivy.New(trivy.Config{Database: *database, Scratch: scratch})
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, s.Close()) }()
	if err := s.Start(ctx, time.Now()); err != nil {
		return err
	}
	var lines []string
	add := func(sub scan.Subject, part scan.Part) error {
		list, err := s.Judge(ctx, sub, &scan.Inventory{Parts: []scan.Part{part}})
		for _, f := range list {
			name, version, _ := strings.Cut(strings.TrimSuffix(strings.SplitN(f.Text, ":", 2)[0], ":"), " ")
			if f.Kind == scan.KindVulnerability {
				lines = append(lines, fmt.Sprintf("%s %s %s", name, strings.Fields(f.Text)[1], f.ID))
			} else {
				lines = append(lines, fmt.Sprintf("%s %s: %s", f.Kind, f.ID, f.Text))
			}
			_ = version
		}
		return err
	}
	for _, w := range flag.Args() {
		base := filepath.Base(w)
		p := strings.Split(base, "-")
		part, err := gather(ctx, s, w, scratch, false)
		if err != nil {
			return err
		}
		sub := scan.Subject{Source: "pypi/main", Artifact: artifact.Artifact{Name: p[0], Version: p[1]}}
		if err := add(sub, part); err != nil {
			return err
		}
	}
	if *root != "" {
		part, err := gather(ctx, s, *root, scratch, true)
		if err != nil {
			return err
		}
		if err := add(scan.Subject{Source: "oci/root", Artifact: artifact.Artifact{Name: "root", Version: "1"}}, part); err != nil {
			return err
		}
	}
	for i, l := range lines {
		f := strings.Fields(l)
		if strings.HasSuffix(f[1], ":") {
			f[1] = strings.TrimSuffix(f[1], ":")
			lines[i] = strings.Join(f, " ")
		}
	}
	slices.Sort(lines)
	out := bufio.NewWriter(os.Stdout)
	for _, l := range slices.Compact(lines) {
		if _, err := fmt.Fprintln(out, l); err != nil {
			return err
		}
	}
	return out.Flush()
}

func gather(ctx context.Context, s *trivy.Scanner, name, scratch string, root bool) (scan.Part, error) {
	f, err := os.Open(name)
	if err != nil {
		return scan.Part{}, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return scan.Part{}, err
	}
	part := scan.Part{Name: filepath.Base(name), Root: root}
	var mu sync.Mutex
	limits := walk.DefaultLimits
	_, err = walk.Walk(ctx, part.Name, f, fi.Size(), walk.Options{Limits: limits, Scratch: scratch, FileSystem: root}, func(w *walk.File) error {
		ev, err := s.Gather(ctx, w)
		if err != nil {
			return fmt.Errorf("%s: %w", walk.Join(w.Path), err)
		}
		if ev != nil {
			mu.Lock()
			part.Evidence = append(part.Evidence, *ev)
			mu.Unlock()
		}
		return nil
	})
	return part, err
}
