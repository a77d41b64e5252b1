package scan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

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

// A Policy decides what may pass. The zero Policy blocks and waives nothing,
// and holds what the defaults hold.
type Policy struct {
	config  Config
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
	p := Policy{config: c}
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

// action says what becomes of an artifact with the finding, waivers aside.
// A kind or severity that it does not know holds.
func (p Policy) action(f Finding) string {
	c := p.config
	switch f.Kind {
	case KindVulnerability:
		if f.Answer != "" {
			return ActionAllow
		}
		if f.Fixed == "" && c.Vulnerabilities.Unfixed == ActionWarn {
			return ActionWarn
		}
		return bySeverity(f.Severity, c.Vulnerabilities.Hold, Critical, High, Unknown)
	case KindSecret:
		return bySeverity(f.Severity, c.Secrets.Hold, Critical, High)
	case KindModel:
		return bySeverity(f.Severity, c.Models.Hold, Critical, High)
	case KindPackage:
		return bySeverity(f.Severity, c.Packages.Hold, Critical, High)
	case KindArchive:
		return bySeverity(f.Severity, c.Archives.Hold, Critical, High)
	case KindLicence:
		return orHold(c.Licences.Action)
	case KindNotScanned:
		return orHold(c.Unscanned)
	case KindType:
		if f.ID == CodeUnknownType {
			return orHold(c.Types.Unknown)
		}
	}
	return ActionHold
}

// bySeverity holds the listed severities, or the default ones, and whatever
// is no severity at all.
func bySeverity(severity string, list []string, standard ...string) string {
	if len(list) == 0 {
		list = standard
	}
	severity = strings.ToLower(severity)
	if slices.Contains(list, severity) || !slices.Contains(severities, severity) {
		return ActionHold
	}
	return ActionWarn
}

func orHold(action string) string {
	if action == ActionWarn || action == ActionAllow {
		return action
	}
	return ActionHold
}

func (p Policy) blocked(s Subject) (Block, bool) {
	for _, b := range p.blocks {
		if b.ref.matches(s, fold) {
			return b.Block, true
		}
	}
	return Block{}, false
}

// waived finds the waiver in force for a finding. A package that is on a list
// of malicious ones cannot be waived.
func (p Policy) waived(s Subject, f Finding, now time.Time) (Waiver, bool) {
	if malicious(f) {
		return Waiver{}, false
	}
	for _, w := range p.waivers {
		if w.Finding == f.ID && now.Before(w.end) && w.ref.matches(s, strings.ToLower) {
			return w.Waiver, true
		}
	}
	return Waiver{}, false
}

func malicious(f Finding) bool { return strings.HasPrefix(f.ID, "MAL-") }

// Lapsed lists the waivers that are no longer in force, as written.
func (p Policy) Lapsed(now time.Time) []Waiver {
	var list []Waiver
	for _, w := range p.waivers {
		if !now.Before(w.end) {
			list = append(list, w.Waiver)
		}
	}
	return list
}
