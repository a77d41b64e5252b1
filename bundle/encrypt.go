package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// An Encrypter encrypts files to its recipients.
type Encrypter interface {
	// Encrypt returns a writer; what is written there comes out of it into dst,
	// encrypted. Close ends the file and leaves dst open.
	Encrypt(dst io.Writer) (io.WriteCloser, error)
	// Recipients are the fingerprints of those who can read it.
	Recipients() []string
}

// Encrypt encrypts the sealed bundle that lies on media, the folders of
// [Open], into a folder of the same name below outbox, and returns when it is
// on disk. signer must be one of the exporters who signed the bundle; it signs
// the list of what is carried. What is not encrypted is only read, and never
// written below outbox.
//
// A bundle that is there already is accepted if it was encrypted by signer to
// the same recipients from the same envelope and root files; its bytes are
// others each time. As with [Seal], a killed run leaves a folder ".tmp-..." for
// durable.Sweep.
func Encrypt(ctx context.Context, media []string, outbox string, enc Encrypter, signer Signer, onEvent func(artifact.Event)) (out *Sealed, err error) {
	if signer.Signer == nil {
		return nil, errors.New("encrypt bundle: no signing key")
	}
	if err := checkFingerprints(enc.Recipients()); err != nil {
		return nil, fmt.Errorf("encrypt bundle: %w", err)
	}
	r, err := Open(media...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.Encrypted() {
		return nil, fmt.Errorf("%s: the bundle is encrypted already", media[0])
	}
	e := &encryption{r: r, enc: enc, signer: signer, event: onEvent}
	if e.event == nil {
		e.event = func(artifact.Event) {}
	}
	return e.run(ctx, outbox)
}

// An encryption encrypts one bundle.
type encryption struct {
	r      *Reader
	enc    Encrypter
	signer Signer
	event  func(artifact.Event)

	trust Trust
	root  []document
	list  Carried
}

func (e *encryption) run(ctx context.Context, outbox string) (out *Sealed, err error) {
	if err := e.readSource(); err != nil {
		return nil, err
	}
	dir := filepath.Join(outbox, folderName(e.r.m.Stream, e.r.m.Seq, e.r.id))
	if out, err := e.there(dir); out != nil || err != nil {
		return out, err
	}
	if err := os.MkdirAll(outbox, dirMode); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(outbox, durable.TempPrefix)
	if err != nil {
		return nil, err
	}
	failpoint.Here("bundle.encrypt-tmpdir")
	defer func() {
		// After the rename this finds nothing.
		err = errors.Join(err, os.RemoveAll(tmp))
	}()
	volumes, err := e.volumes(ctx, filepath.Join(tmp, volumesDir))
	if err != nil {
		return nil, err
	}
	docs, err := e.documents(volumes)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := place(tmp, &Sealed{Dir: dir}, docs, nil); err != nil {
		return nil, err
	}
	return e.sealed(dir, len(docs[len(docs)-1].data)), nil
}

// readSource verifies the bundle as far as it costs nothing.
func (e *encryption) readSource() error {
	e.trust = Trust{Keys: []TrustedKey{{Name: e.signer.Name, Role: RoleExporter, Public: e.signer.Public()}}}
	m, rep, err := e.r.Verify(e.trust)
	if err != nil {
		return err
	}
	vols, err := e.r.Volumes()
	if err != nil {
		return err
	}
	var errs []error
	for i := range vols {
		errs = append(errs, vols[i].Err(len(vols)))
	}
	files, err := e.r.RootFiles()
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	if e.root, err = rootDocuments(files); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	e.list = Carried{Bundle: rep.ID, Stream: m.Stream, Seq: m.Seq, Envelope: artifact.Sum(e.r.envelope), Recipients: e.enc.Recipients()}
	return nil
}

// sealed describes the folder with its list of that many bytes.
func (e *encryption) sealed(dir string, list int) *Sealed {
	out := &Sealed{Dir: dir, ID: e.list.Bundle, Bytes: int64(list)}
	for _, f := range e.list.Files {
		out.Bytes += f.Size
		if path.Dir(f.Name) == volumesDir {
			out.Volumes = append(out.Volumes, VolumeInfo{Name: path.Base(f.Name), Size: f.Size, SHA256: f.SHA256})
		}
	}
	return out
}

// there looks whether dir is what would be made: nil for no, an error where
// something else is there.
func (e *encryption) there(dir string) (out *Sealed, err error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	refuse := func(err error) (*Sealed, error) {
		return nil, fmt.Errorf("%s is already there: %w; remove it, or encrypt into another folder", dir, err)
	}
	have, err := Open(dir)
	if err != nil {
		return refuse(err)
	}
	defer func() { err = errors.Join(err, have.Close()) }()
	if !have.Encrypted() {
		return refuse(errNotEncrypted)
	}
	if _, err := have.list.verify(e.trust); err != nil {
		return refuse(err)
	}
	root := make([]CarriedFile, len(e.root))
	for i, d := range e.root {
		root[i] = listed(d)
	}
	switch l := have.list; {
	case l.Bundle != e.list.Bundle:
		return refuse(fmt.Errorf("it is bundle %s, want %s", l.Bundle, e.list.Bundle))
	case l.Envelope != e.list.Envelope:
		return refuse(errors.New("its envelope has other signatures"))
	case !slices.Equal(l.Recipients, e.list.Recipients):
		return refuse(errors.New("it is encrypted to others"))
	case !slices.Equal(l.root, root):
		return refuse(errors.New("it has other root files"))
	}
	for _, f := range have.list.Files {
		info, err := have.media[0].root.Lstat(f.Name)
		if err != nil {
			return refuse(err)
		}
		if !info.Mode().IsRegular() || info.Size() != f.Size {
			return refuse(fmt.Errorf("%s is not the listed one", f.Name))
		}
	}
	e.list = *have.list.Carried
	// An earlier run may have died just before this.
	return e.sealed(dir, have.list.size), durable.SyncDir(filepath.Dir(dir))
}

// volumes encrypts all volumes.
func (e *encryption) volumes(ctx context.Context, dir string) ([]CarriedFile, error) {
	if err := os.Mkdir(dir, dirMode); err != nil {
		return nil, err
	}
	var total int64
	for _, v := range e.r.index.Volumes {
		total += v.Size
	}
	e.event(artifact.Event{Stage: "encrypt", TotalBytes: total, TotalItems: len(e.r.index.Volumes)})
	var list []CarriedFile
	for vol := range e.r.index.Volumes {
		f, err := e.volume(ctx, dir, vol+1)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
		e.event(artifact.Event{Stage: "encrypt", Items: 1})
	}
	if err := durable.SyncDir(dir); err != nil {
		return nil, err
	}
	failpoint.Here("bundle.encrypt-volumes-synced")
	return list, nil
}

// volume encrypts one volume and compares it with volumes.json, so that no
// damage is signed as what was to be carried.
func (e *encryption) volume(ctx context.Context, dir string, vol int) (_ CarriedFile, err error) {
	info := e.r.index.Volumes[vol-1]
	v, err := createVolume(dir, info.Name+encryptedExt)
	if err != nil {
		return CarriedFile{}, err
	}
	failpoint.Here("bundle.volume-created")
	open := true
	defer func() {
		if open {
			err = errors.Join(err, v.f.Close())
		}
	}()
	got := newListing()
	w, err := e.enc.Encrypt(io.MultiWriter(got, v))
	if err != nil {
		return CarriedFile{}, fmt.Errorf("encrypt %s: %w", info.Name, err)
	}
	sum := sha256.New()
	err = runPipeline(ctx, 2, func(ctx context.Context, p pipeline, qs []queue) error {
		return e.feed(ctx, p, vol, []queue{qs[0], qs[1]}, []io.Writer{sum, w})
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return CarriedFile{}, fmt.Errorf("encrypt %s: %w", info.Name, err)
	}
	if sum := artifact.Digest(sum.Sum(nil)); sum != info.SHA256 {
		err := e.r.volumeErr(vol, CodeVolume, "it is not what was sealed", nil)
		err.Refusal.Want, err.Refusal.Got = info.SHA256.String(), sum.String()
		return CarriedFile{}, err
	}
	open = false
	if err := v.finish(); err != nil {
		return CarriedFile{}, err
	}
	return got.file(path.Join(volumesDir, info.Name+encryptedExt)), nil
}

// feed reads a volume once and gives it to each writer, in its queue.
func (e *encryption) feed(ctx context.Context, p pipeline, vol int, qs []queue, ws []io.Writer) error {
	size := e.r.index.Volumes[vol-1].Size
	for off := int64(0); off < size; {
		c, err := p.get(ctx, int32(len(qs)), size-off) //nolint:gosec // two
		if err != nil {
			return err
		}
		if err := e.r.readAt(vol, c.buf, off); err != nil {
			return err
		}
		off += int64(len(c.buf))
		e.event(artifact.Event{Stage: "encrypt", Bytes: int64(len(c.buf))})
		for i, q := range qs {
			err := q.send(ctx, func() error {
				defer c.release()
				_, err := ws[i].Write(c.buf)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// documents encrypts the JSON files and lists everything, in the order in
// which they are written: a folder without a list is nothing.
func (e *encryption) documents(volumes []CarriedFile) ([]document, error) {
	// What was checked is carried, and not what a second read might give.
	index, err := e.r.index.encode()
	if err != nil {
		return nil, err
	}
	docs := slices.Clone(e.root)
	files := make([]CarriedFile, 2, 2+len(volumes)+len(e.root))
	for i, d := range []document{{envelopeName, e.r.envelope}, {volumesName, index}} {
		if d, err = e.document(d); err != nil {
			return nil, err
		}
		files[i] = listed(d)
		docs = append(docs, d)
	}
	files = append(files, volumes...)
	for _, d := range e.root {
		files = append(files, listed(d))
	}
	e.list.Files = files
	data, err := signCarried(&e.list, e.signer)
	if err != nil {
		return nil, err
	}
	failpoint.Here("bundle.signed")
	return append(docs, document{carriedName, data}), nil
}

func (e *encryption) document(d document) (document, error) {
	var out bytes.Buffer
	w, err := e.enc.Encrypt(&out)
	if err == nil {
		_, err = w.Write(d.data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return document{}, fmt.Errorf("encrypt %s: %w", d.name, err)
	}
	return document{d.name + encryptedExt, out.Bytes()}, nil
}

// listed describes a document as it is carried.
func listed(d document) CarriedFile {
	l := newListing()
	_, _ = l.Write(d.data) // does not fail
	return l.file(d.name)
}

// A listing notes what the list says of the bytes that are written to it.
type listing struct {
	size      int64
	head, sum hash.Hash
}

func newListing() *listing { return &listing{head: sha256.New(), sum: sha256.New()} }

// Write does not fail, as a hash does not.
func (l *listing) Write(p []byte) (int, error) {
	if left := headSize - l.size; left > 0 {
		_, _ = l.head.Write(p[:min(left, int64(len(p)))])
	}
	_, _ = l.sum.Write(p)
	l.size += int64(len(p))
	return len(p), nil
}

func (l *listing) file(name string) CarriedFile {
	return CarriedFile{Name: name, Size: l.size, Head: artifact.Digest(l.head.Sum(nil)), SHA256: artifact.Digest(l.sum.Sum(nil))}
}
