package root

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// folder holds the root files, in a store as in a bundle.
	folder = "root"
	// pinName is the file that says how far the chain goes.
	pinName   = "pinned.json"
	pinSchema = "darkmirror.root-pin/v1"
	// maxPin bounds it; it has about 250 bytes.
	maxPin = 4 << 10

	// maxChain and maxChainBytes are what a bundle carries: a new version each
	// week for nineteen years.
	maxChain      = 1000
	maxChainBytes = 64 << 20

	// fileMode and dirMode let the group read, as in a bundle.
	fileMode = 0o640
	dirMode  = 0o750
)

// A Store keeps a chain of root files in a folder: inside what is pinned,
// outside what goes into bundles. It never goes back. A kill at any step
// leaves the old chain or the new one, and a rerun finishes. It is not for
// concurrent use, and the caller keeps other writers away from the folder.
type Store struct {
	dir   string
	chain []*Verified // from the pinned version to the highest; empty: not pinned
}

// A pin is what pinned.json says. It is written last.
type pin struct {
	Schema      string          `json:"schema"`
	First       int             `json:"first"`
	Fingerprint artifact.Digest `json:"fingerprint"`
	Highest     int             `json:"highest"`
	Digest      artifact.Digest `json:"digest"`
}

// OpenStore reads a store and verifies its chain from the pin on; expiry is
// not looked at. A folder that is not there is a store without a pin.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: filepath.Join(dir, folder)}
	p, err := s.readPin()
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = s.load(p)
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open the store of root files: %w", err)
	}
	if err != nil {
		return nil, refusal(s.dir, "the store of root files is damaged: restore it, or pin the root file anew", err)
	}
	return s, nil
}

func (s *Store) readPin() (p pin, err error) {
	data, err := readFile(filepath.Join(s.dir, pinName), maxPin)
	if err != nil {
		return p, err
	}
	if err := strictjson.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("%s: %w", pinName, err)
	}
	if p.Schema != pinSchema || p.First < 1 || p.Highest < p.First || p.Highest-p.First >= maxChain {
		return p, fmt.Errorf("%s: schema %q, versions %d to %d", pinName, clip(p.Schema), p.First, p.Highest)
	}
	return p, nil
}

// load walks the chain.
func (s *Store) load(p pin) error {
	var chain []*Verified
	for n := p.First; n <= p.Highest; n++ {
		data, err := readFile(filepath.Join(s.dir, fileName(n)), maxFile)
		if err != nil {
			return err
		}
		var v *Verified
		if n == p.First {
			v, err = first(data, p.Fingerprint.String())
		} else {
			v, err = chain[len(chain)-1].next(data)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", fileName(n), err)
		}
		if got := v.file.root.Version; got != n {
			return fmt.Errorf("%s holds version %d", fileName(n), got)
		}
		chain = append(chain, v)
	}
	if got := chain[len(chain)-1].Digest(); got != p.Digest {
		return fmt.Errorf("%s: version %d is %s, want %s", pinName, p.Highest, got, p.Digest)
	}
	s.chain = chain
	return nil
}

// Current gives the highest version, and false where none is pinned. It may
// have expired: see [Verified.CheckExpiry].
func (s *Store) Current() (*Verified, bool) {
	if len(s.chain) == 0 {
		return nil, false
	}
	return s.chain[len(s.chain)-1], true
}

// at gives a version of the chain, or nil.
func (s *Store) at(version int) *Verified {
	if len(s.chain) == 0 {
		return nil
	}
	i := version - s.chain[0].file.root.Version
	if i < 0 || i >= len(s.chain) {
		return nil
	}
	return s.chain[i]
}

// Pin begins the chain with a root file whose fingerprint a person has
// compared; see [First]. Pinning again what the chain has changes nothing, and
// anything else is refused.
func (s *Store) Pin(data []byte, fingerprint string, now time.Time) error {
	v, err := first(data, fingerprint)
	if err != nil {
		return err
	}
	if cur, ok := s.Current(); ok {
		have := s.at(v.file.root.Version)
		if have == nil || have.Digest() != v.Digest() {
			no := refusal(s.dir, "another root file is pinned: remove the store to begin again", nil)
			no.Want, no.Got = cur.file.root.String()+", "+cur.Digest().String(), v.file.root.String()+", "+v.Digest().String()
			return no
		}
		return nil
	}
	if err := v.CheckExpiry(now); err != nil {
		return err
	}
	return s.write([]*Verified{v})
}

