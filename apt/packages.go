package apt

import (
	"bytes"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxDeb bounds a package file. The largest of Debian has 2 GB.
const maxDeb = 64 << 30

// multiArch is the Multi-Arch field.
type multiArch uint8

const (
	multiNo multiArch = iota
	multiSame
	multiForeign
	multiAllowed
)

// Priorities in the order in which providers are preferred.
var priorities = []string{"required", "important", "standard", "optional", "extra"}

// A record is what we need of one stanza of a Packages index. Its byte slices
// are valid until the next stanza is read.
type record struct {
	name, version, arch []byte
	filename            string
	digest              artifact.Digest
	size                int64
	st                  *stanza
}

// parseRecord holds R7 and R8: every field that is needed is there and sane.
// subject names the index.
func parseRecord(st *stanza, subject string) (record, error) {
	bad := func(format string, a ...any) (record, error) {
		ref := integrity(codeStanza, subject, "stanza cannot be used")
		ref.Err = &stanzaError{st.offset, fmt.Sprintf(format, a...)}
		return record{}, ref
	}
	r := record{st: st, name: st.get("Package"), version: st.get("Version"), arch: st.get("Architecture")}
	if err := checkName(string(r.name)); err != nil {
		return bad("%v", err)
	}
	if err := checkVersion(string(r.version)); err != nil {
		return bad("package %s: %v", r.name, err)
	}
	if !archOK(string(r.arch)) {
		return bad("package %s: architecture %q", r.name, clip(string(r.arch)))
	}
	size := st.get("Size")
	n, err := strconv.ParseInt(string(size), 10, 64)
	if err != nil || n <= 0 || n > maxDeb {
		return bad("package %s: size %q", r.name, clip(string(size)))
	}
	r.size = n
	hash := st.get("SHA256")
	if hash == nil {
		ref := integrity(codeWeakHash, subject, "package without a SHA256")
		ref.Err = &stanzaError{st.offset, fmt.Sprintf("package %s", r.name)}
		return record{}, ref
	}
	if r.digest, err = artifact.ParseHex(string(bytes.ToLower(hash))); err != nil {
		return bad("package %s: SHA256 %v", r.name, err)
	}
	if r.filename, err = cleanFilename(st.get("Filename")); err != nil {
		ref := integrity(codePath, subject, "package file at an unsafe place")
		ref.Err = &stanzaError{st.offset, fmt.Sprintf("package %s: %v", r.name, err)}
		return record{}, ref
	}
	return r, nil
}

// cleanFilename holds R8. One leading "./" is dropped. Only printable ASCII is
// taken: no archive uses more, and it spares the question of normal forms. "%"
// is refused because debootstrap does not escape it.
func cleanFilename(v []byte) (string, error) {
	name := strings.TrimPrefix(string(v), "./")
	for _, c := range []byte(name) {
		if c < 0x20 || c > 0x7e || c == '%' || c == '\\' {
			return "", fmt.Errorf("file name %q: forbidden character %q", clip(name), c)
		}
	}
	if err := artifact.CheckPath(name); err != nil {
		return "", err
	}
	if !strings.HasSuffix(name, ".deb") {
		return "", fmt.Errorf("file name %q does not end in .deb", clip(name))
	}
	return name, nil
}

// escapePath encodes a file name for a URL, segment by segment.
func escapePath(p string) string {
	parts := strings.Split(p, "/")
	for i, s := range parts {
		// PathEscape leaves "+" alone; some servers read it as a blank.
		parts[i] = strings.ReplaceAll(url.PathEscape(s), "+", "%2B")
	}
	return strings.Join(parts, "/")
}

func parseMultiArch(v []byte) multiArch {
	switch string(v) {
	case "same":
		return multiSame
	case "foreign":
		return multiForeign
	case "allowed":
		return multiAllowed
	}
	return multiNo
}

func parsePriority(v []byte) uint8 {
	for i, p := range priorities {
		if equalFold(v, p) {
			return uint8(i) // #nosec G115 -- five values
		}
	}
	return uint8(len(priorities)) // #nosec G115 -- five values
}
