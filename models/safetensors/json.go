package safetensors

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	metadataKey = "__metadata__"
	// maxDepth bounds nesting in fields that no reader knows. Known ones have
	// three levels.
	maxDepth = 32
	// maxIgnored bounds the unknown fields that are named in a warning.
	maxIgnored = 5
	// maxUnknown bounds the keys in all fields that no reader knows: they are
	// kept as long as their object is read, to find those that stand twice.
	maxUnknown = 100_000
)

// A parser reads the header's JSON. It knows what may stand where, and builds
// nothing else: a hostile header costs about its own size.
type parser struct {
	b     []byte
	i     int
	h     *Header
	found []entry
	list  []int64 // of the last numbers

	metadata bool
	ignored  int // unknown fields
	unknown  int // keys of unknown fields, and in them
}

func (p *parser) fail(why string) error {
	return refuse(InvalidHeaderDeserialization, fmt.Sprintf("header, byte %d", p.i), why, "", "")
}

// header reads all of it.
func (p *parser) header() error {
	if !utf8.Valid(p.b) {
		return refuse(InvalidHeader, "header", "invalid UTF-8", "", "")
	}
	err := p.object(func(key string) error {
		if key == metadataKey {
			if p.metadata {
				return twice("header", key)
			}
			p.metadata = true
			return p.pairs()
		}
		if _, again := p.h.byName[key]; again {
			return twice("header", key)
		}
		if len(p.found) == MaxTensors {
			return refuse(TooMany, "header", "too many tensors", fmt.Sprintf("%d or fewer", MaxTensors), "")
		}
		p.h.byName[key] = len(p.found)
		return p.tensor(key)
	})
	if err != nil {
		return err
	}
	if p.next() != 0 || p.i != len(p.b) {
		return p.fail("data after the header's object")
	}
	return nil
}

func twice(where, key string) error {
	return refuse(DuplicateKey, where, "a key stands twice", "", quote(key))
}

// pairs reads the metadata.
func (p *parser) pairs() error {
	if p.next() == 'n' {
		p.h.Warnings = append(p.h.Warnings, metadataKey+" is null")
		return p.word("null")
	}
	p.h.Metadata = make(map[string]string)
	return p.object(func(key string) error {
		if _, again := p.h.Metadata[key]; again {
			return twice(metadataKey, key)
		}
		if len(p.h.Metadata) == MaxMetadata {
			return refuse(TooMany, metadataKey, "too many keys", fmt.Sprintf("%d or fewer", MaxMetadata), "")
		}
		if p.next() != '"' {
			return refuse(InvalidHeaderDeserialization, metadataKey, quote(key)+": want text", "", "")
		}
		v, err := p.str()
		p.h.Metadata[key] = v
		return err
	})
}

// tensor reads one tensor's object.
func (p *parser) tensor(name string) error {
	e := entry{Tensor: Tensor{Name: name}}
	var shape, offsets bool
	var others map[string]bool
	err := p.object(func(key string) error {
		switch again := false; key {
		case "dtype":
			if e.DType != "" {
				return twice(e.title(), key)
			}
			return p.dtype(&e)
		case "shape":
			again, shape = shape, true
			if again {
				return twice(e.title(), key)
			}
			return p.shape(&e)
		case "data_offsets":
			again, offsets = offsets, true
			if again {
				return twice(e.title(), key)
			}
			return p.offsets(&e)
		}
		if others == nil {
			others = make(map[string]bool)
		}
		if err := p.again(others, key); err != nil {
			return err
		}
		p.ignore(e.title(), key)
		return p.skip(0)
	})
	switch {
	case err != nil:
		return err
	case e.DType == "":
		return refuse(InvalidHeaderDeserialization, e.title(), "dtype is missing", "", "")
	case !shape:
		return refuse(InvalidHeaderDeserialization, e.title(), "shape is missing", "", "")
	case !offsets:
		return refuse(InvalidHeaderDeserialization, e.title(), "data_offsets is missing", "", "")
	}
	p.found = append(p.found, e)
	return nil
}

