package provenance

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// wantRefusal checks class, code and what the text must say.
func wantRefusal(t *testing.T, err error, code, text string) {
	t.Helper()
	no, ok := errors.AsType[*artifact.Refusal](err)
	if !ok {
		t.Fatalf("got %v, want a refusal with %s", err, code)
	}
	if no.Code != code || !errors.Is(err, artifact.ErrIntegrity) || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v\nwant %s and %q in it", err, code, text)
	}
}

func TestVerify(t *testing.T) {
	f := newForge(t)
	o := github()
	slsa := o
	slsa.statement = forgedStatement(PredicateSLSA, forgedFile, forgedDigest)
	got, err := f.pinned().Verify(object(t, githubPublisher, f.sign(o), f.sign(slsa)), forgedSubject)
	if err != nil {
		t.Fatal(err)
	}
	one := Attestation{
		Predicate:      PredicatePublish,
		Publisher:      Publisher{Kind: KindGitHub, Repository: "demo/pkg", Workflow: "release.yml", Environment: "pypi"},
		Issuer:         issuerGitHub,
		Identity:       o.san,
		IntegratedTime: signedAt,
		Repository:     "https://github.com/demo/pkg",
		Workflow:       o.san,
		Ref:            "refs/tags/v1",
		Commit:         forgedCommit,
	}
	two := one
	two.Predicate = PredicateSLSA
	if diff := cmp.Diff([]Attestation{one, two}, got); diff != "" {
		t.Error(diff)
	}
}

// One root serves every worker.
func TestVerifyConcurrently(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	o := object(t, githubPublisher, f.sign(github()))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if as, err := root.Verify(o, forgedSubject); err != nil || len(as) != 1 {
				t.Errorf("%d attestations, %v", len(as), err)
			}
		})
	}
	wg.Wait()
}

// Another program may write the same object otherwise.
func TestVerifyTakesOtherSpellings(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	for name, change := range map[string]func(a map[string]any){
		"numbers bare": func(a map[string]any) {
			m, k := at(t, a, "verification_material.transparency_entries.0.logIndex")
			m[k] = 12345
		},
		"unknown keys": func(a map[string]any) {
			for _, path := range []string{"version", "envelope.statement", "verification_material.certificate", "verification_material.transparency_entries.0.logId.keyId"} {
				m, _ := at(t, a, path)
				m["of a later version"] = map[string]any{"x": []any{1, "y", nil, true}}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := f.sign(github())
			change(a)
			if _, err := root.Verify(object(t, githubPublisher, a), forgedSubject); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	for _, c := range refusals(t, f) {
		t.Run(c.name, func(t *testing.T) {
			as, err := root.Verify(c.object, forgedSubject)
			if as != nil {
				t.Error("attestations beside the error")
			}
			wantRefusal(t, err, c.code, c.text)
		})
	}
}

// All of an object must hold, and the refusal names which part does not.
func TestVerifyRefusesAllForOne(t *testing.T) {
	f := newForge(t)
	bad := github()
	bad.statement = forgedStatement(PredicateSLSA, forgedFile, artifact.Sum([]byte("other")))
	_, err := f.pinned().Verify(object(t, githubPublisher, f.sign(github()), f.sign(bad)), forgedSubject)
	wantRefusal(t, err, CodeSubject, forgedFile+": attestation 2 of bundle 1: ")
}

func TestVerifyRefusesFormat(t *testing.T) {
	f := newForge(t)
	root := f.pinned()
	good := string(object(t, githubPublisher, f.sign(github())))
	signature := func(s string) string {
		return `{"version":1,"attestation_bundles":[{"attestations":[{"envelope":{"signature":"` + s + `"}}]}]}`
	}
	for _, c := range []struct{ name, object, text string }{
		{"empty", "", "unexpected EOF"},
		{"not JSON", "<html>", "invalid character"},
		{"cut short", good[:len(good)-1], "unexpected EOF"},
		{"an array", "[]", "want an object"},
		{"more behind it", good + "{}", "data after the object"},
		{"not UTF-8", strings.Replace(good, "demo/pkg", "demo/\xff", 1), "not UTF-8"},
		{"lone surrogate", strings.Replace(good, "demo/pkg", `demo/\ud800`, 1), "surrogate"},
		{"version 2", strings.Replace(good, `"version":1}`, `"version":2}`, 1), "version"},
		{"version in quotes", strings.Replace(good, `"version":1}`, `"version":"01"}`, 1), "version"},
		{"no version", strings.Replace(good, `"version":1}`, `"x":1}`, 1), `"version" is missing`},
		{"key of another case", strings.Replace(good, `"envelope":{"sig`, `"Envelope":{"sig`, 1), `"envelope" is missing`},
		{"no bundle", `{"version":1,"attestation_bundles":[]}`, "no attestation bundle"},
		{"null bundles", `{"version":1,"attestation_bundles":null}`, "null, want an array"},
		{"no attestation", `{"version":1,"attestation_bundles":[{"publisher":{"kind":"GitHub"},"attestations":[]}]}`, "no attestation in it"},
		{"no publisher", strings.Replace(good, `"publisher"`, `"x"`, 1), `"publisher" is missing`},
		{"key twice", strings.Replace(good, `{"attestation_bundles"`, `{"version":1,"attestation_bundles"`, 1), `"version" is there twice`},
		{"key twice inside", strings.Replace(good, `"kind":"GitHub"`, `"kind":"GitHub","kind":"GitHub"`, 1), `"kind" is there twice`},
		{"unknown key twice inside", strings.Replace(good, `"claims":null`, `"claims":{"a":1,"a":1}`, 1), `"a" is there twice`},
		{"base64 with a line break", strings.Replace(good, `"certificate":"MII`, `"certificate":"MII\n`, 1), "line breaks"},
		{"base64 of URLs", strings.Replace(good, `"certificate":"MII`, `"certificate":"MI_`, 1), "not canonical base64"},
		{"base64 without padding", signature("AA"), "not canonical base64"},
		{"base64 with stray bits", signature("AB=="), "not canonical base64"},
		{"base64 of nothing", signature(""), "0 bytes"},
		{"base64 of too much", signature(strings.Repeat("AAAA", maxSignature)), "over 2048 bytes"},
		{"negative index", strings.Replace(good, `"logIndex":"12345"`, `"logIndex":"-1"`, 1), "not an integer from 0"},
		{"fraction", strings.Replace(good, `"logIndex":"12345"`, `"logIndex":1.5`, 1), "not an integer from 0"},
		{"index with a zero before it", strings.Replace(good, `"logIndex":"12345"`, `"logIndex":"012345"`, 1), "not an integer from 0"},
		{"too deep", strings.Replace(good, `"claims":null`, `"claims":`+strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth), 1), "nested deeper"},
		{"too large", good + strings.Repeat(" ", maxObject), "at most"},
		{"too many bundles", `{"version":1,"attestation_bundles":[` + strings.Repeat(good[len(`{"attestation_bundles":[`):len(good)-len(`],"version":1}`)]+",", maxBundles) + `{}]}`, "more than 8 values"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.object == good {
				t.Fatal("the case changes nothing")
			}
			_, err := root.Verify([]byte(c.object), forgedSubject)
			wantRefusal(t, err, CodeFormat, c.text)
		})
	}
}
