package s3

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// TestPublish moves a branch and takes a repository away: what readers see is
// the layout of doc.go, what others put there stays, and what is there is not
// sent again.
func TestPublish(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	target := w.target(t, Options{Endpoint: f.url, Prefix: "models/llm"}, fetch.Config{})
	f.put("models/llm/team/model/of-others", "stays")
	first := w.rev(t, "team/model", c1, []string{"main", "pr/1"}, small())
	gone := w.rev(t, "datasets/team/gone", c1, []string{"main"}, map[string]string{"data.csv": "1"})
	if got, want := publish(t, target, gone, first), "2 revisions, 6 put   s3://bucket/models/llm/"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	base := "models/llm/team/model/"
	want := []string{
		"models/llm/datasets/team/gone/" + c1 + "/data.csv", "models/llm/datasets/team/gone/refs/main",
		base + c1 + "/README.md", base + c1 + "/__init__.py", base + c1 + "/a folder/x+y ü.txt", base + c1 + "/config.json",
		base + c1 + "/model.safetensors", base + "of-others", base + "refs/main", base + "refs/pr/1",
	}
	if diff := cmp.Diff(want, f.keys()); diff != "" {
		t.Fatal(diff)
	}
	for path, text := range small() {
		if got := f.get(base + c1 + "/" + path); string(got.body) != text {
			t.Errorf("%s has %d bytes, want %d", path, len(got.body), len(text))
		}
	}
	if got := string(f.get(base + "refs/main").body); got != c1 {
		t.Errorf("refs/main holds %q", got)
	}
	// What a reader looks for first comes last.
	order := strings.Join(f.log, "\n")
	if c, m := strings.Index(order, "PUT "+base+c1+"/config.json"), strings.Index(order, "COMPLETE "+base+c1+"/model"); m < 0 || c < m || strings.Index(order, "PUT "+base+"refs/main") < c {
		t.Errorf("the order is wrong:\n%s", order)
	}

	f.reset()
	if got, want := publish(t, target, gone, first), "2 revisions, 6 unchanged   s3://bucket/models/llm/"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if n, all := f.count("LIST", "GET"), len(f.log); n != all {
		t.Errorf("a run without changes did more than read lists:\n%s", strings.Join(f.log, "\n"))
	}

	f.reset()
	files := small()
	files["config.json"] = `{"a": 1}`
	second := w.rev(t, "team/model", c2, []string{"main"}, files)
	publish(t, target, second)
	if f.count("COPY") != 3 || f.count("PART") != 0 {
		t.Errorf("%d parts were sent and %d copied, want 0 and 3:\n%s", f.count("PART"), f.count("COPY"), w.log.String())
	}
	want = []string{
		base + c2 + "/README.md", base + c2 + "/__init__.py", base + c2 + "/a folder/x+y ü.txt", base + c2 + "/config.json",
		base + c2 + "/model.safetensors", base + "of-others", base + "refs/main",
	}
	if diff := cmp.Diff(want, f.keys()); diff != "" {
		t.Fatal(diff)
	}
	order = strings.Join(f.log, "\n")
	if strings.Index(order, "DELETE") < strings.LastIndex(order, "PUT "+base+"refs/main") {
		t.Errorf("something was deleted before the ref moved:\n%s", order)
	}
	if f.open() != 0 {
		t.Error("uploads are left")
	}
}

// TestShared has two sources in one prefix: neither takes away what the other
// still lists, and what others have put in an object's place stays.
func TestShared(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	a := w.target(t, Options{Endpoint: f.url}, fetch.Config{})
	b := w.target(t, Options{Endpoint: f.url, Name: "models/other"}, fetch.Config{})
	rev := w.rev(t, "team/model", c1, []string{"main"}, map[string]string{"config.json": "{}", "w.bin": "w"})
	publish(t, a, rev)
	f.reset()
	publish(t, b, rev)
	if n := f.count("PUT"); n != 1 {
		t.Errorf("%d objects were put, want the manifest alone:\n%s", n, strings.Join(f.log, "\n"))
	}
	publish(t, a)
	if n := len(f.keys()); n != 3 {
		t.Errorf("%d objects, want all 3: %v", n, f.keys())
	}
	f.put("team/model/"+c1+"/w.bin", "another's")
	text := publish(t, b)
	if diff := cmp.Diff([]string{"team/model/" + c1 + "/w.bin"}, f.keys()); diff != "" || !strings.Contains(text, "stays") {
		t.Errorf("%s%s", text, diff)
	}
}

// TestVerify finds what has been damaged in the store: by size at once, by
// content where it is asked to read.
func TestVerify(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	rev := w.rev(t, "team/model", c1, []string{"main"}, small())
	publish(t, w.target(t, Options{Endpoint: f.url}, fetch.Config{}), rev)
	key := "team/model/" + c1 + "/model.safetensors"
	f.get(key).body[7] ^= 1 // with its etag and checksum
	f.get("team/model/" + c1 + "/README.md").body = nil
	full := w.target(t, Options{Endpoint: f.url, Verify: "full"}, fetch.Config{})
	if got, want := publish(t, full, rev), "1 revision, 2 put, 3 unchanged, 1 damaged and put again   s3://bucket/"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if string(f.get(key).body) != weights() {
		t.Error("it is still damaged")
	}
}

// TestNames refuses a revision that the store has no names for, and no other.
func TestNames(t *testing.T) {
	f, w := newFake(t), newWorld(t, t.TempDir())
	long := w.rev(t, "team/long", c1, []string{"main"}, map[string]string{strings.Repeat("x/", 500) + "y": "1"})
	twice := w.rev(t, "team/twice", c1, []string{"main"}, map[string]string{"y": "1"})
	fine := w.rev(t, "team/fine", c1, []string{"main"}, map[string]string{"y": "1"})
	text, err := put(t, w.target(t, Options{Endpoint: f.url}, fetch.Config{}), fine, long, twice, twice)
	in, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok || len(in.Items) != 2 || code(err) != CodeName || !strings.HasPrefix(text, "2 revisions, 2 put") {
		t.Errorf("%q, %v", text, err)
	}
	want := []string{"team/fine/" + c1 + "/y", "team/fine/refs/main", "team/twice/" + c1 + "/y", "team/twice/refs/main"}
	if diff := cmp.Diff(want, f.keys()); diff != "" {
		t.Error(diff)
	}
}

// TestAddress has the bucket in the path or in the host's name, and asks
// nobody where it is.
func TestAddress(t *testing.T) {
	for virtual, want := range map[bool]string{false: "https://s3.example/bucket/", true: "https://bucket.s3.example/"} {
		var seen []string
		target, err := New(Options{Name: "models/llm", Endpoint: "https://s3.example", Bucket: "bucket", VirtualHost: virtual, AccessKey: accessKey, SecretKey: secretKey},
			roundTrip(func(r *http.Request) (*http.Response, error) {
				seen = append(seen, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path)
				return nil, errors.New("no network")
			}), nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := put(t, target); code(err) != CodeUnreachable {
			t.Errorf("%v, want %s", err, CodeUnreachable)
		}
		if diff := cmp.Diff([]string{want}, seen); diff != "" {
			t.Error(diff)
		}
	}
}
