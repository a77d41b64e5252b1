package pypi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/mirror/artifact"
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
	reqs  *Requirements
	files int
	notes map[string]bool
}

// readReqFile reads a requirements file as pip reads it.
func readReqFile(file string) (_ *Requirements, err error) {
	b, err := readFile(file)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return parseReqFile(b, filepath.Base(file), root)
}

// parseReqFile reads the text of a requirements file; without a root it may
// include nothing.
func parseReqFile(b []byte, name string, root *os.Root) (*Requirements, error) {
	r := &reqReader{root: root, reqs: &Requirements{where: name}, notes: make(map[string]bool)}
	if err := r.parse(b, name, false, []string{name}); err != nil {
		return nil, err
	}
	return r.reqs, nil
}

// variableRE is how pip writes an environment variable.
var variableRE = regexp.MustCompile(`\$\{[A-Z0-9_]+\}`)

// parse reads one file; stack is how it was reached.
func (r *reqReader) parse(b []byte, name string, constraints bool, stack []string) error {
	text, err := decodeText(b)
	if err != nil {
		return lockRefusal("-SYNTAX", name, err.Error(), nil)
	}
	for n, line := range logicalLines(text) {
		where := fmt.Sprintf("%s:%d", name, n)
		if strings.HasPrefix(line, "-") {
			if err := r.options(line, name, where, stack); err != nil {
				return err
			}
			continue
		}
		if err := refuseVariable(line, where); err != nil {
			return err
		}
		w, ignored, err := parseWant(line, where)
		if err != nil {
			return err
		}
		for _, opt := range ignored {
			r.note("%s: %s is ignored: nothing is built here", where, opt)
		}
		if err := r.reqs.add(w, constraints); err != nil {
			return err
		}
	}
	return nil
}

// refuseVariable refuses ${NAME}. pip would put in what this host's
// environment holds, so that the same file meant something else elsewhere.
func refuseVariable(s, where string) error {
	if v := variableRE.FindString(s); v != "" {
		return lockRefusal("-VARIABLE", where, fmt.Sprintf("%s: variables are not read, because the file would mean something else on each host; write the value", clip(v)), nil)
	}
	return nil
}

// codingRE is how a file names its encoding, on one of its first two lines.
var codingRE = regexp.MustCompile(`coding[:=]\s*([-\w.]+)`)

// decodeText makes a string of a file as pip does: a byte order mark decides,
// then a coding line, else it is UTF-8. pip's last resort, the locale of the
// host, is left out.
func decodeText(b []byte) (string, error) {
	switch s := string(b); {
	case strings.HasPrefix(s, "\xef\xbb\xbf"):
		b = b[3:]
	case strings.HasPrefix(s, "\xff\xfe\x00\x00"):
		return decode32(b[4:], binary.LittleEndian)
	case strings.HasPrefix(s, "\x00\x00\xfe\xff"):
		return decode32(b[4:], binary.BigEndian)
	case strings.HasPrefix(s, "\xff\xfe"):
		return decode16(b[2:], binary.LittleEndian)
	case strings.HasPrefix(s, "\xfe\xff"):
		return decode16(b[2:], binary.BigEndian)
	default:
		switch coding := strings.ToLower(strings.ReplaceAll(codingOf(s), "_", "-")); coding {
		case "", "utf-8", "utf8", "ascii", "us-ascii":
		case "latin-1", "latin1", "iso-8859-1":
			out := make([]rune, len(b))
			for i, c := range b {
				out[i] = rune(c)
			}
			return string(out), nil
		default:
			return "", fmt.Errorf("coding %q is not known; save the file as UTF-8", clip(coding))
		}
	}
	if !utf8.Valid(b) {
		return "", errors.New("not UTF-8")
	}
	return string(b), nil
}

func codingOf(s string) string {
	for range 2 {
		line, rest, _ := strings.Cut(s, "\n")
		if m := codingRE.FindStringSubmatch(line); m != nil && strings.HasPrefix(line, "#") {
			return m[1]
		}
		s = rest
	}
	return ""
}

