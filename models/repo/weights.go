package repo

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A weightName is what the name of a file of torch weights says.
type weightName struct {
	dir     string // "" for the root, "unet"
	stem    string // "model", "pytorch_model"
	variant string // "fp16"; "" for the default
	format  string // "safetensors", "bin", "pt", "pth", "ckpt"
}

// torchFormats are the formats that hold torch tensors, the preferred first.
var torchFormats = []string{"safetensors", "bin", "pt", "pth", "ckpt"}

// shardPart is what a name's end says of its place among shards.
var shardPart = regexp.MustCompile(`[-_.][0-9]{1,6}[-_]of[-_][0-9]{1,6}$`)

// parseWeight reads the name of a file of torch weights; false for any other.
func parseWeight(p string) (weightName, bool) {
	base := path.Base(p)
	ext := strings.TrimPrefix(strings.ToLower(path.Ext(base)), ".")
	if !slices.Contains(torchFormats, ext) || KindOf(p) != Weight || foreignName(p) != "" {
		return weightName{}, false
	}
	w := weightName{dir: dirOf(p), format: ext, stem: base[:len(base)-len(ext)-1]}
	w.cutVariant() // model-00001-of-00002.fp16.safetensors
	if loc := shardPart.FindStringIndex(w.stem); loc != nil {
		w.stem = strings.TrimSuffix(w.stem[:loc[0]], "."+ext)
		w.cutVariant() // model.fp16-00001-of-00002.safetensors
	}
	return w, true
}

// cutVariant takes the precision off the end of a stem.
func (w *weightName) cutVariant() {
	if i := strings.LastIndexByte(w.stem, '.'); i > 0 && w.variant == "" && isPrecision(w.stem[i+1:]) {
		w.stem, w.variant = w.stem[:i], w.stem[i+1:]
	}
}

// isPrecision knows the words for the same weights in other numbers.
func isPrecision(s string) bool {
	switch s = strings.ToLower(s); s {
	case "fp64", "fp32", "fp16", "fp4", "bf16", "f32", "f16", "float32", "float16", "bfloat16", "half", "int8", "int4", "8bit", "4bit", "nf4", "ema", "non_ema", "ema_only":
		return true
	}
	return strings.HasPrefix(s, "fp8")
}

// class puts stems together that name the same weights in one folder.
func (w weightName) class() string {
	switch {
	case w.stem == "model" || w.stem == "pytorch_model" || w.consolidated():
		return mainClass
	}
	return w.stem
}

// mainClass is the class of the weights that a loader takes when it is told
// nothing.
const mainClass = "model"

// consolidated reports whether the name is that of the format in which a
// model's own authors keep it.
func (w weightName) consolidated() bool { return strings.HasPrefix(w.stem, "consolidated") }

// A weightSet is one copy of some weights: one file, or shards.
type weightSet struct {
	weightName
	index string   // its path, or ""
	files []string // paths that are there, sorted
	size  int64
	lacks string // why it is not whole: "model-00002-of-00003.safetensors is missing"
}

// title names the set for a message.
func (s *weightSet) title() string {
	switch {
	case s.index != "":
		return "the files of " + s.index
	case len(s.files) > 1:
		return fmt.Sprintf("%s and %d more", s.files[0], len(s.files)-1)
	}
	return s.files[0]
}

// sets collects the torch weights that are not left out so far. The error is
// the reader's.
func (c *chooser) sets() ([]*weightSet, error) {
	var out []*weightSet
	claimed := make(map[string]bool)
	for _, f := range c.files {
		if !isIndex(f.Path) || !c.kept(f.Path) {
			continue
		}
		s, err := c.indexed(f.Path)
		if err != nil {
			return nil, err
		}
		for _, name := range s.files {
			claimed[name] = true
		}
		out = append(out, s)
	}
	type key struct {
		weightName
		shards string // "model-#-of-00003.safetensors"; "" for a file of its own
	}
	byKey := make(map[key]*weightSet)
	for _, f := range c.files {
		w, ok := parseWeight(f.Path)
		if !ok || claimed[f.Path] || !c.kept(f.Path) {
			continue
		}
		k := key{weightName: w}
		if m := shardName.FindStringSubmatch(path.Base(f.Path)); m != nil {
			k.shards = m[1] + "#" + m[3] + m[4] + m[5]
		}
		s := byKey[k]
		if s == nil {
			s = &weightSet{weightName: w}
			byKey[k] = s
			out = append(out, s)
		}
		s.files = append(s.files, f.Path)
		s.size += f.Size
	}
	for _, s := range byKey {
		s.checkShards()
	}
	slices.SortStableFunc(out, func(a, b *weightSet) int { return strings.Compare(a.at(), b.at()) })
	return out, nil
}

// at is where the set stands in an order.
func (s *weightSet) at() string {
	if s.index != "" || len(s.files) == 0 {
		return s.dir + "/" + s.index
	}
	return s.dir + "/" + s.files[0]
}

// indexed is the set that a weight index names.
func (c *chooser) indexed(p string) (*weightSet, error) {
	m := indexName.FindStringSubmatch(path.Base(p))
	s := &weightSet{weightName: weightName{dir: dirOf(p), stem: m[1], format: m[2], variant: m[3]}, index: p}
	s.cutVariant()
	x, err := c.index(p)
	if err != nil {
		return nil, err
	}
	if x.err != nil {
		s.lacks = x.err.Error()
		return s, nil
	}
	var missing []string
	for _, name := range x.files {
		f, ok := c.byPath[name]
		if !ok {
			missing = append(missing, name)
			continue
		}
		s.files = append(s.files, name)
		s.size += f.Size
	}
	if len(missing) > 0 {
		s.lacks = absent(missing, len(missing))
	}
	return s, nil
}

// checkShards finds what the names of shards promise and is not there.
func (s *weightSet) checkShards() {
	var files []File
	for _, p := range s.files {
		files = append(files, File{Path: p})
	}
	for _, g := range shardGroups(files) {
		if missing, n := g.missing(); n > 0 {
			s.lacks = absent(missing, n)
		}
	}
}

// better orders the copies of the same weights: whole before broken, the
// default numbers before others, the preferred format, the layout that loaders
// know before the authors' own, an index before files without.
func (c *chooser) better(a, b *weightSet) int {
	no := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	rank := func(s *weightSet) []int {
		format := slices.Index(torchFormats, s.format)
		if _, mistral := c.byPath[path.Join(s.dir, "params.json")]; s.consolidated() && !mistral {
			format = len(torchFormats)
		}
		return []int{no(s.lacks != ""), no(s.variant != ""), format, no(s.consolidated()), no(s.index == "")}
	}
	return cmp.Or(slices.Compare(rank(a), rank(b)), strings.Compare(a.at(), b.at()))
}

// replaced says why a set is left out beside a better one.
func (s *weightSet) replaced(by *weightSet) string {
	switch {
	case s.lacks != "":
		return fmt.Sprintf("not whole (%s); %s is", s.lacks, by.title())
	case s.variant != by.variant:
		return fmt.Sprintf("another precision of %s: %s", by.title(), cmp.Or(s.variant, "the default"))
	case by.index != "" && s.format == by.format && s.stem == by.stem:
		return "not named by " + by.index
	}
	return "the same weights as " + by.title()
}

// dropSet leaves a set out with its index.
func (c *chooser) dropSet(s *weightSet, why string, keep map[string]bool) {
	if s.index != "" {
		c.drop(s.index, why)
	}
	for _, f := range s.files {
		if !keep[f] {
			c.drop(f, why)
		}
	}
}
