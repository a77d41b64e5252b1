package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func digest(s string) artifact.Digest { return artifact.Sum([]byte(s)) }

// valid is a manifest with something in every list.
func valid() *Manifest {
	m := &Manifest{
		Stream: "main", Seq: 43, Prev: digest("42").String(), Base: 42,
		Issued: at("2026-11-22T20:15:00Z"), Expires: at("2027-02-20T20:15:00Z"),
		Sources:  []SourceRef{{"apt/bookworm", digest("apt"), 10, 20, 30}, {"pypi/main", digest("pypi"), 1, 2, 3}},
		Requires: []Require{{40, []artifact.Digest{digest("old")}}, {42, []artifact.Digest{digest("older")}}},
		Held:     []LeftOut{{"pypi/main", "evil", "1.0", "MALWARE", "known bad"}},
		Missing:  []LeftOut{{"apt/bookworm", "", "", "FETCH", "gone"}},
		Scanners: []Scanner{{"trivy", "0.74.0", digest("db"), "2026-11-22"}},
		Withdraw: []Withdrawal{{digest("bad"), "malware", "ADV-1"}},
		Blobs: []Blob{
			{Digest: digest("apt"), Size: 3},
			{Digest: digest("pypi"), Size: 4},
			{Digest: digest("wheel"), Size: 5},
			{Digest: digest("db"), Size: 1 << 20},
			{Digest: digest("layer"), Size: MaxSegment + 1},
		},
	}
	m.normalize()
	for i := range m.Blobs {
		b := &m.Blobs[i]
		b.Enc, b.StoredSize = EncNone, b.Size
		switch b.Digest {
		case digest("db"):
			b.Enc, b.StoredSize = EncZstd, 300
			b.Segments = []Segment{{digest("s1"), 200}, {digest("s2"), 100}}
		case digest("layer"):
			b.Segments = []Segment{{digest("s3"), MaxSegment}, {digest("s4"), 1}}
		}
	}
	return m
}

func find(m *Manifest, d artifact.Digest) *Blob {
	for i := range m.Blobs {
		if m.Blobs[i].Digest == d {
			return &m.Blobs[i]
		}
	}
	return nil
}

func TestManifestRoundTrip(t *testing.T) {
	m := valid()
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Fatal(diff)
	}
	if got.Full() || got.Size() != 3+4+5+1<<20+MaxSegment+1 || got.segmentCount() != 7 {
		t.Fatalf("full %v, size %d, segments %d", got.Full(), got.Size(), got.segmentCount())
	}
}

// The state digest, computed by hand.
func TestStateDigest(t *testing.T) {
	m := valid()
	want := artifact.Sum([]byte("apt/bookworm " + digest("apt").String() + "\npypi/main " + digest("pypi").String() + "\n"))
	if m.State != want {
		t.Fatalf("got %s, want %s", m.State, want)
	}
}

