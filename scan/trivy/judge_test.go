package trivy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

const (
	osRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n"
	krb5      = `Package: libkrb5-3
Status: install ok installed
Architecture: amd64
Source: krb5
Version: 1.20.1-2+deb12u3
Maintainer: Sam <sam@debian.example>
Description: library
 more of it

Package: gone
Status: deinstall ok config-files
Version: 1.0
Source: krb5 (1.0)
`
)

func TestJudgeWheel(t *testing.T) {
	s := newScanner(t)
	sub, inv := wheel(t, s, "Example_Lib", "1.4")
	want := []scan.Finding{
		{
			Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-2026-90002", Severity: scan.Critical, Text: "Example_Lib 1.4: Invented, grave",
			Path:    "Example_Lib-1.4-py3-none-any.whl › Example_Lib-1.4.dist-info/METADATA",
			Package: "pkg:pypi/example-lib@1.4", Fixed: ">=2",
		},
		{
			// Trap 9: a severity that nobody tells is unknown, not harmless.
			Scanner: "trivy", Kind: scan.KindVulnerability, ID: "PYSEC-2026-9001", Severity: scan.Unknown,
			Text:    "Example_Lib 1.4: An invented advisory over two lines",
			Path:    "Example_Lib-1.4-py3-none-any.whl › Example_Lib-1.4.dist-info/METADATA",
			Package: "pkg:pypi/example-lib@1.4", Fixed: "1.5",
		},
	}
	if diff := cmp.Diff(want, judge(t, s, sub, inv)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	sub, inv = wheel(t, s, "example_lib", "2.0")
	if got := judge(t, s, sub, inv); got != nil {
		t.Errorf("findings of a mended version: %v", got)
	}
}

// What lies within a wheel is a package too.
func TestJudgeVendored(t *testing.T) {
	s := newScanner(t)
	sub, inv := wheel(t, s, "app", "1.0")
	p := &inv.Parts[0]
	p.Evidence = append(p.Evidence,
		gather(t, s, metadata("pip", "18.1"), p.Name, "app/_vendor/pip-18.1.dist-info/METADATA"),
		gather(t, s, metadata("pip", "18.1"), p.Name, "app/again/pip-18.1.dist-info/METADATA"),
		gather(t, s, `{"name":"left","version":"1.0.0"}`, p.Name, "app/static/left/package.json"))
	got := judge(t, s, sub, inv)
	if want := []string{"vulnerability CVE-2026-90004", "vulnerability CVE-2019-20916"}; !slices.Equal(ids(got), want) {
		t.Fatalf("findings %v, want %v", ids(got), want)
	}
	if f := got[1]; f.Path != p.Name+" › app/_vendor/pip-18.1.dist-info/METADATA" || !strings.HasSuffix(f.Text, "(in 2 places)") {
		t.Errorf("finding %+v, want the first of two places", f)
	}
}

// S3, and trap 4: what Trivy drops without a word holds an artifact back.
func TestIdentity(t *testing.T) {
	s := newScanner(t)
	whl := func(file string, evidence ...scan.Evidence) scan.Part {
		return scan.Part{Name: file, Evidence: evidence}
	}
	info := func(name, version, dir string) scan.Evidence {
		return gather(t, s, metadata(name, version), "x.whl", dir+".dist-info/METADATA")
	}
	control := func(name, version, arch string) scan.Evidence {
		return gather(t, s, "Package: "+name+"\nVersion: "+version+"\nArchitecture: "+arch+"\n", "x.deb", "control.tar.xz", "", "./control")
	}
	sdist := func(name, version string) scan.Evidence {
		return gather(t, s, metadata(name, version), "x.tar.gz", "", name+"-"+version+"/PKG-INFO")
	}
	for name, c := range map[string]struct {
		source, name, version string
		part                  scan.Part
		want                  string
	}{
		"wheel":               {"pypi/main", "my-app", "1.0", whl("my_app-1.0-py3-none-any.whl", info("My.App", "1.0", "my_app-1.0")), ""},
		"wheel, other zeros":  {"pypi/main", "my-app", "1", whl("my_app-1.0.0-py3-none-any.whl", info("my-app", "1.0", "my_app-1.0")), ""},
		"wheel, local":        {"pypi/main", "t", "2.1+cu118", whl("t-2.1+cu118-cp310-cp310-linux_x86_64.whl", info("t", "2.1+cu118", "t-2.1+cu118")), ""},
		"wheel, other local":  {"pypi/main", "t", "2.1+cu118", whl("t-2.1+cu118-cp310-cp310-linux_x86_64.whl", info("t", "2.1+cpu", "t-2.1+cu118")), "file says t 2.1+cu118, METADATA says t 2.1+cpu"},
		"wheel, other name":   {"pypi/main", "my-app", "1.0", whl("my_app-1.0-py3-none-any.whl", info("other", "1.0", "my_app-1.0")), "identity mismatch: file says my_app 1.0, METADATA says other 1.0"},
		"wheel, version":      {"pypi/main", "my-app", "1.0", whl("my_app-1.0-py3-none-any.whl", info("my-app", "1.1", "my_app-1.0")), "identity mismatch: file says my_app 1.0, METADATA says my-app 1.1"},
		"wheel, odd version":  {"pypi/main", "my-app", "1.0", whl("my_app-1.0-py3-none-any.whl", info("my-app", "one", "my_app-1.0")), "METADATA says my-app one"},
		"wheel, index":        {"pypi/main", "my-app", "2.0", whl("my_app-1.0-py3-none-any.whl", info("my-app", "1.0", "my_app-1.0")), "the index says my-app 2.0"},
		"wheel, nothing":      {"pypi/main", "my-app", "1.0", whl("my_app-1.0-py3-none-any.whl"), "0 METADATA files"},
		"wheel, only nested":  {"pypi/main", "my-app", "1.0", whl("my_app-1.0-py3-none-any.whl", info("my-app", "1.0", "a/my_app-1.0")), "0 METADATA files"},
		"wheel, two":          {"pypi/main", "my-app", "1.0", whl("my_app-1.0-py3-none-any.whl", info("my-app", "1.0", "my_app-1.0"), info("my-app", "1.0", "other-1.0")), "2 METADATA files"},
		"wheel, bad name":     {"pypi/main", "my-app", "1.0", whl("wheel.whl", info("my-app", "1.0", "my_app-1.0")), "not a wheel's"},
		"elsewhere":           {"files/tools", "x", "1.0", whl("my_app-1.0-py3-none-any.whl"), ""},
		"sdist":               {"pypi/main", "my-app", "1.0", whl("my_app-1.0.tar.gz", sdist("my-app", "1.0")), ""},
		"sdist, other":        {"pypi/main", "my-app", "1.0", whl("my_app-1.0.tar.gz", sdist("other", "1.0")), "PKG-INFO says other 1.0"},
		"sdist, nothing":      {"pypi/main", "my-app", "1.0", whl("my_app-1.0.tar.gz"), "0 PKG-INFO files"},
		"deb":                 {"apt/bookworm", "jq", "1.6-2", whl("pool/jq_1.6-2_amd64.deb", control("jq", "1.6-2", "amd64")), ""},
		"deb, foreign":        {"apt/bookworm", "jq:arm64", "1.6-2", whl("pool/jq_1.6-2_arm64.deb", control("jq", "1.6-2", "arm64")), ""},
		"deb, wrong foreign":  {"apt/bookworm", "jq:arm64", "1.6-2", whl("pool/jq_1.6-2_arm64.deb", control("jq", "1.6-2", "amd64")), "identity mismatch"},
		"deb, other name":     {"apt/bookworm", "jq", "1.6-2", whl("pool/jq_1.6-2_amd64.deb", control("yq", "1.6-2", "amd64")), "the index says jq 1.6-2, control says yq 1.6-2"},
		"deb, other version":  {"apt/bookworm", "jq", "1.6-2", whl("pool/jq_1.6-2_amd64.deb", control("jq", "1.6-3", "amd64")), "control says jq 1.6-3"},
		"deb, nothing":        {"apt/bookworm", "jq", "1.6-2", whl("pool/jq_1.6-2_amd64.deb"), "0 control files"},
		"deb, control nested": {"apt/bookworm", "jq", "1.6-2", whl("pool/jq_1.6-2_amd64.deb", gather(t, s, "Package: jq\nVersion: 1.6-2\n", "x.deb", "data.tar.xz", "", "a.deb", "control.tar.xz", "", "./control")), "0 control files"},
	} {
		t.Run(name, func(t *testing.T) {
			sub := scan.Subject{Source: c.source, Artifact: artifact.Artifact{Name: c.name, Version: c.version}}
			list, err := s.Judge(t.Context(), sub, &scan.Inventory{Parts: []scan.Part{c.part}})
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "identity mismatch") || list != nil {
				t.Errorf("Judge = %v, %v, want %q", list, err, c.want)
			}
			if errors.Is(err, scan.ErrEngine) {
				t.Errorf("%v ends the run", err)
			}
		})
	}
}

