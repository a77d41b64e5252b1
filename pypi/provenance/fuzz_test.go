package provenance

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// FuzzObject changes real objects. Whatever is accepted says what the real
// signer said of that file: nobody here has a key of Sigstore's.
func FuzzObject(f *testing.F) {
	root := realRoot(f)
	type key struct {
		file string
		at   int64
	}
	signed := make(map[key]Attestation)
	cases := realCases(f)
	for _, c := range cases {
		as, err := root.Verify(c.object, Subject{Filename: c.file, SHA256: hexDigest(f, c.sha256)})
		if err != nil {
			f.Fatal(err)
		}
		signed[key{c.file, as[0].IntegratedTime.Unix()}] = as[0]
		f.Add(c.object, c.file, c.sha256)
	}
	if len(signed) != len(cases) || len(signed) == 0 {
		f.Fatalf("%d seeds, want %d", len(signed), len(cases))
	}
	f.Fuzz(func(t *testing.T, object []byte, file, sum string) {
		digest, err := artifact.ParseHex(sum)
		if err != nil {
			return
		}
		as, err := root.Verify(object, Subject{Filename: file, SHA256: digest})
		if err != nil {
			no, ok := errors.AsType[*artifact.Refusal](err)
			if as != nil || !ok || no.Code == "" || no.Reason == "" {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		for _, a := range as {
			var want Attestation
			for k, s := range signed {
				if k.at == a.IntegratedTime.Unix() && sameFile(k.file, file) == nil {
					want = s
				}
			}
			// Nobody signs these two: the index says them, or leaves them out.
			a.Publisher.Environment, want.Publisher.Environment = "", ""
			if a.Publisher.Kind == KindCircleCI && a.Publisher.Origin == "" {
				a.Publisher.Origin = want.Publisher.Origin
			}
			if a.Publisher.Kind == KindCircleCI && a.Publisher.OriginRef == "" {
				a.Publisher.OriginRef = want.Publisher.OriginRef
			}
			if diff := cmp.Diff(want, a); diff != "" {
				t.Fatalf("accepted what nobody signed:\n%s", diff)
			}
		}
	})
}

// FuzzEntry gives the libraries below any certificate, entry and checkpoint.
func FuzzEntry(f *testing.F) {
	root := realRoot(f)
	for _, c := range realCases(f) {
		groups, err := parseObject(c.object)
		if err != nil {
			f.Fatal(err)
		}
		a := groups[0].attestations[0]
		f.Add(a.certificate, a.statement, a.signature, a.entries[0].CanonicalizedBody, a.entries[0].InclusionProof.Checkpoint.Envelope)
	}
	groups, err := parseObject(realFile(f, "gcb_attestation_test-0.0.0.tar.gz.provenance"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, certificate, statement, signature, body []byte, checkpoint string) {
		a := groups[0].attestations[0]
		e := a.entries[0]
		e.CanonicalizedBody, e.InclusionProof.Checkpoint.Envelope = body, checkpoint
		a.certificate, a.statement, a.signature, a.entries = certificate, statement, signature, []entry{e}
		if e.check() != nil {
			return
		}
		if _, err := root.attestation(&a, groups[0].publisher, Subject{}); err == nil {
			t.Fatal("accepted for no file")
		}
	})
}

// FuzzStatement: what is read has what the specification demands.
func FuzzStatement(f *testing.F) {
	f.Add([]byte(forgedStatement(PredicatePublish, forgedFile, forgedDigest)))
	for _, c := range realCases(f) {
		groups, err := parseObject(c.object)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(groups[0].attestations[0].statement)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStatement(data)
		if err != nil || s.check(forgedSubject) != nil {
			return
		}
		var again map[string]any
		if err := json.Unmarshal(data, &again); err != nil {
			t.Fatalf("accepted what is not JSON: %v", err)
		}
		if again["_type"] != statementType || again["predicateType"] != s.predicate {
			t.Fatalf("read otherwise than encoding/json: %v", again)
		}
	})
}

// FuzzRoot: a root that is read has an end and a digest, and refuses what
// another root signed.
func FuzzRoot(f *testing.F) {
	forger := newForge(f)
	f.Add(realFile(f, "trusted_root.json"))
	f.Add(marshal(f, forger.root()))
	other := object(f, githubPublisher, newForge(f).sign(github()))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRoot(data)
		if err != nil {
			if _, ok := errors.AsType[*artifact.Refusal](err); !ok || r != nil {
				t.Fatalf("not a refusal: %v", err)
			}
			return
		}
		if r.ValidUntil().IsZero() || r.Digest() != artifact.Sum(data) {
			t.Fatal("a root without end or digest")
		}
		if _, err := r.Verify(other, forgedSubject); err == nil {
			t.Fatal("verified what it did not sign")
		}
	})
}
