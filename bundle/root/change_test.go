package root

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestNextVersion(t *testing.T) {
	r := newRoot()
	data := mustSign(t, r, "alice")
	n := r.NextVersion(now, expires)
	want := newRoot()
	want.Version, want.Prev, want.Issued = 2, fingerprint(t, data), now
	if diff := cmp.Diff(want, n, cmpopts.IgnoreUnexported(Root{})); diff != "" {
		t.Fatal(diff)
	}
	// A copy: nothing of r changes with it.
	if err := n.Rotate(RoleRoot, id("alice"), public("ann")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(newRoot(), r, cmpopts.IgnoreUnexported(Root{})); diff != "" {
		t.Fatal(diff)
	}
	// One that is not valid has no digest to follow.
	r.Stream = ""
	_, err := Sign(r.NextVersion(now, expires), signer("alice"))
	says(t, err, "stream")
}

func TestRotate(t *testing.T) {
	r := newRoot()
	// The new key may take the name of the old one.
	k, err := NewKey("bastion", testKey("bastion-2").Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(RoleExporter, id("bastion"), k); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(mustSign(t, r, "alice"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Role{Threshold: 1, Keys: []string{k.ID}}, got.Roles.Exporter); diff != "" || got.key(id("bastion")) >= 0 || len(got.Keys) != 7 {
		t.Fatal(diff, got.Keys)
	}
	if err := r.Revoke(id("dora"), 3, "left", now); err != nil {
		t.Fatal(err)
	}
	want := r.clone()
	bad := public("ann")
	bad.Algorithm = ECDSAP256
	for name, c := range map[string]struct {
		role, old string
		k         Key
		says      string
	}{
		"role":        {"boss", id("alice"), public("ann"), `role "boss"`},
		"old key":     {RoleRoot, id("mallory"), public("ann"), "has no key"},
		"other role":  {RoleExporter, id("alice"), public("ann"), "has no key"},
		"itself":      {RoleRoot, id("alice"), public("alice"), "its own place"},
		"in use":      {RoleRoot, id("alice"), public("bob"), "is there already, in role root"},
		"revoked":     {RoleApprover, id("emil-p256"), public("dora"), "is revoked"},
		"name in use": {RoleRoot, id("alice"), Key{ID: public("ann").ID, Name: "bob", Algorithm: Ed25519, Public: public("ann").Public}, "another key is named bob"},
		"bad key":     {RoleRoot, id("alice"), bad, "algorithm"},
	} {
		says(t, r.Rotate(c.role, c.old, c.k), c.says)
		if diff := cmp.Diff(want, r, cmpopts.IgnoreUnexported(Root{})); diff != "" {
			t.Fatalf("%s: a refused change was made: %s", name, diff)
		}
	}
	says(t, r.Add("boss", public("ann")), `role "boss"`)
	says(t, r.Add(RoleRoot, Key{}), "key name")
}

func TestRevoke(t *testing.T) {
	r := newRoot()
	says(t, r.Revoke(id("mallory"), 0, "x", now), "is not known")
	if err := r.Revoke(id("emil-p256"), 7, "token lost", now); err != nil {
		t.Fatal(err)
	}
	want := Revocation{Key: id("emil-p256"), Role: RoleApprover, AfterSeq: 7, Reason: "token lost", Date: now}
	if diff := cmp.Diff([]Revocation{want}, r.Revoked); diff != "" {
		t.Fatal(diff)
	}
	if _, err := Sign(r, signer("alice")); err != nil {
		t.Fatal(err)
	}
	says(t, r.Revoke(id("emil-p256"), 8, "found again", now), "000007", "cannot be raised")
	if err := r.Revoke(id("emil-p256"), 2, "lost earlier", now); err != nil {
		t.Fatal(err)
	}
	want.AfterSeq, want.Reason = 2, "lost earlier"
	if diff := cmp.Diff([]Revocation{want}, r.Revoked); diff != "" {
		t.Fatal(diff)
	}
	// The last exporter goes: somebody has to add one before it is signed.
	if err := r.Revoke(id("bastion"), 7, "stolen", now); err != nil {
		t.Fatal(err)
	}
	_, err := Sign(r, signer("alice"))
	says(t, err, "role exporter has no key")
	if err := r.Add(RoleExporter, public("bastion-2")); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(r, signer("alice")); err != nil {
		t.Fatal(err)
	}
}

func TestThreshold(t *testing.T) {
	r := newRoot()
	for _, role := range []string{RoleRoot, RoleExporter, RoleApprover, RoleInside} {
		if err := r.Threshold(role, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Threshold(RoleRoot, 3); err != nil {
		t.Fatal(err)
	}
	if got, err := Parse(mustSign(t, r, "alice")); err != nil || got.Roles.Root.Threshold != 3 || got.Roles.Approver.Threshold != 1 {
		t.Fatal(got, err)
	}
	says(t, r.Threshold("boss", 1), `role "boss"`)
	says(t, r.Threshold(RoleRoot, -1), "threshold -1")
	if err := r.Threshold(RoleRoot, 4); err != nil {
		t.Fatal(err)
	}
	_, err := Sign(r, signer("alice"))
	says(t, err, "threshold 4 of 3 keys")
}

func TestKeyString(t *testing.T) {
	k := public("alice")
	if got, want := k.String(), "alice ("+k.ID[:4]+" "+k.ID[4:8]+")"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Key{Name: "alice", ID: artifact.Sum(nil).Hex()[:3]}).String(); got != "alice" {
		t.Errorf("got %q", got)
	}
}