func TestJudgeImage(t *testing.T) {
	s := newScanner(t)
	sub, inv := image(
		gather(t, s, osRelease, "layer", "", "./etc/os-release"),
		gather(t, s, krb5, "layer", "./var/lib/dpkg/status"),
		gather(t, s, metadata("pip", "18.1"), "layer", "usr/lib/python3/dist-packages/pip-18.1.dist-info/METADATA"))
	got := judge(t, s, sub, inv)
	want := []string{"vulnerability CVE-2025-24528", "vulnerability CVE-2025-3576", "vulnerability CVE-2019-20916"}
	if diff := cmp.Diff(want, ids(got)); diff != "" {
		t.Fatalf("findings (-want +got):\n%s", diff)
	}
	wantFirst := scan.Finding{
		Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-2025-24528", Severity: scan.Unknown,
		Text: "libkrb5-3 1.20.1-2+deb12u3: krb5: overflow when calculating ulog block size", Path: "linux/amd64",
		Package: "pkg:deb/debian/libkrb5-3@1.20.1-2%2Bdeb12u3?arch=amd64&distro=debian-12", Fixed: "1.20.1-2+deb12u4",
	}
	if diff := cmp.Diff(wantFirst, got[0]); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
}

// Trap 5: to Trivy a package of these maintainers is a third party's, which it
// compares with nothing.
func TestMaintainerDoesNotSwitchDetectionOff(t *testing.T) {
	s := newScanner(t)
	for _, who := range []string{"x@nvidia.com", "support@docker.com", "GitHub", "HashiCorp", "Debian <d@example.org>"} {
		text := strings.Replace(krb5, "Sam <sam@debian.example>", who, 1)
		sub, inv := image(gather(t, s, osRelease, "l", "etc/os-release"), gather(t, s, text, "l", "var/lib/dpkg/status.d/krb5"))
		if got := len(judge(t, s, sub, inv)); got != 2 {
			t.Errorf("maintainer %q: %d findings, want 2", who, got)
		}
	}
}

