package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/apt"
	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/crypt"
	"github.com/darkmirror/darkmirror/bundle/root"
	signing "github.com/darkmirror/darkmirror/bundle/signer"
	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/files"
	"github.com/darkmirror/darkmirror/mirror/ledger"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/pypi"
)

// Folders below state_dir.
func storeDir(cfg *config.Config) string   { return filepath.Join(cfg.StateDir, "store") }
func ledgerFile(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "ledger.db") }
func runFile(cfg *config.Config) string    { return filepath.Join(cfg.StateDir, "run.json") }
func trustedDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "trusted") }
func publishDir(cfg *config.Config, source string) string {
	return filepath.Join(cfg.StateDir, "published", filepath.FromSlash(source))
}

// lockWait outlasts a status that looks at the ledger, and no run.
const lockWait = time.Second

// openState opens store and ledger; the ledger's lock is the run lock.
func openState(cfg *config.Config) (*store.Store, *ledger.Ledger, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o750); err != nil {
		return nil, nil, err
	}
	led, err := ledger.Open(ledgerFile(cfg), lockWait)
	if err != nil {
		return nil, nil, err
	}
	st, err := store.Open(storeDir(cfg))
	if err != nil {
		return nil, nil, errors.Join(err, led.Close())
	}
	return st, led, nil
}

// exporter wires the outside half.
func (a *app) exporter(cfg *config.Config, st *store.Store, led *ledger.Ledger, only []string, onEvent func(artifact.Event)) (*mirror.Exporter, error) {
	log := a.logger()
	e := &mirror.Exporter{
		Store: st, Ledger: led, Stream: cfg.Stream, StateDir: cfg.StateDir, Outbox: cfg.Outbox,
		VolumeSize: cfg.VolumeSize.Bytes(), Expires: cfg.ExpiresAfter.Duration(), Fetches: fetches(cfg),
		Base: mirror.Base{Policy: cfg.Base, Every: cfg.FullEvery}, OnEvent: onEvent,
	}
	var err error
	if e.Root, err = rootFiles(cfg); err != nil {
		return nil, err
	}
	if e.Sources, err = a.sources(cfg, st, log, onEvent); err != nil {
		return nil, err
	}
	return e, pick(e, only)
}

// pick narrows the sources to --only.
func pick(e *mirror.Exporter, only []string) error {
	if len(only) == 0 {
		return nil
	}
	var chosen []mirror.Source
	for _, name := range only {
		found := false
		for _, s := range e.Sources {
			if s.Name() == name {
				chosen, found = append(chosen, s), true
			}
		}
		if !found {
			return usagef("--only %s: no such source in the configuration", name)
		}
	}
	for _, s := range e.Sources {
		if !slices.Contains(only, s.Name()) {
			e.Keep = append(e.Keep, s.Name())
		}
	}
	e.Sources = chosen
	return nil
}

// fetches is how many files are fetched at once: as many as there are
// connections.
func fetches(cfg *config.Config) int {
	n := cfg.Limits.Total
	for i := range cfg.PyPI {
		n = max(n, cfg.PyPI[i].PerHost())
	}
	for i := range cfg.Models {
		n += modelHosts * cfg.Models[i].PerHost()
	}
	return n
}

