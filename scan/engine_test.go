package scan

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// marker is what the test's antivirus looks for.
const marker = "darkmirror test marker: not harmful"

// antivirus finds the marker in files that are no archives, and counts.
type antivirus struct {
	mu     sync.Mutex
	looked int
	dated  time.Time
}

func (*antivirus) ByContent() bool { return true }

func (v *antivirus) Engine() Engine {
	return Engine{Name: "antivirus", Version: "1", Database: artifact.Sum([]byte(v.dated.String())), Dated: v.dated}
}

func (v *antivirus) Inspect(_ context.Context, f *walk.File) ([]Finding, error) {
	if f.Opened || !f.Regular() {
		return nil, nil
	}
	v.mu.Lock()
	v.looked++
	v.mu.Unlock()
	b, err := io.ReadAll(f.Reader())
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(b, []byte(marker)) {
		return nil, nil
	}
	return []Finding{{Kind: KindMalware, ID: "Test.Marker", Severity: Critical}}, nil
}

// dpkg gathers a line a package from files named "status", and the system
// from "os-release".
type dpkg struct{}

func (dpkg) Engine() Engine { return Engine{Name: "dpkg", Version: "1"} }

func (dpkg) Gather(_ context.Context, f *walk.File) (*Evidence, error) {
	if !f.Regular() || !strings.HasSuffix(f.Name(), "status") {
		return nil, nil
	}
	b, err := f.Bytes(1 << 20)
	if err != nil {
		return nil, err
	}
	ev := &Evidence{Form: "dpkg"}
	for line := range strings.Lines(string(b)) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		ev.Packages = append(ev.Packages, Package{Type: "deb", Name: name, Version: version})
	}
	return ev, nil
}

// lister is a judge that says what it was given.
type lister struct{ got map[string][]string }

func (*lister) Engine() Engine { return Engine{Name: "lister", Version: "1"} }

func (l *lister) Judge(_ context.Context, s Subject, inv *Inventory) ([]Finding, error) {
	for _, p := range inv.Parts {
		key := s.Artifact.Name + " " + p.Name
		l.got[key] = []string{}
		for _, ev := range p.Evidence {
			for _, pkg := range ev.Packages {
				l.got[key] = append(l.got[key], pkg.Name+" "+pkg.Version)
			}
		}
	}
	return nil, nil
}

// memory is a cache in memory.
type memory struct {
	mu sync.Mutex
	m  map[artifact.Digest][]byte
}

func (c *memory) Get(k artifact.Digest) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.m[k]
	return b, ok
}

func (c *memory) Put(k artifact.Digest, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[k] = b
	return nil
}

// world holds blobs.
type world map[artifact.Digest]string

func (w world) file(path, content string) artifact.File {
	d := artifact.Sum([]byte(content))
	w[d] = content
	return artifact.File{Path: path, Digest: d, Size: int64(len(content))}
}

