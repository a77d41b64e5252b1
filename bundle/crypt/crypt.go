// Package crypt reads and writes the encrypted files of bundles with age, for
// the small interfaces of package bundle, which knows nothing of it.
//
// Specification: docs/bundle-format.md, "Encryption"; age-encryption.org/v1
// with X25519 and hybrid ML-KEM-768 with X25519 recipients.
//
// Invariants:
//   - Nothing of an identity gets into an error or a log line.
//   - A file's recipients are all of one kind: one classical recipient opens it
//     to a quantum computer, whatever the others are.
//   - What is read of a file was authenticated chunk by chunk.
//   - No program is started: plugins, SSH keys and passphrases are refused.
//
// Limits: 64 recipients or identities, 256 KiB of a file that lists them.
package crypt

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/darkmirror/darkmirror/bundle"
)

const (
	// maxFile bounds a file of recipients or identities; 64 hybrid recipients
	// take 126 KiB.
	maxFile = 256 << 10
	// maxIdentities bounds the work of trying them all on each file.
	maxIdentities = 64
)

// A Recipient is somebody who can read what is encrypted to them.
type Recipient struct {
	age    age.Recipient
	text   string
	hybrid bool
}

// String is the recipient's text, as in a file.
func (r Recipient) String() string { return r.text }

// Fingerprint is the text shortened, for people. Never decide by it.
func (r Recipient) Fingerprint() string { return fingerprint(r.text) }

// fingerprint keeps both ends: the last characters check all the others.
func fingerprint(text string) string {
	const first, last = 16, 8
	if len(text) <= first+2+last {
		return text
	}
	return text[:first] + ".." + text[len(text)-last:]
}

// An Identity can read what is encrypted to its recipient.
type Identity struct {
	age       age.Identity
	recipient string
}

// Fingerprint is that of the identity's recipient.
func (i Identity) Fingerprint() string { return fingerprint(i.recipient) }

// String says no more than the fingerprint, so that no secret is printed.
func (i Identity) String() string { return "identity of " + i.Fingerprint() }

// GoString is String, for %#v.
func (i Identity) GoString() string { return i.String() }

