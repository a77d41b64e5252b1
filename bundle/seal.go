package bundle

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// DefaultVolumeSize suits every file system and upload limit in use.
	DefaultVolumeSize = 1 << 30
	// MinVolumeSize is the least cap that a volume may have.
	MinVolumeSize = 1 << 20
	// maxVolumeSize keeps sums far from overflow; no medium is so large.
	maxVolumeSize = 1 << 44
)

const (
	// fileMode and dirMode let the group read, since another user may run
	// what sends the bundle.
	fileMode = 0o640
	dirMode  = 0o750
)

// SealOptions are the choices of a run.
type SealOptions struct {
	// VolumeSize is the most that a volume may have, all included; 0 means
	// DefaultVolumeSize.
	VolumeSize int64
	// Root are the files of the folder root/, by name, such as "3.root.json".
	Root    map[string][]byte
	OnEvent func(artifact.Event)
}

// Sealed is a finished bundle.
type Sealed struct {
	Dir     string
	ID      artifact.Digest
	Volumes []VolumeInfo
	Bytes   int64 // in all files of the bundle
}

// Seal writes a bundle below outbox and returns when it is on disk under its
// final name. m comes with everything but Schema, MinImporter, State and the
// stored form of blobs, which Seal fills; it also sorts every list of m.
//
// open gives a blob's bytes, which Seal reads once. Its reader must verify
// them and return an error in place of io.EOF if they are not the blob's, as
// mirror/store's does: of a blob over 64 MiB, Seal itself looks at the size
// and at the digests of segments only.
//
// A killed run leaves a folder ".tmp-..." for durable.Sweep. A second run
// over the same input gives the same bytes and finds the bundle there.
func Seal(ctx context.Context, outbox string, m *Manifest, open func(artifact.Digest) (io.ReadCloser, error), signer Signer, o SealOptions) (*Sealed, error) {
	return seal(ctx, outbox, m, open, signer, o, limits{volume: MinVolumeSize, segment: MaxSegment, zstd: MaxZstdSegment})
}

// limits are those that the format fixes; tests cut smaller.
type limits struct {
	volume, segment, zstd int64
}

