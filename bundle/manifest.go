package bundle

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// Schema names the manifest.
	Schema = "darkmirror.bundle/v1"
	// FormatLevel is what this package can read. A manifest that asks for
	// more is refused with ERR_VERSION.
	FormatLevel = 1
)

// Encodings of stored bytes.
const (
	EncNone = "none"
	EncZstd = "zstd"
)

// A Manifest is what an exporter signs. docs/bundle-format.md describes each
// field. [Seal] fills Schema, MinImporter, State and the stored form of each
// blob, and sorts every list.
type Manifest struct {
	Schema      string          `json:"schema"`
	MinImporter int64           `json:"min_importer"`
	Stream      string          `json:"stream"`
	Seq         uint64          `json:"seq"`
	Prev        string          `json:"prev"` // digest of the manifest before; empty for the first
	Epoch       uint64          `json:"epoch"`
	Base        uint64          `json:"base"`
	Issued      time.Time       `json:"issued"`
	Expires     time.Time       `json:"expires"`
	State       artifact.Digest `json:"state"`
	Sources     []SourceRef     `json:"sources"`
	Requires    []Require       `json:"requires"`
	Blobs       []Blob          `json:"blobs"`
	Held        []LeftOut       `json:"held"`
	Missing     []LeftOut       `json:"missing"`
	Scanners    []Scanner       `json:"scanners"`
	Withdraw    []Withdrawal    `json:"withdraw"`
}

// A SourceRef is the state of one source after this bundle.
type SourceRef struct {
	Name      string          `json:"name"`
	Snapshot  artifact.Digest `json:"snapshot"`
	Artifacts int64           `json:"artifacts"`
	Files     int64           `json:"files"`
	Bytes     int64           `json:"bytes"`
}

// A Require names documents that an earlier bundle carried: snapshots that did
// not change, and dictionaries. The files that snapshots name are not listed
// again; whether they are inside, the importer sees from the snapshots.
type Require struct {
	Seq   uint64            `json:"seq"`
	Blobs []artifact.Digest `json:"blobs"`
}

// A Blob is one blob that the bundle carries.
type Blob struct {
	Digest     artifact.Digest `json:"digest"`
	Size       int64           `json:"size"`
	Enc        string          `json:"enc"`
	StoredSize int64           `json:"stored_size"`
	// Dict is the digest of a blob that the inside has already, from which
	// this one differs little; empty for none. It is the raw dictionary of
	// the zstd frame.
	Dict string `json:"dict,omitempty"`
	// Segments is empty where the one segment is the blob itself.
	Segments []Segment `json:"segments,omitempty"`
}

// A Segment is a run of stored bytes.
type Segment struct {
	Digest artifact.Digest `json:"digest"`
	Len    int64           `json:"len"`
}

// A LeftOut is an artifact that the bundle should have brought and did not.
type LeftOut struct {
	Source   string `json:"source"`
	Artifact string `json:"artifact"` // empty: the whole source
	Version  string `json:"version"`
	Code     string `json:"code"`
	Reason   string `json:"reason"`
}

// A Scanner says with what the bundle's files were scanned.
type Scanner struct {
	Name         string          `json:"name"`
	Version      string          `json:"version"`
	Database     artifact.Digest `json:"database"`
	DatabaseDate string          `json:"database_date"`
}

// A Withdrawal recalls bytes that were carried earlier.
type Withdrawal struct {
	Digest   artifact.Digest `json:"digest"`
	Reason   string          `json:"reason"`
	Advisory string          `json:"advisory"`
}

// Full reports whether the bundle stands alone.
func (m *Manifest) Full() bool { return m.Base == 0 }

// Size is the sum of the blobs' sizes.
func (m *Manifest) Size() int64 {
	var n int64
	for _, b := range m.Blobs {
		n += b.Size
	}
	return n
}

func (m *Manifest) String() string { return fmt.Sprintf("bundle %06d of stream %s", m.Seq, m.Stream) }

