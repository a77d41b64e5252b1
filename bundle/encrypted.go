package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// ErrNoIdentity is what a [Decrypter] wraps when no identity that it has fits
// the file.
var ErrNoIdentity = errors.New("no identity fits")

// A Decrypter reads encrypted files. It is called by one goroutine at a time.
type Decrypter interface {
	// Decrypt gives the content of a file of that many bytes and its length.
	// What it reads of src at once, and what the reader that it returns reads,
	// is authenticated before it is given out.
	Decrypt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error)
}

// UseDecrypter gives the identities that an encrypted bundle is read with; a
// plain one needs none.
func (r *Reader) UseDecrypter(d Decrypter) { r.dec = d }

// Encrypted reports whether the bundle is encrypted.
func (r *Reader) Encrypted() bool { return r.list != nil }

// Carried returns the list of an encrypted bundle's files and recipients as it
// claims them to be; no signature was looked at. See [Reader.CheckCarried].
func (r *Reader) Carried() (*Carried, error) {
	if r.list == nil {
		return nil, errNotEncrypted
	}
	if err := r.list.parse(); err != nil {
		return nil, err
	}
	c := *r.list.Carried
	c.Recipients, c.Files = slices.Clone(c.Recipients), slices.Clone(c.Files)
	return &c, nil
}

// errNotEncrypted reports a question that a plain bundle cannot answer.
var errNotEncrypted = errors.New("the bundle is not encrypted")

// name is for messages.
func (r *Reader) name() string {
	switch {
	case r.m != nil:
		return r.m.String()
	case r.list != nil && r.list.Carried != nil:
		return r.list.String()
	}
	return filepath.Base(r.media[0].dir)
}

// readFirst reads what a bundle begins with: its envelope, or the list of an
// encrypted one, which decides where both are there.
func (r *Reader) readFirst() error {
	data, err := readDocument(r.media, carriedName, maxCarriedEnvelope)
	if errors.Is(err, fs.ErrNotExist) {
		r.envelope, err = readDocument(r.media, envelopeName, maxEnvelope)
		return err
	}
	if err == nil {
		r.list, err = openCarried(data)
	}
	return err
}

// openOuter verifies the list of an encrypted bundle and then decrypts its
// envelope. It says what was checked.
func (r *Reader) openOuter(t Trust) (steps []string, err error) {
	if r.list == nil {
		return nil, nil
	}
	rep, err := r.list.verify(t)
	if err != nil {
		return nil, err
	}
	steps = slices.Concat(
		[]string{fmt.Sprintf("carried: %d bytes, strict JSON, type %s", r.list.size, CarriedType)},
		prefixed("carried: ", rep.Steps),
		[]string{fmt.Sprintf("carried: %d files, %d recipients", len(r.list.Files), len(r.list.Recipients))},
	)
	if err := r.decryptEnvelope(); err != nil {
		return nil, err
	}
	return append(steps, "carried: envelope as listed, decrypted, as listed again"), nil
}

func prefixed(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = prefix + s
	}
	return out
}

// decryptEnvelope reads the envelope of an encrypted bundle, once.
func (r *Reader) decryptEnvelope() error {
	if r.list == nil || r.envelope != nil {
		return nil
	}
	if err := r.list.parse(); err != nil {
		return err
	}
	data, err := r.readEncrypted(r.list.Files[0], CodeFormat, maxEnvelope)
	if err != nil {
		return err
	}
	if got := artifact.Sum(data); got != r.list.Envelope {
		ref := refusal(CodeFormat, r.name(), "the envelope that was encrypted is not the listed one", nil)
		ref.Want, ref.Got = r.list.Envelope.String(), got.String()
		return ref
	}
	r.envelope = data
	return nil
}

// readEncrypted reads a listed document: nothing is decrypted that is not as
// listed.
func (r *Reader) readEncrypted(f CarriedFile, code string, limit int64) ([]byte, error) {
	data, err := readDocument(r.media, f.Name, f.Size)
	if err != nil {
		return nil, refusal(code, r.name(), f.Name+" cannot be read", err)
	}
	if got := artifact.Sum(data); got != f.SHA256 {
		ref := refusal(code, r.name(), f.Name+" is not the listed one", nil)
		ref.Want, ref.Got = f.SHA256.String(), got.String()
		return nil, ref
	}
	src, n, err := r.decrypt(bytes.NewReader(data), f.Size)
	if errors.Is(err, ErrNoIdentity) {
		return nil, err
	}
	if err == nil && (n < 0 || n > limit) {
		err = fmt.Errorf("%d bytes, at most %d are read", n, limit)
	}
	if err == nil {
		data = make([]byte, n)
		err = readFullAt(src, data, 0)
	}
	if err != nil {
		return nil, refusal(code, r.name(), f.Name+" cannot be decrypted", err)
	}
	return data, nil
}

