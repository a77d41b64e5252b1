package trivy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/aquasecurity/trivy/pkg/clock"
	"github.com/aquasecurity/trivy/pkg/digest"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/aquasecurity/trivy/pkg/sbom/core"
	"github.com/aquasecurity/trivy/pkg/sbom/cyclonedx"
	"github.com/aquasecurity/trivy/pkg/sbom/spdx"
	"github.com/package-url/packageurl-go"

	"github.com/darkmirror/darkmirror/scan"
)

// A Component is one artifact of an SBOM, with what is known of it.
type Component struct {
	Source, Name, Version string
	Inventory             *scan.Inventory
}

// SBOM lists components, the files they have and the packages in those, as
// CycloneDX 1.7 and as SPDX 2.3, both in JSON. The same arguments give the
// same bytes, in whatever order the components come: identifiers are derived
// from what they identify, and the documents' from their content.
func (s *Scanner) SBOM(ctx context.Context, name string, when time.Time, parts []Component) (cyclone, spdxDoc []byte, err error) {
	ctx = clock.With(ctx, when)
	b := &bill{bom: core.NewBOM(core.Options{}), s: s}
	b.root = &core.Component{Root: true, Type: core.TypeFilesystem, Name: name}
	b.root.PkgIdentifier.BOMRef = ref("bill", name)
	b.bom.AddComponent(b.root)
	// Relations are listed even where there are none.
	b.bom.AddRelationship(b.root, nil, "")
	parts = slices.Clone(parts)
	slices.SortFunc(parts, func(x, y Component) int {
		return cmp.Or(strings.Compare(x.Source, y.Source), strings.Compare(x.Name, y.Name), strings.Compare(x.Version, y.Version))
	})
	for _, c := range parts {
		if err := ended(ctx); err != nil {
			return nil, nil, err
		}
		if err := b.artifact(c); err != nil {
			return nil, nil, fmt.Errorf("%s %s %s: %w", c.Source, c.Name, c.Version, err)
		}
	}
	if cyclone, err = b.cycloneDX(ctx); err != nil {
		return nil, nil, err
	}
	if spdxDoc, err = b.spdx(ctx); err != nil {
		return nil, nil, err
	}
	return cyclone, spdxDoc, nil
}

// A bill is an SBOM that is being put together.
type bill struct {
	s    *Scanner
	bom  *core.BOM
	root *core.Component
}

