package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// The repositories, and the names by which people ask for what is in them.
const (
	imageRepo = "debian/base"
	imageTag  = "demo"
	chartRepo = "charts/hello"
	// A "+" may stand in a chart's version, and not in a tag.
	chartVersion = "0.1.0+demo.1"
	chartTag     = "0.1.0_demo.1"
	// host is what people write before these names.
	host = "registry.example"
)

// epoch stands for every time, so that the same roots make the same image.
// run.sh gives it to mmdebstrap.
func epoch() time.Time { return time.Unix(1700000000, 0).UTC() }

// signer is the key of the demo's signatures: anybody may make it.
func signer() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("darkmirror demo"))
	return ed25519.NewKeyFromSeed(seed[:])
}

// A root is a file system and what it is for.
type root struct {
	platform platform
	name     string // of a tar
	packages []pkg
}

// A pkg is a paragraph of dpkg's status.
type pkg struct{ name, version, arch string }

func parseRoot(arg string) (root, error) {
	p, name, ok := strings.Cut(arg, "=")
	parts := strings.Split(p, "/")
	if !ok || len(parts) < 2 || len(parts) > 3 {
		return root{}, fmt.Errorf("%q: want OS/ARCH[/VARIANT]=ROOT.tar", arg)
	}
	r := root{platform: platform{OS: parts[0], Architecture: parts[1]}, name: name}
	if len(parts) == 3 {
		r.platform.Variant = parts[2]
	}
	return r, nil
}

// layers makes two layers of a root: the programs, and what comes with them.
func (r *root) layers() (packed [2][]byte, diffIDs [2]string, err error) {
	f, err := os.Open(r.name)
	if err != nil {
		return packed, diffIDs, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var buf [2]bytes.Buffer
	var zip [2]*gzip.Writer
	var out [2]*tar.Writer
	sum := [2]io.Writer{sha256.New(), sha256.New()}
	for i := range out {
		zip[i], _ = gzip.NewWriterLevel(&buf[i], gzip.BestSpeed) // the level is a good one
		out[i] = tar.NewWriter(io.MultiWriter(zip[i], sum[i]))
	}
	placed := make(map[string]int)
	in := tar.NewReader(f)
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return packed, diffIDs, fmt.Errorf("%s: %w", r.name, err)
		}
		i := 0
		if strings.HasPrefix(h.Name, "./usr/share/") || strings.HasPrefix(h.Name, "./var/") {
			i = 1
		}
		if h.Typeflag == tar.TypeLink {
			i = placed[h.Linkname] // a link and its file belong together
		}
		placed[h.Name] = i
		if err := out[i].WriteHeader(h); err != nil {
			return packed, diffIDs, fmt.Errorf("%s: %s: %w", r.name, h.Name, err)
		}
		var w io.Writer = out[i]
		var status bytes.Buffer
		if h.Name == "./var/lib/dpkg/status" {
			w = io.MultiWriter(w, &status)
		}
		if _, err := io.Copy(w, in); err != nil {
			return packed, diffIDs, fmt.Errorf("%s: %s: %w", r.name, h.Name, err)
		}
		if status.Len() > 0 {
			r.packages = parseStatus(status.String())
		}
	}
	for i := range out {
		if err := errors.Join(out[i].Close(), zip[i].Close()); err != nil {
			return packed, diffIDs, err
		}
		packed[i] = buf[i].Bytes()
		diffIDs[i] = "sha256:" + hex.EncodeToString(sum[i].(interface{ Sum([]byte) []byte }).Sum(nil))
	}
	return packed, diffIDs, nil
}

func parseStatus(status string) (list []pkg) {
	field := regexp.MustCompile(`(?m)^(Package|Version|Architecture): (.*)$`)
	for paragraph := range strings.SplitSeq(status, "\n\n") {
		var p pkg
		for _, m := range field.FindAllStringSubmatch(paragraph, -1) {
			*map[string]*string{"Package": &p.name, "Version": &p.version, "Architecture": &p.arch}[m[1]] = m[2]
		}
		if p.name != "" {
			list = append(list, p)
		}
	}
	return list
}

