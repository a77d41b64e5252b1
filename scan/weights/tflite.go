package weights

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
)

// maxTFLiteOps bounds the operators of a model; those in use have some dozens.
const maxTFLiteOps = 10_000

var errTFLite = errors.New("malformed flatbuffer")

func isTFLite(head []byte) bool { return len(head) >= 8 && string(head[4:8]) == "TFL3" }

// tflite judges the operators that a model names: those of its own need a
// library, and those that begin with Flex are TensorFlow's.
func (v *visit) tflite() error {
	ops, err := customOps(v.content, v.f.Size)
	if errors.Is(err, errTFLite) {
		v.grave("MODEL-TFLITE", "malformed TensorFlow Lite: %v", err)
		return nil
	}
	if err != nil {
		return err
	}
	flex := map[string]bool{}
	var custom []string
	for _, op := range sortedKeys(ops) {
		if name, ok := strings.CutPrefix(op, "Flex"); ok {
			flex[name] = true
		}
		custom = append(custom, op)
	}
	v.judgeOps(flex)
	if len(custom) > 0 {
		v.add(scan.Low, "MODEL-TFLITE-CUSTOM", "operators that are not TensorFlow Lite's own: %s", quoteList(custom))
	}
	return nil
}

// A flat reads a flatbuffer where it lies.
type flat struct {
	r    io.ReaderAt
	size int64
}

func (b *flat) number(pos int64, n int) (int64, error) {
	if pos < 0 || pos > b.size-int64(n) {
		return 0, errTFLite
	}
	var buf [4]byte
	if _, err := io.ReadFull(io.NewSectionReader(b.r, pos, int64(n)), buf[:n]); err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint32(buf[:])), nil
}

// field is the place of a table's field, 0 if the table has none.
func (b *flat) field(table int64, i int64) (int64, error) {
	back, err := b.number(table, 4)
	if err != nil {
		return 0, err
	}
	vtable := table - int64(int32(back)) // #nosec G115 -- signed, as the format says
	length, err := b.number(vtable, 2)
	if err != nil || 4+2*i+2 > length {
		return 0, err
	}
	off, err := b.number(vtable+4+2*i, 2)
	if err != nil || off == 0 {
		return 0, err
	}
	return table + off, nil
}

// follow is where the offset at pos leads.
func (b *flat) follow(pos int64) (int64, error) {
	off, err := b.number(pos, 4)
	return pos + off, err
}

// customOps are the names of the operators that are not built in: field 1 of
// the model lists the operators, whose field 1 is the name.
func customOps(r io.ReaderAt, size int64) (map[string]bool, error) {
	b := &flat{r, size}
	model, err := b.follow(0)
	if err != nil {
		return nil, err
	}
	at, err := b.field(model, 1)
	if err != nil || at == 0 {
		return nil, err
	}
	vector, err := b.follow(at)
	if err != nil {
		return nil, err
	}
	n, err := b.number(vector, 4)
	if err != nil {
		return nil, err
	}
	if n > maxTFLiteOps {
		return nil, errTFLite
	}
	ops := map[string]bool{}
	for i := range n {
		op, err := b.follow(vector + 4 + 4*i)
		if err != nil {
			return nil, err
		}
		name, err := b.text(op, 1)
		if err != nil {
			return nil, err
		}
		if name != "" {
			ops[name] = true
		}
	}
	return ops, nil
}

// text is a table's field that is one, "" if it is not there.
func (b *flat) text(table, i int64) (string, error) {
	at, err := b.field(table, i)
	if err != nil || at == 0 {
		return "", err
	}
	pos, err := b.follow(at)
	if err != nil {
		return "", err
	}
	n, err := b.number(pos, 4)
	if err != nil {
		return "", err
	}
	if n > maxWireText || pos+4 > b.size-n {
		return "", errTFLite
	}
	s := make([]byte, n)
	_, err = io.ReadFull(io.NewSectionReader(b.r, pos+4, n), s)
	return string(s), err
}