// decrypt opens a file, or says for whom it was encrypted.
func (r *Reader) decrypt(src io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	reason := "it is encrypted and no identity was given; without one it can be checked, but not read, imported or cut anew"
	err := ErrNoIdentity
	if r.dec != nil {
		var plain io.ReaderAt
		var n int64
		if plain, n, err = r.dec.Decrypt(src, size); err == nil {
			return plain, n, nil
		}
		if !errors.Is(err, ErrNoIdentity) {
			return nil, 0, err
		}
		reason = "it is encrypted to others; add the identity of one of its recipients"
	}
	return nil, 0, &artifact.Refusal{
		Code: CodeDecrypt, Subject: r.name(), Reason: reason,
		Want: "an identity of " + strings.Join(r.list.Recipients, ", "), Err: err,
	}
}

// readFullAt is io.ReadFull at an offset.
func readFullAt(src io.ReaderAt, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// decryptVolume opens a volume whose head is the listed one. It closes f when
// it fails.
func (r *Reader) decryptVolume(f volumeSource, vol int) (_ volumeSource, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	size := r.list.volumes[vol-1].Size
	c := &cipherFile{f: f, size: size, head: make([]byte, min(size, headSize))}
	if err := readFullAt(f, c.head, 0); err != nil {
		return nil, err
	}
	if artifact.Sum(c.head) != r.list.heads[vol-1] {
		return nil, errors.New("its head is not the listed one: altered, or of another encryption")
	}
	src, n, err := r.decrypt(c, size)
	if err != nil {
		return nil, err
	}
	if want := r.index.Volumes[vol-1].Size; n != want {
		return nil, fmt.Errorf("%d bytes when decrypted, %s gives %d", n, volumesName, want)
	}
	return &plainFile{src: src, size: n, f: f}, nil
}

// A cipherFile is an encrypted file of a medium. It keeps both ends of it:
// they are read when the file is opened, for the file key and the length, and
// again at their turn. So each byte of the medium is read once.
type cipherFile struct {
	f    io.ReaderAt
	size int64
	head []byte
	tail []byte // from the first read up to the end
}

func (c *cipherFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off > c.size {
		return 0, fmt.Errorf("offset %d outside a file of %d bytes", off, c.size)
	}
	short := int64(len(p)) > c.size-off
	if short {
		p = p[:c.size-off]
	}
	if off < int64(len(c.head)) {
		n = copy(p, c.head[off:])
	}
	from, end := n, c.size-int64(len(c.tail)) // of the file, from here to where the tail begins
	if left := min(int64(len(p)), end-off); int64(n) < left {
		if err := readFullAt(c.f, p[n:left], off+int64(n)); err != nil {
			return n, err
		}
		n = int(left)
	}
	if n < len(p) {
		n += copy(p[n:], c.tail[off+int64(n)-end:])
	} else if n > from && off+int64(n) == c.size && c.tail == nil && n-from <= headSize {
		c.tail = bytes.Clone(p[from:])
	}
	if short {
		return n, io.EOF
	}
	return n, nil
}

// windowSize is one chunk of age.
const windowSize = 64 << 10

// A plainFile is a decrypted volume. Small reads come out of a window: age
// allocates a chunk for each read, however small.
type plainFile struct {
	src  io.ReaderAt
	size int64
	f    io.Closer
	room [windowSize]byte
	buf  []byte // in room
	at   int64  // of buf
}

func (w *plainFile) Close() error { return w.f.Close() }

func (w *plainFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off > w.size {
		return 0, fmt.Errorf("offset %d outside a volume of %d bytes", off, w.size)
	}
	if d := off - w.at; d >= 0 && d < int64(len(w.buf)) {
		n = copy(p, w.buf[d:])
	}
	if n == len(p) {
		return n, nil
	}
	off += int64(n)
	if len(p)-n >= windowSize {
		m, err := w.src.ReadAt(p[n:], off)
		return n + m, err
	}
	// What is behind a bad chunk is not needed for what is before it.
	m, err := w.src.ReadAt(w.room[:min(windowSize, w.size-off)], off)
	w.buf, w.at = w.room[:m], off
	n += copy(p[n:], w.buf)
	if n == len(p) {
		return n, nil
	}
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// CheckCarried verifies what is carried of an encrypted bundle without an
// identity: the signature of the list by a trusted exporter, and the size and
// digest of every file that it names. All bad files are joined in the error.
// What the files hold stays unknown.
func (r *Reader) CheckCarried(ctx context.Context, t Trust, onEvent func(artifact.Event)) (*Carried, *Report, error) {
	if r.list == nil {
		return nil, nil, errNotEncrypted
	}
	rep, err := r.list.verify(t)
	if err != nil {
		return nil, nil, err
	}
	rep.ID = r.list.Bundle
	if onEvent == nil {
		onEvent = func(artifact.Event) {}
	}
	var total int64
	for _, f := range r.list.Files {
		total += f.Size
	}
	onEvent(artifact.Event{Stage: "verify", TotalBytes: total, TotalItems: len(r.list.Files)})
	buf := make([]byte, chunkSize)
	var errs []error
	for i := range r.list.Files {
		if err := r.checkListed(ctx, i, buf, onEvent); err != nil {
			errs = append(errs, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		onEvent(artifact.Event{Stage: "verify", Items: 1})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	rep.Steps = append(prefixed("carried: ", rep.Steps), fmt.Sprintf("carried: %d files, %d bytes, digests good", len(r.list.Files), total))
	c, err := r.Carried()
	return c, rep, err
}

// checkListed looks for a good copy of a listed file.
func (r *Reader) checkListed(ctx context.Context, i int, buf []byte, onEvent func(artifact.Event)) error {
	f := r.list.Files[i]
	var errs []error
	for _, m := range r.media {
		err := m.checkFile(ctx, f, buf, onEvent)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s: %w", m.dir, err))
		}
	}
	vol := i - 1 // two documents come first, and volumes count from 1
	reason := "not the listed one"
	if len(errs) == 0 {
		reason = string(Missing)
	}
	err := errors.Join(errs...)
	switch {
	case i == 0 || vol > len(r.list.volumes):
		return refusal(CodeFormat, r.name()+", "+f.Name, reason, err)
	case i == 1:
		return refusal(CodeVolumes, r.name()+", "+f.Name, reason, err)
	}
	name := path.Base(f.Name)
	return &VolumeError{Volume: vol, Name: name, Refusal: refusal(CodeVolume,
		fmt.Sprintf("%s, %s (%d of %d)", r.name(), name, vol, len(r.list.volumes)), reason, err)}
}

// checkFile compares one medium's file with the list.
func (m *medium) checkFile(ctx context.Context, listed CarriedFile, buf []byte, onEvent func(artifact.Event)) (err error) {
	dir, name := m.root, path.Base(listed.Name)
	switch path.Dir(listed.Name) {
	case volumesDir:
		dir = m.vols
	case rootDir:
		if dir, err = m.sub(rootDir); err != nil {
			return err
		}
		if dir != nil {
			defer func() { err = errors.Join(err, dir.Close()) }()
		}
	}
	if dir == nil {
		return fs.ErrNotExist
	}
	f, size, err := openRegular(dir, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size != listed.Size {
		return fmt.Errorf("%d bytes, want %d", size, listed.Size)
	}
	readAhead(f)
	h := sha256.New()
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(f, p); err != nil {
			return err
		}
		_, _ = h.Write(p) // a hash does not fail
		onEvent(artifact.Event{Stage: "verify", Bytes: int64(len(p))})
		left -= int64(len(p))
	}
	if got := artifact.Digest(h.Sum(nil)); got != listed.SHA256 {
		return fmt.Errorf("digest %s, want %s", got, listed.SHA256)
	}
	return nil
}

// checkBeside looks at what lies unencrypted in the folders of an encrypted
// bundle: root files, which are listed, and what should not be there.
func (r *Reader) checkBeside(ctx context.Context) (warnings []string, err error) {
	if r.list == nil {
		return nil, nil
	}
	var errs []error
	buf := make([]byte, maxRootFile)
	for i := len(r.list.Files) - len(r.list.root); i < len(r.list.Files); i++ {
		errs = append(errs, r.checkListed(ctx, i, buf, func(artifact.Event) {}))
	}
	for _, m := range r.media {
		for _, f := range r.list.Files {
			name, encrypted := strings.CutSuffix(f.Name, encryptedExt)
			if !encrypted || len(warnings) == maxWarnings {
				continue
			}
			if _, err := m.root.Lstat(name); err == nil {
				warnings = append(warnings, fmt.Sprintf("%s: %s lies unencrypted beside it and was not read [%s]", r.name(), filepath.Join(m.dir, name), CodeUncovered))
			}
		}
	}
	return warnings, errors.Join(errs...)
}
