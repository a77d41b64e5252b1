package packaging

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMetadata(t *testing.T) {
	m, err := ParseMetadata([]byte("\ufeffMetadata-Version: 2.4\r\nName: Some.Project\r\nVersion: 1.0-1\r\nRequires-Python: >=3.9\r\n" +
		"Requires-Dist: B[x]>=1\nRequires-Dist: c @ https://files.example/c.zip ; extra == 'A_b'\nRequires-Dist: not a requirement\n" +
		"Requires-Dist: d>1;\n os_name == 'nt'\nProvides-Extra: A_b\nProvides-Extra: :python_version<'3'\nDynamic: License\nX-New: 1\n\nRequires-Dist: body\n"))
	if err != nil {
		t.Fatal(err)
	}
	var requires []string
	for _, r := range m.Requires {
		requires = append(requires, r.String())
	}
	if d := cmp.Diff([]string{"b[x]>=1", `c @ https://files.example/c.zip ; extra == "a-b"`, `d>1; os_name == "nt"`}, requires); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"not a requirement"}, m.Malformed); d != "" {
		t.Error(d)
	}
	if m.Name != "some-project" || m.Version.String() != "1.0.post1" || m.RequiresPython != ">=3.9" || m.MetadataVersion != "2.4" {
		t.Errorf("got %+v", m)
	}
	if cmp.Diff([]string{"a-b"}, m.Extras) != "" || cmp.Diff([]string{"license"}, m.Dynamic) != "" {
		t.Errorf("extras %q, dynamic %q", m.Extras, m.Dynamic)
	}
	for _, s := range []string{
		"", "Metadata-Version: 2.1\nName: a", "Metadata-Version: 3.0\nName: a\nVersion: 1", "Name: a\nVersion: 1", "Metadata-Version: 2.1\nName: a\nVersion: 1\nName: a",
		"Metadata-Version: 2.1\nName: a b\nVersion: 1", "Metadata-Version: 2.1\nName: a\nVersion: x", "Metadata-Version: 2.1\nno header\nName: a\nVersion: 1",
		" Name: a", "Metadata-Version: 2.1\nMetadata-Version: 2.1\nName: a\nVersion: 1",
	} {
		if m, err := ParseMetadata([]byte(s)); err == nil {
			t.Errorf("%q accepted: %+v", s, m)
		}
	}
}

// A requirement is read whole or not at all: what is cut off is a marker, or
// the end of a version.
func TestMetadataLongRequirement(t *testing.T) {
	const head = "Metadata-Version: 2.1\nName: a\nVersion: 1\nRequires-Dist: b>=1;"
	marker := strings.Repeat(" os_name == 'x' or\n", 500) + " os_name == 'y'\n"
	m, err := ParseMetadata([]byte(head + marker))
	if err != nil || len(m.Requires) != 1 || !strings.HasSuffix(m.Requires[0].String(), `os_name == "y"`) {
		t.Errorf("%v, %d requirements, malformed %q", err, len(m.Requires), m.Malformed)
	}
	m, err = ParseMetadata([]byte(head + strings.Repeat(marker, 20)))
	if err != nil || len(m.Requires) != 0 || len(m.Malformed) != 1 || len(m.Malformed[0]) > 200 {
		t.Errorf("%v, %d requirements, %d malformed", err, len(m.Requires), len(m.Malformed))
	}
}

func TestStatic(t *testing.T) {
	for _, c := range []struct {
		version string
		dynamic []string
		want    bool
	}{
		{"2.1", nil, false},
		{"2.2", nil, true},
		{"2.10", nil, true},
		{"3.0", nil, true},
		{"2.2", []string{"license", "requires-dist"}, false},
		{"2.4", []string{"version"}, true},
		{"1.2", nil, false},
		{"", nil, false},
		{"2.x", nil, false},
	} {
		m := Metadata{MetadataVersion: c.version, Dynamic: c.dynamic}
		if m.Static() != c.want {
			t.Errorf("%s with Dynamic %q: want %v", c.version, c.dynamic, c.want)
		}
	}
}
