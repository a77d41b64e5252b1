package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Cut is how a bundle lies on disk, as the parts that nobody signed claim.
type Cut struct {
	// Folder is the name that the bundle's folder has on every medium.
	Folder string
	// VolumeSize is the cap that the volumes were cut for.
	VolumeSize int64
	Volumes    []VolumeInfo
	// KeyIDs are those that the signatures name, in the envelope's order.
	KeyIDs []string
}

// Cut reads volumes.json. Of an encrypted bundle that was not decrypted it
// gives the encrypted volumes, the signers of their list, and no VolumeSize,
// which only those know who can read it. Use what it gives to copy files and to
// show them, never to decide what is accepted.
func (r *Reader) Cut() (*Cut, error) {
	if r.list != nil && r.m == nil {
		if err := r.list.parse(); err != nil {
			return nil, err
		}
		return newCut(folderName(r.list.Stream, r.list.Seq, r.list.Bundle), 0, r.list.volumes, r.list.env), nil
	}
	if err := r.layout(); err != nil {
		return nil, err
	}
	e, _, err := openEnvelope(r.envelope)
	if err != nil {
		return nil, err
	}
	return newCut(folderName(r.m.Stream, r.m.Seq, r.id), r.index.VolumeSize, r.index.Volumes, e), nil
}

func newCut(folder string, volumeSize int64, volumes []VolumeInfo, signed *envelope) *Cut {
	c := &Cut{Folder: folder, VolumeSize: volumeSize, Volumes: slices.Clone(volumes)}
	for _, s := range signed.Signatures {
		c.KeyIDs = append(c.KeyIDs, s.KeyID)
	}
	return c
}

