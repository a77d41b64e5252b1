package pypi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// mostNamed bounds the files that one refusal lists.
const mostNamed = 12

// A choice is the file that a target gets for a pin.
type choice struct {
	pageFile
	pin   *Pin
	notes []string
}

// chooser picks files from one project's page.
type chooser struct {
	source string
	page   *page
	sdists bool
	// named gives a file of which the index tells no hash the one of the lock;
	// nil: such a file does not count.
	named func(f *pageFile, hashes map[artifact.Digest]bool) (*pageFile, error)
}

// rejected collects why files do not serve, for the refusal.
type rejected struct {
	lines  []string
	nohash []string // files that fit but carry no sha256 on the index
	known  bool     // some file's hash is in the lock
}

func (r *rejected) add(file, why string) { r.lines = append(r.lines, file+": "+why) }

func (r *rejected) String() string {
	if len(r.lines) == 0 {
		return "the index has no file of that version"
	}
	lines := slices.Clone(r.lines)
	if more := len(lines) - mostNamed; more > 0 {
		lines = append(lines[:mostNamed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// candidate is a file that would serve, with what it is compared by.
type candidate struct {
	file  *pageFile
	rank  int
	build packaging.Build
	sdist bool
}

// better orders wheels by tag, then by build number, before source archives.
func better(a, b candidate) int {
	sdist := func(c candidate) int {
		if c.sdist {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(sdist(a), sdist(b)),
		cmp.Compare(a.rank, b.rank),
		b.build.Compare(a.build),
		cmp.Compare(b.archiveRank(), a.archiveRank()),
		strings.Compare(a.file.Filename, b.file.Filename),
	)
}

// archiveRank prefers .tar.gz to the older .zip.
func (c candidate) archiveRank() int {
	if strings.HasSuffix(c.file.Filename, ".tar.gz") {
		return 1
	}
	return 0
}

func (c *chooser) subject(pin *Pin) string {
	return fmt.Sprintf("%s: %s %s (%s)", c.source, pin.Name, pin.Version, pin.Where)
}

// choose picks the file that an installer of the target would pick from the
// lock.
func (c *chooser) choose(pin *Pin, t *packaging.Target) (*choice, error) {
	var got *choice
	var err error
	switch {
	case pin.chosen != nil:
		got = &choice{pageFile: *pin.chosen}
	case pin.Files != nil:
		got, err = c.fromFiles(pin, t)
	default:
		got, err = c.fromDigests(pin, t)
	}
	if err != nil {
		return nil, err
	}
	got.pin = pin
	if got.urlName != got.Filename {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "PYPI-FILENAME", Subject: c.subject(pin),
			Reason: "the link and the filename differ", Want: clip(got.Filename), Got: clip(got.urlName),
		}
	}
	if got.Yanked {
		got.notes = append(got.notes, fmt.Sprintf("%s %s is yanked upstream: %s", pin.Name, pin.Version, cmp.Or(got.YankedReason, "no reason given")))
	}
	if isSdist := !packaging.IsWheel(got.Filename); isSdist {
		got.notes = append(got.notes, fmt.Sprintf("%s %s for %s is a source archive: it is built where it is installed", pin.Name, pin.Version, t.Text))
	}
	return got, nil
}

// fit says whether a file of the right project and version can be installed
// on the target.
func (c *chooser) fit(f *pageFile, t *packaging.Target) (cand candidate, why string) {
	cand.file = f
	if !packaging.IsWheel(f.Filename) {
		if !c.sdists {
			return cand, "a source archive, and allow_sdist is off"
		}
		cand.sdist = true
	} else {
		w, err := packaging.ParseWheelName(f.Filename)
		if err != nil {
			return cand, err.Error()
		}
		rank, ok := t.Rank(w)
		if !ok {
			return cand, "its tags do not fit"
		}
		cand.rank, cand.build = rank, w.Build
	}
	if set, err := packaging.ParseSpecifiers(f.RequiresPython); err == nil && !set.Contains(t.Python) {
		return cand, fmt.Sprintf("requires Python %s", f.RequiresPython)
	}
	return cand, ""
}

const noHash = ": the index names no sha256; the lock's is used"

// fromDigests chooses for a pin of a requirements file, whose hashes do not
// name their files: among the files of the page whose hash is in the lock.
func (c *chooser) fromDigests(pin *Pin, t *packaging.Target) (*choice, error) {
	var cands, unnamed []candidate
	var rej rejected
	for i := range c.page.Files {
		f := &c.page.Files[i]
		if _, v, err := packaging.ParseDistName(f.Filename); err != nil || v.Compare(pin.Version) != 0 {
			continue
		}
		rej.known = rej.known || pin.Digests[f.Digest]
		cand, why := c.fit(f, t)
		switch {
		case why != "":
			rej.add(f.Filename, why)
		case f.Digest.IsZero() && c.named != nil:
			unnamed = append(unnamed, cand)
		case f.Digest.IsZero():
			rej.add(f.Filename, "the index names no sha256 for it")
			rej.nohash = append(rej.nohash, f.Filename)
		case !pin.Digests[f.Digest]:
			rej.add(f.Filename, "its hash "+f.Digest.Short()+"... is not in the lock")
		default:
			cands = append(cands, cand)
		}
	}
	if len(cands) > 0 {
		return &choice{pageFile: *slices.MinFunc(cands, better).file}, nil
	}
	if len(unnamed) > 0 {
		f, err := c.named(slices.MinFunc(unnamed, better).file, pin.Digests)
		if err != nil {
			return nil, err
		}
		return &choice{pageFile: *f, notes: []string{f.Filename + noHash}}, nil
	}
	return nil, c.refuse(pin, t, &rej)
}

// refuse says why no file serves. If none of the lock's hashes is on the
// page though there are files, the lock and the index speak of other bytes.
func (c *chooser) refuse(pin *Pin, t *packaging.Target, rej *rejected) error {
	r := &artifact.Refusal{Class: artifact.ErrUnavailable, Code: "PYPI-NO-FILE", Subject: c.subject(pin), Reason: fmt.Sprintf("no file serves target %s: %s", t.Text, rej)}
	switch {
	case len(rej.nohash) > 0:
		r.Class, r.Code = artifact.ErrIntegrity, "PYPI-NO-HASH"
	case !rej.known && len(rej.lines) > 0:
		r.Class, r.Code = artifact.ErrIntegrity, "PYPI-HASH-MISMATCH"
		r.Reason = fmt.Sprintf("none of the lock's hashes is on the index (target %s): %s", t.Text, rej)
	}
	return r
}

// fromFiles chooses for a pin of a pylock.toml: the best of its files, which
// the index must offer with the same hash and size.
func (c *chooser) fromFiles(pin *Pin, t *packaging.Target) (*choice, error) {
	var cands []candidate
	var rej rejected
	for i := range pin.Files {
		f := &pageFile{Filename: pin.Files[i].Name, Digest: pin.Files[i].Digest, Size: pin.Files[i].Size}
		cand, why := c.fit(f, t)
		if why != "" {
			rej.add(f.Filename, why)
			continue
		}
		cands = append(cands, cand)
	}
	if len(pin.Files) == 0 {
		rej.lines = append(rej.lines, "it names neither a wheel nor a source archive of that version")
	}
	if len(cands) == 0 {
		return nil, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: "PYPI-NO-FILE", Subject: c.subject(pin), Reason: fmt.Sprintf("no file of the lock serves target %s: %s", t.Text, &rej)}
	}
	locked := slices.MinFunc(cands, better).file
	i := slices.IndexFunc(c.page.Files, func(f pageFile) bool { return f.Filename == locked.Filename })
	if i < 0 {
		return nil, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: "PYPI-NO-FILE", Subject: c.subject(pin), Reason: fmt.Sprintf("the index does not offer %s, which the lock has for target %s", locked.Filename, t.Text)}
	}
	got := &choice{pageFile: c.page.Files[i]}
	if _, why := c.fit(&got.pageFile, t); why != "" {
		return nil, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: "PYPI-NO-FILE", Subject: c.subject(pin), Reason: fmt.Sprintf("%s does not serve target %s: %s", got.Filename, t.Text, why)}
	}
	return got, c.agree(got, locked, pin)
}

// agree compares what the index and the lock say of one file.
func (c *chooser) agree(got *choice, locked *pageFile, pin *Pin) error {
	subject := c.subject(pin) + ": " + got.Filename
	switch {
	case got.Digest.IsZero():
		got.Digest = locked.Digest
		got.notes = append(got.notes, got.Filename+noHash)
	case got.Digest != locked.Digest:
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-HASH-MISMATCH", Subject: subject, Reason: "the index names another hash than the lock", Want: locked.Digest.String(), Got: got.Digest.String()}
	}
	switch {
	case got.Size < 0:
		got.Size = locked.Size
	case locked.Size >= 0 && got.Size != locked.Size:
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-SIZE-MISMATCH", Subject: subject, Reason: "the index names another size than the lock", Want: fmt.Sprint(locked.Size), Got: fmt.Sprint(got.Size)}
	}
	return nil
}
