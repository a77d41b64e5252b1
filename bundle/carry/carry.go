// Package carry writes a sealed bundle onto media that a person carries:
// sticks, discs, tapes with a file system.
//
// Specification: docs/media.md; what lies in a bundle is docs/bundle-format.md.
//
// Invariants:
//   - The source is only read. Nothing on a medium is touched outside the
//     bundle's own folder, and inside it only files of this bundle.
//   - No file gets its name before its bytes were read back from the medium
//     and compared, unless the caller asked for that. What is found under a
//     name already is read back too.
//   - A fault of one medium costs what lay on it and nothing more; a fault of
//     the source ends the run.
//   - A label speaks of volumes that are there, or says that it is not
//     finished.
//   - The same bundle on the same media gives the same files.
//
// FAT has no journal and no atomic rename, so a kill there may leave a name
// without its bytes. Nothing is believed by its name: a rerun reads it back.
//
// Limits are the constants of this package. The caller keeps other writers
// away from the media.
package carry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/time/rate"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Options are the choices of a run.
type Options struct {
	// Media are folders, the mount points. The first that has room takes the
	// next volume.
	Media []string
	// Only are the volumes to carry, from 1, and no recovery files; nil means
	// all.
	Only []int
	// NoVerify leaves out reading back what was written. What was there
	// before is read all the same.
	NoVerify bool
	OnEvent  func(artifact.Event)
	// Bandwidth is how many bytes a second are written at most; 0 is no bound.
	Bandwidth int64
}

// A Report says what lies where.
type Report struct {
	Folder string // the bundle's, on every medium
	ID     artifact.Digest
	Media  []Medium // in the order of Options.Media
}

// A Medium is one of the media after the run.
type Medium struct {
	Dir string // as it was given
	// Volumes are those that lie there whole and right, ascending, and
	// Recovery the names of recovery files.
	Volumes  []int
	Recovery []string
	// Written are the volumes that this run wrote; the others were there.
	Written []int
	Bytes   int64 // of volumes and recovery files
	// Err is why the medium takes nothing more: it is full, or bad. A bad one
	// may still hold volumes that are right.
	Err error
}

// A RoomError says what found no place on any medium. Everything else is
// where the report says, and stays good: the rest may go to other media.
type RoomError struct {
	Bundle   string // for people
	Volumes  []int
	Recovery []string
	Need     int64   // bytes of these
	Media    []error // what each medium says
}

func (e *RoomError) Error() string {
	var what []string
	if len(e.Volumes) > 0 {
		list := make([]string, len(e.Volumes))
		for i, v := range e.Volumes {
			list[i] = fmt.Sprint(v)
		}
		what = append(what, "volumes "+strings.Join(list, ", "))
	}
	if len(e.Recovery) > 0 {
		what = append(what, strings.Join(e.Recovery, ", "))
	}
	if len(what) == 0 {
		what = []string{"the bundle's documents"}
	}
	msg := fmt.Sprintf("%s: no medium takes %s: %d bytes more are needed", e.Bundle, strings.Join(what, " and "), e.Need)
	for _, err := range e.Media {
		msg += "\n" + err.Error()
	}
	return msg
}

// Unwrap gives what each medium says.
func (e *RoomError) Unwrap() []error { return e.Media }

// Copy writes the bundle in dir onto the media and returns when all of it is
// there, read back and synced. Volumes that are there already, whole and
// right, are not written again, so that a run that ended early is finished by
// running it again.
//
// A *RoomError comes beside a report; after any other error there is none.
func Copy(ctx context.Context, dir string, o Options) (*Report, error) {
	return copyTo(ctx, dir, o, device{})
}

func copyTo(ctx context.Context, dir string, o Options, l layer) (rep *Report, err error) {
	if len(o.Media) == 0 {
		return nil, errors.New("carry bundle: no medium is given")
	}
	src, err := openSource(dir, o.Only)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	c := &carrier{src: src, layer: l, event: o.OnEvent, verify: !o.NoVerify}
	if c.event == nil {
		c.event = func(artifact.Event) {}
	}
	if o.Bandwidth > 0 {
		c.pace = rate.NewLimiter(rate.Limit(o.Bandwidth), chunkSize)
	}
	var free func() error
	if c.buf, free, err = alignedBuffer(chunkSize); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, free()) }()
	defer func() {
		for _, m := range c.media {
			err = errors.Join(err, m.root.Close())
		}
	}()
	if err := c.openMedia(dir, o.Media); err != nil {
		return nil, err
	}
	left, err := c.run(ctx)
	if err != nil {
		return nil, err
	}
	rep = c.report()
	if left != nil {
		return rep, left
	}
	return rep, nil
}

// A carrier is one run.
type carrier struct {
	src    *source
	layer  layer
	event  func(artifact.Event)
	verify bool
	pace   *rate.Limiter // nil: no bound
	buf    []byte        // aligned for reads past the page cache
	media  []*medium
}

