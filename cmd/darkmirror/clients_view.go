package main

import (
	"cmp"
	"errors"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// An endpoint is a server that clients are sent to.
type endpoint struct {
	scheme string
	host   string // with its port, where it is not the scheme's own
	ca     string // PEM of what clients need to trust; empty where they do, or nobody here knows
	// login says who may pull, where not everybody may.
	login string
}

func (e endpoint) plain() bool { return e.scheme == "http" }
func (e endpoint) url() string { return e.scheme + "://" + e.host }

// name is the host without a port.
func (e endpoint) name() string {
	if host, _, err := net.SplitHostPort(e.host); err == nil {
		return host
	}
	return e.host
}

// caFile is where clients keep ca for tools that are told a path.
func (e endpoint) caFile() string {
	return "/etc/darkmirror/" + strings.NewReplacer(":", "_", "[", "", "]", "").Replace(e.host) + ".crt"
}

// caSetting is that file, if there is one.
func (e endpoint) caSetting(file string) []setting {
	if e.ca == "" {
		return nil
	}
	return []setting{{File: file, Content: e.ca, Note: "The CA of " + e.host + "."}}
}

// A place is where the images that one source has of one registry lie.
type place struct {
	at   endpoint
	path string // "platform/registry.example"; empty for the root
}

// ref is a repository there as image names are written.
func (p place) ref(repo string) string { return path.Join(p.at.host, p.path, repo) }

// api is the root of the place's repositories in the registry's API.
func (p place) api() string { return strings.TrimSuffix(p.at.url()+"/v2/"+p.path, "/") }

// A registryHost is a registry outside, as image names begin with it.
type registryHost struct {
	name    string // "registry.example:5000"
	inside  string // as names inside begin with it: "registry.example-5000"
	guessed bool   // the port was read from a hyphen
	places  []place
}

// named reports whether clients take it for a registry's name: anything else
// before the first slash is to them a part of the repository.
func (h *registryHost) named() bool {
	return strings.ContainsAny(h.name, ".:") || h.name == "localhost"
}

// An imageRef is something published, for examples.
type imageRef struct {
	host *registryHost
	repo string // below the host
	tag  string
	at   place
}

func (r imageRef) inside() string   { return r.at.ref(r.repo) + ":" + r.tag }
func (r imageRef) original() string { return r.host.name + "/" + r.repo + ":" + r.tag }

// clientsView is what the settings are made from.
type clientsView struct {
	serve endpoint
	pypi  []clientIndex
	apt   []aptSource

	hosts  []registryHost
	at     []endpoint // those of the images, each once
	images []imageRef // one a host at most
	charts []imageRef // at most shownCharts
	models modelsView

	warnings []string
}

// shownCharts is enough to see the pattern.
const shownCharts = 3

// mirrored are the hosts whose images keep their names.
func (v *clientsView) mirrored() []registryHost {
	return slices.DeleteFunc(slices.Clone(v.hosts), func(h registryHost) bool { return !h.named() })
}

// example is an image to show how names are written.
func (v *clientsView) example() imageRef {
	if len(v.images) > 0 {
		return v.images[0]
	}
	h := &registryHost{name: "REGISTRY", places: []place{{at: v.at[0], path: "SOURCE/REGISTRY"}}}
	if len(v.hosts) > 0 {
		h = &v.hosts[0]
	}
	return imageRef{host: h, repo: "IMAGE", tag: "TAG", at: h.places[0]}
}

// newClientsView reads what the chosen tools need.
func (a *app) newClientsView(cfg *config.Config, o clientsOptions, chosen []tool) (*clientsView, error) {
	v := &clientsView{}
	needs := func(section string) bool {
		return slices.ContainsFunc(chosen, func(t tool) bool { return t.section == section })
	}
	ca, err := readCA(o.caFile)
	if err != nil {
		return nil, usagef("--ca: %w", err)
	}
	if !o.target {
		if err := v.setServe(cfg, ca); err != nil {
			return nil, err
		}
	}
	if needs("pypi") {
		v.pypi = indexesOf(cfg)
	}
	if needs("apt") {
		if err := v.readApt(cfg, a.logger()); err != nil {
			return nil, err
		}
	}
	if needs("models") {
		if err := v.readModels(cfg); err != nil {
			return nil, err
		}
	}
	if needs("oci") {
		if err := v.readImages(cfg, o, ca); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// setServe finds the address of the embedded server as clients see it.
func (v *clientsView) setServe(cfg *config.Config, ca string) error {
	host, port, err := net.SplitHostPort(cfg.Serve.Listen)
	if err != nil {
		return usagef("serve.listen: %w", err)
	}
	ip := net.ParseIP(host)
	if cfg.Serve.Name != "" {
		host = cfg.Serve.Name
	} else if host == "" || ip != nil && ip.IsUnspecified() {
		return usagef("serve.listen %s is no address that clients can use\nset serve.name to the name that they know this host by", cfg.Serve.Listen)
	}
	if host == "localhost" || ip != nil && ip.IsLoopback() {
		v.warnings = append(v.warnings, "serve.listen "+cfg.Serve.Listen+" is reached from this host alone")
	}
	v.serve = endpoint{scheme: "http", host: net.JoinHostPort(host, port), ca: ca}
	if cfg.Serve.PullTokenFile != "" {
		v.serve.login = "any user name, with the token of serve.pull_token_file as the password"
	}
	if cfg.Serve.Certificate == "" {
		v.serve.ca = ""
		return nil
	}
	v.serve.scheme = "https"
	own, doubts := inspectCertificate(cfg.Serve.Certificate, host, ca != "")
	v.warnings = append(v.warnings, doubts...)
	v.serve.ca = cmp.Or(ca, own)
	return nil
}

// An ociPlace is one configured source of images and the server that has them.
type ociPlace struct {
	at     endpoint
	prefix string       // before the registry's name
	plain  bool         // the registry's name is left out
	set    *oci.Set     // nil where nothing is published
	st     *store.Store // that has it
}

func (s *ociPlace) place(inside string) place {
	if s.plain {
		return place{s.at, s.prefix}
	}
	return place{s.at, path.Join(s.prefix, inside)}
}

// readImages finds the registries of the oci sources and where their images
// lie now.
func (v *clientsView) readImages(cfg *config.Config, o clientsOptions, ca string) error {
	var sources []ociPlace
	for i := range cfg.OCI {
		if cfg.OCI[i].Publish.Models != "" {
			continue // its names begin with no registry
		}
		s, err := v.ociPlace(cfg, i, o.target, ca)
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		sources = append(sources, *s)
		if !slices.Contains(v.at, s.at) {
			v.at = append(v.at, s.at)
		}
	}
	if len(sources) == 0 {
		return usagef("--target: no oci source has a registry or harbor to publish into\ndarkmirror clients, without --target, is for darkmirror serve")
	}
	var err error
	if v.hosts, err = findHosts(sources, o.hosts); err != nil {
		return err
	}
	for i := range v.hosts {
		if err := v.examples(&v.hosts[i], sources); err != nil {
			return err
		}
	}
	v.doubts()
	return nil
}

// ociPlace is nil for a source without a target where targets are asked for.
func (v *clientsView) ociPlace(cfg *config.Config, i int, target bool, ca string) (*ociPlace, error) {
	c := &cfg.OCI[i].Publish
	s := &ociPlace{at: v.serve, prefix: c.Name}
	if target {
		if c.Address() == "" {
			return nil, nil
		}
		scheme, host, _ := strings.Cut(c.Address(), "://")
		s.at = endpoint{scheme: scheme, host: host, ca: ca}
		if ca == "" && scheme == "https" {
			pem, err := readCA(c.CAFile)
			if err != nil {
				return nil, usagef("oci.%s.ca_file: %w", c.Name, err)
			}
			s.at.ca = pem
		}
		if scheme == "http" {
			s.at.ca = ""
		}
		if c.Harbor != "" && !c.Project.Public {
			s.at.login = "an account that may pull, such as a robot account of the project; none is needed if the project is public"
		}
		s.prefix, s.plain = targetPrefix(c), c.Paths == "plain"
	}
	dir := publishDir(cfg, "oci/"+c.Name)
	at, ok, err := oci.ReadPublished(dir)
	if err != nil || !ok {
		return s, err
	}
	if s.st, err = store.Open(storeDir(cfg)); err != nil {
		return nil, err
	}
	s.set, err = at.Load(s.st)
	return s, err
}

// targetPrefix is the part of the target's address after its host.
func targetPrefix(c *oci.PublishConfig) string {
	address := c.Registry + c.Harbor
	if _, rest, ok := strings.Cut(address, "://"); ok {
		address = rest
	}
	_, prefix, _ := strings.Cut(address, "/")
	return strings.Trim(prefix, "/")
}

// firstSegment splits a repository's name inside.
func firstSegment(name string) (host, repo string) {
	host, repo, _ = strings.Cut(name, "/")
	return host, repo
}

// has reports whether a set has images of a registry.
func (s *ociPlace) has(inside string) bool {
	return s.set != nil && slices.ContainsFunc(s.set.Repositories, func(r oci.Repository) bool {
		host, _ := firstSegment(r.Name)
		return host == inside
	})
}

// findHosts gives the registries that are named, or else all that the sources
// have images of. What is named and not published may lie in any source.
func findHosts(sources []ociPlace, named []string) ([]registryHost, error) {
	var hosts []registryHost
	for _, name := range named {
		h, err := parseHost(name)
		if err != nil {
			return nil, usagef("--host: %w", err)
		}
		hosts = append(hosts, h)
	}
	if len(named) == 0 {
		for _, s := range sources {
			if s.set == nil {
				continue
			}
			for _, r := range s.set.Repositories {
				inside, _ := firstSegment(r.Name)
				hosts = append(hosts, guessHost(inside))
			}
		}
	}
	slices.SortFunc(hosts, func(a, b registryHost) int { return strings.Compare(a.name, b.name) })
	hosts = slices.CompactFunc(hosts, func(a, b registryHost) bool { return a.name == b.name })
	for i := range hosts {
		h := &hosts[i]
		published := slices.ContainsFunc(sources, func(s ociPlace) bool { return s.has(h.inside) })
		for _, s := range sources {
			if p := s.place(h.inside); (!published || s.has(h.inside)) && !slices.Contains(h.places, p) {
				h.places = append(h.places, p)
			}
		}
	}
	return hosts, nil
}

// parseHost reads a registry's name as users write it.
func parseHost(name string) (registryHost, error) {
	h := registryHost{name: strings.ToLower(name), inside: strings.ReplaceAll(strings.ToLower(name), ":", "-")}
	host, port, hasPort := strings.Cut(h.name, ":")
	_, perr := strconv.ParseUint(port, 10, 16)
	if !h.named() || strings.Contains(h.name, "/") || spec.CheckName(host) != nil || hasPort && perr != nil {
		return registryHost{}, errors.New(strconv.Quote(name) + " is not how an image name begins: want registry.example or registry.example:5000")
	}
	return h, nil
}

// withPort is a name inside that ends in a port: no domain ends in a hyphen
// and digits.
var withPort = regexp.MustCompile(`^(.+\..+|localhost)-([0-9]{1,5})$`)

// guessHost reads a registry's name back from its form inside, where the colon
// before a port is a hyphen.
func guessHost(inside string) registryHost {
	h := registryHost{name: inside, inside: inside}
	if m := withPort.FindStringSubmatch(inside); m != nil {
		if n, err := strconv.ParseUint(m[2], 10, 16); err == nil && n > 0 {
			h.name, h.guessed = m[1]+":"+m[2], true
		}
	}
	return h
}

// examples takes an image and some charts of a registry, one of a repository.
func (v *clientsView) examples(h *registryHost, sources []ociPlace) error {
	found := false
	for _, s := range sources {
		if s.set == nil {
			continue
		}
		for i := range s.set.Repositories {
			r := &s.set.Repositories[i]
			inside, repo := firstSegment(r.Name)
			// The last is the newest more often than the first.
			tagged := slices.DeleteFunc(slices.Clone(r.Images), func(im oci.Image) bool { return im.Tag == "" })
			if inside != h.inside || repo == "" || len(tagged) == 0 {
				continue
			}
			im := tagged[len(tagged)-1]
			ref := imageRef{host: h, repo: repo, tag: im.Tag, at: s.place(inside)}
			chart, err := isChart(r, im.Root, s.st)
			switch {
			case err != nil:
				return err
			case chart && len(v.charts) < shownCharts:
				v.charts = append(v.charts, ref)
			case !chart && !found:
				v.images, found = append(v.images, ref), true
			}
		}
	}
	return nil
}

// isChart reports whether a manifest is a Helm chart's, by its config.
func isChart(r *oci.Repository, root spec.Digest, st *store.Store) (bool, error) {
	i := slices.IndexFunc(r.Manifests, func(m oci.Member) bool { return m.Digest == root })
	if i < 0 {
		return false, nil
	}
	raw, err := st.ReadAll(r.Manifests[i].Blob, spec.MaxManifest)
	if err != nil {
		return false, err
	}
	m, err := spec.ParseManifest(raw, r.Manifests[i].MediaType)
	return err == nil && m.Config != nil && m.Config.MediaType == spec.HelmConfig, err
}

// doubts are the warnings about registries' names.
func (v *clientsView) doubts() {
	if len(v.hosts) == 0 {
		v.warnings = append(v.warnings, "no image is published yet, so no registry is known: --host registry.example names one")
	}
	for _, h := range v.hosts {
		switch {
		case !h.named():
			v.warnings = append(v.warnings, h.name+" is no registry to clients: its images have the name inside alone")
		case h.guessed:
			v.warnings = append(v.warnings, h.inside+" is taken for "+h.name+"; if that is wrong, --host "+h.inside)
		}
	}
}

// publishedFile reads a file that the mirror serves; empty where there is none.
func publishedFile(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}
