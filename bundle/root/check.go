package root

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// check holds the rules of a single root file. Both sides call it: what the
// inside would refuse is not signed.
func (r *Root) check() error {
	for _, f := range []func() error{r.checkHead, r.checkKeys, r.checkRoles, r.checkRevoked, r.checkUse} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Root) checkHead() error {
	if r.Schema != Schema {
		return fmt.Errorf("schema %q, want %q", clip(r.Schema), Schema)
	}
	if err := bundle.CheckStream(r.Stream); err != nil {
		return err
	}
	if r.Version < 1 || r.Version > maxVersion {
		return fmt.Errorf("version %d, want 1 to %d", r.Version, maxVersion)
	}
	if (r.Version == 1) != (r.Prev == "") {
		return fmt.Errorf("prev %q with version %d", clip(r.Prev), r.Version)
	}
	if r.Prev != "" {
		if _, err := artifact.ParseDigest(r.Prev); err != nil {
			return fmt.Errorf("prev: %w", err)
		}
	}
	if err := errors.Join(checkTime("issued", r.Issued), checkTime("expires", r.Expires)); err != nil {
		return err
	}
	if !r.Expires.After(r.Issued) {
		return errors.New("expires is not after issued")
	}
	if r.Epoch > maxInt {
		return fmt.Errorf("epoch %d, want at most 2^53", r.Epoch)
	}
	return nil
}

// checkTime wants the one form of a time: encoding/json reads any offset.
func checkTime(what string, t time.Time) error {
	if y := t.Year(); t.Location() != time.UTC || y < 2000 || y > 9999 || t.Nanosecond() != 0 {
		return fmt.Errorf("%s: want whole seconds of a year from 2000 to 9999, in UTC with Z", what)
	}
	return nil
}

// checkName accepts what the name of a key may be.
func checkName(s string) error {
	ok := s != "" && len(s) <= maxName && s[0] != '-' && s[0] != '_'
	for _, c := range []byte(s) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("key name %q: want 1 to %d lower-case letters, digits, '-' and '_'", clip(s), maxName)
	}
	return nil
}

func (r *Root) checkKeys() error {
	if n := len(r.Keys); n < 2 || n > maxKeys {
		return fmt.Errorf("%d keys, want 2 to %d", n, maxKeys)
	}
	names := make(map[string]bool, len(r.Keys))
	for i, k := range r.Keys {
		if _, err := k.parse(); err != nil {
			return err
		}
		if i > 0 && r.Keys[i-1].ID >= k.ID {
			return fmt.Errorf("keys are not sorted, or the same key is there twice: %s", k)
		}
		if names[k.Name] {
			return fmt.Errorf("two keys are named %s: give the new one another name", k.Name)
		}
		names[k.Name] = true
	}
	return nil
}

func (r *Root) checkRoles() error {
	for _, role := range r.Roles.all() {
		n, least := len(role.Keys), 1
		if role.Keys == nil || n > maxRoleKeys {
			return fmt.Errorf("role %s: %d keys, want a list of at most %d", role.name, n, maxRoleKeys)
		}
		switch {
		case role.name == RoleApprover, role.name == RoleInside && n == 0:
			least = 0
		case n == 0:
			return fmt.Errorf("role %s has no key", role.name)
		}
		if role.Threshold < least || role.Threshold > n {
			return fmt.Errorf("role %s: threshold %d of %d keys, want %d to %d", role.name, role.Threshold, n, least, n)
		}
		for i, id := range role.Keys {
			if i > 0 && role.Keys[i-1] >= id {
				return fmt.Errorf("role %s: keys are not sorted, or the same key is there twice: %s", role.name, clip(id))
			}
		}
	}
	return nil
}

func (r *Root) checkRevoked() error {
	if r.Revoked == nil {
		return errors.New("revoked is missing")
	}
	for i, v := range r.Revoked {
		if i > 0 && r.Revoked[i-1].Key >= v.Key {
			return fmt.Errorf("revoked is not sorted, or the same key is there twice: %s", clip(v.Key))
		}
		if _, err := r.Roles.find(v.Role); err != nil {
			return fmt.Errorf("revoked key %s: %w", clip(v.Key), err)
		}
		if v.AfterSeq > maxInt {
			return fmt.Errorf("revoked key %s: after_seq %d, want at most 2^53", clip(v.Key), v.AfterSeq)
		}
		unprintable := strings.ContainsFunc(v.Reason, func(c rune) bool { return !unicode.IsPrint(c) || c == unicode.ReplacementChar })
		if v.Reason == "" || len(v.Reason) > maxReason || unprintable {
			return fmt.Errorf("revoked key %s: want a reason of 1 to %d bytes of printable text", clip(v.Key), maxReason)
		}
		if err := checkTime("date", v.Date); err != nil {
			return fmt.Errorf("revoked key %s: %w", clip(v.Key), err)
		}
	}
	return nil
}

// checkUse wants each key in one place: a role, or among the revoked.
func (r *Root) checkUse() error {
	place := make(map[string]string, len(r.Keys))
	for _, k := range r.Keys {
		place[k.ID] = ""
	}
	put := func(id, where string) error {
		switch was, known := place[id]; {
		case !known:
			return fmt.Errorf("%s names key %q, which is not among the keys", where, clip(id))
		case was != "":
			return fmt.Errorf("key %s stands in %s and in %s: a key has one role, and none once it is revoked", r.Keys[r.key(id)], was, where)
		}
		place[id] = where
		return nil
	}
	for _, role := range r.Roles.all() {
		for _, id := range role.Keys {
			if err := put(id, "role "+role.name); err != nil {
				return err
			}
		}
	}
	for _, v := range r.Revoked {
		if err := put(v.Key, "revoked"); err != nil {
			return err
		}
	}
	for _, k := range r.Keys {
		if place[k.ID] == "" {
			return fmt.Errorf("key %s has no role and is not revoked", k)
		}
	}
	return nil
}