func TestManifestRules(t *testing.T) {
	for name, spoil := range map[string]func(*Manifest){
		"schema":              func(m *Manifest) { m.Schema = "darkmirror.bundle/v2" },
		"level 0":             func(m *Manifest) { m.MinImporter = 0 },
		"stream":              func(m *Manifest) { m.Stream = "Main" },
		"stream escapes":      func(m *Manifest) { m.Stream = "../main" },
		"seq 0":               func(m *Manifest) { m.Seq = 0 },
		"prev missing":        func(m *Manifest) { m.Prev = "" },
		"prev of the first":   func(m *Manifest) { m.Seq, m.Base, m.Requires = 1, 0, []Require{} },
		"prev text":           func(m *Manifest) { m.Prev = "sha256:x" },
		"epoch":               func(m *Manifest) { m.Epoch = 1 },
		"base":                func(m *Manifest) { m.Base = 43 },
		"expired when issued": func(m *Manifest) { m.Expires = m.Issued },
		"year":                func(m *Manifest) { m.Issued = time.Time{} },
		"state":               func(m *Manifest) { m.State = digest("x") },
		"no sources":          func(m *Manifest) { m.Sources = []SourceRef{}; m.State = m.StateDigest() },
		"source name":         func(m *Manifest) { m.Sources[0].Name = "apt"; m.State = m.StateDigest() },
		"sources swapped":     func(m *Manifest) { m.Sources[0], m.Sources[1] = m.Sources[1], m.Sources[0]; m.State = m.StateDigest() },
		"source twice":        func(m *Manifest) { m.Sources[1].Name = m.Sources[0].Name; m.State = m.StateDigest() },
		"source without":      func(m *Manifest) { m.Sources[0].Snapshot = artifact.Digest{}; m.State = m.StateDigest() },
		"negative count":      func(m *Manifest) { m.Sources[0].Files = -1 },
		"snapshot nowhere":    func(m *Manifest) { m.Sources[0].Snapshot = digest("x"); m.State = m.StateDigest() },
		"blobs swapped":       func(m *Manifest) { m.Blobs[2], m.Blobs[3] = m.Blobs[3], m.Blobs[2] },
		"snapshot not first":  func(m *Manifest) { m.Blobs[1], m.Blobs[2] = m.Blobs[2], m.Blobs[1] },
		"blob twice":          func(m *Manifest) { m.Blobs[3] = m.Blobs[2] },
		"negative size":       func(m *Manifest) { find(m, digest("wheel")).Size = -1 },
		"stored size":         func(m *Manifest) { find(m, digest("wheel")).StoredSize++ },
		"size overflow":       func(m *Manifest) { b := find(m, digest("layer")); b.Size, b.StoredSize = maxInt, maxInt },
		"enc":                 func(m *Manifest) { find(m, digest("wheel")).Enc = "gzip" },
		"needless segments":   func(m *Manifest) { find(m, digest("wheel")).Segments = []Segment{{digest("wheel"), 5}} },
		"no segments":         func(m *Manifest) { find(m, digest("layer")).Segments = nil },
		"no segments, zstd":   func(m *Manifest) { find(m, digest("db")).Segments = nil },
		"segment sum":         func(m *Manifest) { find(m, digest("db")).Segments[0].Len++ },
		"empty segment":       func(m *Manifest) { b := find(m, digest("db")); b.Segments[0].Len, b.Segments[1].Len = 300, 0 },
		"negative segment":    func(m *Manifest) { b := find(m, digest("db")); b.Segments[0].Len, b.Segments[1].Len = 301, -1 },
		"long segment": func(m *Manifest) {
			b := find(m, digest("layer"))
			b.Segments[0].Len, b.Segments = MaxSegment+1, b.Segments[:1]
		},
		"segment without digest": func(m *Manifest) { find(m, digest("db")).Segments[0].Digest = artifact.Digest{} },
		"large frame": func(m *Manifest) {
			b := find(m, digest("db"))
			b.Size, b.StoredSize, b.Segments[0].Len = 100, 1200, 1100
		},
		"long zstd segment": func(m *Manifest) {
			b := find(m, digest("db"))
			b.Size, b.StoredSize, b.Segments = 1<<30, MaxZstdSegment+1, []Segment{{digest("s"), MaxZstdSegment + 1}}
		},
		"requires later":       func(m *Manifest) { m.Requires[1].Seq = 43 },
		"requires 0":           func(m *Manifest) { m.Requires[0].Seq = 0 },
		"requires swapped":     func(m *Manifest) { m.Requires[0], m.Requires[1] = m.Requires[1], m.Requires[0] },
		"requires nothing":     func(m *Manifest) { m.Requires[0].Blobs = []artifact.Digest{} },
		"required twice":       func(m *Manifest) { m.Requires[1].Blobs = m.Requires[0].Blobs },
		"required and carried": func(m *Manifest) { m.Requires[0].Blobs[0] = digest("wheel") },
		"full that requires":   func(m *Manifest) { m.Base = 0 },
		"control character":    func(m *Manifest) { m.Held[0].Reason = "a\x1b[2J" },
		"long text":            func(m *Manifest) { m.Missing[0].Reason = strings.Repeat("x", maxText+1) },
		"scanner text":         func(m *Manifest) { m.Scanners[0].Version = "\n" },
		"scanner name":         func(m *Manifest) { m.Scanners[0].Name = "" },
		"withdraw nothing":     func(m *Manifest) { m.Withdraw[0].Digest = artifact.Digest{} },
		"withdraw text":        func(m *Manifest) { m.Withdraw[0].Advisory = "\x00" },
	} {
		t.Run(name, func(t *testing.T) {
			m := valid()
			spoil(m)
			b, err := m.encode()
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseManifest(b)
			wantCode(t, err, CodeFormat)
		})
	}
}

