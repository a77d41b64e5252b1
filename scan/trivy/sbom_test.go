package trivy

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

func components(t *testing.T, s *Scanner) []Component {
	t.Helper()
	_, pip := wheel(t, s, "pip", "18.1")
	pip.Parts[0].Digest = artifact.Sum([]byte("pip")).String()
	pip.Parts[0].Evidence = append(pip.Parts[0].Evidence, gather(t, s, metadata("idna", "2.7"), "w", "pip/_vendor/idna-2.7.dist-info/METADATA"))
	_, img := image(
		gather(t, s, osRelease, "l", "etc/os-release"),
		gather(t, s, krb5, "l", "var/lib/dpkg/status"),
		gather(t, s, "Format: x\nLicense: Expat\n", "l", "usr/share/doc/libkrb5-3/copyright"),
		gather(t, s, metadata("pip", "18.1"), "l", "a/pip-18.1.dist-info/METADATA"))
	img.Parts = append(img.Parts, scan.Part{Name: "linux/arm64", Root: true, Evidence: img.Parts[0].Evidence})
	return []Component{
		{Source: "pypi/main", Name: "pip", Version: "18.1", Inventory: pip},
		{Source: "oci/platform", Name: "app", Version: "1", Inventory: img},
		{Source: "models/llm", Name: "org/model", Version: "abc"},
	}
}

func TestSBOMIsReproducible(t *testing.T) {
	s, err := New(Config{Distro: distro})
	if err != nil {
		t.Fatal(err)
	}
	parts := components(t, s)
	cdx, spdx, err := s.SBOM(t.Context(), "bundle 42", noon, parts)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		slices.Reverse(parts)
		c2, s2, err := s.SBOM(t.Context(), "bundle 42", noon, parts)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(cdx), string(c2)); diff != "" {
			t.Fatalf("CycloneDX differs:\n%s", diff)
		}
		if diff := cmp.Diff(string(spdx), string(s2)); diff != "" {
			t.Fatalf("SPDX differs:\n%s", diff)
		}
	}
	c3, s3, err := s.SBOM(t.Context(), "bundle 42", noon.Add(time.Second), parts)
	if err != nil || string(c3) == string(cdx) || string(s3) == string(spdx) {
		t.Errorf("another time gives the same documents (%v)", err)
	}
	if strings.Contains(string(cdx)+string(spdx), "00000000-0000") {
		t.Error("an identifier is empty")
	}
}

func TestSBOMListsEverything(t *testing.T) {
	s, err := New(Config{Distro: distro})
	if err != nil {
		t.Fatal(err)
	}
	cdx, spdx, err := s.SBOM(t.Context(), "bundle 42", noon, components(t, s))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		BomFormat, SpecVersion, SerialNumber string
		Metadata                             struct{ Timestamp string }
		Components                           []struct {
			Ref      string `json:"bom-ref"`
			Purl     string
			Licenses []struct{ License struct{ ID, Name string } }
		}
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
		Vulnerabilities []any
	}
	if err := json.Unmarshal(cdx, &c); err != nil {
		t.Fatal(err)
	}
	if c.BomFormat != "CycloneDX" || c.SpecVersion != "1.7" && c.SpecVersion != "1.6" || c.Metadata.Timestamp != "2026-11-23T12:00:00+00:00" || c.Vulnerabilities != nil {
		t.Errorf("document %+v", c)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(c.SerialNumber) {
		t.Errorf("serial number %s", c.SerialNumber)
	}
	count := make(map[string]int)
	refs := make(map[string]bool)
	for _, x := range c.Components {
		count[x.Purl]++
		if refs[x.Ref] {
			t.Errorf("bom-ref %s stands twice", x.Ref)
		}
		refs[x.Ref] = true
		if strings.HasPrefix(x.Purl, "pkg:deb/") && (len(x.Licenses) != 1 || x.Licenses[0].License.Name+x.Licenses[0].License.ID == "") {
			t.Errorf("%s has no licence: %+v", x.Purl, x.Licenses)
		}
	}
	for purl, want := range map[string]int{
		"pkg:pypi/pip@18.1": 4, // the artifact, its wheel, and two platforms
		"pkg:pypi/idna@2.7": 1,
		"pkg:deb/debian/libkrb5-3@1.20.1-2%2Bdeb12u3?arch=amd64&distro=debian-12": 2,
		"pkg:generic/app@1": 1, "pkg:generic/org%2Fmodel@abc": 1,
	} {
		if count[purl] != want {
			t.Errorf("%s: %d components, want %d of %v", purl, count[purl], want, count)
		}
	}
	for _, d := range c.Dependencies {
		for _, on := range d.DependsOn {
			if !refs[on] {
				t.Errorf("%s depends on %s, which is not listed", d.Ref, on)
			}
		}
	}
	var p struct {
		SPDXVersion, DocumentNamespace string
		Packages                       []struct {
			SPDXID           string
			Name             string
			LicenseConcluded string
			ExternalRefs     []struct{ ReferenceLocator string }
		}
		Relationships []struct{ SpdxElementID, RelatedSpdxElement string }
	}
	if err := json.Unmarshal(spdx, &p); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{"SPDXRef-DOCUMENT": true}
	for _, x := range p.Packages {
		if ids[x.SPDXID] || !regexp.MustCompile(`^SPDXRef-[A-Za-z]+-[0-9a-f]+$`).MatchString(x.SPDXID) {
			t.Errorf("SPDX id %s is odd or stands twice", x.SPDXID)
		}
		ids[x.SPDXID] = true
	}
	for _, r := range p.Relationships {
		if !ids[r.SpdxElementID] || !ids[r.RelatedSpdxElement] {
			t.Errorf("relationship %+v names what is not listed", r)
		}
	}
	if p.SPDXVersion != "SPDX-2.3" || !strings.HasPrefix(p.DocumentNamespace, "urn:uuid:") || len(p.Packages) != len(c.Components)+1 {
		t.Errorf("SPDX %s %s, %d packages, want %d", p.SPDXVersion, p.DocumentNamespace, len(p.Packages), len(c.Components)+1)
	}
}
