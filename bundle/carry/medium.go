package carry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// dirMode and fileMode let everybody read: who reads inside has other ids.
const (
	dirMode  = 0o755
	fileMode = 0o644
)

// labelRoom is what a label's file may have, rounded up generously.
const labelRoom = 32 << 10

// A medium is one folder that a bundle is written to. Its fields belong to the
// one goroutine of the run.
type medium struct {
	*carrier
	dir    string
	root   *os.Root
	folder string // the bundle's, below root

	space   space
	have    map[string]item // by name: whole and right
	written map[string]bool // in this run
	missing []document      // that are to be written yet
	begun   bool            // this run has written something
	dirty   bool            // an item was written, or begun, since the last look at all
	last    string          // the item, if the last one is whole
	fault   error           // why it takes nothing more
}

// A fault is what a medium did wrong. It never ends a run.
type fault struct {
	dir, what string
	err       error
}

func (f *fault) Error() string {
	if errors.Is(f.err, syscall.ENOSPC) {
		return fmt.Sprintf("%s: full: %s: %v", f.dir, f.what, f.err)
	}
	return fmt.Sprintf("%s: bad: %s: %v", f.dir, f.what, f.err)
}

func (f *fault) Unwrap() error { return f.err }

// errDiffers is the fault of a stick that does not keep what it is given.
var errDiffers = errors.New("what was read back is not what was written")

func (m *medium) fails(what string, err error) error {
	return &fault{m.dir, what, err}
}

// blame keeps a fault of the medium and hands on everything else.
func (m *medium) blame(err error) error {
	f, ok := errors.AsType[*fault](err)
	if !ok {
		return err
	}
	m.fault = f
	m.event(artifact.Event{Stage: "carry", Item: m.dir, Note: f.Error()})
	return nil
}

func (m *medium) path(name string) string { return path.Join(m.folder, name) }

// used reports whether the bundle lies there, or a part of it.
func (m *medium) used() bool { return len(m.have) > 0 || m.begun }

// holding lists what is there, in the bundle's order.
func (m *medium) holding() []item {
	return slices.DeleteFunc(m.mayHave(), func(it item) bool { return m.have[it.name].name == "" })
}

func (m *medium) volumes() []int {
	var list []int
	for _, it := range m.holding() {
		if it.vol > 0 {
			list = append(list, it.vol)
		}
	}
	return list
}

// refuseOther looks whether the medium has this bundle in another form, which
// must not be mixed with this one. What cannot be read is not a bundle, and is
// replaced.
func (m *medium) refuseOther() error {
	r, err := bundle.Open(filepath.Join(m.dir, m.folder))
	if err != nil {
		return nil //nolint:nilerr // nothing is there, or half a bundle
	}
	there, err := identify(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil //nolint:nilerr // half a bundle
	}
	cut := there.cut
	what := ""
	switch {
	case there.id != m.src.id:
		what = "another bundle under the same name"
	case cut.VolumeSize != m.src.cut.VolumeSize || !slices.Equal(cut.Volumes, m.src.cut.Volumes):
		what = "this bundle in another cut, or encrypted at another time, or not"
	case slices.ContainsFunc(cut.KeyIDs, func(id string) bool { return !slices.Contains(m.src.cut.KeyIDs, id) }):
		what = "this bundle with signatures that the source lacks"
	default:
		return nil
	}
	return fmt.Errorf("medium %s holds %s; remove the folder %s there first", m.dir, what, m.folder)
}

// look finds what is there already, and removes what a killed run left.
func (m *medium) look(ctx context.Context) error {
	return m.blame(m.lookAt(ctx))
}

