package pypi

import (
	"archive/zip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/resolve"
)

const (
	// tail is what is read first of a wheel whose index offers no METADATA:
	// the directory of most archives, and often METADATA itself, lie in it.
	tail = 64 << 10
	// stretch is what is read at once of what the tail lacks.
	stretch = 256 << 10
	// maxRanged bounds what is read of one wheel to find its METADATA; the
	// largest directories have some megabytes.
	maxRanged = 32 << 20
	// metadataAlias marks the METADATA of a wheel, which is known by its own
	// digest.
	metadataAlias = "pypi-metadata-"
)

// metadataOf reads the core metadata of a file, the first time.
func (o *offers) metadataOf(ctx context.Context, project string, f *offeredFile) (*packaging.Metadata, error) {
	o.mu.Lock()
	m := o.metadata[f.key()]
	if m == nil {
		m = &metadataOnce{}
		o.metadata[f.key()] = m
	}
	o.mu.Unlock()
	m.once.Do(func() { m.m, m.err = o.readMetadata(ctx, project, f) })
	return m.m, m.err
}

func (o *offers) readMetadata(ctx context.Context, project string, f *offeredFile) (*packaging.Metadata, error) {
	raw, err := o.rawMetadata(ctx, project, f)
	if err != nil {
		return nil, err
	}
	m, err := packaging.ParseMetadata(raw)
	if err != nil {
		return nil, &resolve.UnusableError{Reason: "its metadata cannot be read: " + err.Error()}
	}
	if len(m.Malformed) > 0 {
		return nil, &resolve.UnusableError{Reason: fmt.Sprintf("its metadata has a requirement that cannot be read: %q", m.Malformed[0])}
	}
	name, version, err := packaging.ParseDistName(f.Filename)
	if err != nil || m.Name != name || m.Version.Compare(version) != 0 {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "PYPI-METADATA", Subject: o.s.name + ": " + f.Filename,
			Reason: "its metadata is of another project or version", Want: name + " " + version.String(), Got: m.Name + " " + m.Version.String(),
		}
	}
	if f.wheel.Filename == "" && !m.Static() {
		return nil, &resolve.UnusableError{Reason: "a source archive whose requirements are known only to its build (no static metadata of PEP 643)"}
	}
	return m, nil
}

// rawMetadata is METADATA or PKG-INFO: from the store, from the index, out of
// the remote wheel, or from the file itself.
func (o *offers) rawMetadata(ctx context.Context, project string, f *offeredFile) ([]byte, error) {
	s := o.s
	if f.wheel.Filename == "" {
		return o.downloaded(ctx, project, f)
	}
	if d := f.CoreMetadata; !d.IsZero() {
		if s.store.Has(d) {
			return s.store.ReadAll(d, packaging.MaxMetadata)
		}
		raw, err := s.offeredMetadata(ctx, project, f)
		if !lost(err) {
			return raw, err
		}
		o.mu.Lock()
		o.lost = append(o.lost, f.Filename)
		o.mu.Unlock()
		raw, err = o.wheelMetadata(ctx, project, f)
		if err == nil && artifact.Sum(raw) != d {
			err = metadataRefusal(s.name+": "+f.Filename, d.String(), raw)
		}
		if err != nil {
			return nil, err
		}
		return raw, nil
	}
	return o.wheelMetadata(ctx, project, f)
}

// lost reports whether there is no METADATA file. File servers that let nobody
// list say 403 of what they do not have; if the wheel is barred as well, that is
// told of the wheel.
func lost(err error) bool {
	e, ok := errors.AsType[*fetch.Error](err)
	return ok && (fetch.IsNotFound(err) || e.Status == http.StatusForbidden)
}

// lostNote tells of the wheels whose METADATA is lost.
func (o *offers) lostNote() []string {
	if len(o.lost) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("the index names METADATA files that it does not have, that of %s first of %d; they were read out of the wheels", slices.Min(o.lost), len(o.lost))}
}

