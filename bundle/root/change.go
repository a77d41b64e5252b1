package root

import (
	"fmt"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// NextVersion is a copy that follows r: version one up, prev set. The caller
// changes it and has it signed by the holders of the root keys of both. A root
// that is not valid gives one that [Sign] refuses.
func (r *Root) NextVersion(issued, expires time.Time) *Root {
	n := r.clone()
	n.Version++
	n.Issued, n.Expires = whole(issued), whole(expires)
	n.Prev, n.digest = "", artifact.Digest{}
	digest := r.digest
	if digest.IsZero() {
		payload, err := r.payload()
		if err != nil {
			return n
		}
		digest = artifact.Sum(payload)
	}
	n.Prev = digest.String()
	return n
}

// Add gives a role one more key. The threshold stays.
func (r *Root) Add(role string, k Key) error {
	to, err := r.Roles.find(role)
	if err != nil {
		return err
	}
	if _, err := k.parse(); err != nil {
		return err
	}
	if r.revocation(k.ID) >= 0 {
		return fmt.Errorf("key %s is revoked: make a new key", k)
	}
	if r.key(k.ID) >= 0 {
		return fmt.Errorf("key %s is there already, in role %s", k, r.roleOf(k.ID))
	}
	if slices.ContainsFunc(r.Keys, func(have Key) bool { return have.Name == k.Name }) {
		return fmt.Errorf("another key is named %s: give the new one another name", k.Name)
	}
	r.Keys = append(r.Keys, k)
	to.Keys = append(to.Keys, k.ID)
	return nil
}

// Rotate puts a new key in the place of one in a role. The old one is unknown
// from then on, whatever it has signed: an exporter's or approver's whose
// bundles are still on their way is better taken out by [Root.Revoke], with
// the last of their numbers, and a new one added by [Root.Add].
func (r *Root) Rotate(role, oldID string, k Key) error {
	in, err := r.Roles.find(role)
	if err != nil {
		return err
	}
	i := slices.Index(in.Keys, oldID)
	if i < 0 {
		return fmt.Errorf("role %s has no key %q", role, clip(oldID))
	}
	// The new key may have the old one's name.
	next := r.clone()
	to, err := next.Roles.find(role)
	if err != nil {
		return err
	}
	to.Keys = slices.Delete(to.Keys, i, i+1)
	next.Keys = slices.DeleteFunc(next.Keys, func(have Key) bool { return have.ID == oldID })
	if k.ID == oldID {
		return fmt.Errorf("key %s cannot take its own place", k)
	}
	if err := next.Add(role, k); err != nil {
		return err
	}
	*r = *next
	return nil
}

// Revoke takes a key out of its role: it is not trusted for bundles with a
// number above afterSeq, and with 0 for none. Revoking it again may lower the
// number. The threshold stays; where too few keys are left for it, add one or
// lower it, or [Sign] refuses.
func (r *Root) Revoke(id string, afterSeq uint64, reason string, date time.Time) error {
	at := r.key(id)
	if at < 0 {
		return fmt.Errorf("key %q is not known", clip(id))
	}
	v := Revocation{Key: id, Role: r.roleOf(id), AfterSeq: afterSeq, Reason: reason, Date: whole(date)}
	if i := r.revocation(id); i >= 0 {
		if afterSeq > r.Revoked[i].AfterSeq {
			return fmt.Errorf("key %s is revoked after bundle %06d, which cannot be raised to %06d", r.Keys[at], r.Revoked[i].AfterSeq, afterSeq)
		}
		r.Revoked[i] = v
		return nil
	}
	role, err := r.Roles.find(v.Role)
	if err != nil {
		return fmt.Errorf("key %s: %w", r.Keys[at], err)
	}
	role.Keys = slices.DeleteFunc(slices.Clone(role.Keys), func(have string) bool { return have == id })
	r.Revoked = append(r.Revoked, v)
	return nil
}

// Threshold sets how many keys of a role must sign.
func (r *Root) Threshold(role string, n int) error {
	to, err := r.Roles.find(role)
	if err != nil {
		return err
	}
	if n < 0 || n > maxRoleKeys {
		return fmt.Errorf("role %s: threshold %d, want 0 to %d", role, n, maxRoleKeys)
	}
	to.Threshold = n
	return nil
}
