package diode

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Types of packets.
const (
	typeDescriptor = 1
	typeSymbol     = 2
	typeHeartbeat  = 3
	typeFiller     = 4
)

const version = 1

var magic = [4]byte{'D', 'K', 'M', 'R'}

// A Key authenticates the packets of one link. Both sides hold it. It keeps
// garbage out and proves no origin.
type Key struct {
	hint [2]byte
	aead cipher.AEAD
}

// KeySize is the length of a link key in bytes.
const KeySize = 16

// NewKey makes a key of [KeySize] bytes.
func NewKey(secret []byte) (*Key, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("%w: link key: want %d bytes, got %d", ErrConfig, KeySize, len(secret))
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(secret)
	return &Key{hint: [2]byte(sum[:2]), aead: aead}, nil
}

// ParseKey reads a key file: 32 hexadecimal digits, white space around them
// and lines that begin with # aside.
func ParseKey(file []byte) (*Key, error) {
	var digits string
	for line := range strings.Lines(string(file)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if digits != "" {
			return nil, fmt.Errorf("%w: link key: want one line of %d hexadecimal digits", ErrConfig, 2*KeySize)
		}
		digits = line
	}
	secret, err := hex.DecodeString(digits)
	if err != nil || len(secret) != KeySize {
		return nil, fmt.Errorf("%w: link key: want one line of %d hexadecimal digits", ErrConfig, 2*KeySize)
	}
	return NewKey(secret)
}

// A header is what stands before every payload.
type header struct {
	kind       byte
	transfer   uint64
	sequence   uint32
	generation uint32
	column     uint32
	row        uint16
}

// put writes the header of a packet of this key.
func (k *Key) put(p []byte, h header) {
	_ = p[headerSize-1]
	copy(p, magic[:])
	p[4], p[5] = version, h.kind
	p[6], p[7] = k.hint[0], k.hint[1]
	binary.BigEndian.PutUint64(p[8:], h.transfer)
	binary.BigEndian.PutUint32(p[16:], h.sequence)
	binary.BigEndian.PutUint32(p[20:], h.generation)
	binary.BigEndian.PutUint32(p[24:], h.column)
	binary.BigEndian.PutUint16(p[28:], h.row)
	p[30], p[31] = 0, 0
}

// sign writes the tag of a packet: its last [tagSize] bytes.
func (k *Key) sign(p []byte) {
	body := p[:len(p)-tagSize]
	k.aead.Seal(p[len(body):len(body)], p[8:20], nil, body)
}

// A verdict is what became of a packet; all but accepted are counters.
type verdict int

const (
	accepted verdict = iota
	notOurs          // too short, too long, other magic
	otherVersion
	otherKey
	badTag
	malformed // tag is good, content is against the rules
)

// open checks a packet and returns its header and payload. It allocates
// nothing and keeps nothing.
func (k *Key) open(p []byte) (h header, payload []byte, v verdict) {
	if len(p) < headerSize+64+tagSize || len(p) > maxDatagram || [4]byte(p[:4]) != magic {
		return h, nil, notOurs
	}
	if p[4] != version {
		return h, nil, otherVersion
	}
	if p[6] != k.hint[0] || p[7] != k.hint[1] {
		return h, nil, otherKey
	}
	body := p[:len(p)-tagSize]
	if _, err := k.aead.Open(nil, p[8:20], p[len(body):], body); err != nil {
		return h, nil, badTag
	}
	h = header{
		kind:       p[5],
		transfer:   binary.BigEndian.Uint64(p[8:]),
		sequence:   binary.BigEndian.Uint32(p[16:]),
		generation: binary.BigEndian.Uint32(p[20:]),
		column:     binary.BigEndian.Uint32(p[24:]),
		row:        binary.BigEndian.Uint16(p[28:]),
	}
	payload = body[headerSize:]
	symbol := h.kind == typeSymbol
	control := h.kind == typeDescriptor || h.kind == typeHeartbeat
	switch {
	case !symbol && !control && h.kind != typeFiller,
		p[30] != 0 || p[31] != 0,
		!symbol && (h.generation != 0 || h.column != 0 || h.row != 0),
		control && len(payload) != controlSize:
		return h, nil, malformed
	}
	return h, payload, accepted
}