// Advance applies the root files that follow the current version, in order,
// and returns their versions. Each must prove itself by its signatures, and
// all or none are taken. A file of a version that the chain has must have the
// same payload, and those before the pinned one are left alone.
//
// Only the expiry of the last counts. Where it has expired, the chain is kept
// all the same and the versions stand beside the refusal: going back to older
// keys would undo revocations. This holds where nothing is new, too, so that
// who calls Advance before a bundle need not ask for expiry again.
func (s *Store) Advance(files map[int][]byte, now time.Time) ([]int, error) {
	cur, ok := s.Current()
	if !ok {
		return nil, refusal(s.dir, "no root file is pinned: pin one whose fingerprint a person has compared", nil)
	}
	if now.IsZero() {
		return nil, errors.New("root files: the time is needed")
	}
	var fresh []*Verified
	var versions []int
	for _, n := range slices.Sorted(maps.Keys(files)) {
		if n <= cur.file.root.Version {
			if err := s.compare(n, files[n]); err != nil {
				return nil, fmt.Errorf("%s: %w", fileName(n), err)
			}
			continue
		}
		if want := cur.file.root.Version + 1; n != want {
			no := refusal(filepath.Join(folder, fileName(n)), "skipped version: bring in the whole chain of root files", nil)
			no.Want, no.Got = fileName(want), fileName(n)
			return nil, no
		}
		next, err := cur.next(files[n])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fileName(n), err)
		}
		cur, fresh, versions = next, append(fresh, next), append(versions, n)
	}
	if err := s.write(fresh); err != nil {
		return nil, err
	}
	return versions, cur.CheckExpiry(now)
}

// compare refuses another root file of a version that the chain has.
func (s *Store) compare(version int, data []byte) error {
	have := s.at(version)
	if have == nil {
		return nil
	}
	f, err := openEnvelope(data)
	if err != nil {
		return err
	}
	if got := artifact.Sum(f.payload); got != have.Digest() {
		no := refusal(have.file.root.String(), "there is another root file of this version: root keys may be in other hands", nil)
		no.Want, no.Got = have.Digest().String(), got.String()
		return no
	}
	return nil
}

// write adds to the chain, on disk first. The files come first and count for
// nothing until pinned.json names them.
func (s *Store) write(fresh []*Verified) error {
	if len(fresh) == 0 {
		return nil
	}
	chain := append(slices.Clone(s.chain), fresh...)
	total := 0
	for _, v := range chain {
		total += len(v.file.data)
	}
	if len(chain) > maxChain || total > maxChainBytes {
		return refusal(s.dir, fmt.Sprintf("a chain of %d root files and %d bytes, at most %d and %d are kept: pin a later one anew", len(chain), total, maxChain, maxChainBytes), nil)
	}
	if err := s.makeFolder(); err != nil {
		return fmt.Errorf("store root files: %w", err)
	}
	failpoint.Here("root.folder-made")
	for _, v := range fresh {
		if err := durable.WriteFile(filepath.Join(s.dir, fileName(v.file.root.Version)), v.file.data, fileMode); err != nil {
			return fmt.Errorf("store root files: %w", err)
		}
		failpoint.Here("root.file-written")
	}
	begin, end := chain[0], chain[len(chain)-1]
	data, err := json.Marshal(pin{
		Schema: pinSchema,
		First:  begin.file.root.Version, Fingerprint: begin.Digest(),
		Highest: end.file.root.Version, Digest: end.Digest(),
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", pinName, err)
	}
	if err := durable.WriteFile(filepath.Join(s.dir, pinName), append(data, '\n'), fileMode); err != nil {
		return fmt.Errorf("store root files: %w", err)
	}
	failpoint.Here("root.pinned")
	s.chain = chain
	return nil
}

// makeFolder makes the folder and removes what a killed run left in it.
func (s *Store) makeFolder() error {
	if err := os.MkdirAll(s.dir, dirMode); err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	return durable.Sweep(s.dir)
}

// Files gives the chain by name, for the folder root/ of a bundle.
func (s *Store) Files() (map[string][]byte, error) {
	if len(s.chain) == 0 {
		return nil, refusal(s.dir, "no root file is pinned: pin one whose fingerprint a person has compared", nil)
	}
	files := make(map[string][]byte, len(s.chain))
	for _, v := range s.chain {
		files[fileName(v.file.root.Version)] = v.Envelope()
	}
	return files, nil
}

// fileName is the name of a root file.
func fileName(version int) string { return fmt.Sprintf("%d.root.json", version) }

// readFile reads a file of the store.
func readFile(name string, limit int64) (_ []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: over %d bytes", filepath.Base(name), limit)
	}
	return data, nil
}
