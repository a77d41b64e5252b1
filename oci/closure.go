package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// maxDepth bounds indexes within indexes. Real ones have two levels.
	maxDepth = 8
	// maxReferrerDepth bounds signatures of signatures of SBOMs.
	maxReferrerDepth = 16
	// maxManifests bounds what one reference leads to.
	maxManifests = 20_000
	// maxConfig bounds an image's config that is read for its platform.
	maxConfig = 8 << 20
)

// A closure is one image with everything below it and everything that refers
// to it, as it is put together.
type closure struct {
	s     *Source
	repo  string // inside
	from  string // the same repository upstream
	why   string
	image Image
	old   imageBefore

	files     map[string]artifact.File
	manifests []recordManifest // in push order
	seen      map[spec.Digest]bool
	referrers map[string]int // by artifact type
	notes     []string
}

// resolve follows one reference.
func (s *Source) resolve(ctx context.Context, r request, old map[string]imageBefore) (*closure, error) {
	c := &closure{
		s: s, repo: s.inside(r.ref.Repository), from: r.ref.Repository, why: r.why,
		image: Image{Version: version1(r.ref), Tag: r.ref.Tag, Derived: s.up.derived()},
		files: make(map[string]artifact.File), seen: make(map[spec.Digest]bool), referrers: make(map[string]int),
	}
	c.old = old[c.repo+" "+c.image.Version]
	root, err := c.pin(ctx, r.ref)
	if err != nil {
		return nil, err
	}
	if len(s.platforms) > 0 {
		if root, err = c.filter(ctx, root, r.ref.Digest != ""); err != nil {
			return nil, err
		}
	}
	c.image.Root = root.Digest
	if err := c.walk(ctx, root, 0, 0); err != nil {
		return nil, err
	}
	slices.SortFunc(c.image.Attached, func(a, b Tag) int { return strings.Compare(a.Name, b.Name) })
	return c, nil
}

// artifact is the closure as an artifact of a snapshot.
func (c *closure) artifact() artifact.Artifact {
	a := artifact.Artifact{Name: c.repo, Version: c.image.Version, Why: c.why}
	for _, f := range c.files {
		a.Files = append(a.Files, f)
	}
	slices.SortFunc(a.Files, func(a, b artifact.File) int { return strings.Compare(a.Path, b.Path) })
	return a
}

func (c *closure) refuse(code, reason string, err error) error {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: c.name(), Reason: reason, Err: err}
}

func (c *closure) name() string { return c.s.name + ": " + c.from + ":" + c.image.Version }

// pin turns a reference into a digest. Upstream is asked by HEAD, which the
// large registries do not count.
func (c *closure) pin(ctx context.Context, ref spec.Reference) (spec.Descriptor, error) {
	ask := version1(ref)
	if ref.Digest != "" {
		ask = string(ref.Digest)
	}
	d, err := c.s.up.head(ctx, c.from, ask)
	if err != nil {
		return spec.Descriptor{}, err
	}
	if d == nil {
		return spec.Descriptor{}, c.refuse(CodeMissing, "upstream has no such image", nil)
	}
	return *d, nil
}

// load reads a manifest: from the store where it came before, else upstream.
func (c *closure) load(ctx context.Context, d spec.Descriptor) ([]byte, *spec.Manifest, error) {
	raw, err := c.bytes(ctx, d)
	if err != nil {
		return nil, nil, c.unusable(err, d)
	}
	if d.Size > 0 && int64(len(raw.Bytes)) != d.Size {
		return nil, nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "OCI-SIZE", Subject: c.name() + ": manifest " + string(d.Digest),
			Reason: "its size is not what its parent says", Want: fmt.Sprint(d.Size), Got: fmt.Sprint(len(raw.Bytes)),
		}
	}
	m, err := spec.ParseManifest(raw.Bytes, raw.MediaType)
	return raw.Bytes, m, c.unusable(err, d)
}

// unusable makes a manifest that nobody can use what it is: upstream keeps its
// word, one image is missing, and nothing was forged.
func (c *closure) unusable(err error, d spec.Descriptor) error {
	r, ok := errors.AsType[*artifact.Refusal](err)
	if ok && (r.Code == spec.CodeManifest || r.Code == spec.CodeManifestSize || r.Code == spec.CodeSchema1) {
		r.Class, r.Subject = artifact.ErrUnavailable, c.name()+": manifest "+string(d.Digest)
	}
	return err
}

