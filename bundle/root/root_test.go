package root

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestSignAndParse(t *testing.T) {
	r := newRoot()
	data := mustSign(t, r, "alice", "bob")
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got, cmpopts.IgnoreUnexported(Root{})); diff != "" {
		t.Fatal(diff)
	}
}

// The same statement gives the same bytes, whatever the order of its lists
// and whoever signs first.
func TestSameBytes(t *testing.T) {
	want := mustSign(t, newRoot(), "alice", "bob", "carol-p256")
	shuffled := newRoot()
	slices.Reverse(shuffled.Keys)
	slices.Reverse(shuffled.Roles.Root.Keys)
	shuffled.Issued = shuffled.Issued.In(time.FixedZone("", 3600)).Add(5 * time.Millisecond)
	data := mustSign(t, shuffled, "carol-p256")
	for _, name := range []string{"bob", "alice"} {
		var err error
		if data, err = AddSignature(data, signer(name)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(want), string(data)); diff != "" {
		t.Fatal(diff)
	}
}

// Each rule of a single root file has a case: it is not signed, and it is
// refused when somebody signs it all the same.
func TestRulesOfOneFile(t *testing.T) {
	revoked := func(id string) Revocation {
		return Revocation{Key: id, Role: RoleExporter, AfterSeq: 3, Reason: "lost", Date: issued}
	}
	other := public("zoe")
	for name, c := range map[string]struct {
		change func(*Root)
		says   string
	}{
		"stream":                   {func(r *Root) { r.Stream = "Main" }, "stream"},
		"version 0":                {func(r *Root) { r.Version = 0 }, "version 0"},
		"version over":             {func(r *Root) { r.Version = maxVersion + 1 }, "version 1000000000"},
		"prev of version 1":        {func(r *Root) { r.Prev = artifact.Sum(nil).String() }, "with version 1"},
		"no prev of version 2":     {func(r *Root) { r.Version = 2 }, "with version 2"},
		"prev no digest":           {func(r *Root) { r.Version, r.Prev = 2, "x" }, "prev"},
		"issued in 1999":           {func(r *Root) { r.Issued = at("1999-12-31T23:59:59Z") }, "issued"},
		"expires at issued":        {func(r *Root) { r.Expires = r.Issued }, "expires is not after"},
		"epoch over":               {func(r *Root) { r.Epoch = maxInt + 1 }, ""},
		"no keys":                  {func(r *Root) { r.Keys = []Key{} }, "0 keys"},
		"key twice":                {func(r *Root) { r.Keys = slices.Insert(r.Keys, 1, r.Keys[0]) }, "twice"},
		"two of one name":          {func(r *Root) { r.Keys[1].Name = r.Keys[0].Name }, "are named"},
		"name":                     {func(r *Root) { r.Keys[0].Name = "Alice A." }, "key name"},
		"no name":                  {func(r *Root) { r.Keys[0].Name = "" }, "key name"},
		"id of another key":        {func(r *Root) { r.Keys[0].Public = other.Public }, "not that of the key"},
		"algorithm of another key": {func(r *Root) { r.Keys[r.key(id("alice"))].Algorithm = ECDSAP256 }, "but the key is of ed25519"},
		"algorithm mismatch p256":  {func(r *Root) { r.Keys[r.key(id("carol-p256"))].Algorithm = Ed25519 }, "but the key is of ecdsa-p256"},
		"unknown algorithm":        {func(r *Root) { r.Keys[0].Algorithm = "rsa" }, `algorithm "rsa"`},
		"public with line break":   {func(r *Root) { r.Keys[0].Public = "\n" + r.Keys[0].Public }, "line break"},
		"public no base64":         {func(r *Root) { r.Keys[0].Public = "%" }, "base64"},
		"public too long":          {func(r *Root) { r.Keys[0].Public = strings.Repeat("A", 400) }, "over 256 bytes"},
		"public no SPKI":           {func(r *Root) { r.Keys[0].Public = "AAAA" }, r0name()},
		"key without a role":       {func(r *Root) { r.Roles.Inside = Role{Keys: []string{}} }, "has no role"},
		"key in two roles":         {func(r *Root) { r.Roles.Inside.Keys = []string{id("bastion")} }, "a key has one role"},
		"key in a role twice":      {func(r *Root) { r.Roles.Exporter.Keys = []string{id("bastion"), id("bastion")} }, "twice"},
		"role of a strange key":    {func(r *Root) { r.Roles.Exporter.Keys = append(r.Roles.Exporter.Keys, strings.Repeat("f", 64)) }, "not among the keys"},
		"threshold 0 of root":      {func(r *Root) { r.Roles.Root.Threshold = 0 }, "threshold 0 of 3 keys, want 1 to 3"},
		"threshold 4 of 3":         {func(r *Root) { r.Roles.Root.Threshold = 4 }, "threshold 4 of 3"},
		"threshold 0 of exporter":  {func(r *Root) { r.Roles.Exporter.Threshold = 0 }, "threshold 0 of 1"},
		"threshold -1 of approver": {func(r *Root) { r.Roles.Approver.Threshold = -1 }, "threshold -1 of 2"},
		"threshold 3 of approver":  {func(r *Root) { r.Roles.Approver.Threshold = 3 }, "threshold 3 of 2"},
		"threshold 0 of inside":    {func(r *Root) { r.Roles.Inside.Threshold = 0 }, "threshold 0 of 1"},
		"no exporter":              {func(r *Root) { r.Roles.Exporter = Role{Keys: []string{}} }, "exporter has no key"},
		"revoked and in a role":    {func(r *Root) { r.Revoked = []Revocation{revoked(id("bastion"))} }, "none once it is revoked"},
		"revoked strange key":      {func(r *Root) { r.Revoked = []Revocation{revoked(strings.Repeat("f", 64))} }, "not among the keys"},
		"revoked of no role":       {func(r *Root) { r.Revoked = []Revocation{{Key: id("bastion"), Reason: "x", Date: issued}} }, `role ""`},
		"revoked without reason": {func(r *Root) {
			r.Revoked = []Revocation{revoked(id("bastion"))}
			r.Revoked[0].Reason = ""
		}, "reason"},
		"revoked with long reason": {func(r *Root) {
			r.Revoked = []Revocation{revoked(id("bastion"))}
			r.Revoked[0].Reason = strings.Repeat("x", maxReason+1)
		}, "reason"},
		"revoked with control character": {func(r *Root) {
			r.Revoked = []Revocation{revoked(id("bastion"))}
			r.Revoked[0].Reason = "\x1b[2J"
		}, "reason"},
		"revoked with right-to-left override": {func(r *Root) {
			r.Revoked = []Revocation{revoked(id("bastion"))}
			r.Revoked[0].Reason = "a\u202eb"
		}, "reason"},
		"revoked without date": {func(r *Root) {
			r.Revoked = []Revocation{revoked(id("bastion"))}
			r.Revoked[0].Date = time.Time{}
		}, "date"},
		"revoked after too much": {func(r *Root) {
			r.Revoked = []Revocation{revoked(id("bastion"))}
			r.Revoked[0].AfterSeq = maxInt + 1
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoot()
			c.change(r)
			if data, err := Sign(r, signer("alice")); err == nil {
				t.Errorf("signed: %s", data)
			}
			_, err := Parse(forgeRoot(t, r, "alice", "bob"))
			refused(t, err, "not a root file", c.says)
		})
	}
}

// r0name is the name of the key that sorts first.
func r0name() string { return newRoot().Keys[0].Name }

// Lists that a writer sorts are refused where they are not.
func TestUnsortedRefused(t *testing.T) {
	for name, c := range map[string]func(*Root){
		"keys":      func(r *Root) { slices.Reverse(r.Keys) },
		"root keys": func(r *Root) { slices.Reverse(r.Roles.Root.Keys) },
		"revoked": func(r *Root) {
			for _, name := range []string{"dora", "emil-p256"} {
				if err := r.Revoke(id(name), 1, "lost", issued); err != nil {
					t.Fatal(err)
				}
			}
			r.Roles.Approver.Threshold = 0
			slices.SortFunc(r.Revoked, func(a, b Revocation) int { return strings.Compare(b.Key, a.Key) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoot()
			c(r)
			_, err := Parse(forgeRoot(t, r, "alice"))
			refused(t, err, "not sorted")
			if _, err := Parse(mustSign(t, r, "alice")); err != nil {
				t.Fatalf("the writer does not sort: %v", err)
			}
		})
	}
}

func TestTooMany(t *testing.T) {
	r := newRoot()
	r.Roles.Inside = Role{Threshold: 1, Keys: []string{}}
	r.Keys = slices.DeleteFunc(r.Keys, func(k Key) bool { return k.Name == "importer" })
	for n := range maxRoleKeys + 1 {
		if err := r.Add(RoleInside, public("inside-"+strings.Repeat("x", n))); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Sign(r, signer("alice"))
	says(t, err, "role inside: 33 keys")
	r.Keys = make([]Key, maxKeys+1)
	_, err = Parse(forgeRoot(t, r, "alice"))
	refused(t, err, "513 keys")
}

func TestStrictPayload(t *testing.T) {
	good := encode(t, newRoot())
	if _, err := Parse(forge(t, good, "alice")); err != nil {
		t.Fatal(err)
	}
	for name, payload := range map[string][]byte{
		"empty":           {},
		"no JSON":         []byte("root"),
		"trailing":        append(slices.Clone(good), '{', '}'),
		"duplicate key":   replaceOnce(t, good, `"version":1`, `"version":1,"version":1`),
		"unknown key":     replaceOnce(t, good, `"version":1`, `"version":1,"more":1`),
		"letter case":     replaceOnce(t, good, `"version"`, `"Version"`),
		"float":           replaceOnce(t, good, `"version":1`, `"version":1.0`),
		"null":            replaceOnce(t, good, `"revoked":[]`, `"revoked":null`),
		"no revoked":      replaceOnce(t, good, `,"revoked":[]`, ``),
		"no inside":       replaceOnce(t, good, `,"inside":{"threshold":1,"keys":["`+id("importer")+`"]}`, ``),
		"time with zone":  replaceOnce(t, good, `"2026-11-22T20:15:00Z"`, `"2026-11-22T21:15:00+01:00"`),
		"time with +00":   replaceOnce(t, good, `"2026-11-22T20:15:00Z"`, `"2026-11-22T20:15:00+00:00"`),
		"half seconds":    replaceOnce(t, good, `"2026-11-22T20:15:00Z"`, `"2026-11-22T20:15:00.5Z"`),
		"schema":          replaceOnce(t, good, Schema, "darkmirror.root/v2"),
		"negative epoch":  replaceOnce(t, good, `"epoch":0`, `"epoch":-1`),
		"a bundle's":      []byte(`{"schema":"darkmirror.bundle/v1","stream":"main","seq":1}`),
		"text for number": replaceOnce(t, good, `"epoch":0`, `"epoch":"0"`),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(forge(t, payload, "alice"))
			refused(t, err, "not a root file")
		})
	}
}

func TestStrictEnvelope(t *testing.T) {
	good := mustSign(t, newRoot(), "alice")
	alice := id("alice")
	f, err := open(good)
	if err != nil {
		t.Fatal(err)
	}
	sig := `{"keyid":"` + alice + `","sig":"` + f.env.Signatures[0].Sig + `"}`
	many := make([]string, maxSignatures+1)
	for i := range many {
		many[i] = strings.Replace(sig, alice, artifact.Sum([]byte{byte(i)}).Hex(), 1)
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty":           {nil, ""},
		"too large":       {append(slices.Clone(good), bytes.Repeat([]byte(" "), maxFile)...), "at most 1048576"},
		"payload type":    {replaceOnce(t, good, PayloadType, bundle.PayloadType), "payloadType"},
		"no signature":    {replaceOnce(t, good, sig, ""), "0 signatures"},
		"65 signatures":   {replaceOnce(t, good, sig, strings.Join(many, ",")), "65 signatures"},
		"key signs twice": {replaceOnce(t, good, sig, sig+","+sig), "signed twice"},
		"short key id":    {replaceOnce(t, good, alice, alice[:8]), "keyid"},
		"upper key id":    {replaceOnce(t, good, alice, strings.ToUpper(alice)), "keyid"},
		"line break":      {replaceOnce(t, good, f.env.Payload[:8], f.env.Payload[:8]+`\n`), "line break"},
		"padded twice":    {replaceOnce(t, good, f.env.Payload, f.env.Payload+"="), "base64"},
		"unknown key":     {replaceOnce(t, good, `"payload":`, `"more":1,"payload":`), "more"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.data)
			refused(t, err, "not a root file", c.says)
		})
	}
}

