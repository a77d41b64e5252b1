package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// An object is a manifest that a script has made, with all below it.
type object struct {
	*ocitest.Object
	// named are blobs under another digest than their SHA-256; nil under a
	// SHA-256 marks one that is not in the registry, or not under that name.
	named map[spec.Digest][]byte
}

func objectNamed(ts *testscript.TestScript, name string) *object {
	o := worldOf(ts).objects[name]
	if o == nil {
		ts.Fatalf("no manifest %s", name)
	}
	return o
}

// newObject makes a manifest. A layer is a name, which decides its bytes, so
// that two images share a layer of one name; options follow after commas:
//
//	size=SIZE     so many bytes, 1 KiB unless told
//	sha512        it is named by its SHA-512
//	foreign=URL   the registry does not have it; that URL has, it is said
//	claims=N      the manifest says that it has so many bytes
//
// The kinds:
//
//	image LAYER...              an image for linux/amd64
//	for PLATFORM LAYER...       an image for another
//	index VAR...                an index; ATT@IMG is an attestation of IMG
//	artifact TYPE SUBJECT [TEXT]   something of a type that refers to SUBJECT,
//	                            or to nothing: -
//	signature SUBJECT           a signature in cosign's manner, under its tag
//	chart NAME VERSION          a Helm chart
//	raw TYPE FILE [VAR]         this text, with $VARS in it; the blobs are VAR's
//	long SIZE                   an index that has so many bytes
func newObject(ts *testscript.TestScript, kind string, args []string) *object {
	need := map[string]int{"for": 1, "artifact": 2, "signature": 1, "chart": 2, "raw": 2, "long": 1}
	if len(args) < need[kind] {
		ts.Fatalf("%s lacks arguments", kind)
	}
	o := &object{named: make(map[spec.Digest][]byte)}
	switch kind {
	case "image":
		return newImage(ts, "linux/amd64", args)
	case "for":
		return newImage(ts, args[0], args[1:])
	case "index":
		o.Object = newImageIndex(ts, args)
		for _, name := range args {
			name, _, _ = strings.Cut(name, "@")
			for d, b := range objectNamed(ts, name).named {
				o.named[d] = b
			}
		}
	case "artifact":
		var subject *ocitest.Object
		if args[1] != "-" {
			subject = objectNamed(ts, args[1]).Object
		}
		o.Object = ocitest.Artifact(args[0], subject, []byte(strings.Join(append(args[:1:1], args[2:]...), " ")))
	case "signature":
		o.Object = ocitest.Signature(objectNamed(ts, args[0]).Object)
	case "chart":
		o.Object = ocitest.Chart(map[string]string{"apiVersion": "v2", "name": args[0], "version": args[1]}, noise(args[0]+args[1], 1<<10))
	case "raw":
		var blobs [][]byte
		if len(args) > 2 {
			blobs = objectNamed(ts, args[2]).Blobs
		}
		text := os.Expand(ts.ReadFile(args[1]), func(v string) string { return ts.Getenv(v) })
		o.Object = ocitest.Custom(args[0], []byte(strings.TrimSpace(text)), blobs...)
	case "long":
		b, err := json.Marshal(map[string]any{
			"schemaVersion": 2, "mediaType": spec.OCIIndex, "manifests": []any{},
			"annotations": map[string]string{"filler": strings.Repeat("x", int(bytesOf(ts, args[0])))},
		})
		ts.Check(err)
		o.Object = ocitest.Custom(spec.OCIIndex, b)
	default:
		ts.Fatalf("no kind %s", kind)
	}
	return o
}

// noise is bytes that do not compress, always the same for a name.
func noise(name string, n int64) []byte { return ocitest.Noise(int(n), seedOf(name)) }

func seedOf(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(sum[:])
}

func newImage(ts *testscript.TestScript, platform string, layers []string) *object {
	o := &object{named: make(map[spec.Digest][]byte)}
	var blobs [][]byte
	for _, l := range layers {
		name, options, _ := strings.Cut(l, ",")
		size := int64(2 << 10)
		for opt := range strings.SplitSeq(options, ",") {
			if v, ok := strings.CutPrefix(opt, "size="); ok {
				size = bytesOf(ts, v)
			}
		}
		blobs = append(blobs, ocitest.Layer(int(size), seedOf(name)))
	}
	o.Object = ocitest.ImageFor(platform, blobs...)
	var m spec.Manifest
	ts.Check(json.Unmarshal(o.Raw, &m))
	changed := false
	for i, l := range layers {
		words := strings.Split(l, ",")
		for _, opt := range words[1:] {
			k, v, _ := strings.Cut(opt, "=")
			changed = changed || k != "size"
			o.option(ts, &m.Layers[i], blobs[i], k, v)
		}
	}
	if changed {
		raw, err := json.Marshal(m)
		ts.Check(err)
		p := o.Platform
		o.Object = ocitest.Custom(m.MediaType, raw, o.Blobs...)
		o.Platform = p
	}
	return o
}

// option applies an option of a layer.
func (o *object) option(ts *testscript.TestScript, d *spec.Descriptor, b []byte, key, value string) {
	switch key {
	case "size":
	case "sha512":
		o.named[d.Digest] = nil
		d.Digest = spec.Digest("sha512:").Sum(b)
		o.named[d.Digest] = b
	case "foreign":
		d.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar"
		d.URLs = []string{value}
		o.named[d.Digest] = nil
	case "claims":
		d.Size = int64(number(ts, value))
	default:
		ts.Fatalf("layer option %s", key)
	}
}

func newImageIndex(ts *testscript.TestScript, names []string) *ocitest.Object {
	var children []*ocitest.Object
	for _, name := range names {
		name, of, attests := strings.Cut(name, "@")
		c := *objectNamed(ts, name).Object
		if attests {
			c.Platform = &spec.Platform{OS: "unknown", Architecture: "unknown"}
			c.Annotations = map[string]string{
				"vnd.docker.reference.type":   "attestation-manifest",
				"vnd.docker.reference.digest": string(objectNamed(ts, of).Digest),
			}
		}
		children = append(children, &c)
	}
	return ocitest.Index(children...)
}
