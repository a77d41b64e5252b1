package packaging

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxVersion bounds a version's text: a filename has at most 255 bytes and
// holds a project, a dash and a suffix beside it. The key of a version relies
// on it: a number's length fits into a byte, and never is 255.
const maxVersion = 250

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

	// key orders versions as PEP 440 does when compared byte by byte, so that
	// sorting and filtering long lists neither computes nor allocates.
	key string
	// key[:family] stands for the version with all its post-releases,
	// key[:public] for the version without its local part.
	family, public int
}

// versionRE is the pattern of PEP 440, appendix B, for ASCII.
var versionRE = regexp.MustCompile(`^(?i:v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)` +
	`(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?([0-9]+)?)?` +
	`((?:-([0-9]+))|(?:[-_.]?(?:post|rev|r)[-_.]?([0-9]+)?))?` +
	`([-_.]?dev[-_.]?([0-9]+)?)?` +
	`(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?)$`)

// ParseVersion reads a version of PEP 440, in any of its spellings.
func ParseVersion(s string) (Version, error) {
	s = strings.TrimFunc(s, isSpace)
	if len(s) > maxVersion {
		return Version{}, fmt.Errorf("version %q: over %d bytes", clip(s), maxVersion)
	}
	if v, ok := parseRelease(s); ok {
		return v.keyed(), nil
	}
	var m []string
	if isASCII(s) { // without regard to case, "K" would also be the Kelvin sign
		m = versionRE.FindStringSubmatch(s)
	}
	if m == nil {
		return Version{}, fmt.Errorf("version %q is not one of PEP 440", clip(s))
	}
	v := Version{text: s, epoch: number(m[1]), release: releaseNumbers(m[2])}
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
	return v.keyed(), nil
}

// parseRelease reads what most versions are, numbers and dots, without the
// cost of a regular expression.
func parseRelease(s string) (Version, bool) {
	for i := range len(s) {
		dot := s[i] == '.'
		if dot && (i == 0 || i == len(s)-1 || s[i-1] == '.') || !dot && (s[i] < '0' || s[i] > '9') {
			return Version{}, false
		}
	}
	return Version{text: s, epoch: "0", release: releaseNumbers(s)}, s != ""
}

func releaseNumbers(s string) []string {
	out := make([]string, 0, strings.Count(s, ".")+1)
	for part := range strings.SplitSeq(s, ".") {
		out = append(out, number(part))
	}
	return out
}

// isSpace is what Python counts as white space.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
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

// The bytes of a key that are not part of a number. A number is its length
// and its digits, so that the longer one is greater.
const (
	keyEnd    = 0x00 // ends a release and a word; less than any number, so that 1 < 1.1
	keyNone   = 0x00 // no post-release
	keyFinal  = 0xff // no dev-release; greater than any number
	keyWord   = 0x01 // a word of a local part
	keyNumber = 0x02 // a number of a local part, which comes after words
)

// keyed returns v with its key: epoch, release without zeros at its end,
// pre-release, post-release, dev-release and local part, each written so that
// a byte-wise comparison decides.
func (v Version) keyed() Version {
	b := make([]byte, 0, len(v.text)+16)
	b = appendNumber(b, v.epoch)
	n := len(v.release)
	for n > 0 && v.release[n-1] == "0" {
		n--
	}
	for _, r := range v.release[:n] {
		b = appendNumber(b, r)
	}
	b = append(b, keyEnd, v.preRank())
	if v.pre != "" {
		b = appendNumber(b, v.preN)
	}
	v.family = len(b)
	if v.post == "" {
		b = append(b, keyNone)
	} else {
		b = appendNumber(b, v.post)
	}
	if v.dev == "" {
		b = append(b, keyFinal)
	} else {
		b = appendNumber(b, v.dev)
	}
	v.public = len(b)
	for _, part := range v.local {
		if digits(part) {
			b = appendNumber(append(b, keyNumber), part)
		} else {
			b = append(append(append(b, keyWord), part...), keyEnd)
		}
	}
	v.key = string(b)
	return v
}

func appendNumber(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...) //nolint:gosec // maxVersion
}

// preRank puts 1.0.dev1 before 1.0a1, and 1.0 after 1.0rc1.
func (v Version) preRank() byte {
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

// base is the release of v alone, without its last drop numbers.
func (v Version) base(drop int) Version {
	return Version{epoch: v.epoch, release: v.release[:len(v.release)-drop]}
}

// dev0 is the first version of all that start with v's release.
func (v Version) dev0() Version {
	v = v.base(0)
	v.dev = "0"
	return v.keyed()
}

// next is v's release with its last number counted up.
func (v Version) next() Version {
	v = v.base(0)
	v.release = append(v.release[:len(v.release)-1:len(v.release)-1], increment(v.release[len(v.release)-1]))
	return v
}

// increment adds one to a decimal number.
func increment(s string) string {
	b := []byte(s)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != '9' {
			b[i]++
			return string(b)
		}
		b[i] = '0'
	}
	return "1" + string(b)
}

// IsZero reports whether v was never parsed.
func (v Version) IsZero() bool { return v.key == "" }

// Text is the version as it was written.
func (v Version) Text() string { return v.text }

// String is the normal form.
func (v Version) String() string { return v.join(len(v.release)) }

// Canonical is the normal form without zeros at the end of the release: equal
// versions have equal ones, 1.0 and 1.0.0 for instance.
func (v Version) Canonical() string {
	n := len(v.release)
	for n > 1 && v.release[n-1] == "0" {
		n--
	}
	return v.join(n)
}

// join writes the normal form with the first n numbers of the release.
func (v Version) join(n int) string {
	var b strings.Builder
	if v.epoch != "0" {
		b.WriteString(v.epoch + "!")
	}
	for i, r := range v.release[:n] {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(r)
	}
	if v.pre != "" {
		b.WriteString(v.pre + v.preN)
	}
	if v.post != "" {
		b.WriteString(".post" + v.post)
	}
	if v.dev != "" {
		b.WriteString(".dev" + v.dev)
	}
	if len(v.local) > 0 {
		b.WriteString("+" + strings.Join(v.local, "."))
	}
	return b.String()
}

// IsPrerelease reports whether v is a pre-release or a developmental release.
func (v Version) IsPrerelease() bool { return v.pre != "" || v.dev != "" }

// Compare orders versions as PEP 440 does.
func (v Version) Compare(w Version) int { return strings.Compare(v.key, w.key) }

// compareNumbers orders decimal strings without leading zeros; the empty one
// is least.
func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
