package packages

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

const (
	// maxRecords bounds the records of all lists. The public list has about
	// 14,000 for Python and ten times that for all ecosystems.
	maxRecords = 1_000_000
	// maxRecord bounds one record; those with thousands of versions have 200
	// KiB.
	maxRecord = 8 << 20
)

// A record is what is used of an OSV record.
type record struct {
	ID        string     `json:"id"`
	Summary   string     `json:"summary"`
	Modified  time.Time  `json:"modified"`
	Withdrawn *time.Time `json:"withdrawn"`
	Affected  []struct {
		Package struct {
			Ecosystem string `json:"ecosystem"`
			Name      string `json:"name"`
		} `json:"package"`
		Ranges []struct {
			Type   string              `json:"type"`
			Events []map[string]string `json:"events"`
		} `json:"ranges"`
		Versions []string `json:"versions"`
	} `json:"affected"`
	DatabaseSpecific struct {
		Origins []struct {
			SHA256 string `json:"sha256"`
		} `json:"malicious-packages-origins"`
		IOCs struct {
			Digests []string `json:"digests"`
		} `json:"iocs"`
	} `json:"database_specific"`
}

// An entry is what is known of one name: all its versions, or some.
type entry struct {
	id, summary string
	all         bool
	versions    []string
	spans       []span
}

// A span is a range of versions of an OSV record: from introduced on, before
// fixed or up to last.
type span struct{ introduced, fixed, last string }

// A list is what all records say, by ecosystem and name.
type list struct {
	names   map[string][]entry
	digests map[artifact.Digest]entry
	records int
	newest  time.Time
	digest  artifact.Digest
}

// readLists reads every record of the folders and zip files.
func readLists(ctx context.Context, places []string) (*list, error) {
	l := &list{names: make(map[string][]entry), digests: make(map[artifact.Digest]entry)}
	if len(places) == 0 {
		return l, nil
	}
	h := sha256.New()
	for _, p := range places {
		before := l.records
		err := eachFile(ctx, p, func(name string, b []byte) error {
			if err := l.add(b); err != nil {
				return fmt.Errorf("%s: %s: %w", p, name, err)
			}
			sum := sha256.Sum256(b)
			// A hash does not fail.
			_, _ = fmt.Fprintf(h, "%x  %s\n", sum, name)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if l.records == before {
			return nil, fmt.Errorf("%s: no record of a malicious package is in it", p)
		}
	}
	l.digest = artifact.Digest(h.Sum(nil))
	return l, nil
}

// eachFile gives every .json file of a folder or zip file, in the order of
// their names.
func eachFile(ctx context.Context, p string, do func(name string, b []byte) error) (err error) {
	info, err := os.Stat(p)
	if err != nil {
		return err
	}
	var fsys fs.FS
	if info.IsDir() {
		root, err := os.OpenRoot(p)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, root.Close()) }()
		fsys = root.FS()
	} else {
		z, err := zip.OpenReader(p)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(p), err)
		}
		defer func() { err = errors.Join(err, z.Close()) }()
		return eachZipped(ctx, &z.Reader, do)
	}
	return fs.WalkDir(fsys, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if e.IsDir() || path.Ext(name) != ".json" {
			return nil
		}
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		b, err := readRecord(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return do(name, b)
	})
}

func eachZipped(ctx context.Context, z *zip.Reader, do func(name string, b []byte) error) error {
	files := slices.SortedFunc(slices.Values(z.File), func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if path.Ext(e.Name) != ".json" {
			continue
		}
		f, err := e.Open()
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		b, err := readRecord(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		if err := do(e.Name, b); err != nil {
			return err
		}
	}
	return nil
}

func readRecord(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxRecord {
		return nil, fmt.Errorf("more than %d bytes", maxRecord)
	}
	return b, nil
}

// add takes one record.
func (l *list) add(b []byte) error {
	var r record
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&r); err != nil {
		return fmt.Errorf("not an OSV record: %w", err)
	}
	if r.ID == "" || r.Modified.IsZero() {
		return errors.New("not an OSV record: it has no id or no time of modification")
	}
	if l.records++; l.records > maxRecords {
		return fmt.Errorf("more than %d records", maxRecords)
	}
	if r.Modified.After(l.newest) {
		l.newest = r.Modified
	}
	// Advisories of other kinds stand in the same files of some lists.
	if r.Withdrawn != nil || !strings.HasPrefix(r.ID, "MAL-") {
		return nil
	}
	for _, a := range r.Affected {
		e := entry{id: r.ID, summary: r.Summary, versions: a.Versions}
		for _, g := range a.Ranges {
			spans, err := spansOf(g.Events)
			if err != nil {
				return fmt.Errorf("%s: %w", r.ID, err)
			}
			e.spans = append(e.spans, spans...)
		}
		// A record without versions and ranges is of all of them.
		e.all = len(a.Versions) == 0 && len(e.spans) == 0
		key := keyOf(a.Package.Ecosystem, a.Package.Name)
		l.names[key] = append(l.names[key], e)
	}
	for _, o := range r.DatabaseSpecific.Origins {
		l.sum(o.SHA256, r)
	}
	for _, d := range r.DatabaseSpecific.IOCs.Digests {
		l.sum(d, r)
	}
	return nil
}

