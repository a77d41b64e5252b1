package diode

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// packet is where every datagram arrives.
func (r *Receiver) packet(p []byte) {
	r.counts.newPackets++
	if kind := r.take(p); kind == typeSymbol || kind == typeFiller {
		r.health.carried++
	}
}

// take checks a datagram, marks and copies; disks and repair are for others.
// It answers the type, 0 for one that was refused.
func (r *Receiver) take(p []byte) (kind byte) {
	c := &r.counts
	var h header
	var payload []byte
	v := otherKey
	for _, k := range r.c.Keys {
		if h, payload, v = k.open(p); v != otherKey {
			break
		}
	}
	if v != accepted {
		c.refused(v)
		return 0
	}
	switch h.kind {
	case typeSymbol:
		r.symbol(h, payload, p)
	case typeDescriptor:
		r.descriptor(h, payload)
	case typeHeartbeat:
		r.heartbeat(h, payload)
	default:
		c.filler.Add(1)
	}
	return h.kind
}

// hear takes note that the link works; called for control packets, which
// come ten times a second while anything does.
func (r *Receiver) hear() {
	r.heard = time.Now()
	if !r.up {
		r.up = true
		r.c.OnEvent(Event{Kind: LinkUp})
	}
}

func (r *Receiver) heartbeat(h header, payload []byte) {
	hb, err := parseHeartbeat(payload)
	if err != nil {
		r.counts.malformed.Add(1)
		return
	}
	if !r.health.beat(h.transfer, h.sequence, hb, time.Now()) {
		r.counts.old.Add(1)
		return
	}
	r.counts.heartbeats.Add(1)
	r.hear()
	r.counts.rate.Store(int64(hb.rate & (1<<63 - 1)))
	if r.health.gone {
		r.up = false
		r.c.OnEvent(Event{Kind: SenderGone})
	}
}

// descriptor makes a transfer known.
func (r *Receiver) descriptor(h header, payload []byte) {
	d, err := parseDescriptor(payload)
	if err != nil {
		r.counts.malformed.Add(1)
		return
	}
	r.counts.descriptors.Add(1)
	r.hear()
	if r.accepted.set[h.transfer] {
		return
	}
	o := r.transfers[h.transfer]
	if o == nil {
		if o = r.attach(h.transfer, d); o == nil {
			return
		}
	}
	if o.id != d.object() {
		r.counts.malformed.Add(1) // one number, two objects
		return
	}
	o.heard, o.transfers[h.transfer] = r.tick, r.tick
	if o.pass != d.pass || !d.ended {
		o.ended = 0
	}
	o.pass, o.passes, o.parity = d.pass, d.passes, d.parity
	if d.ended {
		o.ended++
	}
}

// tell reports, once, what the last pass has left open. It waits for a second
// descriptor, since packets may be out of order, and for repairs under way.
func (r *Receiver) tell(o *object) {
	if o.left == 0 || o.ended < 2 || o.pass < o.passes || o.told == o.pass {
		return
	}
	if o.repairing() {
		return
	}
	o.told = o.pass
	e := Event{Kind: Incomplete, Object: o.id.String(), Name: o.name, Size: o.size, Missing: o.left}
	if r.c.Tickets {
		gaps, err := r.gaps(o)
		if err != nil {
			r.c.Log.Warn("read gaps", slog.String("object", o.name), slog.Any("error", err))
		} else {
			e.Ticket = newTicket(o.id, gaps).String()
		}
	}
	r.c.OnEvent(e)
}

// attach finds or makes the object of a transfer; nil: rejected.
func (r *Receiver) attach(transfer uint64, d *descriptor) *object {
	if len(r.transfers) >= maxTransfers && !r.forget() {
		r.counts.rejected.Add(1)
		r.reject(transfer, d, errTooMany)
		return nil
	}
	id := d.object()
	o := r.objects[id]
	if o == nil {
		var err error
		if o, err = r.openObject(id, d); errors.Is(err, errRoom) {
			return nil // the next descriptor finds it
		} else if err != nil {
			r.counts.rejected.Add(1)
			r.reject(transfer, d, err)
			return nil
		}
	}
	if _, known := o.transfers[transfer]; !known {
		if err := o.files.addTransfer(transfer); err != nil {
			r.fail(err)
			return nil
		}
	}
	o.transfers[transfer] = r.tick
	r.transfers[transfer] = o
	r.early.replay(transfer, func(p []byte) { r.take(p) })
	return o
}

