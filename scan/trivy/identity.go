package trivy

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	pep440 "github.com/aquasecurity/go-pep440-version"

	"github.com/darkmirror/darkmirror/scan"
)

// checkIdentity holds a wheel, an sdist and a .deb to what the index calls
// them: the file's own metadata is what an installer records, and what the
// database is asked about.
func checkIdentity(sub scan.Subject, p scan.Part) error {
	base := path.Base(p.Name)
	switch {
	case strings.HasPrefix(sub.Source, "pypi/") && strings.HasSuffix(base, ".whl"):
		return checkWheel(sub, p, base)
	case strings.HasPrefix(sub.Source, "pypi/") && isSdist(base):
		return checkSdist(sub, p, base)
	case strings.HasPrefix(sub.Source, "apt/") && hasSuffix(base, ".deb", ".udeb"):
		return checkDeb(sub, p, base)
	}
	return nil
}

func hasSuffix(s string, suffixes ...string) bool {
	return slices.ContainsFunc(suffixes, func(x string) bool { return strings.HasSuffix(s, x) })
}

func isSdist(base string) bool {
	return hasSuffix(base, ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.Z", ".tar")
}

func mismatch(file, what, got string) error {
	return fmt.Errorf("identity mismatch: file says %s, %s says %s", file, what, got)
}

// checkWheel compares subject, file name and the one dist-info folder at the
// wheel's root.
func checkWheel(sub scan.Subject, p scan.Part, base string) error {
	parts := strings.Split(strings.TrimSuffix(base, ".whl"), "-")
	if len(parts) < 2 {
		return fmt.Errorf("identity mismatch: file name %s is not a wheel's", base)
	}
	if want := sub.Artifact.Name + " " + sub.Artifact.Version; !same(parts[0], parts[1], sub.Artifact.Name, sub.Artifact.Version) {
		return mismatch(parts[0]+" "+parts[1], "the index", want)
	}
	root := atRoot(p, formDistInfo, func(at string) bool { return strings.Count(at, "/") == 1 })
	if len(root) != 1 {
		return fmt.Errorf("identity mismatch: file says %s %s, but it has %d METADATA files at its root, want 1", parts[0], parts[1], len(root))
	}
	if m := root[0]; !same(m.Name, m.Version, parts[0], parts[1]) {
		return mismatch(parts[0]+" "+parts[1], "METADATA", m.Name+" "+m.Version)
	}
	return nil
}

// checkSdist compares the subject with the PKG-INFO of the archive's one
// folder. The file name's version is compared by package pypi, which reads
// the index.
func checkSdist(sub scan.Subject, p scan.Part, base string) error {
	root := atRoot(p, formSdist, func(at string) bool { return strings.Count(at, "/") == 1 })
	if len(root) != 1 {
		return fmt.Errorf("identity mismatch: file says %s, but it has %d PKG-INFO files at its root, want 1", base, len(root))
	}
	if m := root[0]; !same(m.Name, m.Version, sub.Artifact.Name, sub.Artifact.Version) {
		return mismatch(base, "PKG-INFO", m.Name+" "+m.Version)
	}
	return nil
}

// atRoot answers the packages of evidence that lies in the outermost archive.
func atRoot(p scan.Part, form string, ok func(at string) bool) []scan.Package {
	var list []scan.Package
	for _, ev := range p.Evidence {
		if inner := rooted(ev.Path); ev.Form == form && len(inner) == 1 && ok(clean(inner[0])) {
			list = append(list, ev.Packages...)
		}
	}
	return list
}

// checkDeb compares the subject with the control file. An artifact of another
// architecture than the main one is called name:architecture.
func checkDeb(sub scan.Subject, p scan.Part, base string) error {
	var root []scan.Package
	for _, ev := range p.Evidence {
		if ev.Form == formControl && len(rooted(ev.Path)) == 2 {
			root = append(root, ev.Packages...)
		}
	}
	if len(root) != 1 {
		return fmt.Errorf("identity mismatch: %s has %d control files, want 1", base, len(root))
	}
	c := root[0]
	want, arch, _ := strings.Cut(sub.Artifact.Name, ":")
	if c.Name != want || c.Version != sub.Artifact.Version || arch != "" && c.Arch != arch {
		return fmt.Errorf("identity mismatch: the index says %s %s, control says %s %s", sub.Artifact.Name, sub.Artifact.Version, c.Name, c.Version)
	}
	return nil
}

var separators = regexp.MustCompile(`[-_.]+`)

// same compares names as PEP 503 and versions as PEP 440 do.
func same(name, version, wantName, wantVersion string) bool {
	normal := func(n string) string { return separators.ReplaceAllString(strings.ToLower(n), "-") }
	if normal(name) != normal(wantName) {
		return false
	}
	if version == wantVersion {
		return true
	}
	// A wheel's file name has "_" where a local version may have "-" or ".".
	v, err := pep440.Parse(strings.ReplaceAll(version, "_", "."))
	w, werr := pep440.Parse(strings.ReplaceAll(wantVersion, "_", "."))
	return err == nil && werr == nil && v.Equal(w) && v.Local() == w.Local()
}
