package pypi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// maxPage bounds a project's index page unless the configuration says
	// otherwise. The largest known is about 40 MiB.
	maxPage = 256 << 20
	// mostPerHost is what uv takes at once. Public indexes ask mirrors for ten
	// at most; a site's own proxy bears more.
	mostPerHost = 50
	// defaultPerHost is used where the configuration says nothing.
	defaultPerHost = 10
	// defaultMinAge is how long a file has to be on the index before it is
	// chosen. Indexes take new files for a release during 14 days; after that
	// the set of its files can only shrink, and malicious ones have mostly
	// been found.
	defaultMinAge = 14 * 24 * time.Hour
)

// Config is one package index outside, and what is wanted of it.
type Config struct {
	// Index is the root of the Simple API: "https://index.example/simple/".
	Index string `yaml:"index"`
	// AllowHosts are further hosts (or host:port) that files may come from;
	// the index's own is always allowed.
	AllowHosts []string `yaml:"allow_hosts,omitempty"`
	// AllowHTTP allows plain http, for an index on a trusted network.
	AllowHTTP bool `yaml:"allow_http,omitempty"`
	// CAFile holds certificates to trust beside the system's.
	CAFile string `yaml:"ca_file,omitempty"`
	// User and PasswordFile are sent to the index's host only.
	User         string `yaml:"user,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	// Targets are presets such as "cp312-manylinux_2_28_x86_64", or names of
	// Interpreters.
	Targets []string `yaml:"targets,omitempty"`
	// Interpreters describes targets that no preset names.
	Interpreters []InterpreterConfig `yaml:"interpreters,omitempty"`
	// Locks are the files that say what is wanted. There may be none yet: a
	// new configuration starts so, and a run notes that nothing is wanted.
	Locks []LockConfig `yaml:"locks"`
	// Packages are requirements as installers take them, "torch>=2.4". They
	// are resolved together, for each of the source's targets.
	Packages []string `yaml:"packages,omitempty"`
	// Requirements are files of requirements, each resolved by itself.
	Requirements []RequirementsConfig `yaml:"requirements,omitempty"`
	// Catalogue are versions of projects that are wanted by themselves, without
	// what they require: "numpy: newest 3", "requests: all", "pip: >=23".
	Catalogue []string `yaml:"catalogue,omitempty"`
	// Constraints are files of constraints that hold for both.
	Constraints []string `yaml:"constraints,omitempty"`
	// Prereleases are projects of which pre-releases count.
	Prereleases []string `yaml:"prereleases,omitempty"`
	// MinAge is how long a file has to be on the index before it is chosen;
	// nil is 14 days. Locks are not asked: they have chosen.
	MinAge *time.Duration `yaml:"min_age,omitempty"`
	// AnyAge are projects, or patterns of projects, that MinAge spares.
	AnyAge []string `yaml:"any_age,omitempty"`
	// AssumeOld takes files of which the index does not tell the upload time.
	AssumeOld bool `yaml:"assume_old,omitempty"`
	// MissingHash is what is done with a file of which the index names no
	// sha256: "refuse" (the default), or "first-use", which computes its hash
	// once and holds to it. Locks bring their own.
	MissingHash string `yaml:"missing_hash,omitempty"`
	// MissingStatus are answers of the index, beside 404 and 410, that mean that
	// it does not have a project: some say 403.
	MissingStatus []int `yaml:"missing_status,omitempty"`
	// Internal are names, or patterns of names, of the site's own projects:
	// they are never asked for outside.
	Internal []string `yaml:"internal,omitempty"`
	// Pinned are further indexes, each for the projects that it names.
	Pinned []PinnedIndex `yaml:"pinned,omitempty"`
	// AllowSdist takes a source archive where no wheel fits. Whoever installs
	// it runs its build.
	AllowSdist bool `yaml:"allow_sdist,omitempty"`
	// AllowSdistOf does so for these projects only.
	AllowSdistOf []string `yaml:"allow_sdist_of,omitempty"`
	// AnyRecord are projects, or patterns, whose wheels may differ from their
	// RECORD: some were changed after they were built.
	AnyRecord []string `yaml:"any_record,omitempty"`
	// Attestations says how those of files are verified.
	Attestations *AttestationsConfig `yaml:"attestations,omitempty"`
	// MaxPerHost bounds the connections to one host; 0 is 10, which is the most
	// that a public index should be asked for.
	MaxPerHost int `yaml:"max_per_host,omitempty"`
	// MaxPage bounds an index page in bytes; 0 is 256 MiB.
	MaxPage int64 `yaml:"max_page,omitempty"`
}

// LockConfig is one lock file.
type LockConfig struct {
	// File is a requirements file with hashes, a pylock.toml or a uv.lock.
	File string `yaml:"file"`
	// Extras and Groups of a lock, if any, are all that count; nil is every
	// one, so that a mirror never carries too little.
	Extras []string `yaml:"extras,omitempty"`
	Groups []string `yaml:"groups,omitempty"`
	// Targets, if any, replace the source's targets for this file.
	Targets []string `yaml:"targets,omitempty"`
}

// RequirementsConfig is one file of requirements.
type RequirementsConfig struct {
	// File is a requirements file as pip reads it, or a pyproject.toml.
	File string `yaml:"file"`
	// Extras and Groups of a pyproject.toml, if any, are all that count; nil
	// is every one.
	Extras []string `yaml:"extras,omitempty"`
	Groups []string `yaml:"groups,omitempty"`
	// Targets, if any, replace the source's targets for this file.
	Targets []string `yaml:"targets,omitempty"`
}

// PinnedIndex is an index for some projects only, as the indexes of CUDA
// builds are: no other project is asked for there, and these nowhere else.
type PinnedIndex struct {
	// Projects are names or patterns, "torch" or "acme-*".
	Projects     []string       `yaml:"projects"`
	Index        string         `yaml:"index"`
	AllowHosts   []string       `yaml:"allow_hosts,omitempty"`
	User         string         `yaml:"user,omitempty"`
	PasswordFile string         `yaml:"password_file,omitempty"`
	MinAge       *time.Duration `yaml:"min_age,omitempty"` // nil is the source's
	AssumeOld    bool           `yaml:"assume_old,omitempty"`
	MissingHash  string         `yaml:"missing_hash,omitempty"`
	// MissingStatus is that of this index; the source's is not taken over.
	MissingStatus []int `yaml:"missing_status,omitempty"`
}

// PublishConfig is a package index inside.
type PublishConfig struct {
	// Removed says what becomes of a file that a later snapshot lacks: "yank"
	// (the default) keeps it for those who have pinned it, "hide" does not.
	Removed string `yaml:"removed,omitempty"`
	// Tree is a folder that gets the index as files, for a web server or for
	// file:// (see [WriteTree]).
	Tree string `yaml:"tree,omitempty"`
	// AnyRecord are projects, or patterns, whose wheels may differ from their
	// RECORD here too; what the outside allows decides nothing inside.
	AnyRecord []string `yaml:"any_record,omitempty"`
	// Attestations says how those of files are verified again.
	Attestations *AttestationsConfig `yaml:"attestations,omitempty"`
	// DevPI and Upload are another server that gets the files too, at most one
	// of them.
	DevPI  *DevPIConfig  `yaml:"devpi,omitempty"`
	Upload *UploadConfig `yaml:"upload,omitempty"`
}

// Validate joins the problems of a PublishConfig.
func (c *PublishConfig) Validate() error {
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	}
	if c.Removed != "" && c.Removed != removedYank && c.Removed != removedHide {
		add("removed", "%q, want %s or %s", clip(c.Removed), removedYank, removedHide)
	}
	checkPatterns("any_record", c.AnyRecord, true, add)
	c.validateTargets(add)
	c.Attestations.validate(add)
	return errors.Join(errs...)
}

// Validate joins every problem; the text of each starts with its field and a
// colon.
func (c *Config) Validate() error {
	var errs []error
	add := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %w", field, fmt.Errorf(format, args...)))
	}
	if err := checkIndex(c.Index, c.AllowHTTP); err != nil {
		add("index", "%w", err)
	}
	checkAccess("", c.AllowHosts, c.User, c.PasswordFile, add)
	c.validateInterpreters(add)
	c.checkTargets(c.Targets, "targets", add)
	for i, l := range c.Locks {
		field := fmt.Sprintf("locks[%d]", i)
		if l.File == "" {
			add(field+".file", "missing")
		}
		if len(l.Targets) == 0 && len(c.Targets) == 0 {
			add("targets", "none for %s; name at least one, such as cp312-manylinux_2_28_x86_64", field)
		}
		c.checkTargets(l.Targets, field+".targets", add)
	}
	c.validateWants(add)
	c.Attestations.validate(add)
	for i := range c.Pinned {
		c.Pinned[i].validate(fmt.Sprintf("pinned[%d].", i), c.AllowHTTP, add)
	}
	if c.MaxPerHost < 0 || c.MaxPerHost > mostPerHost {
		add("max_per_host", "%d, want 1 to %d", c.MaxPerHost, mostPerHost)
	}
	if c.MaxPage < 0 || c.MaxPage > 1<<40 {
		add("max_page", "%d bytes", c.MaxPage)
	}
	return errors.Join(errs...)
}

// validateWants checks what is to be resolved, and by which rules.
func (c *Config) validateWants(add func(string, string, ...any)) {
	for i, p := range c.Packages {
		if _, err := packaging.ParseRequirement(p); err != nil {
			add(fmt.Sprintf("packages[%d]", i), "%w", err)
		}
	}
	for i, r := range c.Requirements {
		field := fmt.Sprintf("requirements[%d]", i)
		if r.File == "" {
			add(field+".file", "missing")
		}
		if len(r.Targets) == 0 && len(c.Targets) == 0 {
			add("targets", "none for %s; name at least one, such as cp312-manylinux_2_28_x86_64", field)
		}
		c.checkTargets(r.Targets, field+".targets", add)
	}
	for i, text := range c.Catalogue {
		if _, err := ParseCatalogue(text); err != nil {
			add(fmt.Sprintf("catalogue[%d]", i), "%w", err)
		}
	}
	if len(c.Packages)+len(c.Catalogue) > 0 && len(c.Targets) == 0 {
		add("targets", "none for packages or catalogue; name at least one, such as cp312-manylinux_2_28_x86_64")
	}
	for i, f := range c.Constraints {
		if f == "" {
			add(fmt.Sprintf("constraints[%d]", i), "empty")
		}
	}
	checkMissingHash("missing_hash", c.MissingHash, add)
	checkMissingStatus("missing_status", c.MissingStatus, add)
	checkPatterns("prereleases", c.Prereleases, false, add)
	checkPatterns("any_age", c.AnyAge, true, add)
	checkPatterns("internal", c.Internal, true, add)
	checkPatterns("any_record", c.AnyRecord, true, add)
	checkPatterns("allow_sdist_of", c.AllowSdistOf, true, add)
	if c.MinAge != nil && *c.MinAge < 0 {
		add("min_age", "%s, want 0s or more", *c.MinAge)
	}
}

func (p *PinnedIndex) validate(at string, http bool, add func(string, string, ...any)) {
	if err := checkIndex(p.Index, http); err != nil {
		add(at+"index", "%w", err)
	}
	checkMissingHash(at+"missing_hash", p.MissingHash, add)
	checkMissingStatus(at+"missing_status", p.MissingStatus, add)
	if len(p.Projects) == 0 {
		add(at+"projects", "missing; name the projects that come from this index")
	}
	checkPatterns(at+"projects", p.Projects, true, add)
	checkAccess(at, p.AllowHosts, p.User, p.PasswordFile, add)
	if p.MinAge != nil && *p.MinAge < 0 {
		add(at+"min_age", "%s, want 0s or more", *p.MinAge)
	}
}

func checkMissingHash(field, s string, add func(string, string, ...any)) {
	if s != "" && s != hashRefuse && s != hashRecord {
		add(field, "%q, want %s or %s", clip(s), hashRefuse, hashRecord)
	}
}

// checkMissingStatus wants answers that blame the request for good: what may be
// otherwise when it is asked again says nothing of a project.
func checkMissingStatus(field string, list []int, add func(string, string, ...any)) {
	for i, code := range list {
		passing := code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests
		if code < 400 || code > 499 || passing {
			add(fmt.Sprintf("%s[%d]", field, i), "%d, want an answer such as 403, from 400 to 499 and none that asks to wait", code)
		}
	}
}

// checkPatterns wants names in normal form, with "*" where patterns are
// allowed.
func checkPatterns(field string, names []string, patterns bool, add func(string, string, ...any)) {
	for i, n := range names {
		plain := n
		if patterns {
			plain = strings.ReplaceAll(n, "*", "x")
		}
		if norm, err := packaging.NormalizeName(plain); err != nil {
			add(fmt.Sprintf("%s[%d]", field, i), "%w", err)
		} else if norm != plain {
			add(fmt.Sprintf("%s[%d]", field, i), "%q: write names in small letters with single dashes: %q", clip(n), norm)
		}
	}
}

// checkAccess checks the hosts and the account of one index.
func checkAccess(at string, hosts []string, user, passwordFile string, add func(string, string, ...any)) {
	for i, h := range hosts {
		if err := checkHost(h); err != nil {
			add(fmt.Sprintf("%sallow_hosts[%d]", at, i), "%w", err)
		}
	}
	if user != "" && passwordFile == "" {
		add(at+"password_file", "missing, though user is set")
	}
	if user == "" && passwordFile != "" {
		add(at+"user", "missing, though password_file is set")
	}
}

func checkIndex(s string, http bool) error {
	if s == "" {
		return errors.New("missing; no index is built in")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("malformed URL") // the text of err may hold a password
	case u.User != nil:
		return errors.New("must not hold credentials; use user and password_file")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return fmt.Errorf("%q: want https://HOST/PATH/", clip(s))
	case u.Scheme == "http" && !http:
		return fmt.Errorf("%q: plain http needs allow_http", clip(s))
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return fmt.Errorf("%q: must not have a query or a fragment", clip(s))
	}
	return nil
}

// checkHost accepts HOST and HOST:PORT.
func checkHost(s string) error {
	u, err := url.Parse("https://" + s)
	if err != nil || s == "" || u.Host != s || u.User != nil || u.Hostname() == "" || strings.ContainsAny(s, " *") {
		return fmt.Errorf("%q: want a host or host:port", clip(s))
	}
	if _, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q: port %q", clip(s), port)
		}
	}
	return nil
}

// empty reports whether nothing is wanted.
func (c *Config) empty() bool {
	return len(c.Locks)+len(c.Packages)+len(c.Requirements)+len(c.Catalogue) == 0
}

// Files are the names of the files that the configuration refers to.
func (c *Config) Files() []*string {
	var out []*string
	for i := range c.Locks {
		out = append(out, &c.Locks[i].File)
	}
	for i := range c.Requirements {
		out = append(out, &c.Requirements[i].File)
	}
	for i := range c.Constraints {
		out = append(out, &c.Constraints[i])
	}
	for i := range c.Interpreters {
		out = append(out, &c.Interpreters[i].File)
	}
	for i := range c.Pinned {
		out = append(out, &c.Pinned[i].PasswordFile)
	}
	if c.Attestations != nil {
		out = append(out, &c.Attestations.TrustedRoot)
	}
	return out
}

// Files are the names of the files that the configuration refers to.
func (c *PublishConfig) Files() []*string {
	out := []*string{&c.Tree}
	if c.Attestations != nil {
		out = append(out, &c.Attestations.TrustedRoot)
	}
	if c.DevPI != nil {
		out = append(out, &c.DevPI.PasswordFile, &c.DevPI.CAFile)
	}
	if c.Upload != nil {
		out = append(out, &c.Upload.PasswordFile, &c.Upload.CAFile)
	}
	return out
}

// everyTarget lists the targets of the source and those of single files.
func (c *Config) everyTarget() []string {
	all := slices.Clone(c.Targets)
	for i := range c.Locks {
		all = append(all, c.Locks[i].Targets...)
	}
	for i := range c.Requirements {
		all = append(all, c.Requirements[i].Targets...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Addresses are the roots of the indexes, the main one first.
func (c *Config) Addresses() []string {
	out := []string{c.Index}
	for i := range c.Pinned {
		out = append(out, c.Pinned[i].Index)
	}
	return out
}

// Fetches are the configurations of the clients that this source needs, one
// for each index, so that an account is known to its own index alone. The
// caller adds the user agent, the logger and the progress function.
func (c *Config) Fetches(name string) []fetch.Config {
	out := []fetch.Config{c.access(name, c.Index, c.AllowHosts, c.User, c.PasswordFile)}
	for i := range c.Pinned {
		p := &c.Pinned[i]
		out = append(out, c.access(name, p.Index, p.AllowHosts, p.User, p.PasswordFile))
	}
	return out
}

func (c *Config) access(name, address string, hosts []string, user, passwordFile string) fetch.Config {
	fc := fetch.Config{Name: name, AllowHTTP: c.AllowHTTP, CAFile: c.CAFile, User: user, PasswordFile: passwordFile}
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		fc.Hosts = append(fc.Hosts, u.Host)
		if user != "" {
			fc.CredentialHost = u.Host
		}
	}
	fc.Hosts = append(fc.Hosts, hosts...)
	return fc
}

// PerHost is how many connections to one host are wanted.
func (c *Config) PerHost() int {
	if c.MaxPerHost == 0 {
		return defaultPerHost
	}
	return c.MaxPerHost
}
