package scan

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// dateForm is how a waiver's last day is written.
const dateForm = time.DateOnly

// Config is the policy as a person writes it.
type Config struct {
	Block   []Block  `yaml:"block" doc:"artifacts that are always held back"`
	Waivers []Waiver `yaml:"waivers" doc:"findings that may pass, for a time"`
}

// A Block holds an artifact back whatever the scanners say.
type Block struct {
	Artifact string `yaml:"artifact" doc:"source and name, or source, name and version: pypi/main examplelib 2.3.1"`
	Reason   string `yaml:"reason" doc:"why; shown in reports and carried in the bundle"`
}

// A Waiver lets one finding of one artifact pass until it expires.
type Waiver struct {
	Artifact string `yaml:"artifact" doc:"source and name, or source, name and version: pypi/main examplelib 2.3.1"`
	Finding  string `yaml:"finding" doc:"the finding's identifier as the report shows it"`
	Owner    string `yaml:"owner" doc:"who answers for it"`
	Reason   string `yaml:"reason" doc:"why it is acceptable"`
	Expires  string `yaml:"expires" doc:"the last day on which it holds, in UTC: 2026-12-31"`
}

// Validate joins every problem, each starting with the field it concerns.
func (c Config) Validate() error {
	var errs []error
	need := func(field, value string) {
		if strings.TrimSpace(value) == "" {
			errs = append(errs, fmt.Errorf("%s: missing", field))
		}
	}
	ref := func(field, value string) {
		if _, err := parseRef(value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", field, err))
		}
	}
	for i, b := range c.Block {
		at := fmt.Sprintf("block[%d].", i)
		ref(at+"artifact", b.Artifact)
		need(at+"reason", b.Reason)
	}
	for i, w := range c.Waivers {
		at := fmt.Sprintf("waivers[%d].", i)
		ref(at+"artifact", w.Artifact)
		need(at+"finding", w.Finding)
		need(at+"owner", w.Owner)
		need(at+"reason", w.Reason)
		if _, err := time.Parse(dateForm, w.Expires); err != nil {
			errs = append(errs, fmt.Errorf("%sexpires: %q is not a date like 2026-12-31", at, w.Expires))
		}
	}
	return errors.Join(errs...)
}

// A ref names an artifact, or all its versions.
type ref struct {
	source, name, version string
}

// parseRef reads "SOURCE NAME" or "SOURCE NAME VERSION".
func parseRef(s string) (ref, error) {
	words := strings.Fields(s)
	if len(words) != 2 && len(words) != 3 {
		return ref{}, fmt.Errorf("%q: want a source and a name, or a source, a name and a version: pypi/main examplelib 2.3.1", s)
	}
	if err := artifact.CheckSource(words[0]); err != nil {
		return ref{}, err
	}
	r := ref{source: words[0], name: words[1]}
	if len(words) == 3 {
		r.version = words[2]
	}
	return r, nil
}

// matches compares names by the given normal form, versions exactly.
func (r ref) matches(s Subject, normal func(string) string) bool {
	return r.source == s.Source && normal(r.name) == normal(s.Artifact.Name) &&
		(r.version == "" || r.version == s.Artifact.Version)
}

// fold is the normal form for blocks: lower case, and "-", "_" and "." the
// same, however many. A block must not be missed because of how a name is
// spelt; that it may hold back one name too many is the safe side.
func fold(name string) string {
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' })
	return strings.Join(parts, "-")
}

// A Policy decides what may pass. The zero Policy blocks and waives nothing.
type Policy struct {
	blocks  []blockRule
	waivers []waiverRule
}

type blockRule struct {
	ref ref
	Block
}

type waiverRule struct {
	ref ref
	end time.Time // the first moment at which it no longer holds
	Waiver
}

// NewPolicy makes a policy of a configuration, which it validates.
func NewPolicy(c Config) (Policy, error) {
	if err := c.Validate(); err != nil {
		return Policy{}, err
	}
	var p Policy
	for _, b := range c.Block {
		r, err := parseRef(b.Artifact)
		if err != nil {
			return Policy{}, err
		}
		p.blocks = append(p.blocks, blockRule{r, b})
	}
	for _, w := range c.Waivers {
		r, err := parseRef(w.Artifact)
		if err != nil {
			return Policy{}, err
		}
		day, err := time.Parse(dateForm, w.Expires)
		if err != nil {
			return Policy{}, err
		}
		p.waivers = append(p.waivers, waiverRule{r, day.AddDate(0, 0, 1), w})
	}
	return p, nil
}

func (p Policy) blocked(s Subject) (Block, bool) {
	for _, b := range p.blocks {
		if b.ref.matches(s, fold) {
			return b.Block, true
		}
	}
	return Block{}, false
}

func (p Policy) waived(s Subject, f Finding, now time.Time) (Waiver, bool) {
	for _, w := range p.waivers {
		if w.Finding == f.ID && now.Before(w.end) && w.ref.matches(s, strings.ToLower) {
			return w.Waiver, true
		}
	}
	return Waiver{}, false
}
