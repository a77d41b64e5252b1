// Command serve publishes a folder of wheels and source archives, serves the
// index, and writes the same index as a static tree:
//
//	serve -folder WHEELS -work DIR [-tree DIR] [-cert FILE -key FILE]
//
// It prints the address of the index when it listens, and the address of TLS
// in a second line where there is a certificate. It is the handler of
// darkmirror serve with nothing around it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi"
)

type options struct{ folder, work, tree, cert, key string }

func main() {
	var o options
	flag.StringVar(&o.folder, "folder", "", "folder of wheels")
	flag.StringVar(&o.work, "work", "", "folder for the store and the publication")
	flag.StringVar(&o.tree, "tree", "", "folder for the static tree; none if empty")
	flag.StringVar(&o.cert, "cert", "", "certificate; no TLS if empty")
	flag.StringVar(&o.key, "key", "", "its key")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, o); err != nil {
		log.Print(err)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	st, err := store.Open(filepath.Join(o.work, "store"))
	if err != nil {
		return err
	}
	state := filepath.Join(o.work, "state")
	pub, err := pypi.NewPublisher(pypi.PublishConfig{Removed: "hide"}, "pypi/bench", st, state, logger)
	if err != nil {
		return err
	}
	began := time.Now()
	text, err := pub.PublishFolder(ctx, o.folder, time.Now())
	if err != nil {
		return err
	}
	logger.InfoContext(ctx, "published", slog.String("what", text), slog.Duration("took", time.Since(began)))
	h := pypi.NewHandler(state, st, logger)
	if o.tree != "" {
		began := time.Now()
		if err := pypi.WriteTree(ctx, o.tree, "pypi/main", h); err != nil {
			return err
		}
		logger.InfoContext(ctx, "tree written", slog.Duration("took", time.Since(began)))
	}
	failed := make(chan error, 2)
	servers := []*http.Server{listen(h, failed, out, "http", "", "")}
	if o.cert != "" {
		servers = append(servers, listen(h, failed, out, "https", o.cert, o.key))
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	for _, s := range servers {
		err = errors.Join(err, s.Close())
	}
	return err
}

// listen starts a server on a free port of the loopback interface.
func listen(h http.Handler, failed chan<- error, out io.Writer, scheme, cert, key string) *http.Server {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		failed <- err
		return srv
	}
	_, err = fmt.Fprintf(out, "%s://%s/simple/\n", scheme, l.Addr())
	if err != nil {
		failed <- err
		return srv
	}
	go func() {
		if cert != "" {
			failed <- srv.ServeTLS(l, cert, key)
			return
		}
		failed <- srv.Serve(l)
	}()
	return srv
}
