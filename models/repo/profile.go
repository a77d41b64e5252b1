package repo

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	profileAll  = "all"
	profileVLLM = "vllm"
	profileST   = "st"
	profileGGUF = "gguf"
	profileONNX = "onnx"

	// maxProfile bounds a profile's text, maxVariants the quantisations that
	// one names.
	maxProfile  = 256
	maxVariants = 16
)

var (
	// ErrNoWeights says that a repository has nothing that the profile could
	// carry for its engine.
	ErrNoWeights = errors.New("no weights that the profile can use")
	// ErrIncomplete says that a weight index, or the name of a shard, promises
	// a file that is not there.
	ErrIncomplete = errors.New("the weights are not whole")
	// ErrIndex says that a weight index is broken, ambiguous, or leads
	// elsewhere: so nobody knows whether the weights are whole. It matches
	// ErrIncomplete too.
	ErrIndex = fmt.Errorf("%w, for all that is known: their index is not fit", ErrIncomplete)
)

// A Profile says which engine is to load a repository, and so which of its
// files are needed. The zero Profile is "all".
type Profile struct {
	name     string
	variants string // joined by "+", sorted: "Q4_K_M+Q8_0"
}

// ParseProfile reads "all", "vllm" (transformers and TGI too), "st"
// (sentence-transformers), "gguf", "gguf:Q4_K_M+Q8_0", "onnx" or "onnx:int8".
func ParseProfile(s string) (Profile, error) {
	if len(s) > maxProfile {
		return Profile{}, fmt.Errorf("profile of %d bytes, at most %d", len(s), maxProfile)
	}
	name, list, colon := strings.Cut(s, ":")
	switch name {
	case profileAll:
		if !colon {
			return Profile{}, nil
		}
	case profileVLLM, profileST:
		if !colon {
			return Profile{name: name}, nil
		}
	case profileGGUF, profileONNX:
		if !colon {
			return Profile{name: name}, nil
		}
		variants, err := parseVariants(name, list)
		if err != nil {
			return Profile{}, fmt.Errorf("profile %q: %w", clip(s), err)
		}
		return Profile{name, variants}, nil
	default:
		return Profile{}, fmt.Errorf("profile %q: want all, vllm, st, gguf:QUANT or onnx:VARIANT", clip(s))
	}
	return Profile{}, fmt.Errorf("profile %q: %s takes nothing behind a colon", clip(s), name)
}

func parseVariants(name, list string) (string, error) {
	var out []string
	for v := range strings.SplitSeq(list, "+") {
		if v == "" || strings.Trim(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != "" {
			return "", fmt.Errorf("%q is not a variant (want letters, digits, '_', '-' and '.')", clip(v))
		}
		if name == profileGGUF {
			v = strings.ToUpper(v)
		} else {
			v = strings.ToLower(v)
		}
		out = append(out, v)
	}
	if len(out) > maxVariants {
		return "", fmt.Errorf("%d variants, at most %d", len(out), maxVariants)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), "+"), nil
}

// String is a form that [ParseProfile] reads; equal profiles have the same.
func (p Profile) String() string {
	if p.variants != "" {
		return p.name + ":" + p.variants
	}
	return cmp.Or(p.name, profileAll)
}

// wants are the variants that the profile names.
func (p Profile) wants() []string {
	if p.variants == "" {
		return nil
	}
	return strings.Split(p.variants, "+")
}

// A Choice is what a profile makes of a repository's files.
type Choice struct {
	Keep []File // sorted by path
	Left []Left // sorted by path, each with its reason
	// Saved is how many bytes need not be carried: each content counts once,
	// and not at all where a kept file has the same.
	Saved int64
	Notes []string
}

// Select chooses the files of a repository that p needs. Beside a profile,
// include adds files that it leaves out; beside "all", it leaves out what it
// does not match. What exclude matches is left out, whatever else was said.
// Patterns are those of the hub's clients: "*" matches slashes too, and a
// pattern that ends in one stands for all that is below.
//
// An error wraps [ErrNoWeights], [ErrIncomplete] or [ErrIndex], or what the reader
// said. Weight
// indices and shards of what is kept are whole: [CheckIndexes] has nothing to
// add.
func (p Profile) Select(files []File, read Reader, include, exclude []string) (Choice, error) {
	c := newChooser(files, read)
	var err error
	switch p.name {
	case profileVLLM, profileST:
		err = c.torch(p)
	case profileGGUF:
		err = c.gguf(p)
	case profileONNX:
		err = c.onnx(p)
	}
	if err == nil {
		err = c.patterns(p, include, exclude)
	}
	if err == nil {
		err = c.checkKept()
	}
	if err != nil {
		return Choice{}, fmt.Errorf("profile %s: %w", p, err)
	}
	return c.choice(), nil
}