func TestManifestStrictJSON(t *testing.T) {
	b, err := valid().encode()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(from, to string) []byte {
		if !bytes.Contains(b, []byte(from)) {
			t.Fatalf("%s is not in the manifest", from)
		}
		return bytes.Replace(b, []byte(from), []byte(to), 1)
	}
	cases := map[string][]byte{
		"duplicate":         replace(`"seq":43`, `"seq":43,"seq":43`),
		"case duplicate":    replace(`"seq":43`, `"seq":43,"SEQ":44`),
		"case variant":      replace(`"seq":43`, `"Seq":43`),
		"unknown":           replace(`"seq":43`, `"seq":43,"x":1`),
		"float":             replace(`"seq":43`, `"seq":43.0`),
		"exponent":          replace(`"seq":43`, `"seq":43e0`),
		"over 2^53":         replace(`"seq":43`, `"seq":9007199254740993`),
		"negative":          replace(`"seq":43`, `"seq":-43`),
		"null list":         replace(`"held":[`, `"held":null,"missing":[`),
		"trailing":          append(bytes.Clone(b), '1'),
		"invalid UTF-8":     replace("known bad", "known \xff"),
		"surrogate":         replace("known bad", `known \ud800`),
		"time with offset":  replace("2026-11-22T20:15:00Z", "2026-11-22T20:15:00+00:00"),
		"time with part":    replace("2026-11-22T20:15:00Z", "2026-11-22T20:15:00.000Z"),
		"time in an escape": replace("2026-11-22T20:15:00Z", `2026-11-22T20:15:00\u005a`),
		"upper-case digest": replace(digest("wheel").Hex(), strings.ToUpper(digest("wheel").Hex())),
		"empty segments":    replace(`"stored_size":5}`, `"stored_size":5,"segments":[]}`),
		"empty":             {},
		"not an object":     []byte(`[]`),
		"too large":         append(bytes.Repeat([]byte(" "), MaxManifest), b...),
	}
	// Every key is needed.
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil || len(keys) != 17 {
		t.Fatal(len(keys), err)
	}
	for k := range keys {
		less := make(map[string]json.RawMessage)
		for other, v := range keys {
			if other != k {
				less[other] = v
			}
		}
		var err error
		if cases["no "+k], err = json.Marshal(less); err != nil {
			t.Fatal(err)
		}
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := parseManifest(in)
			wantCode(t, err, CodeFormat)
		})
	}
}

func TestNewerManifest(t *testing.T) {
	_, err := parseManifest([]byte(`{"schema":"darkmirror.bundle/v1","min_importer":2,"novelty":{"a":null}}`))
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != CodeVersion || r.Want != "format level 2" {
		t.Fatalf("got %v", err)
	}
	if errors.Is(err, artifact.ErrIntegrity) || errors.Is(err, artifact.ErrSequence) || errors.Is(err, artifact.ErrUnavailable) {
		t.Fatal("a newer format has no class of its own")
	}
}

func TestCleanText(t *testing.T) {
	for in, want := range map[string]string{
		"plain ü":                      "plain ü",
		"a\nb\x7f\u0085":               "a?b??",
		"\xff\ufffd":                   "??",
		strings.Repeat("x", 2000):      strings.Repeat("x", maxText),
		"x" + strings.Repeat("ü", 600): "x" + strings.Repeat("ü", 511),
	} {
		got := cleanText(in)
		if got != want || !utf8.ValidString(got) || checkText("t", got) != nil {
			t.Errorf("%.40q gave %.40q of %d bytes", in, got, len(got))
		}
	}
}

func TestCheckStream(t *testing.T) {
	for _, s := range []string{"main", "a", "0-x_y", strings.Repeat("a", 64)} {
		if err := CheckStream(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "-a", "_a", "A", "a.b", "a/b", "a b", "ü", strings.Repeat("a", 65)} {
		if CheckStream(s) == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

// FuzzManifest: never panics; what is accepted is read back the same.
func FuzzManifest(f *testing.F) {
	b, err := valid().encode()
	if err != nil {
		f.Fatal(err)
	}
	_, m := smallContent()
	m.normalize()
	c, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	seeds := [][]byte{b, c, []byte(`{"min_importer":9}`), []byte(`{}`), bytes.Replace(b, []byte(`"seq":43`), []byte(`"seq":43,"Seq":44`), 1)}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			if len(codes(err)) != 1 {
				t.Fatalf("not one refusal: %v", err)
			}
			return
		}
		one, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseManifest(one)
		if err != nil {
			t.Fatalf("own encoding refused: %v", err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
