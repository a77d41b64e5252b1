package packaging

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// vectors were computed by the packaging library from inputs of ours.
type vectors struct {
	MadeWith   string           `json:"made_with"`
	Versions   [][2]*string     `json:"versions"`
	Order      []ranked         `json:"order"`
	Specifiers []specVector     `json:"specifiers"`
	Targets    []string         `json:"targets"`
	Markers    []markerVector   `json:"markers"`
	Tags       map[string]tagID `json:"tags"`
}

type ranked struct {
	text string
	rank int
}

func (r *ranked) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &[2]any{&r.text, &r.rank}) }

type specVector struct {
	text  string
	cases []specCase // nil: not a specifier
}

func (v *specVector) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[2]any{&v.text, &v.cases})
}

type specCase struct {
	version string
	want    bool
}

func (c *specCase) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[2]any{&c.version, &c.want})
}

type markerVector struct {
	text string
	want []bool // a value for each target; nil: refused
}

func (v *markerVector) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[2]any{&v.text, &v.want})
}

type tagID struct {
	count  int
	digest string
}

func (v *tagID) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &[2]any{&v.count, &v.digest}) }

func loadVectors(t *testing.T) *vectors {
	t.Helper()
	name := os.Getenv("PYPI_VECTORS") // a larger set, by hand
	if name == "" {
		name = "testdata/vectors.json"
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Versions) < 100 || len(v.Order) < 100 || len(v.Specifiers) < 100 || len(v.Markers) < 100 || len(v.Tags) < 5 {
		t.Fatal("the vectors are nearly empty")
	}
	return &v
}

func TestVersionVectors(t *testing.T) {
	v := loadVectors(t)
	for _, c := range v.Versions {
		got, err := ParseVersion(*c[0])
		switch {
		case c[1] == nil && err == nil:
			t.Errorf("%q accepted as %s", *c[0], got)
		case c[1] != nil && err != nil:
			t.Errorf("%q refused: %v", *c[0], err)
		case c[1] != nil && got.String() != *c[1]:
			t.Errorf("%q: got %s, want %s", *c[0], got, *c[1])
		}
	}
}

func TestVersionOrderVectors(t *testing.T) {
	order := loadVectors(t).Order
	parsed := make([]Version, len(order))
	for i, o := range order {
		v, err := ParseVersion(o.text)
		if err != nil {
			t.Fatal(err)
		}
		parsed[i] = v
	}
	step := max(1, len(order)/400)
	for i := 0; i < len(order); i += step {
		for j := range order {
			want := 0
			if order[i].rank < order[j].rank {
				want = -1
			} else if order[i].rank > order[j].rank {
				want = 1
			}
			if got := parsed[i].Compare(parsed[j]); got != want {
				t.Fatalf("%s against %s: got %d, want %d", order[i].text, order[j].text, got, want)
			}
		}
	}
}

func TestSpecifierVectors(t *testing.T) {
	for _, v := range loadVectors(t).Specifiers {
		c, err := parseClause(strings.TrimSpace(v.text))
		if (err != nil) != (v.cases == nil) {
			t.Errorf("%q: %v, want accepted %v", v.text, err, v.cases != nil)
			continue
		}
		for _, k := range v.cases {
			ver, err := ParseVersion(k.version)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.contains(&ver); got != k.want {
				t.Errorf("%q contains %q: got %v, want %v", v.text, k.version, got, k.want)
			}
		}
	}
}

func TestMarkerVectors(t *testing.T) {
	v := loadVectors(t)
	for _, c := range v.Markers {
		m, err := ParseMarker(c.text)
		if (err != nil) != (c.want == nil) {
			t.Errorf("%q: %v, want accepted %v", c.text, err, c.want != nil)
			continue
		}
		for i, want := range c.want {
			target, err := ParseTarget(v.Targets[i])
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Eval(&target.Env); got != truth(want) {
				t.Errorf("%q for %s: got %v, want %v", c.text, target.Text, got, want)
			}
		}
	}
}

func TestTagVectors(t *testing.T) {
	for name, want := range loadVectors(t).Tags {
		target, err := ParseTarget(name)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, tag := range target.Tags() {
			lines = append(lines, tag.String())
		}
		sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
		if len(lines) != want.count || hex.EncodeToString(sum[:]) != want.digest {
			t.Errorf("%s: %d tags, want %d; first %v", name, len(lines), want.count, lines[:5])
		}
	}
}
