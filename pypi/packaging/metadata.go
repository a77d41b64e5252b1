package packaging

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// MaxMetadata bounds METADATA and PKG-INFO, which hold the long
	// description; the largest known have about 2 MiB.
	MaxMetadata = 16 << 20
	// maxHeaders bounds the header lines; some projects list a thousand
	// Requires-Dist.
	maxHeaders = 100_000
)

// Metadata is what is read of core metadata.
type Metadata struct {
	MetadataVersion string
	Name            string // normal form
	Version         Version
	RequiresPython  string
	Requires        []Requirement
	// Malformed are the Requires-Dist lines that cannot be read.
	Malformed []string
	Extras    []string // Provides-Extra, in normal form
	Dynamic   []string // names of fields, in lower case
}

// Static reports whether the requirements of a source archive are those of
// everything that is built from it: PEP 643 holds from Metadata-Version 2.2 on.
func (m *Metadata) Static() bool {
	v, ok := parseRelease(m.MetadataVersion)
	since, _ := parseRelease("2.2")
	return ok && v.keyed().Compare(since.keyed()) >= 0 && !slices.Contains(m.Dynamic, "requires-dist")
}

// ParseMetadata reads the headers of METADATA or PKG-INFO. Unknown fields are
// allowed: later versions add some.
func ParseMetadata(b []byte) (*Metadata, error) {
	if len(b) > MaxMetadata {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), MaxMetadata)
	}
	var m Metadata
	var name, version []string
	var requires []string
	err := EachHeader(b, func(key, value string) error {
		switch key {
		case "metadata-version":
			if m.MetadataVersion != "" {
				return errors.New("Metadata-Version twice")
			}
			m.MetadataVersion = value
		case "name":
			name = append(name, value)
		case "version":
			version = append(version, value)
		case "requires-python":
			requires = append(requires, value)
		case "requires-dist":
			if r, err := ParseRequirement(value); err == nil {
				m.Requires = append(m.Requires, r)
			} else {
				m.Malformed = append(m.Malformed, clip(value))
			}
		case "provides-extra":
			// A malformed name is the extra of no requirement.
			if n, err := NormalizeName(value); err == nil {
				m.Extras = append(m.Extras, n)
			}
		case "dynamic":
			m.Dynamic = append(m.Dynamic, strings.ToLower(value))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	major, _, _ := strings.Cut(m.MetadataVersion, ".")
	switch {
	case len(name) != 1 || len(version) != 1:
		return nil, fmt.Errorf("%d Name and %d Version fields, want one of each", len(name), len(version))
	case len(requires) > 1:
		return nil, errors.New("Requires-Python twice")
	case major != "1" && major != "2":
		return nil, fmt.Errorf("Metadata-Version %q is not known", clip(m.MetadataVersion))
	}
	if m.Name, err = NormalizeName(name[0]); err != nil {
		return nil, err
	}
	if m.Version, err = ParseVersion(version[0]); err != nil {
		return nil, err
	}
	if len(requires) == 1 {
		m.RequiresPython = requires[0]
	}
	return &m, nil
}

// EachHeader calls fn for every header, its name in lower case and its
// continuation lines folded, up to the first empty line.
func EachHeader(b []byte, fn func(key, value string) error) error {
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	var key string
	var value []byte
	n := 0
	flush := func() error {
		if key == "" {
			return nil
		}
		return fn(key, string(bytes.TrimSpace(value)))
	}
	for len(b) > 0 {
		var line []byte
		line, b, _ = bytes.Cut(b, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		if n++; n > maxHeaders {
			return fmt.Errorf("over %d header lines", maxHeaders)
		}
		if line[0] == ' ' || line[0] == '\t' {
			if key == "" {
				return errors.New("starts with a continuation line")
			}
			value = append(append(value, ' '), bytes.TrimSpace(line)...)
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		k, v, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(k) == 0 || bytes.ContainsAny(k, " \t") {
			return fmt.Errorf("malformed header line %q", clip(string(line)))
		}
		key, value = strings.ToLower(string(k)), append(value[:0], v...)
	}
	return flush()
}
