package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/cachedir"
	"github.com/darkmirror/darkmirror/models/hubserver"
	"github.com/darkmirror/darkmirror/models/modelpack"
	"github.com/darkmirror/darkmirror/models/ollama"
	"github.com/darkmirror/darkmirror/models/plaindir"
	"github.com/darkmirror/darkmirror/models/s3"
	"github.com/darkmirror/darkmirror/oci"
)

const (
	// hubPath is where the embedded hub shows the models of all sources.
	hubPath = "/hub"
	// modelHosts are the hub and the server of its large files: each has as
	// many connections as a source may have to one host.
	modelHosts = 2
	// assembleTime is how long an object store may take to put the parts of a
	// large object together without a word.
	assembleTime = 5 * time.Minute
)

// modelSource makes the source of one hub, or of local models. A hub has a
// pool of its own: its files come through many connections at once.
func modelSource(c *models.Config, line *fetch.Bandwidth, st *store.Store, log *slog.Logger, newClient func(*fetch.Pool, fetch.Config, ...string) (*fetch.Client, error)) (*models.Source, error) {
	name := "models/" + c.Name
	if c.Hub == "" {
		return models.NewSource(*c, name, nil, st, log)
	}
	pool := fetch.NewPool(c.PerHost(), modelHosts*c.PerHost())
	pool.SetBandwidth(line)
	pool.SetApart()
	client, err := newClient(pool, c.Fetch(name), c.Hub)
	if err != nil {
		return nil, err
	}
	return models.NewSource(*c, name, client, st, log)
}

// modelPublisher makes the publisher of one source of models with its targets.
func (a *app) modelPublisher(cfg *config.Config, c *models.PublishConfig, st *store.Store, pool *fetch.Pool, images []*oci.Publisher, onEvent func(artifact.Event)) (*models.Publisher, error) {
	name := "models/" + c.Name
	log := a.logger()
	var targets []models.Target
	if c.Cache.Dir != "" {
		t, err := cachedir.New(c.Cache.Dir, cachedir.Options{Name: name, Links: c.Cache.Links, NoExist: c.Cache.NoExist}, st, log)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	if c.Folder != "" {
		t, err := plaindir.New(c.Folder, plaindir.Options{Name: name}, st, log)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	if c.Ollama.Dir != "" {
		t, err := ollama.New(c.Ollama.Dir, ollama.Options{Name: name, Host: c.Ollama.Host}, st, log)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	if c.S3.Endpoint != "" {
		t, err := a.objectStore(name, &c.S3, st, pool, onEvent)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	for i := range cfg.OCI {
		o := &cfg.OCI[i].Publish
		if o.Models != c.Name {
			continue
		}
		source := "oci/" + o.Name
		for _, p := range images {
			if p.Name() != source {
				continue
			}
			t, err := modelpack.New(modelpack.Options{Source: source, ModelPack: true, Modelcar: o.Modelcar}, p, st, log)
			if err != nil {
				return nil, err
			}
			targets = append(targets, t)
		}
	}
	return models.NewPublisher(*c, name, st, publishDir(cfg, name), log, targets...)
}

// objectStore makes the target of an S3 configuration.
func (a *app) objectStore(name string, c *models.S3Config, st *store.Store, pool *fetch.Pool, onEvent func(artifact.Event)) (*s3.Target, error) {
	fc := c.Fetch(name)
	fc.Logger, fc.IdleTimeout = a.logger(), assembleTime
	client, err := newClient(pool, fc, c.Endpoint)
	if err != nil {
		return nil, err
	}
	o := s3.Options{Name: name, Endpoint: c.Endpoint, Bucket: c.Bucket, Prefix: c.Prefix, Region: c.Region, VirtualHost: c.VirtualHost, Verify: c.Verify}
	if err := readToken("models s3.access_key_file", c.AccessKeyFile, &o.AccessKey); err != nil {
		return nil, err
	}
	if err := readToken("models s3.secret_key_file", c.SecretKeyFile, &o.SecretKey); err != nil {
		return nil, err
	}
	return s3.New(o, client.RoundTripper(), st, a.logger(), onEvent)
}

// mountModels adds the embedded hub: one namespace for all sources at /hub,
// which it returns, and each source by itself.
func mountModels(mux *http.ServeMux, cfg *config.Config, st *store.Store, log *slog.Logger) (*hubserver.Handler, error) {
	if len(cfg.Models) == 0 {
		return nil, nil
	}
	var all []hubserver.Source
	mount := func(prefix string, sources []hubserver.Source) (*hubserver.Handler, error) {
		h, err := hubserver.New(sources, st, hubserver.Options{Prefix: prefix, Log: log})
		if err != nil {
			return nil, err
		}
		mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
		return h, nil
	}
	for i := range cfg.Models {
		c := &cfg.Models[i].Publish
		source := "models/" + c.Name
		s := hubserver.Source{Name: c.Name, Dir: publishDir(cfg, source)}
		for _, rule := range c.Access {
			r := hubserver.Rule{Repositories: rule.Repositories, Ask: rule.Ask}
			for _, t := range rule.Tokens {
				secret := ""
				if err := readToken(source+" access.tokens", t.File, &secret); err != nil {
					return nil, err
				}
				r.Tokens = append(r.Tokens, hubserver.Token{Name: t.Name, Secret: secret})
			}
			s.Access = append(s.Access, r)
		}
		all = append(all, s)
		if _, err := mount("/"+source, []hubserver.Source{s}); err != nil {
			return nil, err
		}
	}
	return mount(hubPath, all)
}

// readToken reads a file of the configuration that holds one secret.
func readToken(key, file string, to *string) error {
	if file == "" {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return usagef("%s: %w", key, err)
	}
	if *to = strings.TrimSpace(string(b)); *to == "" {
		return usagef("%s: %s is empty", key, file)
	}
	return nil
}

// modelMounts lists where the models are served.
func modelMounts(cfg *config.Config) []mount {
	var list []mount
	for i := range cfg.Models {
		list = append(list, mount{"models/" + cfg.Models[i].Name, "/models/" + cfg.Models[i].Name})
	}
	if len(list) > 1 {
		list = append(list, mount{fmt.Sprintf("%d hubs in one", len(list)), hubPath})
	}
	return list
}
