// Package engine judges which inference engine can load a repository, from
// what is there of it: its configuration, its indices, and the headers of its
// weights. Nothing of it is run.
//
// A verdict is "loads" only where the engine's own list has the architecture,
// or the repository has its own code for it, and nothing was found missing.
// The lists are those of one release each (folder known/). What they do not
// have is "not known", and so is what could not be read. Whether there is
// memory enough, and a device that can, is for the operator to tell: the size
// is named.
//
// Everything that is read is from outside: documents are bounded by
// maxConfig and [repo.MaxDocument], headers by their readers.
package engine

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/models/repo"
)

// A Repository is what is there of one.
type Repository struct {
	Name  string // "team/model"
	Files []repo.File
	Read  repo.Reader
	// Open gives the bytes of a weight file, its size, and what releases it.
	// It may be nil: headers are not looked into then.
	Open func(path string) (io.ReaderAt, int64, func() error, error)
}

// A State is what is known of an engine and a repository.
type State string

// The states.
const (
	Loads       State = "loads"
	DoesNotLoad State = "does not load"
	NotKnown    State = "not known"
)

// A Verdict is what one engine would do with a repository.
type Verdict struct {
	Engine string   `json:"engine"`
	State  State    `json:"state"`
	Why    []string `json:"why,omitempty"`
	Needs  []string `json:"needs,omitempty"`
	How    string   `json:"how,omitempty"`
}

// Judge says for each engine whether it can load a repository, always in the
// same order.
func Judge(r Repository) []Verdict {
	s := look(r)
	return []Verdict{
		s.vllm(), s.tgi(), s.transformers(), s.sentenceTransformers(),
		s.llamaCpp(), s.ollama(), s.onnxRuntime(),
	}
}

// maxSaid bounds what is said of one kind in a verdict.
const maxSaid = 20

// says adds to what stands behind a verdict, and changes no state.
func (v *Verdict) says(format string, args ...any) {
	add(&v.Why, fmt.Sprintf(format, args...))
}

// needs adds what the operator has to give.
func (v *Verdict) needs(format string, args ...any) {
	add(&v.Needs, fmt.Sprintf(format, args...))
}

// no says that the engine cannot load it.
func (v *Verdict) no(format string, args ...any) {
	v.State = DoesNotLoad
	v.says(format, args...)
}

// unsure says what keeps from knowing.
func (v *Verdict) unsure(format string, args ...any) {
	if v.State == Loads {
		v.State = NotKnown
	}
	v.says(format, args...)
}

// add adds a line once, up to a bound.
func add(list *[]string, s string) {
	if len(*list) < maxSaid && !slices.Contains(*list, s) {
		*list = append(*list, s)
	}
}

// finish ends a verdict: of what does not load, no command is told.
func (v *Verdict) finish(how ...string) Verdict {
	if v.State != DoesNotLoad {
		v.How = strings.Join(how, " ")
	}
	return *v
}