func (c *closure) bytes(ctx context.Context, d spec.Descriptor) (*remote.Raw, error) {
	mediaType := d.MediaType
	if !d.IsManifest() && mediaType != spec.DockerSchema1 && mediaType != spec.DockerSigned1 {
		mediaType = ""
	}
	if sum, ok := d.Digest.SHA256(); ok && c.s.st.Has(sum) {
		b, err := c.s.st.ReadAll(sum, spec.MaxManifest)
		if err == nil {
			return &remote.Raw{Bytes: b, MediaType: mediaType, Digest: d.Digest}, nil
		}
		if !errors.Is(err, artifact.ErrIntegrity) {
			return nil, err
		}
	}
	return c.s.up.manifest(ctx, c.from, d.Digest)
}

// walk adds a manifest after everything below it, and before everything that
// refers to it: an order in which a registry takes them.
func (c *closure) walk(ctx context.Context, d spec.Descriptor, depth, refDepth int) error {
	if c.seen[d.Digest] {
		return nil
	}
	c.seen[d.Digest] = true
	if depth > maxDepth || refDepth > maxReferrerDepth || len(c.seen) > maxManifests {
		return c.refuse(CodeTooMuch, fmt.Sprintf("leads to indexes deeper than %d, referrers deeper than %d, or more than %d manifests", maxDepth, maxReferrerDepth, maxManifests), nil)
	}
	raw, m, err := c.load(ctx, d)
	if err != nil {
		return err
	}
	for _, child := range m.Manifests {
		if err := c.child(ctx, child, depth+1, refDepth); err != nil {
			return err
		}
	}
	for i, b := range m.Blobs() {
		if err := c.blob(ctx, b, i == 0 && m.Config != nil); err != nil {
			return err
		}
	}
	if err := c.add(raw, d.Digest, m.MediaType); err != nil {
		return err
	}
	if c.s.cfg.Referrers == referrersNone {
		return nil
	}
	return c.follow(ctx, d.Digest, refDepth+1)
}

// child adds a member of an index. One of a media type that nobody knows is a
// manifest if the registry says so, and a blob otherwise.
func (c *closure) child(ctx context.Context, d spec.Descriptor, depth, refDepth int) error {
	if d.IsManifest() {
		return c.walk(ctx, d, depth, refDepth)
	}
	is, err := c.s.up.head(ctx, c.from, string(d.Digest))
	if err != nil {
		return err
	}
	if is == nil {
		return c.blob(ctx, d, false)
	}
	return c.walk(ctx, d, depth, refDepth)
}

// add keeps a manifest's bytes.
func (c *closure) add(raw []byte, d spec.Digest, mediaType string) error {
	sum, err := c.s.st.PutBytes(raw)
	if err != nil {
		return err
	}
	p := manifestPath(c.repo, d)
	f := artifact.File{Path: p, Digest: sum, Size: int64(len(raw))}
	if d != c.image.Root || c.image.Original == "" { // else written here
		f.URL = c.s.up.url(c.from, "manifests", d)
	}
	c.files[p] = f
	c.manifests = append(c.manifests, recordManifest{d, mediaType})
	return nil
}

// blob adds a config or a layer, which is fetched later.
func (c *closure) blob(ctx context.Context, d spec.Descriptor, config bool) error {
	p := blobPath(c.repo, d.Digest)
	if _, ok := c.files[p]; ok {
		return nil
	}
	f := artifact.File{Path: p, Size: d.Size, URL: c.s.up.url(c.from, "blobs", d.Digest)}
	if d.Foreign() && !config {
		use, err := c.foreign(d, &f)
		if err != nil || !use {
			return err
		}
	}
	sum, ok := d.Digest.SHA256()
	if !ok {
		var err error
		if sum, err = c.otherDigest(ctx, d, p); err != nil {
			return err
		}
	}
	f.Digest = sum
	c.files[p] = f
	return nil
}

// otherDigest is the SHA-256 of a blob that is named otherwise. It is known
// from the last bundle, or else the blob is fetched now.
func (c *closure) otherDigest(ctx context.Context, d spec.Descriptor, path string) (artifact.Digest, error) {
	for _, f := range c.old.artifact.Files {
		if f.Path == path {
			return f.Digest, nil
		}
	}
	return c.s.up.fetch(ctx, c.from, d.Digest, d.Size)
}

