package pypi

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// Requirements are what somebody wants, to be resolved: a requirements file
// or a pyproject.toml.
type Requirements struct {
	Wants       []Want
	Constraints []Want // choose nothing; what is chosen has to meet them
	Notes       []string
	// Prereleases is --pre: pre-releases of every project count.
	// PrereleasesOf names those whose count by --all-releases, in normal form.
	Prereleases   bool
	PrereleasesOf []string
	// RequireHashes is --require-hashes.
	RequireHashes bool
	// Formats are --no-binary and --only-binary.
	Formats Formats
	// RequiresPython is what a pyproject.toml says of its targets.
	RequiresPython packaging.Specifiers

	where          string   // "requirements.in"
	extras, groups []string // that a pyproject.toml has
}

// A Want is one requirement with its place.
type Want struct {
	Requirement packaging.Requirement
	// Hashes, if any, name the only files that may serve.
	Hashes []artifact.Digest
	Where  string // "requirements.in:12"
	// Extra or Group is what has to be chosen for the want to count; both are
	// empty for what always counts.
	Extra, Group string
}

// ReadRequirements reads a file of requirements. A name that ends in .toml is
// a pyproject.toml, any other a requirements file as pip reads it.
func ReadRequirements(file string) (*Requirements, error) {
	if strings.HasSuffix(file, ".toml") {
		b, err := readFile(file)
		if err != nil {
			return nil, err
		}
		return parsePyproject(b, filepath.Base(file))
	}
	r, err := readReqFile(file)
	if err != nil {
		return nil, err
	}
	if r.RequireHashes && !r.Pinned() {
		if _, err := r.lock(); err != nil {
			return nil, err // it names the first that lacks its pin or its hash
		}
	}
	if len(r.Wants) == 0 {
		r.Notes = append(r.Notes, r.where+": requires nothing")
	}
	return r, nil
}

// ParseWant reads one requirement as a line of a requirements file holds it:
// "torch>=2.4", "requests[socks] ; sys_platform == 'linux'". where is its
// place, for messages.
func ParseWant(text, where string) (Want, error) {
	line := ""
	for _, l := range logicalLines(text) {
		if line != "" {
			return Want{}, lockRefusal("-SYNTAX", where, "more than one line", nil)
		}
		line = l
	}
	if strings.HasPrefix(line, "-") {
		return Want{}, lockRefusal("-OPTION", where, fmt.Sprintf("%q is an option; want one requirement", clip(redact(line))), nil)
	}
	if err := refuseVariable(line, where); err != nil {
		return Want{}, err
	}
	w, _, err := parseWant(line, where)
	return w, err
}

// Pinned reports whether every requirement names one version with == and its
// hashes. Then the file is a lock, which [ReadLock] reads: nothing is left to
// resolve.
func (r *Requirements) Pinned() bool {
	return len(r.Wants) > 0 && !slices.ContainsFunc(r.Wants, func(w Want) bool {
		_, exact := w.Requirement.Specifiers.Exact()
		return !exact || len(w.Hashes) == 0
	})
}

// add keeps a want or a constraint.
func (r *Requirements) add(w Want, constraint bool) error {
	if len(r.Wants)+len(r.Constraints) >= maxPins {
		return lockRefusal("-LIMIT", w.Where, fmt.Sprintf("over %d requirements", maxPins), nil)
	}
	if !constraint {
		r.Wants = append(r.Wants, w)
		return nil
	}
	if len(w.Requirement.Extras) > 0 {
		return lockRefusal("-SYNTAX", w.Where, w.Requirement.Name+": a constraint cannot have extras", nil)
	}
	r.Constraints = append(r.Constraints, w)
	return nil
}

// optionsRE finds where the options behind a requirement start.
var optionsRE = regexp.MustCompile(`(^|\s)-`)

