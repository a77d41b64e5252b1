package helm_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/helm"
	"github.com/darkmirror/darkmirror/oci/spec"
)

func TestConvertWritesWhatHelmPushes(t *testing.T) {
	chart := webChart(t)
	prov := provenance("web-1.2.3+build.4.tgz", artifact.Sum(chart))
	got, err := helm.Convert(chart, prov, webEntry(chart))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(chartConfig, string(got.Config)); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	m, err := spec.ParseManifest(got.Manifest, spec.OCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	describe := func(mediaType string, b []byte) spec.Descriptor {
		return spec.Descriptor{MediaType: mediaType, Digest: spec.FromSHA256(artifact.Sum(b)), Size: int64(len(b))}
	}
	config := describe(spec.HelmConfig, []byte(chartConfig))
	want := &spec.Manifest{
		SchemaVersion: 2, MediaType: spec.OCIManifest, Config: &config,
		Layers: []spec.Descriptor{describe(spec.HelmChart, chart), describe(spec.HelmProvenance, prov)},
		Annotations: map[string]string{
			"org.opencontainers.image.title":       "web",
			"org.opencontainers.image.version":     "1.2.3+build.4",
			"org.opencontainers.image.description": "A <web> server with words",
			"org.opencontainers.image.url":         "https://web.example",
			"org.opencontainers.image.source":      "https://git.example/web",
			"org.opencontainers.image.authors":     "Ann (ann@web.example), Bob,  (carol@web.example)",
			"org.opencontainers.image.vendor":      "Web Ltd",
			"released":                             "2024-05-06",
			"true":                                 "false",
		},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	again, err := helm.Convert(bytes.Clone(chart), prov, webEntry(chart))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Manifest, again.Manifest) {
		t.Error("the same chart gave two manifests")
	}
}

func TestConvertWithoutProvenance(t *testing.T) {
	chart := webChart(t)
	got, err := helm.Convert(chart, nil, webEntry(chart))
	if err != nil {
		t.Fatal(err)
	}
	m, err := spec.ParseManifest(got.Manifest, spec.OCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) != 1 || m.Layers[0].MediaType != spec.HelmChart {
		t.Errorf("layers: got %v, want the chart alone", m.Layers)
	}
}

// What charts of Helm 2 and archives by other tools look like.
func TestConvertTakesOldCharts(t *testing.T) {
	for name, c := range map[string]struct {
		files []file
		want  string
	}{
		"no apiVersion": {
			[]file{{name: "web/Chart.yaml", text: "name: web\nversion: 1.0.0\n"}},
			`{"name":"web","version":"1.0.0","apiVersion":"v1"}`,
		},
		"requirements.yaml": {
			[]file{
				{name: "web/requirements.yaml", text: "dependencies:\n- name: db\n  version: 1.x\n  repository: \"@stable\"\n"},
				{name: "web/Chart.yaml", text: "apiVersion: v1\nname: web\nversion: 1.0.0\n"},
			},
			`{"name":"web","version":"1.0.0","apiVersion":"v1","dependencies":[{"name":"db","version":"1.x","repository":"@stable"}]}`,
		},
		"byte order mark, global header, letter case": {
			[]file{
				{name: "pax_global_header", text: "commit", kind: tar.TypeXGlobalHeader},
				{name: "web/Chart.yaml", text: "\ufeff---\nName: web\nversion: '1.0.0'\nAPIVERSION: v2\n"},
			},
			`{"name":"web","version":"1.0.0","apiVersion":"v2"}`,
		},
		"null": {
			[]file{{name: "web/Chart.yaml", text: "apiVersion: v2\nname: web\nversion: 1.0.0\nappVersion: ~\nsources:\nkeywords: []\n"}},
			`{"name":"web","version":"1.0.0","apiVersion":"v2"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := helm.Convert(pack(t, c.files...), nil, helm.Entry{Name: "web", Version: "1.0.0"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got.Config)); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConvertReadsWordsAsHelm(t *testing.T) {
	for word, want := range map[string]string{
		"1.10": "1.1", `"1.10"`: "1.10", "1e3": "1000", "1000000.0": "1e+06", "0123": "83", "0o17": "15", "0b11": "3",
		"1_000": "1000", "+5": "5", "-.5": "-0.5", ".5": "0.5", "yes": "true", "Off": "false", "'no'": "no", "1.2.3": "1.2.3",
		"2024-01-02": "2024-01-02", "18446744073709551615": "18446744073709551615", "20240101000000000000000": "2.02401e+22", "1.23456789": "1.2345679", ".inf": "+Inf",
		"0x": "0x", "v1": "v1", "|-\n  8": "8",
	} {
		t.Run(word, func(t *testing.T) {
			chart := pack(t, file{name: "web/Chart.yaml", text: "apiVersion: v2\nname: web\nversion: 1.0.0\nappVersion: " + word + "\n"})
			got, err := helm.Convert(chart, nil, helm.Entry{Name: "web", Version: "1.0.0"})
			if err != nil {
				t.Fatal(err)
			}
			if field := `"appVersion":"` + want + `"`; !strings.Contains(string(got.Config), field) {
				t.Errorf("got %s, want %s in it", got.Config, field)
			}
		})
	}
}

func TestConvertRefuses(t *testing.T) {
	const good = "apiVersion: v2\nname: web\nversion: 1.0.0\n"
	chart := file{name: "web/Chart.yaml", text: good}
	yaml := func(text string) []file { return []file{{name: "web/Chart.yaml", text: text}} }
	for name, c := range map[string]struct {
		files []file
		class error
		text  string
	}{
		"empty archive":     {nil, artifact.ErrUnavailable, "no web/Chart.yaml"},
		"no Chart.yaml":     {[]file{{name: "web/chart.yaml", text: good}}, artifact.ErrUnavailable, "no web/Chart.yaml"},
		"at the top":        {[]file{{name: "Chart.yaml", text: good}}, artifact.ErrUnavailable, "outside of folder web"},
		"another folder":    {[]file{chart, {name: "x/Chart.yaml", text: good}}, artifact.ErrUnavailable, "outside of folder web"},
		"like the folder":   {[]file{chart, {name: "web", text: "x"}}, artifact.ErrUnavailable, "outside of folder web"},
		"longer folder":     {[]file{chart, {name: "web2/x", text: "x"}}, artifact.ErrUnavailable, "outside of folder web"},
		"escape":            {[]file{chart, {name: "web/../../x", text: "x"}}, artifact.ErrUnavailable, "not clean"},
		"clean escape":      {[]file{chart, {name: "../x", text: "x"}}, artifact.ErrUnavailable, "escapes its folder"},
		"absolute":          {[]file{chart, {name: "/web/x", text: "x"}}, artifact.ErrUnavailable, "absolute"},
		"backslash":         {[]file{chart, {name: `web\Chart.yaml`, text: good}}, artifact.ErrUnavailable, "forbidden character"},
		"twice":             {[]file{chart, chart}, artifact.ErrUnavailable, "there twice"},
		"twice by a dot":    {[]file{chart, {name: "web/./Chart.yaml", text: good}}, artifact.ErrUnavailable, "not clean"},
		"symbolic link":     {[]file{chart, {name: "web/x", text: "Chart.yaml", kind: tar.TypeSymlink}}, artifact.ErrUnavailable, "a link or a special file"},
		"hard link":         {[]file{chart, {name: "web/x", text: "web/Chart.yaml", kind: tar.TypeLink}}, artifact.ErrUnavailable, "a link or a special file"},
		"pipe":              {[]file{chart, {name: "web/x", kind: tar.TypeFifo}}, artifact.ErrUnavailable, "a link or a special file"},
		"folder Chart.yaml": {[]file{{name: "web/Chart.yaml", kind: tar.TypeDir}}, artifact.ErrUnavailable, "a folder, or there twice"},
		"large Chart.yaml":  {yaml(good + "#" + strings.Repeat("x", 1<<20)), artifact.ErrUnavailable, "more than 1048576 bytes"},
		"too many entries":  {make20k(chart), artifact.ErrUnavailable, "more than 20000 entries"},
		"bomb":              {[]file{chart, {name: "web/x", text: strings.Repeat("\x00", 100<<20)}}, artifact.ErrUnavailable, "unpacks to more than"},

		"empty":              {yaml(""), artifact.ErrUnavailable, "Chart.yaml: "},
		"not YAML":           {yaml("a: [b"), artifact.ErrUnavailable, "Chart.yaml: "},
		"a list":             {yaml("- a\n"), artifact.ErrUnavailable, "want keys and values"},
		"two documents":      {yaml(good + "---\n" + good), artifact.ErrUnavailable, "Chart.yaml: "},
		"anchor":             {yaml(good + "home: &a x\n"), artifact.ErrUnavailable, "anchors and aliases are not taken"},
		"alias":              {yaml("home: &a x\nicon: *a\n" + good), artifact.ErrUnavailable, "anchors and aliases are not taken"},
		"merge key":          {yaml(good + "annotations:\n  <<: {a: b}\n"), artifact.ErrUnavailable, "merge keys are not taken"},
		"tag":                {yaml(good + "home: !!binary aGk=\n"), artifact.ErrUnavailable, "is not taken"},
		"key twice":          {yaml(good + "name: web\n"), artifact.ErrUnavailable, `"name" stands twice`},
		"key twice by case":  {yaml(good + "Name: web\n"), artifact.ErrUnavailable, `"name" stands twice`},
		"key twice by value": {yaml(good + "annotations: {1: a, 0x1: b}\n"), artifact.ErrUnavailable, `"1" stands twice`},
		"key of a list":      {yaml(good + "annotations:\n  ? [a]\n  : b\n"), artifact.ErrUnavailable, "a key must be a word"},
		"large key":          {yaml(good + "annotations: {18446744073709551615: b}\n"), artifact.ErrUnavailable, "a key must be a word"},
		"infinity":           {yaml(good + "dependencies: [{name: a, import-values: [.inf]}]\n"), artifact.ErrUnavailable, "unsupported value"},
		"null key":           {yaml(good + "annotations: {~: b}\n"), artifact.ErrUnavailable, "a key must be a word"},
		"deep":               {yaml(good + "x: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\n"), artifact.ErrUnavailable, "nested deeper"},
		"wrong kind":         {yaml(good + "deprecated: maybe\n"), artifact.ErrUnavailable, "deprecated: not the kind of value"},
		"map as text":        {yaml(good + "home: {a: b}\n"), artifact.ErrUnavailable, "home: not the kind of value"},

		"apiVersion":         {yaml("apiVersion: v3\nname: web\nversion: 1.0.0\n"), artifact.ErrUnavailable, "apiVersion: want v1 or v2"},
		"no name":            {yaml("apiVersion: v2\nversion: 1.0.0\n"), artifact.ErrUnavailable, "name: missing"},
		"no version":         {yaml("apiVersion: v2\nname: web\n"), artifact.ErrUnavailable, "version: missing"},
		"no semver":          {yaml("apiVersion: v2\nname: web\nversion: new\n"), artifact.ErrUnavailable, `version: "new"`},
		"type":               {yaml(good + "type: game\n"), artifact.ErrUnavailable, "type: want application or library"},
		"null maintainer":    {yaml(good + "maintainers: [~]\n"), artifact.ErrUnavailable, "maintainers[0]: empty"},
		"null dependency":    {yaml(good + "dependencies: [~]\n"), artifact.ErrUnavailable, "dependencies[0]: empty"},
		"alias of a dep.":    {yaml(good + "dependencies: [{name: a, alias: a/b}]\n"), artifact.ErrUnavailable, "dependencies[0].alias"},
		"dependency twice":   {yaml(good + "dependencies: [{name: a}, {name: b, alias: a}]\n"), artifact.ErrUnavailable, "dependencies[1]"},
		"requirements.yaml":  {[]file{chart, {name: "web/requirements.yaml", text: "dependencies: 1\n"}}, artifact.ErrUnavailable, "requirements.yaml: "},
		"long annotation":    {yaml(good + "annotations: {a: \"" + strings.Repeat("<", 1_000_000) + "\"}\n"), artifact.ErrUnavailable, "the manifest would be none"},
		"another name":       {yaml("apiVersion: v2\nname: web2\nversion: 1.0.0\n"), artifact.ErrIntegrity, "want web 1.0.0, got web2 1.0.0"},
		"another version":    {yaml("apiVersion: v2\nname: web\nversion: 1.0.1\n"), artifact.ErrIntegrity, "want web 1.0.0, got web 1.0.1"},
		"version in a v":     {yaml("apiVersion: v2\nname: web\nversion: v1.0.0\n"), artifact.ErrIntegrity, "got web v1.0.0"},
		"folder of its name": {[]file{{name: "web2/Chart.yaml", text: good}}, artifact.ErrUnavailable, "outside of folder web"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := helm.Convert(pack(t, c.files...), nil, helm.Entry{Name: "web", Version: "1.0.0"})
			if got != nil {
				t.Error("a chart beside the error")
			}
			wantRefusal(t, err, c.class, helm.CodeChart, c.text)
		})
	}
}

func make20k(chart file) []file {
	files := []file{chart}
	for range 20_000 {
		files = append(files, file{name: "web/x"})
	}
	return files
}

func TestConvertRefusesBytes(t *testing.T) {
	good := pack(t, file{name: "web/Chart.yaml", text: "apiVersion: v2\nname: web\nversion: 1.0.0\n"})
	entry := helm.Entry{Name: "web", Version: "1.0.0"}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-6] ^= 1 // gzip's checksum
	for name, c := range map[string]struct {
		chart []byte
		want  helm.Entry
		class error
		text  string
	}{
		"no gzip":      {[]byte("<html>"), entry, artifact.ErrUnavailable, "the archive cannot be read"},
		"nothing":      {nil, entry, artifact.ErrUnavailable, "the archive cannot be read"},
		"cut":          {good[:len(good)-12], entry, artifact.ErrUnavailable, "the archive cannot be read"},
		"checksum":     {flipped, entry, artifact.ErrUnavailable, "invalid checksum"},
		"trailing":     {append(bytes.Clone(good), "trailing"...), entry, artifact.ErrUnavailable, "the archive cannot be read"},
		"too large":    {make([]byte, helm.MaxChart+1), entry, artifact.ErrUnavailable, "at most"},
		"digest":       {good, helm.Entry{Name: "web", Version: "1.0.0", Digest: artifact.Sum(nil)}, artifact.ErrIntegrity, "want " + artifact.Sum(nil).String()},
		"name escapes": {good, helm.Entry{Name: "../web", Version: "1.0.0"}, artifact.ErrUnavailable, "cannot be an artifact"},
		"no name":      {good, helm.Entry{Version: "1.0.0"}, artifact.ErrUnavailable, "cannot be an artifact"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := helm.Convert(c.chart, nil, c.want)
			wantRefusal(t, err, c.class, helm.CodeChart, c.text)
		})
	}
}

func FuzzConvert(f *testing.F) {
	chart := webChart(f)
	small := pack(f, file{name: "web/Chart.yaml", text: "name: web\nversion: 1.0.0\n"})
	seeds := []struct{ chart, prov []byte }{
		{chart, nil},
		{chart, provenance("web-1.2.3+build.4.tgz", artifact.Sum(chart))},
		{small, provenance("web-1.0.0.tgz", artifact.Sum(small))},
		{pack(f, file{name: "web/x", text: "Chart.yaml", kind: tar.TypeSymlink}), []byte("-----BEGIN PGP SIGNED MESSAGE-----")},
	}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s.chart, s.prov)
	}
	f.Fuzz(func(t *testing.T, chart, prov []byte) {
		for _, want := range []helm.Entry{{Name: "web", Version: "1.0.0"}, {Name: "web", Version: "1.2.3+build.4"}} {
			got, err := helm.Convert(chart, prov, want)
			if err != nil {
				if got != nil {
					t.Error("a chart beside the error")
				}
				continue
			}
			m, err := spec.ParseManifest(got.Manifest, spec.OCIManifest)
			if err != nil {
				t.Fatal(err)
			}
			if m.Config.Digest != spec.FromSHA256(artifact.Sum(got.Config)) || m.Layers[0].Digest != spec.FromSHA256(artifact.Sum(chart)) {
				t.Error("the manifest is of other bytes")
			}
			if m.Annotations["org.opencontainers.image.version"] != want.Version {
				t.Errorf("version: got %q, want %q", m.Annotations["org.opencontainers.image.version"], want.Version)
			}
		}
	})
}
