package strictjson

import (
	"encoding/json"
	"strings"
	"testing"
)

type inner struct {
	Name string `json:"name"`
}

type doc struct {
	Seq   int64    `json:"seq"`
	Items []inner  `json:"items"`
	Tags  []string `json:"tags,omitempty"`
}

func TestUnmarshalAccepts(t *testing.T) {
	var d doc
	if err := Unmarshal([]byte(`{"seq":3,"items":[{"name":"a"},{"name":"ü"}]}`+"\n"), &d); err != nil {
		t.Fatal(err)
	}
	if d.Seq != 3 || len(d.Items) != 2 || d.Items[1].Name != "ü" {
		t.Fatalf("got %+v", d)
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"duplicate key":        `{"seq":1,"seq":2,"items":[]}`,
		"case variant":         `{"Seq":1,"items":[]}`,
		"duplicate by case":    `{"seq":1,"SEQ":3,"items":[]}`,
		"unknown field":        `{"seq":1,"items":[],"more":1}`,
		"field of other place": `{"seq":1,"items":[],"name":"x"}`,
		"nested duplicate":     `{"seq":1,"items":[{"name":"a","name":"b"}]}`,
		"null":                 `{"seq":1,"items":null}`,
		"float":                `{"seq":1.5,"items":[]}`,
		"exponent":             `{"seq":1e3,"items":[]}`,
		"negative zero":        `{"seq":-0,"items":[]}`,
		"over 2^53":            `{"seq":9007199254740993,"items":[]}`,
		"trailing value":       `{"seq":1,"items":[]}{}`,
		"trailing text":        `{"seq":1,"items":[]}x`,
		"truncated":            `{"seq":1,"items":[`,
		"empty":                ``,
		"invalid UTF-8":        "{\"seq\":1,\"items\":[{\"name\":\"\xff\"}]}",
		"lone surrogate":       `{"seq":1,"items":[{"name":"\ud800"}]}`,
		"wrong type":           `{"seq":"1","items":[]}`,
		"deep":                 `{"seq":1,"items":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			var d doc
			if err := Unmarshal([]byte(in), &d); err == nil {
				t.Fatalf("accepted %s as %+v", in, d)
			}
		})
	}
}

func TestUnmarshalRefusesMaps(t *testing.T) {
	var v struct {
		M map[string]string `json:"m"`
	}
	if err := Unmarshal([]byte(`{"m":{}}`), &v); err == nil {
		t.Fatal("a map was accepted")
	}
}

// FuzzUnmarshal: never panics, and what is accepted is read the same way by
// encoding/json.
func FuzzUnmarshal(f *testing.F) {
	for _, s := range []string{`{"seq":1,"items":[{"name":"a"}]}`, `{"seq":1,"Seq":2,"items":[]}`, `[`, `{"seq":1e9}`, `{"items":[{"name":"\u0000"}],"seq":0}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d doc
		if err := Unmarshal(data, &d); err != nil {
			return
		}
		var again doc
		out, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := Unmarshal(out, &again); err != nil && d.Items != nil {
			t.Fatalf("%s was accepted, %s was not: %v", data, out, err)
		}
	})
}