func (p *parser) dtype(e *entry) error {
	if p.next() != '"' {
		return refuse(InvalidHeaderDeserialization, e.title(), "dtype: want text", "", "")
	}
	raw, err := p.str()
	if err != nil {
		return err
	}
	if e.DType = DType(raw); e.DType.Bits() == 0 {
		return refuse(InvalidHeaderDeserialization, e.title(), "unknown dtype", "", quote(raw))
	}
	return nil
}

func (p *parser) shape(e *entry) error {
	dims, big, err := p.numbers(e, "shape", MaxRank)
	if err != nil {
		return err
	}
	e.Shape, e.big = slices.Clone(dims), e.big || big
	return nil
}

func (p *parser) offsets(e *entry) error {
	at, big, err := p.numbers(e, "data_offsets", 2)
	if err != nil {
		return err
	}
	if len(at) != 2 {
		return refuse(InvalidHeaderDeserialization, e.title(), "data_offsets", "two numbers", strconv.Itoa(len(at)))
	}
	e.Begin, e.End, e.big = at[0], at[1], e.big || big
	return nil
}

// again refuses an unknown key that stands twice in its object.
func (p *parser) again(seen map[string]bool, key string) error {
	where := fmt.Sprintf("header, byte %d", p.i)
	if seen[key] {
		return twice(where, key)
	}
	if p.unknown++; p.unknown > maxUnknown {
		return refuse(TooMany, where, "too many keys that no reader knows", fmt.Sprintf("%d or fewer", maxUnknown), "")
	}
	seen[key] = true
	return nil
}

// ignore warns of a field that no reader looks at.
func (p *parser) ignore(where, key string) {
	if p.ignored++; p.ignored <= maxIgnored {
		p.h.Warnings = append(p.h.Warnings, fmt.Sprintf("%s: unknown key %s", where, quote(key)))
	}
}

// object calls member for each key, with the reader behind the colon.
func (p *parser) object(member func(key string) error) error {
	if p.next() != '{' {
		return p.fail("want '{'")
	}
	p.i++
	if p.next() == '}' {
		p.i++
		return nil
	}
	for {
		key, err := p.key()
		if err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		switch p.next() {
		case ',':
			p.i++
		case '}':
			p.i++
			return nil
		default:
			return p.fail("want ',' or '}'")
		}
	}
}

func (p *parser) key() (string, error) {
	if p.next() != '"' {
		return "", p.fail("want a key")
	}
	key, err := p.str()
	if err != nil {
		return "", err
	}
	if len(key) > MaxName {
		return "", refuse(TooMany, "header", "a key is too long", fmt.Sprintf("%d bytes or fewer", MaxName), strconv.Itoa(len(key)))
	}
	if p.next() != ':' {
		return "", p.fail("want ':'")
	}
	p.i++
	return key, nil
}

// numbers reads a list of at most n numbers, which is good until the next
// call. Those above 2^63 are cut to it, and big is set.
func (p *parser) numbers(e *entry, field string, n int) (out []int64, big bool, err error) {
	bad := func(r Reason, why string) error { return refuse(r, e.title(), field+": "+why, "", "") }
	if p.next() != '[' {
		return nil, false, bad(InvalidHeaderDeserialization, "want a list")
	}
	p.i++
	if p.next() == ']' {
		p.i++
		return nil, false, nil
	}
	out = p.list[:0]
	for {
		v, ok := p.number()
		switch {
		case !ok:
			return nil, false, bad(InvalidHeaderDeserialization, fmt.Sprintf("byte %d: want a 64-bit number that is whole and not negative", p.i))
		case len(out) == n:
			return nil, false, bad(TooMany, fmt.Sprintf("more than %d numbers", n))
		case v > math.MaxInt64:
			v, big = math.MaxInt64, true
		}
		out = append(out, int64(v)) // #nosec G115 -- cut above
		switch p.next() {
		case ',':
			p.i++
		case ']':
			p.i++
			p.list = out
			return out, big, nil
		default:
			return nil, false, p.fail("want ',' or ']'")
		}
	}
}

// number reads digits.
func (p *parser) number() (v uint64, ok bool) {
	p.next()
	start := p.i
	for ; p.i < len(p.b) && p.b[p.i] >= '0' && p.b[p.i] <= '9'; p.i++ {
		over, low := bits.Mul64(v, 10)
		sum, carry := bits.Add64(low, uint64(p.b[p.i]-'0'), 0)
		if over != 0 || carry != 0 {
			return 0, false
		}
		v = sum
	}
	n := p.i - start
	return v, n == 1 || n > 1 && p.b[start] != '0'
}

