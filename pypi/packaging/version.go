package packaging

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// maxVersion bounds a version's text; it has to fit into a filename.
const maxVersion = 255

// A Version is a version of PEP 440. Numbers are kept as decimal strings
// without leading zeros: PEP 440 has no upper bound, and dates with a time
// are in use.
type Version struct {
	text    string // as written, without white space around it
	epoch   string
	release []string
	pre     string // "a", "b", "rc" or ""
	preN    string
	post    string // "" if there is none
	dev     string
	local   []string
}

// versionRE is the pattern of PEP 440, appendix B, for ASCII.
var versionRE = regexp.MustCompile(`^(?i:v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)` +
	`(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?([0-9]+)?)?` +
	`((?:-([0-9]+))|(?:[-_.]?(?:post|rev|r)[-_.]?([0-9]+)?))?` +
	`([-_.]?dev[-_.]?([0-9]+)?)?` +
	`(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?)$`)

// ParseVersion reads a version of PEP 440, in any of its spellings.
func ParseVersion(s string) (Version, error) {
	s = strings.Trim(s, " \t\n\r\f\v")
	if len(s) > maxVersion {
		return Version{}, fmt.Errorf("version %q: over %d bytes", clip(s), maxVersion)
	}
	m := versionRE.FindStringSubmatch(s)
	if m == nil {
		return Version{}, fmt.Errorf("version %q is not one of PEP 440", clip(s))
	}
	v := Version{text: s, epoch: number(m[1])}
	for part := range strings.SplitSeq(m[2], ".") {
		v.release = append(v.release, number(part))
	}
	if m[3] != "" {
		v.pre, v.preN = preLetter(m[3]), number(m[4])
	}
	if m[5] != "" {
		v.post = number(m[6] + m[7])
	}
	if m[8] != "" {
		v.dev = number(m[9])
	}
	if m[10] != "" {
		for _, part := range strings.FieldsFunc(strings.ToLower(m[10]), func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
			if digits(part) {
				part = number(part)
			}
			v.local = append(v.local, part)
		}
	}
	return v, nil
}

// number drops leading zeros; nothing is zero.
func number(s string) string {
	if s = strings.TrimLeft(s, "0"); s == "" {
		return "0"
	}
	return s
}

func digits(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

func preLetter(s string) string {
	switch strings.ToLower(s) {
	case "a", "alpha":
		return "a"
	case "b", "beta":
		return "b"
	}
	return "rc"
}

// IsZero reports whether v was never parsed.
func (v Version) IsZero() bool { return len(v.release) == 0 }

// Text is the version as it was written.
func (v Version) Text() string { return v.text }

// String is the normal form.
func (v Version) String() string {
	s := v.public()
	if len(v.local) > 0 {
		s += "+" + strings.Join(v.local, ".")
	}
	return s
}

func (v Version) public() string {
	var b strings.Builder
	if v.epoch != "0" {
		b.WriteString(v.epoch + "!")
	}
	b.WriteString(strings.Join(v.release, "."))
	if v.pre != "" {
		b.WriteString(v.pre + v.preN)
	}
	if v.post != "" {
		b.WriteString(".post" + v.post)
	}
	if v.dev != "" {
		b.WriteString(".dev" + v.dev)
	}
	return b.String()
}

// prerelease reports whether v is a pre-release or a developmental release.
func (v Version) prerelease() bool { return v.pre != "" || v.dev != "" }

// withoutLocal drops the local part.
func (v Version) withoutLocal() Version {
	v.local = nil
	return v
}

// Compare orders versions as PEP 440 does.
func (v Version) Compare(w Version) int {
	return cmp.Or(
		compareNumbers(v.epoch, w.epoch),
		compareReleases(v.release, w.release),
		cmp.Compare(v.preRank(), w.preRank()),
		compareNumbers(v.preN, w.preN),
		compareNumbers(v.post, w.post), // "" is less than "0"
		compareDev(v.dev, w.dev),
		compareLocals(v.local, w.local),
	)
}

// preRank puts 1.0.dev1 before 1.0a1, and 1.0 after 1.0rc1.
func (v Version) preRank() int {
	switch {
	case v.pre == "a":
		return 1
	case v.pre == "b":
		return 2
	case v.pre == "rc":
		return 3
	case v.post == "" && v.dev != "":
		return 0
	}
	return 4
}

// compareNumbers orders decimal strings without leading zeros; the empty one
// is least.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func compareReleases(a, b []string) int {
	for i := range max(len(a), len(b)) {
		x, y := "0", "0"
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if c := compareNumbers(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// compareDev: a version without dev comes after one with it.
func compareDev(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	return compareNumbers(a, b)
}

// compareLocals: numbers come after words, a prefix before what it begins.
func compareLocals(a, b []string) int {
	return slices.CompareFunc(a, b, func(x, y string) int {
		dx, dy := digits(x), digits(y)
		switch {
		case dx && dy:
			return compareNumbers(x, y)
		case dx:
			return 1
		case dy:
			return -1
		}
		return strings.Compare(x, y)
	})
}
