package repo

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxShards bounds the files that an index names. The largest known names
	// about 1,000.
	maxShards = 20_000
	// maxMissing bounds the names in a message.
	maxMissing = 20
	// maxName bounds a file's name in an index, as a path is bounded anywhere.
	maxName = 1024
)

// An index is what a weight index says: its files, as paths of the repository.
type index struct {
	files []string // sorted
	err   error    // why it cannot be used; files is empty then
}

// indexName matches model.safetensors.index.json, pytorch_model.bin.index.json,
// and model.safetensors.index.fp16.json.
var indexName = regexp.MustCompile(`^(.+)\.([a-z0-9]+)\.index(?:\.([A-Za-z0-9_-]+))?\.json$`)

// isIndex reports whether a path is that of a weight index of torch.
func isIndex(p string) bool {
	m := indexName.FindStringSubmatch(path.Base(p))
	return m != nil && (m[2] == "safetensors" || m[2] == "bin")
}

// parseIndex reads a weight index that lies in dir.
func parseIndex(b []byte, dir string) *index {
	names := make(map[string]bool)
	object, mapped := false, false
	err := walkJSON(b, true, func(keys []string, v jsonValue) error {
		switch {
		case len(keys) == 0:
			object = object || v.kind == '{'
			if v.kind != '{' {
				return errors.New("want an object")
			}
		case keys[0] != "weight_map":
		case len(keys) == 1:
			if v.kind != '{' || mapped {
				return errors.New("weight_map: want an object of tensors and files")
			}
			mapped = true
		case len(keys) > 2 || v.kind != '"':
			return fmt.Errorf("weight_map: %q: want the name of a file", clip(keys[1]))
		case !names[string(v.raw)]: // almost always there: a name is decoded once
			name := v.text()
			if err := checkName(name); err != nil {
				return fmt.Errorf("weight_map: %q: %w", clip(keys[1]), err)
			}
			names[string(v.raw)] = true
			if len(names) > maxShards {
				return fmt.Errorf("weight_map: more than %d files", maxShards)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return &index{err: err}
	case !object || !mapped:
		return &index{err: errors.New("no weight_map")}
	case len(names) == 0:
		return &index{err: errors.New("weight_map: empty")}
	}
	var files []string
	for raw := range maps.Keys(names) {
		files = append(files, path.Join(dir, jsonValue{'"', []byte(raw)}.text()))
	}
	slices.Sort(files)
	return &index{files: slices.Compact(files)}
}

// checkName accepts the name of a file below the index's folder, written in the
// one way that no system reads as something else.
func checkName(s string) error {
	bad := func(why string) error { return fmt.Errorf("file %q: %s", clip(s), why) }
	switch {
	case s == "" || len(s) > maxName:
		return bad(fmt.Sprintf("want 1 to %d bytes", maxName))
	case strings.HasPrefix(s, "/"):
		return bad("an absolute path")
	case strings.ContainsAny(s, "\\:"):
		return bad("'\\' or ':' stands in it")
	}
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			return bad("a control character stands in it")
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part == "." || part == ".." {
			return bad("leaves the folder, or has an empty part")
		}
	}
	return nil
}

// index reads the weight index at p, once. The error is the reader's.
func (c *chooser) index(p string) (*index, error) {
	if x := c.indexes[p]; x != nil {
		return x, nil
	}
	b, err := c.read(p, MaxDocument)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p, err)
	}
	x := parseIndex(b, dirOf(p))
	c.indexes[p] = x
	return x, nil
}

// CheckIndexes holds that the weights among files are whole: every file that a
// weight index names is there, and every shard that the name of another
// promises (model-00001-of-00003.safetensors). The error wraps [ErrIncomplete]
// and names what is missing, wraps [ErrIndex], or is the reader's.
func CheckIndexes(files []File, read Reader) error {
	c := newChooser(files, read)
	return checkIndexes(c.files, c.index)
}