// skip reads a value of any kind.
func (p *parser) skip(depth int) error {
	if depth > maxDepth {
		return p.fail(fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	switch c := p.next(); c {
	case '{':
		seen := make(map[string]bool)
		return p.object(func(key string) error {
			if err := p.again(seen, key); err != nil {
				return err
			}
			return p.skip(depth + 1)
		})
	case '[':
		return p.skipList(depth)
	case '"':
		_, err := p.str()
		return err
	case 't':
		return p.word("true")
	case 'f':
		return p.word("false")
	case 'n':
		return p.word("null")
	default:
		return p.skipNumber()
	}
}

func (p *parser) skipList(depth int) error {
	p.i++
	if p.next() == ']' {
		p.i++
		return nil
	}
	for {
		if err := p.skip(depth + 1); err != nil {
			return err
		}
		switch p.next() {
		case ',':
			p.i++
		case ']':
			p.i++
			return nil
		default:
			return p.fail("want ',' or ']'")
		}
	}
}

func (p *parser) skipNumber() error {
	start := p.i
	for p.i < len(p.b) && strings.IndexByte("+-.0123456789eE", p.b[p.i]) >= 0 {
		p.i++
	}
	if n := p.b[start:p.i]; len(n) == 0 || !json.Valid(n) {
		p.i = start
		return p.fail("not JSON")
	}
	return nil
}

func (p *parser) word(w string) error {
	if len(p.b)-p.i < len(w) || string(p.b[p.i:p.i+len(w)]) != w {
		return p.fail("not JSON")
	}
	p.i += len(w)
	return nil
}

// next skips white space and gives the byte behind it, 0 at the end.
func (p *parser) next() byte {
	for p.i < len(p.b) {
		switch c := p.b[p.i]; c {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return c
		}
	}
	return 0
}

// str reads a string. The reader is on its first quote.
func (p *parser) str() (string, error) {
	start := p.i
	p.i++
	escaped := false
	for p.i < len(p.b) {
		switch c := p.b[p.i]; {
		case c == '"':
			p.i++
			if !escaped {
				return intern(p.b[start+1 : p.i-1]), nil
			}
			return p.unescape(start)
		case c < ' ':
			return "", p.fail("a control character in a string")
		case c == '\\':
			escaped = true
			p.i += 2
		default:
			p.i++
		}
	}
	return "", p.fail("a string has no end")
}

// intern makes a string of b, without a copy where every tensor has it.
func intern(b []byte) string {
	switch string(b) {
	case "dtype":
		return "dtype"
	case "shape":
		return "shape"
	case "data_offsets":
		return "data_offsets"
	case "F32":
		return "F32"
	case "BF16":
		return "BF16"
	case "F16":
		return "F16"
	}
	return string(b)
}

// unescape decodes the string from start to the reader.
func (p *parser) unescape(start int) (s string, err error) {
	raw := p.b[start:p.i]
	if err := json.Unmarshal(raw, &s); err != nil {
		p.i = start
		return "", p.fail("a string with a broken escape")
	}
	// encoding/json writes U+FFFD for half a surrogate pair; two such names
	// would be one.
	if strings.ContainsRune(s, utf8.RuneError) && lone(raw) {
		p.i = start
		return "", p.fail("half a surrogate pair in a string")
	}
	return s, nil
}

// lone reports whether a valid JSON string holds half a surrogate pair.
func lone(raw []byte) bool {
	unit := func(i int) (uint64, bool) {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0, false
		}
		v, err := strconv.ParseUint(string(raw[i+2:i+6]), 16, 32)
		return v, err == nil
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		v, ok := unit(i)
		if !ok {
			i++ // a short escape
			continue
		}
		i += 5
		switch {
		case v >= 0xd800 && v < 0xdc00:
			low, ok := unit(i + 1)
			if !ok || low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 6
		case v >= 0xdc00 && v <= 0xdfff:
			return true
		}
	}
	return false
}
