// Package config reads the one configuration file: YAML, strictly, with every
// problem reported at once and in its place.
//
// The ecosystems own the configuration of their sources; this package holds
// it, finds the line of each problem that their Validate names, and makes
// paths absolute.
//
// Invariants:
//   - Unknown and duplicate keys, anchors, aliases, merge keys and empty list
//     items are refused; a key of the other role is named as such.
//   - No host has a default. Credentials in a URL are refused, and no message
//     repeats them.
//   - Text stays as written: 3.10 is not a number here. No target of the
//     decoder is an interface or a map.
//   - Relative paths are relative to the file's folder.
//
// Limits: a file of at most [MaxFile] bytes; nothing that it names is opened.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/darkmirror/darkmirror/apt"
	"github.com/darkmirror/darkmirror/mirror/files"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/pypi"
	"github.com/darkmirror/darkmirror/scan"
)

// Roles.
const (
	Outside = "outside"
	Inside  = "inside"
)

// What an importer does about a missing bundle.
const (
	GapRefuse = "refuse"
	// GapAcceptIfComplete imports a later bundle where nothing that it
	// builds on is missing.
	GapAcceptIfComplete = "accept-if-complete"
)

const (
	// version is the only one there is.
	version = 1
	// MaxFile bounds the file. A site's is a few kilobytes.
	MaxFile = 1 << 20
)

// A Config is a configuration that has no problems, with defaults filled in
// and paths absolute. What belongs to the other role is zero.
type Config struct {
	Role     string
	StateDir string

	// Outside.
	Stream       string
	Outbox       string
	SigningKey   string
	VolumeSize   Size
	ExpiresAfter Duration
	LinkRate     Rate // zero: no estimate
	Base         string
	FullEvery    int
	ReceiptsFrom []string
	Send         OutsideLink
	Limits       Limits

	// Approvers are key files of either role; Approvals is the inside's.
	Approvers []string
	Approvals int

	// Scan is the policy of either role; Rescan is the inside's.
	Scan   scan.Config
	Rescan string

	// Inside.
	Inbox   []string
	Trust   []string
	Gap     string
	MaxAge  Duration
	Serve   Serve
	Receive InsideLink
	// Identities are age identity files.
	Identities []string

	PyPI   []PyPI
	Apt    []Apt
	OCI    []OCI
	Models []Models
	Files  []Files

	doc  *document
	file reflect.Value // the decoded file, for Show
}

// A PyPI is one package index: what to read outside, or how to publish inside.
type PyPI struct {
	Name string
	pypi.Config
	Publish pypi.PublishConfig
}

// An Apt is one set of archives: what to read outside, or how to publish
// inside. Its name is that of the embedded Config in both roles.
type Apt struct {
	apt.Config
	Publish apt.PublishConfig
}

// An OCI is one source of images: what to read outside, or how to publish
// inside. Its name is that of the embedded Config in both roles.
type OCI struct {
	oci.Config
	Publish oci.PublishConfig
}

// A Models is one source of models: what to read outside, or how to publish
// inside. Its name is that of the embedded Config in both roles.
type Models struct {
	models.Config
	Publish models.PublishConfig
}

// A Files is one source of plain files: what to carry outside, or how to
// publish inside. Its name is that of the embedded Config in both roles.
type Files struct {
	files.Config
	Publish files.PublishConfig
}

// Limits bound connections over all sources.
type Limits struct {
	PerHost int `yaml:"per_host" default:"10" doc:"connections to one host at once"`
	Total   int `yaml:"total" default:"16" doc:"connections at once"`
	// Bandwidth is of the bodies; headers and handshakes come on top.
	Bandwidth Rate `yaml:"bandwidth" doc:"how fast to fetch, over all sources, as 200Mbit/s (default: as fast as it goes)"`
}

// Serve is the embedded server.
type Serve struct {
	Listen      string `yaml:"listen" default:"127.0.0.1:8080" doc:"address and port to listen on"`
	Certificate string `yaml:"certificate" doc:"TLS certificate chain, PEM; without it the server speaks plain http"`
	KeyFile     string `yaml:"key_file" doc:"the certificate's private key, PEM"`
	Name        string `yaml:"name" doc:"the name that clients use, for printed addresses"`

	PushTokenFile string `yaml:"push_token_file" doc:"file with the token that lets clients push images; without it nobody can"`
	PullTokenFile string `yaml:"pull_token_file" doc:"file with a token that pulling images then needs"`

	Index ServedIndex `yaml:"index" doc:"one package index of several, at /simple/ and /packages/"`

	ScannerTokenFile string `yaml:"scanner_token_file" doc:"file with the token with which Harbor asks for our verdicts at /harbor-scanner; without it nobody is answered"`
}

