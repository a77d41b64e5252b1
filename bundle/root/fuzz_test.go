package root

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzParse: never panics; what is accepted keeps every rule, can be signed
// again with the same meaning, and is no other version 1 or 2 than those that
// the keys have signed.
func FuzzParse(f *testing.F) {
	one := v1(f)
	files := chain(f, 3)
	second := mustSign(f, next(one.Root(), nil), "alice", "bob")
	seeds := [][]byte{one.Envelope(), second, files[2], files[3], forge(f, []byte(`{"schema":"darkmirror.root/v1"}`), "alice"), []byte(`{"payloadType":"` + PayloadType + `"}`)}
	accepted := 0
	for _, s := range seeds {
		if _, err := Parse(s); err == nil {
			accepted++
		}
		f.Add(s)
	}
	if accepted < 4 {
		f.Fatalf("%d good seeds", accepted)
	}
	known := map[string]bool{one.Digest().String(): true}
	for _, data := range append(seeds[1:4:4], files[1]) {
		known[fingerprint(f, data)] = true
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			if r != nil {
				t.Fatal("a result beside an error")
			}
			refused(t, err)
			return
		}
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
		again, err := Sign(r, signer("holder"))
		if err != nil {
			// The holder's key cannot be in the seeds.
			t.Fatal(err)
		}
		got, err := Parse(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got, cmpopts.IgnoreUnexported(Root{})); diff != "" {
			t.Fatal(diff)
		}
		if v, err := one.Next(data, now); err == nil && !known[v.Digest().String()] {
			t.Fatalf("forged: %s", data)
		}
	})
}

// FuzzPayload gets past the envelope, which hides the payload in base64.
func FuzzPayload(f *testing.F) {
	for _, r := range []*Root{newRoot(), next(newRoot(), nil)} {
		f.Add(encode(f, r))
		f.Add(bytes.ReplaceAll(encode(f, r), []byte(","), []byte(",\n ")))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		v := &file{payload: payload}
		if err := v.parse(); err != nil {
			refused(t, err)
			return
		}
		out, err := v.root.payload()
		if err != nil {
			t.Fatal(err)
		}
		again := &file{payload: out}
		if err := again.parse(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v.root, again.root, cmpopts.IgnoreUnexported(Root{})); diff != "" {
			t.Fatal(diff)
		}
	})
}
