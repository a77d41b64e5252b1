package root

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// liar has one key and signs with another.
type liar struct {
	crypto.Signer
	with crypto.Signer
}

func (l liar) Sign(r io.Reader, msg []byte, o crypto.SignerOpts) ([]byte, error) {
	return l.with.Sign(r, msg, o)
}

func TestFirst(t *testing.T) {
	data := mustSign(t, newRoot(), "alice", "carol-p256")
	v, err := First(data, fingerprint(t, data), now)
	if err != nil {
		t.Fatal(err)
	}
	if v.Digest().String() != fingerprint(t, data) || !bytes.Equal(v.Envelope(), data) || v.Root().Version != 1 {
		t.Fatalf("%v %v", v.Digest(), v.Root())
	}
	// What is handed out is a copy.
	v.Root().Roles.Root.Keys[0] = "x"
	v.Root().Keys[0].Name = "x"
	v.Envelope()[0] = 'x'
	if v.Root().Roles.Root.Keys[0] == "x" || v.Root().Keys[0].Name == "x" || v.Envelope()[0] == 'x' {
		t.Fatal("a verified root can be changed")
	}
}

func TestFirstRefuses(t *testing.T) {
	data := mustSign(t, newRoot(), "alice", "bob")
	fp := fingerprint(t, data)
	_, err := First(data, artifact.Sum(nil).String(), now)
	refused(t, err, "not the root file that was compared", fp)
	for _, short := range []string{"", fp[:15], strings.TrimPrefix(fp, "sha256:"), strings.ToUpper(fp)} {
		_, err = First(data, short, now)
		says(t, err, "fingerprint")
	}
	_, err = First(mustSign(t, newRoot(), "alice"), fp, now)
	refused(t, err, "too few signatures of the root keys of version 1", "want 2 of 3, got 1: alice")
	// Signatures of keys outside the role count for nothing.
	_, err = First(mustSign(t, newRoot(), "alice", "mallory", "trudy"), fp, now)
	refused(t, err, "too few signatures", "got 1: alice")
	_, err = First(forgeRoot(t, newRoot(), "alice", "bastion", "dora"), fp, now)
	refused(t, err, "too few signatures", "got 1: alice")
	_, err = First(forgeRoot(t, newRoot(), "mallory"), fp, now)
	refused(t, err, "too few signatures", "want 2 of 3, got 0")
	_, err = First(data, fp, expires)
	refused(t, err, "it has expired: bring in the next version", "want time before 2027-11-22T00:00:00Z, got 2027-11-22T00:00:00Z")
	_, err = First(data, fp, time.Time{})
	says(t, err, "the time is needed")
	bad := newRoot()
	bad.Roles.Root.Threshold = 0
	data = forgeRoot(t, bad, "alice", "bob")
	_, err = First(data, fingerprint(t, data), now)
	refused(t, err, "threshold 0")
}

// A known key's bad signature refuses the file though enough others signed.
func TestBadSignature(t *testing.T) {
	alice, carol := id("alice"), id("carol-p256")
	data := mustSign(t, newRoot(), "alice", "bob", "carol-p256")
	f, err := open(data)
	if err != nil {
		t.Fatal(err)
	}
	sigOf := func(id string) string { return f.env.Signatures[f.signature(id)].Sig }
	asBundle, err := sign(signer("alice"), bundle.PAE(bundle.PayloadType, f.payload))
	if err != nil {
		t.Fatal(err)
	}
	payloadOnly, err := sign(signer("alice"), f.payload)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	for name, c := range map[string]struct{ id, sig, says string }{
		"zeros":                      {alice, b64(make([]byte, 64)), "altered"},
		"empty":                      {alice, "", "altered"},
		"no base64":                  {alice, "%", "base64"},
		"of another key":             {alice, sigOf(id("bob")), "altered"},
		"ecdsa under an ed25519 key": {alice, sigOf(carol), "altered"},
		"ed25519 under an ecdsa key": {carol, sigOf(alice), "altered"},
		"of another payload type":    {alice, b64(asBundle), "altered"},
		"without type":               {alice, b64(payloadOnly), "altered"},
	} {
		t.Run(name, func(t *testing.T) {
			env := f.env
			env.Signatures = slices.Clone(env.Signatures)
			env.Signatures[f.signature(c.id)].Sig = c.sig
			_, err := First(encode(t, env), fingerprint(t, data), now)
			refused(t, err, "the signature of ", "does not fit", c.says)
		})
	}
}

