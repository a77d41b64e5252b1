package ollama

import (
	"errors"
	"fmt"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/gguf"
)

// extension ends the name of a GGUF file.
const extension = ".gguf"

// What a GGUF file is for.
const (
	kindModel     = "model"
	kindProjector = "projector"
	kindOther     = "other" // an adapter, an importance matrix
)

// A head is what the manifests need of a GGUF file's header. The record keeps
// it, so that a file is read once.
type head struct {
	Digest     artifact.Digest `json:"digest"`
	Kind       string          `json:"kind"`
	Family     string          `json:"family,omitempty"`    // "llama"
	FileType   string          `json:"file_type,omitempty"` // "Q4_K_M"
	Parameters int64           `json:"parameters,omitempty"`
	Chat       string          `json:"chat,omitempty"` // a key of chats
	Shards     int             `json:"shards"`
}

// errHeader is about the file, not about the store.
var errHeader = errors.New("no header that can be read")

// readHead reads the header of a file in the store.
func readHead(st *store.Store, file *models.File) (_ head, err error) {
	f, err := st.File(file.Blob)
	if err != nil {
		return head{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	g, err := gguf.Read(f, file.Size)
	if err != nil {
		return head{}, fmt.Errorf("%s: %w: %w", file.Path, errHeader, err)
	}
	h := head{Digest: file.Blob, Kind: kindOf(g), Family: g.Architecture(), FileType: g.FileType()}
	_, h.Shards = g.Split()
	if template, ok := g.ChatTemplate(); ok {
		h.Chat = chatOf(template)
	}
	for _, s := range g.Quantisation() {
		h.Parameters += s.Parameters
	}
	return h, nil
}

// kindOf tells models from projectors as Ollama does.
func kindOf(g *gguf.File) string {
	kind, _ := g.String("general.type")
	blocks, _ := g.Uint(g.Architecture() + ".block_count")
	eyes, _ := g.Uint(g.Architecture() + ".vision.block_count")
	switch {
	case kind == "projector", kind == "mmproj", g.Architecture() == "clip", blocks == 0 && eyes > 0:
		return kindProjector
	case kind == "" || kind == "model":
		return kindModel
	}
	return kindOther
}

// isGGUF knows a GGUF file by its name.
func isGGUF(f *models.File) bool { return strings.HasSuffix(strings.ToLower(f.Path), extension) }

// size writes a number of parameters as Ollama does: "8.0B" is "8B".
func (h *head) size() string {
	n := float64(h.Parameters)
	switch {
	case n >= 1e9:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", n/1e9), ".0") + "B"
	case n >= 1e6:
		return strings.TrimSuffix(fmt.Sprintf("%.2f", n/1e6), ".00") + "M"
	case n >= 1e3:
		return fmt.Sprintf("%.0fK", n/1e3)
	}
	return fmt.Sprintf("%.0f", n)
}