// StateDigest is the digest of the listing of all sources: a line each, name,
// space, snapshot digest.
func (m *Manifest) StateDigest() artifact.Digest {
	h := sha256.New()
	for _, s := range m.Sources {
		// A hash does not fail.
		_, _ = io.WriteString(h, s.Name+" "+s.Snapshot.String()+"\n")
	}
	return artifact.Digest(h.Sum(nil))
}

// A segmentRef is a segment and its place in the manifest.
type segmentRef struct {
	Segment
	blob int // index in Blobs
	n    int // from 1; 0 where the blob has no list of segments
}

// segments calls yield for every segment in manifest order, the implied ones
// included.
func (m *Manifest) segments(yield func(segmentRef) bool) {
	for i := range m.Blobs {
		for s := range m.Blobs[i].segments {
			s.blob = i
			if !yield(s) {
				return
			}
		}
	}
}

// segments calls yield for every segment of the blob.
func (b *Blob) segments(yield func(segmentRef) bool) {
	if len(b.Segments) == 0 {
		yield(segmentRef{Segment: Segment{b.Digest, b.StoredSize}})
		return
	}
	for n, s := range b.Segments {
		if !yield(segmentRef{Segment: s, n: n + 1}) {
			return
		}
	}
}

// segmentCount is the number of segments that [Manifest.segments] yields.
func (m *Manifest) segmentCount() int {
	n := 0
	for i := range m.Blobs {
		n += max(1, len(m.Blobs[i].Segments))
	}
	return n
}

// normalize brings the manifest into the form that is signed, all but the
// stored form of blobs.
func (m *Manifest) normalize() {
	m.Schema, m.MinImporter = Schema, FormatLevel
	m.Issued = m.Issued.UTC().Truncate(time.Second)
	m.Expires = m.Expires.UTC().Truncate(time.Second)
	m.Sources = append([]SourceRef{}, m.Sources...)
	slices.SortFunc(m.Sources, func(a, b SourceRef) int { return strings.Compare(a.Name, b.Name) })
	m.State = m.StateDigest()
	m.Requires = append([]Require{}, m.Requires...)
	slices.SortFunc(m.Requires, func(a, b Require) int { return cmp.Compare(a.Seq, b.Seq) })
	for i := range m.Requires {
		m.Requires[i].Blobs = append([]artifact.Digest{}, m.Requires[i].Blobs...)
		slices.SortFunc(m.Requires[i].Blobs, compareDigests)
	}
	m.Blobs = append([]Blob{}, m.Blobs...)
	snaps := m.snapshots()
	slices.SortFunc(m.Blobs, func(a, b Blob) int { return compareBlobs(snaps, a, b) })
	m.Held, m.Missing = cleanLeftOut(m.Held), cleanLeftOut(m.Missing)
	m.Scanners = append([]Scanner{}, m.Scanners...)
	for i := range m.Scanners {
		s := &m.Scanners[i]
		s.Name, s.Version, s.DatabaseDate = cleanText(s.Name), cleanText(s.Version), cleanText(s.DatabaseDate)
	}
	slices.SortFunc(m.Scanners, func(a, b Scanner) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), compareDigests(a.Database, b.Database))
	})
	m.Withdraw = append([]Withdrawal{}, m.Withdraw...)
	for i := range m.Withdraw {
		w := &m.Withdraw[i]
		w.Reason, w.Advisory = cleanText(w.Reason), cleanText(w.Advisory)
	}
	slices.SortFunc(m.Withdraw, func(a, b Withdrawal) int { return compareDigests(a.Digest, b.Digest) })
}

func (m *Manifest) snapshots() map[artifact.Digest]bool {
	snaps := make(map[artifact.Digest]bool, len(m.Sources))
	for _, s := range m.Sources {
		snaps[s.Snapshot] = true
	}
	return snaps
}

func compareDigests(a, b artifact.Digest) int { return slices.Compare(a[:], b[:]) }