func (l *list) sum(hex string, r record) {
	// Some origins are of the report and not of the package: a digest that
	// matches nothing harms nobody.
	if d, err := artifact.ParseHex(strings.TrimPrefix(strings.ToLower(hex), "sha256:")); err == nil {
		l.digests[d] = entry{id: r.ID, summary: r.Summary}
	}
}

// spansOf pairs the events of a range, which come in order.
func spansOf(events []map[string]string) ([]span, error) {
	var list []span
	for _, e := range events {
		switch {
		case len(e) != 1:
			return nil, errors.New("an event of a range is not one of introduced, fixed, last_affected and limit")
		case e["introduced"] != "":
			list = append(list, span{introduced: e["introduced"]})
		case len(list) == 0:
			return nil, errors.New("a range starts without introduced")
		case e["fixed"] != "":
			list[len(list)-1].fixed = e["fixed"]
		case e["last_affected"] != "":
			list[len(list)-1].last = e["last_affected"]
		}
	}
	return list, nil
}

// keyOf brings an ecosystem, "PyPI" or "Debian:12", and a name together.
func keyOf(ecosystem, name string) string {
	eco, _, _ := strings.Cut(strings.ToLower(ecosystem), ":")
	if eco == "pypi" {
		name = normal(name)
	}
	return eco + " " + name
}

// ecosystems are OSV's names for ours.
var ecosystems = map[string][]string{"pypi": {"pypi"}, "apt": {"debian", "ubuntu"}}

// match looks an artifact up, by name and version and by its files' digests.
func (l *list) match(s scan.Subject) []scan.Finding {
	var found []scan.Finding
	hit := func(e entry, how string) {
		found = append(found, scan.Finding{
			Kind: scan.KindMalware, ID: cmp.Or(e.id, codeMaliciousSum), Severity: scan.Critical,
			Text: "a package that is known to be malicious, " + how + ": " + e.summary,
		})
	}
	eco, _, _ := strings.Cut(s.Source, "/")
	for _, name := range ecosystems[eco] {
		for _, e := range l.names[keyOf(name, s.Artifact.Name)] {
			if e.covers(s.Artifact.Version) {
				hit(e, "by name and version")
			}
		}
	}
	for _, f := range s.Artifact.Files {
		if e, ok := l.digests[f.Digest]; ok {
			hit(e, "by digest of "+path.Base(f.Path))
		}
	}
	return found
}

// covers reports whether the entry is about a version. Where versions cannot
// be compared, it is.
func (e entry) covers(version string) bool {
	if e.all || slices.ContainsFunc(e.versions, func(v string) bool { return v == version || compare(v, version) == 0 }) {
		return true
	}
	return slices.ContainsFunc(e.spans, func(s span) bool {
		switch {
		case s.introduced != "0" && compare(version, s.introduced) < 0:
			return false
		case s.fixed != "":
			return compare(version, s.fixed) < 0
		case s.last != "":
			return compare(version, s.last) <= 0
		}
		return true
	})
}

// compare orders versions as far as lists of malicious packages need it: by
// their numbers, a pre-release before its release, the rest as text. PEP
// 440's epochs, post releases and local versions are among the rest.
func compare(a, b string) int {
	x, y := words(a), words(b)
	for i := range max(len(x), len(y)) {
		if c := compareWord(at(x, i), at(y, i)); c != 0 {
			return c
		}
	}
	return 0
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return "0"
}

// words splits "1.0rc2" into 1, 0, rc, 2, without a leading v.
func words(v string) []string {
	v = strings.TrimPrefix(strings.ToLower(v), "v")
	var list []string
	for i := 0; i < len(v); {
		j := i
		for j < len(v) && isDigit(v[j]) == isDigit(v[i]) && v[j] != '.' && v[j] != '-' && v[j] != '_' && v[j] != '+' {
			j++
		}
		if j > i {
			list = append(list, v[i:j])
		}
		if j < len(v) && !isDigit(v[j]) && (v[j] == '.' || v[j] == '-' || v[j] == '_' || v[j] == '+') {
			j++
		}
		i = max(j, i+1)
	}
	return list
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// compareWord: a number is after a word, since words name pre-releases; post
// is the one that is not.
func compareWord(a, b string) int {
	an, bn := isDigit(a[0]), isDigit(b[0])
	switch {
	case an && bn:
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	case an:
		return order(b == "post" || b == "r" || b == "rev", -1, 1)
	case bn:
		return order(a == "post" || a == "r" || a == "rev", 1, -1)
	}
	return strings.Compare(a, b)
}

func order(cond bool, yes, no int) int {
	if cond {
		return yes
	}
	return no
}
