package config

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The schema is committed, so that a package can install it and a review
// shows what changes.
func TestSchemaIsCommitted(t *testing.T) {
	const file = "darkmirror.schema.json"
	if *update {
		if err := os.WriteFile(file, Schema(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(Schema())); diff != "" {
		t.Errorf("%s is not what the types give; run go test -update (-file +types):\n%s", file, diff)
	}
}

func TestSchemaContent(t *testing.T) {
	var s struct {
		OneOf []struct {
			Title      string
			Required   []string
			Additional *bool `json:"additionalProperties"`
			Properties map[string]struct {
				Description string
				Default     string
				Const       any
				Enum        []string
				Items       struct {
					Required   []string
					Properties map[string]json.RawMessage
				}
			}
		}
	}
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.OneOf) != 2 || s.OneOf[0].Title != Outside || s.OneOf[1].Title != Inside {
		t.Fatalf("roles are %+v, want outside and inside", s.OneOf)
	}
	for _, r := range s.OneOf {
		if !slices.Equal(r.Required, []string{"version", "role"}) || r.Additional == nil || *r.Additional {
			t.Errorf("%s: required %v, additionalProperties %v", r.Title, r.Required, r.Additional)
		}
		if r.Properties["role"].Const != r.Title || r.Properties["version"].Const != 1.0 {
			t.Errorf("%s: role is %v, version %v", r.Title, r.Properties["role"].Const, r.Properties["version"].Const)
		}
		for key, p := range r.Properties {
			if p.Description == "" {
				t.Errorf("%s: %s has no description", r.Title, key)
			}
		}
		if !slices.Contains(r.Properties["pypi"].Items.Required, "name") {
			t.Errorf("%s: the name of a source is not required", r.Title)
		}
	}
	out, in := s.OneOf[0].Properties, s.OneOf[1].Properties
	if out["volume_size"].Default != "1GiB" || !slices.Equal(in["gap"].Enum, []string{GapRefuse, GapAcceptIfComplete}) {
		t.Errorf("volume_size %+v, gap %+v", out["volume_size"], in["gap"])
	}
	if _, ok := out["pypi"].Items.Properties["index"]; !ok {
		t.Error("the keys of pypi's own configuration are missing")
	}
	if _, ok := in["outbox"]; ok {
		t.Error("outbox is a key of role inside")
	}
	if n := strings.Count(string(Schema()), "https://"); n != 1 {
		t.Errorf("%d addresses in the schema, want only its own dialect's", n)
	}
}
