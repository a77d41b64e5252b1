// Command whole scans the files of a folder with every engine, as export does,
// and prints one line of JSON: seconds, CPU seconds, memory, what was looked at.
// With -cache, a second run finds what the first one kept.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/clamav"
	"github.com/darkmirror/darkmirror/scan/packages"
	"github.com/darkmirror/darkmirror/scan/trivy"
	"github.com/darkmirror/darkmirror/scan/weights"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

type options struct {
	clamd, database, db, cache, scratch string
	secrets                             bool
}

func run(ctx context.Context) (err error) {
	var o options
	flag.StringVar(&o.clamd, "clamd", "", "clamd's socket; empty for none")
	flag.StringVar(&o.database, "signatures", "", "folder of clamd's signatures")
	flag.StringVar(&o.db, "db", "", "folder of trivy.db; empty for none")
	flag.StringVar(&o.cache, "cache", "", "file of verdicts; empty for none")
	flag.StringVar(&o.scratch, "scratch", os.TempDir(), "folder for what does not fit in memory")
	flag.BoolVar(&o.secrets, "secrets", true, "look for secrets")
	flag.Parse()
	names := make(map[artifact.Digest]string)
	snaps, err := snapshots(flag.Arg(0), names)
	if err != nil {
		return err
	}
	start, cpu := time.Now(), used(syscall.RUSAGE_SELF)
	r, done, err := runner(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	r.Open = func(d artifact.Digest) (scan.Content, error) { return os.Open(names[d]) }
	rep, err := r.Run(ctx, snaps, time.Now())
	if err != nil {
		return err
	}
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return err
	}
	found := make(map[string]int)
	for _, i := range rep.Items {
		for _, f := range i.Findings {
			found[f.Kind]++
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"seconds": time.Since(start).Seconds(), "cpu": (used(syscall.RUSAGE_SELF) - cpu).Seconds(), "rss_mb": ru.Maxrss >> 10,
		"artifacts": rep.Scanned, "blobs": rep.Walked, "files": rep.Files, "bytes": rep.Bytes, "held": len(rep.Held), "findings": found,
	})
}

func used(who int) time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(who, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// snapshots makes an artifact of each file: wheels of pypi/bench, .debs of
// apt/bench, and layers, which are the rest, of files/bench.
func snapshots(dir string, names map[artifact.Digest]string) ([]*artifact.Snapshot, error) {
	bySource := make(map[string]*artifact.Snapshot)
	var list []*artifact.Snapshot
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		d, size, err := sum(name)
		if err != nil {
			return err
		}
		names[d] = name
		base := filepath.Base(name)
		source, n, version := "files/bench", base, "1"
		switch filepath.Ext(base) {
		case ".whl":
			parts := strings.SplitN(base, "-", 3)
			source, n, version = "pypi/bench", parts[0], parts[1]
		case ".deb":
			parts := strings.SplitN(strings.ReplaceAll(base, "%3a", ":"), "_", 3)
			source, n, version = "apt/bench", parts[0], parts[1]
		}
		snap := bySource[source]
		if snap == nil {
			snap = &artifact.Snapshot{Source: source}
			bySource[source], list = snap, append(list, snap)
		}
		snap.Artifacts = append(snap.Artifacts, artifact.Artifact{Name: n, Version: version, Files: []artifact.File{{Path: base, Digest: d, Size: size}}})
		return nil
	})
	return list, err
}

func sum(name string) (_ artifact.Digest, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return artifact.Digest{}, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return artifact.Digest(h.Sum(nil)), size, err
}

func runner(o options) (_ *scan.Runner, done func() error, err error) {
	var closers []func() error
	done = func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	policy, err := scan.NewPolicy(scan.Config{})
	if err != nil {
		return nil, done, err
	}
	r := &scan.Runner{Policy: policy, Scratch: o.scratch}
	if o.cache != "" {
		v, err := ledger.OpenVerdicts(o.cache)
		if err != nil {
			return nil, done, err
		}
		closers, r.Cache = append(closers, v.Close), v
	}
	if o.clamd != "" {
		av, err := clamav.New(clamav.Config{Socket: o.clamd, Database: o.database})
		if err != nil {
			return nil, done, err
		}
		closers, r.Inspectors = append(closers, av.Close), append(r.Inspectors, av)
	}
	w, err := weights.New(weights.Config{})
	if err != nil {
		return nil, done, err
	}
	p, err := packages.New(packages.Config{})
	if err != nil {
		return nil, done, err
	}
	t, err := trivy.New(trivy.Config{Database: o.db, Scratch: o.scratch, Distro: func(string) (string, string) { return "debian", "12" }})
	if err != nil {
		return nil, done, err
	}
	closers = append(closers, t.Close)
	r.Inspectors, r.Judges, r.Gatherers = append(r.Inspectors, w, p), append(r.Judges, p), append(r.Gatherers, t)
	if o.secrets {
		r.Inspectors = append(r.Inspectors, t.Secrets())
	}
	if o.db != "" {
		r.Judges = append(r.Judges, t)
	}
	return r, done, nil
}