// pairs are names and contents in turn.
func tarOf(t *testing.T, pairs ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for p := range slices.Chunk(pairs, 2) {
		if err := w.WriteHeader(&tar.Header{Name: p[0], Mode: 0o644, Size: int64(len(p[1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, p[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func gzipOf(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zipOf(t *testing.T, pairs ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for p := range slices.Chunk(pairs, 2) {
		f, err := w.CreateRaw(&zip.FileHeader{
			Name: p[0], Method: zip.Store, CRC32: crc(p[1]),
			CompressedSize64: uint64(len(p[1])), UncompressedSize64: uint64(len(p[1])),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, p[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// image makes an index of one platform whose layers are given as tar files.
func (w world) image(t *testing.T, name string, layers ...string) artifact.Artifact {
	t.Helper()
	a := artifact.Artifact{Name: name, Version: "1.0"}
	add := func(kind, content string) spec.Descriptor {
		d := spec.FromSHA256(artifact.Sum([]byte(content)))
		f := w.file(name+"/"+kind+"/"+string(d), content)
		if !slices.ContainsFunc(a.Files, func(o artifact.File) bool { return o.Path == f.Path }) {
			a.Files = append(a.Files, f)
		}
		return spec.Descriptor{Digest: d, Size: f.Size}
	}
	m := spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIManifest}
	c := add("blobs", `{"architecture":"amd64","os":"linux"}`)
	c.MediaType = "application/vnd.oci.image.config.v1+json"
	m.Config = &c
	for _, l := range layers {
		d := add("blobs", gzipOf(t, l))
		d.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
		m.Layers = append(m.Layers, d)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	child := add("manifests", string(raw))
	child.MediaType, child.Platform = spec.OCIManifest, &spec.Platform{OS: "linux", Architecture: "amd64"}
	raw, err = json.Marshal(spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIIndex, Manifests: []spec.Descriptor{child}})
	if err != nil {
		t.Fatal(err)
	}
	add("manifests", string(raw))
	return a
}

func snapOf(source string, list ...artifact.Artifact) *artifact.Snapshot {
	return &artifact.Snapshot{Schema: artifact.SnapshotSchema, Source: source, Artifacts: list}
}

// What lies in a wheel in a layer in an index is found, and named by its whole
// path.
func TestNestedPath(t *testing.T) {
	w := world{}
	wheel := zipOf(t, "lib/__init__.py", "", "lib/data.bin", "abc "+marker)
	img := w.image(t, "platform/app", tarOf(t, "etc/hello", "hello"), tarOf(t, "opt/lib-1.0-py3-none-any.whl", wheel))
	av := &antivirus{}
	r := &Runner{Inspectors: []Inspector{av}, Open: opens(w), Scratch: t.TempDir()}
	rep, err := r.Run(t.Context(), []*artifact.Snapshot{snapOf("oci/platform", img)}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Held) != 1 || rep.Held[0].Code != CodeMalicious {
		t.Fatalf("held %+v, want the image as malicious", rep.Held)
	}
	f := rep.Items[0].Findings
	if len(f) != 1 || f[0].ID != "Test.Marker" || f[0].Scanner != "antivirus" {
		t.Fatalf("findings %+v, want one", f)
	}
	parts := strings.Split(f[0].Path, " › ")
	for i, want := range []string{"index ", "linux/amd64 ", "layer 2 ", "opt/lib-1.0-py3-none-any.whl", "lib/data.bin"} {
		if i >= len(parts) || !strings.HasPrefix(parts[i], want) {
			t.Fatalf("path %q, want its part %d to start with %q", f[0].Path, i, want)
		}
	}
}

// Layers are laid over one another: what a later one replaces or hides is not
// what runs.
func TestLayersMerge(t *testing.T) {
	w := world{}
	img := w.image(t, "platform/app",
		tarOf(t, "var/lib/dpkg/status", "openssl 1.1.1\ncurl 7.1", "opt/old/status", "gone 1.0", "srv/a/b/status", "hidden 1.0"),
		tarOf(t, "./var/lib/dpkg/status", "openssl 3.0\n", "opt/.wh.old", "", "srv/a/.wh..wh..opq", "", "srv/a/status", "seen 1.0"),
	)
	l := &lister{got: map[string][]string{}}
	r := &Runner{Gatherers: []Gatherer{dpkg{}}, Judges: []Judge{l}, Open: opens(w), Scratch: t.TempDir()}
	rep, err := r.Run(t.Context(), []*artifact.Snapshot{snapOf("oci/platform", img)}, noon)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Held) != 0 {
		t.Errorf("held %+v", rep.Held)
	}
	want := map[string][]string{"platform/app linux/amd64": {"seen 1.0", "openssl 3.0"}}
	if diff := cmp.Diff(want, l.got); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
	if rep.Items[0].Packages != 2 {
		t.Errorf("%d packages, want 2", rep.Items[0].Packages)
	}
}

// What was judged is not looked at again, and the report is the same; other
// data of the engine, and only that engine, is a reason to look again.
func TestCache(t *testing.T) {
	w := world{}
	clean := artifact.Artifact{Name: "good", Version: "1", Files: []artifact.File{w.file("good-1-py3-none-any.whl", zipOf(t, "a.py", "a", "b.py", "b"))}}
	bad := artifact.Artifact{Name: "bad", Version: "1", Files: []artifact.File{w.file("bad-1-py3-none-any.whl", zipOf(t, "a.py", "a", "c.py", marker))}}
	snaps := []*artifact.Snapshot{snapOf("pypi/main", clean, bad)}
	cache := &memory{m: make(map[artifact.Digest][]byte)}
	one, two := &antivirus{dated: noon}, &antivirus{dated: noon}
	do := func(avs ...*antivirus) *Report {
		t.Helper()
		r := &Runner{Gatherers: []Gatherer{dpkg{}}, Cache: cache, Open: opens(w), Scratch: t.TempDir()}
		for _, v := range avs {
			r.Inspectors = append(r.Inspectors, v)
		}
		rep, err := r.Run(t.Context(), snaps, noon)
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	first := do(one)
	// "a" is the same in both, and looked at once unless both are walked at the
	// same moment.
	if first.Walked != 2 || one.looked < 3 || one.looked > 4 {
		t.Errorf("walked %d blobs and looked at %d files, want 2 and 3 or 4", first.Walked, one.looked)
	}
	second := do(two)
	if second.Walked != 0 || two.looked != 0 {
		t.Errorf("the second run walked %d blobs and looked at %d files", second.Walked, two.looked)
	}
	a, err := first.Verdicts()
	if err != nil {
		t.Fatal(err)
	}
	b, err := second.Verdicts()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("the verdicts differ:\n%s\n%s", a, b)
	}
	fresh := &antivirus{dated: noon.Add(time.Hour)}
	if third := do(fresh); third.Walked != 2 || fresh.looked < 3 || fresh.looked > 4 || len(third.Held) != 1 {
		t.Errorf("with fresher data: walked %d, looked at %d, held %+v", third.Walked, fresh.looked, third.Held)
	}
	// A damaged entry is a miss.
	for k, v := range cache.m {
		cache.m[k] = v[:len(v)/2]
	}
	again := &antivirus{dated: noon}
	if rep := do(again); again.looked < 3 || again.looked > 4 || len(rep.Held) != 1 {
		t.Errorf("with a damaged cache: looked at %d, held %+v", again.looked, rep.Held)
	}
}

// A blob of no type that its ecosystem has is held, unless the policy says
// otherwise; types that the policy refuses are found wherever they lie.
func TestTypes(t *testing.T) {
	w := world{}
	text := artifact.Artifact{Name: "text", Version: "1", Files: []artifact.File{w.file("text-1-py3-none-any.whl", "just text")}}
	exe := artifact.Artifact{Name: "exe", Version: "1", Files: []artifact.File{w.file("exe-1-py3-none-any.whl", zipOf(t, "exe/t.exe", "MZ"+strings.Repeat("\x00", 58)+"\x40\x00\x00\x00PE\x00\x00"+strings.Repeat("\x00", 64)))}}
	for name, c := range map[string]struct {
		types Types
		held  []string
	}{
		"defaults": {Types{}, []string{"text"}},
		"warn":     {Types{Unknown: ActionWarn}, nil},
		"refuse":   {Types{Refuse: []string{"pe"}}, []string{"exe", "text"}},
	} {
		r := &Runner{Policy: policy(t, Config{Types: c.types}), Open: opens(w), Scratch: t.TempDir()}
		rep, err := r.Run(t.Context(), []*artifact.Snapshot{snapOf("pypi/main", text, exe)}, noon)
		if err != nil {
			t.Fatal(err)
		}
		var held []string
		for _, h := range rep.Held {
			held = append(held, h.Name)
		}
		if diff := cmp.Diff(c.held, held); diff != "" {
			t.Errorf("%s: held (-want +got):\n%s\n%+v", name, diff, rep.Held)
		}
	}
}

// A limit of the walker is not-scanned, held by default and never clean.
func TestLimitIsNotScanned(t *testing.T) {
	w := world{}
	inner := zipOf(t, "x.txt", "x")
	for range 3 {
		inner = zipOf(t, "in.zip", inner)
	}
	deep := artifact.Artifact{Name: "deep", Version: "1", Files: []artifact.File{w.file("deep-1-py3-none-any.whl", inner)}}
	for _, c := range []struct {
		depth int
		want  Verdict
		held  bool
		mode  string
	}{{8, Clean, false, ""}, {2, NotScanned, true, ""}, {2, NotScanned, false, ActionWarn}} {
		r := &Runner{Policy: policy(t, Config{Archives: Archives{Depth: c.depth}, Unscanned: c.mode}), Open: opens(w), Scratch: t.TempDir()}
		rep, err := r.Run(t.Context(), []*artifact.Snapshot{snapOf("pypi/main", deep)}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if rep.Items[0].Verdict != c.want || (len(rep.Held) > 0) != c.held {
			t.Errorf("depth %d, %q: %s, held %+v, want %s, %v", c.depth, c.mode, rep.Items[0].Verdict, rep.Held, c.want, c.held)
		}
	}
}

// A malformed archive within a package is a warning; what an installer reads
// is not.
func TestWithinPackage(t *testing.T) {
	for _, c := range []struct {
		source string
		path   []string
		want   bool
	}{
		{"pypi/main", []string{"a.whl"}, false},
		{"pypi/main", []string{"a.whl", "lib/x.py"}, false},
		{"pypi/main", []string{"a.tar.gz", "", "a-1/x.py"}, false},
		{"pypi/main", []string{"a.whl", "lib/t.zip", "x"}, true},
		{"apt/bookworm", []string{"a.deb", "data.tar.xz", "", "../evil"}, false},
		{"apt/bookworm", []string{"a.deb", "data.tar.xz", "", "usr/x.zip", "y"}, true},
		{"models/llm", []string{"m.pt", "a.zip", "x"}, false},
		{"oci/platform", []string{"0123", "", "opt/a.whl", "x"}, false},
	} {
		if got := withinPackage(c.source, c.path); got != c.want {
			t.Errorf("%s %q: %v", c.source, c.path, got)
		}
	}
}

// The zero verdict never passes, and its word is read back.
func TestVerdict(t *testing.T) {
	var v Verdict
	if v != Error || v.String() != "error" || Verdict(99).String() != "error" {
		t.Errorf("the zero verdict is %s", v)
	}
	for _, want := range []Verdict{Error, Clean, Findings, Malicious, NotScanned} {
		b, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got Verdict
		if err := got.UnmarshalText(b); err != nil || got != want {
			t.Errorf("%s read as %s, %v", want, got, err)
		}
	}
	if err := v.UnmarshalText([]byte("fine")); err == nil {
		t.Error("an unknown verdict was read")
	}
}

// The policy's table: kind and severity on the left, the action on the right.
func TestAction(t *testing.T) {
	soft := Config{
		Vulnerabilities: Vulnerabilities{Database: "/db", Unfixed: ActionWarn, Hold: []string{Critical}},
		Licences:        Licences{Action: ActionWarn}, Unscanned: ActionWarn,
	}
	for _, c := range []struct {
		config Config
		f      Finding
		want   string
	}{
		{Config{}, Finding{Kind: KindMalware, Severity: Low}, ActionHold},
		{Config{}, Finding{Kind: "new kind", Severity: Low}, ActionHold},
		{Config{}, Finding{Kind: KindVulnerability, Severity: Unknown}, ActionHold},
		{Config{}, Finding{Kind: KindVulnerability, Severity: High}, ActionHold},
		{Config{}, Finding{Kind: KindVulnerability, Severity: "MEDIUM"}, ActionWarn},
		{Config{}, Finding{Kind: KindVulnerability, Severity: "negligible"}, ActionHold},
		{soft, Finding{Kind: KindVulnerability, Severity: Critical}, ActionWarn},
		{soft, Finding{Kind: KindVulnerability, Severity: Critical, Fixed: "2"}, ActionHold},
		{soft, Finding{Kind: KindVulnerability, Severity: High, Fixed: "2"}, ActionWarn},
		{Config{}, Finding{Kind: KindSecret, Severity: High}, ActionHold},
		{Config{}, Finding{Kind: KindSecret, Severity: Medium}, ActionWarn},
		{Config{}, Finding{Kind: KindModel, Severity: ""}, ActionHold},
		{Config{}, Finding{Kind: KindLicence}, ActionHold},
		{soft, Finding{Kind: KindLicence}, ActionWarn},
		{Config{}, Finding{Kind: KindNotScanned}, ActionHold},
		{soft, Finding{Kind: KindNotScanned}, ActionWarn},
	} {
		if got := policy(t, c.config).action(c.f); got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
}

// A package on a list of malicious ones cannot be waived.
func TestMaliciousCannotBeWaived(t *testing.T) {
	j := &fake{name: "packages", findings: map[string][]Finding{"lib": {{ID: "MAL-2026-1", Severity: Critical}}}}
	p := policy(t, Config{Waivers: []Waiver{{Artifact: "pypi/main lib", Finding: "MAL-2026-1", Owner: "o", Reason: "r", Expires: "2027-01-01"}}})
	rep := run(t, p, []Judge{j}, noon, snapshot("pypi/main", "lib 1.0"))
	if len(rep.Held) != 1 || len(rep.Unused) != 1 {
		t.Errorf("held %+v, unused %+v, want it held and the waiver unused", rep.Held, rep.Unused)
	}
}

func TestLicences(t *testing.T) {
	for _, c := range []struct {
		licence string
		list    []string
		want    bool
	}{
		{"AGPL-3.0-only", []string{"AGPL-3.0*"}, true},
		{"agpl-3.0-ONLY", []string{"AGPL-3.0-only"}, true},
		{"GPL-3.0-only", []string{"AGPL-3.0*", "GPL-2*"}, false},
		{"MIT", nil, false},
	} {
		if got := refused(c.licence, c.list); got != c.want {
			t.Errorf("%s in %v: %v", c.licence, c.list, got)
		}
	}
}

func ExampleEngineError() {
	err := &EngineError{Engine: "clamav", Err: fmt.Errorf("%w: clamav: no socket", ErrEngine)}
	fmt.Println(err)
	// Output: clamav: no socket
}

func crc(s string) uint32 { return crc32.ChecksumIEEE([]byte(s)) }
