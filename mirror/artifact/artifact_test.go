package artifact

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func file(path string, b byte) File {
	return File{Path: path, Digest: Sum([]byte{b}), Size: 1}
}

func TestSnapshotEncodingIsCanonical(t *testing.T) {
	a := &Snapshot{Source: "pypi/main", Meta: []File{file("b", 1), file("a", 2)}, Artifacts: []Artifact{
		{Name: "y", Version: "1", Why: "w", Files: []File{file("y2", 3), file("y1", 4)}},
		{Name: "x", Version: "2", Why: "w", Files: []File{file("x", 5)}},
	}}
	b := &Snapshot{Source: "pypi/main", Meta: []File{a.Meta[1], a.Meta[0]}, Artifacts: []Artifact{a.Artifacts[1], a.Artifacts[0]}}
	ea, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	eb, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ea, eb) {
		t.Fatalf("orders differ:\n%s\n%s", ea, eb)
	}
	got, err := DecodeSnapshot(ea)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(again, ea) {
		t.Fatalf("decode and encode changed the bytes: %v", err)
	}
}

func TestSnapshotRefuses(t *testing.T) {
	ok := func() *Snapshot {
		return &Snapshot{Schema: SnapshotSchema, Source: "pypi/main", Artifacts: []Artifact{{Name: "x", Version: "1", Files: []File{file("x", 1)}}}}
	}
	for name, spoil := range map[string]func(*Snapshot){
		"schema":     func(s *Snapshot) { s.Schema = "v0" },
		"source":     func(s *Snapshot) { s.Source = "Main" },
		"case clash": func(s *Snapshot) { s.Artifacts[0].Files = append(s.Artifacts[0].Files, file("X", 2)) },
		"escape":     func(s *Snapshot) { s.Artifacts[0].Files[0].Path = "../x" },
		"one path, two": func(s *Snapshot) {
			s.Artifacts = append(s.Artifacts, Artifact{Name: "y", Version: "1", Files: []File{file("x", 2)}})
		},
		"no digest":    func(s *Snapshot) { s.Artifacts[0].Files[0].Digest = Digest{} },
		"negative":     func(s *Snapshot) { s.Artifacts[0].Files[0].Size = -1 },
		"two sizes":    func(s *Snapshot) { f := file("y", 1); f.Size = 2; s.Meta = []File{f} },
		"no version":   func(s *Snapshot) { s.Artifacts[0].Version = "" },
		"no files":     func(s *Snapshot) { s.Artifacts[0].Files = nil },
		"meta escapes": func(s *Snapshot) { s.Meta = []File{file("/etc/passwd", 3)} },
	} {
		t.Run(name, func(t *testing.T) {
			s := ok()
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			spoil(s)
			if err := s.Check(); err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

// Two images share a layer: one path, the same bytes, in both.
func TestSnapshotTakesSharedFiles(t *testing.T) {
	s := &Snapshot{Schema: SnapshotSchema, Source: "oci/main", Artifacts: []Artifact{
		{Name: "x", Version: "1", Files: []File{file("layer", 1), file("x", 2)}},
		{Name: "x", Version: "2", Files: []File{file("layer", 1), file("y", 3)}},
	}}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

func TestDecodeSnapshotIsIntegrity(t *testing.T) {
	_, err := DecodeSnapshot([]byte(`{"schema":"darkmirror.snapshot/v1","Schema":"x"}`))
	if !errors.Is(err, ErrIntegrity) {
		t.Fatalf("got %v", err)
	}
}

func TestCheckPath(t *testing.T) {
	for _, p := range []string{"a", "a/b.whl", "pool/main/g/g++/g++_12.2.0-3_amd64.deb", "a/ü~1:2"} {
		if err := CheckPath(p); err != nil {
			t.Errorf("%q refused: %v", p, err)
		}
	}
	for _, p := range []string{"", "/a", "a/", "a//b", "./a", "..", "../a", "a/../b", "a\\b", "a\x00", "a\nb", "-rf", "x/~a", "a\x7f", "\xff", strings.Repeat("a", 256), strings.Repeat("a/", 300) + "a"} {
		if err := CheckPath(p); err == nil {
			t.Errorf("%q accepted", p)
		}
	}
}

func TestParseDigest(t *testing.T) {
	d := Sum([]byte("x"))
	got, err := ParseDigest(d.String())
	if err != nil || got != d {
		t.Fatalf("round trip: %v %v", got, err)
	}
	for _, s := range []string{"", d.Hex(), "sha256:", "sha256:" + strings.ToUpper(d.Hex()), "sha512:" + d.Hex(), d.String() + "0"} {
		if _, err := ParseDigest(s); !errors.Is(err, ErrDigestSyntax) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestRefusalText(t *testing.T) {
	err := error(&Refusal{Class: ErrIntegrity, Code: "X-Y", Subject: "a: b", Reason: "differs", Want: "1", Got: "2"})
	if got := err.Error(); got != "a: b: differs (want 1, got 2) [X-Y]" {
		t.Fatal(got)
	}
	if !errors.Is(err, ErrIntegrity) || errors.Is(err, ErrSequence) {
		t.Fatal("class does not match")
	}
}

// FuzzDecodeSnapshot: never panics; what is accepted encodes to a fixed point.
func FuzzDecodeSnapshot(f *testing.F) {
	s := &Snapshot{Source: "pypi/main", Meta: []File{file("m", 1)}, Artifacts: []Artifact{{Name: "x", Version: "1", Why: "r", Files: []File{file("x", 2)}}}}
	b, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"darkmirror.snapshot/v1","source":"a/b","meta":[],"artifacts":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeSnapshot(data)
		if err != nil {
			return
		}
		one, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s2, err := DecodeSnapshot(one)
		if err != nil {
			t.Fatal(err)
		}
		two, err := s2.Encode()
		if err != nil || !bytes.Equal(one, two) {
			t.Fatalf("not a fixed point: %v", err)
		}
	})
}