// compareBlobs puts snapshots first, since they are needed to show and to
// publish the rest.
func compareBlobs(snaps map[artifact.Digest]bool, a, b Blob) int {
	if sa, sb := snaps[a.Digest], snaps[b.Digest]; sa != sb {
		if sa {
			return -1
		}
		return 1
	}
	return compareDigests(a.Digest, b.Digest)
}

func cleanLeftOut(list []LeftOut) []LeftOut {
	list = append([]LeftOut{}, list...)
	for i := range list {
		l := &list[i]
		for _, s := range []*string{&l.Source, &l.Artifact, &l.Version, &l.Code, &l.Reason} {
			*s = cleanText(*s)
		}
	}
	slices.SortFunc(list, func(a, b LeftOut) int {
		return cmp.Or(
			strings.Compare(a.Source, b.Source), strings.Compare(a.Artifact, b.Artifact), strings.Compare(a.Version, b.Version),
			strings.Compare(a.Code, b.Code), strings.Compare(a.Reason, b.Reason),
		)
	})
	return list
}

// cleanText makes outside text fit the rules that [checkText] holds.
func cleanText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") // drops a rune that the cut broke
	}
	return s
}

// encode gives the bytes that are signed.
func (m *Manifest) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return b, nil
}

// parseManifest reads a manifest strictly and checks every rule of the
// format. Errors are refusals ERR_FORMAT, or ERR_VERSION for a bundle that
// needs a newer importer.
func parseManifest(payload []byte) (*Manifest, error) {
	refuse := func(err error) (*Manifest, error) {
		return nil, refusal(CodeFormat, "manifest", "not a valid manifest", err)
	}
	if len(payload) > MaxManifest {
		return refuse(fmt.Errorf("%d bytes, at most %d are read", len(payload), MaxManifest))
	}
	// A later level may have fields that the strict reading refuses, so the
	// level is looked at first. This can only refuse, never accept.
	var level struct {
		MinImporter int64 `json:"min_importer"`
	}
	if err := json.Unmarshal(payload, &level); err == nil && level.MinImporter > FormatLevel {
		return nil, &artifact.Refusal{
			Code: CodeVersion, Subject: "manifest", Reason: "the bundle needs a newer importer",
			Want: fmt.Sprintf("format level %d", level.MinImporter), Got: fmt.Sprint(FormatLevel),
		}
	}
	var m Manifest
	if err := strictjson.Unmarshal(payload, &m); err != nil {
		return refuse(err)
	}
	if err := checkKeys(payload, &m); err != nil {
		return refuse(err)
	}
	if err := m.check(); err != nil {
		return refuse(err)
	}
	return &m, nil
}

// checkKeys finds what decoding into a struct hides: absent keys, and a time
// that is written in another of the forms that RFC 3339 allows. Duplicate
// keys were refused before.
func checkKeys(payload []byte, m *Manifest) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(payload, &keys); err != nil {
		return err
	}
	for _, name := range []string{
		"schema", "min_importer", "stream", "seq", "prev", "epoch", "base", "issued", "expires", "state",
		"sources", "requires", "blobs", "held", "missing", "scanners", "withdraw",
	} {
		if _, ok := keys[name]; !ok {
			return fmt.Errorf("key %q is missing", name)
		}
	}
	for name, t := range map[string]time.Time{"issued": m.Issued, "expires": m.Expires} {
		if want := `"` + t.UTC().Format(time.RFC3339) + `"`; string(keys[name]) != want {
			return fmt.Errorf("%s: want UTC and whole seconds, as in 2006-01-02T15:04:05Z", name)
		}
	}
	return nil
}

// checkText accepts what a terminal and every file system can show.
func checkText(what, s string) error {
	switch {
	case len(s) > maxText:
		return fmt.Errorf("%s: over %d bytes", what, maxText)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%s: control character", what)
	case strings.ContainsRune(s, utf8.RuneError):
		return errors.New(what + ": not UTF-8")
	}
	return nil
}
