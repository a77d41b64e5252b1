package repo

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// quantWord matches a quantisation in an upper-case name without extension and
// shard number: Q4_K_M, IQ2_XXS, UD-Q4_K_XL, i1-Q6_K, BF16, MXFP4_MOE.
var quantWord = regexp.MustCompile(`(?:UD-|I1-)?(?:IQ[1-9]_[A-Z0-9]+(?:_[A-Z0-9]+)*|TQ[1-9]_[0-9]|Q[1-9]_[0-9](?:_[0-9]+)*|Q[1-9]_K(?:_(?:XXS|XS|S|M|L|XL|P))?|Q[1-9](?:F[0-9]+)?|BF16|FP16|FP32|FP8|F16|F32|F64|MXFP4(?:_MOE)?|NVFP4|INT[48])`)

// ggufShard matches the end of a split file's name.
var ggufShard = regexp.MustCompile(`-[0-9]{5}-of-[0-9]{5}$`)

// quantOf is the quantisation that a GGUF file's name tells, else the one that
// its folder's does, in upper case; "" where neither does.
func quantOf(p string) string {
	base := path.Base(p)
	if i := strings.Index(strings.ToLower(base), ".gguf"); i >= 0 { // .gguf.part1of2 too
		base = base[:i]
	}
	base = ggufShard.ReplaceAllString(base, "")
	if q := lastQuant(base); q != "" {
		return q
	}
	if dir := dirOf(p); dir != "" {
		return lastQuant(path.Base(dir))
	}
	return ""
}

// lastQuant finds the last quantisation that stands as a word in a name.
func lastQuant(name string) (last string) {
	name = strings.ToUpper(name)
	for _, loc := range quantWord.FindAllStringIndex(name, -1) {
		if wordStart(name, loc[0]) && wordEnd(name, loc[1]) {
			last = name[loc[0]:loc[1]]
		}
	}
	return last
}

func wordStart(s string, i int) bool { return i == 0 || strings.IndexByte("-._ /", s[i-1]) >= 0 }

func wordEnd(s string, i int) bool { return i == len(s) || strings.IndexByte("-. /", s[i]) >= 0 }

// hasWord reports whether a name has word in it between separators, whatever
// the case: what the list of known quantisations lacks.
func hasWord(name, word string) bool {
	name = strings.ToUpper(name)
	for from := 0; ; {
		i := strings.Index(name[from:], word)
		if i < 0 {
			return false
		}
		i += from
		if wordStart(name, i) && wordEnd(name, i+len(word)) {
			return true
		}
		from = i + 1
	}
}

// isProjector knows the file that holds a GGUF model's eyes or ears.
func isProjector(p string) bool { return strings.Contains(strings.ToLower(path.Base(p)), "mmproj") }

// isMatrix knows the importance matrix, which only a quantiser reads.
func isMatrix(p string) bool {
	base := strings.ToLower(path.Base(p))
	return strings.Contains(base, "imatrix") && (strings.HasPrefix(base, "imatrix") || strings.HasSuffix(base, ".imatrix") || strings.HasSuffix(base, "imatrix.dat") || strings.HasSuffix(base, "imatrix.gguf"))
}

// gguf keeps the quantisations that were asked for, projectors, and what is no
// weight.
func (c *chooser) gguf(p Profile) error {
	var models, projectors []File
	for _, f := range c.files {
		switch base := strings.ToLower(path.Base(f.Path)); {
		case isMatrix(f.Path):
			c.drop(f.Path, "an importance matrix, which only a quantiser reads")
		case strings.HasSuffix(base, ".gguf") && isProjector(f.Path):
			projectors = append(projectors, f)
		case strings.HasSuffix(base, ".gguf") || strings.Contains(base, ".gguf.part"):
			models = append(models, f)
		}
	}
	if len(models) == 0 {
		return fmt.Errorf("%w: %s", ErrNoWeights, c.inventory())
	}
	taken, err := takeQuants(models, p.wants())
	if err != nil {
		return err
	}
	for _, g := range shardGroups(taken) {
		if missing, n := g.missing(); n > 0 {
			return fmt.Errorf("%s: %w: of its %d shards, %s", clip(g.files[0]), ErrIncomplete, g.of, absent(missing, n))
		}
	}
	keep := make(map[string]bool)
	for _, f := range slices.Concat(taken, projectors) {
		keep[f.Path] = true
	}
	for _, f := range models {
		switch q := quantOf(f.Path); {
		case keep[f.Path]:
		case q == "":
			c.drop(f.Path, "its name tells no quantisation that was asked for")
		default:
			c.drop(f.Path, "another quantisation: "+q)
		}
	}
	c.leftovers()
	for _, f := range c.files {
		_, torch := parseWeight(f.Path)
		other := foreignName(f.Path)
		if !keep[f.Path] && (torch || isIndex(f.Path) || other != "" && other != "GGUF") {
			c.drop(f.Path, fmt.Sprintf("not GGUF; %s is kept", taken[0].Path))
		}
	}
	for _, f := range projectors {
		c.note("%s: a projector for pictures or sound, kept beside the model", f.Path)
	}
	return nil
}

// takeQuants finds the files of each quantisation. Without one, a repository
// must have one only.
func takeQuants(models []File, wants []string) ([]File, error) {
	quants := make(map[string]bool)
	for _, f := range models {
		quants[quantOf(f.Path)] = true
	}
	var have []string
	for _, q := range slices.Sorted(maps.Keys(quants)) {
		if q != "" {
			have = append(have, q)
		}
	}
	if len(wants) == 0 {
		if len(quants) == 1 {
			return models, nil
		}
		return nil, fmt.Errorf("%w: say which quantisation: there is %s", ErrNoWeights, list(have))
	}
	var taken []File
	for _, want := range wants {
		files := oneQuant(models, want)
		if len(files) == 0 {
			if len(have) == 0 {
				have = []string{models[0].Path}
			}
			return nil, fmt.Errorf("%w: no %s among the GGUF files: there is %s", ErrNoWeights, want, list(have))
		}
		taken = append(taken, files...)
	}
	return taken, nil
}

// oneQuant finds the files of a quantisation: by exactly that word; without the
// words that say how it was made; or as the folder or a part of the name.
func oneQuant(models []File, want string) (out []File) {
	plain := func(q string) string { return strings.TrimPrefix(strings.TrimPrefix(q, "UD-"), "I1-") }
	for _, match := range []func(p string) bool{
		func(p string) bool { return quantOf(p) == want },
		func(p string) bool { return plain(quantOf(p)) == want },
		func(p string) bool { return hasWord(p, want) },
	} {
		for _, f := range models {
			if match(f.Path) {
				out = append(out, f)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}