// wheelMetadata reads METADATA out of a wheel, here or on the server.
func (o *offers) wheelMetadata(ctx context.Context, project string, f *offeredFile) ([]byte, error) {
	s := o.s
	if !f.Digest.IsZero() {
		if d, ok := s.store.Alias(metadataAlias + f.Digest.Hex()); ok && s.store.Has(d) {
			s.said(f.Digest, d)
			return s.store.ReadAll(d, packaging.MaxMetadata)
		}
		if s.store.Has(f.Digest) {
			return o.downloaded(ctx, project, f)
		}
	}
	raw, err := s.rangedMetadata(ctx, project, f)
	if errors.Is(err, fetch.ErrNoRanges) {
		return o.downloaded(ctx, project, f)
	}
	if err != nil {
		return nil, err
	}
	d, err := s.store.PutBytes(raw)
	if err != nil {
		return nil, err
	}
	if f.Digest.IsZero() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ranged[f.URL] = d
		return raw, nil
	}
	s.said(f.Digest, d)
	return raw, s.store.SetAlias(metadataAlias+f.Digest.Hex(), d)
}

// said remembers what METADATA a wheel was resolved with; the wheel itself
// must agree.
func (s *Source) said(wheel, metadata artifact.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metadata[wheel] = metadata
}

// offeredMetadata fetches the METADATA file beside a wheel (PEP 658).
func (s *Source) offeredMetadata(ctx context.Context, project string, f *offeredFile) ([]byte, error) {
	ix, err := s.reach(ctx, project, f)
	if err != nil {
		return nil, err
	}
	resp, err := ix.client.Get(ctx, f.URL+".metadata", fetch.GetOptions{Limit: packaging.MaxMetadata})
	if err != nil {
		return nil, err
	}
	d, err := s.store.PutBytes(resp.Body)
	if err != nil {
		return nil, err
	}
	if d != f.CoreMetadata {
		return nil, metadataRefusal(s.name+": "+f.Filename, f.CoreMetadata.String(), resp.Body)
	}
	return resp.Body, nil
}

// reach is the index of a project, which may send to the file's host.
func (s *Source) reach(ctx context.Context, project string, f *offeredFile) (*index, error) {
	ix := s.indexOf(project)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return ix, ix.client.Allowed(f.URL, ix.url.Host)
}

// downloaded fetches the whole file and reads its metadata.
func (o *offers) downloaded(ctx context.Context, project string, f *offeredFile) ([]byte, error) {
	s := o.s
	n, err := o.named(ctx, project, f)
	if err != nil {
		return nil, err
	}
	size := n.Size
	if size < 0 {
		if size, err = s.size(ctx, s.indexOf(project), f.URL); err != nil {
			return nil, err
		}
	}
	if !s.store.Has(n.Digest) {
		ix, err := s.reach(ctx, project, f)
		if err != nil {
			return nil, err
		}
		if err := s.download(ctx, ix, artifact.File{Path: n.Filename, Digest: n.Digest, Size: size, URL: n.URL}); err != nil {
			return nil, err
		}
	}
	c, err := checkBlob(s.store, n.Filename, n.Digest, size)
	if err != nil {
		return nil, err
	}
	return c.metadata, nil
}

// rangedMetadata reads METADATA out of a wheel on the server. The archive is
// not checked here: when the wheel is fetched, it is, and its METADATA has to
// be this one.
func (s *Source) rangedMetadata(ctx context.Context, project string, f *offeredFile) ([]byte, error) {
	ix, err := s.reach(ctx, project, f)
	if err != nil {
		return nil, err
	}
	r := &remoteFile{ctx: ctx, client: ix.client, url: f.URL}
	if err := r.open(); err != nil {
		return nil, err
	}
	if f.Size >= 0 && r.size != f.Size {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-SIZE-MISMATCH", Subject: s.name + ": " + f.Filename, Reason: "the index names another size than the server", Want: fmt.Sprint(f.Size), Got: fmt.Sprint(r.size)}
	}
	raw, err := zipMetadata(r, r.size, f.wheel)
	if r.err != nil {
		return nil, r.err
	}
	if err != nil {
		return nil, &resolve.UnusableError{Reason: "its METADATA cannot be read: " + err.Error()}
	}
	return raw, nil
}

