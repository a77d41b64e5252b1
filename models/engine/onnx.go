package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	onnxEnd = ".onnx"
	// maxFields bounds the fields of an ONNX file that are looked at, maxNest
	// how deep they lie: graphs hold graphs. maxOnnxText bounds a text.
	maxFields   = 5_000_000
	maxNest     = 64
	maxOnnxText = 1024
	// maxExternal bounds the files that a graph's weights lie in.
	maxExternal = 1000
)

// errOnnx says that a file is not what ONNX writes.
var errOnnx = errors.New("not an ONNX file, or a broken one")

// An onnxHead is what counts of an ONNX file.
type onnxHead struct {
	version uint64            // of the format
	domains map[string]uint64 // sets of operators, with their versions
	graph   bool
	// external gives the other files that weights lie in, and the end of the
	// last of them.
	external map[string]uint64
}

// A message is a kind of message of the ONNX format, as far as it is looked
// into.
type message byte

const (
	model message = iota + 1
	operators
	graph
	node
	attribute
	tensor
	sparse
	entry
	function
)

// inside gives the fields that hold messages, by the message that they are in.
var inside = map[message]map[uint64]message{
	model:     {7: graph, 8: operators, 25: function},
	graph:     {1: node, 5: tensor, 15: sparse},
	function:  {7: node, 9: operators},
	node:      {5: attribute},
	attribute: {5: tensor, 6: graph, 10: tensor, 11: graph, 22: sparse, 23: sparse},
	sparse:    {1: tensor, 2: tensor},
	tensor:    {13: entry},
}

// An onnxReader goes through the fields of a file and skips all data.
type onnxReader struct {
	r      io.ReaderAt
	size   int64
	fields int
	head   onnxHead

	window [4096]byte // the bytes from begin on, n of them
	begin  int64
	n      int
}

// readOnnx reads what an ONNX file needs besides itself.
func readOnnx(r io.ReaderAt, size int64) (onnxHead, error) {
	p := &onnxReader{r: r, size: size, head: onnxHead{domains: make(map[string]uint64), external: make(map[string]uint64)}}
	v, err := p.message(model, 0, size, 0)
	if err != nil {
		return onnxHead{}, err
	}
	p.head.version = v.numbers[1]
	if !p.head.graph || p.head.version == 0 || len(p.head.domains) == 0 {
		return onnxHead{}, fmt.Errorf("%w: no graph, version or set of operators", errOnnx)
	}
	return p.head, nil
}

// A contents is what counts of one message: its texts and numbers by their
// fields, and of a tensor where its data lies.
type contents struct {
	texts   [3]string
	numbers [15]uint64
	entries map[string]string
}

