package gguf

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

const (
	magic = "GGUF"

	// The least that a piece of metadata and a tensor take: a length, a type
	// and a byte; a length, the number of dimensions, a type and an offset.
	minKV     = 8 + 1 + 4 + 1
	minTensor = 8 + 1 + 4 + 4 + 8
)

// A parser reads a header into a File.
type parser struct {
	*scanner
	f *File
}

func (p *parser) header() error {
	tensors, pairs, err := p.start()
	if err != nil {
		return err
	}
	for range pairs {
		if err := p.pair(); err != nil {
			return err
		}
	}
	if err := p.settings(); err != nil {
		return err
	}
	names := make(map[string]bool)
	for range tensors {
		if err := p.tensor(names); err != nil {
			return err
		}
	}
	return p.data()
}

// start reads what every file begins with.
func (p *parser) start() (tensors, pairs uint64, err error) {
	if err := p.need(uint64(len(magic)), "magic"); err != nil {
		return 0, 0, err
	}
	got, err := p.text(len(magic), "magic")
	if err != nil {
		return 0, 0, err
	}
	if got != magic {
		return 0, 0, refuse(BadMagic, "byte 0", "not a GGUF file", quote(magic), quote(got))
	}
	if p.f.Version, err = p.u32("version"); err != nil {
		return 0, 0, err
	}
	switch v := p.f.Version; {
	case v&0xffff == 0 && v != 0:
		return 0, 0, refuse(BadVersion, "byte 4", "written in big endian", "version 2 or 3 in little endian", fmt.Sprintf("%#08x", v))
	case v != 2 && v != 3:
		return 0, 0, refuse(BadVersion, "byte 4", "version", "2 or 3", strconv.FormatUint(uint64(v), 10))
	}
	if tensors, err = p.count("number of tensors", MaxTensors, minTensor); err != nil {
		return 0, 0, err
	}
	pairs, err = p.count("number of metadata", MaxMetadata, minKV)
	return tensors, pairs, err
}

// count reads how many things of at least so many bytes follow.
func (p *parser) count(what string, most, each uint64) (uint64, error) {
	n, err := p.u64(what)
	if err != nil {
		return 0, err
	}
	if n > most {
		return 0, refuse(TooMany, p.where(), what, fmt.Sprintf("%d or less", most), strconv.FormatUint(n, 10))
	}
	return n, p.need(n*each, what)
}

// pair reads a key and its value.
func (p *parser) pair() error {
	n, err := p.length(MaxKey, "key")
	if err != nil {
		return err
	}
	key, err := p.text(n, "key")
	switch _, again := p.f.byKey[key]; {
	case err != nil:
		return err
	case !isKey(key):
		return refuse(BadKey, p.where(), "a key is empty, or not printable ASCII", "", quote(key))
	case again:
		return refuse(DuplicateKey, p.where(), "a key stands twice", "", quote(key))
	}
	kv := KV{Key: key}
	kind, err := p.u32("type of " + quote(key))
	if err != nil {
		return err
	}
	switch kv.kind = valueType(kind); {
	case kv.kind == list:
		err = p.list(&kv)
	case kv.kind == text:
		err = p.value(&kv)
	case kv.kind.width() > 0:
		kv.number, err = p.scalar(kv.kind, key)
	default:
		err = refuse(BadValue, p.where(), quote(key)+": type of the value", "0 to 12", strconv.FormatUint(uint64(kind), 10))
	}
	if err != nil {
		return err
	}
	p.f.byKey[key] = len(p.f.Metadata)
	p.f.Metadata = append(p.f.Metadata, kv)
	return nil
}

// scalar reads a number; integers are extended by their sign.
func (p *parser) scalar(kind valueType, key string) (uint64, error) {
	v, err := p.number(kind.width(), quote(key))
	switch shift := 64 - 8*kind.width(); {
	case err != nil:
		return 0, err
	case kind == truth && v > 1:
		return 0, refuse(BadValue, p.where(), quote(key)+": truth value", "0 or 1", strconv.FormatUint(v, 10))
	case kind.signed():
		v = uint64(int64(v<<shift) >> shift) // #nosec G115 -- the same bits
	}
	return v, nil
}

