package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxOpen bounds the volumes that are open at once. Blobs that are read in
// manifest order need one.
const maxOpen = 32

// A Reader reads one bundle from one medium or several. Its methods must not
// be called concurrently; a reader from [Reader.Blob] counts as a call until
// it is closed.
type Reader struct {
	media    []*medium
	dicts    func(d artifact.Digest, limit int64) ([]byte, error)
	dec      Decrypter
	list     *carriedList // of an encrypted bundle
	envelope []byte       // nil until it was decrypted
	open     func(*medium, string) (volumeSource, int64, error)

	m     *Manifest
	id    artifact.Digest
	blobs map[artifact.Digest]int // index in m.Blobs
	first []int                   // of each blob: index of its first segment
	index *volumeIndex
	vols  []*volumeCopies
	files []openFile // least recently used first
}

// volumeCopies are the files that may be a volume: those of the right size.
type volumeCopies struct {
	media []*medium
	cur   int
}

type openFile struct {
	vol int // from 1
	m   *medium
	f   volumeSource
}

// Open opens the folders of a bundle and reads its envelope, once, or the list
// of an encrypted one; nothing is verified yet.
func Open(dirs ...string) (_ *Reader, err error) {
	if len(dirs) == 0 {
		return nil, errors.New("open bundle: no folder")
	}
	r := &Reader{open: openVolume}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	for _, dir := range dirs {
		m, err := openMedium(dir)
		if err != nil {
			return nil, fmt.Errorf("open bundle: %w", err)
		}
		r.media = append(r.media, m)
	}
	if err := r.readFirst(); err != nil {
		return nil, refusal(CodeFormat, strings.Join(dirs, ", "), "the envelope cannot be read", err)
	}
	return r, nil
}

// UseDictionaries tells where to read verified blobs that this bundle's
// documents were compressed against: the store.
func (r *Reader) UseDictionaries(read func(d artifact.Digest, limit int64) ([]byte, error)) {
	r.dicts = read
}

// ID is the digest of the manifest that [Reader.Verify] or [Reader.Unverified]
// has read.
func (r *Reader) ID() artifact.Digest { return r.id }

// Close closes all files.
func (r *Reader) Close() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.f.Close())
	}
	for _, m := range r.media {
		errs = append(errs, m.close())
	}
	r.files, r.media, r.vols = nil, nil, nil
	return errors.Join(errs...)
}

// Unverified returns what the manifest claims. No signature was looked at, not
// even before decrypting: show it as UNVERIFIED and publish nothing of it. The
// other methods may be used afterwards and compare with these claims.
func (r *Reader) Unverified() (*Manifest, error) {
	if err := r.decryptEnvelope(); err != nil {
		return nil, err
	}
	_, payload, err := openEnvelope(r.envelope)
	if err != nil {
		return nil, err
	}
	return r.use(payload)
}

// Verify checks the envelope's signatures and then reads the manifest. Of an
// encrypted bundle nothing is decrypted before the signature of the list is
// good. The caller goes on with [CheckSequence] and [CheckRequires].
func (r *Reader) Verify(t Trust) (*Manifest, *Report, error) {
	outer, err := r.openOuter(t)
	if err != nil {
		return nil, nil, err
	}
	e, payload, err := openEnvelope(r.envelope)
	if err != nil {
		return nil, nil, err
	}
	rep, err := e.verify(payload, t)
	if err != nil {
		return nil, nil, err
	}
	m, err := r.use(payload)
	if err != nil {
		return nil, nil, err
	}
	rep.Steps = slices.Concat(
		outer,
		[]string{fmt.Sprintf("envelope: %d bytes, strict JSON, type %s", len(r.envelope), PayloadType)},
		rep.Steps,
		[]string{
			fmt.Sprintf("manifest: %d bytes, strict JSON, rules of %s, id %s", len(payload), Schema, rep.ID),
			fmt.Sprintf("manifest: %s, %d sources, %d blobs, %d bytes", m, len(m.Sources), len(m.Blobs), m.Size()),
		})
	return m, rep, nil
}

