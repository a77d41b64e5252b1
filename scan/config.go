package scan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// dateForm is how a waiver's last day is written.
const dateForm = time.DateOnly

// Actions: what becomes of an artifact with a finding.
const (
	ActionHold  = "hold"  // it stays outside; exit 4
	ActionWarn  = "warn"  // it passes, and the report says so
	ActionAllow = "allow" // it passes, and the finding is kept as evidence
)

// Config is the policy as a person writes it. What it leaves out has the
// default that is written beside it.
type Config struct {
	Malware         Malware         `yaml:"malware" doc:"the antivirus engine"`
	Vulnerabilities Vulnerabilities `yaml:"vulnerabilities" doc:"known vulnerabilities of packages"`
	Secrets         Secrets         `yaml:"secrets" doc:"keys, tokens and passwords in files"`
	Licences        Licences        `yaml:"licences" doc:"licences that are refused"`
	Models          Models          `yaml:"models" doc:"model files that can run code"`
	Packages        Packages        `yaml:"packages" doc:"malicious packages, and packages that deserve a look"`
	Archives        Archives        `yaml:"archives" doc:"how far archives are unpacked, and what becomes of malformed ones"`
	Types           Types           `yaml:"types" doc:"types of files, told by their content"`
	Unscanned       string          `yaml:"unscanned" default:"hold" enum:"hold|warn" doc:"what a scanner could not look at: encrypted, too large, too deep"`
	Block           []Block         `yaml:"block" doc:"artifacts that are always held back"`
	Waivers         []Waiver        `yaml:"waivers" doc:"findings that may pass, for a time"`
}

// InsideConfig is the policy of the inside, which judges again.
type InsideConfig struct {
	Rescan string `yaml:"rescan" default:"newer" enum:"always|newer|never" doc:"when import scans again: always, when a database here is newer than the one outside had, or never"`
	Config `yaml:",inline"`
}

// Malware is the antivirus engine; without socket and program there is none.
type Malware struct {
	Clamd    string        `yaml:"clamd" doc:"path of clamd's Unix socket"`
	Clamscan string        `yaml:"clamscan" doc:"path of the clamscan program, for a host without clamd; far slower"`
	Database string        `yaml:"database" doc:"folder of the signature files: recorded, dated, and given to clamscan"`
	MaxAge   time.Duration `yaml:"max_age" default:"168h" doc:"signatures older than that stop the run; 0s for no limit"`
}

// On reports whether there is an engine.
func (m Malware) On() bool { return m.Clamd != "" || m.Clamscan != "" }

// Vulnerabilities is the detector; without a database there is none.
type Vulnerabilities struct {
	Database string        `yaml:"database" doc:"folder with trivy.db and metadata.json"`
	Digest   string        `yaml:"digest" doc:"the SHA-256 that trivy.db must have, as sha256:...; for a database that was approved"`
	MaxAge   time.Duration `yaml:"max_age" default:"72h" doc:"a database older than that stops the run; 0s for no limit"`
	Hold     []string      `yaml:"hold" doc:"severities that hold an artifact back: critical, high, medium, low, unknown (default: critical, high, unknown)"`
	Unfixed  string        `yaml:"unfixed" default:"hold" enum:"hold|warn" doc:"what has no fixed version yet"`
	VEX      []string      `yaml:"vex" doc:"OpenVEX documents whose statements answer findings"`
}

// Secrets is the secret scanner.
type Secrets struct {
	Scan bool     `yaml:"scan" doc:"look for secrets in text"`
	Hold []string `yaml:"hold" doc:"severities that hold an artifact back (default: critical, high)"`
}

// Licences are refused by their SPDX identifier.
type Licences struct {
	Refuse []string `yaml:"refuse" doc:"SPDX identifiers, a * at the end for any ending: [AGPL-3.0*]"`
	Action string   `yaml:"action" default:"hold" enum:"hold|warn" doc:"what becomes of an artifact with such a licence"`
}

// Models says what of model files may pass.
type Models struct {
	Pickle string   `yaml:"pickle" default:"scan" enum:"scan|refuse" doc:"pickles: pass if all that they call is on the allowlist, or never"`
	Code   string   `yaml:"code" default:"hold" enum:"hold|warn" doc:"Python code that a model's configuration loads (auto_map)"`
	Hold   []string `yaml:"hold" doc:"severities that hold an artifact back (default: critical, high)"`
}

// Packages are rules about packages themselves.
type Packages struct {
	Malicious []string      `yaml:"malicious" doc:"folders or zip files of OSV records of malicious packages"`
	MaxAge    time.Duration `yaml:"max_age" default:"720h" doc:"a list older than that stops the run; 0s for no limit"`
	MinAge    time.Duration `yaml:"min_age" doc:"a version that upstream has had for less time is reported"`
	Hold      []string      `yaml:"hold" doc:"severities that hold an artifact back (default: critical, high)"`
}