// openMedia refuses what must not be written to.
func (c *carrier) openMedia(dir string, media []string) error {
	from, err := os.Stat(dir)
	if err != nil {
		return err
	}
	var seen []os.FileInfo
	for _, name := range media {
		root, err := os.OpenRoot(name)
		if err != nil {
			return fmt.Errorf("open medium: %w", err)
		}
		m := &medium{carrier: c, dir: name, root: root, folder: c.src.cut.Folder, have: make(map[string]item), written: make(map[string]bool)}
		c.media = append(c.media, m)
		info, err := root.Stat(".")
		if err != nil {
			return fmt.Errorf("open medium %s: %w", name, err)
		}
		if slices.ContainsFunc(seen, func(i os.FileInfo) bool { return os.SameFile(i, info) }) {
			return fmt.Errorf("medium %s is given twice", name)
		}
		seen = append(seen, info)
		if to, err := os.Stat(filepath.Join(name, m.folder)); err == nil && os.SameFile(from, to) {
			return fmt.Errorf("medium %s is the folder that holds the bundle itself", name)
		}
	}
	return nil
}

// run gives what found no place.
func (c *carrier) run(ctx context.Context) (*RoomError, error) {
	for _, m := range c.media {
		if err := m.refuseOther(); err != nil {
			return nil, err
		}
	}
	for _, m := range c.media {
		if err := m.look(ctx); err != nil {
			return nil, err
		}
	}
	pending := slices.DeleteFunc(slices.Clone(c.src.items), c.lies)
	// What lies on media is finished in any case: documents, labels.
	if len(pending) > 0 && !c.anyFits(pending) && !slices.ContainsFunc(c.media, (*medium).used) {
		return c.roomError(pending), nil
	}
	var total int64
	for _, it := range pending {
		total += it.size
	}
	c.event(artifact.Event{Stage: "carry", TotalBytes: total, TotalItems: len(pending)})
	for {
		left, err := c.placeAll(ctx, pending)
		if err != nil {
			return nil, err
		}
		lost, err := c.checkAll(ctx)
		if err != nil {
			return nil, err
		}
		if len(lost) > 0 {
			// Each round finds a further medium bad, so this ends.
			pending = append(lost, left...)
			continue
		}
		ok, err := c.finish(ctx)
		if err != nil {
			return nil, err
		}
		if len(left) > 0 || !ok {
			return c.roomError(left), nil
		}
		return nil, nil
	}
}

// lies reports whether an item is on a medium.
func (c *carrier) lies(it item) bool {
	return slices.ContainsFunc(c.media, func(m *medium) bool { return m.have[it.name].name != "" })
}

// anyFits looks, before anything is written, whether something can be.
func (c *carrier) anyFits(pending []item) bool {
	for _, it := range pending {
		for _, m := range c.media {
			if m.fault == nil && m.room(it) == nil {
				return true
			}
		}
	}
	return false
}

// placeAll writes each item to the first medium that takes it, and gives back
// those that none takes.
func (c *carrier) placeAll(ctx context.Context, pending []item) (left []item, err error) {
	for _, it := range pending {
		placed := false
		for _, m := range c.media {
			if !m.fits(it) {
				continue
			}
			if placed, err = m.take(ctx, it); err != nil {
				return nil, err
			}
			if placed {
				break
			}
		}
		if !placed {
			left = append(left, it)
		}
	}
	return left, nil
}

// checkAll looks at every medium that was written to as a whole, and gives
// back what must go elsewhere.
func (c *carrier) checkAll(ctx context.Context) (lost []item, err error) {
	for _, m := range c.media {
		gone, err := m.secondLook(ctx)
		if err != nil {
			return nil, err
		}
		for _, it := range gone {
			if !c.lies(it) {
				lost = append(lost, it)
			}
		}
	}
	return lost, nil
}

// finish writes the labels. A bundle without volumes has its documents on the
// first medium that takes them; it reports false where none does.
func (c *carrier) finish(ctx context.Context) (bool, error) {
	if len(c.src.items) == 0 && !slices.ContainsFunc(c.media, (*medium).used) {
		for _, m := range c.media {
			if !m.fits(item{}) {
				continue
			}
			if err := m.begin(ctx); err != nil {
				return false, err
			}
			if m.fault == nil {
				break
			}
		}
	}
	ok := len(c.src.items) > 0
	for _, m := range c.media {
		if !m.used() {
			continue
		}
		if err := m.finish(ctx); err != nil {
			return false, err
		}
		ok = ok || m.fault == nil
	}
	return ok, nil
}

func (c *carrier) roomError(left []item) *RoomError {
	e := &RoomError{Bundle: c.src.name}
	for _, it := range left {
		e.Need += it.size
		if it.vol > 0 {
			e.Volumes = append(e.Volumes, it.vol)
		} else {
			e.Recovery = append(e.Recovery, it.name)
		}
	}
	slices.Sort(e.Volumes)
	for _, m := range c.media {
		e.Media = append(e.Media, m.says(left))
	}
	return e
}

func (c *carrier) report() *Report {
	rep := &Report{Folder: c.src.cut.Folder, ID: c.src.id}
	for _, m := range c.media {
		out := Medium{Dir: m.dir, Err: m.fault, Volumes: m.volumes()}
		for _, it := range m.holding() {
			out.Bytes += it.size
			if it.vol == 0 {
				out.Recovery = append(out.Recovery, it.name)
			} else if m.written[it.name] {
				out.Written = append(out.Written, it.vol)
			}
		}
		rep.Media = append(rep.Media, out)
	}
	return rep
}