// value reads a text, and keeps it unless it is long.
func (p *parser) value(kv *KV) error {
	n, err := p.length(MaxText, quote(kv.Key))
	if err != nil {
		return err
	}
	if n > MaxKept {
		p.skip(int64(n))
		return nil
	}
	kv.kept = true
	kv.text, err = p.text(n, quote(kv.Key))
	return err
}

// list reads a list. Of texts the first are kept, of the rest nothing.
func (p *parser) list(kv *KV) error {
	what := quote(kv.Key)
	elem, err := p.u32(what)
	if err != nil {
		return err
	}
	kv.elem = valueType(elem)
	each := kv.elem.width()
	switch {
	case kv.elem == text:
		each = 8
	case kv.elem == list:
		return refuse(BadValue, p.where(), what+": a list of lists, which no loader takes", "", "")
	case each == 0:
		return refuse(BadValue, p.where(), what+": type of the elements", "0 to 12", strconv.FormatUint(uint64(elem), 10))
	}
	if kv.n, err = p.count(what, MaxList, uint64(each)); err != nil { // #nosec G115 -- 1 to 8
		return err
	}
	switch kv.elem {
	case text:
		return p.texts(kv)
	case truth:
		for range kv.n {
			if _, err := p.scalar(truth, kv.Key); err != nil {
				return err
			}
		}
		return nil
	}
	p.skip(int64(kv.n) * int64(each)) // #nosec G115 -- at most MaxHeader
	return nil
}

// texts reads the elements of a list of texts.
func (p *parser) texts(kv *KV) error {
	what := quote(kv.Key)
	keep := true
	for range kv.n {
		n, err := p.length(MaxText, what)
		if err != nil {
			return err
		}
		if keep = keep && len(kv.first) < maxFirst && n <= maxFirstBytes; !keep {
			p.skip(int64(n))
			continue
		}
		s, err := p.text(n, what)
		if err != nil {
			return err
		}
		kv.first = append(kv.first, s)
	}
	return nil
}

// settings checks the metadata that the reader itself goes by.
func (p *parser) settings() error {
	if kv, ok := p.f.get("general.alignment"); ok {
		if kv.kind != u32 || bits.OnesCount64(kv.number) != 1 {
			return refuse(BadAlignment, "general.alignment", "not an alignment", "a power of two of 32 bits without sign", strconv.FormatUint(kv.number, 10))
		}
		p.f.Alignment = int64(kv.number) // #nosec G115 -- of 32 bits
	}
	count, ok := p.f.Uint("split.count")
	if !ok {
		return nil
	}
	no, there := p.f.Uint("split.no")
	if count > math.MaxUint16 || count > 1 && (!there || no >= count) {
		return refuse(BadSplit, "split.count", "no shard of so many", fmt.Sprintf("split.no below %d", count), strconv.FormatUint(no, 10))
	}
	return nil
}

// tensor reads one tensor's form and place.
func (p *parser) tensor(names map[string]bool) error {
	n, err := p.length(maxName, "name of a tensor")
	if err != nil {
		return err
	}
	t := Tensor{}
	if t.Name, err = p.text(n, "name of a tensor"); err != nil {
		return err
	}
	title := "tensor " + quote(t.Name)
	switch {
	case t.Name == "":
		return refuse(BadTensor, p.where(), "a tensor without a name", "", "")
	case names[t.Name]:
		return refuse(DuplicateKey, title, "stands twice", "", "")
	}
	names[t.Name] = true
	if err := p.form(&t, title); err != nil {
		return err
	}
	offset, err := p.u64(title)
	if err != nil {
		return err
	}
	if want := p.next(); offset != want {
		return refuse(BadOffset, title, "its data does not begin where that of the tensor before it ends", strconv.FormatUint(want, 10), strconv.FormatUint(offset, 10))
	}
	if offset > uint64(p.size) || uint64(t.Size) > uint64(p.size)-offset { // #nosec G115 -- neither is negative
		return refuse(OutOfFile, title, "its data goes beyond the end of the file", fmt.Sprintf("%d bytes or less", p.size), fmt.Sprintf("%d at %d", t.Size, offset))
	}
	t.Offset = int64(offset) // #nosec G115 -- at most the file's size
	p.f.Tensors = append(p.f.Tensors, t)
	return nil
}

