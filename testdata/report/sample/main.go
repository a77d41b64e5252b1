// Command sample writes reports of made-up bundles into a folder, for the
// screenshot test: one for each verdict, and a hostile one.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/report"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: sample FOLDER")
		os.Exit(2)
	}
	for name, d := range map[string]*report.Document{"held": held(), "pass": pass(), "not": not(), "hostile": hostile(), "large": large()} {
		if err := write(filepath.Join(os.Args[1], name), d); err != nil {
			fmt.Fprintln(os.Stderr, "sample:", err)
			os.Exit(1)
		}
	}
}

func write(base string, d *report.Document) error {
	var page, twin, sarif bytes.Buffer
	if err := d.HTML(&page); err != nil {
		return err
	}
	if err := d.JSON(&twin); err != nil {
		return err
	}
	if err := d.SARIF(&sarif); err != nil {
		return err
	}
	for ext, b := range map[string]*bytes.Buffer{".html": &page, ".json": &twin, ".sarif": &sarif} {
		if err := os.WriteFile(base+ext, b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64/len(c)) }

// base is a bundle of four sources in which nothing was found.
func base() *report.Document {
	d := &report.Document{
		Tool: "darkmirror 0.5.0", At: at("2026-11-22T19:48:07Z"),
		Bundle: report.Bundle{
			Stream: "main", Seq: 42, ID: "sha256:9f2c7e10b4a65d3388c1f0e2a97b5c64d1e8f3a20b6c9d7e4f5a1b2c3d4e41aa",
			Prev: "sha256:03abd9e7c5f1462b8a0e9d3c7f5b1a2e6d4c8b0f9e7a5c3d1b2f4e6a8c0de7c0", Base: 41,
			Made: at("2026-11-22T20:15:00Z"), Expires: at("2027-02-20T20:15:00Z"), Volumes: 5, Bytes: 18_146_000_000,
			SignedBy: []report.Key{{Name: "exporter-a", Fingerprint: "7b1c 90e2"}}, Approvals: 1,
		},
		Engines: []report.Engine{
			{Name: "clamav", Version: "1.4.6", For: "malware", Database: digest("5c9e21d4"), Dated: at("2026-11-22T08:31:00Z"), MaxAge: 168 * 3600, Note: "8,712,034 signatures; found the test signature at the start"},
			{Name: "trivy", Version: "0.74.0", For: "known vulnerabilities", Database: digest("a1b2c3d4"), Dated: at("2026-11-22T13:02:11Z"), MaxAge: 72 * 3600},
			{Name: "secrets", Version: "0.74.0", For: "secrets in files"},
			{Name: "weights", Version: "1", For: "model files that can run code", Note: "compares with an allowlist of 214 functions"},
			{Name: "packages", Version: "1", For: "malicious packages", Database: digest("77e0f1aa"), Dated: at("2026-11-21T02:00:00Z"), MaxAge: 720 * 3600},
		},
		Sources: []report.Source{
			{Name: "apt/bookworm", Snapshot: digest("0a"), Artifacts: 130, Files: 130, Bytes: 633_000_000},
			{Name: "models/llm", Snapshot: digest("0b"), Artifacts: 4, Files: 27, Bytes: 16_300_000_000},
			{Name: "oci/platform", Snapshot: digest("0c"), Artifacts: 7, Files: 61, Bytes: 2_040_000_000},
			{Name: "pypi/main", Snapshot: digest("0d"), Artifacts: 43, Files: 129, Bytes: 327_000_000},
		},
	}
	item := func(source, name, version, why string, size int64, files int) {
		d.Everything = append(d.Everything, report.Item{Source: source, Name: name, Version: version, Why: why, Size: size, Files: files, Verdict: "clean"})
	}
	change := func(kind, source, name, version, from, why string, size int64) {
		d.Changes = append(d.Changes, report.Change{Kind: kind, Source: source, Name: name, Version: version, From: from, Why: why, Size: size})
	}
	for i, name := range []string{"openssl", "libssl3", "curl", "libcurl4", "ca-certificates", "tzdata", "nginx", "nginx-common", "libnginx-mod-http-geoip2", "git", "less", "jq", "libjq1", "libonig5"} {
		change(report.New, "apt/bookworm", name, fmt.Sprintf("1.%d.4-1+deb12u%d", i, i%3+1), "", "priority required", int64(410_000+i*77_000))
		item("apt/bookworm", name, fmt.Sprintf("1.%d.4-1+deb12u%d", i, i%3+1), "priority required", int64(410_000+i*77_000), 1)
	}
	for i, name := range []string{"numpy", "scipy", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "qdrant-client", "pydantic", "fastapi"} {
		change(report.New, "pypi/main", name, fmt.Sprintf("2.%d.0", i), "", "requirements.txt:"+fmt.Sprint(i+3), int64(1_200_000*(i+1)))
		item("pypi/main", name, fmt.Sprintf("2.%d.0", i), "requirements.txt:"+fmt.Sprint(i+3), int64(1_200_000*(i+1)), 3)
	}
	change(report.Changed, "pypi/main", "urllib3", "2.6.1", "2.5.0", "requests", 131_000)
	change(report.Changed, "oci/platform", "nginx:1.27", "sha256:1f0c9e", "sha256:88aa10", "images.txt:4", 68_200_000)
	change(report.Changed, "oci/platform", "python:3.12-slim", "sha256:4410cc", "", "images.txt:5", 45_100_000)
	change(report.Gone, "apt/bookworm", "libnginx-mod-mail", "1.22.1-9", "", "", 0)
	change(report.Gone, "apt/bookworm", "libgeoip1", "1.6.12-10", "", "no longer asked for", 0)
	change(report.New, "models/llm", "bge-m3", "5617a9f6", "", "models.txt:2", 2_270_000_000)
	item("oci/platform", "nginx:1.27", "sha256:1f0c9e", "images.txt:4", 68_200_000, 8)
	item("oci/platform", "python:3.12-slim", "sha256:4410cc", "images.txt:5", 45_100_000, 6)
	item("models/llm", "bge-m3", "5617a9f6", "models.txt:2", 2_270_000_000, 9)
	return d
}

func pass() *report.Document {
	d := base()
	d.Bundle.ApprovedBy = []report.Key{{Name: "approver-m-okafor", Fingerprint: "c41d 0b77"}}
	return d
}

func held() *report.Document {
	d := base()
	hold := func(source, name, version, code, reason string) {
		d.Held = append(d.Held, report.Held{Source: source, Name: name, Version: version, Code: code, Reason: reason})
	}
	find := func(source, name, version, action string, f scan.Finding) {
		d.Findings = append(d.Findings, report.Finding{Source: source, Name: name, Version: version, Finding: f, Action: action})
	}
	hold("pypi/main", "examplelib", "2.3.1", "SCAN-FINDING", "CVE-0000-1111 critical, fixed in 2.3.2")
	find("pypi/main", "examplelib", "2.3.1", scan.ActionHold, scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-1111", Severity: scan.Critical, Text: "A crafted archive lets the parser write outside its folder and run code", Path: "examplelib-2.3.1-py3-none-any.whl › examplelib-2.3.1.dist-info/METADATA", Package: "pkg:pypi/examplelib@2.3.1", Fixed: "2.3.2"})
	find("pypi/main", "examplelib", "2.3.1", scan.ActionHold, scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "PYSEC-0000-77", Severity: scan.Unknown, Text: "A long header makes the server stop answering", Path: "examplelib-2.3.1-py3-none-any.whl › examplelib-2.3.1.dist-info/METADATA", Package: "pkg:pypi/examplelib@2.3.1"})
	hold("oci/platform", "tools:latest", "sha256:77ac01", "SCAN-MALICIOUS", "malware")
	find("oci/platform", "tools:latest", "sha256:77ac01", scan.ActionHold, scan.Finding{Scanner: "clamav", Kind: scan.KindMalware, ID: "CLAMAV-EICAR-TEST-FILE", Severity: scan.Critical, Text: "The antivirus engine knows this file as Eicar-Test-Signature", Path: "linux/amd64 › layer sha256:b1c4e6a2d790 › opt/wheels/payload-1.0-py3-none-any.whl › payload/data/eicar.com"})
	for i := range 9 {
		find("oci/platform", "tools:latest", "sha256:77ac01", scan.ActionHold, scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: fmt.Sprintf("CVE-0000-20%02d", i), Severity: scan.High, Text: "Out-of-bounds read in the certificate parser", Path: "linux/amd64 › var/lib/dpkg/status", Package: "pkg:deb/debian/openssl@3.0.11-1~deb12u2?arch=amd64", Fixed: "3.0.15-1~deb12u1"})
	}
	hold("models/llm", "tiny-chat", "9d01c2", "SCAN-FINDING", "pickle imports os.system")
	find("models/llm", "tiny-chat", "9d01c2", scan.ActionHold, scan.Finding{Scanner: "pickle", Kind: scan.KindModel, ID: "MODEL-PICKLE-CALL", Severity: scan.Critical, Text: "the pickle calls os.system, which is not on the allowlist", Path: "pytorch_model.bin › archive/data.pkl"})
	hold("pypi/main", "leftpadder", "0.0.1", "POLICY-BLOCK", "abandoned, replaced by padlib (SEC-398)")
	find("pypi/main", "urllib3", "2.6.1", scan.ActionWarn, scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-3001", Severity: scan.Medium, Text: "A redirect may keep a header that was meant for the first host", Path: "urllib3-2.6.1-py3-none-any.whl › urllib3-2.6.1.dist-info/METADATA", Package: "pkg:pypi/urllib3@2.6.1", Fixed: "2.6.2"})
	find("apt/bookworm", "less", "1.10.4-1+deb12u2", scan.ActionWarn, scan.Finding{Scanner: "packages", Kind: scan.KindPackage, ID: "PKG-MAINTAINER-SCRIPT", Severity: scan.Low, Text: "postinst differs from the last approved version: 3 lines added", Path: "less_1.10.4-1+deb12u2_amd64.deb › control.tar.xz › postinst"})
	find("oci/platform", "nginx:1.27", "sha256:1f0c9e", scan.ActionWaived, scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-2222", Severity: scan.High, Text: "HTTP/2 streams can be opened faster than they are closed", Path: "linux/amd64 › var/lib/dpkg/status", Package: "pkg:deb/debian/libnghttp2-14@1.52.0-1"})
	find("oci/platform", "python:3.12-slim", "sha256:4410cc", scan.ActionAllow, scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: "CVE-0000-9", Severity: scan.Low, Text: "minor"})
	d.Waived = []report.Waived{
		{Source: "oci/platform", Name: "nginx:1.27", Version: "sha256:1f0c9e", Finding: "CVE-0000-2222", Scanner: "trivy", Severity: scan.High, Owner: "M. Okafor, platform", Reason: "the proxy in front limits streams; fixed image expected in December (SEC-412)", Expires: "2026-12-31"},
		{Source: "pypi/main", Name: "oldlib", Version: "0.9", Finding: "CVE-0000-4", Scanner: "trivy", Severity: scan.High, Owner: "J. Lindqvist", Reason: "used in one notebook only (SEC-201)", Expires: "2026-11-10", Unused: false},
	}
	d.Missing = []report.Missing{{Source: "pypi/main", Name: "gpulib", Version: "12.4", Code: "FETCH", Reason: "files.example answered 404 for gpulib-12.4-cp312-cp312-manylinux_2_28_x86_64.whl"}}
	d.Withdrawn = []report.Withdrawal{{Digest: digest("e7"), Source: "pypi/main", Name: "litellm", Version: "1.82.7", Reason: "a stolen release: litellm_init.pth runs when the interpreter starts", Advisory: "PYSEC-2026-2"}}
	for i := range d.Everything {
		if d.Everything[i].Name == "urllib3" || d.Everything[i].Name == "less" {
			d.Everything[i].Verdict, d.Everything[i].Findings = "warning", 1
		}
	}
	return d
}

func not() *report.Document {
	d := base()
	d.Engines = d.Engines[1:]
	d.NotScannedFor = []string{"malware"}
	d.Engines[0].Dated = at("2026-11-10T08:31:00Z")
	d.Bundle.Prev, d.Bundle.Seq, d.Bundle.Base = "", 1, 0
	return d
}

// hostile has text that tries to break out of the page, and to mislead.
func hostile() *report.Document {
	d := base()
	evil := "<script>alert(1)</script>\"'><img src=//evil.example/x onerror=alert(1)> \x1b[31mred\u202egpj.exe\x00 \xff end"
	tower := "a" + strings.Repeat("\u0308\u0334", 40) + " " + strings.Repeat("x", 900)
	d.Held = []report.Held{{Source: "pypi/main", Name: evil, Version: tower, Code: "SCAN-FINDING", Reason: evil}}
	d.Findings = []report.Finding{{Source: "pypi/main", Name: evil, Version: tower, Action: scan.ActionHold, Finding: scan.Finding{Scanner: evil, Kind: evil, ID: evil, Severity: evil, Text: evil + tower, Path: strings.Repeat("deep/", 400) + " › " + evil, Package: evil, Fixed: evil}}}
	d.Waived = []report.Waived{{Source: evil, Name: evil, Version: evil, Finding: evil, Scanner: evil, Severity: evil, Owner: evil, Reason: tower, Expires: "</style>"}}
	d.Changes = append(d.Changes, report.Change{Kind: report.New, Source: evil, Name: tower, Version: evil, Why: tower})
	d.Bundle.Stream, d.Tool = evil, evil
	return d
}

// large has 50,000 artifacts.
func large() *report.Document {
	d := base()
	for i := range 50_000 {
		source := d.Sources[i%len(d.Sources)].Name
		name := fmt.Sprintf("package-%05d", i)
		d.Everything = append(d.Everything, report.Item{Source: source, Name: name, Version: "1.0", Why: "all of the suite", Size: int64(i) * 37, Files: 1, Verdict: "clean"})
		d.Changes = append(d.Changes, report.Change{Kind: report.New, Source: source, Name: name, Version: "1.0", Why: "all of the suite", Size: int64(i) * 37})
		if i%50 == 0 {
			d.Findings = append(d.Findings, report.Finding{Source: source, Name: name, Version: "1.0", Action: scan.ActionWarn, Finding: scan.Finding{Scanner: "trivy", Kind: scan.KindVulnerability, ID: fmt.Sprintf("CVE-0000-%d", i), Severity: scan.Medium, Text: "a text of usual length about what is wrong with this package"}})
		}
	}
	return d
}