// Recut cuts the bundle that lies on media, the folders of [Open], into
// volumes of another size below outbox; of o it uses VolumeSize and OnEvent.
// It needs no key: the envelope and the root files are copied byte for byte,
// so that id and signatures stay, and every segment is compared with its
// signed digest while it is copied. Whether somebody who is trusted signed is
// not looked at. The bytes are those that Seal gives for that volume size.
// Recovery files belong to one cut and are not copied.
//
// A bundle that is already there in the same cut is left as it is; in another
// cut, or with other signatures, it is refused, and so is an encrypted one:
// the list of its files is signed. As with Seal, a killed run leaves a folder
// ".tmp-..." for durable.Sweep.
func Recut(ctx context.Context, media []string, outbox string, o SealOptions) (out *Sealed, err error) {
	r, err := Open(media...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return recut(ctx, r, outbox, o, limits{volume: MinVolumeSize})
}

func recut(ctx context.Context, r *Reader, outbox string, o SealOptions, lim limits) (out *Sealed, err error) {
	if o.VolumeSize == 0 {
		o.VolumeSize = DefaultVolumeSize
	}
	if o.VolumeSize < lim.volume || o.VolumeSize > maxVolumeSize {
		return nil, fmt.Errorf("volume size %d: want %d to %d", o.VolumeSize, lim.volume, int64(maxVolumeSize))
	}
	if r.Encrypted() {
		return nil, fmt.Errorf("%s is encrypted and the list of its files is signed: cut it before it is encrypted", r.media[0].dir)
	}
	m, err := r.Unverified()
	if err != nil {
		return nil, err
	}
	files, err := r.RootFiles()
	if err != nil {
		return nil, err
	}
	root, err := rootDocuments(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	dir := filepath.Join(outbox, folderName(m.Stream, m.Seq, r.id))
	if out, err := r.sameCut(dir, o.VolumeSize, files); out != nil || err != nil {
		return out, err
	}
	if err := r.allThere(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(outbox, dirMode); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(outbox, durable.TempPrefix)
	if err != nil {
		return nil, err
	}
	failpoint.Here("bundle.recut-tmpdir")
	defer func() {
		// After the rename this finds nothing.
		err = errors.Join(err, os.RemoveAll(tmp))
	}()
	c, err := newRecutter(r, filepath.Join(tmp, volumesDir), o)
	if err != nil {
		return nil, err
	}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	docs, err := c.documents()
	if err != nil {
		return nil, err
	}
	docs = append(root, docs...)
	out = newSealed(dir, r.id, c.s.volumes())
	for _, d := range docs {
		out.Bytes += int64(len(d.data))
	}
	if err := place(tmp, out, docs, nil); err != nil {
		return nil, err
	}
	return out, nil
}

func newSealed(dir string, id artifact.Digest, volumes []VolumeInfo) *Sealed {
	out := &Sealed{Dir: dir, ID: id, Volumes: volumes}
	for _, v := range volumes {
		out.Bytes += v.Size
	}
	return out
}

// sameCut looks whether the bundle is in dir already: nil for no, an error
// where it is there in another form.
func (r *Reader) sameCut(dir string, volumeSize int64, root map[string][]byte) (out *Sealed, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	there := func(format string, args ...any) error {
		return fmt.Errorf("%s is already there: %w; remove it, or cut into another folder", dir, fmt.Errorf(format, args...))
	}
	have, err := Open(dir)
	if err != nil {
		return nil, there("%w", err)
	}
	defer func() { err = errors.Join(err, have.Close()) }()
	if _, err := have.Unverified(); err != nil {
		return nil, there("%w", err)
	}
	cut, err := have.Cut()
	if err != nil {
		return nil, there("%w", err)
	}
	files, err := have.RootFiles()
	if err != nil {
		return nil, there("%w", err)
	}
	switch {
	case have.id != r.id:
		return nil, there("it is bundle %s, want %s", have.id, r.id)
	case cut.VolumeSize != volumeSize:
		return nil, there("cut for volumes of %d bytes, want %d", cut.VolumeSize, volumeSize)
	case !slices.Equal(have.envelope, r.envelope) && !extends(have.envelope, r.envelope):
		return nil, there("its envelope has other signatures")
	case !maps.EqualFunc(files, root, bytes.Equal):
		return nil, there("it has other root files")
	}
	if err := have.allThere(); err != nil {
		return nil, there("%w", err)
	}
	out = newSealed(dir, r.id, cut.Volumes)
	for _, name := range []string{envelopeName, volumesName} {
		info, err := have.media[0].root.Lstat(name)
		if err != nil {
			return nil, there("%w", err)
		}
		out.Bytes += info.Size()
	}
	for _, data := range files {
		out.Bytes += int64(len(data))
	}
	// An earlier run may have died just before this.
	return out, durable.SyncDir(filepath.Dir(dir))
}

// allThere names every volume that is missing or has a wrong size, before
// anything is copied.
func (r *Reader) allThere() error {
	list, err := r.Volumes()
	if err != nil {
		return err
	}
	var errs []error
	for i := range list {
		errs = append(errs, list[i].Err(len(list)))
	}
	return errors.Join(errs...)
}

// A recutter reads segments and lets a sealer write them. As there, each group
// of fields belongs to one goroutine until the pipeline has ended.
type recutter struct {
	r *Reader
	s *sealer

	// feeder: what is left of the segment's extents
	list []extent

	// hasher of segments
	bad *badSegment
}

func newRecutter(r *Reader, dir string, o SealOptions) (*recutter, error) {
	if err := os.Mkdir(dir, dirMode); err != nil {
		return nil, err
	}
	event := o.OnEvent
	if event == nil {
		event = func(artifact.Event) {}
	}
	return &recutter{r: r, s: &sealer{
		m: r.m, event: event, limit: o.VolumeSize, dir: dir, seg: sha256.New(), vol: sha256.New(),
		// A list, even if it is empty.
		extents: make([][]extent, 0, r.m.segmentCount()),
	}}, nil
}

// errBadSegment ends a run; which segment, the recutter knows.
var errBadSegment = errors.New("a segment is not what was signed")

// run writes all volumes.
func (c *recutter) run(ctx context.Context) (err error) {
	s := c.s
	defer func() {
		if s.cur != nil {
			err = errors.Join(err, s.cur.f.Close())
		}
	}()
	var total int64
	for i := range s.m.Blobs {
		total += s.m.Blobs[i].StoredSize
	}
	s.event(artifact.Event{Stage: "recut", TotalBytes: total, TotalItems: len(s.m.Blobs)})
	err = runPipeline(ctx, 3, func(ctx context.Context, p pipeline, qs []queue) error {
		s.pool, s.segQ, s.volQ, s.writeQ = p, qs[0], qs[1], qs[2]
		n := 0
		for ref := range s.m.segments {
			if err := c.segment(ctx, ref, c.r.index.Extents[n]); err != nil {
				return err
			}
			n++
		}
		return s.endVolume(ctx)
	})
	if c.bad != nil {
		// Only now: the feeder may change which copy of a volume is read.
		return c.r.segmentErr(&s.m.Blobs[c.bad.ref.blob], c.bad.ref, c.bad.list, c.bad.got)
	}
	if err != nil {
		return err
	}
	if err := durable.SyncDir(s.dir); err != nil {
		return err
	}
	failpoint.Here("bundle.recut-volumes-synced")
	return nil
}

// segment copies one segment and compares it with what was signed.
func (c *recutter) segment(ctx context.Context, ref segmentRef, list []extent) error {
	b := &c.s.m.Blobs[ref.blob]
	got := new(artifact.Digest)
	c.list = slices.Clone(list)
	if err := c.s.addSegment(ctx, b.Digest, ref.n, ref.Len, got, c.fill); err != nil {
		return err
	}
	if ref.n == 0 || ref.n == len(b.Segments) {
		c.s.event(artifact.Event{Stage: "recut", Items: 1})
	}
	return c.s.segQ.send(ctx, func() error {
		if *got == ref.Digest {
			return nil
		}
		c.bad = &badSegment{ref, list, *got}
		return errBadSegment
	})
}

// fill gives the next bytes of the segment, each of which is read once. The
// extents were checked to sum to its length.
func (c *recutter) fill(p []byte) error {
	c.s.event(artifact.Event{Stage: "recut", Bytes: int64(len(p))})
	for len(p) > 0 {
		e := &c.list[0]
		n := min(int64(len(p)), e.Len)
		if err := c.r.readAt(int(e.Vol), p[:n], e.Off); err != nil {
			return err
		}
		p = p[n:]
		e.Off += n
		if e.Len -= n; e.Len == 0 {
			c.list = c.list[1:]
		}
	}
	return nil
}

// documents are those of [sealer.documents], with the envelope as it was.
func (c *recutter) documents() ([]document, error) {
	index := volumeIndex{Bundle: c.r.id, VolumeSize: c.s.limit, Volumes: c.s.volumes(), Extents: c.s.extents}
	vols, err := index.encode()
	if err != nil {
		return nil, err
	}
	if len(vols) > maxVolumesJSON {
		return nil, fmt.Errorf("%s would have %d bytes, at most %d are read", volumesName, len(vols), maxVolumesJSON)
	}
	return []document{
		{volumesName, vols},
		{envelopeName, c.r.envelope},
	}, nil
}
