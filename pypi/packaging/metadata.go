package packaging

import (
	"bytes"
	"errors"
	"fmt"
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
	version        string // Metadata-Version
	Name           string // normal form
	Version        Version
	RequiresPython string
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
			if m.version != "" {
				return errors.New("Metadata-Version twice")
			}
			m.version = value
		case "name":
			name = append(name, value)
		case "version":
			version = append(version, value)
		case "requires-python":
			requires = append(requires, value)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	major, _, _ := strings.Cut(m.version, ".")
	switch {
	case len(name) != 1 || len(version) != 1:
		return nil, fmt.Errorf("%d Name and %d Version fields, want one of each", len(name), len(version))
	case len(requires) > 1:
		return nil, errors.New("Requires-Python twice")
	case major != "1" && major != "2":
		return nil, fmt.Errorf("Metadata-Version %q is not known", clip(m.version))
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
	var key, value string
	n := 0
	flush := func() error {
		if key == "" {
			return nil
		}
		return fn(key, strings.TrimSpace(value))
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
			// Nothing that is read here has several lines; the start is enough.
			if len(value) < maxSpecifiers {
				value += " " + strings.TrimSpace(string(line))
			}
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		k, v, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(k) == 0 || bytes.ContainsAny(k, " \t") {
			return fmt.Errorf("malformed header line %q", clip(string(line)))
		}
		key, value = strings.ToLower(string(k)), string(v)
	}
	return flush()
}
