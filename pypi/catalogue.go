package pypi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// maxNewest bounds how many releases may be asked for by number. Whoever
// wants more wants all.
const maxNewest = 10_000

// A Catalogue is versions of one project that are wanted by themselves,
// whatever requires them.
type Catalogue struct {
	Project string // normal form
	// Newest, if not 0, is how many releases, the newest first. Local versions
	// of a release (2.9.0+cu130) count with it.
	Newest int
	// All is every version, pre-releases too.
	All bool
	// Specifiers hold for what is chosen.
	Specifiers packaging.Specifiers
	// Prereleases lets pre-releases count. Without it they do so where a
	// specifier names one, or where nothing else is there.
	Prereleases bool
}

// ParseCatalogue reads "PROJECT: SELECTION". See [NewCatalogue].
func ParseCatalogue(text string) (Catalogue, error) {
	project, selection, ok := strings.Cut(text, ":")
	if !ok {
		return Catalogue{}, fmt.Errorf("catalogue entry %q: want \"PROJECT: SELECTION\", such as \"numpy: newest 3\"", clip(text))
	}
	return NewCatalogue(strings.TrimSpace(project), selection)
}

// NewCatalogue reads which versions of a project are wanted: "all", "newest
// 3", specifiers (">=23"), "newest 3 >=23,<26", each of the last three with
// "prereleases" behind it if those count too.
func NewCatalogue(project, selection string) (Catalogue, error) {
	name, err := packaging.NormalizeName(project)
	if err != nil {
		return Catalogue{}, err
	}
	c := Catalogue{Project: name}
	if err := c.parse(unquote(strings.TrimSpace(selection))); err != nil {
		return Catalogue{}, fmt.Errorf("catalogue entry of %s: %q: %w", name, clip(selection), err)
	}
	return c, nil
}

func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

func (c *Catalogue) parse(selection string) error {
	words := strings.Fields(selection)
	if len(words) == 0 {
		return errors.New("want all, newest N or versions such as >=23")
	}
	if words[0] == "all" {
		if c.All = true; len(words) > 1 {
			return errors.New("nothing goes behind all")
		}
		return nil
	}
	if words[0] == "newest" {
		if len(words) == 1 {
			return errors.New("newest wants a number")
		}
		n, err := strconv.Atoi(words[1])
		if err != nil || n < 1 || n > maxNewest {
			return fmt.Errorf("newest wants a number from 1 to %d", maxNewest)
		}
		c.Newest, words = n, words[2:]
	}
	if n := len(words); n > 0 && words[n-1] == "prereleases" {
		c.Prereleases, words = true, words[:n-1]
	}
	set, err := packaging.ParseSpecifiers(strings.Join(words, " "))
	if err != nil {
		return err
	}
	if c.Specifiers = set; len(set) == 0 && c.Newest == 0 {
		return errors.New("want all, newest N or versions such as >=23")
	}
	return nil
}

// Choose picks from the versions of a page. It returns them in ascending
// order; versions that compare equal stay side by side, and come or stay out
// together.
func (c Catalogue) Choose(versions []packaging.Version) []packaging.Version {
	var fit, stable []packaging.Version
	for _, v := range versions {
		if !c.Specifiers.Contains(v) {
			continue
		}
		fit = append(fit, v)
		if !v.IsPrerelease() {
			stable = append(stable, v)
		}
	}
	if !c.All && !c.Prereleases && !c.Specifiers.NamesPrerelease() && len(stable) > 0 {
		fit = stable
	}
	slices.SortStableFunc(fit, packaging.Version.Compare)
	if c.Newest == 0 {
		return fit
	}
	releases := 0
	for i := len(fit) - 1; i >= 0; i-- {
		if i == len(fit)-1 || !sameRelease(fit[i], fit[i+1]) {
			if releases++; releases > c.Newest {
				return fit[i+1:]
			}
		}
	}
	return fit
}

// sameRelease compares without the local parts.
func sameRelease(a, b packaging.Version) bool {
	public := func(v packaging.Version) string {
		s, _, _ := strings.Cut(v.String(), "+")
		return s
	}
	x, y := public(a), public(b)
	if x == y {
		return true
	}
	v, errV := packaging.ParseVersion(x) // 1.0 is 1.0.0
	w, errW := packaging.ParseVersion(y)
	return errV == nil && errW == nil && v.Compare(w) == 0
}