// sources makes a client and a source for each configured upstream. They
// share one pool, so that two sources on one host share its limit; an index
// with a limit of its own has a pool of its own.
func (a *app) sources(cfg *config.Config, st *store.Store, log *slog.Logger, onEvent func(artifact.Event)) ([]mirror.Source, error) {
	pool := fetch.NewPool(cfg.Limits.PerHost, cfg.Limits.Total)
	line := fetch.NewBandwidth(cfg.Limits.Bandwidth.BitsPerSecond() / 8)
	pool.SetBandwidth(line)
	newClient := func(p *fetch.Pool, fc fetch.Config, urls ...string) (*fetch.Client, error) {
		fc.Logger, fc.OnEvent = log, onEvent
		return newClient(p, fc, urls...)
	}
	var list []mirror.Source
	for i := range cfg.PyPI {
		c := &cfg.PyPI[i]
		name := "pypi/" + c.Name
		p := pool
		if c.MaxPerHost > 0 {
			p = fetch.NewPool(c.PerHost(), max(c.PerHost(), cfg.Limits.Total))
			p.SetBandwidth(line)
		}
		var clients []*fetch.Client
		for k, fc := range c.Fetches(name) {
			client, err := newClient(p, fc, c.Addresses()[k])
			if err != nil {
				return nil, err
			}
			clients = append(clients, client)
		}
		s, err := pypi.NewSource(c.Config, name, clients, st, log)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	for i := range cfg.Apt {
		c := &cfg.Apt[i]
		name := "apt/" + c.Name
		var urls []string
		for _, ar := range c.Archives {
			urls = append(urls, ar.URL)
		}
		client, err := newClient(pool, fetch.Config{
			Name: name, Hosts: c.AllowHosts, AllowHTTP: c.AllowHTTP, CAFile: c.CAFile,
			User: c.User, PasswordFile: c.PasswordFile,
		}, urls...)
		if err != nil {
			return nil, err
		}
		s, err := apt.NewSource(c.Config, name, client, st, log)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	for i := range cfg.OCI {
		c := &cfg.OCI[i]
		name := "oci/" + c.Name
		var client *fetch.Client
		if c.Address() != "" {
			var err error
			if client, err = newClient(pool, c.Fetch(name), c.Address()); err != nil {
				return nil, err
			}
		}
		s, err := oci.NewSource(c.Config, name, client, st, log)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	for i := range cfg.Models {
		s, err := modelSource(&cfg.Models[i].Config, line, st, log, newClient)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	for i := range cfg.Files {
		c := &cfg.Files[i].Config
		name := "files/" + c.Name
		var client *fetch.Client
		if urls := c.Addresses(); len(urls) > 0 {
			var err error
			if client, err = newClient(pool, c.Fetch(name), urls...); err != nil {
				return nil, err
			}
		}
		s, err := files.NewSource(*c, name, client, st, log)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// newClient makes a client that reaches the hosts of the addresses beside the
// allowed ones; credentials go to the first.
func newClient(p *fetch.Pool, fc fetch.Config, urls ...string) (*fetch.Client, error) {
	for i, raw := range urls {
		host, err := fetch.Host(raw) // without the scheme's own port
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fc.Name, err)
		}
		fc.Hosts = append(fc.Hosts, host)
		if i == 0 {
			fc.CredentialHost = host
		}
	}
	fc.UserAgent = "darkmirror/" + version()
	return fetch.New(p, fc)
}

// signer reads the exporter's private key.
func signer(cfg *config.Config) (bundle.Signer, error) {
	if cfg.SigningKey == "" {
		return bundle.Signer{}, usagef("signing_key is not set\ndarkmirror key generate makes one")
	}
	return openKey(cfg.SigningKey)
}

// openKey opens a signing key: a file, a key of an ssh-agent, or one in a
// token. What it holds open ends with the process: a command signs at its end.
func openKey(spec string) (bundle.Signer, error) {
	s, _, err := signing.Open(context.Background(), spec)
	if errors.Is(err, fs.ErrNotExist) {
		return s, usagef("signing key %s is not there\ndarkmirror key generate makes one", spec)
	}
	if err != nil {
		return s, usagef("signing key %s: %w", spec, err)
	}
	return s, nil
}

// decrypter opens the age identities of the configuration; nil for none.
func decrypter(cfg *config.Config) (bundle.Decrypter, error) {
	var all []crypt.Identity
	for _, name := range cfg.Identities {
		raw, err := os.ReadFile(name)
		if err != nil {
			return nil, &usageError{err}
		}
		list, err := crypt.ParseIdentities(raw)
		if err != nil {
			return nil, usagef("%s: %w", name, err)
		}
		all = append(all, list...)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return crypt.NewDecrypter(all)
}

// rootFiles is the chain of keys that bundles bring; nil where none is pinned.
func rootFiles(cfg *config.Config) (map[string][]byte, error) {
	s, err := root.OpenStore(rootDir(cfg))
	if err != nil {
		return nil, err
	}
	if _, ok := s.Current(); !ok {
		return nil, nil
	}
	return s.Files()
}

// ownTrust trusts the exporter's own key, to recognise what it sealed.
func ownTrust(s bundle.Signer) bundle.Trust {
	return bundle.Trust{Keys: []bundle.TrustedKey{{Name: s.Name, Role: bundle.RoleExporter, Public: s.Public()}}}
}

// approvers adds the keys of those who may approve.
func approvers(t bundle.Trust, cfg *config.Config) (bundle.Trust, error) {
	t.Approvals = cfg.Approvals
	for _, name := range cfg.Approvers {
		label, pub, err := publicKey(name)
		if err != nil {
			return t, usagef("approver's key: %w", err)
		}
		t.Keys = append(t.Keys, bundle.TrustedKey{Name: label, Role: bundle.RoleApprover, Public: pub})
	}
	return t, nil
}

func publicKey(file string) (string, crypto.PublicKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	label, pub, err := bundle.ParsePublicKey(b)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", file, err)
	}
	return label, pub, nil
}

// trust reads the trusted public keys: those of the configuration and those
// that key trust has stored.
func trust(cfg *config.Config) (bundle.Trust, error) {
	files := append([]string{}, cfg.Trust...)
	stored, err := filepath.Glob(filepath.Join(trustedDir(cfg), "*.pub"))
	if err != nil {
		return bundle.Trust{}, err
	}
	var t bundle.Trust
	seen := make(map[string]bool)
	for _, name := range append(files, stored...) {
		label, pub, err := publicKey(name)
		if err != nil {
			return t, usagef("trusted key: %w", err)
		}
		if id := bundle.KeyID(pub); !seen[id] {
			seen[id] = true
			t.Keys = append(t.Keys, bundle.TrustedKey{Name: label, Role: bundle.RoleExporter, Public: pub})
		}
	}
	if len(t.Keys) == 0 {
		return t, nil // the callers say what that means to them
	}
	return approvers(t, cfg)
}

// importer wires the inside half. led and st may be opened read-only by the
// caller for a look that changes nothing.
func (a *app) importer(cfg *config.Config, st *store.Store, led *ledger.Ledger, onEvent func(artifact.Event)) (*mirror.Importer, error) {
	t, err := trust(cfg)
	if err != nil {
		return nil, err
	}
	i := &mirror.Importer{
		Store: st, Ledger: led, Trust: t, Inboxes: cfg.Inbox, StateDir: cfg.StateDir,
		AcceptGap: cfg.Gap == config.GapAcceptIfComplete, OnEvent: onEvent,
	}
	if i.TrustOf, err = rootTrust(cfg); err != nil {
		return nil, err
	}
	if i.Decrypter, err = decrypter(cfg); err != nil {
		return nil, err
	}
	for j := range cfg.PyPI {
		c := &cfg.PyPI[j]
		p, err := pypi.NewPublisher(c.Publish, "pypi/"+c.Name, st, publishDir(cfg, "pypi/"+c.Name), a.logger())
		if err != nil {
			return nil, err
		}
		if address, fc := c.Publish.Target("pypi/" + c.Name); address != "" {
			fc.Logger = a.logger()
			client, err := newClient(fetch.NewPool(1, 1), fc, address)
			if err != nil {
				return nil, err
			}
			if err := p.UseTarget(c.Publish, client); err != nil {
				return nil, err
			}
		}
		i.Publishers = append(i.Publishers, p)
	}
	for j := range cfg.Apt {
		c := &cfg.Apt[j]
		p, err := apt.NewPublisher(c.Publish, "apt/"+c.Name, st, publishDir(cfg, "apt/"+c.Name), a.logger())
		if err != nil {
			return nil, err
		}
		i.Publishers = append(i.Publishers, p)
	}
	pool := fetch.NewPool(0, 0)
	var ofModels []*oci.Publisher // they publish models, not images of a bundle
	for j := range cfg.OCI {
		c := &cfg.OCI[j].Publish
		name := "oci/" + c.Name
		var client *fetch.Client
		if c.Address() != "" {
			fc := c.Fetch(name)
			fc.Logger = a.logger()
			if client, err = newClient(pool, fc, c.Address()); err != nil {
				return nil, err
			}
		}
		p, err := oci.NewPublisher(*c, name, client, st, publishDir(cfg, name), a.logger(), onEvent)
		if err != nil {
			return nil, err
		}
		if c.Models != "" {
			ofModels = append(ofModels, p)
			continue
		}
		i.Publishers = append(i.Publishers, p)
	}
	for j := range cfg.Files {
		name := "files/" + cfg.Files[j].Name
		p, err := files.NewPublisher(cfg.Files[j].Publish, name, st, publishDir(cfg, name), a.logger())
		if err != nil {
			return nil, err
		}
		i.Publishers = append(i.Publishers, p)
	}
	for j := range cfg.Models {
		p, err := a.modelPublisher(cfg, &cfg.Models[j].Publish, st, pool, ofModels, onEvent)
		if err != nil {
			return nil, err
		}
		i.Publishers = append(i.Publishers, p)
	}
	return i, nil
}

// candidates resolves BUNDLE arguments: a folder, a folder name or a sequence
// number below the given boxes.
func candidates(args, boxes []string) ([]bundle.Candidate, error) {
	var list []bundle.Candidate
	var known []bundle.Candidate
	for _, arg := range args {
		if info, err := os.Stat(arg); err == nil && info.IsDir() {
			found, err := bundle.Find(filepath.Dir(filepath.Clean(arg)))
			if err != nil {
				return nil, err
			}
			n := len(list)
			for _, c := range found {
				if c.Name == filepath.Base(filepath.Clean(arg)) {
					list = append(list, c)
				}
			}
			if len(list) == n {
				return nil, usagef("%s is not a bundle folder", arg)
			}
			continue
		}
		if known == nil {
			var err error
			if known, err = bundle.Find(boxes...); err != nil {
				return nil, err
			}
		}
		n := len(list)
		for _, c := range known {
			if c.Name == arg || seqName(c.Seq) == arg || strings.TrimLeft(arg, "0") == fmt.Sprint(c.Seq) {
				list = append(list, c)
			}
		}
		if len(list) == n {
			return nil, usagef("no bundle %s in %s", arg, strings.Join(boxes, ", "))
		}
	}
	return list, nil
}
