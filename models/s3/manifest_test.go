package s3

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/models/hub"
)

// TestManifest has a manifest that cannot be read: nothing is put and nothing
// deleted.
func TestManifest(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	target := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	rev := w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"config.json": "{}"})
	publish(t, target, rev)
	f.put(target.manifestKey(), `{"schema": "another"}`)
	f.reset()
	if _, err := put(t, target); code(err) != CodeManifest {
		t.Errorf("%v, want %s", err, CodeManifest)
	}
	if n := f.count("PUT", "DELETE"); n != 0 {
		t.Errorf("%d changes", n)
	}
}

// manifestSeeds are one that we write, and such as lead where none of ours
// would.
func manifestSeeds(t testing.TB) []string {
	target := &Target{opt: Options{Name: "models/llm"}, base: "p/"}
	name, err := hub.ParseRepo("team/model")
	if err != nil {
		t.Fatal(err)
	}
	o, ref := target.file(name, c1, "config.json", 2, artifact.Sum([]byte("{}"))), target.ref(name, "main", c1)
	b, err := target.encode(map[string]*object{o.key: o, ref.key: ref})
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	return []string{
		good,
		strings.Replace(good, `"path":"config.json"`, `"path":"../../x"`, 1),
		strings.Replace(good, `"repo":"team/model"`, `"repo":"../.darkmirror"`, 1),
		strings.Replace(good, c1, c1[1:], 1),
		strings.Replace(good, `"ref":"main"`, `"ref":"/main"`, 1),
		strings.Replace(good, `"size":2`, `"size":-2`, 1),
		strings.Replace(good, manifestSchema, "darkmirror.models-s3/v2", 1),
		strings.Replace(good, `"source"`, `"sauce"`, 1),
	}
}

// FuzzManifest reads what others may have written: nothing that it lists lies
// elsewhere than below the prefix, and what is read is written the same.
func FuzzManifest(f *testing.F) {
	seeds := manifestSeeds(f)
	for i, s := range seeds {
		if i > 0 && slices.Contains(seeds[:i], s) {
			f.Fatalf("seed %d is none", i)
		}
		f.Add([]byte(s))
	}
	target := &Target{opt: Options{Name: "models/llm"}, base: "p/"}
	if _, err := target.decode([]byte(seeds[0])); err != nil {
		f.Fatal(err)
	}
	for i, s := range seeds[1:] {
		if _, err := target.decode([]byte(s)); err == nil {
			f.Fatalf("seed %d is accepted", i+1)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		objects, err := target.decode(b)
		if err != nil {
			return
		}
		for key := range objects {
			if !strings.HasPrefix(key, "p/") || strings.HasPrefix(key, "p/"+manifestFolder) || strings.Contains(key, "/../") {
				t.Errorf("it lists %q", key)
			}
		}
		once, err := target.encode(objects)
		if err != nil {
			t.Fatal(err)
		}
		again, err := target.decode(once)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := target.encode(again)
		if err != nil || !bytes.Equal(once, twice) || !slices.Equal(slices.Sorted(maps.Keys(objects)), slices.Sorted(maps.Keys(again))) {
			t.Errorf("%s is written as %s, %v", once, twice, err)
		}
	})
}

// TestOptions refuses what cannot be meant.
func TestOptions(t *testing.T) {
	good := Options{Name: "models/llm", Endpoint: "https://s3.example", Bucket: "bucket"}
	if _, err := New(good, nil, nil, nil, nil); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Options){
		"name":       func(o *Options) { o.Name = "llm" },
		"no host":    func(o *Options) { o.Endpoint = "s3.example" },
		"user":       func(o *Options) { o.Endpoint = "https://user@s3.example" },
		"path":       func(o *Options) { o.Endpoint = "https://s3.example/bucket" },
		"bucket":     func(o *Options) { o.Bucket = "" },
		"prefix":     func(o *Options) { o.Prefix = "../x" },
		"our folder": func(o *Options) { o.Prefix = "x/.darkmirror" },
		"half a key": func(o *Options) { o.AccessKey = "a" },
		"verify":     func(o *Options) { o.Verify = "sometimes" },
		"another host": func(o *Options) { // in whose place the library puts that of the region
			o.Endpoint, o.Region, o.AccessKey, o.SecretKey = "https://s3.amazonaws.com", "eu-west-1", "a", "b"
		},
	} {
		o := good
		change(&o)
		if _, err := New(o, nil, nil, nil, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
