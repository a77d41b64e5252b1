package helm_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/helm"
)

func TestProvenanceIsTaken(t *testing.T) {
	chart := webChart(t)
	sum := artifact.Sum(chart)
	good := provenance("web-1.2.3+build.4.tgz", sum)
	for name, prov := range map[string][]byte{
		"by version":      good,
		"by address":      provenance("web.tgz", sum),
		"with CRLF":       bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
		"beside others":   signed("name: web\n\n...\nfiles:\n  x.tgz: sha256:00\n  web-1.2.3+build.4.tgz: " + sum.String() + "\n"),
		"without headers": bytes.Replace(good, []byte("Hash: SHA512\n"), nil, 1),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := helm.Convert(chart, prov, webEntry(chart)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestProvenanceIsRefused(t *testing.T) {
	chart := webChart(t)
	sum := artifact.Sum(chart)
	const file = "web-1.2.3+build.4.tgz"
	good := string(provenance(file, sum))
	edit := func(old, text string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("nothing to replace: %q", old)
		}
		return []byte(strings.Replace(good, old, text, 1))
	}
	for name, c := range map[string]struct {
		prov  []byte
		class error
		text  string
	}{
		"other digest":     {provenance(file, artifact.Sum(nil)), artifact.ErrIntegrity, "of other bytes"},
		"other chart":      {provenance("db-1.0.0.tgz", sum), artifact.ErrIntegrity, "of another chart"},
		"wrong then right": {signed("a: b\n...\nfiles:\n  web.tgz: " + sum.String() + "\n  " + file + ": sha256:00\n"), artifact.ErrIntegrity, "of other bytes"},

		"empty":            {[]byte{}, artifact.ErrUnavailable, "not a clear-signed message"},
		"a page":           {[]byte("<html>not found</html>\n"), artifact.ErrUnavailable, "not a clear-signed message"},
		"too large":        {make([]byte, helm.MaxProvenance+1), artifact.ErrUnavailable, "at most"},
		"text before":      {[]byte("files:\n" + good), artifact.ErrUnavailable, "not a clear-signed message"},
		"text after":       {[]byte(good + "files:\n"), artifact.ErrUnavailable, "not a clear-signed message"},
		"two messages":     {[]byte(good + good), artifact.ErrUnavailable, "more than one signature"},
		"no signature":     {edit("-----BEGIN PGP SIGNATURE-----\n", ""), artifact.ErrUnavailable, "no signature"},
		"only armor":       {[]byte("-----BEGIN PGP SIGNED MESSAGE-----\n-----END PGP SIGNATURE-----"), artifact.ErrUnavailable, "no blank line"},
		"other header":     {edit("Hash: SHA512", "NotDashEscaped: yes"), artifact.ErrUnavailable, "armor header"},
		"not escaped":      {edit("- - http", "-http"), artifact.ErrUnavailable, "is not escaped"},
		"one part":         {edit("\n...\n", "\n"), artifact.ErrUnavailable, "got 1 parts"},
		"a third part":     {edit("-----BEGIN PGP SIGNA", "...\nfiles: {}\n-----BEGIN PGP SIGNA"), artifact.ErrUnavailable, "got 3 parts"},
		"no files":         {edit("files:", "images:"), artifact.ErrUnavailable, "no digest of a file"},
		"files as a list":  {signed("a: b\n...\nfiles:\n- " + file + "\n"), artifact.ErrUnavailable, "files: not the kind of value"},
		"a file twice":     {signed("a: b\n...\nfiles:\n  a: b\n  a: c\n"), artifact.ErrUnavailable, "stands twice"},
		"digests with &":   {signed("a: b\n...\nfiles: &a\n  a: b\n"), artifact.ErrUnavailable, "anchors"},
		"digests not YAML": {signed("a: b\n...\nfiles: [\n"), artifact.ErrUnavailable, "digests"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := helm.Convert(chart, c.prov, webEntry(chart))
			wantRefusal(t, err, c.class, helm.CodeProvenance, c.text)
		})
	}
}
