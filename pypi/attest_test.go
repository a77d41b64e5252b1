package pypi

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

const (
	realDir  = "provenance/testdata/real"
	attested = "circleci_sign_publish_example-0.0.1.dev137-py3-none-any.whl"
	// attestedSum is the SHA-256 of the real file, which is not here: a source
	// is told it by the index.
	attestedSum = "8cb34da1e27336f11a2c43f3f9c7433bd76f24f470c904724f06ad7f131d9e9f"
)

func withRoot(c *Config) {
	c.Attestations = &AttestationsConfig{TrustedRoot: filepath.Join(realDir, "trusted_root.json")}
}

func attestedFile(t *testing.T) pypitest.File {
	t.Helper()
	object, err := os.ReadFile(filepath.Join(realDir, attested+".provenance"))
	if err != nil {
		t.Fatal(err)
	}
	f := pypitest.Requiring(attested, "")
	f.Hash, f.Provenance = attestedSum, object
	return f
}

const attestedProject = "circleci-sign-publish-example"

func TestAttestations(t *testing.T) {
	o := resolving(t, pypitest.New(aged(attestedFile(t))...), []string{attestedProject}, withRoot)
	snap, _, _ := o.resolve(t)
	if len(snap.Meta) != 2 || snap.Meta[1].Path != provenanceFile(snap.Meta[1].Digest, 0).Path || !o.store.Has(snap.Meta[1].Digest) {
		t.Fatalf("metadata: %+v", snap.Meta)
	}
	// What is not asked for is not fetched.
	index := pypitest.New(aged(attestedFile(t))...)
	if snap, _, _ := resolving(t, index, []string{attestedProject}, nil).resolve(t); len(snap.Meta) != 1 || index.Count("GET /files/") != 1 {
		t.Errorf("without a trust root: %+v, %q", snap.Meta, index.Requests())
	}
	require := func(publisher string) func(*Config) {
		return func(c *Config) {
			withRoot(c)
			c.Attestations.Require = []RequireConfig{{Projects: []string{"circleci-*"}, Publisher: publisher}}
		}
	}
	other := attestedFile(t)
	other.Hash = strings.Repeat("1", 64)
	bare := attestedFile(t)
	bare.Provenance = nil
	broken := attestedFile(t)
	broken.Provenance = []byte(strings.Replace(string(broken.Provenance), `"signature":"`, `"signature":"AAAA`, 1))
	for name, c := range map[string]struct {
		file   pypitest.File
		change func(*Config)
		code   string
	}{
		"of another file":   {other, withRoot, "PYPI-PROVENANCE-SUBJECT"},
		"changed":           {broken, withRoot, "PYPI-PROVENANCE"},
		"missing":           {bare, require(""), "PYPI-PROVENANCE-MISSING"},
		"another publisher": {attestedFile(t), require("github.com/somebody/else"), "PYPI-PROVENANCE-PUBLISHER"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := resolving(t, pypitest.New(aged(c.file)...), []string{attestedProject}, c.change).Resolve(t.Context(), nil)
			r, ok := errors.AsType[*artifact.Refusal](err)
			if !ok || !strings.HasPrefix(r.Code, c.code) || !errors.Is(err, artifact.ErrIntegrity) {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
	if _, _, err := resolving(t, pypitest.New(aged(bare)...), []string{attestedProject}, withRoot).Resolve(t.Context(), nil); err != nil {
		t.Errorf("a file without attestations, where none are required: %v", err)
	}
}

// TestAttestationsInside: the inside verifies again, with its own root and
// its own demands.
func TestAttestationsInside(t *testing.T) {
	f := attestedFile(t)
	st := newStore(t)
	d, err := st.PutBytes(f.Provenance)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := artifact.ParseHex(attestedSum)
	if err != nil {
		t.Fatal(err)
	}
	good := indexFile{Filename: attested, Version: "0.0.1.dev137", SHA256: sum, Size: 1, Provenance: d.String()}
	wrong, bare := good, good
	wrong.SHA256, bare.Provenance = artifact.Sum(nil), ""
	for name, c := range map[string]struct {
		file    indexFile
		require []RequireConfig
		code    string
	}{
		"good":            {good, nil, ""},
		"required":        {good, []RequireConfig{{Projects: []string{"*"}}}, ""},
		"none":            {bare, nil, ""},
		"of another file": {wrong, nil, "PYPI-PROVENANCE-SUBJECT"},
		"missing":         {bare, []RequireConfig{{Projects: []string{attestedProject}}}, "PYPI-PROVENANCE-MISSING"},
		"publisher":       {good, []RequireConfig{{Projects: []string{attestedProject}, Publisher: "gitlab.com/a/b"}}, "PYPI-PROVENANCE-PUBLISHER"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := PublishConfig{Attestations: &AttestationsConfig{TrustedRoot: filepath.Join(realDir, "trusted_root.json"), Require: c.require}}
			p, err := NewPublisher(cfg, "pypi/main", st, t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			err = p.attested(&c.file)
			if c.code == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if r, ok := errors.AsType[*artifact.Refusal](err); !ok || r.Code != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
	for name, c := range map[string]*AttestationsConfig{"none": {}, "not there": {TrustedRoot: filepath.Join(t.TempDir(), "x")}, "not one": {TrustedRoot: filepath.Join(realDir, "README.md")}} {
		if _, err := NewPublisher(PublishConfig{Attestations: c}, "pypi/main", st, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "attestations.trusted_root") {
			t.Errorf("trust root %s: %v", name, err)
		}
	}
}
