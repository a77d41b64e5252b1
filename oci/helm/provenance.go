package helm

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	signedBegin = "-----BEGIN PGP SIGNED MESSAGE-----"
	signBegin   = "-----BEGIN PGP SIGNATURE-----"
	signEnd     = "-----END PGP SIGNATURE-----"
)

// checkProvenance accepts a provenance file that names the chart's digest under
// the name of the chart's file. The signature is not checked.
func checkProvenance(prov []byte, e Entry, sum artifact.Digest) error {
	subject := subjectOf(e)
	if len(prov) > MaxProvenance {
		return unusable(CodeProvenance, subject, fmt.Sprintf("the provenance file has %d bytes, at most %d are taken", len(prov), MaxProvenance), nil)
	}
	files, err := provenanceFiles(prov)
	if err != nil {
		return unusable(CodeProvenance, subject, "the provenance file cannot be read", err)
	}
	// "helm pull" and "helm verify" know a chart by its version; a repository
	// may have named the file otherwise.
	names := []string{e.Name + "-" + e.Version + ".tgz"}
	if len(e.URLs) > 0 {
		names = append(names, baseOf(e.URLs[0]))
	}
	for _, name := range names {
		if got, ok := files[name]; ok {
			if got != sum.String() {
				return other(CodeProvenance, subject, "the provenance file is of other bytes: "+clip(name), got, sum.String())
			}
			return nil
		}
	}
	have := strings.Join(slices.Sorted(maps.Keys(files)), ", ")
	return other(CodeProvenance, subject, "the provenance file is of another chart", names[0], have)
}

// baseOf is the last part of an address's path.
func baseOf(address string) string {
	address, _, _ = strings.Cut(address, "#")
	address, _, _ = strings.Cut(address, "?")
	return path.Base(address)
}

// provenanceFiles reads the digests by file name.
func provenanceFiles(prov []byte) (map[string]string, error) {
	body, err := clearText(prov)
	if err != nil {
		return nil, err
	}
	// Chart.yaml comes first; "---" between the two would look like armor.
	parts := strings.Split(body, "\n...\n")
	if len(parts) != 2 {
		return nil, fmt.Errorf("want Chart.yaml, a line \"...\" and digests, got %d parts", len(parts))
	}
	n, err := document([]byte(parts[1]))
	if err != nil {
		return nil, fmt.Errorf("digests: %w", err)
	}
	var sums struct {
		Files map[string]string `json:"files"`
	}
	if err := decode(n, &sums); err != nil {
		return nil, fmt.Errorf("digests: %w", err)
	}
	if len(sums.Files) == 0 {
		return nil, errors.New("no digest of a file")
	}
	return sums.Files, nil
}

// clearText takes the text out of a clear-signed message (RFC 9580, section 7).
// Text before or after the message is refused: it is not signed.
func clearText(prov []byte) (string, error) {
	lines := strings.Split(string(bytes.TrimSpace(prov)), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t\r")
	}
	if lines[0] != signedBegin || lines[len(lines)-1] != signEnd {
		return "", errors.New("not a clear-signed message")
	}
	lines = lines[1 : len(lines)-1]
	blank := slices.Index(lines, "")
	if blank < 0 {
		return "", errors.New("no blank line after the armor's headers")
	}
	for _, h := range lines[:blank] {
		if !strings.HasPrefix(h, "Hash: ") {
			return "", fmt.Errorf("armor header %q is not taken", clip(h))
		}
	}
	var body []string
	for i, line := range lines[blank+1:] {
		if line == signBegin {
			if slices.ContainsFunc(lines[blank+2+i:], func(s string) bool { return strings.HasPrefix(s, "-") }) {
				return "", errors.New("more than one signature")
			}
			return strings.Join(body, "\n") + "\n", nil
		}
		if text, escaped := strings.CutPrefix(line, "- "); escaped {
			line = text
		} else if strings.HasPrefix(line, "-") {
			return "", fmt.Errorf("line %q is not escaped", clip(line))
		}
		body = append(body, line)
	}
	return "", errors.New("no signature")
}
