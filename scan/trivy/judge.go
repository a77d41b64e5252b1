package trivy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aquasecurity/trivy-db/pkg/db"
	dbtypes "github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy/pkg/clock"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/scan/langpkg"
	"github.com/aquasecurity/trivy/pkg/scan/ospkg"
	"github.com/aquasecurity/trivy/pkg/types"
	"github.com/aquasecurity/trivy/pkg/vulnerability"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// IDs of findings that say what was not looked at.
const (
	IDNoDistribution  = "TRIVY-NO-DISTRIBUTION"  // packages of an unknown distribution
	IDUnsupported     = "TRIVY-UNSUPPORTED"      // a distribution, or packages, without advisories
	IDEndOfLife       = "TRIVY-END-OF-LIFE"      // a distribution for which no more advisories come
	IDVersion         = "TRIVY-VERSION"          // a version that cannot be compared
	IDUnreadableLock  = "TRIVY-UNREADABLE-LOCK"  // a lock file that cannot be read
	IDUnreadableRange = "TRIVY-UNREADABLE-RANGE" // an advisory whose versions cannot be read
)

// Judge implements [scan.Judge]: it compares the packages of every part with
// the database. Wheels, sdists and .debs must be what the index says, or the
// answer is an error: the same normalised name and the same version.
func (s *Scanner) Judge(ctx context.Context, sub scan.Subject, inv *scan.Inventory) ([]scan.Finding, error) {
	for _, p := range inv.Parts {
		if err := checkIdentity(sub, p); err != nil {
			return nil, err
		}
	}
	shared.RLock()
	defer shared.RUnlock()
	if shared.by != s {
		return nil, fmt.Errorf("%w: vulnerability database %s is not open", scan.ErrEngine, s.config.Database)
	}
	ctx = clock.With(ctx, s.today())
	c := &collection{}
	for _, p := range inv.Parts {
		for _, g := range s.groups(sub, p) {
			if err := ended(ctx); err != nil {
				return nil, err
			}
			if err := safely(func() error { return g.judge(ctx, c) }); err != nil {
				// Detection does not depend on anything but the database.
				return nil, fmt.Errorf("%w: vulnerability database %s: %w", scan.ErrEngine, s.config.Database, err)
			}
		}
	}
	return s.vex.sift(sub, c.list()), nil
}

// A group is what one operating system, or one package manager of a folder,
// has installed: the evidence of a part that lies in the same archive.
type group struct {
	part    string
	at      []string // of the archive, within the part
	family  string
	version string
	os      []scan.Package // of dpkg or apk
	lang    []located
	rpm     bool
	deb     bool     // a .deb's own control file, which names no distribution
	bad     []string // lock files that cannot be read
}

type located struct {
	scan.Package
	path string
}

// groups sorts a part's evidence. The operating system of one archive says
// nothing of another.
func (s *Scanner) groups(sub scan.Subject, p scan.Part) []*group {
	byPlace := make(map[string]*group)
	var order []string
	get := func(at []string) *group {
		key := strings.Join(at, "\x00")
		g := byPlace[key]
		if g == nil {
			g = &group{part: p.Name, at: at}
			byPlace[key] = g
			order = append(order, key)
		}
		return g
	}
	installs := !p.Root && !hasPrefix(sub.Source, "pypi/", "apt/", "oci/")
	for _, ev := range p.Evidence {
		inner := rooted(ev.Path)
		where := p.Name
		if len(inner) > 0 {
			where = walk.Join(append([]string{p.Name}, inner...))
		}
		g := get(inner[:max(0, len(inner)-1)])
		switch {
		case ev.Form == formOS:
			// What the administrator may change comes before what is shipped.
			if g.family == "" || len(inner) > 0 && clean(inner[len(inner)-1]) == "etc/os-release" {
				g.family, g.version = ev.OSFamily, ev.OSVersion
			}
		case ev.Form == formRPM:
			g.rpm = true
		case ev.Form == formDpkg, ev.Form == formApk:
			g.os = append(g.os, ev.Packages...)
		case ev.Form == formControl:
			g.deb = true
			if s.config.Distro != nil && !p.Root {
				g.family, g.version = s.config.Distro(sub.Source)
			}
			g.os = append(g.os, ev.Packages...)
		case isLock(ev.Form) && !installs, ev.Form == formCopyright:
		case strings.HasSuffix(ev.Form, unreadable):
			g.bad = append(g.bad, where)
		default:
			for _, pkg := range ev.Packages {
				g.lang = append(g.lang, located{pkg, where})
			}
		}
	}
	slices.Sort(order)
	list := make([]*group, len(order))
	for i, key := range order {
		g := byPlace[key]
		if top := byPlace[""]; g.deb && g.family == "" && p.Root && top != nil {
			// A .deb in a root file system was fetched to be installed there.
			g.family, g.version = top.family, top.version
		}
		list[i] = g
	}
	return list
}

func hasPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// where is the group's place, for people.
func (g *group) where() string { return walk.Join(append([]string{g.part}, g.at...)) }

func (g *group) judge(ctx context.Context, c *collection) error {
	for _, at := range g.bad {
		c.skipped(IDUnreadableLock, at, "the lock file cannot be read: its packages were not compared")
	}
	if err := g.judgeOS(ctx, c); err != nil {
		return err
	}
	return g.judgeLang(ctx, c)
}

// options of every scan. "auto" takes the severity of the advisory's own
// source first.
func options(typ string) types.ScanOptions {
	return types.ScanOptions{
		PkgTypes: []string{typ}, Scanners: types.Scanners{types.VulnerabilityScanner},
		VulnSeveritySources: []dbtypes.SourceID{"auto"},
	}
}

// judgeOS compares packages of the operating system.
func (g *group) judgeOS(ctx context.Context, c *collection) error {
	if g.rpm {
		c.skipped(IDUnsupported, g.where(), fmt.Sprintf("packages of RPM (%s) are not read: they were not compared", g.system()))
	}
	if len(g.os) == 0 {
		return nil
	}
	d, ok, err := g.distribution()
	if err != nil {
		return err
	}
	if !ok {
		id := IDUnsupported
		if g.family == "" {
			id = IDNoDistribution
		}
		c.skipped(id, g.where(), fmt.Sprintf("%s: the database has no advisories for it; %d packages were not compared", g.system(), len(g.os)))
		return nil
	}
	target := types.ScanTarget{Name: g.part, OS: ftypes.OS{Family: d.family, Name: g.version}}
	for _, p := range g.os {
		q, err := d.convert(p)
		if err != nil {
			c.skipped(IDVersion, g.where(), fmt.Sprintf("%s %s: %v: it was not compared", p.Name, p.Version, err))
			continue
		}
		q.Identifier.PURL, err = purlOf(d.family, &target.OS, q)
		if err != nil {
			return err
		}
		target.Packages = append(target.Packages, q)
	}
	res, old, err := ospkg.NewScanner().Scan(ctx, target, options(types.PkgTypeOS))
	if err != nil {
		return err
	}
	if old {
		c.skipped(IDEndOfLife, g.where(), fmt.Sprintf("%s is no longer supported by its makers: new vulnerabilities of its %d packages are not in the database", g.system(), len(g.os)))
	}
	fill(res.Vulnerabilities)
	for _, v := range res.Vulnerabilities {
		c.vulnerable(v, g.where())
	}
	return nil
}

func (g *group) system() string {
	return cmp.Or(strings.TrimSpace(g.family+" "+g.version), "unknown distribution")
}

func fill(vulns []types.DetectedVulnerability) {
	vc := vulnerability.NewClient(db.Config{})
	vc.FillInfo(vulns, []dbtypes.SourceID{"auto"})
}