func seal(ctx context.Context, outbox string, m *Manifest, open func(artifact.Digest) (io.ReadCloser, error), signer Signer, o SealOptions, lim limits) (out *Sealed, err error) {
	if o.VolumeSize == 0 {
		o.VolumeSize = DefaultVolumeSize
	}
	if o.VolumeSize < lim.volume || o.VolumeSize > maxVolumeSize {
		return nil, fmt.Errorf("volume size %d: want %d to %d", o.VolumeSize, lim.volume, int64(maxVolumeSize))
	}
	m.normalize()
	if err := m.checkUnsealed(); err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	root, err := rootDocuments(o.Root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	if err := os.MkdirAll(outbox, dirMode); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(outbox, durable.TempPrefix)
	if err != nil {
		return nil, err
	}
	failpoint.Here("bundle.tmpdir")
	defer func() {
		// After the rename this finds nothing; after an error nothing of
		// the bundle stays behind.
		err = errors.Join(err, os.RemoveAll(tmp))
	}()
	s, err := newSealer(m, open, filepath.Join(tmp, volumesDir), o, lim)
	if err != nil {
		return nil, err
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	payload, err := m.encode()
	if err != nil {
		return nil, err
	}
	// What the inside would refuse is not signed.
	if _, err := parseManifest(payload); err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	out = &Sealed{ID: artifact.Sum(payload), Volumes: s.volumes()}
	docs, err := s.documents(payload, signer)
	if err != nil {
		return nil, err
	}
	docs = append(root, docs...)
	out.Dir = filepath.Join(outbox, folderName(m.Stream, m.Seq, out.ID))
	for _, v := range out.Volumes {
		out.Bytes += v.Size
	}
	for _, d := range docs {
		out.Bytes += int64(len(d.data))
	}
	if err := place(tmp, out, docs, signer.Public()); err != nil {
		return nil, err
	}
	return out, nil
}

// checkUnsealed holds the rules that do not concern the stored form, before
// any work is done, and clears that form.
func (m *Manifest) checkUnsealed() error {
	for _, f := range []func() error{m.checkHead, m.checkSources, m.checkRequires, m.checkNotes} {
		if err := f(); err != nil {
			return err
		}
	}
	for i := range m.Blobs {
		b := &m.Blobs[i]
		if b.Digest.IsZero() || b.Size < 0 || b.Size > maxInt {
			return fmt.Errorf("blob %s: digest missing or size %d out of range", b.Digest, b.Size)
		}
		if i > 0 && m.Blobs[i-1].Digest == b.Digest {
			return fmt.Errorf("blob %s is listed twice", b.Digest)
		}
		*b = Blob{Digest: b.Digest, Size: b.Size, Dict: b.Dict}
	}
	return nil
}

func folderName(stream string, seq uint64, id artifact.Digest) string {
	return fmt.Sprintf("%s-%06d-%s", stream, seq, id.Hex()[:16])
}

// A document is one of the JSON files: the two of every bundle, or a root file.
type document struct {
	name string
	data []byte
}

// documents makes the JSON files, in the order in which they are written: a
// folder without an envelope is nothing.
func (s *sealer) documents(payload []byte, signer Signer) ([]document, error) {
	index := volumeIndex{Bundle: artifact.Sum(payload), VolumeSize: s.limit, Volumes: s.volumes(), Extents: s.extents}
	vols, err := index.encode()
	if err != nil {
		return nil, err
	}
	if len(vols) > maxVolumesJSON {
		return nil, fmt.Errorf("%s would have %d bytes, at most %d are read", volumesName, len(vols), maxVolumesJSON)
	}
	env, err := signEnvelope(payload, signer)
	if err != nil {
		return nil, err
	}
	failpoint.Here("bundle.signed")
	return []document{
		{volumesName, vols},
		{envelopeName, env},
	}, nil
}

// place writes the documents and gives the folder its name. signedBy is the key
// that signed the envelope just now, nil where it was copied.
func place(tmp string, out *Sealed, docs []document, signedBy crypto.PublicKey) error {
	if err := writeDocuments(tmp, docs); err != nil {
		return err
	}
	if err := os.Chmod(tmp, dirMode); err != nil {
		return err
	}
	if err := durable.SyncDir(tmp); err != nil {
		return err
	}
	failpoint.Here("bundle.folder-synced")
	if err := os.Rename(tmp, out.Dir); err != nil {
		// A folder that holds something is not replaced.
		if errors.Is(err, fs.ErrExist) {
			return sameBundle(out, docs, signedBy)
		}
		return err
	}
	failpoint.Here("bundle.renamed")
	if err := durable.SyncDir(filepath.Dir(out.Dir)); err != nil {
		return err
	}
	failpoint.Here("bundle.outbox-synced")
	return nil
}

func writeDocuments(tmp string, docs []document) error {
	root := slices.ContainsFunc(docs, document.inRoot)
	if root {
		if err := os.Mkdir(filepath.Join(tmp, rootDir), dirMode); err != nil {
			return err
		}
		failpoint.Here("bundle.root-created")
	}
	for _, d := range docs {
		if err := writeSynced(filepath.Join(tmp, d.name), d.data); err != nil {
			return err
		}
		switch strings.TrimSuffix(d.name, encryptedExt) {
		case volumesName:
			failpoint.Here("bundle.volumes-json")
		case envelopeName:
			failpoint.Here("bundle.envelope-written")
		case carriedName:
			failpoint.Here("bundle.carried-written")
		}
	}
	if !root {
		return nil
	}
	if err := durable.SyncDir(filepath.Join(tmp, rootDir)); err != nil {
		return err
	}
	failpoint.Here("bundle.root-synced")
	return nil
}

// sameBundle accepts a folder that an earlier run finished: the documents are
// the same, and so the volumes were when the folder got its name.
func sameBundle(out *Sealed, docs []document, signedBy crypto.PublicKey) error {
	differs := func(name string) error {
		return fmt.Errorf("%s is already there and its %s differs", out.Dir, name)
	}
	for _, d := range docs {
		have, err := readBounded(filepath.Join(out.Dir, d.name), int64(len(d.data))+approvalRoom)
		if err != nil {
			return fmt.Errorf("%s is already there: %w", out.Dir, err)
		}
		if !bytes.Equal(have, d.data) && (d.name != envelopeName || !extends(have, d.data) && !signedAgain(have, d.data, signedBy)) {
			return differs(d.name)
		}
	}
	for _, v := range out.Volumes {
		info, err := os.Lstat(filepath.Join(out.Dir, volumesDir, v.Name))
		if err != nil {
			return fmt.Errorf("%s is already there: %w", out.Dir, err)
		}
		if !info.Mode().IsRegular() || info.Size() != v.Size {
			return differs(v.Name)
		}
	}
	return durable.SyncDir(filepath.Dir(out.Dir))
}

// approvalRoom is what approvals add to an envelope at most: 64 signatures of
// some 170 bytes.
const approvalRoom = 16 << 10

// extends reports whether an envelope is the other one with further
// signatures: it was approved since it was sealed.
func extends(have, sealed []byte) bool {
	h, payload, err := openEnvelope(have)
	if err != nil {
		return false
	}
	s, want, err := openEnvelope(sealed)
	return err == nil && bytes.Equal(payload, want) && len(h.Signatures) > len(s.Signatures) &&
		slices.Equal(h.Signatures[:len(s.Signatures)], s.Signatures)
}

// signedAgain reports whether an envelope is the other one, signed by the same
// key at another time: a token's ECDSA signature is never the same twice.
func signedAgain(have, sealed []byte, pub crypto.PublicKey) bool {
	h, payload, err := openEnvelope(have)
	if err != nil || pub == nil {
		return false
	}
	s, want, err := openEnvelope(sealed)
	if err != nil || !bytes.Equal(payload, want) || h.Signatures[0].KeyID != s.Signatures[0].KeyID {
		return false
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(h.Signatures[0].Sig)
	return err == nil && verifies(pub, PAE(PayloadType, payload), sig)
}

func readBounded(name string, limit int64) (data []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

func writeSynced(name string, data []byte) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	failpoint.Here("bundle.document-written")
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}