// use makes payload the manifest that everything else is compared with.
func (r *Reader) use(payload []byte) (*Manifest, error) {
	m, err := parseManifest(payload)
	if err != nil {
		return nil, err
	}
	id := artifact.Sum(payload)
	if r.list != nil {
		if err := r.list.match(m, id); err != nil {
			return nil, err
		}
	}
	r.m, r.id, r.index, r.vols = m, id, nil, nil
	r.blobs = make(map[artifact.Digest]int, len(m.Blobs))
	r.first = make([]int, len(m.Blobs))
	n := 0
	for i := range m.Blobs {
		r.blobs[m.Blobs[i].Digest] = i
		r.first[i] = n
		n += max(1, len(m.Blobs[i].Segments))
	}
	// The caller may change what it gets.
	c := *m
	c.Blobs = slices.Clone(m.Blobs)
	return &c, nil
}

// layout reads volumes.json, once, and looks which volumes are there.
func (r *Reader) layout() error {
	if r.m == nil {
		return errNoManifest
	}
	if r.index != nil {
		return nil
	}
	data, err := r.readIndex()
	if err != nil {
		return err
	}
	index, err := parseVolumes(data, r.id, r.m)
	if err != nil {
		return err
	}
	if r.list != nil && len(index.Volumes) != len(r.list.volumes) {
		return refusal(CodeVolumes, r.m.String(), fmt.Sprintf("%s names %d volumes, %s lists %d", volumesName, len(index.Volumes), carriedName, len(r.list.volumes)), nil)
	}
	r.index = index
	r.vols = make([]*volumeCopies, len(index.Volumes))
	for i := range r.vols {
		c := &volumeCopies{}
		for _, m := range r.media {
			if r.status(i+1, m).State == Have {
				c.media = append(c.media, m)
			}
		}
		r.vols[i] = c
	}
	return nil
}

func (r *Reader) readIndex() ([]byte, error) {
	if r.list != nil {
		return r.readEncrypted(r.list.Files[1], CodeVolumes, maxVolumesJSON)
	}
	data, err := readDocument(r.media, volumesName, maxVolumesJSON)
	if err != nil {
		return nil, refusal(CodeVolumes, r.m.String(), volumesName+" cannot be read", err)
	}
	return data, nil
}

// lying are the volumes as they lie on a medium: those of volumes.json, or
// their encrypted files.
func (r *Reader) lying() []VolumeInfo {
	if r.list != nil {
		return r.list.volumes
	}
	return r.index.Volumes
}

// A VolumeState says what a look at a volume's size tells.
type VolumeState string

// States of a volume. Foreign is larger than it should be, or no regular
// file: it must belong to something else.
const (
	Have      VolumeState = "have"
	Missing   VolumeState = "missing"
	Truncated VolumeState = "truncated"
	Foreign   VolumeState = "foreign"
)

// A VolumeStatus is one volume and the best file that was found for it.
type VolumeStatus struct {
	Index int // from 1, as in the name
	Name  string
	State VolumeState
	Size  int64 // that volumes.json gives, or the list of an encrypted bundle
	Got   int64
	Path  string // for people; empty where it is missing

	bundle string
}

// A VolumeError is a refusal that concerns one volume, for a caller that
// wants to ask for it again.
type VolumeError struct {
	Volume  int
	Name    string
	Refusal *artifact.Refusal
}

func (e *VolumeError) Error() string { return e.Refusal.Error() }

// Unwrap gives the refusal.
func (e *VolumeError) Unwrap() error { return e.Refusal }

// Err is nil for a volume that is there, and otherwise an ERR_VOLUME refusal
// that names it, of so many.
func (v *VolumeStatus) Err(total int) error {
	if v.State == Have {
		return nil
	}
	r := refusal(CodeVolume, fmt.Sprintf("%s, %s (%d of %d)", v.bundle, v.Name, v.Index, total), string(v.State), nil)
	if v.State != Missing {
		r.Subject += ", " + v.Path
		r.Want, r.Got = fmt.Sprintf("%d bytes", v.Size), fmt.Sprintf("%d bytes", v.Got)
	}
	return &VolumeError{Volume: v.Index, Name: v.Name, Refusal: r}
}