// judgeLang compares packages of languages.
func (g *group) judgeLang(ctx context.Context, c *collection) error {
	for _, e := range ecosystems {
		apps := make(map[string]*ftypes.Application)
		var order []string
		for _, p := range g.lang {
			if p.Type != e.purl {
				continue
			}
			q := ftypes.Package{ID: p.Name + "@" + p.Version, Name: p.Name, Version: p.Version}
			ok, err := e.comparable(c, p)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			q.Identifier.PURL, err = purlOf(e.app, nil, q)
			if err != nil {
				return err
			}
			a := apps[p.path]
			if a == nil {
				a = &ftypes.Application{Type: e.app, FilePath: p.path}
				apps[p.path] = a
				order = append(order, p.path)
			}
			a.Packages = append(a.Packages, q)
		}
		if len(order) == 0 {
			continue
		}
		if ok, err := has(e.bucket); err != nil {
			return err
		} else if !ok {
			c.skipped(IDUnsupported, g.where(), fmt.Sprintf("the database has no advisories for packages of %s: those of %d files were not compared", e.purl, len(order)))
			continue
		}
		target := types.ScanTarget{Name: g.part}
		for _, at := range order {
			target.Applications = append(target.Applications, *apps[at])
		}
		results, err := langpkg.NewScanner().Scan(ctx, target, options(types.PkgTypeLibrary))
		if err != nil {
			return err
		}
		seen := 0
		for _, r := range results {
			seen += len(r.Packages)
			fill(r.Vulnerabilities)
			for _, v := range r.Vulnerabilities {
				c.vulnerable(v, r.Target)
			}
		}
		want := 0
		for _, a := range apps {
			want += len(a.Packages)
		}
		if seen != want {
			return fmt.Errorf("detector looked at %d packages, want %d", seen, want)
		}
	}
	return nil
}

// A collection gathers findings, one for each vulnerability of a package,
// however often the package is there.
type collection struct {
	found  map[key]scan.Finding
	places map[key][]string
}

type key struct{ kind, id, what string }

func (c *collection) add(k key, f scan.Finding) {
	if c.found == nil {
		c.found, c.places = make(map[key]scan.Finding), make(map[key][]string)
	}
	if _, ok := c.found[k]; !ok {
		c.found[k] = f
	}
	if !slices.Contains(c.places[k], f.Path) {
		c.places[k] = append(c.places[k], f.Path)
	}
}

func (c *collection) skipped(id, where, text string) {
	c.add(key{scan.KindNotScanned, id, where + "\x00" + text}, scan.Finding{
		Scanner: name, Kind: scan.KindNotScanned, ID: id, Severity: scan.Unknown, Text: text, Path: where,
	})
}

func (c *collection) vulnerable(v types.DetectedVulnerability, where string) {
	purl := ""
	if v.PkgIdentifier.PURL != nil {
		purl = v.PkgIdentifier.PURL.String()
	}
	text := v.PkgName + " " + v.InstalledVersion
	if title := cmp.Or(oneLine(v.Title), oneLine(v.Description)); title != "" {
		text += ": " + title
	}
	//lint:ignore SA1019 it is the severity of the source that FillInfo was asked for
	grade := v.Severity //nolint:staticcheck // as above, for the other reader of such remarks
	c.add(key{scan.KindVulnerability, v.VulnerabilityID, purl}, scan.Finding{
		Scanner: name, Kind: scan.KindVulnerability, ID: v.VulnerabilityID, Severity: severity(grade),
		Text: text, Path: where, Package: purl, Fixed: v.FixedVersion,
	})
}

// list is sorted, and does not depend on the order in which things were added.
func (c *collection) list() []scan.Finding {
	var out []scan.Finding
	for k, f := range c.found {
		at := c.places[k]
		slices.Sort(at)
		f.Path = at[0]
		if len(at) > 1 {
			f.Text += fmt.Sprintf(" (in %d places)", len(at))
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b scan.Finding) int {
		return cmp.Or(
			strings.Compare(a.Package, b.Package), strings.Compare(a.ID, b.ID), strings.Compare(a.Path, b.Path),
			strings.Compare(a.Text, b.Text), strings.Compare(a.Kind, b.Kind),
		)
	})
	return out
}

// severity translates Trivy's words; what is none of them is unknown.
func severity(s string) string {
	s = strings.ToLower(s)
	if slices.Contains([]string{scan.Critical, scan.High, scan.Medium, scan.Low}, s) {
		return s
	}
	return scan.Unknown
}

var errNoVersion = errors.New("the version cannot be read")