// boundDirectory refuses an archive that claims more entries than could be
// read: archive/zip makes room for them first, and holds the claim against the
// size alone, which is the server's claim too.
func boundDirectory(r io.ReaderAt, size int64) error {
	const end, locator, record, comment = 22, 20, 56, 1<<16 - 1
	n := min(size, end+comment)
	b := make([]byte, n)
	if _, err := r.ReadAt(b, size-n); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	le := binary.LittleEndian
	for i := int(n) - end; i >= 0; i-- {
		if le.Uint32(b[i:]) != 0x06054b50 || i+end+int(le.Uint16(b[i+20:])) > int(n) {
			continue
		}
		entries := uint64(le.Uint16(b[i+10:]))
		if i >= locator && le.Uint32(b[i-locator:]) == 0x07064b50 { // ZIP64
			at := le.Uint64(b[i-locator+8:])
			if size < record || at > uint64(size-record) {
				return zip.ErrFormat
			}
			var e [record]byte
			if _, err := r.ReadAt(e[:], int64(at)); err != nil { //nolint:gosec // compared above
				return err
			}
			entries = max(entries, le.Uint64(e[32:]))
		}
		if least := uint64(46); entries > maxRanged/least {
			return fmt.Errorf("it claims %d entries, at most %d are read", entries, maxRanged/least)
		}
		return nil
	}
	return zip.ErrFormat
}

// zipMetadata finds METADATA of the wheel's project in an archive.
func zipMetadata(r io.ReaderAt, size int64, name packaging.WheelName) (raw []byte, err error) {
	if err := boundDirectory(r, size); err != nil {
		return nil, err
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, err
	}
	var found *zip.File
	for _, e := range z.File {
		dir, ok := strings.CutSuffix(e.Name, ".dist-info/METADATA")
		if !ok {
			continue
		}
		project, _, _ := strings.Cut(dir, "-")
		if n, err := packaging.NormalizeName(project); err != nil || n != name.Project {
			continue
		}
		if found != nil {
			return nil, errors.New("two METADATA files")
		}
		found = e
	}
	switch {
	case found == nil:
		return nil, errors.New("no METADATA")
	case found.UncompressedSize64 > packaging.MaxMetadata:
		return nil, fmt.Errorf("%d bytes", found.UncompressedSize64)
	}
	f, err := found.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, packaging.MaxMetadata))
}

// A remoteFile is a file on a server, of which the end and the stretches that
// are read are kept.
type remoteFile struct {
	ctx    context.Context //nolint:containedctx // io.ReaderAt has none
	client *fetch.Client
	url    string
	size   int64
	read   int64
	spans  []span
	err    error // of the server, which says nothing of the archive
}

type span struct {
	at   int64
	data []byte
}

// open reads the end.
func (r *remoteFile) open() error {
	data, at, size, err := r.client.Range(r.ctx, r.url, -tail, tail)
	if err != nil {
		return err
	}
	r.size, r.read = size, int64(len(data))
	r.spans = append(r.spans, span{at, data})
	return nil
}

// ReadAt implements io.ReaderAt.
func (r *remoteFile) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if at >= r.size {
			return n, io.EOF
		}
		s, ok := r.span(at)
		if !ok {
			if err := r.more(at); err != nil {
				r.err = err
				return n, err
			}
			continue
		}
		n += copy(p[n:], s.data[at-s.at:])
	}
	return n, nil
}

func (r *remoteFile) span(at int64) (span, bool) {
	for _, s := range r.spans {
		if at >= s.at && at < s.at+int64(len(s.data)) {
			return s, true
		}
	}
	return span{}, false
}

// more reads a stretch from at on.
func (r *remoteFile) more(at int64) error {
	if r.read >= maxRanged {
		return &resolve.UnusableError{Reason: fmt.Sprintf("its METADATA was not found within %d bytes", maxRanged)}
	}
	data, start, size, err := r.client.Range(r.ctx, r.url, at, stretch)
	if err != nil {
		return err
	}
	if start != at || size != r.size || len(data) == 0 {
		return fmt.Errorf("%s changed while it was read", fetch.Redact(r.url))
	}
	r.read += int64(len(data))
	r.spans = append(r.spans, span{start, data})
	return nil
}
