// Package root is the chain of root files: which keys a stream trusts, in
// which role and with which threshold, and how that changes. The outside makes
// and signs the files, the inside pins one and walks from each to the next.
//
// Specification: docs/root-format.md, version 1, in the manner of the root
// role of TUF (The Update Framework) 1.0.33, section 5.3; the envelope is DSSE
// (Dead Simple Signing Envelope) 1.0.2.
//
// Invariants:
//   - A [Verified] was pinned by the full digest that a person compared, or
//     follows one that was, signed by the thresholds of both.
//   - Versions go up by one, epochs never down; a key has one role for life,
//     and once revoked it stays so.
//   - Key ids are recomputed from the keys, and the algorithm is the key's.
//   - A [Store] never goes back, and never holds what did not verify.
//   - Same statement and same keys: same bytes, whoever signed first.
//
// Limits are the constants of this file.
package root

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// PayloadType is what a root file's envelope holds.
	PayloadType = "application/vnd.darkmirror.root.v1+json"
	// Schema names the payload.
	Schema = "darkmirror.root/v1"
	// CodeRoot is the code of every refusal of this package.
	CodeRoot = "ERR_ROOT"
)

// Roles, as [Root.Add] and its like name them.
const (
	RoleRoot     = "root"
	RoleExporter = string(bundle.RoleExporter)
	RoleApprover = string(bundle.RoleApprover)
	RoleInside   = "inside"
)

// Algorithms of keys.
const (
	Ed25519   = "ed25519"
	ECDSAP256 = "ecdsa-p256"
)

const (
	// maxFile bounds a root file, as package bundle does: it is read into
	// memory before any signature is looked at.
	maxFile = 1 << 20
	// maxVersion has the nine digits of the longest file name.
	maxVersion = 999_999_999
	// maxKeys bounds the keys of a root file. Revoked ones stay: a new key
	// each month for forty years.
	maxKeys = 512
	// maxRoleKeys lets the signatures of an old and a new root role, and those
	// of exporters and approvers, fit in the 64 of an envelope.
	maxRoleKeys = 32
	// maxSignatures bounds the work of a hostile envelope; bundles have the
	// same bound.
	maxSignatures = 64
	// maxSPKI bounds a public key; P-256 has 91 bytes.
	maxSPKI = 256
	// maxName bounds the name of a key, which is for people.
	maxName = 64
	// maxReason bounds the reason of a revocation, which is for people.
	maxReason = 256
	// maxInt is the greatest integer that every JSON reader holds exactly.
	maxInt = 1 << 53
)

// A Root is the statement of a root file. docs/root-format.md describes each
// field. [Sign] fills Schema and sorts every list.
type Root struct {
	Schema  string       `json:"schema"`
	Stream  string       `json:"stream"`
	Version int          `json:"version"`
	Prev    string       `json:"prev"` // digest of the payload before; empty for version 1
	Issued  time.Time    `json:"issued"`
	Expires time.Time    `json:"expires"`
	Epoch   uint64       `json:"epoch"`
	Keys    []Key        `json:"keys"`
	Roles   Roles        `json:"roles"`
	Revoked []Revocation `json:"revoked"`

	// digest is that of the payload this was read from: another program may
	// have written it with other white space. Zero where it was not read.
	digest artifact.Digest
}

// Digest is that of the payload that this was read from: the fingerprint that
// people compare. It is zero for a statement that was not read.
func (r *Root) Digest() artifact.Digest { return r.digest }

// A Key is a public key; [NewKey] makes one.
type Key struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Public    string `json:"public"` // SPKI in DER, in base64
}

// Roles gives each role its keys.
type Roles struct {
	Root     Role `json:"root"`
	Exporter Role `json:"exporter"`
	Approver Role `json:"approver"`
	Inside   Role `json:"inside"`
}

// A Role says how many of which keys must sign.
type Role struct {
	Threshold int      `json:"threshold"`
	Keys      []string `json:"keys"` // ids
}

// A Revocation ends the trust in a key: for bundles with a number above
// AfterSeq it is not trusted, and with 0 for none.
type Revocation struct {
	Key      string    `json:"key"`
	Role     string    `json:"role"` // what it was
	AfterSeq uint64    `json:"after_seq"`
	Reason   string    `json:"reason"`
	Date     time.Time `json:"date"`
}

// New makes the statement of version 1.
func New(stream string, issued, expires time.Time, keys []Key, roles Roles) *Root {
	r := &Root{Stream: stream, Version: 1, Issued: issued, Expires: expires, Keys: keys, Roles: roles}
	return r.normal()
}

