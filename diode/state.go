package diode

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Names inside an object's folder.
const (
	objectFile   = "object"
	dataFile     = "data"
	progressFile = "progress"
	transferFile = "transfers"
)

func parityName(n int) string { return fmt.Sprintf("parity-%08x", n) }
func liveName(n int) string   { return fmt.Sprintf("live-%08x", n) }
func savedName(n int) string  { return fmt.Sprintf("saved-%08x", n) }

// encodeObject is the content of the file object.
func encodeObject(d *descriptor) []byte {
	p := make([]byte, controlSize, controlSize+sha256.Size)
	d.encode(p)
	sum := sha256.Sum256(p)
	return append(p, sum[:]...)
}

func parseObject(p []byte) (*descriptor, error) {
	if len(p) != controlSize+sha256.Size {
		return nil, fmt.Errorf("object: %d bytes, want %d", len(p), controlSize+sha256.Size)
	}
	if sum := sha256.Sum256(p[:controlSize]); !bytes.Equal(sum[:], p[controlSize:]) {
		return nil, fmt.Errorf("object: %w", ErrDigest)
	}
	return parseDescriptor(p[:controlSize])
}

// progress is what is known of an object after a sync.
type progress struct {
	Boot string `json:"boot"`
	// Complete has a bit for every generation that is whole and synced.
	Complete []byte `json:"complete"`
	// Hashed generations are in Hash, the state of the SHA-256.
	Hashed int    `json:"hashed"`
	Hash   []byte `json:"hash"`
}

// maxProgress is the list of all generations that there may be, in base64,
// with room for the rest.
const maxProgress = maxGenerations/6 + 4096

func (p *progress) encode() ([]byte, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append(body, sum[:]...), nil
}

func parseProgress(data []byte, g geometry) (*progress, error) {
	if len(data) < sha256.Size || len(data) > maxProgress {
		return nil, fmt.Errorf("progress: %d bytes", len(data))
	}
	body := data[:len(data)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], data[len(body):]) {
		return nil, fmt.Errorf("progress: %w", ErrDigest)
	}
	var p progress
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf("progress: %w", err)
	}
	n := g.generations()
	if len(p.Complete) != (n+7)/8 || p.Hashed < 0 || p.Hashed > n || ones(p.Complete, n) != ones(p.Complete, 8*len(p.Complete)) {
		return nil, errors.New("progress: it belongs to another object")
	}
	for i := range p.Hashed {
		if !bitSet(p.Complete, i) {
			return nil, fmt.Errorf("progress: generation %d is hashed and not complete", i)
		}
	}
	return &p, nil
}

// bootID names the run of the kernel; live maps of another are worth nothing.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// readSmall reads a file of at most limit bytes.
func readSmall(root *os.Root, name string, limit int64) (_ []byte, err error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, err
}

// replace writes a file so that readers see the old or the new one, and syncs
// it. The folder is synced by whoever needs the name to last.
func replace(root *os.Root, name string, data []byte) (err error) {
	tmp := ".tmp-" + name
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(root *os.Root, name string) (err error) {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// maxAccepted is how many transfers are remembered after their end: a year of
// two a night with a hundred files each.
const maxAccepted = 65536

// An acceptedList holds the numbers of transfers that are done with. Its file
// has 8 bytes for each, oldest first; a torn end is cut off.
type acceptedList struct {
	set map[uint64]bool
	all []uint64
}

const acceptedFile = "accepted"

func openAccepted(root *os.Root) (*acceptedList, error) {
	a := &acceptedList{set: map[uint64]bool{}}
	data, err := readSmall(root, acceptedFile, 8*maxAccepted+8)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	for ; len(data) >= 8; data = data[8:] {
		a.add(binary.BigEndian.Uint64(data))
	}
	return a, nil
}

func (a *acceptedList) add(n uint64) {
	if a.set[n] {
		return
	}
	a.set[n] = true
	a.all = append(a.all, n)
	if cut := len(a.all) - maxAccepted; cut > 0 {
		for _, n := range a.all[:cut] {
			delete(a.set, n)
		}
		a.all = append(a.all[:0], a.all[cut:]...)
	}
}

func (a *acceptedList) encode() []byte {
	p := make([]byte, 0, 8*len(a.all))
	for _, n := range a.all {
		p = binary.BigEndian.AppendUint64(p, n)
	}
	return p
}