// parseWant reads a logical line: a requirement and the hashes behind it.
// ignored are options behind it that steer a build.
func parseWant(line, where string) (w Want, ignored []string, err error) {
	text, hashes, ignored, err := splitHashes(line)
	if err != nil {
		return Want{}, nil, lockRefusal("-HASH", where, err.Error(), nil)
	}
	req, err := packaging.ParseRequirement(text)
	if err != nil {
		if strings.Contains(text, "://") { // the cause might quote an account
			err = nil
		}
		return Want{}, nil, lockRefusal("-SYNTAX", where, "not a requirement; paths and URLs cannot be carried", err)
	}
	if req.URL != "" {
		return Want{}, nil, lockRefusal("-URL", where, req.Name+" comes from a URL; only packages of the configured index can be carried", nil)
	}
	w = Want{Requirement: req, Where: where}
	for _, h := range hashes {
		alg, hexed, _ := strings.Cut(h, ":")
		switch alg {
		case "sha256":
			d, err := artifact.ParseHex(strings.ToLower(hexed))
			if err != nil {
				return Want{}, nil, lockRefusal("-HASH", where, req.Name, err)
			}
			w.Hashes = append(w.Hashes, d)
		case "sha384", "sha512": // pip takes them; sha256 is what names bytes here
		default:
			return Want{}, nil, lockRefusal("-HASH", where, fmt.Sprintf("%s: hash %q: want sha256:", req.Name, clip(h)), nil)
		}
	}
	if len(hashes) > 0 && len(w.Hashes) == 0 {
		return Want{}, nil, lockRefusal("-UNHASHED", where, req.Name+" has hashes, but no --hash=sha256:; compile the file with sha256 first", nil)
	}
	return w, ignored, nil
}

// splitHashes takes the options off the end of a requirement line.
func splitHashes(line string) (requirement string, hashes, ignored []string, err error) {
	at := optionsRE.FindStringIndex(line)
	if at == nil {
		return line, nil, nil, nil
	}
	requirement = line[:at[0]]
	words, err := splitWords(line[at[0]:])
	for err == nil && len(words) > 0 {
		var opt, value string
		opt, value, words, err = nextOption(words)
		switch {
		case err != nil:
		case opt == "--hash":
			hashes = append(hashes, value)
		case slices.Contains(buildOptions, opt):
			ignored = append(ignored, opt)
		default:
			err = fmt.Errorf("%s behind a requirement", opt)
		}
		if len(hashes)+len(ignored) > maxHashes {
			err = fmt.Errorf("over %d hashes", maxHashes)
		}
	}
	if err != nil {
		return "", nil, nil, err
	}
	return requirement, hashes, ignored, nil
}

// Formats says of which projects wheels alone may serve, and of which source
// archives alone: names in normal form, or ":all:".
type Formats struct {
	NoBinary, OnlyBinary []string
}

// maxOptionNames bounds the names of one such option; people write a handful.
const maxOptionNames = 1000

// allProjects stands for every project that is not named.
const allProjects = ":all:"

// Allowed tells which kinds of file may serve a project, as pip decides it: a
// name goes before ":all:".
func (f *Formats) Allowed(project string) (wheel, sdist bool) {
	switch {
	case slices.Contains(f.OnlyBinary, project):
		return true, false
	case slices.Contains(f.NoBinary, project):
		return false, true
	case slices.Contains(f.OnlyBinary, allProjects):
		return true, false
	case slices.Contains(f.NoBinary, allProjects):
		return false, true
	}
	return true, true
}

// chooseBy reads --no-binary, --only-binary and --all-releases. Of the first
// two the last that names a project counts.
func (r *Requirements) chooseBy(opt, value string) error {
	switch opt {
	case "--no-binary":
		return setNames(value, &r.Formats.NoBinary, &r.Formats.OnlyBinary)
	case "--only-binary":
		return setNames(value, &r.Formats.OnlyBinary, &r.Formats.NoBinary)
	default:
		var finals []string // --only-final is not kept
		err := setNames(value, &r.PrereleasesOf, &finals)
		if slices.Contains(r.PrereleasesOf, allProjects) {
			r.Prereleases, r.PrereleasesOf = true, nil
		}
		return err
	}
}

// setNames adds names to one list and takes them out of the other. ":all:"
// forgets what came before, ":none:" what the same option said.
func setNames(value string, to, other *[]string) error {
	names := strings.Split(value, ",")
	if i := slices.Index(names, allProjects); i >= 0 {
		for ; i >= 0; i = slices.Index(names, allProjects) {
			*to, *other, names = []string{allProjects}, nil, names[i+1:]
		}
		if !slices.Contains(names, ":none:") {
			return nil // all covers what follows
		}
	}
	for _, n := range names {
		if n == ":none:" {
			*to = nil
			continue
		}
		name, err := packaging.NormalizeName(n)
		if err != nil {
			return err
		}
		*other = slices.DeleteFunc(*other, func(s string) bool { return s == name })
		if !slices.Contains(*to, name) {
			*to = append(*to, name)
		}
		if len(*to) > maxOptionNames {
			return fmt.Errorf("over %d names", maxOptionNames)
		}
	}
	return nil
}
