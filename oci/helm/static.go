package helm

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// StaticIndex writes an index.yaml of these entries, for tools that know classic
// repositories only. The same entries give the same bytes, in whatever order
// they come: sorted by name, then the newest first. There is no time of its
// making in it. Every text is quoted, so that no reader takes a version for a
// number.
func StaticIndex(entries []Entry) []byte {
	var b bytes.Buffer
	b.WriteString("apiVersion: v1\n")
	if len(entries) == 0 {
		b.WriteString("entries: {}\n")
		return b.Bytes()
	}
	b.WriteString("entries:\n")
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, compareEntries)
	for i, e := range sorted {
		if i == 0 || sorted[i-1].Name != e.Name {
			fmt.Fprintf(&b, "  %s:\n", quote(e.Name))
		}
		writeEntry(&b, e)
	}
	return b.Bytes()
}

func writeEntry(b *bytes.Buffer, e Entry) {
	lead := "  - "
	put := func(key, value string) {
		fmt.Fprintf(b, "%s%s: %s\n", lead, key, value)
		lead = "    "
	}
	text := func(key, value string) {
		if value != "" {
			put(key, quote(value))
		}
	}
	text("apiVersion", e.APIVersion)
	text("appVersion", e.AppVersion)
	text("created", e.Created)
	if e.Deprecated {
		put("deprecated", "true")
	}
	text("description", e.Description)
	if !e.Digest.IsZero() {
		put("digest", quote(e.Digest.Hex()))
	}
	text("kubeVersion", e.KubeVersion)
	put("name", quote(e.Name))
	text("type", e.Type)
	if len(e.URLs) > 0 {
		fmt.Fprintf(b, "    urls:\n")
		for _, u := range e.URLs {
			fmt.Fprintf(b, "    - %s\n", quote(u))
		}
	}
	put("version", quote(e.Version))
}

// quote writes a text in the one form that YAML 1.1, YAML 1.2 and JSON's
// readers agree on as far as Go writes it: double quotes and ASCII.
func quote(s string) string { return strconv.QuoteToASCII(s) }

func compareEntries(a, b Entry) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if c := compareVersions(a.Version, b.Version); c != 0 {
		return c
	}
	return strings.Compare(a.Version, b.Version)
}

// compareVersions puts the newer first, and what is no version last.
func compareVersions(a, b string) int {
	v, errV := semver.NewVersion(a)
	w, errW := semver.NewVersion(b)
	switch {
	case errV != nil && errW != nil:
		return 0
	case errV != nil:
		return 1
	case errW != nil:
		return -1
	}
	return w.Compare(v)
}