// form reads a tensor's dimensions and type.
func (p *parser) form(t *Tensor, title string) error {
	dims, err := p.u32(title)
	if err != nil {
		return err
	}
	if dims > maxDims {
		return refuse(BadTensor, title, "dimensions", fmt.Sprintf("%d or less", maxDims), strconv.FormatUint(uint64(dims), 10))
	}
	for range dims {
		d, err := p.u64(title)
		if err != nil {
			return err
		}
		if d > math.MaxInt64 {
			return refuse(BadTensor, title, "a negative dimension", "", strconv.FormatUint(d, 10))
		}
		t.Dims = append(t.Dims, int64(d)) // #nosec G115 -- just compared
	}
	kind, err := p.u32(title)
	if err != nil {
		return err
	}
	t.Type = Type(kind)
	return t.measure(title)
}

// measure holds that type and dimensions fit, and gives the size they make.
func (t *Tensor) measure(title string) error {
	l, ok := layouts[t.Type]
	if !ok {
		return refuse(UnknownType, title, "a type that is not known here", "", t.Type.String())
	}
	row := int64(1)
	if len(t.Dims) > 0 {
		row = t.Dims[0]
	}
	if row%l.block != 0 {
		return refuse(BadTensor, title, "its rows do not fill whole blocks of "+l.name, fmt.Sprintf("a multiple of %d", l.block), strconv.FormatInt(row, 10))
	}
	elements := uint64(1)
	for _, d := range t.Dims {
		over, n := bits.Mul64(elements, uint64(d)) // #nosec G115 -- not negative
		if over != 0 || n > math.MaxInt64 {
			return overflow(title, t)
		}
		elements = n
	}
	over, n := bits.Mul64(elements/uint64(l.block), uint64(l.bytes)) // #nosec G115 -- of the table
	if over != 0 || n > math.MaxInt64 {
		return overflow(title, t)
	}
	t.Size = int64(n) // #nosec G115 -- just compared
	return nil
}

func overflow(title string, t *Tensor) error {
	return refuse(Overflow, title, "its size overflows", "fewer than 2^63 bytes", fmt.Sprintf("%s %v", t.Type, t.Dims))
}

// next is where the data of the next tensor begins.
func (p *parser) next() uint64 {
	if len(p.f.Tensors) == 0 {
		return 0
	}
	last := &p.f.Tensors[len(p.f.Tensors)-1]
	return align(last.Offset+last.Size, p.f.Alignment)
}

// align rounds n up. It cannot overflow: n is at most a file's size, and an
// alignment has 32 bits.
func align(n, to int64) uint64 {
	return (uint64(n) + uint64(to) - 1) &^ (uint64(to) - 1) // #nosec G115 -- neither is negative
}

// data holds that the file has room for the tensors. A file without any may end
// without the padding.
func (p *parser) data() error {
	begin := align(p.at, p.f.Alignment)
	if len(p.f.Tensors) == 0 {
		p.f.DataOffset = int64(min(begin, uint64(p.size))) // #nosec G115 -- at most the file's size
		return nil
	}
	last := &p.f.Tensors[len(p.f.Tensors)-1]
	if end := begin + uint64(last.Offset) + uint64(last.Size); end > uint64(p.size) { // #nosec G115 -- at most three times a file's size
		return refuse(OutOfFile, "tensor "+quote(last.Name), "its data goes beyond the end of the file", fmt.Sprintf("an end at byte %d or before", p.size), strconv.FormatUint(end, 10))
	}
	p.f.DataOffset = int64(begin) // #nosec G115 -- at most the file's size
	return nil
}

// isKey accepts printable ASCII without white space: what keys of models are
// made of, and more.
func isKey(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}