// No byte of a root file may be changed.
func TestFlipEveryByte(t *testing.T) {
	v := v1(t)
	data := mustSign(t, next(v.Root(), nil), "alice", "bob")
	if _, err := v.Next(data, now); err != nil {
		t.Fatal(err)
	}
	for i := range data {
		flipped := slices.Clone(data)
		// Now another letter, now another case.
		flipped[i] ^= []byte{1, 0x20}[i%2]
		_, err := v.Next(flipped, now)
		refused(t, err)
	}
}

// B6: what follows is refused unless it is exactly the next.
func TestNextRefuses(t *testing.T) {
	revoke := func(r *Root, name string, after uint64) {
		if err := r.Revoke(id(name), after, "stolen", now); err != nil {
			t.Fatal(err)
		}
	}
	// Version 2 has an epoch and a revoked exporter.
	one := v1(t)
	r2 := next(one.Root(), func(r *Root) {
		r.Epoch = 5
		revoke(r, "bastion", 41)
		if err := r.Add(RoleExporter, public("bastion-2")); err != nil {
			t.Fatal(err)
		}
	})
	two, err := one.Next(mustSign(t, r2, "alice", "bob"), now)
	if err != nil {
		t.Fatal(err)
	}
	zoe := public("zoe")
	for name, c := range map[string]struct {
		change func(*Root)
		says   []string
	}{
		"stream":   {func(r *Root) { r.Stream = "other" }, []string{"another stream", "want main, got other"}},
		"rollback": {func(r *Root) { *r = *one.Root() }, []string{"rollback", "want version 3, got version 1"}},
		"again":    {func(r *Root) { *r = *two.Root() }, []string{"rollback", "want version 3, got version 2"}},
		"skipped":  {func(r *Root) { *r = *r.NextVersion(r.Issued, r.Expires) }, []string{"skipped version", "want version 3, got version 4"}},
		"prev":     {func(r *Root) { r.Prev = one.Digest().String() }, []string{"follows another root file", two.Digest().String()}},
		"epoch":    {func(r *Root) { r.Epoch = 4 }, []string{"epoch goes down", "want at least 5, got 4"}},
		"unrevoked": {func(r *Root) {
			r.Revoked, r.Roles.Exporter.Keys = []Revocation{}, append(r.Roles.Exporter.Keys, id("bastion"))
		}, []string{"was revoked and is not any more"}},
		"forgotten": {func(r *Root) {
			r.Revoked, r.Keys = []Revocation{}, slices.Delete(r.Keys, r.key(id("bastion")), r.key(id("bastion"))+1)
		}, []string{"was revoked and is not any more"}},
		"loosened":    {func(r *Root) { r.Revoked[0].AfterSeq = 42 }, []string{"loosened", "want after_seq at most 41, got 42"}},
		"moved":       {func(r *Root) { r.Revoked[0].Role = RoleApprover }, []string{"changed its role", "want exporter, got approver"}},
		"other role":  {func(r *Root) { r.Roles.Exporter, r.Roles.Inside = r.Roles.Inside, r.Roles.Exporter }, []string{"changed its role"}},
		"bad payload": {func(r *Root) { r.Keys[0].Name = zoe.Name + "!" }, []string{"not a root file"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := next(two.Root(), nil).normal()
			c.change(r)
			r = sorted(r)
			got, err := two.Next(forgeRoot(t, r, "alice", "bob", "carol-p256"), now)
			refused(t, err, c.says...)
			if got != nil {
				t.Error("a result beside an error")
			}
		})
	}
	_, err = two.Next(mustSign(t, next(two.Root(), nil), "alice", "bob"), expires.AddDate(1, 0, 0))
	refused(t, err, "it has expired")
	_, err = two.Next([]byte("x"), now)
	refused(t, err, "not a root file")
	// What may happen: the same revocation earlier, a higher epoch.
	r := next(two.Root(), func(r *Root) { r.Epoch = 9; revoke(r, "bastion", 40) })
	three, err := two.Next(mustSign(t, r, "alice", "bob"), now)
	if err != nil || three.Root().Revoked[0].AfterSeq != 40 {
		t.Fatal(err)
	}
}