func checkIndexes(files []File, read func(string) (*index, error)) error {
	there := make(map[string]bool, len(files))
	for _, f := range files {
		there[f.Path] = true
	}
	var errs []error
	named := make(map[string]bool) // by an index: its word goes above the name's
	for _, f := range files {
		if !isIndex(f.Path) {
			continue
		}
		x, err := read(f.Path)
		if err != nil {
			return err
		}
		if x.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: %w", clip(f.Path), ErrIndex, x.err))
			continue
		}
		var missing []string
		for _, name := range x.files {
			named[name] = true
			if !there[name] {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			errs = append(errs, fmt.Errorf("%s: %w: of its files, %s", clip(f.Path), ErrIncomplete, absent(missing, len(missing))))
		}
	}
	var rest []File
	for _, f := range files {
		if !named[f.Path] && KindOf(f.Path) == Weight {
			rest = append(rest, f)
		}
	}
	for _, g := range shardGroups(rest) {
		if missing, n := g.missing(); n > 0 {
			errs = append(errs, fmt.Errorf("%s: %w: of its %d shards, %s", clip(g.files[0]), ErrIncomplete, g.of, absent(missing, n)))
		}
	}
	return errors.Join(errs...)
}

// absent writes which of n files are missing.
func absent(names []string, n int) string {
	shown := names[:min(len(names), maxMissing)]
	out := make([]string, 0, len(shown))
	for _, s := range shown {
		out = append(out, clip(s))
	}
	text := strings.Join(out, ", ")
	switch more := n - len(shown); {
	case more > 0:
		return fmt.Sprintf("%s and %d more are missing", text, more)
	case n > 1:
		return text + " are missing"
	}
	return text + " is missing"
}

// A shardGroup is the files that one weight was cut into.
type shardGroup struct {
	prefix, suffix string // with the separators: "model-", "-of-00003.safetensors"
	digits         int
	of             int
	files          []string // paths, sorted
	have           map[int]bool
}

// shardName matches model-00001-of-00003.safetensors and its like.
var shardName = regexp.MustCompile(`^(.+[-_.])([0-9]{1,6})([-_]of[-_])([0-9]{1,6})(\..+)$`)

// shardGroups collects the shards among files, sorted.
func shardGroups(files []File) []*shardGroup {
	byKey := make(map[string]*shardGroup)
	var out []*shardGroup
	for _, f := range files {
		m := shardName.FindStringSubmatch(path.Base(f.Path))
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[2])
		of, err2 := strconv.Atoi(m[4])
		if err != nil || err2 != nil {
			continue
		}
		prefix := strings.TrimSuffix(f.Path, path.Base(f.Path)) + m[1]
		suffix := m[3] + m[4] + m[5]
		key := prefix + "\x00" + suffix
		g := byKey[key]
		if g == nil {
			g = &shardGroup{prefix: prefix, suffix: suffix, digits: len(m[2]), of: of, have: make(map[int]bool)}
			byKey[key] = g
			out = append(out, g)
		}
		g.files = append(g.files, f.Path)
		g.have[n] = true
	}
	for _, g := range out {
		slices.Sort(g.files)
	}
	slices.SortFunc(out, func(a, b *shardGroup) int { return strings.Compare(a.files[0], b.files[0]) })
	return out
}

// missing names the first shards that are not there, and counts all. Numbers
// begin with one; where there is a zero and not the last, with zero.
func (g *shardGroup) missing() (names []string, n int) {
	first := 1
	if g.have[0] && !g.have[g.of] {
		first = 0
	}
	n = g.of
	for i := range g.have {
		if i >= first && i < first+g.of {
			n--
		}
	}
	for i := first; i < first+g.of && len(names) < min(n, maxMissing); i++ {
		if !g.have[i] {
			names = append(names, fmt.Sprintf("%s%0*d%s", g.prefix, g.digits, i, g.suffix))
		}
	}
	return names, n
}

// dirOf is the folder of a path, "" for the root.
func dirOf(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}
