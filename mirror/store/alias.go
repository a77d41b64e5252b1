package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxAlias bounds the other name of a blob: a SHA-512 in hex and its prefix.
const maxAlias = 160

// SetAlias remembers that the blob d is also known by another name, that of a
// digest which is no SHA-256. The caller has verified it. It is a hint that
// saves work and is not fsynced; it may be gone at any time.
func (s *Store) SetAlias(name string, d artifact.Digest) error {
	at, err := s.aliasName(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
		return s.spaced(err, 0)
	}
	temp, err := os.CreateTemp(filepath.Dir(at), durable.TempPrefix)
	if err != nil {
		return s.spaced(err, 0)
	}
	_, err = temp.WriteString(d.Hex())
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), at)
	}
	if err != nil {
		return s.spaced(errors.Join(err, removeIfThere(temp.Name())), 0)
	}
	return nil
}

// Alias is the blob that SetAlias remembered, if it is present.
func (s *Store) Alias(name string) (artifact.Digest, bool) {
	at, err := s.aliasName(name)
	if err != nil {
		return artifact.Digest{}, false
	}
	b, err := os.ReadFile(at)
	if err != nil || len(b) != hex.EncodedLen(len(artifact.Digest{})) {
		return artifact.Digest{}, false
	}
	d, err := artifact.ParseHex(string(b))
	return d, err == nil && s.Has(d)
}

// aliasName is the file of an alias: its last two digits spread the folder.
func (s *Store) aliasName(name string) (string, error) {
	if len(name) < 2 || len(name) > maxAlias {
		return "", fmt.Errorf("alias %q: want 2 to %d characters", name, maxAlias)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return "", fmt.Errorf("alias %q: want lower-case letters, digits and '-'", name)
		}
	}
	return filepath.Join(s.dir, "alias", name[len(name)-2:], name), nil
}

// sweepAliases removes what killed runs left.
func (s *Store) sweepAliases() error {
	dirs, err := os.ReadDir(filepath.Join(s.dir, "alias"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := durable.Sweep(filepath.Join(s.dir, "alias", d.Name())); err != nil {
			return err
		}
	}
	return nil
}
