package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	// minCompress: below it a frame and its list of segments gain nothing.
	minCompress = 4 << 10
	// sampleSize is looked at before a blob is compressed. It is the head,
	// since a blob is read once; a wrong guess costs time only.
	sampleSize = 3 << 20
	// samplePiece is compressed by itself, so that one lucky run of zeros
	// weighs a third at most.
	samplePiece = 1 << 20
	// encoderWindow is fixed, since it changes the bytes.
	encoderWindow = 4 << 20
	// maxWindow bounds what a frame may ask the decoder to hold.
	maxWindow = 8 << 20
	// MaxDict bounds a dictionary, and a blob that has one: the window must
	// reach from the one into the other, and both are held in memory.
	MaxDict = maxWindow
	// MinDict is the least blob that is worth one.
	MinDict = minCompress
)

// compressed recognises what does not shrink by how it begins.
func compressed(head []byte) bool {
	for _, magic := range []string{
		"\x1f\x8b",           // gzip
		"\x28\xb5\x2f\xfd",   // zstd
		"\xfd7zXZ\x00",       // xz
		"BZh",                // bzip2
		"\x04\x22\x4d\x18",   // lz4
		"7z\xbc\xaf\x27\x1c", // 7z
		"PK\x03\x04",         // zip, wheel
		"!<arch>\n",          // ar, deb
		"GGUF",               // model weights
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	// safetensors: length of a JSON header, then the header.
	return len(head) > 10 && head[4] == 0 && head[5] == 0 && head[6] == 0 && head[7] == 0 && head[8] == '{' && head[9] == '"'
}

// A compressor decides about blobs and compresses them, always in the same
// way: one level, one window, one thread.
type compressor struct {
	enc *zstd.Encoder
	out []byte
}

func newCompressor() (*compressor, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(encoderWindow),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &compressor{enc: enc}, nil
}

// pays reports whether compressing a blob that starts with head is worth it:
// it must shrink below nine tenths.
func (c *compressor) pays(head []byte) bool {
	if len(head) < minCompress || compressed(head) {
		return false
	}
	total := 0
	for p := head; len(p) > 0; p = p[min(len(p), samplePiece):] {
		c.out = c.enc.EncodeAll(p[:min(len(p), samplePiece)], c.out[:0])
		total += len(c.out)
	}
	return total*10 < len(head)*9
}

// errTooLong stops a frame that holds more than was signed.
var errTooLong = errors.New("decompresses to more than the signed size")

// dictID is that of a raw dictionary: the manifest names the dictionary, so
// the number in the frame means nothing.
const dictID = 1

// newDictEncoder compresses what differs little from dict, always in the same
// way.
func newDictEncoder(dict []byte) (*zstd.Encoder, error) {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxWindow),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithEncoderDictRaw(dictID, dict))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return enc, nil
}

// newDecoder reads one blob's frame from r, which gives only bytes whose
// digest is good. Memory is bounded by the window and the dictionary, which
// may be nil.
func newDecoder(r io.Reader, dict []byte) (*zstd.Decoder, error) {
	opts := []zstd.DOption{
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow),
		zstd.WithDecoderLowmem(true),
	}
	if dict != nil {
		opts = append(opts, zstd.WithDecoderDictRaw(dictID, dict))
	}
	return zstd.NewReader(r, opts...)
}
