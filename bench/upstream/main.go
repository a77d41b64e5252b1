// Command upstream serves a made package index and a made, signed apt archive
// on loopback, for bench/run.sh. It is of the size that its flags ask for, up
// to gigabytes a file, and needs neither disk nor memory for it: the bulk of
// each file is an AES-CTR key stream, which does not compress, can be read at
// any offset, and is the same for the same seed.
//
// It counts requests, those with a Range, and body bytes for each path, and
// can be throttled:
//
//	GET  /-/counters          the counters as JSON
//	POST /-/reset             set them to zero
//	POST /-/rate?bytes=N      bytes a second over all answers; 0 is no limit
//
// The Simple API (PEP 691, with PEP 658 metadata) is below /simple/, its files
// below /files/, the archive below /debian/, suite "bench".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A spec is COUNT files of SIZE bytes whose names begin with Name.
type spec struct {
	Name  string
	Count int
	Size  int64
}

type specs []spec

// String is what flag prints.
func (s *specs) String() string { return fmt.Sprint(*s) }

// Set reads NAME:COUNT:SIZE.
func (s *specs) Set(v string) error {
	f := strings.Split(v, ":")
	if len(f) != 3 || f[0] == "" || strings.Trim(f[0], "abcdefghijklmnopqrstuvwxyz") != "" {
		return errors.New("want NAME:COUNT:SIZE, a name in lower-case letters")
	}
	count, err := strconv.Atoi(f[1])
	if err != nil || count < 1 || count > 100_000 {
		return fmt.Errorf("count %q", f[1])
	}
	size, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil || size < 1 || size > 64<<30 {
		return fmt.Errorf("size %q", f[2])
	}
	*s = append(*s, spec{f[0], count, size})
	return nil
}

func main() {
	var wheels, debs specs
	flag.Var(&wheels, "wheels", "`NAME:COUNT:SIZE` wheels; may be repeated")
	flag.Var(&debs, "debs", "`NAME:COUNT:SIZE` packages, the first of which needs all others; may be repeated")
	other := flag.Int("other", 0, "further packages that the archive lists and nobody asks for")
	rate := flag.Int64("rate", 0, "bytes a second over all answers; 0 is no limit")
	seed := flag.String("seed", "bench", "seed of all content")
	out := flag.String("out", "", "folder for requirements-NAME.txt, packages-NAME.txt, keyring.asc and, last, url")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, *seed, wheels, debs, *other, *rate); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out, seed string, wheels, debs specs, other int, rate int64) error {
	if out == "" {
		return errors.New("-out is missing")
	}
	mux := http.NewServeMux()
	for _, s := range wheels {
		if err := serveWheels(mux, seed, s, out); err != nil {
			return fmt.Errorf("wheels %s: %w", s.Name, err)
		}
	}
	if len(debs) > 0 {
		if err := serveArchive(mux, seed, debs, other, out); err != nil {
			return fmt.Errorf("archive: %w", err)
		}
	}
	t := newTally(mux)
	t.rate.set(rate)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: t, ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	if err := writeFile(out, "url", "http://"+l.Addr().String()); err != nil {
		return errors.Join(err, srv.Close())
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	err = srv.Close()
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(t.counters()))
}

// writeFile writes a file that is whole when its name appears.
func writeFile(dir, name, text string) error {
	tmp := filepath.Join(dir, ".tmp-"+name)
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}