// message reads the message from at to end.
func (p *onnxReader) message(kind message, at, end int64, depth int) (v contents, err error) {
	if depth > maxNest {
		return v, fmt.Errorf("%w: nested deeper than %d", errOnnx, maxNest)
	}
	for at < end {
		if p.fields++; p.fields > maxFields {
			return v, fmt.Errorf("more than %d fields", maxFields)
		}
		f, err := p.field(at, end)
		if err != nil {
			return v, err
		}
		at = f.at + f.length
		inner := inside[kind][f.id]
		switch {
		case inner != 0 && f.wire == wireBytes:
			var got contents
			if got, err = p.message(inner, f.at, at, depth+1); err == nil {
				err = p.take(inner, got, &v)
			}
		case (kind == operators || kind == entry) && f.id < uint64(len(v.texts)) && f.wire == wireBytes:
			v.texts[f.id], err = p.text(f.at, f.length)
		case f.wire == wireNumber && f.id < uint64(len(v.numbers)):
			v.numbers[f.id] = f.number
		}
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

// take keeps what a message says. outer is the one that it is in.
func (p *onnxReader) take(kind message, v contents, outer *contents) error {
	switch kind {
	case graph:
		p.head.graph = true
	case operators:
		if len(p.head.domains) < maxExternal {
			p.head.domains[v.texts[1]] = max(p.head.domains[v.texts[1]], v.numbers[2])
		}
	case entry:
		if outer.entries == nil {
			outer.entries = make(map[string]string)
		}
		if len(outer.entries) < maxNest {
			outer.entries[v.texts[1]] = v.texts[2]
		}
	case tensor:
		if v.numbers[14] == dataExternal {
			return p.outside(v.entries)
		}
	}
	return nil
}

// outside keeps where a tensor's data lies.
func (p *onnxReader) outside(entries map[string]string) error {
	offset, err1 := strconv.ParseUint("0"+entries["offset"], 10, 62)
	length, err2 := strconv.ParseUint("0"+entries["length"], 10, 62)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("%w: external data: %w", errOnnx, err)
	}
	where := entries["location"]
	if _, again := p.head.external[where]; !again && len(p.head.external) == maxExternal {
		return fmt.Errorf("weights in more than %d files", maxExternal)
	}
	p.head.external[where] = max(p.head.external[where], offset+length)
	return nil
}

// dataExternal is data_location of a tensor whose data lies in another file.
const dataExternal = 1

// How a field's value is written.
const (
	wireNumber = 0
	wire64     = 1
	wireBytes  = 2
	wire32     = 5
)

// A field is one field's head: a number, or length bytes from at on.
type field struct {
	id, wire, number uint64
	at, length       int64
}

func (p *onnxReader) field(at, end int64) (f field, err error) {
	key, next, err := p.varint(at, end)
	if err != nil {
		return f, err
	}
	f = field{id: key >> 3, wire: key & 7, at: next}
	var n uint64
	switch f.wire {
	case wireNumber:
		f.number, f.at, err = p.varint(f.at, end)
	case wire64:
		n = 8
	case wireBytes:
		n, f.at, err = p.varint(f.at, end)
	case wire32:
		n = 4
	default:
		err = fmt.Errorf("%w: byte %d: wire type %d", errOnnx, at, f.wire)
	}
	switch {
	case err != nil:
	case f.id == 0:
		err = fmt.Errorf("%w: byte %d: field 0", errOnnx, at)
	case n > uint64(end-f.at): // #nosec G115 -- at <= end
		err = fmt.Errorf("%w: byte %d: %d bytes of data, %d are left", errOnnx, at, n, end-f.at)
	}
	f.length = int64(n) // #nosec G115 -- an error, or at most end-at
	return f, err
}

// varint reads a number of variable length.
func (p *onnxReader) varint(at, end int64) (uint64, int64, error) {
	b, err := p.bytes(at, min(binary.MaxVarintLen64, end-at))
	if err != nil {
		return 0, at, err
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, at, fmt.Errorf("%w: byte %d: no number", errOnnx, at)
	}
	return v, at + int64(n), nil
}

func (p *onnxReader) text(at, length int64) (string, error) {
	if length > maxOnnxText {
		return "", fmt.Errorf("%w: byte %d: a text of %d bytes", errOnnx, at, length)
	}
	b, err := p.bytes(at, length)
	return string(b), err
}

// bytes gives n bytes of the file, fewer than the window has; they are good
// until the next call.
func (p *onnxReader) bytes(at, n int64) ([]byte, error) {
	if at < p.begin || at+n > p.begin+int64(p.n) {
		p.begin, p.n = at, int(min(int64(len(p.window)), p.size-at))
		if got, err := p.r.ReadAt(p.window[:p.n], at); got < p.n {
			p.n = 0
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("byte %d: %w", at, err)
		}
	}
	return p.window[at-p.begin:][:n], nil
}

// ownDomains are the sets of operators that ONNX Runtime has: those of ONNX,
// and its own.
var ownDomains = map[string]bool{
	"": true, "ai.onnx": true, "ai.onnx.ml": true, "ai.onnx.training": true, "ai.onnx.preview.training": true,
	"com.microsoft": true, "com.microsoft.nchwc": true, "com.microsoft.experimental": true,
}

func (s *survey) onnxRuntime() Verdict {
	v := &Verdict{Engine: "onnxruntime", State: Loads}
	files := s.paths(func(p string) bool { return strings.HasSuffix(strings.ToLower(p), onnxEnd) })
	if len(files) == 0 {
		v.no("no ONNX file: there is %s", s.onlyFormats())
		return v.finish()
	}
	if len(files) > maxModels {
		v.says("%d graphs are there, the first %d are named", len(files), maxModels)
		files = files[:maxModels]
	}
	order := []State{DoesNotLoad, NotKnown, Loads}
	chosen, room := -1, int64(0)
	v.State = DoesNotLoad
	for i, p := range files {
		one, size := s.onnx(p)
		if one.State == Loads {
			v.says("%s: %s", p, bytesOf(size))
		}
		for _, why := range one.Why {
			v.says("%s", why)
		}
		if chosen < 0 || slices.Index(order, one.State) > slices.Index(order, v.State) {
			chosen, room, v.State = i, size, one.State
		}
	}
	v.needs("%s for the weights of %s", bytesOf(room), files[chosen])
	return v.finish(fmt.Sprintf("onnxruntime.InferenceSession(%q)", s.r.Name+"/"+files[chosen]))
}

// onnx judges one graph, and adds up its files.
func (s *survey) onnx(p string) (*Verdict, int64) {
	v := &Verdict{State: Loads}
	size := s.byPath[p].Size
	h, ok := s.head(p)
	switch {
	case !ok:
		v.unsure("%s: its header is not at hand", p)
		return v, size
	case h.err != nil && h.broken:
		v.no("%s", clip(h.err.Error()))
		return v, size
	case h.err != nil:
		v.unsure("%s", clip(h.err.Error()))
		return v, size
	}
	for _, where := range slices.Sorted(maps.Keys(h.onnx.external)) {
		other := path.Join(path.Dir(p), where)
		f, there := s.byPath[other]
		switch {
		case where == "" || path.IsAbs(where) || strings.Contains(where, `\`) || slices.Contains(strings.Split(where, "/"), ".."):
			v.no("%s: its weights lie in %q, which leads elsewhere", p, clip(where))
		case !there:
			v.no("%s: %s is missing, in which its weights lie", p, clip(other))
		case h.onnx.external[where] > uint64(f.Size): // #nosec G115 -- a size
			v.no("%s: its weights in %s end at byte %d of %d", p, clip(other), h.onnx.external[where], f.Size)
		default:
			size += f.Size
		}
	}
	for _, d := range slices.Sorted(maps.Keys(h.onnx.domains)) {
		if !ownDomains[d] {
			v.unsure("%s: it has operators of %q, which a library of its own brings", p, clip(d))
		}
	}
	return v, size
}
