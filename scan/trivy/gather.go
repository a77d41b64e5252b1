package trivy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aquasecurity/trivy/pkg/licensing"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

const (
	// maxMetadata bounds a file about one package. Long descriptions stand in
	// METADATA; the largest known are below 1 MiB.
	maxMetadata = 16 << 20
	// maxList bounds a lock file or a list of installed packages. A dpkg
	// status of 3,000 packages has 3 MB, the largest package-lock.json of a
	// big front end about 5 MB.
	maxList = 16 << 20
	// maxField bounds what is kept of a field: names and versions are short,
	// and what is longer is a description in the wrong place.
	maxField = 200
	// maxLicences bounds the licences of one package. A copyright file of a
	// large source names about 40.
	maxLicences = 64
)

// Forms of evidence.
const (
	formDistInfo  = "dist-info"
	formEggInfo   = "egg-info"
	formSdist     = "sdist"
	formDpkg      = "dpkg"
	formControl   = "control"
	formCopyright = "copyright"
	formApk       = "apk"
	formRPM       = "rpm"
	formOS        = "os-release"
	formNode      = "package.json"
)

// A parser reads one form of file.
type parser struct {
	form  string
	limit int64
	read  func(ctx context.Context, f *walk.File, ev *scan.Evidence) error
}

// Gather implements [scan.Gatherer]. A file that should tell of packages and
// cannot be read is an error: a package that is not seen is not judged.
func (s *Scanner) Gather(ctx context.Context, f *walk.File) (ev *scan.Evidence, err error) {
	if !f.Regular() || f.Opened {
		return nil, nil
	}
	p := recognise(f.Path)
	if p == nil {
		return nil, nil
	}
	if f.Size > p.limit {
		return nil, fmt.Errorf("%s: has %d bytes, at most %d are read", p.form, f.Size, p.limit)
	}
	// Parsers of others read bytes of strangers.
	defer func() {
		if r := recover(); r != nil {
			ev, err = nil, fmt.Errorf("%s: malformed: %v", p.form, r)
		}
	}()
	ev = &scan.Evidence{Path: f.Path[1:], Form: p.form}
	switch err := p.read(ctx, f, ev); {
	case errors.Is(err, errNothing):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: malformed: %w", p.form, err)
	}
	for i := range ev.Packages {
		if err := tidy(&ev.Packages[i]); err != nil {
			return nil, fmt.Errorf("%s: malformed: %w", p.form, err)
		}
	}
	return ev, nil
}

// errNothing says that a file has a telling name and tells nothing.
var errNothing = errors.New("tells nothing of packages")

// recognise tells by its path what a file is. Everywhere else darkmirror
// types files by content, but what makes these files count is where they lie:
// pip and dpkg find them so.
func recognise(p []string) *parser {
	inner := rooted(p[1:])
	if len(inner) == 0 {
		return byName(path.Base(p[0]))
	}
	at := clean(inner[len(inner)-1])
	dir, base := path.Split(at)
	dir = strings.TrimSuffix(dir, "/")
	parent := path.Base(dir)
	switch {
	case base == "METADATA" && strings.HasSuffix(parent, ".dist-info"):
		return &parser{formDistInfo, maxMetadata, readCore}
	case base == "PKG-INFO" && (strings.HasSuffix(parent, ".egg-info") || parent == "EGG-INFO"),
		strings.HasSuffix(base, ".egg-info"):
		return &parser{formEggInfo, maxMetadata, readCore}
	case base == "PKG-INFO" && dir != "" && !strings.Contains(dir, "/"):
		return &parser{formSdist, maxMetadata, readCore}
	case base == "control" && dir == "" && len(inner) > 1 && strings.HasPrefix(inner[len(inner)-2], "control.tar"):
		return &parser{formControl, maxMetadata, readControl}
	case at == "var/lib/dpkg/status",
		dir == "var/lib/dpkg/status.d" && !strings.HasSuffix(base, ".md5sums"):
		return &parser{formDpkg, maxList, readDpkg}
	case base == "copyright" && strings.HasPrefix(dir, "usr/share/doc/"):
		return &parser{formCopyright, maxMetadata, readCopyright}
	case at == "lib/apk/db/installed", at == "usr/lib/apk/db/installed":
		return &parser{formApk, maxList, readApk}
	case at == "etc/os-release", at == "usr/lib/os-release":
		return &parser{formOS, maxMetadata, readOSRelease}
	case slices.Contains(rpmFiles, at):
		return &parser{formRPM, 1 << 62, readNothing}
	case base == "package.json":
		return &parser{formNode, maxMetadata, readNode}
	}
	return byName(base)
}

// byName recognises lock files, which may lie anywhere.
func byName(base string) *parser {
	if read := lockReader(base); read != nil {
		return &parser{lockForm(base), maxList, read}
	}
	return nil
}

// rpmFiles are where RPM keeps what is installed.
var rpmFiles = []string{
	"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite",
	"usr/lib/sysimage/rpm/Packages", "usr/lib/sysimage/rpm/Packages.db", "usr/lib/sysimage/rpm/rpmdb.sqlite",
}

func readNothing(context.Context, *walk.File, *scan.Evidence) error { return nil }

// rooted drops the nameless elements of a path, which compression makes.
func rooted(p []string) []string {
	return slices.DeleteFunc(slices.Clone(p), func(s string) bool { return s == "" })
}

// clean is an entry's name without "./" before it.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// tidy bounds what stays of a package, and refuses a name or a version that
// would not be one.
func tidy(p *scan.Package) error {
	for _, f := range []struct{ what, value string }{
		{"name", p.Name}, {"version", p.Version}, {"architecture", p.Arch}, {"source", p.SrcName}, {"source version", p.SrcVer},
	} {
		if len(f.value) > maxField || strings.ContainsFunc(f.value, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
			return fmt.Errorf("%s of %d bytes, starting %q", f.what, len(f.value), clip(f.value, 40))
		}
	}
	p.Licences = licences(p.Licences)
	p.Maintainer, p.Homepage = oneLine(p.Maintainer), oneLine(p.Homepage)
	return nil
}

// licences names licences as SPDX does where Trivy knows them, sorted. A text
// in place of a name is cut: whoever compares names finds none.
func licences(list []string) []string {
	var out []string
	for _, l := range licensing.NormalizeLicenses(list) {
		if l = oneLine(l); l != "" {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxLicences)]
}

// oneLine makes text of strangers printable, on one line and short.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(clip(s, 4*maxField), "?")), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	return strings.ToValidUTF8(clip(s, maxField), "")
}

// clip cuts bytes; a rune may be cut in two.
func clip(s string, n int) string { return s[:min(len(s), n)] }

// whole reads a file that was found small enough.
func whole(f *walk.File) ([]byte, error) {
	b := make([]byte, f.Size)
	if _, err := io.ReadFull(f.Reader(), b); err != nil {
		return nil, err
	}
	return b, nil
}
