package diode

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An object is one that a transfer carries now. Fields without a note belong
// to the packets' thread.
type object struct {
	descriptor
	id        objectID
	total     int              // generations
	transfers map[uint64]int64 // the tick of the latest descriptor of each
	open      []*generation    // at most maxOpen
	done      []byte           // bit: whole, on disk but perhaps not synced
	left      int              // generations that are not done
	finishing bool
	heard     int64 // ticks; when a packet came last
	ended     int   // descriptors in a row that said that the pass has ended
	told      int   // the pass whose gaps were told

	files *objectFiles
}

// objectFiles are the files of an object. They outlive the object in the
// packets' thread until the last job on them is done.
type objectFiles struct {
	dir  string // name of the folder below the root, the object's number
	root *os.Root
	data *os.File
	geo  geometry
	want [sha256.Size]byte
	name string
	boot string

	hash hash.Hash // the worker's

	parityMu sync.Mutex
	parity   map[int]*os.File

	mu       sync.Mutex // of what follows, and of the folder's files
	complete []byte     // bit: whole; on disk but perhaps not synced
	hashed   int        // generations that hash has taken in
	state    []byte     // of hash after them
	whole    []int      // complete, and what was kept for the repair is still there
	changed  bool       // since the last save
	closed   bool
}

// openFiles opens the folder of an object, making it if need be, and answers
// what is complete in it.
func openFiles(state *os.Root, id objectID, d *descriptor, boot string) (_ *objectFiles, err error) {
	dir := id.String()
	if err := state.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	root, err := state.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	f := &objectFiles{
		dir: dir, root: root, geo: d.geometry, want: d.digest, name: d.name, boot: boot,
		parity: map[int]*os.File{}, hash: sha256.New(), complete: make([]byte, (d.generations()+7)/8),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.data, err = root.OpenFile(dataFile, os.O_RDWR|os.O_CREATE, 0o640); err != nil {
		return nil, err
	}
	known := false
	if p, err := readSmall(root, objectFile, controlSize+sha256.Size); err == nil {
		have, err := parseObject(p)
		known = err == nil && have.object() == id
	}
	info, err := f.data.Stat()
	if err != nil {
		return nil, err
	}
	if !known || info.Size() != d.size {
		if err := f.begin(d); err != nil {
			return nil, err
		}
	}
	return f, f.resume()
}

// room is what an object may take of its file system, and whether that is
// memory. A twentieth, or 1 GiB, stays free for the others' parity, for the
// inbox and its status. Tests replace it.
var room = func(f *os.File) (free int64, memory bool, err error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, false, err
	}
	reserve := min(int64(st.Blocks)*st.Bsize/20, 1<<30)
	return int64(st.Bavail)*st.Bsize - reserve, st.Type == unix.TMPFS_MAGIC, nil
}

// begin empties the folder and makes room.
func (f *objectFiles) begin(d *descriptor) error {
	if err := f.sweep(dataFile); err != nil {
		return err
	}
	if err := f.data.Truncate(0); err != nil {
		return err
	}
	free, memory, err := room(f.data)
	if err != nil {
		return err
	}
	if free < d.size {
		return fmt.Errorf("%w: %s needs %d bytes, %d are free", ErrSpace, d.name, d.size, max(free, 0))
	}
	// On tmpfs, to make room is to take memory and to fill it with zeros.
	if memory {
		if err := f.data.Truncate(d.size); err != nil {
			return err
		}
	} else if err := allocate(f.data, d.size); err != nil {
		return err
	}
	// The boot id first: live maps of this run are worth something from now on.
	if err := f.save(f.progress()); err != nil {
		return err
	}
	return replace(f.root, objectFile, encodeObject(d))
}

// progress is what is true now. The caller holds mu.
func (f *objectFiles) progress() progress {
	return progress{Boot: f.boot, Complete: slices.Clone(f.complete), Hashed: f.hashed, Hash: f.state}
}

// save writes what was true before the files were synced.
func (f *objectFiles) save(p progress) error {
	data, err := p.encode()
	if err != nil {
		return err
	}
	return replace(f.root, progressFile, data)
}

