package pypi

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// FuzzJSON: what is passed over is JSON, and what is JSON is passed over, but
// for keys that are there twice and for depth.
func FuzzJSON(f *testing.F) {
	seed(f, `{"a":[1,-2.5e+3,"x\n\u00e9",true,false,null,{}],"b":{"c":[]}} `, `[`, `{"a":1,}`, `[1 2]`, `"\ud800"`, `01`, `-`, `1.`, `{"a"}`, "\"\x01\"", `"\`, `nul`, `[[[]]]`, `{"a":1,"a":2}`,
		strings.Repeat("[", 40)+strings.Repeat("]", 40))
	f.Fuzz(func(t *testing.T, s string) {
		j := newJSONReader([]byte(s))
		err := j.skip()
		if err == nil {
			err = j.end()
		}
		if valid := json.Valid([]byte(s)); valid != (err == nil) {
			if valid && (strings.Contains(err.Error(), "twice") || strings.Contains(err.Error(), "deeper")) {
				return
			}
			t.Fatalf("%q: valid %v, %v", s, valid, err)
		}
	})
}

// TestJSONStrings: strings are what encoding/json makes of them.
func TestJSONStrings(t *testing.T) {
	for _, s := range []string{`"plain"`, `""`, `"é\u00e9\"\\\/\b\f\n\r\t"`, `"😀\ud83d\ude00"`, `"\ud800x"`, "\"a\xffb\""} {
		var want string
		if err := json.Unmarshal([]byte(s), &want); err != nil {
			t.Fatal(err)
		}
		if got, err := newJSONReader([]byte(s)).string(); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", s, got, err, want)
		}
	}
}

func TestJSONKeyTwice(t *testing.T) {
	for _, n := range []int{1, 10, 17, 40} {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf(`"k%d":0`, i))
		}
		good := "{" + strings.Join(keys, ",") + "}"
		if err := newJSONReader([]byte(good)).skip(); err != nil {
			t.Errorf("%d keys: %v", n, err)
		}
		for i := range n {
			bad := "{" + strings.Join(append(keys[:n:n], fmt.Sprintf(`"k%d":1`, i)), ",") + "}"
			if err := newJSONReader([]byte(bad)).skip(); err == nil || !strings.Contains(err.Error(), "twice") {
				t.Errorf("key %d of %d twice: %v", i, n, err)
			}
		}
	}
}
