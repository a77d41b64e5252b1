package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/apt"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/files"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/hubserver"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/harbor"
	"github.com/darkmirror/darkmirror/oci/registry"
	"github.com/darkmirror/darkmirror/pypi"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// drain is how long running downloads may go on after a stop is asked for.
	drain = 10 * time.Second
	// maxHeader is enough for every package client; the default is 1 MiB.
	maxHeader = 32 << 10
)

func newServe(a *app) *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:     "serve [--listen ADDRESS]",
		GroupID: groupInside,
		Short:   "Serve what is published: a PEP 691 index, apt repositories, an image registry, a model hub",
		Long: `Serve what is published: a PEP 691 index, apt repositories, an image registry, a model hub.

Answers from the last imported state only and fetches nothing, ever; what is
missing is a plain 404. An import is picked up without a restart.

` + codesLine(exitOK, exitUsage, exitOther),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context(), listen) },
	}
	cmd.Flags().StringVar(&listen, "listen", "", "`ADDRESS` to listen on, as 127.0.0.1:8080 (default from the configuration)")
	return cmd
}

func (a *app) serve(ctx context.Context, listen string) (err error) {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	if listen == "" {
		listen = cfg.Serve.Listen
	}
	if err := os.MkdirAll(cfg.StateDir, 0o750); err != nil {
		return err
	}
	st, err := store.Open(storeDir(cfg))
	if err != nil {
		return err
	}
	log := a.serverLogger()
	m, err := newMirror(cfg, st, log)
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return usagef("listen on %s: %w\nserve.listen or --listen names another address", listen, err)
	}
	scheme := "http"
	if cfg.Serve.Certificate != "" {
		scheme = "https"
	}
	name := l.Addr().String()
	if cfg.Serve.Name != "" {
		_, port, err := net.SplitHostPort(name)
		if err != nil {
			return err
		}
		name = net.JoinHostPort(cfg.Serve.Name, port)
	}
	srv := &http.Server{
		Handler: m, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	fmt.Fprintf(a.out, "serving on %s://%s\n", scheme, name)
	for _, m := range m.mounts {
		fmt.Fprintf(a.out, "  %-14s %s://%s%s\n", m.source, scheme, name, m.path)
	}
	fmt.Fprintln(a.out, "ready; an import is picked up without a restart")
	if m.models != nil {
		go m.models.Warm(ctx)
	}
	failed := make(chan error, 1)
	go func() {
		if scheme == "https" {
			failed <- srv.ServeTLS(l, cfg.Serve.Certificate, cfg.Serve.KeyFile)
			return
		}
		failed <- srv.Serve(l)
	}()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	// A stop that was asked for is no failure.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := srv.Shutdown(last); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// A mount is where one source is served.
type mount struct{ source, path string }

// A mirrorServer is the embedded server.
type mirrorServer struct {
	http.Handler
	mounts []mount
	models *hubserver.Handler // the hub of all sources; nil without any
}

// newMirror makes the embedded server: one handler a source, a list of them at
// the root, and a health check.
func newMirror(cfg *config.Config, st *store.Store, log *slog.Logger) (*mirrorServer, error) {
	mux := http.NewServeMux()
	var mounts []mount
	handle := func(source, shown string, h http.Handler) {
		prefix := "/" + source
		mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
		mounts = append(mounts, mount{source, prefix + shown})
	}
	for i := range cfg.PyPI {
		source := "pypi/" + cfg.PyPI[i].Name
		handle(source, "/simple/", pypi.NewHandler(publishDir(cfg, source), st, log))
	}
	if len(cfg.Serve.Index.Sources) > 0 {
		h, err := mergedIndex(cfg, st, log)
		if err != nil {
			return nil, err
		}
		mux.Handle("/simple/", h)
		mux.Handle("/packages/", h)
		mounts = append(mounts, mount{"index", "/simple/"})
	}
	for i := range cfg.Apt {
		source := "apt/" + cfg.Apt[i].Name
		dir := publishDir(cfg, source)
		p, err := apt.NewPublisher(cfg.Apt[i].Publish, source, st, dir, log)
		if err != nil {
			return nil, err
		}
		handle(source, "/", apt.NewHandler(p.Tree(), dir, st, log))
	}
	for i := range cfg.Files {
		source := "files/" + cfg.Files[i].Name
		handle(source, "/", files.NewHandler(publishDir(cfg, source), st, log))
	}
	if err := mountImages(mux, cfg, st, log); err != nil {
		return nil, err
	}
	for i := range cfg.OCI {
		mounts = append(mounts, mount{"oci/" + cfg.OCI[i].Name, "/v2/" + cfg.OCI[i].Name + "/"})
	}
	hub, err := mountModels(mux, cfg, st, log)
	if err != nil {
		return nil, err
	}
	mounts = append(mounts, modelMounts(cfg)...)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, m := range mounts {
			fmt.Fprintf(w, "%-14s %s\n", m.source, m.path)
		}
	})
	return &mirrorServer{mux, mounts, hub}, nil
}

