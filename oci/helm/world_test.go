package helm_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/helm"
)

// chartYAML uses every field, and the words that YAML 1.1 takes for numbers and
// booleans.
const chartYAML = `apiVersion: v2
name: web
version: 1.2.3+build.4
appVersion: 1.10
description: "A <web> server\twith\u200b words"
type: application
home: https://web.example
icon: https://web.example/icon.svg
kubeVersion: ">=1.25.0-0"
condition: web.enabled
tags: yes
deprecated: on
sources: [https://git.example/web, 7]
keywords:
- http
- 0x10
maintainers:
- name: Ann
  email: ann@web.example
- name: Bob
  url: https://bob.example
- email: carol@web.example
annotations:
  org.opencontainers.image.title: another
  org.opencontainers.image.vendor: Web Ltd
  released: 2024-05-06
  yes: no
dependencies:
- name: db
  version: ~1.0
  repository: https://charts.example
  alias: store
  tags: [backend]
  enabled: true
  import-values:
  - data
  - child: a
    parent: 5
unknown: ignored
`

// chartConfig is what Helm pushes as the config of it.
const chartConfig = `{"name":"web","home":"https://web.example","sources":["https://git.example/web","7"],` +
	`"version":"1.2.3+build.4","description":"A \u003cweb\u003e server with words","keywords":["http","16"],` +
	`"maintainers":[{"name":"Ann","email":"ann@web.example"},{"name":"Bob","url":"https://bob.example"},{"email":"carol@web.example"}],` +
	`"icon":"https://web.example/icon.svg","apiVersion":"v2","condition":"web.enabled","tags":"true","appVersion":"1.1","deprecated":true,` +
	`"annotations":{"org.opencontainers.image.title":"another","org.opencontainers.image.vendor":"Web Ltd","released":"2024-05-06","true":"false"},` +
	`"kubeVersion":"\u003e=1.25.0-0","dependencies":[{"name":"db","version":"~1.0","repository":"https://charts.example","tags":["backend"],` +
	`"enabled":true,"import-values":["data",{"child":"a","parent":5}],"alias":"store"}],"type":"application"}`

// A file is an entry of an archive; kind 0 is a regular file.
type file struct {
	name, text string
	kind       byte
}

// pack makes a .tgz.
func pack(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Typeflag: f.kind, Format: tar.FormatPAX}
		switch f.kind {
		case 0:
			h.Typeflag, h.Size = tar.TypeReg, int64(len(f.text))
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = f.text
		case tar.TypeXGlobalHeader:
			*h = tar.Header{Name: f.name, Typeflag: f.kind, PAXRecords: map[string]string{"comment": f.text}}
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if f.kind == 0 {
			if _, err := tw.Write([]byte(f.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// webChart is the chart of chartYAML.
func webChart(t testing.TB) []byte {
	t.Helper()
	return pack(
		t, file{name: "web", kind: tar.TypeDir}, file{name: "web/Chart.yaml", text: chartYAML},
		file{name: "web/templates/_helpers.tpl", text: "{{/* */}}"}, file{name: "web/charts/db/Chart.yaml", text: "name: db\nversion: 1.0.0\n"},
	)
}

func webEntry(chart []byte) helm.Entry {
	return helm.Entry{Name: "web", Version: "1.2.3+build.4", Digest: artifact.Sum(chart), URLs: []string{"files/web.tgz?token=x"}}
}

// signed is a provenance file; lines of the text that begin with "-" are
// escaped in it. The signature is none.
func signed(text string) []byte {
	var b strings.Builder
	b.WriteString("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "-") {
			b.WriteString("- ")
		}
		b.WriteString(line)
	}
	b.WriteString("-----BEGIN PGP SIGNATURE-----\n\nwsBcBAEBCgAQBQJk\n=abcd\n-----END PGP SIGNATURE-----\n")
	return []byte(b.String())
}

// provenance names a digest for a file.
func provenance(name string, d artifact.Digest) []byte {
	return signed("apiVersion: v2\nkeywords:\n- http\nname: web\n\n...\nfiles:\n  " + name + ": " + d.String() + "\n")
}

// wantRefusal checks class and code, and that the text says what is wrong.
func wantRefusal(t *testing.T, err, class error, code, text string) {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		t.Fatalf("got %v, want a refusal", err)
	}
	if !errors.Is(err, class) || r.Code != code {
		t.Errorf("got class %v and code %s, want %v and %s", r.Class, r.Code, class, code)
	}
	if text == "" || !strings.Contains(err.Error(), text) {
		t.Errorf("got %q, want %q in it", err, text)
	}
}