// Volumes looks at the size of every volume, before anything is copied. Of an
// encrypted bundle it can be called before anything was decrypted.
func (r *Reader) Volumes() ([]VolumeStatus, error) {
	var err error
	if r.list != nil && r.m == nil {
		err = r.list.parse()
	} else {
		err = r.layout()
	}
	if err != nil {
		return nil, err
	}
	list := make([]VolumeStatus, len(r.lying()))
	for i := range list {
		list[i] = r.bestStatus(i + 1)
	}
	return list, nil
}

// bestStatus prefers a copy of the right size, then one that says more than
// that the volume is missing.
func (r *Reader) bestStatus(vol int) VolumeStatus {
	best := r.status(vol, nil)
	for _, m := range r.media {
		st := r.status(vol, m)
		if st.State == Have {
			return st
		}
		if best.State == Missing {
			best = st
		}
	}
	return best
}

// status looks at one medium's file.
func (r *Reader) status(vol int, m *medium) VolumeStatus {
	info := r.lying()[vol-1]
	st := VolumeStatus{Index: vol, Name: info.Name, State: Missing, Size: info.Size, bundle: r.name()}
	if m == nil || m.vols == nil {
		return st
	}
	fi, err := m.vols.Lstat(info.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return st
	}
	st.Path = m.volumePath(info.Name)
	switch {
	case err != nil || !fi.Mode().IsRegular():
		st.State = Foreign
	case fi.Size() == info.Size:
		st.State, st.Got = Have, fi.Size()
	case fi.Size() < info.Size:
		st.State, st.Got = Truncated, fi.Size()
	default:
		st.State, st.Got = Foreign, fi.Size()
	}
	return st
}

// volumeErr names a volume in a refusal.
func (r *Reader) volumeErr(vol int, code, reason string, err error) *VolumeError {
	name := r.lying()[vol-1].Name
	subject := fmt.Sprintf("%s, %s (%d of %d)", r.m, name, vol, len(r.vols))
	if c := r.vols[vol-1]; len(c.media) > 0 {
		subject += ", " + c.media[c.cur].volumePath(name)
	}
	return &VolumeError{Volume: vol, Name: name, Refusal: refusal(code, subject, reason, err)}
}

// readAt fills p from a volume. A copy that cannot be read is replaced by the
// next one; since no byte of it was given out, that is harmless.
func (r *Reader) readAt(vol int, p []byte, off int64) error {
	c := r.vols[vol-1]
	if len(c.media) == 0 {
		st := r.bestStatus(vol)
		if err := st.Err(len(r.vols)); err != nil {
			return err
		}
		return r.volumeErr(vol, CodeVolume, "changed while the bundle was open", nil)
	}
	var errs []error
	for range c.media {
		f, err := r.file(vol, c.media[c.cur])
		if err == nil {
			var n int
			if n, err = f.ReadAt(p, off); n == len(p) {
				return nil
			}
		}
		errs = append(errs, err)
		r.nextCopy(vol)
	}
	return r.volumeErr(vol, CodeVolume, "unreadable", errors.Join(errs...))
}

// nextCopy makes further reads of a volume use another copy, if there is one.
func (r *Reader) nextCopy(vol int) {
	c := r.vols[vol-1]
	if len(c.media) > 0 {
		c.cur = (c.cur + 1) % len(c.media)
	}
}

// file opens a copy of a volume, or finds it open.
func (r *Reader) file(vol int, m *medium) (volumeSource, error) {
	at := slices.IndexFunc(r.files, func(o openFile) bool { return o.vol == vol && o.m == m })
	if at >= 0 {
		o := r.files[at]
		r.files = append(slices.Delete(r.files, at, at+1), o)
		return o.f, nil
	}
	info := r.lying()[vol-1]
	f, size, err := r.open(m, info.Name)
	if err != nil {
		return nil, err
	}
	if size != info.Size {
		return nil, errors.Join(fmt.Errorf("%d bytes, want %d", size, info.Size), f.Close())
	}
	if r.list != nil {
		if f, err = r.decryptVolume(f, vol); err != nil {
			return nil, err
		}
	}
	r.files = append(r.files, openFile{vol, m, f})
	if len(r.files) > maxOpen {
		old := r.files[0]
		r.files = slices.Delete(r.files, 0, 1)
		if err := old.f.Close(); err != nil {
			return nil, err
		}
	}
	return f, nil
}