func (m *medium) lookAt(ctx context.Context) error {
	m.missing = m.src.docs
	if _, err := m.root.Lstat(m.folder); err == nil {
		if err := m.sweep(); err != nil {
			return err
		}
		m.missing = nil
		for _, d := range m.src.docs {
			if !m.same(d) {
				m.missing = append(m.missing, d)
			}
		}
		for _, it := range m.mayHave() {
			if err := m.find(ctx, it); err != nil {
				return err
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return m.fails("look at "+m.folder, err)
	}
	return m.measure()
}

// mayHave lists all volumes, and the recovery files that are carried: a label
// names what lies there, whether this run was asked for it or not.
func (m *medium) mayHave() []item {
	list := slices.Clone(m.src.volumes)
	for _, it := range m.src.items {
		if it.vol == 0 {
			list = append(list, it)
		}
	}
	return list
}

// sweep removes temporary files. Their names are known, so a hostile medium is
// not listed.
func (m *medium) sweep() error {
	names := []string{labelText, labelPage}
	for _, d := range m.src.docs {
		names = append(names, d.name)
	}
	for _, it := range m.mayHave() {
		names = append(names, it.name)
	}
	for _, name := range names {
		if err := m.remove(tempName(name)); err != nil {
			return err
		}
	}
	failpoint.Here("carry.swept")
	return nil
}

func tempName(name string) string {
	return path.Join(path.Dir(name), durable.TempPrefix+path.Base(name))
}

// remove looks first: a read-only medium that lacks nothing is no fault.
func (m *medium) remove(name string) error {
	_, err := m.root.Lstat(m.path(name))
	if err == nil {
		err = m.root.Remove(m.path(name))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m.fails("remove "+name, err)
	}
	return nil
}

// find reads back a file that may be there. One that is to be carried and is
// wrong makes room for the right one; another is left to those who know why
// it is there.
func (m *medium) find(ctx context.Context, it item) error {
	info, err := m.root.Lstat(m.path(it.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return m.fails("look at "+it.name, err)
	}
	err = errDiffers
	if info.Mode().IsRegular() && info.Size() == it.size {
		err = m.reread(ctx, it.name, it)
	}
	switch {
	case err == nil:
		m.have[it.name] = it
		return nil
	case !errors.Is(err, errDiffers): // an I/O error, or the run was stopped
		return err
	case !m.src.wanted[it.name]:
		return nil
	}
	failpoint.Here("carry.wrong-found")
	return m.remove(it.name)
}

// same reports whether a document is there already.
func (m *medium) same(d document) bool {
	info, err := m.root.Lstat(m.path(d.name))
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(d.data)) {
		return false
	}
	f, err := m.root.OpenFile(m.path(d.name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	got, err := io.ReadAll(io.LimitReader(f, int64(len(d.data))+1))
	return errors.Join(err, f.Close()) == nil && bytes.Equal(got, d.data)
}

// measure looks at the file system anew.
func (m *medium) measure() (err error) {
	if m.space, err = m.layer.space(m.root); err != nil {
		return m.fails("look at the free room", err)
	}
	return nil
}

// fits reports whether the medium takes an item now.
func (m *medium) fits(it item) bool {
	return m.fault == nil && m.blame(m.measure()) == nil && m.fault == nil && m.room(it) == nil
}

// room says why a file does not fit, or nothing. item{} asks for the
// documents alone.
func (m *medium) room(it item) error {
	if it.size > m.space.maxFile {
		return fmt.Errorf("%s: %s has %d bytes, and %s holds no file over %d bytes: cut the bundle anew for it",
			m.dir, it.name, it.size, m.space.kind, m.space.maxFile)
	}
	// A label is replaced by a second file of the same size, twice; each new
	// folder takes a block.
	need := 4*m.rounded(labelRoom) + 4*m.space.block + m.rounded(it.size)
	for _, d := range m.missing {
		need += m.rounded(int64(len(d.data)))
	}
	if need > m.space.free {
		return fmt.Errorf("%s: %d bytes are free, %d are needed for the next file", m.dir, m.space.free, need)
	}
	return nil
}

func (m *medium) rounded(n int64) int64 {
	return (n + m.space.block - 1) / m.space.block * m.space.block
}

// says gives the reason why the medium did not take what is left.
func (m *medium) says(left []item) error {
	if m.fault != nil {
		return m.fault
	}
	least := item{}
	for i, it := range left {
		if i == 0 || it.size < least.size {
			least = it
		}
	}
	if err := m.room(least); err != nil {
		return err
	}
	return fmt.Errorf("%s: takes more", m.dir)
}

// take writes an item. It reports false where the medium failed; an error is
// not the medium's.
func (m *medium) take(ctx context.Context, it item) (bool, error) {
	if err := m.begin(ctx); err != nil || m.fault != nil {
		return false, err
	}
	m.dirty, m.last = true, ""
	if err := m.blame(m.put(ctx, it, nil)); err != nil || m.fault != nil {
		return false, err
	}
	m.have[it.name], m.last = it, it.name
	m.written[it.name] = true
	m.event(artifact.Event{Stage: "carry", Items: 1})
	return true, nil
}

// begin writes the documents and a label that promises nothing, once.
func (m *medium) begin(ctx context.Context) error {
	if m.begun {
		return nil
	}
	m.begun = true
	docs, err := m.src.label(nil, true)
	if err != nil {
		return err
	}
	return m.blame(m.putAll(ctx, slices.Concat(m.missing, docs), &m.missing))
}

// putAll writes documents; done, where it is given, loses what is there.
func (m *medium) putAll(ctx context.Context, docs []document, done *[]document) error {
	for _, d := range docs {
		if m.same(d) {
			continue
		}
		it := item{name: d.name, size: int64(len(d.data)), sum: artifact.Sum(d.data)}
		if err := m.put(ctx, it, d.data); err != nil {
			return err
		}
	}
	if done != nil {
		*done = nil
	}
	return nil
}

// secondLook reads again what was written before the last item: a stick that
// claims more room than it has overwrites its beginning. It gives back what
// is not there any more.
func (m *medium) secondLook(ctx context.Context) (lost []item, err error) {
	if len(m.have) > 0 && len(m.missing) > 0 && m.fault == nil {
		// Volumes of an earlier run, whose documents were lost.
		if err := m.begin(ctx); err != nil {
			return nil, err
		}
	}
	if len(m.have) > 0 && len(m.missing) > 0 {
		return m.giveUp(), nil
	}
	if !m.verify || !m.dirty {
		return nil, nil
	}
	m.dirty = false
	failpoint.Here("carry.second-look")
	for _, d := range m.src.docs {
		it := item{name: d.name, size: int64(len(d.data)), sum: artifact.Sum(d.data)}
		if err := m.reread(ctx, d.name, it); err != nil {
			if err := m.blame(err); err != nil {
				return nil, err
			}
			return m.giveUp(), nil
		}
	}
	for _, it := range m.holding() {
		if it.name == m.last {
			continue
		}
		err := m.reread(ctx, it.name, it)
		if err == nil {
			continue
		}
		if err := m.blame(err); err != nil {
			return nil, err
		}
		lost = append(lost, m.lose(it))
	}
	return lost, nil
}

// lose takes a wrong file off the medium. Where that fails too, the inside
// will name it; the fault is known already.
func (m *medium) lose(it item) item {
	_ = m.root.Remove(m.path(it.name))
	delete(m.have, it.name)
	delete(m.written, it.name)
	return it
}

// giveUp takes the bundle off a medium that does not keep its documents:
// beside other media they would only mislead.
func (m *medium) giveUp() []item {
	lost := m.holding()
	for _, d := range m.src.docs {
		_ = m.root.Remove(m.path(d.name))
	}
	for _, it := range lost {
		if m.src.wanted[it.name] {
			_ = m.root.Remove(m.path(it.name))
		}
	}
	clear(m.have)
	clear(m.written)
	m.missing = nil
	return lost
}

// finish writes the label of what is there and lets the device have
// everything.
func (m *medium) finish(ctx context.Context) error {
	docs, err := m.src.label(m.volumes(), false)
	if err != nil {
		return err
	}
	err = m.putAll(ctx, docs, nil)
	if err == nil && m.begun {
		err = m.syncAll()
	}
	if m.fault != nil {
		// Its fault is known; a label that says NOT FINISHED is true.
		if _, ok := errors.AsType[*fault](err); ok {
			return nil
		}
	}
	return m.blame(err)
}