// reject says it once for a transfer, not for each of its descriptors.
func (r *Receiver) reject(transfer uint64, d *descriptor, err error) {
	if r.early.rejected(transfer) {
		return
	}
	r.c.OnEvent(Event{Kind: Rejected, Object: d.object().String(), Name: d.name, Size: d.size, Reason: err.Error()})
}

var errTooMany = errors.New("as many objects or transfers as may be are under way")

// errRoom says that room is being made.
var errRoom = errors.New("room is being made")

// makeRoom drops the objects of which nothing came for longest, if they are
// stale and enough to make room for d.
func (r *Receiver) makeRoom(id objectID, d *descriptor) (made bool, err error) {
	type old struct {
		id   objectID
		d    *descriptor
		last time.Time
	}
	var all []old
	need, err := r.lacking(d.size)
	if need <= 0 || err != nil {
		return false, err
	}
	bytes := int64(0)
	names, err := r.objectNames()
	if err != nil {
		return false, err
	}
	for _, name := range names {
		other, err := r.readObject(name)
		if err != nil || other.object() == id {
			continue
		}
		if o := r.objects[other.object()]; o != nil && (o.finishing || o.repairing() || r.tick-o.heard < quiet) {
			continue
		}
		info, err := r.state.Stat(name + "/" + progressFile)
		if err != nil || time.Since(info.ModTime()) < stale {
			continue
		}
		all = append(all, old{other.object(), other, info.ModTime()})
		bytes += other.size
	}
	if bytes < need {
		return false, nil
	}
	slices.SortFunc(all, func(a, b old) int { return a.last.Compare(b.last) })
	for bytes = 0; bytes < need; all = all[1:] {
		o := all[0]
		bytes += o.d.size
		if open := r.objects[o.id]; open != nil {
			r.closeObject(open)
		}
		// Behind what is on its way to the disk.
		r.after(func() error { return r.state.RemoveAll(o.id.String()) })
		r.c.OnEvent(Event{
			Kind: Dropped, Object: o.id.String(), Name: o.d.name, Size: o.d.size,
			Reason: fmt.Sprintf("nothing came of it since %s, and %s needs its room", o.last.UTC().Format(time.RFC3339), d.name),
		})
	}
	return true, nil
}

// lacking is what an object of this size lacks of room.
func (r *Receiver) lacking(size int64) (int64, error) {
	d, err := r.state.Open(".")
	if err != nil {
		return 0, err
	}
	free, _, err := room(d)
	return size - free, errors.Join(err, d.Close())
}

// objectNames lists what lies among the objects' folders.
func (r *Receiver) objectNames() ([]string, error) {
	d, err := r.state.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}

// readObject reads what an object's folder says of it. The lock, the list, and
// folders that say nothing are errors.
func (r *Receiver) readObject(name string) (*descriptor, error) {
	p, err := readSmall(r.state, name+"/"+objectFile, controlSize+sha256.Size)
	if err != nil {
		return nil, err
	}
	d, err := parseObject(p)
	if err == nil && d.object().String() != name {
		err = fmt.Errorf("%s holds the object %s", name, d.object())
	}
	return d, err
}

// openObject takes up an object where an earlier run left it.
func (r *Receiver) openObject(id objectID, d *descriptor) (*object, error) {
	if len(r.objects) >= maxObjects && !r.evict() {
		return nil, errTooMany
	}
	files, err := openFiles(r.state, id, d, r.boot)
	if errors.Is(err, ErrSpace) {
		// Nothing of it is there, and the next descriptor would ask again.
		err = errors.Join(err, r.state.RemoveAll(id.String()))
		made, roomErr := r.makeRoom(id, d)
		if err = errors.Join(err, roomErr); made {
			return nil, errRoom
		}
	}
	if err != nil {
		return nil, err
	}
	n := d.generations()
	o := &object{
		descriptor: *d, id: id, total: n, transfers: map[uint64]int64{}, heard: r.tick, files: files,
		done: slices.Clone(files.complete), left: n - ones(files.complete, n),
	}
	r.objects[id] = o
	r.c.OnEvent(Event{Kind: Started, Object: id.String(), Name: o.name, Size: o.size, Missing: o.left})
	if err := r.lookOver(o); err != nil {
		return nil, err
	}
	r.finish(o)
	return o, nil
}

