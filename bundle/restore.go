package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Documents are what is kept of a sealed bundle to make it again: a few
// kilobytes for a bundle of any size.
type Documents struct {
	Envelope []byte
	Root     map[string][]byte
	// VolumeSize is the cut; the same cut gives the same volumes.
	VolumeSize int64
}

// ReadDocuments reads them from a sealed bundle's folder.
func ReadDocuments(dir string) (d Documents, err error) {
	r, err := Open(dir)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if _, err := r.Unverified(); err != nil {
		return d, err
	}
	if d.Root, err = r.RootFiles(); err != nil {
		return d, err
	}
	cut, err := r.Cut()
	if err != nil {
		return d, err
	}
	d.Envelope, d.VolumeSize = r.envelope, cut.VolumeSize
	return d, nil
}

// Restore makes a sealed bundle again, byte for byte, from its documents and the
// blobs in the store. No key is needed: what comes out is what was signed, or
// it is refused.
//
// open is as for [Seal]. A build of the program that compresses otherwise than
// the one that sealed is refused as well; its bundle would have other segments.
func Restore(ctx context.Context, outbox string, d Documents, open func(artifact.Digest) (io.ReadCloser, error), onEvent func(artifact.Event)) (out *Sealed, err error) {
	_, payload, err := openEnvelope(d.Envelope)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(payload)
	if err != nil {
		return nil, err
	}
	root, err := rootDocuments(d.Root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	again := *m
	if err := again.checkUnsealed(); err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	if err := os.MkdirAll(outbox, dirMode); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(outbox, durable.TempPrefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	lim := limits{volume: MinVolumeSize, segment: MaxSegment, zstd: MaxZstdSegment}
	s, err := newSealer(&again, open, filepath.Join(tmp, volumesDir), SealOptions{VolumeSize: d.VolumeSize, OnEvent: onEvent}, lim)
	if err != nil {
		return nil, err
	}
	if err := s.run(ctx); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	made, err := again.encode()
	if err != nil {
		return nil, err
	}
	id := artifact.Sum(payload)
	if got := artifact.Sum(made); got != id {
		r := refusal(CodeFormat, m.String(), "what was made again is not what was signed; another build of the program sealed it", nil)
		r.Want, r.Got = id.String(), got.String()
		return nil, r
	}
	index := volumeIndex{Bundle: id, VolumeSize: s.limit, Volumes: s.volumes(), Extents: s.extents}
	vols, err := index.encode()
	if err != nil {
		return nil, err
	}
	docs := append(root, document{volumesName, vols}, document{envelopeName, d.Envelope})
	out = newSealed(filepath.Join(outbox, folderName(m.Stream, m.Seq, id)), id, s.volumes())
	for _, doc := range docs {
		out.Bytes += int64(len(doc.data))
	}
	if err := place(tmp, out, docs, nil); err != nil {
		return nil, err
	}
	return out, nil
}