// NewKey describes a public key, Ed25519 or ECDSA P-256.
func NewKey(name string, public crypto.PublicKey) (Key, error) {
	id := bundle.KeyID(public)
	if id == "" {
		return Key{}, fmt.Errorf("key %s: %T is not supported, want Ed25519 or ECDSA P-256", clip(name), public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Key{}, fmt.Errorf("key %s: %w", clip(name), err)
	}
	k := Key{ID: id, Name: name, Algorithm: algorithm(public), Public: base64.StdEncoding.EncodeToString(der)}
	if _, err := k.parse(); err != nil {
		return Key{}, err
	}
	return k, nil
}

// String is how people know the key: "alice (7b1c 90e2)".
func (k Key) String() string {
	if len(k.ID) < 8 {
		return clip(k.Name)
	}
	return fmt.Sprintf("%s (%s %s)", clip(k.Name), k.ID[:4], k.ID[4:8])
}

// parse checks the key and decodes it.
func (k Key) parse() (crypto.PublicKey, error) {
	if err := checkName(k.Name); err != nil {
		return nil, err
	}
	if len(k.Public) > base64.StdEncoding.EncodedLen(maxSPKI) {
		return nil, fmt.Errorf("key %s: over %d bytes", k.Name, maxSPKI)
	}
	der, err := decodeBase64(k.Public)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.Name, err)
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.Name, err)
	}
	sum := sha256.Sum256(der)
	switch id, alg := bundle.KeyID(public), algorithm(public); {
	case id == "":
		return nil, fmt.Errorf("key %s: %T is not supported, want Ed25519 or ECDSA P-256", k.Name, public)
	case id != hex.EncodeToString(sum[:]):
		return nil, fmt.Errorf("key %s: not in DER form", k.Name)
	case k.ID != id:
		return nil, fmt.Errorf("key %s: id %q is not that of the key, want %s", k.Name, clip(k.ID), id)
	case k.Algorithm != alg:
		return nil, fmt.Errorf("key %s: algorithm %q, but the key is of %s", k.Name, clip(k.Algorithm), alg)
	}
	return public, nil
}

// algorithm names the algorithm of a key that [bundle.KeyID] accepts.
func algorithm(public crypto.PublicKey) string {
	switch public.(type) {
	case ed25519.PublicKey:
		return Ed25519
	case *ecdsa.PublicKey:
		return ECDSAP256
	}
	return ""
}

// all names the roles, in the order of the format.
func (r *Roles) all() []namedRole {
	return []namedRole{{RoleRoot, &r.Root}, {RoleExporter, &r.Exporter}, {RoleApprover, &r.Approver}, {RoleInside, &r.Inside}}
}

type namedRole struct {
	name string
	*Role
}

// find gives a role by its name.
func (r *Roles) find(name string) (*Role, error) {
	for _, role := range r.all() {
		if role.name == name {
			return role.Role, nil
		}
	}
	return nil, fmt.Errorf("role %q, want root, exporter, approver or inside", clip(name))
}

// roleOf gives the role of a key, the one that it had if it is revoked, or "".
func (r *Root) roleOf(id string) string {
	for _, role := range r.Roles.all() {
		if slices.Contains(role.Keys, id) {
			return role.name
		}
	}
	if i := r.revocation(id); i >= 0 {
		return r.Revoked[i].Role
	}
	return ""
}

// key gives the index of a key, or -1.
func (r *Root) key(id string) int {
	return slices.IndexFunc(r.Keys, func(k Key) bool { return k.ID == id })
}

// revocation gives the index of a key's revocation, or -1.
func (r *Root) revocation(id string) int {
	return slices.IndexFunc(r.Revoked, func(v Revocation) bool { return v.Key == id })
}

func (r *Root) String() string {
	return fmt.Sprintf("root file %d of stream %s", r.Version, clip(r.Stream))
}

// clone shares nothing with r.
func (r *Root) clone() *Root {
	c := *r
	c.Keys, c.Revoked = slices.Clone(r.Keys), slices.Clone(r.Revoked)
	for _, role := range c.Roles.all() {
		role.Keys = slices.Clone(role.Keys)
	}
	return &c
}

// normal is a copy in the form that is signed.
func (r *Root) normal() *Root {
	c := *r
	c.Schema, c.digest = Schema, artifact.Digest{}
	c.Issued, c.Expires = whole(r.Issued), whole(r.Expires)
	// An empty list is [], not null.
	c.Keys, c.Revoked = append([]Key{}, r.Keys...), append([]Revocation{}, r.Revoked...)
	slices.SortFunc(c.Keys, func(a, b Key) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(c.Revoked, func(a, b Revocation) int { return strings.Compare(a.Key, b.Key) })
	for i := range c.Revoked {
		c.Revoked[i].Date = whole(c.Revoked[i].Date)
	}
	for _, role := range c.Roles.all() {
		role.Keys = append([]string{}, role.Keys...)
		slices.Sort(role.Keys)
	}
	return &c
}

// whole is the form of times: UTC, whole seconds.
func whole(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// payload encodes what is signed.
func (r *Root) payload() ([]byte, error) {
	n := r.normal()
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	b, err := json.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", r, err)
	}
	return b, nil
}

// decodeBase64 accepts one encoding of each value: encoding/base64 skips line
// breaks even when it is strict.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break in base64")
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// refusal is an integrity refusal.
func refusal(subject, reason string, err error) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeRoot, Subject: subject, Reason: reason, Err: err}
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return string(bytes.ToValidUTF8([]byte(s[:most]), nil)) + "..."
	}
	return s
}
