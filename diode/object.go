package diode

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A geometry is how an object is cut.
type geometry struct {
	k, payload, columns int
	size                int64
}

// generation is the number of bytes of a whole generation.
func (g geometry) generation() int64 { return int64(g.k) * g.row() }

// row is the number of bytes of a row.
func (g geometry) row() int64 { return int64(g.columns) * int64(g.payload) }

// generations is their number.
func (g geometry) generations() int {
	if g.size == 0 {
		return 0
	}
	return int((g.size-1)/g.generation()) + 1
}

// bytes is how many bytes of the object generation n holds.
func (g geometry) bytes(n int) int64 {
	return min(g.generation(), g.size-int64(n)*g.generation())
}

// symbols is how many data symbols of generation n are not known zeros; they
// come first in the order of sending.
func (g geometry) symbols(n int) int {
	p := int64(g.payload)
	return int((g.bytes(n) + p - 1) / p)
}

// allRows is the number of rows that exist on the wire.
const allRows = 256

// An objectID names an object: what two sendings of the same file have in
// common.
type objectID [16]byte

func (id objectID) String() string { return hex.EncodeToString(id[:]) }

// crockford is the alphabet of tickets: no letter looks like a digit.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

func (id objectID) short() string { return crockford.EncodeToString(id[:5]) }

// A descriptor says what a transfer carries.
type descriptor struct {
	geometry
	parity       int // m, of a pass
	pass, passes int
	ended        bool
	digest       [sha256.Size]byte
	clock        time.Time
	name         string
}

const (
	descriptorVersion = 1
	matrixCauchy      = 1
	flagEnded         = 1
	nameAt            = 70
	maxName           = 255
)

// encode writes the descriptor as docs/diode-format.md has it.
func (d *descriptor) encode(p []byte) {
	clear(p[:controlSize])
	be := binary.BigEndian
	be.PutUint16(p[0:], descriptorVersion)
	be.PutUint16(p[2:], uint16(d.k))
	be.PutUint16(p[4:], uint16(d.parity))
	be.PutUint16(p[6:], uint16(d.payload))
	be.PutUint32(p[8:], uint32(d.columns))
	be.PutUint16(p[12:], uint16(d.pass))
	be.PutUint16(p[14:], uint16(d.passes))
	p[16] = matrixCauchy
	if d.ended {
		p[17] = flagEnded
	}
	be.PutUint64(p[20:], uint64(d.size))
	copy(p[28:], d.digest[:])
	be.PutUint64(p[60:], uint64(d.clock.UnixNano()))
	be.PutUint16(p[68:], uint16(len(d.name)))
	copy(p[nameAt:], d.name)
}

// parseDescriptor reads a descriptor and holds it to every rule.
func parseDescriptor(p []byte) (*descriptor, error) {
	if len(p) != controlSize {
		return nil, fmt.Errorf("descriptor: %d bytes, want %d", len(p), controlSize)
	}
	be := binary.BigEndian
	if v := be.Uint16(p); v != descriptorVersion {
		return nil, fmt.Errorf("descriptor: version %d, want %d", v, descriptorVersion)
	}
	size, length := be.Uint64(p[20:]), int(be.Uint16(p[68:]))
	switch {
	case p[16] != matrixCauchy:
		return nil, fmt.Errorf("descriptor: matrix %d, want %d", p[16], matrixCauchy)
	case p[17] > flagEnded || be.Uint16(p[18:]) != 0:
		return nil, errors.New("descriptor: unknown flags")
	case size > maxSize:
		return nil, fmt.Errorf("descriptor: size %d, at most %d", size, int64(maxSize))
	case length < 1 || length > maxName:
		return nil, fmt.Errorf("descriptor: name of %d bytes, want 1 to %d", length, maxName)
	}
	for _, b := range p[nameAt+length:] {
		if b != 0 {
			return nil, errors.New("descriptor: bytes after the name")
		}
	}
	d := &descriptor{
		geometry: geometry{
			k: int(be.Uint16(p[2:])), payload: int(be.Uint16(p[6:])),
			columns: int(min(be.Uint32(p[8:]), maxColumns+1)), size: int64(size),
		},
		parity: int(be.Uint16(p[4:])), pass: int(be.Uint16(p[12:])), passes: int(be.Uint16(p[14:])),
		ended: p[17] == flagEnded, clock: time.Unix(0, int64(be.Uint64(p[60:])&(1<<63-1))).UTC(),
		name: string(p[nameAt : nameAt+length]),
	}
	copy(d.digest[:], p[28:60])
	return d, d.check()
}

