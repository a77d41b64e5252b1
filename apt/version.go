package apt

import (
	"cmp"
	"fmt"
	"strings"
)

// maxVersion bounds a version; dpkg's status file holds none above 120 bytes.
const maxVersion = 1024

// CompareVersions orders two package versions as dpkg does: -1, 0 or +1. It
// accepts any text, so that a wrong version sorts somewhere rather than
// failing; [checkVersion] tells whether one is well formed.
func CompareVersions(a, b string) int {
	ae, au, ar := splitVersion(a)
	be, bu, br := splitVersion(b)
	return cmp.Or(comparePart(ae, be), comparePart(au, bu), comparePart(ar, br))
}

// splitVersion cuts [epoch:]upstream[-revision]. The revision starts at the
// last hyphen, the epoch ends at the first colon.
func splitVersion(v string) (epoch, upstream, revision string) {
	if e, rest, ok := strings.Cut(v, ":"); ok {
		epoch, v = e, rest
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

// comparePart compares runs of non-digits and of digits in turn. Digits are
// compared as text, since they may be longer than any integer type.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		for startsNonDigit(a) || startsNonDigit(b) {
			if c := cmp.Compare(weight(a), weight(b)); c != 0 {
				return c
			}
			a, b = a[1:], b[1:] // equal weights: neither is at its end or at a digit
		}
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		i, j := digits(a), digits(b)
		if c := cmp.Or(cmp.Compare(i, j), strings.Compare(a[:i], b[:j])); c != 0 {
			return c
		}
		a, b = a[i:], b[j:]
	}
	return 0
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func startsNonDigit(s string) bool { return s != "" && !isDigit(s[0]) }

func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

// weight is dpkg's order of a first byte: "~" before the end, the end and
// digits before letters, letters before everything else.
func weight(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case isLetter(s[0]):
		return int(s[0])
	default:
		return int(s[0]) + 256
	}
}

// checkVersion accepts what deb-version(7) allows. A version need not start
// with a digit: dpkg only warns, and such versions exist.
func checkVersion(v string) error {
	if v == "" || len(v) > maxVersion {
		return fmt.Errorf("version of %d bytes, want 1 to %d", len(v), maxVersion)
	}
	epoch, upstream, _ := splitVersion(v)
	if strings.Contains(v, ":") && (epoch == "" || digits(epoch) != len(epoch)) {
		return fmt.Errorf("version %q: epoch is not a number", v)
	}
	if upstream == "" {
		return fmt.Errorf("version %q: nothing before the revision", v)
	}
	for _, c := range []byte(v) {
		if !isDigit(c) && !isLetter(c) && !strings.ContainsRune(".+-:~", rune(c)) {
			return fmt.Errorf("version %q: forbidden character %q", v, c)
		}
	}
	return nil
}
