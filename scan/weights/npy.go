package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxNPYHeader bounds the header, as numpy does for what it does not
	// trust. Structured arrays with hundreds of fields stay below.
	maxNPYHeader = 1 << 20
	// maxNPYDepth bounds fields in fields.
	maxNPYDepth = 16
	npyMagic    = "\x93NUMPY"
)

// errNPY says that a file is not what numpy.save writes.
var errNPY = errors.New("malformed npy header")

// An npyHeader is what stands before an array's data.
type npyHeader struct {
	data    int64 // where it begins
	count   int64
	item    int64 // bytes of one element
	objects bool  // the data is a pickle
}

// npy judges an array. An array of objects is a pickle behind the header.
func (v *visit) npy() error {
	h, err := readNPY(v.content, v.f.Size)
	if err != nil {
		if v.ctx.Err() != nil {
			return v.ctx.Err()
		}
		if !errors.Is(err, errNPY) {
			return err
		}
		v.grave("MODEL-NPY", "%v", err)
		return nil
	}
	if h.objects {
		rep, err := v.scanPickle(h.data)
		if err != nil {
			return err
		}
		v.judge(rep, " of the array's objects")
		return v.behind(rep, h.data)
	}
	hi, want := bits.Mul64(uint64(h.count), uint64(h.item))         // #nosec G115 -- neither is negative
	if have := v.f.Size - h.data; hi != 0 || want != uint64(have) { // #nosec G115 -- the header lies in the file
		v.grave("MODEL-NPY", "%v: %d elements of %d bytes, and %d bytes of data", errNPY, h.count, h.item, have)
	}
	return nil
}

// readNPY reads the header of a file of size bytes.
func readNPY(r io.ReaderAt, size int64) (*npyHeader, error) {
	var fixed [12]byte
	n := min(size, int64(len(fixed)))
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, n), fixed[:n]); err != nil {
		return nil, err
	}
	if n < 12 || string(fixed[:6]) != npyMagic {
		return nil, fmt.Errorf("%w: no magic, or the file ends in it", errNPY)
	}
	start, length := int64(10), int64(binary.LittleEndian.Uint16(fixed[8:]))
	switch fixed[6] {
	case 1:
	case 2, 3:
		start, length = 12, int64(binary.LittleEndian.Uint32(fixed[8:]))
	default:
		return nil, fmt.Errorf("%w: version %d, want 1 to 3", errNPY, fixed[6])
	}
	if length > maxNPYHeader || length > size-start {
		return nil, fmt.Errorf("%w: a header of %d bytes in a file of %d, at most %d are read", errNPY, length, size, maxNPYHeader)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(r, start, length), text); err != nil {
		return nil, err
	}
	h, err := parseNPY(string(text))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNPY, err)
	}
	h.data = start + length
	return h, nil
}

// parseNPY reads the dictionary of the header: exactly descr, fortran_order
// and shape.
func parseNPY(s string) (*npyHeader, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("not UTF-8")
	}
	p := &literal{s: s}
	top, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if strings.Trim(p.s[p.at:], " \n") != "" {
		return nil, fmt.Errorf("%s follows the dictionary", quote(p.s[p.at:]))
	}
	d, ok := top.(map[string]any)
	if !ok || len(d) != 3 {
		return nil, errors.New("want a dictionary of descr, fortran_order and shape")
	}
	if _, ok := d["fortran_order"].(bool); !ok {
		return nil, errors.New("fortran_order is neither True nor False")
	}
	h := &npyHeader{count: 1}
	shape, ok := d["shape"].([]any)
	if !ok || len(shape) > 64 {
		return nil, errors.New("shape is no tuple of at most 64 numbers")
	}
	if h.count, err = product(shape); err != nil {
		return nil, err
	}
	h.item, h.objects, err = itemSize(d["descr"], 0)
	return h, err
}