// A ServedIndex is several package indexes at one address. A project is
// served by the first that has it, and by no other.
type ServedIndex struct {
	Sources  []string `yaml:"sources" doc:"names of pypi sources, the first goes before the others"`
	Folder   string   `yaml:"folder" doc:"the site's own wheels and source archives, which go before all of them"`
	Reserved []string `yaml:"reserved" doc:"names, or patterns as acme-*, that never come from sources"`
}

// common is what both roles have.
type common struct {
	Version  int    `yaml:"version" required:"true" enum:"1" doc:"version of this format"`
	Role     string `yaml:"role" required:"true" enum:"outside|inside" doc:"the side of the gap that this host is on"`
	StateDir string `yaml:"state_dir" default:"/var/lib/darkmirror" doc:"folder of the store, the ledger and partial downloads"`
}

// outsideFile is the file of role outside.
type outsideFile struct {
	Common       common          `yaml:",inline"`
	Stream       string          `yaml:"stream" default:"main" doc:"name of the line of bundles from this exporter"`
	Outbox       string          `yaml:"outbox" doc:"folder in which bundles appear (default: outbox in state_dir)"`
	SigningKey   string          `yaml:"signing_key" doc:"the exporter's private key: a file, agent:NAME of an ssh-agent, or a pkcs11: URI"`
	Approvers    []string        `yaml:"approvers" doc:"files of the public keys of those who may approve bundles (default: any key that is not the exporter's)"`
	VolumeSize   Size            `yaml:"volume_size" default:"1GiB" doc:"hard cap of a volume file: 700MiB, 1GiB, 4GiB-1"`
	ExpiresAfter Duration        `yaml:"expires_after" default:"30d" doc:"a bundle is refused inside so long after it was made"`
	LinkRate     Rate            `yaml:"link_rate" doc:"speed of the link, for the plan's estimate: 200Mbit/s (default: link.rate)"`
	Base         string          `yaml:"base" default:"sealed" enum:"sealed|sent|confirmed" doc:"what a delta builds on: every sealed bundle that is not lost, those that were sent, or those that a receipt confirms"`
	ReceiptsFrom []string        `yaml:"receipts_from" doc:"files of the inside's public keys, whose receipts are believed"`
	FullEvery    int             `yaml:"full_every" doc:"make every so many bundles stand alone (default: never)"`
	Link         OutsideLink     `yaml:"link" doc:"the one-way link: where and how to send"`
	Limits       Limits          `yaml:"limits" doc:"connections to upstreams"`
	Scan         scan.Config     `yaml:"scan" doc:"what is held back, and what may pass all the same"`
	PyPI         []outsidePyPI   `yaml:"pypi" doc:"Python package indexes"`
	Apt          []apt.Config    `yaml:"apt" doc:"Debian and Ubuntu archives"`
	OCI          []oci.Config    `yaml:"oci" doc:"container registries, Helm repositories, local images"`
	Models       []models.Config `yaml:"models" doc:"model hubs, local models"`
	Files        []files.Config  `yaml:"files" doc:"plain files: folders, or addresses with digests"`
}

type outsidePyPI struct {
	Name   string      `yaml:"name" required:"true" doc:"name of the source: main makes it pypi/main"`
	Config pypi.Config `yaml:",inline"`
}

// insideFile is the file of role inside.
type insideFile struct {
	Common    common                 `yaml:",inline"`
	Inbox     []string               `yaml:"inbox" doc:"folders in which bundles arrive"`
	Identity  []string               `yaml:"identities" doc:"age identity files that encrypted bundles are read with"`
	Trust     []string               `yaml:"trust" doc:"files of trusted exporters' public keys, beside those stored by key trust"`
	Approvers []string               `yaml:"approvers" doc:"files of the public keys of those who may approve bundles"`
	Approvals int                    `yaml:"approvals" doc:"how many of them must have approved a bundle (default: 1 where there are approvers)"`
	Gap       string                 `yaml:"gap" default:"refuse" enum:"refuse|accept-if-complete" doc:"what to do when a bundle is missing"`
	MaxAge    Duration               `yaml:"max_age" default:"8d" doc:"status alarms when the newest bundle is older"`
	Serve     Serve                  `yaml:"serve" doc:"the embedded server"`
	Link      InsideLink             `yaml:"link" doc:"the one-way link: where and how to receive"`
	Scan      scan.InsideConfig      `yaml:"scan" doc:"what is judged again inside, and what is held back then"`
	PyPI      []insidePyPI           `yaml:"pypi" doc:"Python package indexes to publish"`
	Apt       []apt.PublishConfig    `yaml:"apt" doc:"Debian and Ubuntu archives to publish"`
	OCI       []oci.PublishConfig    `yaml:"oci" doc:"images to publish"`
	Models    []models.PublishConfig `yaml:"models" doc:"models to publish"`
	Files     []files.PublishConfig  `yaml:"files" doc:"plain files to publish"`
}