// foreign decides about a layer whose bytes may lie elsewhere. One that the
// registry has all the same is an ordinary one.
func (c *closure) foreign(d spec.Descriptor, f *artifact.File) (use bool, err error) {
	switch c.s.cfg.ForeignLayers {
	case foreignSkip:
		if !slices.Contains(c.image.Skipped, d.Digest) {
			c.image.Skipped = append(c.image.Skipped, d.Digest)
		}
		return false, nil
	case foreignFetch:
		u, err := c.s.publicURL(d.URLs)
		if err != nil {
			return false, c.refuse(CodeForeign, "a layer lies outside the registry and cannot be fetched: "+string(d.Digest), err)
		}
		f.URL = u
		return true, nil
	}
	return false, c.refuse(CodeForeign, fmt.Sprintf("layer %s lies outside the registry, at %s", d.Digest, cmpOr(strings.Join(d.URLs, ", "), "no address")), nil)
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// publicURL is an https address that is not one of a private network: a
// manifest must not make us read what its author cannot. Among several it is
// the first that the configuration allows.
func (s *Source) publicURL(urls []string) (string, error) {
	first := ""
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Hostname() == "" {
			continue
		}
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()) {
			continue
		}
		if s.client != nil && s.client.Allowed(raw, "") == nil {
			return raw, nil
		}
		first = cmpOr(first, raw)
	}
	if first != "" {
		return first, nil // refused by name when it is fetched
	}
	return "", fmt.Errorf("none of its addresses is https on a public host: %q", urls)
}

// follow adds what refers to a manifest: by the API or the fallback tag, and
// by cosign's tags.
func (c *closure) follow(ctx context.Context, d spec.Digest, refDepth int) error {
	list, err := c.s.up.referrers(ctx, c.from, d)
	if err != nil {
		return err
	}
	for _, r := range list {
		if c.unwanted(r.ArtifactType) || c.seen[r.Digest] {
			continue
		}
		if err := c.walk(ctx, r, 0, refDepth); err != nil {
			return err
		}
		c.referrers[cmpOr(r.ArtifactType, "of no type")]++
	}
	for _, tag := range spec.CosignTags(d) {
		is, err := c.s.up.head(ctx, c.from, tag)
		if err != nil {
			return err
		}
		if is == nil || c.unwanted(tag[strings.LastIndexByte(tag, '.'):]) {
			continue
		}
		c.image.Attached = append(c.image.Attached, Tag{tag, is.Digest})
		if !c.seen[is.Digest] {
			c.referrers["cosign "+tag[strings.LastIndexByte(tag, '.'):]]++
		}
		if err := c.walk(ctx, *is, 0, refDepth); err != nil {
			return err
		}
	}
	return nil
}

// unwanted reports whether the configuration leaves a type out.
func (c *closure) unwanted(t string) bool {
	return len(c.s.cfg.ReferrerTypes) > 0 && !slices.Contains(c.s.cfg.ReferrerTypes, t)
}

// filter writes an index anew with the wanted platforms only. It refuses where
// something names the original: a digest in the configuration, or a signature.
func (c *closure) filter(ctx context.Context, root spec.Descriptor, pinned bool) (spec.Descriptor, error) {
	raw, m, err := c.load(ctx, root)
	if err != nil {
		return root, err
	}
	if !m.IsIndex() {
		return root, c.single(ctx, m)
	}
	keep, dropped := c.s.split(m)
	if len(dropped) == 0 {
		return root, nil
	}
	if !slices.ContainsFunc(keep, func(d spec.Descriptor) bool { return d.Platform != nil && d.Platform.OS != "unknown" }) {
		return root, c.refuse(CodePlatform, fmt.Sprintf("has none of the wanted platforms %s; it has %s", strings.Join(c.s.cfg.Platforms, ", "), strings.Join(dropped, ", ")), nil)
	}
	if !c.s.cfg.AllowRewrite {
		if pinned {
			return root, c.refuse(CodePlatformPin, "is asked for by digest, and fewer platforms would change it", nil)
		}
		if by, err := c.signedBy(ctx, root.Digest); err != nil || by != "" {
			if err != nil {
				return root, err
			}
			return root, c.refuse(CodePlatformPin, "fewer platforms would change it, and "+by+" refers to the whole", nil)
		}
	}
	b, err := rewrite(raw, m, keep, root.Digest, dropped)
	if err != nil {
		return root, c.refuse(spec.CodeManifest, "cannot be written anew", err)
	}
	if _, err := c.s.st.PutBytes(b); err != nil {
		return root, err
	}
	c.image.Original, c.image.Dropped = root.Digest, dropped
	sum := artifact.Sum(b)
	c.notes = append(c.notes, fmt.Sprintf("%s:%s without %s, now sha256:%s", shortName(c.repo), c.image.Version, strings.Join(dropped, ", "), sum.Short()))
	return spec.Descriptor{MediaType: m.MediaType, Digest: spec.FromSHA256(sum), Size: int64(len(b))}, nil
}