// lookOver repairs what an earlier run had received enough of.
func (r *Receiver) lookOver(o *object) error {
	maps, err := o.files.numbered("live-", liveName)
	if err != nil {
		return err
	}
	for _, n := range maps {
		if bitSet(o.done, n) {
			continue
		}
		if g := r.generation(o, n); g != nil && !g.busy {
			r.closeGeneration(g)
		}
	}
	return nil
}

// reopen takes up the objects that an earlier run left, so that the status
// knows them, and finishes what is whole. They make room at once.
func (r *Receiver) reopen() error {
	names, err := r.objectNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		d, err := r.readObject(name)
		if err != nil || len(r.objects) >= maxObjects {
			continue
		}
		o, err := r.openObject(d.object(), d)
		if err != nil {
			return err
		}
		o.heard = -quiet
		// Symbols that come before the next descriptor have their place then.
		known, err := o.files.knownTransfers()
		if err != nil {
			return err
		}
		for _, t := range known {
			if len(r.transfers) < maxTransfers {
				o.transfers[t], r.transfers[t] = -quiet, o
			}
		}
	}
	return nil
}

// evict makes room: the object that has been silent for longest, and that no
// worker has in hand.
func (r *Receiver) evict() bool {
	var oldest *object
	for _, o := range r.objects {
		if !o.finishing && !o.repairing() && r.tick-o.heard >= quiet && (oldest == nil || o.heard < oldest.heard) {
			oldest = o
		}
	}
	if oldest == nil {
		return false
	}
	r.closeObject(oldest)
	return true
}

// repairing reports whether a worker has one of its generations.
func (o *object) repairing() bool {
	return slices.ContainsFunc(o.open, func(g *generation) bool { return g.busy })
}

// forget makes room for a transfer: the one whose descriptor came longest ago
// goes. Nothing is lost with it. What arrived of its object is on disk, and its
// next descriptor makes it known again.
func (r *Receiver) forget() bool {
	var oldest uint64
	var from *object
	for t, o := range r.transfers {
		if heard := o.transfers[t]; r.tick-heard >= quiet && (from == nil || heard < from.transfers[oldest]) {
			oldest, from = t, o
		}
	}
	if from == nil {
		return false
	}
	delete(r.transfers, oldest)
	delete(from.transfers, oldest)
	return true
}

// closeObject lets go of an object; all of it stays on disk.
func (r *Receiver) closeObject(o *object) {
	for _, g := range slices.Clone(o.open) {
		r.closeGeneration(g)
	}
	for t := range o.transfers {
		delete(r.transfers, t)
	}
	delete(r.objects, o.id)
	if r.lastObj == o {
		r.lastObj = nil
	}
	// What is on its way to the disk goes first.
	r.after(o.files.close)
}

// symbol places one symbol.
func (r *Receiver) symbol(h header, payload, whole []byte) {
	c := &r.counts
	o := r.lastObj
	if o == nil || h.transfer != r.last {
		if o = r.transfers[h.transfer]; o == nil {
			switch {
			case r.accepted.set[h.transfer]:
				c.old.Add(1)
			case r.early.keep(r.tick, h.transfer, whole):
			default:
				c.early.Add(1)
			}
			return
		}
		r.last, r.lastObj = h.transfer, o
	}
	if int64(h.generation) >= int64(o.total) || int(h.column) >= o.columns || h.row >= allRows || len(payload) != o.payload {
		c.malformed.Add(1)
		return
	}
	n := int(h.generation)
	if bitSet(o.done, n) {
		c.unneeded.Add(1)
		return
	}
	g := r.generation(o, n)
	if g == nil || g.busy {
		c.unneeded.Add(1)
		return
	}
	g.used = r.tick
	r.place(g, h, payload)
}

