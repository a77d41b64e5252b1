package repo_test

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/models/repo"
)

func TestCheckIndexes(t *testing.T) {
	four := shards("model-%05d-of-00004.safetensors", 4)
	many := shards("model-%05d-of-00100.safetensors", 100)
	for _, c := range []struct {
		name, listing string
		docs          map[string]string
		is            error // nil: whole
		says          []string
	}{
		{name: "none", listing: "1K config.json\n1G model.safetensors"},
		{name: "whole", listing: llama3, docs: map[string]string{"model.safetensors.index.json": four}},
		{name: "in a folder", listing: "1G unet/a.safetensors", docs: map[string]string{"unet/diffusion_pytorch_model.safetensors.index.json": `{"weight_map":{"x":"a.safetensors"}}`}},
		{name: "beside it, not below the root", listing: "1G a.safetensors", docs: map[string]string{"unet/model.safetensors.index.json": `{"weight_map":{"x":"a.safetensors"}}`}, is: repo.ErrIncomplete, says: []string{"unet/a.safetensors is missing"}},
		{name: "in a folder below", listing: "1G sub/a.safetensors", docs: map[string]string{"model.safetensors.index.json": `{"weight_map":{"x":"sub/a.safetensors"}}`}},
		{name: "numbers from zero to the last", listing: "1 m-00000-of-00001.safetensors\n1 m-00001-of-00001.safetensors", docs: map[string]string{"model.safetensors.index.json": `{"weight_map":{"x":"m-00000-of-00001.safetensors","y":"m-00001-of-00001.safetensors"}}`}},
		{name: "an index goes above names", listing: "1 m-00001-of-00004.safetensors\n1 m-00004-of-00004.safetensors", docs: map[string]string{"model.safetensors.index.json": `{"weight_map":{"x":"m-00001-of-00004.safetensors","y":"m-00004-of-00004.safetensors"}}`}},
		{name: "numbers from zero", listing: "1 m-00000-of-00002.bin\n1 m-00001-of-00002.bin"},
		{name: "shards of data", listing: "1 train-00000-of-00002.parquet"},
		{name: "another precision", listing: "1 m-00001-of-00002.fp16.safetensors", is: repo.ErrIncomplete, says: []string{"m-00002-of-00002.fp16.safetensors is missing"}},
		{name: "a GGUF in two", listing: "1 m-Q8_0-00002-of-00002.gguf", is: repo.ErrIncomplete, says: []string{"m-Q8_0-00001-of-00002.gguf is missing"}},
		{name: "two missing", listing: "1 model-00001-of-00004.safetensors\n1 model-00004-of-00004.safetensors", docs: map[string]string{"model.safetensors.index.json": four}, is: repo.ErrIncomplete, says: []string{"model.safetensors.index.json", "model-00002-of-00004.safetensors, model-00003-of-00004.safetensors are missing"}},
		{name: "a hundred missing", listing: "1K config.json", docs: map[string]string{"model.safetensors.index.json": many}, is: repo.ErrIncomplete, says: []string{"model-00020-of-00100.safetensors and 80 more are missing"}},
		{name: "a million missing by name", listing: "1 m-000001-of-999999.bin", is: repo.ErrIncomplete, says: []string{"m-000002-of-999999.bin", "and 999978 more are missing"}},
		{name: "two indices", listing: "1K config.json", docs: map[string]string{"model.safetensors.index.json": four, "pytorch_model.bin.index.fp16.json": `{"weight_map":{"x":"p.bin"}}`}, is: repo.ErrIncomplete, says: []string{"model-00001-of-00004.safetensors", "pytorch_model.bin.index.fp16.json", "p.bin is missing"}},
		{name: "cannot be read", listing: "1K model.safetensors.index.json", is: fs.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTree(t, c.listing, c.docs)
			err := repo.CheckIndexes(tr.files, tr.read)
			if !errors.Is(err, c.is) {
				t.Fatalf("want %v, got %v", c.is, err)
			}
			if errors.Is(err, repo.ErrIndex) {
				t.Errorf("the index itself was refused: %v", err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}
}

// badIndexes are defects of an index; each is refused with the words.
var badIndexes = map[string]string{
	``:                                       "ends too early",
	`[]`:                                     "want an object",
	`"x"`:                                    "want an object",
	`[{"weight_map":{"x":"a.safetensors"}}]`: "want an object",
	`{}`:                                     "no weight_map",
	`{"Weight_map":{"x":"a.safetensors"}}`:   "no weight_map",
	`{"weight_map":{}}`:                      "empty",
	`{"weight_map":["a.safetensors"]}`:       "want an object of tensors",
	`{"weight_map":"a.safetensors"}`:         "want an object of tensors",
	`{"weight_map":null}`:                    "want an object of tensors",
	`{"weight_map":{"x":1}}`:                 "want the name of a file",
	`{"weight_map":{"x":null}}`:              "want the name of a file",
	`{"weight_map":{"x":["a.safetensors"]}}`: "want the name of a file",
	`{"weight_map":{"x":{"y":"a"}}}`:         "want the name of a file",
	`{"weight_map":{"x":""}}`:                "want 1 to",
	`{"weight_map":{"x":"../a.safetensors"}}`:                  "leaves the folder",
	`{"weight_map":{"x":"b/../a.safetensors"}}`:                "leaves the folder",
	`{"weight_map":{"x":"./a.safetensors"}}`:                   "leaves the folder",
	`{"weight_map":{"x":"b//a.safetensors"}}`:                  "leaves the folder",
	`{"weight_map":{"x":"/a.safetensors"}}`:                    "an absolute path",
	`{"weight_map":{"x":"..\\a.safetensors"}}`:                 "'\\'",
	`{"weight_map":{"x":"C:a.safetensors"}}`:                   "':'",
	`{"weight_map":{"x":"\u002e\u002e/a.safetensors"}}`:        "leaves the folder",
	`{"weight_map":{"x":"a\u0000.safetensors"}}`:               "control character",
	`{"weight_map":{"x":"a.safetensors","x":"a"}}`:             `"x" stands twice`,
	`{"weight_map":{"x":"a.safetensors","\u0078":"a"}}`:        `"x" stands twice`,
	`{"weight_map":{"x":"a"},"weight_map":{"y":"a"}}`:          `"weight_map" stands twice`,
	`{"metadata":{"a":1,"a":2},"weight_map":{"x":"a"}}`:        `"a" stands twice`,
	`{"weight_map":{"x":"a.safetensors"}} x`:                   "data after the value",
	`{"weight_map":{"x":"a.safetensors"`:                       "want ',' or '}'",
	"{\"weight_map\":{\"x\":\"a\xff\"}}":                       "invalid UTF-8",
	`{"weight_map":{"x":"a.safetensors",}}`:                    "want a key",
	strings.Repeat(`{"a":`, 100):                               "nested deeper",
	`{"weight_map":{"x":"` + strings.Repeat("a", 2000) + `"}}`: "want 1 to",
	`{"` + strings.Repeat("k", 20_000) + `":1}`:                "a key of 20000 bytes",
}

func TestCheckIndexesRefuses(t *testing.T) {
	for in, says := range badIndexes {
		tr := newTree(t, "1 a.safetensors\n1 a", map[string]string{"model.safetensors.index.json": in})
		err := repo.CheckIndexes(tr.files, tr.read)
		if !errors.Is(err, repo.ErrIndex) || !errors.Is(err, repo.ErrIncomplete) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.80s: want %q, got %v", in, says, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.80s: a message of %d bytes", in, len(err.Error()))
		}
	}
}

// TestLargeIndex: 40 MiB of an index cost little beside their own bytes, and a
// hostile one of that size no more.
func TestLargeIndex(t *testing.T) {
	var whole, keys strings.Builder
	whole.WriteString(`{"weight_map":{`)
	for i := 0; whole.Len() < 40<<20; i++ {
		fmt.Fprintf(&whole, `"model.layers.%d.mlp.experts.%d.down_proj.weight_packed_and_scaled":"model-%05d-of-00500.safetensors",`, i/1000, i%1000, i%500+1)
	}
	whole.WriteString(`"last":"model-00001-of-00500.safetensors"}}`)
	keys.WriteString(`{"weight_map":{`)
	for i := 0; keys.Len() < 40<<20; i++ {
		fmt.Fprintf(&keys, `"%x":"a",`, i)
	}
	keys.WriteString(`"last":"a"}}`)
	for name, c := range map[string]struct {
		doc   string
		fails string
	}{
		"whole":     {whole.String(), ""},
		"keys":      {keys.String(), "more than 1048576 keys"},
		"one value": {`{"a":"` + strings.Repeat("x", 40<<20) + `"}`, "no weight_map"},
		"brackets":  {strings.Repeat("[", 40<<20), "want an object"},
	} {
		tr := &tree{}
		for i := 1; i <= 500; i++ {
			tr.files = append(tr.files, repo.File{Path: fmt.Sprintf("model-%05d-of-00500.safetensors", i)})
		}
		tr.files = append(tr.files, repo.File{Path: "model.safetensors.index.json"})
		b := []byte(c.doc)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := repo.CheckIndexes(tr.files, func(string, int64) ([]byte, error) { return b, nil })
		runtime.ReadMemStats(&after)
		if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s: want %q, got %v", name, c.fails, err)
		}
		// Garbage included: what is alive at once is much less.
		const most = 160 << 20
		if got := after.TotalAlloc - before.TotalAlloc; got > most {
			t.Errorf("%s: %d bytes were allocated in all, want at most %d", name, got, most)
		}
	}
}

// FuzzCheckIndexes: never panics, and an index that is taken names files that
// are there.
func FuzzCheckIndexes(f *testing.F) {
	for in := range badIndexes {
		if len(in) < 1000 {
			f.Add([]byte(in))
		}
	}
	f.Add([]byte(shards("model-%05d-of-00002.safetensors", 2)))
	f.Add([]byte(`{"metadata":{"total_size":1e9,"x":NaN},"weight_map":{"x":"a.safetensors","y":"sub/a.safetensors"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		files := []repo.File{{Path: "model.safetensors.index.json"}, {Path: "a.safetensors"}, {Path: "sub/a.safetensors"}}
		err := repo.CheckIndexes(files, func(string, int64) ([]byte, error) { return b, nil })
		if err == nil && !strings.Contains(string(b), "weight_map") && !strings.Contains(string(b), `\u`) {
			t.Errorf("%q was taken", b)
		}
		if err != nil && !errors.Is(err, repo.ErrIncomplete) {
			t.Errorf("%q: an error of no class: %v", b, err)
		}
	})
}