// A chooser collects what is left out, and why.
type chooser struct {
	files   []File // sorted by path
	byPath  map[string]File
	read    Reader
	left    map[string]string // path -> reason
	indexes map[string]*index // read so far, by path
	notes   []string
}

func newChooser(files []File, read Reader) *chooser {
	c := &chooser{
		files: slices.Clone(files), byPath: make(map[string]File, len(files)), read: read,
		left: make(map[string]string), indexes: make(map[string]*index),
	}
	slices.SortFunc(c.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range c.files {
		c.byPath[f.Path] = f
	}
	return c
}

// drop leaves a file out; the first reason stands.
func (c *chooser) drop(p, why string) {
	if _, ok := c.left[p]; !ok {
		c.left[p] = why
	}
}

func (c *chooser) kept(p string) bool {
	_, out := c.left[p]
	_, is := c.byPath[p]
	return is && !out
}

func (c *chooser) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// patterns does what the user says beside the profile.
func (c *chooser) patterns(p Profile, include, exclude []string) error {
	used := make(map[string]bool)
	match := func(patterns []string, name string) (string, bool) {
		first, ok := "", false
		for _, pat := range patterns {
			if matchPattern(pat, name) {
				used[pat] = true
				if !ok {
					first, ok = pat, true
				}
			}
		}
		return first, ok
	}
	for _, f := range c.files {
		_, in := match(include, f.Path)
		switch {
		case in && p.String() != profileAll:
			delete(c.left, f.Path)
		case !in && len(include) > 0 && p.String() == profileAll:
			c.drop(f.Path, "not included")
		}
		if pat, out := match(exclude, f.Path); out {
			c.left[f.Path] = "excluded by " + pat
		}
	}
	for _, pat := range slices.Concat(include, exclude) {
		if !used[pat] {
			c.note("no file matches the pattern %q", clip(pat))
		}
	}
	if len(c.left) == len(c.files) && len(c.files) > 0 {
		return errors.New("the patterns leave no file")
	}
	return nil
}

// checkKept holds that what is kept is whole.
func (c *chooser) checkKept() error {
	var kept []File
	for _, f := range c.files {
		if c.kept(f.Path) {
			kept = append(kept, f)
		}
	}
	return checkIndexes(kept, c.index)
}

// choice writes down what was decided.
func (c *chooser) choice() Choice {
	out := Choice{Notes: c.notes}
	byID := make(map[string]string) // content that is kept -> path
	for _, f := range c.files {
		if c.kept(f.Path) {
			out.Keep = append(out.Keep, f)
			if _, ok := byID[f.ID]; !ok && f.ID != "" {
				byID[f.ID] = f.Path
			}
		}
	}
	counted := make(map[string]bool)
	for _, f := range c.files {
		why, is := c.left[f.Path]
		if !is {
			continue
		}
		same, copied := byID[f.ID]
		if copied && f.Size > 0 {
			why = "a copy of " + same
		}
		out.Left = append(out.Left, Left{Path: f.Path, Size: f.Size, Why: why})
		if !copied && (f.ID == "" || !counted[f.ID]) {
			out.Saved += f.Size
			counted[f.ID] = true
		}
	}
	if code := codeOf(out.Keep); len(code) > 0 {
		out.Notes = append(out.Notes, "code of the repository, which runs only where trust_remote_code is set: "+list(code))
	}
	return out
}

func codeOf(files []File) (out []string) {
	for _, f := range files {
		if strings.HasSuffix(f.Path, ".py") {
			out = append(out, f.Path)
		}
	}
	return out
}

// list writes names for a message, the first of many.
func list(names []string) string {
	const most = 8
	shown := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		shown = append(shown, clip(n))
	}
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(shown, ", "), more)
	}
	return strings.Join(shown, ", ")
}
