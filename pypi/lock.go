package pypi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// ErrLock is the class of refusals that only a change of the lock file or of
// the configuration can mend. It ranks with usage errors.
var ErrLock = errors.New("lock file refused")

const (
	// maxLock bounds one lock file. A lock of 2,000 packages with all their
	// wheels has about 8 MiB.
	maxLock = 32 << 20
	// maxPins bounds the pins of one lock with everything it includes.
	maxPins = 50_000
	// maxHashes bounds the hashes of one pin; the most known is about 150.
	maxHashes = 10_000
)

// A Lock is a lock file that was read: exact versions with hashes.
type Lock struct {
	Pins  []Pin
	Notes []string
	// Environments and RequiresPython are what a pylock.toml or a uv.lock says
	// of the targets it was made for.
	Environments   []packaging.Marker
	RequiresPython packaging.Specifiers

	where       string // "pylock.toml"
	constraints []constraint
	// extras and groups are the names that whoever installs may choose.
	extras, groups []string
	graph          *uvGraph // of a uv.lock
}

// A Pin is one package of a lock.
type Pin struct {
	Name    string // normal form
	Version packaging.Version
	Marker  packaging.Marker
	Where   string // "requirements.txt:12"
	// Digests are the hashes of a requirements file, which do not say which
	// file each belongs to. Files are the files of a pylock.toml or a uv.lock.
	Digests        map[artifact.Digest]bool
	Files          []LockedFile
	RequiresPython packaging.Specifiers
	// chosen is the file that the solver took.
	chosen *pageFile
}

// A LockedFile is a file that a pylock.toml or a uv.lock names.
type LockedFile struct {
	Name   string
	Digest artifact.Digest
	Size   int64 // -1 if the lock does not say
}

// constraint is a line of a file included with -c.
type constraint struct {
	req   packaging.Requirement
	where string
}

// ReadLock reads a lock file. A name that ends in .toml is a pylock.toml, one
// that ends in .lock a uv.lock, any other a requirements file.
func ReadLock(file string) (*Lock, error) {
	var l *Lock
	var err error
	switch kindOf(file) {
	case kindPylock:
		l, err = readPylock(file)
	case kindUV:
		l, err = readUVLock(file)
	default:
		l, err = readRequirements(file)
	}
	if err != nil {
		return nil, err
	}
	if len(l.Pins) == 0 {
		l.Notes = append(l.Notes, l.where+": pins nothing")
	}
	return l, nil
}

// The kinds of lock files, which their names tell apart.
const (
	kindRequirements = iota
	kindPylock
	kindUV
)

func kindOf(name string) int {
	switch {
	case strings.HasSuffix(name, ".toml"):
		return kindPylock
	case strings.HasSuffix(name, ".lock"):
		return kindUV
	}
	return kindRequirements
}

// lockRefusal names a place in a lock file.
func lockRefusal(code, where, reason string, err error) error {
	return &artifact.Refusal{Class: ErrLock, Code: "PYPI-LOCK" + code, Subject: where, Reason: reason, Err: err}
}

// readBounded reads a lock file, refusing one over the limit.
func readBounded(r io.Reader, where string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxLock+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", where, err)
	}
	if len(b) > maxLock {
		return nil, lockRefusal("-LIMIT", where, fmt.Sprintf("over %d bytes", maxLock), nil)
	}
	return b, nil
}

// readFile reads the lock file itself, which the configuration names.
func readFile(file string) (b []byte, err error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return nil, lockRefusal("-READ", filepath.Base(file), "cannot be read", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readBounded(f, filepath.Base(file))
}

// applies says whether the lock as a whole is meant for the target.
func (l *Lock) applies(t *packaging.Target) error {
	if !l.RequiresPython.Contains(t.Python) {
		return lockRefusal("-PYTHON", l.where, fmt.Sprintf("target %s: the lock's requires-python leaves Python %s out", t.Text, t.Python), nil)
	}
	if len(l.Environments) == 0 {
		return nil
	}
	for _, m := range l.Environments {
		if m.Eval(&t.Env) != packaging.False {
			return nil
		}
	}
	return lockRefusal("-ENVIRONMENT", l.where, fmt.Sprintf("target %s: none of the lock's environments fits", t.Text), nil)
}

// forTarget lists the pins that the target may install. Two versions of one
// project, or a constraint that a pin breaks, are refused.
func (l *Lock) forTarget(t *packaging.Target) ([]*Pin, error) {
	if err := l.applies(t); err != nil {
		return nil, err
	}
	if l.graph != nil {
		return l.graph.reach(t)
	}
	var pins []*Pin
	first := make(map[string]*Pin)
	for i := range l.Pins {
		p := &l.Pins[i]
		truth := p.Marker.Eval(&t.Env)
		if truth == packaging.False {
			continue
		}
		if !p.RequiresPython.Contains(t.Python) {
			return nil, lockRefusal("-PYTHON", p.Where, fmt.Sprintf("target %s: %s %s does not support Python %s", t.Text, p.Name, p.Version, t.Python), nil)
		}
		other := first[p.Name]
		// Extras and groups may choose between two versions: then both travel.
		if other != nil && truth == packaging.True && other.Marker.Eval(&t.Env) == packaging.True && other.Version.Compare(p.Version) != 0 {
			return nil, lockRefusal("-CONFLICT", p.Where, fmt.Sprintf("target %s: %s %s, but %s pins %s", t.Text, p.Name, p.Version, other.Where, other.Version), nil)
		}
		if other == nil {
			first[p.Name] = p
		}
		pins = append(pins, p)
	}
	for _, c := range l.constraints {
		p := first[c.req.Name]
		if p != nil && c.req.Marker.Eval(&t.Env) == packaging.True && !c.req.Specifiers.Contains(p.Version) {
			return nil, lockRefusal("-CONSTRAINT", p.Where, fmt.Sprintf("target %s: %s %s breaks the constraint of %s", t.Text, p.Name, p.Version, c.where), nil)
		}
	}
	return pins, nil
}