// sweep removes all files of the folder but one.
func (f *objectFiles) sweep(keep string) error {
	d, err := f.root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if name != keep {
			if err := remove(f.root, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// resume reads what an earlier run left. After another boot the live maps are
// replaced by the saved ones; what cannot be read counts as not received.
func (f *objectFiles) resume() error {
	sameBoot := false
	if data, err := readSmall(f.root, progressFile, maxProgress); err == nil {
		if p, err := parseProgress(data, f.geo); err == nil {
			sameBoot = p.Boot == f.boot
			f.complete = p.Complete
			if h, ok := f.hash.(encoding.BinaryUnmarshaler); ok && p.Hashed > 0 && h.UnmarshalBinary(p.Hash) == nil {
				f.hashed, f.state = p.Hashed, p.Hash
			} else {
				f.hash.Reset()
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if sameBoot {
		return nil
	}
	return f.restore()
}

// numbered lists the generations that have a file whose name function makes.
func (f *objectFiles) numbered(prefix string, name func(int) string) (list []int, err error) {
	d, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	for _, have := range names {
		n, err := strconv.ParseUint(strings.TrimPrefix(have, prefix), 16, 32)
		if err == nil && have == name(int(n)) && n < uint64(f.geo.generations()) {
			list = append(list, int(n))
		}
	}
	slices.Sort(list)
	return list, nil
}

// restore puts the saved maps in the place of the live ones.
func (f *objectFiles) restore() error {
	live, err := f.numbered("live-", liveName)
	if err != nil {
		return err
	}
	for _, n := range live {
		if err := remove(f.root, liveName(n)); err != nil {
			return err
		}
	}
	id, err := f.id()
	if err != nil {
		return err
	}
	saved, err := f.numbered("saved-", savedName)
	if err != nil {
		return err
	}
	for _, n := range saved {
		p, err := readSmall(f.root, savedName(n), int64(mapSize(f.geo)+sha256.Size))
		if err != nil || checkMap(p, id, n, f.geo, true) != nil {
			continue // it says nothing
		}
		if err := replace(f.root, liveName(n), p[:len(p)-sha256.Size]); err != nil {
			return err
		}
	}
	// From here on the live maps are this boot's.
	return f.save(f.progress())
}

func (f *objectFiles) id() (id objectID, err error) {
	b, err := hex.DecodeString(f.dir)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%s: not the number of an object", f.dir)
	}
	return objectID(b), nil
}

// addTransfer remembers that a transfer carries the object. It is not synced:
// after a power cut the next descriptor says it again.
func (f *objectFiles) addTransfer(n uint64) (err error) {
	t, err := f.root.OpenFile(transferFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	_, err = t.Write(binary.BigEndian.AppendUint64(nil, n))
	return errors.Join(err, t.Close())
}

// knownTransfers lists the last of them.
func (f *objectFiles) knownTransfers() (list []uint64, err error) {
	data, err := readSmall(f.root, transferFile, 8*maxAccepted)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for ; len(data) >= 8; data = data[8:] {
		list = append(list, binary.BigEndian.Uint64(data))
	}
	return list[max(0, len(list)-maxTransfers/maxObjects):], err
}

// parityFile opens the parity of a generation.
func (f *objectFiles) parityFile(n int) (*os.File, error) {
	f.parityMu.Lock()
	defer f.parityMu.Unlock()
	if p := f.parity[n]; p != nil {
		return p, nil
	}
	p, err := f.root.OpenFile(parityName(n), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	f.parity[n] = p
	return p, nil
}

// drop removes what was kept for the repair of a generation. The caller holds
// mu.
func (f *objectFiles) drop(n int) error {
	f.parityMu.Lock()
	var err error
	if p := f.parity[n]; p != nil {
		err = p.Close()
		delete(f.parity, n)
	}
	f.parityMu.Unlock()
	for _, name := range []string{parityName(n), liveName(n), savedName(n)} {
		err = errors.Join(err, remove(f.root, name))
	}
	return err
}

// close lets go of the files; everything stays on disk.
func (f *objectFiles) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	f.parityMu.Lock()
	defer f.parityMu.Unlock()
	var err error
	for n, p := range f.parity {
		err = errors.Join(err, p.Close())
		delete(f.parity, n)
	}
	if f.data != nil {
		err = errors.Join(err, f.data.Close())
	}
	return errors.Join(err, f.root.Close())
}
