// Package packages judges packages as packages: those that are known to be
// malicious, and those that deserve a look because of what they do when they
// are installed, what they are called, or how young they are. It is a
// [scan.Inspector], a [scan.Judge] and a [scan.Starter].
//
// It follows the OSV schema 1.x for lists of malicious packages, PEP 427 for
// wheels, Python's site module for .pth files, the entry points specification,
// and deb-control(5) and deb-preinst(5) for .deb files.
//
// Invariants:
//   - It fails closed: a list that cannot be read to its end, has nothing in
//     it or is too old ends the run ([scan.ErrEngine]).
//   - A version or a digest on a list of malicious packages is
//     [scan.KindMalware], whatever else is known of it.
//   - Nothing is executed or evaluated; Python and shell are read word by
//     word.
//
// The rules about files are a help for a person, not a proof: what is found
// is a line to read. What stands beside each rule says how grave it is.
//
// Limits: [maxText] bytes of a script are read, a longer one is a finding;
// a list has at most [maxRecords] records of at most [maxRecord] bytes.
package packages

import (
	"context"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

const (
	name = "packages"
	// rules is raised with every change of a rule.
	rules = "1"
	// maxText bounds a script that is read. Real ones have a few kilobytes.
	maxText = 4 << 20
)

// Codes of findings. They are stable.
const (
	CodePTH           = "PKG-PTH"           // a .pth file with a line that Python runs at its start
	CodeSite          = "PKG-SITECUSTOMIZE" // a module that Python runs at its start
	CodeSetup         = "PKG-SETUP"         // a setup.py that does more than to set up
	CodeShadow        = "PKG-SHADOW"        // a command that is called like a well-known one
	CodeBinary        = "PKG-BINARY"        // a program in a wheel that says it has none
	CodeScript        = "PKG-SCRIPT"        // a maintainer script, for the record
	CodeScriptRisk    = "PKG-SCRIPT-RISK"   // one that fetches, or hands out rights
	CodeSetuid        = "PKG-SETUID"        // a file that runs with other rights, or a device
	CodeTyposquat     = "PKG-TYPOSQUAT"     // a name like one that is in use
	CodeYoung         = "PKG-YOUNG"         // younger than the policy wants
	CodeNoAge         = "PKG-NO-AGE"        // of an age that nobody tells
	CodeNotScanned    = "PKG-NOT-SCANNED"   // a script that is too long
	codeMaliciousSum  = "MAL-DIGEST"        // a digest on a list whose record has no identifier
	maxFindingsOfFile = 10
)

// Config says what is compared with.
type Config struct {
	Malicious []string      // folders or .zip files of OSV records
	MaxAge    time.Duration // of the newest record; zero: not asked
	MinAge    time.Duration // of a version; zero: not asked
	// Uploaded tells when upstream got an artifact; nil: nobody tells.
	Uploaded func(source string, a artifact.Artifact) (time.Time, bool)
	// Known are the names in use, to which a new one must not be too like.
	Known []string
}

// A Scanner applies the rules. Its methods may be called from several
// goroutines at once.
type Scanner struct {
	config Config
	known  *neighbours

	mu   sync.Mutex
	list *list
	now  time.Time
}

// New makes a scanner; lists are read by Start.
func New(c Config) (*Scanner, error) {
	if c.MaxAge < 0 || c.MinAge < 0 {
		return nil, fmt.Errorf("packages: an age is negative")
	}
	return &Scanner{config: c, known: newNeighbours(c.Known), list: &list{}}, nil
}

// Start reads the lists.
func (s *Scanner) Start(ctx context.Context, now time.Time) error {
	l, err := readLists(ctx, s.config.Malicious)
	if err != nil {
		return fmt.Errorf("%w: %w", scan.ErrEngine, err)
	}
	if len(s.config.Malicious) > 0 && s.config.MaxAge > 0 {
		if age := now.Sub(l.newest); age > s.config.MaxAge {
			return fmt.Errorf("%w: the newest record of %s is of %s; at most %s are allowed", scan.ErrEngine,
				strings.Join(s.config.Malicious, ", "), l.newest.UTC().Format(time.DateOnly), s.config.MaxAge)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.now = l, now
	return nil
}

// Engine is whole after Start.
func (s *Scanner) Engine() scan.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return scan.Engine{Name: name, Version: rules, Database: s.list.digest, Dated: s.list.newest}
}

// ByContent is false: names matter.
func (s *Scanner) ByContent() bool { return false }

// Judge looks at an artifact as a whole.
func (s *Scanner) Judge(_ context.Context, sub scan.Subject, _ *scan.Inventory) ([]scan.Finding, error) {
	s.mu.Lock()
	l, now := s.list, s.now
	s.mu.Unlock()
	found := l.match(sub)
	eco, _, _ := strings.Cut(sub.Source, "/")
	if eco == "pypi" {
		found = append(found, s.typosquat(sub.Artifact.Name)...)
	}
	return append(found, s.age(sub, now)...), nil
}

func (s *Scanner) age(sub scan.Subject, now time.Time) []scan.Finding {
	if s.config.MinAge == 0 || !strings.HasPrefix(sub.Source, "pypi/") {
		return nil
	}
	if s.config.Uploaded != nil {
		if at, ok := s.config.Uploaded(sub.Source, sub.Artifact); ok {
			if age := now.Sub(at); age < s.config.MinAge {
				return one(CodeYoung, scan.High, fmt.Sprintf("upstream has it since %s; the policy wants %s", at.UTC().Format(time.RFC3339), s.config.MinAge))
			}
			return nil
		}
	}
	return one(CodeNoAge, scan.Low, "upstream does not tell since when it has it")
}

func (s *Scanner) typosquat(n string) []scan.Finding {
	if like := s.known.like(n); like != "" {
		return one(CodeTyposquat, scan.Medium, fmt.Sprintf("is called almost like %s, which is in use here: make sure that it is what was meant", like))
	}
	return nil
}

func one(code, severity, text string) []scan.Finding {
	return []scan.Finding{{Kind: scan.KindPackage, ID: code, Severity: severity, Text: text}}
}

// Inspect looks at one file in its place.
func (s *Scanner) Inspect(ctx context.Context, f *walk.File) ([]scan.Finding, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := whereIs(f)
	if !f.Regular() {
		return special(f), nil
	}
	found := setuid(f)
	rule := w.rule()
	if rule == nil {
		return append(found, binary(f, w)...), nil
	}
	if f.Size > maxText {
		return append(found, scan.Finding{Kind: scan.KindNotScanned, ID: CodeNotScanned, Severity: scan.High, Text: fmt.Sprintf("has %d bytes; a script of at most %d is read", f.Size, maxText)}), nil
	}
	b, err := f.Bytes(maxText)
	if err != nil {
		return nil, err
	}
	found = append(found, rule(string(b), w)...)
	return found[:min(len(found), maxFindingsOfFile)], nil
}

// A place is where a file lies, as far as the rules want to know.
type place struct {
	blob  string   // name of the outermost file
	inner []string // the path below it, without the names of compressed content
	file  string   // the last name, whole: "lib/x.pth"
	base  string   // its last part, in lower case
}

func whereIs(f *walk.File) place {
	p := place{blob: f.Path[0]}
	for _, s := range f.Path[1:] {
		if s != "" {
			p.inner = append(p.inner, strings.TrimPrefix(s, "./"))
		}
	}
	if len(p.inner) > 0 {
		p.file = p.inner[len(p.inner)-1]
	}
	p.base = strings.ToLower(path.Base(p.file))
	return p
}

// wheel reports whether the file lies right in a wheel, be it the blob or in
// an image.
func (p place) wheel() bool { return strings.HasSuffix(p.container(), ".whl") }

// sdist reports whether the file lies right in a source distribution.
func (p place) sdist() bool {
	c := p.container()
	return strings.HasSuffix(c, ".tar.gz") || strings.HasSuffix(c, ".zip") || strings.HasSuffix(c, ".tar.bz2")
}

// container is the name of the archive that the file lies in.
func (p place) container() string {
	switch len(p.inner) {
	case 0:
		return ""
	case 1:
		return p.blob
	}
	return p.inner[len(p.inner)-2]
}

// rule picks the rule for a file; nil where its name calls for none.
func (p place) rule() func(string, place) []scan.Finding {
	depth := strings.Count(p.file, "/")
	switch {
	case p.file == "":
		return nil
	case strings.HasSuffix(p.base, ".pth"):
		return pth
	case (p.base == "sitecustomize.py" || p.base == "usercustomize.py") && p.wheel() && topLevel(p.file):
		return site
	case p.base == "setup.py" && p.sdist() && depth <= 1:
		return setup
	case p.base == "entry_points.txt" && strings.HasSuffix(path.Dir(p.file), ".dist-info"):
		return shadow
	case isMaintainerScript(p):
		return script
	}
	return nil
}

// topLevel: in a wheel's root, or in what is installed into it.
func topLevel(file string) bool {
	dir := path.Dir(file)
	return dir == "." || strings.HasSuffix(dir, ".data/purelib") || strings.HasSuffix(dir, ".data/platlib")
}

var (
	_ scan.Inspector = (*Scanner)(nil)
	_ scan.Judge     = (*Scanner)(nil)
	_ scan.Starter   = (*Scanner)(nil)
)