// product is the number of elements of a shape.
func product(shape []any) (int64, error) {
	n := uint64(1)
	for _, x := range shape {
		i, ok := x.(int64)
		if !ok || i < 0 {
			return 0, errors.New("shape holds what is no length")
		}
		hi, lo := bits.Mul64(n, uint64(i)) // #nosec G115 -- not negative
		if hi != 0 || lo > math.MaxInt64 {
			return 0, errors.New("shape overflows")
		}
		n = lo
	}
	return int64(n), nil // #nosec G115 -- just compared
}

// itemSize is the size of a descr: a text, or a list of fields.
func itemSize(descr any, depth int) (size int64, objects bool, err error) {
	if depth > maxNPYDepth {
		return 0, false, fmt.Errorf("fields more than %d deep", maxNPYDepth)
	}
	switch d := descr.(type) {
	case string:
		return scalarSize(d)
	case *list:
		for _, f := range d.items {
			n, o, err := fieldSize(f, depth)
			if err != nil {
				return 0, false, err
			}
			if size += n; size > math.MaxInt32 {
				return 0, false, errors.New("an element of more than 2 GiB")
			}
			objects = objects || o
		}
		return size, objects, nil
	case []any: // (descr, shape)
		if len(d) == 2 {
			return arraySize(d[0], d[1], depth)
		}
	}
	return 0, false, errors.New("descr is neither a type nor a list of fields")
}

// fieldSize is the size of (name, descr) or (name, descr, shape).
func fieldSize(f any, depth int) (int64, bool, error) {
	t, ok := f.([]any)
	if !ok || len(t) < 2 || len(t) > 3 {
		return 0, false, errors.New("a field is no tuple of name, type and shape")
	}
	if _, ok := t[0].(string); !ok {
		pair, ok := t[0].([]any) // (title, name)
		if !ok || len(pair) != 2 {
			return 0, false, errors.New("a field without a name")
		}
	}
	if len(t) == 2 {
		return itemSize(t[1], depth+1)
	}
	return arraySize(t[1], t[2], depth)
}

func arraySize(descr, shape any, depth int) (int64, bool, error) {
	n, objects, err := itemSize(descr, depth+1)
	if err != nil {
		return 0, false, err
	}
	dims, ok := shape.([]any)
	if one, single := shape.(int64); single {
		dims, ok = []any{one}, true
	}
	if !ok {
		return 0, false, errors.New("the shape of a field is none")
	}
	count, err := product(dims)
	if err != nil {
		return 0, false, err
	}
	hi, lo := bits.Mul64(uint64(n), uint64(count)) // #nosec G115 -- neither is negative
	if hi != 0 || lo > math.MaxInt32 {
		return 0, false, errors.New("a field of more than 2 GiB")
	}
	return int64(lo), objects, nil // #nosec G115 -- just compared
}

// scalarSize reads a type such as <f4, |b1, <U5, |O or <M8[ns].
func scalarSize(s string) (int64, bool, error) {
	bad := fmt.Errorf("descr %s is no type", quote(s))
	t := strings.TrimLeft(s, "<>|=")
	if len(s)-len(t) > 1 || t == "" {
		return 0, false, bad
	}
	letter, rest := t[0], t[1:]
	if letter == 'M' || letter == 'm' { // a date, with its unit behind
		rest, _, _ = strings.Cut(rest, "[")
	}
	n, err := int64(0), error(nil)
	if rest != "" {
		if n, err = strconv.ParseInt(rest, 10, 32); err != nil || n < 0 || rest[0] == '+' {
			return 0, false, bad
		}
	}
	switch letter {
	case 'O':
		return 8, true, nil
	case 'S', 'a', 'V':
		return n, false, nil
	case 'U':
		return 4 * n, false, nil
	case '?':
		return 1, false, nil
	case 'b', 'i', 'u', 'f', 'c', 'M', 'm':
		if rest != "" && n > 0 && n <= 64 {
			return n, false, nil
		}
	}
	return 0, false, bad
}
