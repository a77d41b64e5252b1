package pypi

import (
	"encoding/json"
	"fmt"
	"net/url"
	"runtime"
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
	read := func(text string) error {
		j := newJSONReader([]byte(text))
		return j.object(func(string) error { return j.skip() })
	}
	for _, n := range []int{1, 10, 17, 40} {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf(`"k%d":0`, i))
		}
		if err := read("{" + strings.Join(keys, ",") + "}"); err != nil {
			t.Errorf("%d keys: %v", n, err)
		}
		for i := range n {
			bad := "{" + strings.Join(append(keys[:n:n], fmt.Sprintf(`"k%d":1`, i)), ",") + "}"
			if err := read(bad); err == nil || !strings.Contains(err.Error(), "twice") {
				t.Errorf("key %d of %d twice: %v", i, n, err)
			}
		}
	}
	var many strings.Builder
	for i := range maxJSONKeys + 20 {
		fmt.Fprintf(&many, `,"k%d":0`, i)
	}
	if err := read("{" + many.String()[1:] + "}"); err == nil || !strings.Contains(err.Error(), "over 10000 keys") {
		t.Errorf("many keys: %v", err)
	}
}

// TestJSONUnread: what nobody reads of a page takes no memory.
func TestJSONUnread(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"meta":{"api-version":"1.1"},"name":"foo","files":[],"unread":{`)
	for i := range 200_000 {
		fmt.Fprintf(&b, `"key%d":{"number":%d,"text":"\u00e9\n"},`, i, i)
	}
	b.WriteString(`"last":null}}`)
	body := []byte(b.String())
	base, err := url.Parse("https://index.example/simple/foo/")
	if err != nil {
		t.Fatal(err)
	}
	if n := allocated(func() {
		if _, err := parseJSON(body, base, nil); err != nil {
			t.Error(err)
		}
	}); n > 1<<20 {
		t.Errorf("%d bytes were allocated for a page of %d without files", n, len(body))
	}
}

// allocated is how many bytes fn allocates, kept or not.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
