package trivy

import (
	"fmt"
	"strings"

	npm "github.com/aquasecurity/go-npm-version/pkg"
	pep440 "github.com/aquasecurity/go-pep440-version"
	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/ecosystem"
	dbtypes "github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/bucket"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/vulnerability"
	osver "github.com/aquasecurity/trivy/pkg/detector/ospkg/version"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/purl"
	"github.com/aquasecurity/trivy/pkg/types"
	apkver "github.com/knqyf263/go-apk-version"
	debver "github.com/knqyf263/go-deb-version"
	"github.com/package-url/packageurl-go"

	"github.com/darkmirror/darkmirror/scan"
)

// purlOf names a package as Trivy does.
func purlOf(t ftypes.TargetType, os *ftypes.OS, p ftypes.Package) (*packageurl.PackageURL, error) {
	u, err := purl.New(t, types.Metadata{OS: os}, p)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", p.Name, p.Version, err)
	}
	return u.Unwrap(), nil
}

// splitDeb reads a version as dpkg does.
func splitDeb(v string) (debver.Version, error) { return debver.NewVersion(v) }

// A distribution is one that the detectors compare.
type distribution struct {
	family  ftypes.OSType
	typ     string // of its packages
	release func(version string) bucket.Bucket
}

var distributions = map[string]distribution{
	"debian":     {ftypes.Debian, "deb", func(v string) bucket.Bucket { return bucket.NewDebian(osver.Major(v)) }},
	"ubuntu":     {ftypes.Ubuntu, "deb", func(v string) bucket.Bucket { return bucket.NewUbuntu(v) }},
	"alpine":     {ftypes.Alpine, "apk", func(v string) bucket.Bucket { return bucket.NewAlpine(osver.Minor(v)) }},
	"wolfi":      {ftypes.Wolfi, "apk", func(string) bucket.Bucket { return bucket.NewWolfi("") }},
	"chainguard": {ftypes.Chainguard, "apk", func(string) bucket.Bucket { return bucket.NewChainguard("") }},
}

// distribution is the group's, if the database has advisories for its very
// release. A detector that finds none there would say nothing.
func (g *group) distribution() (distribution, bool, error) {
	d, ok := distributions[g.family]
	if !ok || g.version == "" {
		return d, false, nil
	}
	found, err := has(d.release(g.version).Name())
	return d, found, err
}

// convert makes Trivy's package. Its field Repository stays empty: Trivy
// guesses from the maintainer that a package comes from a third party, and
// then compares it with nothing.
func (d distribution) convert(p scan.Package) (ftypes.Package, error) {
	q := ftypes.Package{ID: p.Name + "@" + p.Version, Name: p.Name, Version: p.Version, Arch: p.Arch, SrcName: p.SrcName, SrcVersion: p.SrcVer}
	if p.Type != d.typ {
		return q, fmt.Errorf("a package of type %s on %s", p.Type, d.family)
	}
	if p.Type == "apk" {
		if !apkver.Valid(p.Version) {
			return q, errNoVersion
		}
		return q, nil
	}
	v, err := splitDeb(p.Version)
	if err != nil {
		return q, errNoVersion
	}
	sv, err := splitDeb(p.SrcVer)
	if err != nil {
		return q, errNoVersion
	}
	q.Epoch, q.Version, q.Release = v.Epoch(), v.Version(), v.Revision()
	q.SrcEpoch, q.SrcVersion, q.SrcRelease = sv.Epoch(), sv.Version(), sv.Revision()
	return q, nil
}

// An ecosystem is a language whose packages the detectors compare.
type ecosys struct {
	purl   string // type in a package URL
	app    ftypes.LangType
	eco    ecosystem.Type
	bucket string // prefix of the advisories
	// version and ranges read what the detector will read, which itself goes
	// on without a word where it cannot.
	version func(string) error
	ranges  func(string) error
}

var ecosystems = []ecosys{
	{
		purl: "pypi", app: ftypes.PythonPkg, eco: ecosystem.Pip, bucket: "pip::",
		version: func(v string) error { _, err := pep440.Parse(v); return err },
		ranges: func(r string) error {
			_, err := pep440.NewSpecifiers(r, pep440.WithPreRelease(true))
			return err
		},
	},
	{
		purl: "npm", app: ftypes.NodePkg, eco: ecosystem.Npm, bucket: "npm::",
		version: func(v string) error { _, err := npm.NewVersion(v); return err },
		ranges:  func(r string) error { _, err := npm.NewConstraints(r); return err },
	},
}

// comparable tells whether the detector can compare the package, and adds
// findings for what it cannot. A package without advisories is comparable
// with nothing, whatever its version.
func (e ecosys) comparable(c *collection, p located) (bool, error) {
	advisories, err := db.Config{}.GetAdvisories(e.bucket, vulnerability.NormalizePkgName(e.eco, p.Name))
	if err != nil || len(advisories) == 0 {
		return true, err
	}
	if e.version(p.Version) != nil {
		c.skipped(IDVersion, p.path, fmt.Sprintf("%s %s: the version cannot be read: it was not compared with %d advisories", p.Name, p.Version, len(advisories)))
		return false, nil
	}
	for _, a := range advisories {
		if e.readable(a) {
			continue
		}
		q := ftypes.Package{Name: p.Name, Version: p.Version}
		u, err := purlOf(e.app, nil, q)
		if err != nil {
			return false, err
		}
		c.add(key{scan.KindVulnerability, a.VulnerabilityID, u.String()}, scan.Finding{
			Scanner: name, Kind: scan.KindVulnerability, ID: a.VulnerabilityID, Severity: scan.Unknown, Path: p.path, Package: u.String(),
			Text: fmt.Sprintf("%s %s: the advisory's versions cannot be read, so it may apply", p.Name, p.Version),
		})
	}
	return true, nil
}

func (e ecosys) readable(a dbtypes.Advisory) bool {
	for _, list := range [][]string{a.VulnerableVersions, append(a.PatchedVersions, a.UnaffectedVersions...)} {
		if len(list) > 0 && e.ranges(strings.Join(list, " || ")) != nil {
			return false
		}
	}
	return true
}