// sorted sorts the lists of a forged root and leaves the rest wrong.
func sorted(r *Root) *Root {
	n := r.normal()
	n.Schema = r.Schema
	return n
}

// Both thresholds are needed.
func TestNextThresholds(t *testing.T) {
	one := v1(t)
	// All root keys change, and three of three must sign.
	r := next(one.Root(), func(r *Root) {
		for old, name := range map[string]string{"alice": "ann", "bob": "ben-p256", "carol-p256": "cleo"} {
			if err := r.Rotate(RoleRoot, id(old), public(name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Threshold(RoleRoot, 3); err != nil {
			t.Fatal(err)
		}
	})
	for _, c := range []struct {
		names string
		says  string // empty: accepted
	}{
		{"alice bob ann ben-p256 cleo", ""},
		{"alice bob carol-p256 ann ben-p256 cleo mallory", ""},
		{"ann ben-p256 cleo", "root keys of version 1: have their holders sign it (want 2 of 3, got 0)"},
		{"alice ann ben-p256 cleo", "root keys of version 1: have their holders sign it (want 2 of 3, got 1: alice"},
		{"alice bob", "root keys of version 2: have their holders sign it (want 3 of 3, got 0)"},
		{"alice bob ann ben-p256", "root keys of version 2: have their holders sign it (want 3 of 3, got 2: "},
		{"mallory trudy", "root keys of version 1"},
	} {
		v, err := one.Next(mustSign(t, r, strings.Fields(c.names)...), now)
		if c.says != "" {
			refused(t, err, "too few signatures", c.says)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", c.names, err)
		}
		// The old keys have nothing to say any more.
		_, err = v.Next(mustSign(t, next(v.Root(), nil), "alice", "bob", "carol-p256"), now)
		refused(t, err, "too few signatures of the root keys of version 2")
	}
	// A bad signature of an old key refuses, though the others are enough.
	data := mustSign(t, r, "alice", "bob", "carol-p256", "ann", "ben-p256", "cleo")
	f, err := open(data)
	if err != nil {
		t.Fatal(err)
	}
	f.env.Signatures[f.signature(id("bob"))].Sig = f.env.Signatures[f.signature(id("alice"))].Sig
	_, err = one.Next(encode(t, f.env), now)
	refused(t, err, "the signature of bob", "does not fit")
}

// A revoked root key signs the file that revokes it, and nothing after.
func TestRevokedRootKey(t *testing.T) {
	one := v1(t)
	r := next(one.Root(), func(r *Root) {
		if err := r.Revoke(id("alice"), 0, "holder left", now); err != nil {
			t.Fatal(err)
		}
	})
	two, err := one.Next(mustSign(t, r, "alice", "bob", "carol-p256"), now)
	if err != nil {
		t.Fatal(err)
	}
	// Without alice, two of version 2 have to sign: she does not count there.
	_, err = one.Next(mustSign(t, r, "alice", "bob"), now)
	refused(t, err, "too few signatures of the root keys of version 2", "got 1: bob")
	_, err = two.Next(mustSign(t, next(two.Root(), nil), "alice", "bob"), now)
	refused(t, err, "too few signatures of the root keys of version 2", "got 1: bob")
	if _, err := two.Next(mustSign(t, next(two.Root(), nil), "bob", "carol-p256"), now); err != nil {
		t.Fatal(err)
	}
}

// An expired version still signs the next one.
func TestExpiredIsFollowed(t *testing.T) {
	one := v1(t)
	late := expires.AddDate(0, 0, 1)
	refused(t, one.CheckExpiry(late), "it has expired")
	if err := one.CheckExpiry(expires.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Next(mustSign(t, next(one.Root(), nil), "alice", "bob"), late); err != nil {
		t.Fatal(err)
	}
}

// A payload that another program wrote, with white space, is followed by its
// own digest and not by that of our encoding.
func TestFollowsForeignBytes(t *testing.T) {
	payload := bytes.ReplaceAll(encode(t, newRoot()), []byte(`,"`), []byte(",\n  \""))
	data := forge(t, payload, "alice", "bob")
	v, err := First(data, fingerprint(t, data), now)
	if err != nil {
		t.Fatal(err)
	}
	r := next(v.Root(), nil)
	if r.Prev != artifact.Sum(payload).String() {
		t.Fatalf("prev %s", r.Prev)
	}
	two, err := v.Next(mustSign(t, r, "alice", "bob"), now)
	if err != nil {
		t.Fatal(err)
	}
	// The same from one that was made here and not read.
	if _, err := two.Next(mustSign(t, next(r, nil), "alice", "bob"), now); err != nil {
		t.Fatal(err)
	}
}

func TestTrust(t *testing.T) {
	one := v1(t)
	r := next(one.Root(), func(r *Root) {
		for name, after := range map[string]uint64{"bastion": 41, "dora": 0, "importer": 50} {
			if err := r.Revoke(id(name), after, "stolen", now); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"bastion-2", "bastion-3-p256"} {
			if err := r.Add(RoleExporter, public(name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Threshold(RoleExporter, 2); err != nil {
			t.Fatal(err)
		}
		if err := r.Threshold(RoleInside, 0); err != nil {
			t.Fatal(err)
		}
	})
	two, err := one.Next(mustSign(t, r, "alice", "bob"), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		v    *Verified
		seq  uint64
		want string
	}{
		{one, 1, "1 exporters, 1 approvals: approver dora, approver emil-p256, exporter bastion"},
		{two, 41, "2 exporters, 1 approvals: approver emil-p256, exporter bastion, exporter bastion-2, exporter bastion-3-p256"},
		{two, 42, "2 exporters, 1 approvals: approver emil-p256, exporter bastion-2, exporter bastion-3-p256"},
		{two, 1, "2 exporters, 1 approvals: approver emil-p256, exporter bastion, exporter bastion-2, exporter bastion-3-p256"},
	} {
		if diff := cmp.Diff(c.want, show(t, c.v.Trust(c.seq))); diff != "" {
			t.Errorf("bundle %d: %s", c.seq, diff)
		}
	}
}

// show writes a trust as one line.
func show(t *testing.T, trust bundle.Trust) string {
	t.Helper()
	var keys []string
	for _, k := range trust.Keys {
		if bundle.KeyID(k.Public) != id(k.Name) {
			t.Errorf("%s has another key", k.Name)
		}
		keys = append(keys, string(k.Role)+" "+k.Name)
	}
	slices.Sort(keys)
	return fmt.Sprintf("%d exporters, %d approvals: %s", trust.Exporters, trust.Approvals, strings.Join(keys, ", "))
}

// TestRoleForLife: a key that was rotated out of its role does not come back in
// another one, however many versions later. In its own it may.
func TestRoleForLife(t *testing.T) {
	one := v1(t)
	add := func(v *Verified, role string, ids ...string) []byte {
		return mustSign(t, next(v.Root(), func(r *Root) {
			for _, name := range ids {
				if err := r.Add(role, public(name)); err != nil {
					t.Fatal(err)
				}
			}
		}), "alice", "bob")
	}
	spare, err := NewKey("spare", testKey("spare").Public())
	if err != nil {
		t.Fatal(err)
	}
	two, err := one.Next(mustSign(t, next(one.Root(), func(r *Root) {
		if err := r.Rotate(RoleExporter, id("bastion"), spare); err != nil {
			t.Fatal(err)
		}
	}), "alice", "bob"), now)
	if err != nil {
		t.Fatal(err)
	}
	three, err := two.Next(mustSign(t, next(two.Root(), nil), "alice", "bob"), now)
	if err != nil {
		t.Fatal(err)
	}
	_, err = three.Next(add(three, RoleApprover, "bastion"), now)
	refused(t, err, "has changed its role", "want exporter, got approver")
	if _, err := three.Next(add(three, RoleExporter, "bastion"), now); err != nil {
		t.Errorf("back in its own role: %v", err)
	}
}