// S11: no entry is not "clean" where there could be none.
func TestWhatCannotBeComparedIsSaid(t *testing.T) {
	s := newScanner(t)
	dpkg := gather(t, s, krb5, "l", "var/lib/dpkg/status")
	release := func(text string) scan.Evidence { return gather(t, s, text, "l", "etc/os-release") }
	openssl := gather(t, s, "Package: libssl1.1\nSource: openssl\nVersion: 1.1.1k-1+deb11u1\n", "l", "var/lib/dpkg/status")
	for name, c := range map[string]struct {
		evidence []scan.Evidence
		want     []string
		text     string
	}{
		"no os-release":     {[]scan.Evidence{dpkg}, []string{"not-scanned " + IDNoDistribution}, "1 packages were not compared"},
		"unknown release":   {[]scan.Evidence{release("ID=debian\nVERSION_ID=99\n"), dpkg}, []string{"not-scanned " + IDUnsupported}, "debian 99: the database has no advisories"},
		"testing":           {[]scan.Evidence{release("ID=debian\n"), dpkg}, []string{"not-scanned " + IDUnsupported}, "debian: "},
		"derivative":        {[]scan.Evidence{release("ID=kali\nID_LIKE=debian\nVERSION_ID=12\n"), dpkg}, []string{"not-scanned " + IDUnsupported}, "kali 12"},
		"end of life":       {[]scan.Evidence{release("ID=debian\nVERSION_ID=11\n"), openssl}, []string{"not-scanned " + IDEndOfLife, "vulnerability CVE-2022-0778"}, "debian 11 is no longer supported"},
		"rpm":               {[]scan.Evidence{release("ID=rhel\nVERSION_ID=9\n"), gather(t, s, "x", "l", "var/lib/rpm/rpmdb.sqlite")}, []string{"not-scanned " + IDUnsupported}, "packages of RPM (rhel 9)"},
		"no packages":       {[]scan.Evidence{release("ID=rhel\nVERSION_ID=9\n")}, nil, ""},
		"apk on debian":     {[]scan.Evidence{release(osRelease), gather(t, s, "P:busybox\nV:1.36.1-r29\n", "l", "lib/apk/db/installed")}, []string{"not-scanned " + IDVersion}, "of type apk on debian"},
		"alpine":            {[]scan.Evidence{release("ID=alpine\nVERSION_ID=3.22.3\n"), gather(t, s, "P:busybox-extras\nV:1.36.1-r29\no:busybox\nA:x86_64\n\n", "l", "lib/apk/db/installed")}, []string{"vulnerability CVE-2026-90006"}, ""},
		"nested os-release": {[]scan.Evidence{gather(t, s, osRelease, "l", "rootfs.tar", "etc/os-release"), dpkg}, []string{"not-scanned " + IDNoDistribution}, ""},
		"python version":    {[]scan.Evidence{gather(t, s, metadata("example-lib", "2004d"), "l", "a.dist-info/METADATA")}, []string{"not-scanned " + IDVersion}, "example-lib 2004d"},
		"odd, but nothing":  {[]scan.Evidence{gather(t, s, metadata("harmless", "2004d"), "l", "a.dist-info/METADATA")}, nil, ""},
		"advisory's range":  {[]scan.Evidence{gather(t, s, metadata("odd-range", "1.0"), "l", "a.dist-info/METADATA")}, []string{"vulnerability CVE-2026-90003"}, "cannot be read, so it may apply"},
		"not fixed":         {[]scan.Evidence{release(osRelease), gather(t, s, "Package: unfixed\nVersion: 1\n", "l", "var/lib/dpkg/status")}, []string{"vulnerability CVE-2026-90005"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			sub, inv := image(c.evidence...)
			got := judge(t, s, sub, inv)
			if !slices.Equal(ids(got), c.want) {
				t.Fatalf("findings %v, want %v", ids(got), c.want)
			}
			if c.text != "" && !slices.ContainsFunc(got, func(f scan.Finding) bool { return strings.Contains(f.Text, c.text) }) {
				t.Errorf("findings %+v, want the text %q", got, c.text)
			}
		})
	}
}

