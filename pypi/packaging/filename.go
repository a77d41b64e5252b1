package packaging

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

const (
	// maxTagParts bounds one compressed tag set of a filename; real ones have
	// up to ten platforms.
	maxTagParts = 64
	// maxTagProduct bounds the tags that one filename stands for.
	maxTagProduct = 4096
)

// A WheelName is a parsed wheel filename (PEP 427 and 491).
type WheelName struct {
	Filename  string
	Project   string // normal form
	Version   Version
	Build     Build
	Pythons   []string
	ABIs      []string
	Platforms []string
}

// A Build is a wheel's build tag: a number and a rest, compared in that
// order. The zero Build is that of a wheel without one, and the least.
type Build struct {
	number string
	rest   string
}

// Compare orders build tags as PEP 427 does.
func (b Build) Compare(c Build) int {
	return cmp.Or(compareNumbers(b.number, c.number), strings.Compare(b.rest, c.rest))
}

var (
	buildRE = regexp.MustCompile(`^([0-9]+)([A-Za-z0-9_.]*)$`)
	tagRE   = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	// escapedRE is a project name as PEP 427 writes it into filenames.
	escapedRE = regexp.MustCompile(`^[A-Za-z0-9._]+$`)
)

// ParseWheelName reads NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl. Any
// other shape (a wheel variant, say) is refused.
func ParseWheelName(filename string) (WheelName, error) {
	bad := func(why string) (WheelName, error) {
		return WheelName{}, fmt.Errorf("wheel filename %q: %s", clip(filename), why)
	}
	if err := checkDistName(filename); err != nil {
		return WheelName{}, err
	}
	stem, ok := strings.CutSuffix(filename, ".whl")
	if !ok {
		return bad("does not end in .whl")
	}
	parts := strings.Split(stem, "-")
	if len(parts) != 5 && len(parts) != 6 {
		return bad(fmt.Sprintf("%d parts between dashes, want 5 or 6", len(parts)))
	}
	w := WheelName{Filename: filename}
	if !escapedRE.MatchString(parts[0]) || strings.Contains(parts[0], "__") {
		return bad("the project name is not escaped as PEP 427 wants")
	}
	var err error
	if w.Project, err = NormalizeName(parts[0]); err != nil {
		return WheelName{}, err
	}
	if w.Version, err = ParseVersion(parts[1]); err != nil {
		return WheelName{}, err
	}
	if len(parts) == 6 {
		m := buildRE.FindStringSubmatch(parts[2])
		if m == nil {
			return bad("the build tag does not start with a digit")
		}
		w.Build = Build{number: number(m[1]), rest: m[2]}
	}
	tags := parts[len(parts)-3:]
	product := 1
	for i, set := range []*[]string{&w.Pythons, &w.ABIs, &w.Platforms} {
		*set = strings.Split(strings.ToLower(tags[i]), ".")
		product *= len(*set)
		if len(*set) > maxTagParts || product > maxTagProduct {
			return bad("too many tags")
		}
		for _, t := range *set {
			if !tagRE.MatchString(t) || i == 0 && t[0] >= '0' && t[0] <= '9' {
				return bad("malformed tag")
			}
		}
	}
	return w, nil
}

// A SdistName is a parsed source archive filename (PEP 625, and the .zip
// that came before it).
type SdistName struct {
	Filename string
	Project  string
	Version  Version
}

// ParseSdistName reads NAME-VERSION.tar.gz or NAME-VERSION.zip.
func ParseSdistName(filename string) (SdistName, error) {
	if err := checkDistName(filename); err != nil {
		return SdistName{}, err
	}
	stem, ok := strings.CutSuffix(filename, ".tar.gz")
	if !ok {
		stem, ok = strings.CutSuffix(filename, ".zip")
	}
	i := strings.LastIndexByte(stem, '-')
	if !ok || i < 0 {
		return SdistName{}, fmt.Errorf("sdist filename %q: want NAME-VERSION.tar.gz or .zip", clip(filename))
	}
	s := SdistName{Filename: filename}
	var err error
	if s.Project, err = NormalizeName(stem[:i]); err != nil {
		return SdistName{}, err
	}
	if s.Version, err = ParseVersion(stem[i+1:]); err != nil {
		return SdistName{}, err
	}
	return s, nil
}

// checkDistName holds what wheels and sdists have in common.
func checkDistName(filename string) error {
	if err := CheckFilename(filename); err != nil {
		return err
	}
	if deviceName(filename) {
		return fmt.Errorf("%w %q: a device name of Windows", ErrFilename, clip(filename))
	}
	if strings.ContainsAny(filename, " \t\u00a0") {
		return fmt.Errorf("filename %q: holds white space", clip(filename))
	}
	return nil
}

// IsWheel tells a wheel from a source archive by its suffix.
func IsWheel(filename string) bool { return strings.HasSuffix(filename, ".whl") }

// ParseDistName parses either kind of filename.
func ParseDistName(filename string) (project string, v Version, err error) {
	if IsWheel(filename) {
		w, err := ParseWheelName(filename)
		return w.Project, w.Version, err
	}
	s, err := ParseSdistName(filename)
	return s.Project, s.Version, err
}