// SiteSource is the name of the index of serve.index.folder: no source of
// packages can have it.
const SiteSource = "site-packages"

type insidePyPI struct {
	Name    string             `yaml:"name" required:"true" doc:"name of the source, as outside"`
	Publish pypi.PublishConfig `yaml:",inline"`
}

// A role is a name and the file it has.
type role struct {
	name string
	file reflect.Type
}

func roles() []role {
	return []role{{Outside, reflect.TypeFor[outsideFile]()}, {Inside, reflect.TypeFor[insideFile]()}}
}

// Load reads a configuration file. What is wrong with its content is
// [Problems], all of them; any other error is of the file itself.
func Load(path string) (cfg *Config, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := f.Close(); cerr != nil {
			cfg, err = nil, errors.Join(err, cerr)
		}
	}()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return Parse(path, data)
}

// Parse reads a configuration as Load does; path is for messages, and its
// folder is what relative paths are relative to.
func Parse(path string, data []byte) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFile {
		return nil, Problems{{File: path, Text: fmt.Sprintf("more than %d bytes", MaxFile)}}
	}
	d := parse(path, data)
	if d.root == nil {
		return nil, d.sorted()
	}
	cfg := &Config{doc: d}
	switch d.role() {
	case Outside:
		var f outsideFile
		d.decode(&f)
		f.finish(d, filepath.Dir(abs))
		f.fill(cfg)
		cfg.file = reflect.ValueOf(f)
	case Inside:
		var f insideFile
		d.decode(&f)
		f.finish(d, filepath.Dir(abs))
		f.fill(cfg)
		cfg.file = reflect.ValueOf(f)
	}
	if len(d.problems) > 0 {
		return nil, d.sorted()
	}
	return cfg, nil
}

// role is the file's role, or "" with a problem: without it the keys cannot
// be judged.
func (d *document) role() string {
	p := d.places["role"]
	names := []string{Outside, Inside}
	switch {
	case !d.has("role"):
		d.on("role", "role: missing: want outside or inside")
	case slices.Contains(names, p.value.Value):
		return p.value.Value
	default:
		d.at(markOf(p.value), "role: want outside or inside, got %s", describe(p.value))
	}
	return ""
}

func (f *outsideFile) fill(c *Config) {
	c.Role, c.StateDir = f.Common.Role, f.Common.StateDir
	c.Stream, c.Outbox, c.SigningKey, c.VolumeSize = f.Stream, f.Outbox, f.SigningKey, f.VolumeSize
	c.ExpiresAfter, c.LinkRate, c.Limits, c.Scan = f.ExpiresAfter, f.LinkRate, f.Limits, f.Scan
	c.Approvers, c.Send, c.Base, c.FullEvery = f.Approvers, f.Link, f.Base, f.FullEvery
	c.ReceiptsFrom = f.ReceiptsFrom
	for _, s := range f.PyPI {
		c.PyPI = append(c.PyPI, PyPI{Name: s.Name, Config: s.Config})
	}
	for _, s := range f.Apt {
		c.Apt = append(c.Apt, Apt{Config: s})
	}
	for _, s := range f.OCI {
		c.OCI = append(c.OCI, OCI{Config: s})
	}
	for _, s := range f.Models {
		c.Models = append(c.Models, Models{Config: s})
	}
	for _, s := range f.Files {
		c.Files = append(c.Files, Files{Config: s})
	}
}

func (f *insideFile) fill(c *Config) {
	c.Role, c.StateDir = f.Common.Role, f.Common.StateDir
	c.Inbox, c.Trust, c.Gap, c.MaxAge, c.Serve = f.Inbox, f.Trust, f.Gap, f.MaxAge, f.Serve
	c.Scan, c.Rescan = f.Scan.Config, f.Scan.Rescan
	c.Approvers, c.Approvals, c.Receive = f.Approvers, f.Approvals, f.Link
	c.Identities = f.Identity
	for _, s := range f.PyPI {
		c.PyPI = append(c.PyPI, PyPI{Name: s.Name, Publish: s.Publish})
	}
	for _, s := range f.Apt {
		c.Apt = append(c.Apt, Apt{Config: apt.Config{Name: s.Name}, Publish: s})
	}
	for _, s := range f.OCI {
		c.OCI = append(c.OCI, OCI{Config: oci.Config{Name: s.Name}, Publish: s})
	}
	for _, s := range f.Models {
		c.Models = append(c.Models, Models{Config: models.Config{Name: s.Name}, Publish: s})
	}
	for _, s := range f.Files {
		c.Files = append(c.Files, Files{Config: files.Config{Name: s.Name}, Publish: s})
	}
}
