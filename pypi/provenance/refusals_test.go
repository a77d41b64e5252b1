package provenance

import (
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A refusal is an object with one thing wrong, and what is said of it.
type refusal struct {
	name   string
	object []byte
	code   string
	text   string
}

func refusals(t *testing.T, f *forge) []refusal {
	t.Helper()
	return append(append(badSignatures(t, f), badEntries(t, f)...), badStatements(t, f)...)
}

// edited is a good object with one key changed; nil takes it away.
func edited(t *testing.T, f *forge, path string, v any) []byte {
	t.Helper()
	a := f.sign(github())
	m, k := at(t, a, path)
	if m[k] = v; v == nil {
		delete(m, k)
	}
	return object(t, githubPublisher, a)
}

func changed(t *testing.T, f *forge, change func(o *order)) []byte {
	t.Helper()
	o := github()
	change(&o)
	return object(t, githubPublisher, f.sign(o))
}

func badSignatures(t *testing.T, f *forge) []refusal {
	t.Helper()
	other := newForge(t)
	mixed := func(mix func(m *forge)) []byte {
		m := *f
		mix(&m)
		return object(t, githubPublisher, m.sign(github()))
	}
	const notLogged = "not enough verified log entries"
	return []refusal{
		{"other root", object(t, githubPublisher, other.sign(github())), CodeSignature, notLogged},
		{"other authority", mixed(func(m *forge) {
			m.ca, m.inter, m.caCert, m.interCert = other.ca, other.inter, other.caCert, other.interCert
		}), CodeSignature, "leaf certificate verification failed"},
		{"other certificate log", mixed(func(m *forge) { m.ctLog = other.ctLog }), CodeSignature, "signed certificate timestamp"},
		{"other transparency log", mixed(func(m *forge) { m.rekor = other.rekor }), CodeSignature, notLogged},
		{"certificate expired when logged", changed(t, f, func(o *order) { o.at = signedAt.Add(6 * time.Minute) }), CodeSignature, "outside certificate validity"},
		{"logged before the certificate", changed(t, f, func(o *order) { o.at = signedAt.Add(-6 * time.Minute) }), CodeSignature, "outside certificate validity"},
		{"no certificate timestamp", changed(t, f, func(o *order) { o.noSCT = true }), CodeSignature, "signed certificate timestamp"},
		{"signed by another key", changed(t, f, func(o *order) { o.signer = newKey(t) }), CodeSignature, "verify envelope"},
	}
}

func badEntries(t *testing.T, f *forge) []refusal {
	t.Helper()
	const entries, log = "verification_material.transparency_entries", "verification_material.transparency_entries.0."
	// with is a good object with other entries.
	with := func(es ...map[string]any) []byte { return edited(t, f, entries, es) }
	entryOf := func(f *forge) map[string]any {
		m, k := at(t, f.sign(github()), entries)
		return m[k].([]any)[0].(map[string]any)
	}
	two := f.sign(github())
	m, k := at(t, two, entries)
	m[k] = append(m[k].([]any), entryOf(newForge(t)))
	set := func(path string, v any) []byte { return edited(t, f, log+path, v) }
	const notLogged = "not enough verified log entries"
	return []refusal{
		{"no log entry", with(), CodeFormat, "want an array"},
		{"no log entry in the array", edited(t, f, entries, []any{}), CodeFormat, "no entry of a transparency log"},
		{"no log entries at all", edited(t, f, entries, nil), CodeFormat, `"transparency_entries" is missing`},
		{"entry of another attestation", with(entryOf(f)), CodeSignature, "transparency log signature does not match"},
		{"a good entry and one of another log", object(t, githubPublisher, two), CodeSignature, notLogged},
		{"no promise", set("inclusionPromise", nil), CodeFormat, `"inclusionPromise" is missing`},
		{"no proof", set("inclusionProof", nil), CodeFormat, `"inclusionProof" is missing`},
		{"no time", set("integratedTime", "0"), CodeFormat, "names no time"},
		{"another time", set("integratedTime", "1748779201"), CodeSignature, notLogged},
		{"another index", set("logIndex", "12346"), CodeSignature, notLogged},
		{"another kind", set("kindVersion", map[string]any{"kind": "intoto", "version": "0.0.1"}), CodeFormat, "kindVersion says"},
		{"another version of the kind", set("kindVersion", map[string]any{"kind": "dsse", "version": "0.0.2"}), CodeFormat, "kindVersion says"},
		{"proof for another leaf", set("inclusionProof.logIndex", "0"), CodeSignature, "failed to verify log inclusion"},
		{"proof for another tree", set("inclusionProof.treeSize", "4"), CodeFormat, "the proof is for a tree of 4"},
		{"proof without its hashes", set("inclusionProof.hashes", []any{}), CodeSignature, "failed to verify log inclusion"},
		{"proof with more hashes than a tree has", set("inclusionProof.hashes", make([][1]byte, maxHashes+1)), CodeFormat, "hashes"},
		{"body of another kind", with(f.logged([]byte(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{}}`), signedAt)), CodeFormat, "log entry of kind"},
		{"body without what is signed", with(f.logged([]byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{}}`), signedAt)), CodeSignature, "entry body"},
		{"more entries than are read", with(entryOf(f), entryOf(f), entryOf(f), entryOf(f), entryOf(f)), CodeFormat, "more than 4 values"},
	}
}

func badStatements(t *testing.T, f *forge) []refusal {
	t.Helper()
	good := forgedStatement(PredicatePublish, forgedFile, forgedDigest)
	statement := func(s string) []byte { return changed(t, f, func(o *order) { o.statement = s }) }
	subject := func(name string, d artifact.Digest) []byte {
		return statement(forgedStatement(PredicatePublish, name, d))
	}
	edit := func(old, now string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s in the statement", old)
		}
		return statement(strings.Replace(good, old, now, 1))
	}
	one := `{"name":"` + forgedFile + `","digest":{"sha256":"` + forgedDigest.Hex() + `"}}`
	return []refusal{
		{"other digest", subject(forgedFile, artifact.Sum([]byte("other"))), CodeSubject, "about other bytes"},
		{"other name", subject("demo_pkg-1.1-py3-none-any.whl", forgedDigest), CodeSubject, "another name"},
		{"name that does not parse", subject("demo.whl", forgedDigest), CodeSubject, "another name"},
		{"unknown predicate", statement(forgedStatement("https://predicate.example/v1", forgedFile, forgedDigest)), CodeFormat, "https://predicate.example/v1"},
		{"older statement type", edit(statementType, "https://in-toto.io/Statement/v0.1"), CodeFormat, "another type"},
		{"other statement type", edit(statementType, "https://statement.example/v1"), CodeFormat, "another type"},
		{"two subjects", edit(one, one+","+one), CodeSubject, "one subject (want 1, got 2)"},
		{"no subject", edit(one, ""), CodeSubject, "one subject (want 1, got 0)"},
		{"no sha256", edit("sha256", "sha512"), CodeFormat, `"sha256" is missing`},
		{"digest in capitals", edit(forgedDigest.Hex(), strings.ToUpper(forgedDigest.Hex())), CodeFormat, "malformed"},
		{"key twice in the statement", edit(`"predicate":null`, `"predicate":null,"subject":[`+one+`]`), CodeFormat, "is there twice"},
		{"key twice in the predicate", edit("null", `{"a":1,"a":2}`), CodeFormat, "is there twice"},
		{"not a statement", statement("[]"), CodeSignature, "statement"},
	}
}
