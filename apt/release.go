package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxRelease bounds InRelease and Release. Debian's has 150 KB; apt itself
	// stops at 10 MB.
	maxRelease = 10 << 20
	// maxEntries bounds the files of one Release; Debian main lists 800.
	maxEntries = 100_000
	// maxFuture is how far a Date may be ahead of the clock, as in apt.
	maxFuture = 10 * time.Second
)

// A Release is the parsed text under a signature.
type Release struct {
	Origin, Label, Suite, Codename, Version string
	Date                                    time.Time
	ValidUntil                              time.Time // zero: none
	Architectures                           []string
	Components                              []string
	NotAutomatic, ButAutomaticUpgrades      bool
	AcquireByHash                           bool
	// NoSupportAll: indices of architecture "all" are merged into the others.
	NoSupportAll bool

	files map[string]entry // by path below dists/<suite>/
	weak  bool             // only MD5Sum or SHA1 lists
}

// An entry is what a Release says of one file.
type entry struct {
	digest artifact.Digest
	size   int64
}

// parseRelease reads the text of a Release. The caller has verified its
// signature.
func parseRelease(text []byte) (*Release, error) {
	if len(text) > maxRelease {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(text), maxRelease)
	}
	sr := newStanzaReader(bytes.NewReader(text))
	st, err := sr.next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("empty")
	}
	if err != nil {
		return nil, err
	}
	r := &Release{}
	if err := r.readFields(st); err != nil {
		return nil, err
	}
	if r.files, err = parseEntries(st.get("SHA256")); err != nil {
		return nil, fmt.Errorf("SHA256: %w", err)
	}
	r.weak = len(r.files) == 0 && (st.get("MD5Sum") != nil || st.get("SHA1") != nil || st.get("SHA512") != nil)
	if _, err := sr.next(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one paragraph")
	}
	return r, nil
}

func (r *Release) readFields(st *stanza) error {
	for _, f := range []struct {
		name string
		to   *string
	}{
		{"Origin", &r.Origin},
		{"Label", &r.Label},
		{"Suite", &r.Suite},
		{"Codename", &r.Codename},
		{"Version", &r.Version},
	} {
		v := st.get(f.name)
		if bytes.IndexByte(v, '\n') >= 0 {
			return fmt.Errorf("%s has more than one line", f.name)
		}
		*f.to = string(v)
	}
	var err error
	if r.Date, err = parseDate(string(st.get("Date"))); err != nil {
		return fmt.Errorf("field Date: %w", err)
	}
	if v := st.get("Valid-Until"); v != nil {
		if r.ValidUntil, err = parseDate(string(v)); err != nil {
			return fmt.Errorf("field Valid-Until: %w", err)
		}
	}
	r.Architectures = strings.Fields(string(st.get("Architectures")))
	r.Components = strings.Fields(string(st.get("Components")))
	r.NotAutomatic = yes(st.get("NotAutomatic"))
	r.ButAutomaticUpgrades = yes(st.get("ButAutomaticUpgrades"))
	r.AcquireByHash = yes(st.get("Acquire-By-Hash"))
	r.NoSupportAll = slices.Contains(strings.Fields(string(st.get("No-Support-for-Architecture-all"))), "Packages")
	return nil
}

func yes(v []byte) bool { return equalFold(v, "yes") }

// parseDate reads the date of a Release. apt takes only UTC, and so do we.
func parseDate(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, errors.New("missing")
	}
	s = strings.Join(strings.Fields(s), " ")
	zoned := s
	for _, z := range []string{" UTC", " GMT", " Z"} {
		if rest, ok := strings.CutSuffix(s, z); ok {
			zoned = rest + " +0000"
		}
	}
	t, err := time.Parse("Mon, 2 Jan 2006 15:04:05 -0700", zoned)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a date", clip(s))
	}
	if _, off := t.Zone(); off != 0 {
		return time.Time{}, fmt.Errorf("%q is not in UTC", clip(s))
	}
	return t.UTC(), nil
}

// formatDate writes what parseDate reads.
func formatDate(t time.Time) string {
	return t.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " UTC"
}

// parseEntries reads lines of "digest size path".
func parseEntries(v []byte) (map[string]entry, error) {
	files := make(map[string]entry, bytes.Count(v, []byte("\n"))+1)
	for line := range bytes.Lines(v) {
		words := strings.Fields(string(line))
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return nil, fmt.Errorf("line %q: want digest, size and path", clip(string(line)))
		}
		d, err := artifact.ParseHex(strings.ToLower(words[0]))
		if err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("%q: size %q", clip(words[2]), clip(words[1]))
		}
		if err := artifact.CheckPath(words[2]); err != nil {
			return nil, err
		}
		e := entry{d, size}
		if old, dup := files[words[2]]; dup && old != e {
			return nil, fmt.Errorf("%q twice with different contents", clip(words[2]))
		}
		if len(files) == maxEntries {
			return nil, fmt.Errorf("more than %d files", maxEntries)
		}
		files[words[2]] = e
	}
	return files, nil
}

// isSuite reports whether this is the Release of the requested suite. A
// Release that names neither suite nor codename is taken: its place under the
// signature of the archive's own key is all there is.
func (r *Release) isSuite(want string) bool {
	if r.Suite == "" && r.Codename == "" {
		return true
	}
	if want == r.Suite || want == r.Codename {
		return true
	}
	// "bookworm/updates" was the place of a suite whose codename is "bookworm".
	first, _, ok := strings.Cut(want, "/")
	return ok && (first == r.Suite || first == r.Codename)
}

// checkTimes refuses a Release that a client would refuse for its age.
func (r *Release) checkTimes(subject string, now time.Time, validUntil bool) error {
	if r.Date.After(now.Add(maxFuture)) {
		ref := sequence(codeFuture, subject, "Release is dated in the future")
		ref.Want, ref.Got = "at most "+formatDate(now), formatDate(r.Date)
		return ref
	}
	if validUntil && !r.ValidUntil.IsZero() && now.After(r.ValidUntil) {
		ref := sequence(codeExpired, subject, "Release has expired")
		ref.Want, ref.Got = "valid at "+formatDate(now), "valid until "+formatDate(r.ValidUntil)
		return ref
	}
	return nil
}

// An indexName is where a Release lists one Packages index.
type indexName struct {
	component string // as it stands in the path
	arch      string
}

func (n indexName) dir() string { return path.Join(n.component, "binary-"+n.arch) }

// index finds under which path a component's index is listed. A component may
// be listed with a prefix ("updates/main") that its path lacks, or the other
// way round.
func (r *Release) index(component, arch string) (indexName, bool) {
	for _, c := range []string{component, path.Base(component)} {
		n := indexName{c, arch}
		for _, comp := range compressions {
			if _, ok := r.files[n.dir()+"/Packages"+comp.ext]; ok {
				return n, true
			}
		}
	}
	return indexName{}, false
}