// check holds the rules on the values.
func (d *descriptor) check() error {
	switch {
	case d.k < 1 || d.k > 255:
		return fmt.Errorf("k %d: want 1 to 255", d.k)
	case d.parity < 0 || d.parity > allRows-d.k:
		return fmt.Errorf("m %d: want 0 to %d for k %d", d.parity, allRows-d.k, d.k)
	case d.payload < 64 || d.payload > maxPayload || d.payload%64 != 0:
		return fmt.Errorf("payload %d: want a multiple of 64 from 64 to %d", d.payload, maxPayload)
	case d.columns < 1 || d.columns > maxColumns:
		return fmt.Errorf("columns %d: want 1 to %d", d.columns, maxColumns)
	case d.pass < 1:
		return fmt.Errorf("pass %d: want 1 or more", d.pass)
	case d.size < 0 || d.size > maxSize:
		return fmt.Errorf("size %d: want 0 to %d", d.size, int64(maxSize))
	case d.generations() > maxGenerations:
		return fmt.Errorf("%d generations: at most %d; the columns are too few for the size", d.generations(), maxGenerations)
	}
	return CheckName(d.name)
}

// object is the number of the object that the transfer carries.
func (d *descriptor) object() objectID {
	var p [controlSize]byte
	d.encode(p[:])
	h := sha256.New()
	h.Write(p[2:4])
	h.Write(p[6:12])
	h.Write(p[20:60])
	h.Write([]byte(d.name))
	return objectID(h.Sum(nil)[:len(objectID{})])
}

// CheckName accepts the names that files may have on the link: one to four
// parts joined by "/", each 1 to 100 letters, digits and "._+-", beginning with
// a letter, a digit, "_" or "+".
func CheckName(name string) error {
	parts := strings.Split(name, "/")
	ok := len(name) <= maxName && len(parts) <= 4
	for _, part := range parts {
		ok = ok && part != "" && len(part) <= 100 && part[0] != '.' && part[0] != '-'
		for _, c := range []byte(part) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("._+-", c) >= 0)
		}
	}
	if !ok {
		if len(name) > 80 {
			name = name[:80] + "..."
		}
		return fmt.Errorf("%w: name %q: want up to four parts of letters, digits and . _ + -, joined by /, none beginning with . or -", ErrConfig, name)
	}
	return nil
}

// A heartbeat tells the inside that the sender lives.
type heartbeat struct {
	state    byte
	waiting  int
	transfer uint64
	sent     uint64
	clock    time.Time
	rate     uint64
}

// States of a sender.
const (
	stateIdle = iota
	stateSending
	stateLeaving
)

func (h *heartbeat) encode(p []byte) {
	clear(p[:controlSize])
	be := binary.BigEndian
	be.PutUint16(p[0:], 1)
	be.PutUint16(p[2:], uint16(h.state))
	be.PutUint32(p[4:], uint32(h.waiting))
	be.PutUint64(p[8:], h.transfer)
	be.PutUint64(p[16:], h.sent)
	be.PutUint64(p[24:], uint64(h.clock.UnixNano()))
	be.PutUint64(p[32:], h.rate)
}

func parseHeartbeat(p []byte) (*heartbeat, error) {
	be := binary.BigEndian
	if len(p) != controlSize || be.Uint16(p) != 1 || be.Uint16(p[2:]) > stateLeaving {
		return nil, errors.New("heartbeat: unknown version or state")
	}
	return &heartbeat{
		state: byte(be.Uint16(p[2:])), waiting: int(be.Uint32(p[4:])), transfer: be.Uint64(p[8:]), sent: be.Uint64(p[16:]),
		clock: time.Unix(0, int64(be.Uint64(p[24:])&(1<<63-1))).UTC(), rate: be.Uint64(p[32:]),
	}, nil
}
