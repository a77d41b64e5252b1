package pypi

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/provenance"
)

const (
	// maxTrustedRoot bounds a trusted_root.json; real ones have 10 KiB.
	maxTrustedRoot = 4 << 20
	// maxProvenance bounds one provenance object.
	maxProvenance = 4 << 20
	// provenancePrefix is where a snapshot lists provenance objects.
	provenancePrefix = "provenance/"
)

// AttestationsConfig says how the attestations of files are verified (PEP
// 740). Without it they are not asked for.
type AttestationsConfig struct {
	// TrustedRoot is Sigstore's trusted_root.json, pinned by whoever put the
	// file there.
	TrustedRoot string `yaml:"trusted_root"`
	// Require names projects that count only with an attestation that holds.
	Require []RequireConfig `yaml:"require,omitempty"`
}

// RequireConfig asks for attestations of some projects.
type RequireConfig struct {
	// Projects are names or patterns.
	Projects []string `yaml:"projects"`
	// Publisher is who has to have published them, "github.com/org/repo";
	// empty is anybody.
	Publisher string `yaml:"publisher,omitempty"`
}

func (c *AttestationsConfig) validate(add func(string, string, ...any)) {
	if c == nil {
		return
	}
	if c.TrustedRoot == "" {
		add("attestations.trusted_root", "missing; no trust root is built in")
	}
	for i, r := range c.Require {
		field := fmt.Sprintf("attestations.require[%d].projects", i)
		if len(r.Projects) == 0 {
			add(field, "missing")
		}
		checkPatterns(field, r.Projects, true, add)
	}
}

// An attester verifies provenance objects. A nil one takes everything.
type attester struct {
	root    *provenance.Root
	require []RequireConfig
}

func newAttester(c *AttestationsConfig) (*attester, error) {
	if c == nil {
		return nil, nil
	}
	info, err := os.Stat(c.TrustedRoot)
	if err != nil {
		return nil, fmt.Errorf("attestations.trusted_root: %w", err)
	}
	if info.Size() > maxTrustedRoot {
		return nil, fmt.Errorf("attestations.trusted_root: %s has %d bytes, at most %d are read", c.TrustedRoot, info.Size(), maxTrustedRoot)
	}
	b, err := os.ReadFile(filepath.Clean(c.TrustedRoot))
	if err != nil {
		return nil, fmt.Errorf("attestations.trusted_root: %w", err)
	}
	root, err := provenance.ParseRoot(b)
	if err != nil {
		return nil, fmt.Errorf("attestations.trusted_root: %s: %w", c.TrustedRoot, err)
	}
	return &attester{root: root, require: c.Require}, nil
}

// verify checks the object of one file, and what is required of its project.
func (a *attester) verify(source, project string, f *indexFile, object []byte) error {
	if a == nil {
		return nil
	}
	as, err := a.root.Verify(object, provenance.Subject{Filename: f.Filename, SHA256: f.SHA256})
	if err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	for _, r := range a.require {
		if !matches(r.Projects, project) {
			continue
		}
		if err := (provenance.Require{Publisher: r.Publisher}).Check(as); err != nil {
			return fmt.Errorf("%s: %s: %w", source, f.Filename, err)
		}
	}
	return nil
}

// missing refuses a file without attestations where some are required.
func (a *attester) missing(source, project string, f *indexFile) error {
	if a == nil {
		return nil
	}
	for _, r := range a.require {
		if matches(r.Projects, project) {
			return &artifact.Refusal{
				Class: artifact.ErrIntegrity, Code: "PYPI-PROVENANCE-MISSING", Subject: source + ": " + f.Filename,
				Reason: "no attestations, and the configuration requires some of " + project,
			}
		}
	}
	return nil
}

// attested fetches and verifies the provenance object of a file, and keeps it
// in the store.
func (s *Source) attested(ctx context.Context, ix *index, project string, f *indexFile, address string) error {
	if s.attester == nil {
		return nil
	}
	if address == "" {
		return s.attester.missing(s.name, project, f)
	}
	resp, err := ix.client.Get(ctx, address, fetch.GetOptions{Accept: "application/vnd.pypi.integrity.v1+json, application/json;q=0.1", Limit: maxProvenance})
	if err != nil {
		return err
	}
	if err := s.attester.verify(s.name, project, f, resp.Body); err != nil {
		return err
	}
	d, err := s.store.PutBytes(resp.Body)
	if err != nil {
		return err
	}
	f.Provenance = d.String()
	return nil
}

// provenanceFile is how a snapshot lists an object.
func provenanceFile(d artifact.Digest, size int64) artifact.File {
	return artifact.File{Path: provenancePrefix + d.Hex() + ".json", Digest: d, Size: size}
}

// provenances are the objects among the metadata of a snapshot.
func provenances(meta []artifact.File) (map[string]artifact.File, error) {
	out := make(map[string]artifact.File)
	for _, f := range meta {
		if f.Path == indexName {
			continue
		}
		if f.Path != provenanceFile(f.Digest, f.Size).Path || f.Size > maxProvenance {
			return nil, fmt.Errorf("metadata %q that is not known", clip(f.Path))
		}
		out[f.Digest.String()] = f
	}
	return out, nil
}

// attested verifies the provenance object of a file again, inside.
func (p *Publisher) attested(f *indexFile) error {
	project, _, err := packaging.ParseDistName(f.Filename)
	if err != nil {
		return err
	}
	if f.Provenance == "" {
		return p.attester.missing(p.name, project, f)
	}
	d, err := artifact.ParseDigest(f.Provenance)
	if err != nil {
		return err
	}
	object, err := p.store.ReadAll(d, maxProvenance)
	if err != nil {
		return err
	}
	return p.attester.verify(p.name, project, f, object)
}

// provenanceURL is where a page says that a provenance object lies. What
// cannot be an address is none.
func provenanceURL(base *url.URL, href string) string {
	if href == "" {
		return ""
	}
	u, err := base.Parse(strings.TrimSpace(href))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return ""
	}
	u.Fragment = ""
	return u.String()
}
