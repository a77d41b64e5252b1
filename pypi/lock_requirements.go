package pypi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// maxIncludes bounds the files that one requirements file reads with -r
	// and -c.
	maxIncludes = 64
	// maxIncludeDepth bounds how deep they nest.
	maxIncludeDepth = 8
)

// reqReader reads a requirements file with what it includes, all within the
// folder of the first.
type reqReader struct {
	root  *os.Root
	lock  *Lock
	files int
	notes map[string]bool
}

func readRequirements(file string) (l *Lock, err error) {
	b, err := readFile(file)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	name := filepath.Base(file)
	r := &reqReader{root: root, lock: &Lock{where: name}, notes: make(map[string]bool)}
	if err := r.parse(b, name, false, []string{name}); err != nil {
		return nil, err
	}
	return r.lock, nil
}

// parseRequirements reads the text of a requirements file that includes
// nothing.
func parseRequirements(b []byte, name string) (*Lock, error) {
	r := &reqReader{lock: &Lock{where: name}, notes: make(map[string]bool)}
	if err := r.parse(b, name, false, []string{name}); err != nil {
		return nil, err
	}
	return r.lock, nil
}

// parse reads one file; stack is how it was reached.
func (r *reqReader) parse(b []byte, name string, constraints bool, stack []string) error {
	if !utf8.Valid(b) {
		return lockRefusal("-SYNTAX", name, "not UTF-8", nil)
	}
	for n, line := range logicalLines(strings.TrimPrefix(string(b), "\ufeff")) {
		where := fmt.Sprintf("%s:%d", name, n)
		var err error
		switch {
		case strings.HasPrefix(line, "-"):
			err = r.option(line, name, where, constraints, stack)
		case constraints:
			err = r.constraint(line, where)
		default:
			err = r.pin(line, where)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// logicalLines joins continuations and drops comments as pip does: a comment
// starts at "#" at the start of a line or after white space, and ends a
// continuation. It yields the number of the first line.
func logicalLines(s string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		var b strings.Builder
		first, n, joined := 0, 0, false
		flush := func() bool {
			line := strings.TrimSpace(b.String())
			b.Reset()
			return line == "" || yield(first, line)
		}
		for line := range strings.SplitSeq(s, "\n") {
			n++
			line = strings.TrimSuffix(line, "\r")
			if !joined {
				first = n
			}
			text := stripComment(line)
			rest, more := strings.CutSuffix(text, "\\")
			// A whole-line comment ends a continuation, a trailing one too.
			if joined = more && text == line; !joined {
				b.WriteString(text)
				if !flush() {
					return
				}
				continue
			}
			b.WriteString(rest)
		}
		flush()
	}
}

func stripComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}

func (r *reqReader) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !r.notes[text] {
		r.notes[text] = true
		r.lock.Notes = append(r.lock.Notes, text)
	}
}

// Options of a whole file: those that name places, which the configuration
// alone does, and those that only steer an installer.
var (
	placeOptions   = []string{"-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links", "--trusted-host"}
	steerOptions   = []string{"--no-binary", "--only-binary", "--use-feature"}
	steerFlags     = []string{"--no-index", "--pre", "--prefer-binary", "--require-hashes"}
	includeOptions = []string{"-r", "--requirement", "-c", "--constraint"}
)

func (r *reqReader) option(line, name, where string, constraints bool, stack []string) error {
	opt, value, err := splitOption(line)
	if err != nil {
		return lockRefusal("-OPTION", where, err.Error(), nil)
	}
	switch {
	case slices.Contains(includeOptions, opt):
		return r.include(value, name, where, constraints || opt == "-c" || opt == "--constraint", stack)
	case slices.Contains(placeOptions, opt):
		r.note("%s: %s is ignored: the index is the configured one", where, opt)
		return nil
	case slices.Contains(steerOptions, opt):
		r.note("%s: %s is ignored", where, opt)
		return nil
	case slices.Contains(steerFlags, opt) && value == "":
		return nil
	case opt == "-e" || opt == "--editable":
		return lockRefusal("-EDITABLE", where, "an editable requirement cannot be carried", nil)
	}
	return lockRefusal("-OPTION", where, fmt.Sprintf("unknown option %q", clip(opt)), nil)
}

// splitOption reads --name value, --name=value, -n value and -nvalue.
func splitOption(line string) (opt, value string, err error) {
	if strings.HasPrefix(line, "--") {
		end := strings.IndexAny(line, "= \t")
		if end < 0 {
			return line, "", nil
		}
		opt, value = line[:end], strings.TrimSpace(line[end+1:])
	} else {
		if len(line) < 2 {
			return "", "", errors.New("a lone dash")
		}
		opt, value = line[:2], strings.TrimSpace(strings.TrimPrefix(line[2:], "="))
	}
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		value = value[1 : n-1]
	}
	return opt, value, nil
}