// Archives bounds the walker.
type Archives struct {
	Depth    int      `yaml:"depth" default:"8" doc:"archives within archives"`
	Entries  int      `yaml:"entries" default:"200000" doc:"files in one blob, those of nested archives included"`
	Unpacked int64    `yaml:"unpacked_gib" default:"20" doc:"GiB that one blob may unpack to"`
	Ratio    int      `yaml:"ratio" default:"200" doc:"how many times its size a blob may unpack to"`
	Hold     []string `yaml:"hold" doc:"severities of malformed archives that hold an artifact back (default: critical, high)"`
}

// Types are told by content.
type Types struct {
	Unknown string   `yaml:"unknown" default:"hold" enum:"hold|warn|allow" doc:"a package or layer whose type nothing tells; model repositories and files have all kinds"`
	Refuse  []string `yaml:"refuse" doc:"types that never pass, wherever they lie: pe, mach-o, class, ..."`
}

// A Block holds an artifact back whatever the scanners say.
type Block struct {
	Artifact string `yaml:"artifact" doc:"source and name, or source, name and version: pypi/main examplelib 2.3.1"`
	Reason   string `yaml:"reason" doc:"why; shown in reports and carried in the bundle"`
}

// A Waiver lets one finding of one artifact pass until it expires.
type Waiver struct {
	Artifact string `yaml:"artifact" doc:"source and name, or source, name and version: pypi/main examplelib 2.3.1"`
	Finding  string `yaml:"finding" doc:"the finding's identifier as the report shows it"`
	Owner    string `yaml:"owner" doc:"who answers for it"`
	Reason   string `yaml:"reason" doc:"why it is acceptable"`
	Expires  string `yaml:"expires" doc:"the last day on which it holds, in UTC: 2026-12-31"`
}

// Files are the paths of the configuration, to be made absolute.
func (c *Config) Files() []*string {
	list := []*string{&c.Malware.Clamd, &c.Malware.Clamscan, &c.Malware.Database, &c.Vulnerabilities.Database}
	for i := range c.Vulnerabilities.VEX {
		list = append(list, &c.Vulnerabilities.VEX[i])
	}
	for i := range c.Packages.Malicious {
		list = append(list, &c.Packages.Malicious[i])
	}
	return list
}

// severities are the words that a policy may use.
var severities = []string{Critical, High, Medium, Low, Unknown}

// Validate joins every problem, each starting with the field it concerns.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	need := func(field, value string) {
		if strings.TrimSpace(value) == "" {
			bad(field, "missing")
		}
	}
	ref := func(field, value string) {
		if _, err := parseRef(value); err != nil {
			bad(field, "%v", err)
		}
	}
	for i, b := range c.Block {
		at := fmt.Sprintf("block[%d].", i)
		ref(at+"artifact", b.Artifact)
		need(at+"reason", b.Reason)
	}
	for i, w := range c.Waivers {
		at := fmt.Sprintf("waivers[%d].", i)
		ref(at+"artifact", w.Artifact)
		need(at+"finding", w.Finding)
		need(at+"owner", w.Owner)
		need(at+"reason", w.Reason)
		if _, err := time.Parse(dateForm, w.Expires); err != nil {
			bad(at+"expires", "%q is not a date like 2026-12-31", w.Expires)
		}
	}
	for _, h := range []struct {
		field string
		list  []string
	}{
		{"vulnerabilities.hold", c.Vulnerabilities.Hold},
		{"secrets.hold", c.Secrets.Hold},
		{"models.hold", c.Models.Hold},
		{"packages.hold", c.Packages.Hold},
		{"archives.hold", c.Archives.Hold},
	} {
		for i, s := range h.list {
			if !slices.Contains(severities, s) {
				bad(fmt.Sprintf("%s[%d]", h.field, i), "%q, want one of %s", s, strings.Join(severities, ", "))
			}
		}
	}
	m := c.Malware
	if m.Clamd != "" && m.Clamscan != "" {
		bad("malware.clamscan", "clamd is set too; want one of the two")
	}
	if m.Clamscan != "" && m.Database == "" {
		bad("malware.database", "missing: clamscan needs a folder of signatures")
	}
	if m.Database != "" && !m.On() {
		bad("malware.database", "neither clamd nor clamscan is set, so nothing would read it")
	}
	v := c.Vulnerabilities
	if v.Database == "" && (v.Digest != "" || len(v.VEX) > 0 || len(v.Hold) > 0) {
		bad("vulnerabilities.database", "missing: nothing is looked for without it")
	}
	for _, d := range []struct {
		field string
		n     int64
	}{
		{"archives.depth", int64(c.Archives.Depth)},
		{"archives.entries", int64(c.Archives.Entries)},
		{"archives.unpacked_gib", c.Archives.Unpacked},
		{"archives.ratio", int64(c.Archives.Ratio)},
		{"malware.max_age", int64(m.MaxAge)},
		{"vulnerabilities.max_age", int64(v.MaxAge)},
		{"packages.max_age", int64(c.Packages.MaxAge)},
		{"packages.min_age", int64(c.Packages.MinAge)},
	} {
		if d.n < 0 {
			bad(d.field, "must not be negative")
		}
	}
	return errors.Join(errs...)
}