// image pushes one platform of the image and answers how an index names it.
func (r *root) image(reg *registry) (descriptor, error) {
	packed, diffIDs, err := r.layers()
	if err != nil {
		return descriptor{}, err
	}
	m := manifest{SchemaVersion: 2, MediaType: mediaManifest}
	for _, b := range packed {
		d, err := reg.pushBlob(imageRepo, mediaLayer, b)
		if err != nil {
			return descriptor{}, err
		}
		m.Layers = append(m.Layers, d)
	}
	config, err := reg.pushBlob(imageRepo, mediaConfig, encode(map[string]any{
		"architecture": r.platform.Architecture, "os": r.platform.OS, "variant": r.platform.Variant, "created": epoch(),
		"config": map[string]any{"Cmd": []string{"/bin/sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
		"history": []map[string]any{
			{"created": epoch(), "created_by": "mmdebstrap: programs"}, {"created": epoch(), "created_by": "mmdebstrap: shared and state"},
		},
	}))
	if err != nil {
		return descriptor{}, err
	}
	m.Config = &config
	d, err := reg.pushManifest(imageRepo, "", m)
	d.Platform = &r.platform
	return d, err
}

// chart pushes a Helm chart as "helm push" does: its manifest has no media
// type of its own.
func chart(reg *registry, image string) (descriptor, error) {
	files := []struct{ name, text string }{
		{"Chart.yaml", "apiVersion: v2\nname: hello\nversion: " + chartVersion + "\nappVersion: \"12\"\ndescription: says hello from behind the gap\ntype: application\n"},
		{"values.yaml", "image: " + image + "\nreplicas: 1\n"},
		{"templates/deployment.yaml", `apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers:
        - name: hello
          image: {{ .Values.image | quote }}
          command: [sh, -c, "echo hello; sleep infinity"]
`},
	}
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	out := tar.NewWriter(zip)
	for _, f := range files {
		h := &tar.Header{Name: "hello/" + f.name, Mode: 0o644, Size: int64(len(f.text)), ModTime: epoch(), Typeflag: tar.TypeReg}
		if err := out.WriteHeader(h); err != nil {
			return descriptor{}, err
		}
		if _, err := io.WriteString(out, f.text); err != nil {
			return descriptor{}, err
		}
	}
	if err := errors.Join(out.Close(), zip.Close()); err != nil {
		return descriptor{}, err
	}
	meta := map[string]string{
		"apiVersion": "v2", "name": "hello", "version": chartVersion, "appVersion": "12",
		"description": "says hello from behind the gap", "type": "application",
	}
	config, err := reg.pushBlob(chartRepo, mediaHelm, encode(meta))
	if err != nil {
		return descriptor{}, err
	}
	layer, err := reg.pushBlob(chartRepo, mediaChart, buf.Bytes())
	if err != nil {
		return descriptor{}, err
	}
	return reg.pushManifest(chartRepo, chartTag, manifest{
		SchemaVersion: 2, Config: &config, Layers: []descriptor{layer},
		Annotations: map[string]string{
			"org.opencontainers.image.created": epoch().Format(time.RFC3339), "org.opencontainers.image.description": meta["description"],
			"org.opencontainers.image.title": "hello", "org.opencontainers.image.version": chartVersion,
		},
	})
}

// sbom attaches a list of the roots' packages to the index.
func sbom(reg *registry, index descriptor, roots []root) (d descriptor, packages int, err error) {
	type object = map[string]any
	list := []object{}
	for _, r := range roots {
		for _, p := range r.packages {
			list = append(list, object{
				"SPDXID": fmt.Sprintf("SPDXRef-%d", len(list)), "name": p.name, "versionInfo": p.version,
				"downloadLocation": "NOASSERTION", "filesAnalyzed": false,
				"externalRefs": []object{{
					"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
					"referenceLocator": "pkg:deb/debian/" + p.name + "@" + url.QueryEscape(p.version) + "?arch=" + p.arch,
				}},
			})
		}
	}
	if len(list) == 0 {
		return d, 0, errors.New("dpkg's status lists no package in any root")
	}
	layer, err := reg.pushBlob(imageRepo, mediaSPDX, encode(object{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": imageRepo + ":" + imageTag,
		"documentNamespace": "https://" + host + "/spdx/" + index.Digest,
		"creationInfo":      object{"created": epoch(), "creators": []string{"Tool: demo"}},
		"packages":          list,
	}))
	if err != nil {
		return d, 0, err
	}
	d, err = attach(reg, mediaSPDX, layer, index)
	return d, len(list), err
}

// sign makes the one layer of a cosign signature of a manifest.
func sign(reg *registry, signed descriptor) (descriptor, []byte, error) {
	payload := encode(map[string]any{
		"critical": map[string]any{
			"identity": map[string]string{"docker-reference": host + "/" + imageRepo},
			"image":    map[string]string{"docker-manifest-digest": signed.Digest},
			"type":     "cosign container image signature",
		},
		"optional": nil,
	})
	d, err := reg.pushBlob(imageRepo, mediaSigning, payload)
	d.Annotations = map[string]string{signatureKey: base64.StdEncoding.EncodeToString(ed25519.Sign(signer(), payload))}
	return d, payload, err
}

// attach pushes a referrer. Where the registry knows no referrers it lists it
// under the subject's tag.
func attach(reg *registry, kind string, layer, subject descriptor) (descriptor, error) {
	config, err := reg.pushBlob(imageRepo, mediaEmpty, []byte("{}"))
	if err != nil {
		return descriptor{}, err
	}
	to := descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	d, err := reg.pushManifest(imageRepo, "", manifest{
		SchemaVersion: 2, MediaType: mediaManifest, ArtifactType: kind, Config: &config, Layers: []descriptor{layer}, Subject: &to,
	})
	if err != nil {
		return descriptor{}, err
	}
	d.ArtifactType = kind
	_, err = reg.pushManifest(imageRepo, strings.Replace(subject.Digest, ":", "-", 1), manifest{
		SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{d},
	})
	return d, err
}

// sigTag is the older way of cosign: a tag made of the signed digest.
func sigTag(reg *registry, signed descriptor) error {
	layer, payload, err := sign(reg, signed)
	if err != nil {
		return err
	}
	config, err := reg.pushBlob(imageRepo, mediaConfig, encode(map[string]any{
		"architecture": "", "os": "", "created": time.Time{}, "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(payload)}},
	}))
	if err != nil {
		return err
	}
	_, err = reg.pushManifest(imageRepo, strings.Replace(signed.Digest, ":", "-", 1)+".sig", manifest{
		SchemaVersion: 2, MediaType: mediaManifest, Config: &config, Layers: []descriptor{layer},
	})
	return err
}

// push makes everything and leaves it in a registry.
func push(address string, args []string, out io.Writer) error {
	reg := newRegistry(address, "")
	m := manifest{SchemaVersion: 2, MediaType: mediaIndex}
	var roots []root
	for _, arg := range args {
		r, err := parseRoot(arg)
		if err != nil {
			return err
		}
		d, err := r.image(reg)
		if err != nil {
			return err
		}
		m.Manifests = append(m.Manifests, d)
		roots = append(roots, r)
	}
	index, err := reg.pushManifest(imageRepo, imageTag, m)
	if err != nil {
		return err
	}
	bill, packages, err := sbom(reg, index, roots)
	if err != nil {
		return err
	}
	layer, _, err := sign(reg, bill)
	if err != nil {
		return err
	}
	if _, err := attach(reg, mediaSignature, layer, bill); err != nil {
		return err
	}
	if err := sigTag(reg, index); err != nil {
		return err
	}
	c, err := chart(reg, host+"/"+imageRepo+"@"+index.Digest)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s:%s  %s, %d platforms, %d packages in its SBOM\n", imageRepo, imageTag, index.Digest, len(roots), packages)
	fmt.Fprintf(out, "%s:%s  %s, a Helm chart\n", chartRepo, chartTag, c.Digest)
	fmt.Fprintf(out, "pushed %.1f MiB of blobs\n", float64(reg.pushed)/(1<<20))
	return nil
}