// ParseRecipients reads an age recipients file: one in a line, comments and
// empty lines between.
func ParseRecipients(file []byte) ([]Recipient, error) {
	var list []Recipient
	seen := make(map[string]bool)
	err := eachLine(file, "recipients file", func(line string) error {
		r, err := parseRecipient(line)
		switch {
		case err != nil:
			return err
		case seen[r.text]:
			return fmt.Errorf("recipient %s is listed twice", r.Fingerprint())
		case len(list) == bundle.MaxRecipients:
			return fmt.Errorf("more than %d recipients", bundle.MaxRecipients)
		case len(list) > 0 && list[0].hybrid != r.hybrid:
			return errMixed
		}
		seen[r.text] = true
		list = append(list, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

var errMixed = errors.New("hybrid post-quantum and classical recipients cannot be mixed: the latter would open the bundle to a quantum computer; list one kind")

// parseRecipient never quotes the line: it may be an identity that stands in
// the wrong file.
func parseRecipient(line string) (Recipient, error) {
	switch {
	case strings.HasPrefix(line, "AGE-SECRET-KEY-"):
		return Recipient{}, errors.New("this is an identity, which is secret; want its recipient (age1...)")
	case strings.HasPrefix(line, "age1pq1"):
		r, err := age.ParseHybridRecipient(line)
		if err != nil {
			return Recipient{}, errors.New("not a hybrid recipient: mistyped or cut short")
		}
		return Recipient{age: r, text: r.String(), hybrid: true}, nil
	case strings.HasPrefix(line, "age1"):
		r, err := age.ParseX25519Recipient(line)
		if err != nil {
			return Recipient{}, errors.New("not an X25519 recipient: mistyped, cut short, or of an age plugin, which is not supported")
		}
		return Recipient{age: r, text: r.String()}, nil
	}
	return Recipient{}, errors.New("not an age recipient, want age1... or age1pq1...; SSH keys are not supported")
}

// ParseIdentities reads an age identity file. One that is encrypted with a
// passphrase is refused, since nobody is there to type it.
func ParseIdentities(file []byte) ([]Identity, error) {
	var list []Identity
	seen := make(map[string]bool)
	err := eachLine(file, "identity file", func(line string) error {
		id, err := parseIdentity(line)
		switch {
		case err != nil:
			return err
		case seen[id.recipient]:
			return fmt.Errorf("the identity of %s is listed twice", id.Fingerprint())
		case len(list) == maxIdentities:
			return fmt.Errorf("more than %d identities", maxIdentities)
		}
		seen[id.recipient] = true
		list = append(list, id)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func parseIdentity(line string) (Identity, error) {
	switch {
	case line == "age-encryption.org/v1" || line == "-----BEGIN AGE ENCRYPTED FILE-----":
		return Identity{}, errors.New("it is encrypted with a passphrase, which nobody can type in an unattended run; decrypt it with age into a file that only this user can read")
	case strings.HasPrefix(line, "-----BEGIN "):
		return Identity{}, errors.New("keys of SSH and other tools are not supported, want an age identity (AGE-SECRET-KEY-...)")
	case strings.HasPrefix(line, "AGE-PLUGIN-"):
		return Identity{}, errors.New("age plugins are not supported: they are programs")
	case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
		if id, err := age.ParseHybridIdentity(line); err == nil {
			return Identity{age: id, recipient: id.Recipient().String()}, nil
		}
	case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
		if id, err := age.ParseX25519Identity(line); err == nil {
			return Identity{age: id, recipient: id.Recipient().String()}, nil
		}
	case strings.HasPrefix(line, "age1"):
		return Identity{}, errors.New("this is a recipient, want an identity (AGE-SECRET-KEY-...)")
	}
	// The cause might quote key material.
	return Identity{}, errors.New("not an age identity")
}

// eachLine gives the lines that are neither empty nor comments, of which there
// must be one.
func eachLine(file []byte, what string, use func(line string) error) error {
	if len(file) > maxFile {
		return fmt.Errorf("%s: %d bytes, at most %d are read", what, len(file), maxFile)
	}
	n, used := 0, false
	for line := range strings.Lines(string(file)) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		used = true
		if err := use(line); err != nil {
			return fmt.Errorf("%s, line %d: %w", what, n, err)
		}
	}
	if !used {
		return fmt.Errorf("%s: it lists nobody", what)
	}
	return nil
}

// An Encrypter encrypts to recipients; it is a [bundle.Encrypter].
type Encrypter struct {
	to    []age.Recipient
	names []string
}

var _ bundle.Encrypter = (*Encrypter)(nil)

// NewEncrypter wants 1 to 64 recipients of one kind.
func NewEncrypter(list []Recipient) (*Encrypter, error) {
	if len(list) == 0 || len(list) > bundle.MaxRecipients {
		return nil, fmt.Errorf("%d recipients, want 1 to %d", len(list), bundle.MaxRecipients)
	}
	e := &Encrypter{}
	for _, r := range list {
		if r.age == nil {
			return nil, errors.New("a recipient that was not parsed")
		}
		if r.hybrid != list[0].hybrid {
			return nil, errMixed
		}
		e.to = append(e.to, r.age)
		e.names = append(e.names, r.Fingerprint())
	}
	return e, nil
}

// Encrypt begins a file with a key of its own.
func (e *Encrypter) Encrypt(dst io.Writer) (io.WriteCloser, error) {
	w, err := age.Encrypt(dst, e.to...)
	if err != nil {
		return nil, fmt.Errorf("age: %w", err)
	}
	return w, nil
}

// Recipients are the fingerprints, in the order in which they were given.
func (e *Encrypter) Recipients() []string { return append([]string(nil), e.names...) }

// A Decrypter reads files with identities; it is a [bundle.Decrypter].
type Decrypter struct {
	with  []age.Identity
	names []string
}

var _ bundle.Decrypter = (*Decrypter)(nil)

// NewDecrypter wants 1 to 64 identities, which are tried in that order.
func NewDecrypter(list []Identity) (*Decrypter, error) {
	if len(list) == 0 || len(list) > maxIdentities {
		return nil, fmt.Errorf("%d identities, want 1 to %d", len(list), maxIdentities)
	}
	d := &Decrypter{}
	for _, id := range list {
		if id.age == nil {
			return nil, errors.New("an identity that was not parsed")
		}
		d.with = append(d.with, id.age)
		d.names = append(d.names, id.Fingerprint())
	}
	return d, nil
}

// Decrypt opens a file for reads at any offset. It reads the header and the
// last chunk at once; where no identity fits, the error wraps
// [bundle.ErrNoIdentity] and says whose were tried.
func (d *Decrypter) Decrypt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	r, n, err := age.DecryptReaderAt(src, size, d.with...)
	if _, none := errors.AsType[*age.NoIdentityMatchError](err); none {
		return nil, 0, fmt.Errorf("%w, tried that of %s", bundle.ErrNoIdentity, strings.Join(d.names, ", "))
	}
	if err != nil {
		return nil, 0, fmt.Errorf("age: %w", err)
	}
	return r, n, nil
}
