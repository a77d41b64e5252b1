package root

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Verified is a root file that is trusted: see [First] and [Verified.Next].
// It does not change and may be used concurrently.
type Verified struct {
	file *file
	// roles are those of every key that the chain has had up to here, also of
	// keys that are gone from it.
	roles map[string]string
}

func newVerified(f *file, before map[string]string) *Verified {
	v := &Verified{f, maps.Clone(before)}
	if v.roles == nil {
		v.roles = make(map[string]string)
	}
	for _, k := range f.root.Keys {
		v.roles[k.ID] = f.root.roleOf(k.ID)
	}
	return v
}

// First trusts a root file by its fingerprint, the digest of its payload in
// full, which a person has compared. It must have the signatures of its own
// threshold, and not have expired.
func First(data []byte, fingerprint string, now time.Time) (*Verified, error) {
	v, err := first(data, fingerprint)
	if err != nil {
		return nil, err
	}
	if err := v.CheckExpiry(now); err != nil {
		return nil, err
	}
	return v, nil
}

func first(data []byte, fingerprint string) (*Verified, error) {
	want, err := artifact.ParseDigest(fingerprint)
	if err != nil {
		return nil, fmt.Errorf("fingerprint of the root file: %w", err)
	}
	f, err := openEnvelope(data)
	if err != nil {
		return nil, err
	}
	if got := artifact.Sum(f.payload); got != want {
		no := refusal(anyRoot, "not the root file that was compared: it was exchanged, or the fingerprint was read wrongly", nil)
		no.Want, no.Got = want.String(), got.String()
		return nil, no
	}
	if err := f.parse(); err != nil {
		return nil, err
	}
	if err := f.checkThreshold(f.root); err != nil {
		return nil, err
	}
	return newVerified(f, nil), nil
}

// Next trusts the root file that follows v: signed by the thresholds of v and
// of its own, and not expired. v itself may have expired.
func (v *Verified) Next(data []byte, now time.Time) (*Verified, error) {
	n, err := v.next(data)
	if err != nil {
		return nil, err
	}
	if err := n.CheckExpiry(now); err != nil {
		return nil, err
	}
	return n, nil
}

// next holds the rules of docs/root-format.md, "Verification", all but expiry.
func (v *Verified) next(data []byte) (*Verified, error) {
	f, err := open(data)
	if err != nil {
		return nil, err
	}
	if err := v.checkFollows(f.root); err != nil {
		return nil, err
	}
	if err := f.checkThreshold(v.file.root); err != nil {
		return nil, err
	}
	if err := f.checkThreshold(f.root); err != nil {
		return nil, err
	}
	return newVerified(f, v.roles), nil
}

// checkFollows says whether r is what comes after v.
func (v *Verified) checkFollows(r *Root) error {
	cur := v.file.root
	refuse := func(reason, want, got string) error {
		no := refusal(r.String(), reason, nil)
		no.Want, no.Got = want, got
		return no
	}
	want := cur.Version + 1
	switch {
	case r.Stream != cur.Stream:
		return refuse("it belongs to another stream", cur.Stream, r.Stream)
	case r.Version < want:
		return refuse(fmt.Sprintf("rollback: version %d is trusted already", cur.Version), fmt.Sprintf("version %d", want), fmt.Sprintf("version %d", r.Version))
	case r.Version > want:
		return refuse("skipped version: bring in the whole chain of root files", fmt.Sprintf("version %d", want), fmt.Sprintf("version %d", r.Version))
	case r.Prev != v.Digest().String():
		return refuse(fmt.Sprintf("it follows another root file than the version %d that is trusted: root keys may be in other hands", cur.Version), v.Digest().String(), r.Prev)
	case r.Epoch < cur.Epoch:
		return refuse("the epoch goes down", fmt.Sprintf("at least %d", cur.Epoch), fmt.Sprint(r.Epoch))
	}
	for _, k := range r.Keys {
		if was, is := v.roles[k.ID], r.roleOf(k.ID); was != "" && was != is {
			return refuse("key "+k.String()+" has changed its role: make a new key", was, is)
		}
	}
	for _, old := range cur.Revoked {
		i := r.revocation(old.Key)
		if i < 0 {
			return refuse("key "+cur.Keys[cur.key(old.Key)].String()+" was revoked and is not any more: a revocation holds for ever", "", "")
		}
		if r.Revoked[i].AfterSeq > old.AfterSeq {
			return refuse("the revocation of key "+cur.Keys[cur.key(old.Key)].String()+" was loosened",
				fmt.Sprintf("after_seq at most %d", old.AfterSeq), fmt.Sprint(r.Revoked[i].AfterSeq))
		}
	}
	return nil
}

// CheckExpiry refuses a root file that has expired. Trust it for nothing but
// the next version then. The time is the caller's: the greater of the clock and
// the greatest time that was ever imported.
func (v *Verified) CheckExpiry(now time.Time) error {
	if now.IsZero() {
		return errors.New("root file: the time is needed")
	}
	if now.Before(v.file.root.Expires) {
		return nil
	}
	no := refusal(v.file.root.String(), "it has expired: bring in the next version, signed by the holders of the root keys", nil)
	no.Want, no.Got = "time before "+v.file.root.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339)
	return no
}

// Root gives a copy of the statement.
func (v *Verified) Root() *Root { return v.file.root.clone() }

// Digest is the digest of the payload, the fingerprint that people compare.
func (v *Verified) Digest() artifact.Digest { return v.file.root.digest }

// Envelope gives a copy of the file.
func (v *Verified) Envelope() []byte { return slices.Clone(v.file.data) }

// Trust gives the keys and thresholds for a bundle of that number in the
// stream; a revoked key is among them only up to its after_seq. The caller
// compares the stream, and the number with that of the manifest which then
// verifies.
func (v *Verified) Trust(seq uint64) bundle.Trust {
	r := v.file.root
	t := bundle.Trust{Exporters: r.Roles.Exporter.Threshold, Approvals: r.Roles.Approver.Threshold}
	for _, k := range r.Keys {
		role := r.roleOf(k.ID)
		if role != RoleExporter && role != RoleApprover {
			continue
		}
		if i := r.revocation(k.ID); i >= 0 && seq > r.Revoked[i].AfterSeq {
			continue
		}
		public, err := k.parse()
		if err != nil {
			// Every key was parsed when the file was read.
			continue
		}
		t.Keys = append(t.Keys, bundle.TrustedKey{Name: k.Name, Role: bundle.Role(role), Public: public})
	}
	return t
}