// The package's own severity of a distribution comes before others'.
func TestSeverityOfTheDistribution(t *testing.T) {
	s := newScanner(t)
	sub, inv := image(gather(t, s, osRelease, "l", "etc/os-release"), gather(t, s, "Package: unfixed\nVersion: 1\n", "l", "var/lib/dpkg/status"))
	if got := judge(t, s, sub, inv); len(got) != 1 || got[0].Severity != scan.Low || got[0].Fixed != "" {
		t.Errorf("findings %+v, want one of low severity, not fixed", got)
	}
}

func TestJudgeDeb(t *testing.T) {
	s := newScanner(t)
	ev := gather(t, s, "Package: libkrb5-3\nSource: krb5 (1.20.1-2+deb12u3)\nVersion: 1.20.1-2+deb12u3+b1\nArchitecture: amd64\nMaintainer: x@nvidia.com\n",
		"libkrb5.deb", "control.tar.zst", "", "./control")
	inv := &scan.Inventory{Parts: []scan.Part{{Name: "pool/libkrb5.deb", Evidence: []scan.Evidence{ev}}}}
	sub := scan.Subject{Source: "apt/bookworm", Artifact: artifact.Artifact{Name: "libkrb5-3", Version: "1.20.1-2+deb12u3+b1"}}
	if got, want := ids(judge(t, s, sub, inv)), []string{"vulnerability CVE-2025-24528", "vulnerability CVE-2025-3576"}; !slices.Equal(got, want) {
		t.Errorf("findings %v, want %v", got, want)
	}
	sub.Source = "apt/unknown"
	if got, want := ids(judge(t, s, sub, inv)), []string{"not-scanned " + IDNoDistribution}; !slices.Equal(got, want) {
		t.Errorf("of an unknown distribution: %v, want %v", got, want)
	}
}

