package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models/gguf"
	"github.com/darkmirror/darkmirror/models/safetensors"
)

// A head is what the header of a file of weights says.
type head struct {
	err        error
	broken     bool             // err is about the file, not about reading it
	parameters map[string]int64 // by type
	gguf       ggufHead
	onnx       onnxHead
}

// A ggufHead is what counts of a GGUF file's metadata.
type ggufHead struct {
	architecture, fileType, kind string
	chat                         bool
	shards                       int
}

// head reads the header of a file, once. False where files are not at hand.
func (s *survey) head(p string) (head, bool) {
	if s.r.Open == nil {
		return head{}, false
	}
	h, ok := s.heads[p]
	if !ok {
		h = s.readHead(p)
		s.heads[p] = h
	}
	return h, true
}

func (s *survey) readHead(p string) (h head) {
	r, size, done, err := s.r.Open(p)
	if err != nil {
		return head{err: fmt.Errorf("%s: %w", p, err)}
	}
	defer func() {
		if done != nil {
			h.err = errors.Join(h.err, done())
		}
	}()
	h.parameters = make(map[string]int64)
	switch lower := strings.ToLower(p); {
	case strings.HasSuffix(lower, safetensorsEnd):
		var f *safetensors.Header
		if f, err = safetensors.Read(r, size); err == nil {
			for t, n := range f.Parameters() {
				h.parameters[string(t)] = n
			}
		}
		_, h.broken = errors.AsType[safetensors.Reason](err)
	case strings.HasSuffix(lower, ggufEnd):
		var f *gguf.File
		if f, err = gguf.Read(r, size); err == nil {
			h.gguf = ggufHead{architecture: clip(f.Architecture()), fileType: f.FileType()}
			h.gguf.kind, _ = f.String("general.type")
			_, h.gguf.chat = f.ChatTemplate()
			_, h.gguf.shards = f.Split()
			for _, q := range f.Quantisation() {
				h.parameters[q.Type.String()] = q.Parameters
			}
		}
		_, h.broken = errors.AsType[gguf.Reason](err)
		h.broken = h.broken && !errors.Is(err, gguf.UnknownType) // a newer program may know it
	case strings.HasSuffix(lower, onnxEnd):
		h.onnx, err = readOnnx(r, size)
		h.broken = errors.Is(err, errOnnx)
	}
	if err != nil {
		h.err = fmt.Errorf("%s: %w", p, err)
	}
	return h
}

// readHeads reads the headers of weights and says what is wrong with them. The
// result counts the parameters by type.
func (s *survey) readHeads(files []string, v *Verdict) map[string]int64 {
	sum := make(map[string]int64)
	for _, p := range files {
		h, ok := s.head(p)
		switch {
		case !ok:
			return sum
		case h.err != nil && h.broken:
			v.no("%s", clip(h.err.Error()))
		case h.err != nil:
			v.unsure("%s", clip(h.err.Error()))
		}
		for t, n := range h.parameters {
			sum[t] += n
		}
	}
	return sum
}

// memory says what room the weights take. Where several parameters are packed
// into one number, parameters is nil.
func (v *Verdict) memory(size int64, parameters map[string]int64) {
	text := bytesOf(size) + " for the weights"
	total := int64(0)
	for _, n := range parameters {
		total += n
	}
	if total > 0 {
		types := slices.SortedFunc(maps.Keys(parameters), func(a, b string) int {
			return cmp.Or(cmp.Compare(parameters[b], parameters[a]), strings.Compare(a, b))
		})
		text += fmt.Sprintf(" (%s, %s)", parametersOf(total), some(types))
	}
	v.needs("%s", text)
}
