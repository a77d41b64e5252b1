package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// newCharts makes a classic Helm repository. An argument is CHART:VERSION, with
// options after commas:
//
//	prov          there is a provenance file
//	prov=bad      which is of other bytes
//	bytes         the chart is not what the index says
//	is=V          the chart is of this version
//	nodigest      the index has no digest of it
//	url=URL       the index says that it lies there
//	escape        an entry of the archive lies outside the chart's folder
//
// or index=FILE, an index.yaml of the script's own. $CHART1, $CHART2 are the
// digests of the charts, $PROV1 those of their provenance files.
func newCharts(ts *testscript.TestScript, args []string) http.Handler {
	files := make(map[string][]byte)
	index := "apiVersion: v1\nentries:\n"
	lists := make(map[string]string)
	for i, arg := range args {
		if name, ok := strings.CutPrefix(arg, "index="); ok {
			files["/charts/index.yaml"] = []byte(ts.ReadFile(name))
			continue
		}
		words := strings.Split(arg, ",")
		name, version, _ := strings.Cut(words[0], ":")
		is, at := version, name+"-"+version+".tgz"
		var hostile []string
		options := make(map[string]string)
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			options[k] = v
			switch k {
			case "is":
				is = v
			case "url":
				at = v
			case "escape":
				hostile = append(hostile, name+"/../../etc/passwd")
			case "prov", "bytes", "nodigest":
			default:
				ts.Fatalf("chart option %s", k)
			}
		}
		chart := packChart(ts, name, is, hostile...)
		sum := artifact.Sum(chart)
		if prov, ok := options["prov"]; ok {
			of := sum
			if prov == "bad" {
				of = artifact.Sum([]byte("other"))
			}
			p := []byte(fmt.Sprintf("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nname: %s\nversion: %s\n\n...\nfiles:\n  %s: %s\n-----BEGIN PGP SIGNATURE-----\n\nbm8=\n-----END PGP SIGNATURE-----\n", name, version, name+"-"+version+".tgz", of))
			files["/charts/"+name+"-"+version+".tgz.prov"] = p
			ts.Setenv(fmt.Sprintf("PROV%d", i+1), artifact.Sum(p).String())
		}
		ts.Setenv(fmt.Sprintf("CHART%d", i+1), sum.String())
		if _, ok := options["bytes"]; ok {
			chart = append(chart, 0)
		}
		files["/charts/"+name+"-"+version+".tgz"] = chart
		lists[name] += fmt.Sprintf("  - {apiVersion: v2, name: %q, version: %q, urls: [%q]", name, version, at)
		if _, ok := options["nodigest"]; !ok {
			lists[name] += ", digest: " + sum.Hex()
		}
		lists[name] += "}\n"
	}
	for name, list := range lists {
		index += "  " + name + ":\n" + list
	}
	if files["/charts/index.yaml"] == nil {
		files["/charts/index.yaml"] = []byte(index)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b) // a client that went away is its own affair
	})
}

// packChart makes a chart's .tgz.
func packChart(ts *testscript.TestScript, name, version string, more ...string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	files := map[string][]byte{
		name + "/Chart.yaml":           []byte("apiVersion: v2\nname: " + name + "\nversion: " + version + "\nappVersion: \"1.0\"\ndescription: a chart\n"),
		name + "/templates/notes.yaml": []byte("kind: ConfigMap\n"),
	}
	for _, m := range more {
		files[m] = []byte("x")
	}
	ts.Check(errors.Join(packTar(z, files), z.Close()))
	return b.Bytes()
}

func packTar(w interface{ Write([]byte) (int, error) }, files map[string][]byte) error {
	tw := tar.NewWriter(w)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Format: tar.FormatUSTAR})
		if err == nil {
			_, err = tw.Write(files[name])
		}
		if err != nil {
			return err
		}
	}
	return tw.Close()
}

// registrySave writes manifests with all below them to this host:
//
//	registry save layout DIR  REF=VAR...    an OCI image layout
//	registry save tar FILE    REF=VAR...    the same in a tar
//	registry save docker FILE REF=VAR...    an archive as docker save made them
func registrySave(ts *testscript.TestScript, args []string) {
	files := make(map[string][]byte)
	put := func(dir string, b []byte) string {
		name := dir + artifact.Sum(b).Hex()
		files[name] = b
		return name
	}
	var refs []spec.Descriptor
	type image struct {
		Config           string
		RepoTags, Layers []string
	}
	var images []image
	for _, arg := range args[2:] {
		ref, name, _ := strings.Cut(arg, "=")
		o := objectNamed(ts, name)
		d := o.Descriptor
		if ref != "" {
			d.Annotations = map[string]string{"org.opencontainers.image.ref.name": ref}
		}
		refs = append(refs, d)
		im := image{RepoTags: []string{ref}}
		for _, m := range o.All() {
			if args[0] == "docker" {
				im.Config = put("", m.Blobs[0]) + ".json"
				files[im.Config] = m.Blobs[0]
				for _, l := range m.Blobs[1:] {
					at := put("", l)
					files[at+"/layer.tar"] = l
					im.Layers = append(im.Layers, at+"/layer.tar")
					delete(files, at)
				}
				delete(files, strings.TrimSuffix(im.Config, ".json"))
				continue
			}
			put("blobs/sha256/", m.Raw)
			for _, b := range m.Blobs {
				put("blobs/sha256/", b)
			}
		}
		images = append(images, im)
	}
	var list any = spec.Manifest{SchemaVersion: 2, MediaType: spec.OCIIndex, Manifests: refs}
	at := "index.json"
	if args[0] == "docker" {
		list, at = images, "manifest.json"
	} else {
		files["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	}
	var err error
	files[at], err = json.Marshal(list)
	ts.Check(err)
	to := ts.MkAbs(args[1])
	if args[0] != "layout" {
		var b bytes.Buffer
		ts.Check(errors.Join(packTar(&b, files), os.WriteFile(to, b.Bytes(), 0o600)))
		return
	}
	for name, b := range files {
		name = filepath.Join(to, name)
		ts.Check(errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o600)))
	}
}
