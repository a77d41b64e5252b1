package packaging

import (
	"errors"
	"fmt"
	"strings"
)

// maxName bounds a project name. A filename has at most 255 bytes and must
// hold a version and tags as well.
const maxName = 200

// NormalizeName checks a project name strictly (PEP 508: ASCII letters,
// digits, ".", "_" and "-", the first and the last a letter or digit) and
// returns its normal form (PEP 503). A lax reader would map bad names onto
// real ones: "torch" with a zero-width space onto torch.
func NormalizeName(s string) (string, error) {
	if s == "" || len(s) > maxName {
		return "", fmt.Errorf("project name %q: want 1 to %d bytes", clip(s), maxName)
	}
	if !alnum(s[0]) || !alnum(s[len(s)-1]) {
		return "", fmt.Errorf("project name %q: must start and end with a letter or digit", clip(s))
	}
	b := make([]byte, 0, len(s))
	for _, c := range []byte(s) {
		switch {
		case c == '.' || c == '_' || c == '-':
			if b[len(b)-1] != '-' {
				b = append(b, '-')
			}
		case !alnum(c):
			return "", fmt.Errorf("project name %q: only ASCII letters, digits, '.', '_' and '-' are allowed", clip(s))
		case c >= 'A' && c <= 'Z':
			b = append(b, c+'a'-'A')
		default:
			b = append(b, c)
		}
	}
	return string(b), nil
}

// canonicalName is the normal form of PEP 503 for any text. It is for
// comparing extras (PEP 685), where a malformed name is nobody's; a project's
// name is checked by NormalizeName.
func canonicalName(s string) string {
	normal := true
	for i := range len(s) {
		c := s[i]
		normal = normal && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && (i == 0 || s[i-1] != '-'))
	}
	if normal {
		return s
	}
	s = strings.ToLower(s)
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c == '_' || c == '.' {
			c = '-'
		}
		if c != '-' || b.Len() == 0 || b.String()[b.Len()-1] != '-' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// maxFilename is what every common file system takes.
const maxFilename = 255

// ErrFilename marks a filename that no honest index holds.
var ErrFilename = errors.New("unsafe filename")

// CheckFilename refuses a name that could leave its folder or mean something
// else to a shell, a terminal or a file system: separators, "." and "..",
// control characters, bytes that are not UTF-8, a leading "-" or "~", over
// 255 bytes.
func CheckFilename(s string) error {
	bad := func(why string) error { return fmt.Errorf("%w %q: %s", ErrFilename, clip(s), why) }
	switch {
	case s == "":
		return bad("empty")
	case len(s) > maxFilename:
		return bad(fmt.Sprintf("%d bytes, at most %d", len(s), maxFilename))
	case s == "." || s == "..":
		return bad("names a folder")
	case s[0] == '-' || s[0] == '~':
		return bad("starts with - or ~")
	}
	for _, r := range s {
		switch {
		case r == '/' || r == '\\' || r == ':':
			return bad("holds a separator")
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			return bad("holds a control character")
		case r == '\uFFFD':
			return bad("not UTF-8")
		case r == '\u200e' || r == '\u200f' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069':
			return bad("holds a direction mark")
		}
	}
	return nil
}

// deviceName reports whether Windows would open a device: the part before the
// first dot counts.
func deviceName(s string) bool {
	base, _, _ := strings.Cut(strings.ToUpper(s), ".")
	switch base {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(base) == 4 && (strings.HasPrefix(base, "COM") || strings.HasPrefix(base, "LPT")) && base[3] >= '0' && base[3] <= '9'
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