// siteSource is the name of the site's own packages.
const siteSource = "pypi/" + config.SiteSource

// mergedIndex is the one index of serve.index. The site's own folder is
// published anew each time the server starts.
func mergedIndex(cfg *config.Config, st *store.Store, log *slog.Logger) (*pypi.Handler, error) {
	x := &cfg.Serve.Index
	var local, imported []*pypi.Handler
	if x.Folder != "" {
		dir := publishDir(cfg, siteSource)
		p, err := pypi.NewPublisher(pypi.PublishConfig{Removed: "hide"}, siteSource, st, dir, log)
		if err != nil {
			return nil, err
		}
		text, err := p.PublishFolder(context.Background(), x.Folder, time.Now())
		if err != nil {
			return nil, err
		}
		log.Info("published the site's own packages", slog.String("folder", x.Folder), slog.String("files", text))
		local = append(local, pypi.NewHandler(dir, st, log))
	}
	for _, name := range x.Sources {
		imported = append(imported, pypi.NewHandler(publishDir(cfg, "pypi/"+name), st, log))
	}
	return pypi.NewMerged(local, imported, x.Reserved, log)
}

// mountImages adds the embedded registry, whose protocol wants one root for
// all sources, and the scanner that shows Harbor our verdicts.
func mountImages(mux *http.ServeMux, cfg *config.Config, st *store.Store, log *slog.Logger) error {
	if len(cfg.OCI) == 0 {
		return nil
	}
	var images []registry.Source
	var dirs []string
	for i := range cfg.OCI {
		dir := publishDir(cfg, "oci/"+cfg.OCI[i].Name)
		images = append(images, registry.Source{Name: cfg.OCI[i].Name, Dir: dir})
		dirs = append(dirs, dir)
	}
	o := registry.Options{Log: log}
	scanner := ""
	for _, t := range []struct {
		key, file string
		to        *string
	}{
		{"push_token_file", cfg.Serve.PushTokenFile, &o.PushToken},
		{"pull_token_file", cfg.Serve.PullTokenFile, &o.PullToken},
		{"scanner_token_file", cfg.Serve.ScannerTokenFile, &scanner},
	} {
		if err := readToken("serve."+t.key, t.file, t.to); err != nil {
			return err
		}
	}
	h, err := registry.New(images, st, o)
	if err != nil {
		return err
	}
	mux.Handle("/v2/", h)
	for _, s := range images { // the same blobs, under the same token
		prefix := "/helm/" + s.Name
		mux.Handle(prefix+"/", http.StripPrefix(prefix, h.Guard(oci.NewCharts(s.Dir, st, log))))
	}
	if scanner != "" {
		const prefix = "/harbor-scanner"
		a := harbor.NewAdapter(oci.NewVerdicts(dirs, st, log), harbor.AdapterOptions{Token: scanner, Version: version(), Log: log})
		mux.Handle(prefix+"/", http.StripPrefix(prefix, a))
	}
	return nil
}
