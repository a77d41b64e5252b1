package diode

import (
	"crypto/sha256"
	"errors"
	"slices"
)

// saving is what is to be made durable of one object.
type saving struct {
	files *objectFiles
	open  []*generation
	list  []byte // the accepted transfers; only in the first
}

// startSaving has the saver make durable what is there now, unless it is
// still at it.
func (r *Receiver) startSaving() {
	if !r.saving.CompareAndSwap(false, true) {
		return
	}
	r.flush()
	all := []*saving{{list: r.accepted.encode()}}
	for _, o := range r.objects {
		if o.finishing {
			continue
		}
		s := &saving{files: o.files}
		for _, g := range o.open {
			if !g.busy {
				s.open = append(s.open, g)
			}
		}
		all = append(all, s)
	}
	// The saver takes them when everything before was written.
	r.queue <- work{call: func() error {
		r.saves <- all
		return nil
	}}
}

// save is the saver's goroutine.
func (r *Receiver) save() {
	var last []byte
	for all := range r.saves {
		for _, s := range all {
			var err error
			if s.files != nil {
				err = s.save()
			} else if !slices.Equal(s.list, last) {
				last = s.list
				err = replace(r.state, acceptedFile, s.list)
			}
			if err != nil {
				r.fail(err)
			}
		}
		r.saving.Store(false)
	}
}

// A savedMap is a copy of a live map, taken before its files were synced.
type savedMap struct {
	generation int
	bytes      []byte
}

// save syncs the files first and then writes what was in them before.
func (s *saving) save() error {
	f := s.files
	var maps []savedMap
	for _, g := range s.open {
		if m := g.snapshot(); m != nil {
			maps = append(maps, savedMap{g.n, m})
		}
	}
	f.mu.Lock()
	changed, p, whole := f.changed, f.progress(), f.whole
	f.changed, f.whole = false, nil
	f.mu.Unlock()
	if len(maps) == 0 && !changed {
		return nil
	}
	// Without mu: this takes long. The worker may finish the object meanwhile,
	// and then its files are closed.
	err := f.data.Sync()
	for _, m := range maps {
		f.parityMu.Lock()
		parity := f.parity[m.generation]
		f.parityMu.Unlock()
		if parity != nil {
			err = errors.Join(err, parity.Sync())
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	if err != nil {
		return err
	}
	for _, m := range maps {
		if bitSet(f.complete, m.generation) {
			continue
		}
		sum := sha256.Sum256(m.bytes)
		if err := replace(f.root, savedName(m.generation), append(m.bytes, sum[:]...)); err != nil {
			return err
		}
	}
	if !changed {
		return nil
	}
	if err := f.save(p); err != nil {
		return err
	}
	// The maps and the parity of what is complete were kept until here: had
	// the process died, they would have told.
	for _, n := range whole {
		if err := f.drop(n); err != nil {
			return err
		}
	}
	return nil
}