func TestNewKeyRefuses(t *testing.T) {
	p384, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), append(make([]byte, 47), 1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewKey("x", p384.Public())
	says(t, err, "not supported")
	_, err = NewKey("x", &rsa.PublicKey{N: big.NewInt(3), E: 3})
	says(t, err, "not supported")
	_, err = NewKey("Not A Name", testKey("alice").Public())
	says(t, err, "key name")
}

// A P-256 key in compressed form is another encoding of the same key, and
// would have another id.
func TestKeyNotInTheOneForm(t *testing.T) {
	r := newRoot()
	i := r.key(id("carol-p256"))
	der, err := base64.StdEncoding.DecodeString(r.Keys[i].Public)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"trailing byte": append(slices.Clone(der), 0),
		"long length":   append([]byte{0x30, 0x81}, der[1:]...),
	} {
		r.Keys[i].Public = base64.StdEncoding.EncodeToString(der)
		if _, err := Parse(forgeRoot(t, r, "alice")); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	r := newRoot()
	_, err := Sign(r)
	says(t, err, "no signing key")
	_, err = Sign(r, bundle.Signer{Name: "none"})
	says(t, err, "no signing key")
	_, err = Sign(r, signers("alice", "alice")...)
	says(t, err, "twice")
	_, err = Sign(r, signers("alice", "bastion")...)
	says(t, err, "bastion has the role exporter")
	p384, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), append(make([]byte, 47), 1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Sign(r, bundle.Signer{Name: "big", Signer: p384})
	says(t, err, "not supported")
	_, err = Sign(r, bundle.Signer{Name: "liar", Signer: liar{testKey("alice"), testKey("bob")}})
	says(t, err, "does not verify")
}

func TestAddSignature(t *testing.T) {
	data := mustSign(t, newRoot(), "alice")
	again, err := AddSignature(data, signer("alice"))
	if err != nil || !bytes.Equal(data, again) {
		t.Fatalf("signing again: %s, %v", again, err)
	}
	_, err = AddSignature(data, signer("dora"))
	says(t, err, "dora has the role approver")
	_, err = AddSignature(data, bundle.Signer{})
	says(t, err, "no signing key")
	_, err = AddSignature([]byte("{}"), signer("bob"))
	refused(t, err, "not a root file")

	// A key of the version before may sign though this one does not list it.
	if _, err := AddSignature(data, signer("old-holder")); err != nil {
		t.Fatal(err)
	}
	// Somebody has put a signature under bob's id.
	forged := replaceOnce(t, data, id("alice"), id("bob"))
	_, err = AddSignature(forged, signer("bob"))
	refused(t, err, "the signature of bob", "does not fit")

	full := data
	for n := range maxSignatures - 1 {
		if full, err = AddSignature(full, signer("holder-"+strings.Repeat("x", n))); err != nil {
			t.Fatal(err)
		}
	}
	_, err = AddSignature(full, signer("one-more"))
	says(t, err, "64 signatures already")
}
