package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A walker reads everything that hangs on the tags of a repository, and hashes
// it. Two registries that hold the same give the same lines.
type walker struct {
	reg    *registry
	lines  map[string]bool
	seen   map[string]bool // "repository digest"
	counts map[string]int
	bytes  int64
}

// fallback is the tag of a registry that has no referrers API; one that has it
// needs no such tag.
var fallback = regexp.MustCompile(`^sha256-[0-9a-f]{64}$`)

// walk prints a line for everything that the demo's repositories hold, and at
// the end how many there are of each kind.
func walk(address, prefix string, out io.Writer) error {
	w := &walker{reg: newRegistry(address, prefix), lines: make(map[string]bool), seen: make(map[string]bool), counts: make(map[string]int)}
	for _, repo := range []string{imageRepo, chartRepo} {
		tags, err := w.reg.tags(repo)
		if err != nil {
			return err
		}
		for _, tag := range tags {
			if fallback.MatchString(tag) {
				continue
			}
			if err := w.tag(repo, tag); err != nil {
				return fmt.Errorf("%s:%s: %w", repo, tag, err)
			}
		}
	}
	for _, line := range slices.Sorted(maps.Keys(w.lines)) {
		fmt.Fprintln(out, line)
	}
	var counts []string
	for _, kind := range []string{"tags", ".sig tags", "indexes", "platforms", "charts", "SBOMs", "referrers", "nested referrers", "good signatures", "blobs"} {
		counts = append(counts, fmt.Sprintf("%s %d", kind, w.counts[kind]))
	}
	fmt.Fprintf(out, "total: %s, bytes %d\n", strings.Join(counts, ", "), w.bytes)
	return nil
}

func (w *walker) tag(repo, tag string) error {
	b, mediaType, err := w.reg.get(repo, "manifests/"+tag, "")
	if err != nil {
		return err
	}
	d := descriptor{MediaType: mediaType, Digest: digest(b), Size: int64(len(b))}
	w.counts["tags"]++
	w.lines[fmt.Sprintf("%s tag %s %s", repo, tag, d.Digest)] = true
	if strings.HasSuffix(tag, ".sig") {
		w.counts[".sig tags"]++
		signed := strings.TrimSuffix(strings.Replace(tag, "-", ":", 1), ".sig")
		return w.manifest(repo, d, signed, 0)
	}
	return w.manifest(repo, d, "", 0)
}

// manifest reads a manifest and all below and on it. about is what it is a
// signature of, if it is one; depth is how many subjects lie under it.
func (w *walker) manifest(repo string, d descriptor, about string, depth int) error {
	if w.seen[repo+d.Digest] {
		return nil
	}
	w.seen[repo+d.Digest] = true
	b, mediaType, err := w.reg.get(repo, "manifests/"+d.Digest, d.Digest)
	if err != nil {
		return err
	}
	if mediaType != d.MediaType || int64(len(b)) != d.Size {
		return fmt.Errorf("%s is %s of %d bytes, described as %s of %d", d.Digest, mediaType, len(b), d.MediaType, d.Size)
	}
	w.bytes += d.Size
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("%s: %w", d.Digest, err)
	}
	if m.Subject != nil {
		about = m.Subject.Digest
	}
	w.count(m, depth)
	w.lines[fmt.Sprintf("%s manifest %s %d %s %q", repo, d.Digest, d.Size, mediaType, m.ArtifactType)] = true
	for _, child := range m.Manifests {
		if err := w.manifest(repo, child, "", depth); err != nil {
			return err
		}
	}
	if m.Config != nil {
		if err := errors.Join(w.blob(repo, *m.Config, about), w.blobs(repo, m.Layers, about)); err != nil {
			return err
		}
	}
	list, err := w.reg.referrers(repo, d.Digest)
	if err != nil {
		return err
	}
	for _, r := range list {
		w.lines[fmt.Sprintf("%s referrer %s of %s %q", repo, r.Digest, d.Digest, r.ArtifactType)] = true
		w.counts["referrers"]++
		if depth > 0 {
			w.counts["nested referrers"]++
		}
		if err := w.manifest(repo, r, d.Digest, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) count(m manifest, depth int) {
	switch {
	case len(m.Manifests) > 0:
		w.counts["indexes"]++
	case m.Config != nil && m.Config.MediaType == mediaHelm:
		w.counts["charts"]++
	case m.ArtifactType == mediaSPDX:
		w.counts["SBOMs"]++
	case depth == 0 && len(m.Layers) > 0 && m.Layers[0].MediaType == mediaLayer:
		w.counts["platforms"]++
	}
}

func (w *walker) blobs(repo string, list []descriptor, about string) error {
	for _, d := range list {
		if err := w.blob(repo, d, about); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) blob(repo string, d descriptor, about string) error {
	if w.seen[repo+d.Digest] {
		return nil
	}
	w.seen[repo+d.Digest] = true
	b, _, err := w.reg.get(repo, "blobs/"+d.Digest, d.Digest)
	if err != nil {
		return err
	}
	if int64(len(b)) != d.Size {
		return fmt.Errorf("blob %s has %d bytes, described as %d", d.Digest, len(b), d.Size)
	}
	w.counts["blobs"]++
	w.bytes += d.Size
	w.lines[fmt.Sprintf("%s blob %s %d", repo, d.Digest, d.Size)] = true
	if d.MediaType == mediaSigning {
		return w.signature(d, b, about)
	}
	return nil
}

// signature checks what a signature says, and that it is one.
func (w *walker) signature(d descriptor, payload []byte, about string) error {
	var p struct {
		Critical struct {
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return err
	}
	if p.Critical.Image.Digest != about {
		return fmt.Errorf("signature %s is of %s, and hangs on %s", d.Digest, p.Critical.Image.Digest, about)
	}
	sig, err := base64.StdEncoding.DecodeString(d.Annotations[signatureKey])
	if err != nil {
		return err
	}
	if !ed25519.Verify(signer().Public().(ed25519.PublicKey), payload, sig) {
		return fmt.Errorf("signature %s of %s is bad", d.Digest, about)
	}
	w.counts["good signatures"]++
	return nil
}