func (b *bill) artifact(c Component) error {
	a := &core.Component{
		Type: core.TypeApplication, Name: c.Name, Version: c.Version,
		Properties: core.Properties{{Name: "darkmirror:source", Value: c.Source, External: true}},
	}
	id := []string{"artifact", c.Source, c.Name, c.Version}
	a.PkgIdentifier = ftypes.PkgIdentifier{BOMRef: ref(id...), PURL: b.purl(c)}
	b.bom.AddRelationship(b.root, a, core.RelationshipContains)
	b.bom.AddRelationship(a, nil, "")
	if c.Inventory == nil {
		return nil
	}
	for _, p := range c.Inventory.Parts {
		if err := b.part(c, a, p, append(slices.Clone(id), p.Name, p.Digest)); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// purl names an artifact for those who look it up.
func (b *bill) purl(c Component) *packageurl.PackageURL {
	kind, _, _ := strings.Cut(c.Source, "/")
	namespace := ""
	switch kind {
	case "pypi":
	case "apt":
		kind = "deb"
		if b.s.config.Distro != nil {
			namespace, _ = b.s.config.Distro(c.Source)
		}
	default:
		kind = "generic"
	}
	n, arch, _ := strings.Cut(c.Name, ":")
	if kind != "deb" {
		n, arch = c.Name, ""
	}
	var q packageurl.Qualifiers
	if arch != "" {
		q = packageurl.Qualifiers{{Key: "arch", Value: arch}}
	}
	return packageurl.NewPackageURL(kind, namespace, n, c.Version, q, "")
}

// part lists a file, or the root file system of one platform. The packages
// of one part are listed once each.
func (b *bill) part(c Component, a *core.Component, p scan.Part, id []string) error {
	f := &core.Component{Type: core.TypeApplication, Name: path.Base(p.Name), Version: c.Version}
	if p.Root {
		f.Name = p.Name
	}
	f.PkgIdentifier.BOMRef = ref(append([]string{"part"}, id...)...)
	if _, hex, ok := strings.Cut(p.Digest, "sha256:"); ok {
		f.Files = []core.File{{Digests: []digest.Digest{digest.NewDigestFromString(digest.SHA256, hex)}}}
	}
	b.bom.AddRelationship(a, f, core.RelationshipContains)
	b.bom.AddRelationship(f, nil, "")
	seen := make(map[string]bool)
	for _, g := range b.s.groups(scan.Subject{Source: c.Source}, p) {
		inside := append(slices.Clone(id), strings.Join(g.at, "\x00"))
		holder := f
		if g.family != "" && p.Root {
			os := &core.Component{Type: core.TypeOS, Name: g.family, Version: g.version}
			os.PkgIdentifier.BOMRef = ref(append([]string{"os"}, inside...)...)
			b.bom.AddRelationship(f, os, core.RelationshipContains)
			b.bom.AddRelationship(os, nil, "")
			holder = os
		}
		licences := licencesOf(p)
		for _, pkg := range g.os {
			if err := b.pkg(holder, pkg, g, licences[pkg.Name], inside, seen); err != nil {
				return err
			}
		}
		for _, pkg := range g.lang {
			if err := b.pkg(f, pkg.Package, nil, nil, inside, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// licencesOf are those that copyright files name, by package.
func licencesOf(p scan.Part) map[string][]string {
	m := make(map[string][]string)
	for _, ev := range p.Evidence {
		if ev.Form != formCopyright {
			continue
		}
		for _, pkg := range ev.Packages {
			m[pkg.Name] = pkg.Licences
		}
	}
	return m
}

func (b *bill) pkg(holder *core.Component, p scan.Package, g *group, licences, id []string, seen map[string]bool) error {
	u, err := packageURL(p, g)
	if err != nil {
		return err
	}
	key := ref(append(slices.Clone(id), u.String())...)
	if seen[key] {
		return nil
	}
	seen[key] = true
	c := &core.Component{
		Type: core.TypeLibrary, Name: p.Name, Version: p.Version, SrcName: p.SrcName, SrcVersion: p.SrcVer,
		Licenses: p.Licences, Supplier: p.Maintainer,
	}
	if len(c.Licenses) == 0 {
		c.Licenses = licences
	}
	c.PkgIdentifier = ftypes.PkgIdentifier{BOMRef: key, PURL: u}
	b.bom.AddRelationship(holder, c, core.RelationshipContains)
	b.bom.AddRelationship(c, nil, "")
	return nil
}

// packageURL names a package, if need be without knowing its distribution.
func packageURL(p scan.Package, g *group) (*packageurl.PackageURL, error) {
	for _, e := range ecosystems {
		if p.Type == e.purl {
			return purlOf(e.app, nil, ftypes.Package{Name: p.Name, Version: p.Version})
		}
	}
	if g != nil {
		if d, ok := distributions[g.family]; ok {
			if q, err := d.convert(p); err == nil {
				return purlOf(d.family, &ftypes.OS{Family: d.family, Name: g.version}, q)
			}
		}
	}
	var q packageurl.Qualifiers
	if p.Arch != "" {
		q = packageurl.Qualifiers{{Key: "arch", Value: p.Arch}}
	}
	return packageurl.NewPackageURL(p.Type, "", p.Name, p.Version, q, ""), nil
}

func (b *bill) cycloneDX(ctx context.Context) ([]byte, error) {
	m := cyclonedx.NewMarshaler(version)
	doc, err := m.Marshal(ctx, b.bom)
	if err != nil {
		return nil, err
	}
	doc.SerialNumber = ""
	if doc.Vulnerabilities != nil && len(*doc.Vulnerabilities) == 0 {
		doc.Vulnerabilities = nil // "none known" is not what is meant
	}
	raw, err := encodeCycloneDX(doc)
	if err != nil {
		return nil, err
	}
	doc.SerialNumber = urn(raw)
	return encodeCycloneDX(doc)
}

func encodeCycloneDX(doc *cdx.BOM) ([]byte, error) {
	var buf bytes.Buffer
	e := cdx.NewBOMEncoder(&buf, cdx.BOMFileFormatJSON)
	e.SetPretty(true)
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (b *bill) spdx(ctx context.Context) ([]byte, error) {
	doc, err := spdx.NewMarshaler(version).Marshal(ctx, b.bom)
	if err != nil {
		return nil, err
	}
	doc.DocumentNamespace = ""
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	doc.DocumentNamespace = urn(raw)
	raw, err = json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(raw, '\n'), nil
}

// ref is an identifier that tells nothing and depends on all words.
func ref(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		// A hash does not fail.
		_, _ = fmt.Fprintf(h, "%d:%s", len(w), w)
	}
	return fmt.Sprintf("dm-%x", h.Sum(nil)[:12])
}

// urn makes a UUID of version 8 (RFC 9562, section 5.8) of a document.
func urn(content []byte) string {
	u := sha256.Sum256(content)
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