// single checks an image without an index against the wanted platforms.
func (c *closure) single(ctx context.Context, m *spec.Manifest) error {
	if m.Config == nil || m.Config.MediaType != spec.OCIConfig && m.Config.MediaType != "application/vnd.docker.container.image.v1+json" {
		return nil // a chart or another artifact runs everywhere
	}
	if m.Config.Size > maxConfig {
		return c.refuse(CodeTooMuch, fmt.Sprintf("its config has %d bytes", m.Config.Size), nil)
	}
	sum, err := c.s.up.fetch(ctx, c.from, m.Config.Digest, m.Config.Size)
	if err != nil {
		return err
	}
	b, err := c.s.st.ReadAll(sum, maxConfig)
	if err != nil {
		return err
	}
	var p spec.Platform
	if err := json.Unmarshal(b, &p); err != nil {
		return c.refuse(spec.CodeManifest, "its config cannot be read", err)
	}
	if !matches(c.s.platforms, p) {
		return c.refuse(CodePlatform, fmt.Sprintf("is for %s, wanted are %s", p, strings.Join(c.s.cfg.Platforms, ", ")), nil)
	}
	return nil
}

// What docker's build tool writes beside an image that it attests.
const (
	attestationOf   = "vnd.docker.reference.digest"
	originalDigest  = "io.darkmirror.original.digest"
	droppedPlatform = "io.darkmirror.dropped.platforms"
)

// split chooses the children of an index. A child without a platform stays,
// an attestation goes with the image that it is about.
func (s *Source) split(m *spec.Manifest) (keep []spec.Descriptor, dropped []string) {
	kept := make(map[string]bool)
	for _, d := range m.Manifests {
		if d.Annotations[attestationOf] == "" && (d.Platform == nil || matches(s.platforms, *d.Platform)) {
			kept[string(d.Digest)] = true
		}
	}
	for _, d := range m.Manifests {
		if of := d.Annotations[attestationOf]; kept[string(d.Digest)] || of != "" && kept[of] {
			keep = append(keep, d)
			continue
		}
		if d.Annotations[attestationOf] == "" {
			dropped = append(dropped, d.Platform.String())
		}
	}
	return keep, dropped
}

// signedBy names something that refers to the original index, or nothing.
func (c *closure) signedBy(ctx context.Context, d spec.Digest) (string, error) {
	list, err := c.s.up.referrers(ctx, c.from, d)
	if err != nil {
		return "", err
	}
	if len(list) > 0 {
		return cmpOr(list[0].ArtifactType, "an artifact") + " " + string(list[0].Digest), nil
	}
	for _, tag := range spec.CosignTags(d) {
		is, err := c.s.up.head(ctx, c.from, tag)
		if err != nil {
			return "", err
		}
		if is != nil {
			return tag, nil
		}
	}
	return "", nil
}

// rewrite drops members of an index and says so in its annotations. What is
// kept stays as it is written, unknown fields included.
func rewrite(raw []byte, m *spec.Manifest, keep []spec.Descriptor, original spec.Digest, dropped []string) ([]byte, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil, err
	}
	var members []json.RawMessage
	if err := json.Unmarshal(top["manifests"], &members); err != nil {
		return nil, err
	}
	if len(members) != len(m.Manifests) {
		return nil, errors.New("the index is read in two ways")
	}
	var left []json.RawMessage
	for i, d := range m.Manifests {
		if slices.ContainsFunc(keep, func(k spec.Descriptor) bool { return k.Digest == d.Digest }) {
			left = append(left, members[i])
		}
	}
	notes := make(map[string]string)
	for k, v := range m.Annotations {
		notes[k] = v
	}
	notes[originalDigest], notes[droppedPlatform] = string(original), strings.Join(dropped, ",")
	var err error
	if top["manifests"], err = json.Marshal(left); err != nil {
		return nil, err
	}
	if m.MediaType == spec.OCIIndex { // docker's list has no annotations
		if top["annotations"], err = json.Marshal(notes); err != nil {
			return nil, err
		}
	}
	return json.Marshal(top)
}