// place marks a symbol and hands its bytes on.
func (r *Receiver) place(g *generation, h header, payload []byte) {
	c, o := &r.counts, g.object
	row, column := int(h.row), int(h.column)
	bit := row*o.columns + column
	if row < o.k {
		if bit >= g.symbols {
			c.malformed.Add(1) // a known zero is never sent
			return
		}
		if !g.data(bit, column) {
			c.duplicate.Add(1)
			return
		}
		at := int64(bit) * int64(o.payload)
		r.keep(g, dataSegment, at+int64(g.n)*o.generation(), bit, payload[:min(int64(len(payload)), o.bytes(g.n)-at)])
	} else {
		fresh, needed := true, r.parity < r.c.Parity
		if needed {
			fresh, needed = g.parity(bit, column)
		} else {
			c.spoolFull.Add(1)
		}
		switch {
		case !fresh:
			c.duplicate.Add(1)
			return
		case !needed:
			c.unneeded.Add(1)
			return
		}
		r.parity += int64(o.payload)
		r.keep(g, paritySegment, int64(bit-o.k*o.columns)*int64(o.payload), bit, payload)
	}
	g.topRow = max(g.topRow, row+1)
	c.newSymbols++
	if g.short == 0 {
		r.repair(g)
	}
}

// generation finds an open generation or opens it.
func (r *Receiver) generation(o *object, n int) *generation {
	for _, g := range o.open {
		if g.n == n {
			return g
		}
	}
	if len(o.open) >= maxOpen {
		// Not one that is being repaired: that one goes by itself.
		var oldest *generation
		for _, g := range o.open {
			if !g.busy && (oldest == nil || g.used < oldest.used || g.used == oldest.used && g.n < oldest.n) {
				oldest = g
			}
		}
		if oldest != nil {
			r.closeGeneration(oldest)
		}
	}
	live, err := openMap(o.files.root, liveName(n), o.id, n, o.geometry)
	if err != nil {
		r.fail(err)
		return nil
	}
	g := newGeneration(o, n, live)
	o.open = append(o.open, g)
	if g.short == 0 {
		r.repair(g)
	}
	return g
}

// closeGeneration lets go of a generation that is not whole.
func (r *Receiver) closeGeneration(g *generation) {
	g.object.open = slices.DeleteFunc(g.object.open, func(other *generation) bool { return other == g })
	r.after(g.unmap)
}

// repair hands a generation that has enough to the worker, behind everything
// of it that is still to be written.
func (r *Receiver) repair(g *generation) {
	g.busy = true
	r.flush()
	r.jobs.Add(1)
	r.queue <- work{generation: g}
}

// repaired is called when a generation is whole.
func (r *Receiver) repaired(g *generation, symbols int) {
	o := g.object
	o.open = slices.DeleteFunc(o.open, func(other *generation) bool { return other == g })
	for _, n := range g.have {
		r.parity -= int64(n) * int64(o.payload)
	}
	// What an earlier run spooled was not counted by this one.
	r.parity = max(r.parity, 0)
	r.counts.repaired.Add(int64(symbols))
	r.counts.generations.Add(1)
	setRange(o.done, g.n, 1)
	o.left--
	r.finish(o)
	r.jobs.Add(-1) // now that the next is counted
}

// finish hands a whole object to the worker.
func (r *Receiver) finish(o *object) {
	if o.left > 0 || o.finishing || r.ending {
		return
	}
	o.finishing = true
	r.jobs.Add(1)
	r.queue <- work{object: o}
}

// finished is called when the object is in the inbox, or was dropped.
func (r *Receiver) finished(o *object, err error) {
	defer r.jobs.Add(-1)
	// After a wrong digest too: the same bytes would come again.
	for t := range o.transfers {
		r.accepted.add(t)
	}
	if err == nil {
		r.counts.objects.Add(1)
		r.c.OnEvent(Event{Kind: Completed, Object: o.id.String(), Name: o.name, Size: o.size})
	} else {
		r.counts.failed.Add(1)
		r.c.OnEvent(Event{Kind: Failed, Object: o.id.String(), Name: o.name, Size: o.size, Reason: err.Error()})
	}
	for t := range o.transfers {
		delete(r.transfers, t)
	}
	delete(r.objects, o.id)
	if r.lastObj == o {
		r.lastObj = nil
	}
}