// include reads another file of the same folder tree.
func (r *reqReader) include(value, name, where string, constraints bool, stack []string) (err error) {
	refuse := func(why string, err error) error { return lockRefusal("-INCLUDE", where, why, err) }
	rel := path.Join(path.Dir(name), filepath.ToSlash(value))
	switch {
	case value == "" || strings.Contains(value, "://") || strings.ContainsAny(value, " \t"):
		return refuse(fmt.Sprintf("%q: want the name of one file", clip(value)), nil)
	case path.IsAbs(value) || !filepath.IsLocal(rel) || artifact.CheckPath(rel) != nil:
		return refuse(fmt.Sprintf("%q is not in the folder of the lock file", clip(value)), nil)
	case slices.Contains(stack, rel):
		return refuse(fmt.Sprintf("%q includes itself", clip(rel)), nil)
	case len(stack) > maxIncludeDepth:
		return refuse(fmt.Sprintf("files nested deeper than %d", maxIncludeDepth), nil)
	}
	if r.files++; r.files > maxIncludes || r.root == nil {
		return refuse(fmt.Sprintf("more than %d included files", maxIncludes), nil)
	}
	f, err := r.root.Open(rel)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err // without the folder, which belongs to this host
		}
		return refuse(fmt.Sprintf("%q cannot be read", clip(rel)), err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := readBounded(f, rel)
	if err != nil {
		return err
	}
	return r.parse(b, rel, constraints, append(slices.Clone(stack), rel))
}

// constraint keeps a line of a -c file. It pins nothing by itself.
func (r *reqReader) constraint(line, where string) error {
	text, _, err := splitHashes(line)
	if err != nil {
		return lockRefusal("-HASH", where, err.Error(), nil)
	}
	req, err := packaging.ParseRequirement(text)
	if err != nil {
		return lockRefusal("-SYNTAX", where, "not a requirement", err)
	}
	if req.URL != "" {
		return lockRefusal("-URL", where, req.Name+": a URL cannot be a constraint here", nil)
	}
	if r.lock.constraints = append(r.lock.constraints, constraint{req, where}); len(r.lock.constraints) > maxPins {
		return lockRefusal("-LIMIT", where, fmt.Sprintf("over %d constraints", maxPins), nil)
	}
	return nil
}

func (r *reqReader) pin(line, where string) error {
	text, hashes, err := splitHashes(line)
	if err != nil {
		return lockRefusal("-HASH", where, err.Error(), nil)
	}
	req, err := packaging.ParseRequirement(text)
	if err != nil {
		return lockRefusal("-SYNTAX", where, "not a requirement; paths and URLs cannot be carried", err)
	}
	if req.URL != "" {
		return lockRefusal("-URL", where, req.Name+" comes from a URL; only packages of the configured index can be carried", nil)
	}
	version, ok := req.Specifiers.Exact()
	if !ok {
		return lockRefusal("-UNPINNED", where, req.Name+" is not pinned to one version with ==; compile the file with hashes first", nil)
	}
	p := Pin{Name: req.Name, Version: version, Marker: req.Marker, Where: where, Digests: make(map[artifact.Digest]bool)}
	for _, h := range hashes {
		alg, hexed, _ := strings.Cut(h, ":")
		switch alg {
		case "sha256":
			d, err := artifact.ParseHex(strings.ToLower(hexed))
			if err != nil {
				return lockRefusal("-HASH", where, req.Name, err)
			}
			p.Digests[d] = true
		case "sha384", "sha512": // pip takes them; sha256 is what names bytes here
		default:
			return lockRefusal("-HASH", where, fmt.Sprintf("%s: hash %q: want sha256:", req.Name, clip(h)), nil)
		}
	}
	if len(p.Digests) == 0 {
		return lockRefusal("-UNHASHED", where, fmt.Sprintf("%s %s has no --hash=sha256:; compile the file with hashes first", req.Name, version), nil)
	}
	if r.lock.Pins = append(r.lock.Pins, p); len(r.lock.Pins) > maxPins {
		return lockRefusal("-LIMIT", where, fmt.Sprintf("over %d pins", maxPins), nil)
	}
	return nil
}

// splitHashes takes the options off the end of a requirement line.
func splitHashes(line string) (requirement string, hashes []string, err error) {
	words := strings.Fields(line)
	i := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") })
	if i < 0 {
		return line, nil, nil
	}
	requirement = strings.Join(words[:i], " ")
	for words = words[i:]; len(words) > 0; words = words[1:] {
		value, ok := strings.CutPrefix(words[0], "--hash=")
		if words[0] == "--hash" && len(words) > 1 {
			value, ok, words = words[1], true, words[1:]
		}
		if !ok {
			return "", nil, fmt.Errorf("unknown option %q behind a requirement", clip(words[0]))
		}
		if hashes = append(hashes, value); len(hashes) > maxHashes {
			return "", nil, fmt.Errorf("over %d hashes", maxHashes)
		}
	}
	return requirement, hashes, nil
}