func decode16(b []byte, order binary.ByteOrder) (string, error) {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	s := string(utf16.Decode(units))
	if len(b) != 0 || strings.ContainsRune(s, utf8.RuneError) {
		return "", errors.New("malformed UTF-16")
	}
	return s, nil
}

func decode32(b []byte, order binary.ByteOrder) (string, error) {
	runes := make([]rune, 0, len(b)/4)
	for ; len(b) >= 4; b = b[4:] {
		c := order.Uint32(b)
		if c > unicode.MaxRune || !utf8.ValidRune(rune(c)) {
			return "", errors.New("malformed UTF-32")
		}
		runes = append(runes, rune(c))
	}
	if len(b) != 0 {
		return "", errors.New("malformed UTF-32")
	}
	return string(runes), nil
}

// logicalLines joins continuations and drops comments as pip does: first a
// line that ends in a backslash is joined with the next, unless it is nothing
// but a comment, then what follows a "#" goes, if that starts the line or
// follows white space. It yields the number of the first line.
func logicalLines(s string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		var b strings.Builder
		n, first, joined := 0, 0, false
		flush := func() bool {
			line := stripComment(b.String())
			b.Reset()
			joined = false
			return line == "" || yield(first, line)
		}
		for _, line := range pythonLines(s) {
			n++
			if !joined {
				first = n
			}
			comment := strings.HasPrefix(strings.TrimLeftFunc(line, unicode.IsSpace), "#")
			if strings.HasSuffix(line, `\`) && !comment {
				b.WriteString(strings.Trim(line, `\`))
				joined = true
				continue
			}
			if comment {
				b.WriteByte(' ') // so that it is one behind a continuation too
			}
			b.WriteString(line)
			if !flush() {
				return
			}
		}
		if joined {
			flush()
		}
	}
}

// pythonLines splits where Python's splitlines does, and yields where each
// line starts. A reader that knew "\n" alone would take for a comment what pip
// takes for a requirement.
func pythonLines(s string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for at := 0; at < len(s); {
			rest := s[at:]
			i := strings.IndexAny(rest, "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029")
			if i < 0 {
				yield(at, rest)
				return
			}
			if !yield(at, rest[:i]) {
				return
			}
			_, size := utf8.DecodeRuneInString(rest[i:])
			if strings.HasPrefix(rest[i:], "\r\n") {
				size = 2
			}
			at += i + size
		}
	}
}

// stripComment drops a comment and the white space around the rest.
func stripComment(line string) string {
	for i, c := range line {
		if c != '#' {
			continue
		}
		before, _ := utf8.DecodeLastRuneInString(line[:i])
		if i == 0 || unicode.IsSpace(before) {
			line = line[:i]
			break
		}
	}
	return strings.TrimSpace(line)
}

func (r *reqReader) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !r.notes[text] {
		r.notes[text] = true
		r.reqs.Notes = append(r.reqs.Notes, text)
	}
}

// Options of a whole file: those that name places, which the configuration
// alone does, those that only steer an installer, and those that count.
var (
	placeOptions   = []string{"-i", "--index-url", "--pypi-url", "--extra-index-url", "-f", "--find-links", "--trusted-host"}
	chooseOptions  = []string{"--no-binary", "--only-binary", "--all-releases"}
	steerOptions   = []string{"--use-feature", "--only-final", "--hash"}
	buildOptions   = []string{"-C", "--config-setting", "--config-settings"}
	includeOptions = []string{"-r", "--requirement", "-c", "--constraint"}
	editOptions    = []string{"-e", "--editable"}
	flags          = []string{"--no-index", "--pre", "--prefer-binary", "--require-hashes", "--no-require-hashes"}
	valueOptions   = slices.Concat(placeOptions, chooseOptions, steerOptions, buildOptions, includeOptions, editOptions)
)

// options reads a line of options; there may be several on one.
func (r *reqReader) options(line, name, where string, stack []string) error {
	words, err := splitWords(line)
	if err != nil {
		return lockRefusal("-OPTION", where, err.Error(), nil)
	}
	for len(words) > 0 {
		var opt, value string
		if opt, value, words, err = nextOption(words); err != nil {
			return lockRefusal("-OPTION", where, err.Error(), nil)
		}
		if slices.Contains(includeOptions, opt) {
			if err := refuseVariable(value, where); err != nil {
				return err
			}
			err = r.include(value, name, where, opt == "-c" || opt == "--constraint", stack)
		} else {
			err = r.option(opt, value, where)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// nextOption takes --name, --name value, --name=value, -n value or -nvalue
// off the front.
func nextOption(words []string) (opt, value string, rest []string, err error) {
	w, rest := words[0], words[1:]
	attached := false
	switch {
	case strings.HasPrefix(w, "--"):
		opt, value, attached = strings.Cut(w, "=")
	case strings.HasPrefix(w, "-") && len(w) > 1:
		opt, value, attached = w[:2], w[2:], len(w) > 2
	default:
		return "", "", nil, fmt.Errorf("unexpected %q", clip(w))
	}
	switch {
	case slices.Contains(flags, opt):
		if attached {
			return "", "", nil, fmt.Errorf("%s takes no value", opt)
		}
	case !slices.Contains(valueOptions, opt):
		return "", "", nil, fmt.Errorf("unknown option %q", clip(opt))
	case !attached:
		if len(rest) == 0 {
			return "", "", nil, fmt.Errorf("%s wants a value", opt)
		}
		value, rest = rest[0], rest[1:]
	}
	return opt, value, rest, nil
}

func (r *reqReader) option(opt, value, where string) error {
	switch {
	case slices.Contains(placeOptions, opt):
		r.note("%s: %s is ignored: the index is the configured one", where, opt)
	case slices.Contains(steerOptions, opt), slices.Contains(buildOptions, opt):
		r.note("%s: %s is ignored", where, opt)
	case slices.Contains(chooseOptions, opt):
		if err := r.reqs.chooseBy(opt, value); err != nil {
			return lockRefusal("-OPTION", where, opt, err)
		}
	case opt == "--pre":
		r.reqs.Prereleases = true
	case opt == "--require-hashes", opt == "--no-require-hashes":
		r.reqs.RequireHashes = opt == "--require-hashes"
	case slices.Contains(editOptions, opt):
		return lockRefusal("-EDITABLE", where, "an editable requirement cannot be carried", nil)
	}
	return nil
}

// splitWords splits as a shell does: white space separates, quotes and
// backslashes protect.
func splitWords(s string) (words []string, err error) {
	var b strings.Builder
	var quote rune
	inside, escaped := false, false
	for _, c := range s {
		switch {
		case escaped:
			b.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			inside, escaped = true, true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				b.WriteRune(c)
			}
		case c == '\'' || c == '"':
			inside, quote = true, c
		case unicode.IsSpace(c):
			if inside {
				words = append(words, b.String())
				b.Reset()
			}
			inside = false
		default:
			inside = true
			b.WriteRune(c)
		}
	}
	if quote != 0 || escaped {
		return nil, errors.New("a quotation that does not end")
	}
	if inside {
		words = append(words, b.String())
	}
	return words, nil
}

// include reads another file of the same folder tree.
func (r *reqReader) include(value, name, where string, constraints bool, stack []string) (err error) {
	refuse := func(why string, err error) error { return lockRefusal("-INCLUDE", where, why, err) }
	rel := path.Join(path.Dir(name), filepath.ToSlash(value))
	switch {
	case value == "" || strings.Contains(value, "://"):
		return refuse(fmt.Sprintf("%q: want the name of one file", clip(redact(value))), nil)
	case path.IsAbs(value) || !filepath.IsLocal(rel) || artifact.CheckPath(rel) != nil:
		return refuse(fmt.Sprintf("%q is not in the folder of the first file", clip(value)), nil)
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

// redact takes the account out of a URL.
func redact(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return s
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		return scheme + "://" + rest[at+1:]
	}
	return s
}