// A .deb that an image keeps belongs to the image's distribution.
func TestDebWithinAnImage(t *testing.T) {
	s := newScanner(t)
	deb := gather(t, s, "Package: libkrb5-3\nSource: krb5\nVersion: 1.20.1-2+deb12u3\n", "l", "", "var/cache/apt/archives/x.deb", "control.tar.xz", "", "./control")
	sub, inv := image(gather(t, s, osRelease, "l", "", "etc/os-release"), deb)
	if got := ids(judge(t, s, sub, inv)); len(got) != 2 || got[0] != "vulnerability CVE-2025-24528" {
		t.Errorf("findings %v, want krb5's two", got)
	}
	sub, inv = image(deb)
	if got, want := ids(judge(t, s, sub, inv)), []string{"not-scanned " + IDNoDistribution}; !slices.Equal(got, want) {
		t.Errorf("of an unknown image: %v, want %v", got, want)
	}
}

// Lock files count where somebody installs by them, as in Trivy's own engine.
func TestLockFilesCountInRepositories(t *testing.T) {
	s := newScanner(t)
	ev := gather(t, s, "pip==18.1\n", "requirements.txt")
	broken := gather(t, s, "[[[", "poetry.lock")
	inv := &scan.Inventory{Parts: []scan.Part{{Name: "requirements.txt", Evidence: []scan.Evidence{ev}}, {Name: "poetry.lock", Evidence: []scan.Evidence{broken}}}}
	sub := scan.Subject{Source: "models/llm", Artifact: artifact.Artifact{Name: "org/model", Version: "abc"}}
	if got, want := ids(judge(t, s, sub, inv)), []string{"not-scanned " + IDUnreadableLock, "vulnerability CVE-2019-20916"}; !slices.Equal(got, want) {
		t.Errorf("in a model repository: %v, want %v", got, want)
	}
	sub, inv = wheel(t, s, "app", "1.0")
	inv.Parts[0].Evidence = append(inv.Parts[0].Evidence, ev, broken)
	if got := judge(t, s, sub, inv); got != nil {
		t.Errorf("in a wheel: %v, want nothing", got)
	}
}

// S17.
func TestJudgeIsDeterministic(t *testing.T) {
	s := newScanner(t)
	evidence := []scan.Evidence{
		gather(t, s, osRelease, "l", "etc/os-release"),
		gather(t, s, krb5, "l", "var/lib/dpkg/status"),
		gather(t, s, metadata("pip", "18.1"), "l", "a/pip-18.1.dist-info/METADATA"),
		gather(t, s, metadata("pip", "18.1"), "l", "b/pip-18.1.dist-info/METADATA"),
		gather(t, s, metadata("example-lib", "1.0"), "l", "c/x.dist-info/METADATA"),
	}
	sub, inv := image(evidence...)
	want := judge(t, s, sub, inv)
	if len(want) != 5 {
		t.Fatalf("findings %v, want 5", ids(want))
	}
	for range 20 {
		slices.Reverse(evidence)
		if diff := cmp.Diff(want, judge(t, s, sub, inv)); diff != "" {
			t.Fatalf("another run (-first +this):\n%s", diff)
		}
	}
}

func TestJudgeEndsWithItsContext(t *testing.T) {
	s := newScanner(t)
	sub, inv := wheel(t, s, "pip", "18.1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if list, err := s.Judge(ctx, sub, inv); !errors.Is(err, context.Canceled) || list != nil {
		t.Errorf("Judge = %v, %v, want context.Canceled", list, err)
	}
}
