package repo

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	modulesFile   = "modules.json"     // of sentence-transformers: its modules and their folders
	pipelineFile  = "model_index.json" // of diffusers: its components, each a folder
	mistralParams = "params.json"
)

// maxSmall bounds a document that names folders or settings: a configuration,
// not a tokenizer. The largest known, a tokenizer_config.json with its added
// tokens, has about 2 MiB.
const maxSmall = 16 << 20

// torch chooses for an engine that loads torch weights: one copy of each, in
// the format that it prefers, and nothing for other frameworks.
func (c *chooser) torch(p Profile) error {
	c.leftovers()
	modules, err := c.modules(p)
	if err != nil {
		return err
	}
	if _, ok := c.byPath[modulesFile]; p.name == profileST && !ok {
		c.note("no %s: sentence-transformers will build a model with mean pooling", modulesFile)
	}
	c.trials(modules)
	sets, err := c.sets()
	if err != nil {
		return err
	}
	best, err := c.pipeline(c.pick(sets))
	if err != nil {
		return err
	}
	main := mainSet(best, p)
	if main == nil {
		return fmt.Errorf("%w: %s", ErrNoWeights, c.inventory())
	}
	c.foreign(main, best, modules)
	c.notePick(best)
	return nil
}

// pick keeps the best copy of each class in each folder.
func (c *chooser) pick(sets []*weightSet) (best []*weightSet) {
	type place struct{ dir, class string }
	groups := make(map[place][]*weightSet)
	var order []place
	for _, s := range sets {
		at := place{s.dir, s.class()}
		if groups[at] == nil {
			order = append(order, at)
		}
		groups[at] = append(groups[at], s)
	}
	for _, at := range order {
		group := groups[at]
		slices.SortStableFunc(group, c.better)
		first := group[0]
		best = append(best, first)
		if first.lacks != "" {
			continue // nothing is known to be better
		}
		keep := make(map[string]bool)
		for _, f := range first.files {
			keep[f] = true
		}
		for _, s := range group[1:] {
			c.dropSet(s, s.replaced(first), keep)
		}
	}
	return best
}

// mainSet is the set that makes a repository loadable for the profile: the
// weights of the root, or else the largest.
func mainSet(best []*weightSet, p Profile) *weightSet {
	var main *weightSet
	for _, s := range best {
		if !loads(p, s) {
			continue
		}
		switch {
		case main == nil, mainRank(s) < mainRank(main), mainRank(s) == mainRank(main) && s.size > main.size:
			main = s
		}
	}
	return main
}

func mainRank(s *weightSet) int {
	switch {
	case s.dir == "" && s.class() == mainClass:
		return 0
	case s.dir == "":
		return 1
	}
	return 2
}

// loads reports whether the profile's engine takes a set as a model. A .pt of
// another name is a part of one: colbert_linear.pt.
func loads(p Profile, s *weightSet) bool {
	switch s.format {
	case "safetensors":
		return p.name != profileST || !s.consolidated()
	case "bin":
		return true
	case "pt":
		return p.name == profileVLLM && s.class() == mainClass
	}
	return false
}

// leftoverName matches what training leaves beside a model, whose weights they
// are not.
var leftoverName = regexp.MustCompile(`^(optimizer([-_.].*)?\.(pt|pth|bin|pkl)|optimizer_[0-9]+.*|scheduler\.(pt|bin)|scaler\.pt|rng_state.*\.(pth|pt|bin)|random_states_[0-9]+\.pkl|training_args\.bin|events\.out\.tfevents\..*|.*_optim_states\.pt|zero_pp_rank_.*\.pt|.*\.distcp)$`)

func (c *chooser) leftovers() {
	for _, f := range c.files {
		if leftoverName.MatchString(path.Base(f.Path)) {
			c.drop(f.Path, "a leftover of training, no part of the model")
		}
	}
}

// trialFolder matches a folder of weights from the middle of a training.
var trialFolder = regexp.MustCompile(`^(checkpoint|global_step|step|epoch|iter)[-_]?[0-9]+$`)

// trials leaves out checkpoints that no module is made of.
func (c *chooser) trials(modules map[string]bool) {
	for _, f := range c.files {
		dir := ""
		for part := range strings.SplitSeq(dirOf(f.Path), "/") {
			dir = path.Join(dir, part)
			if trialFolder.MatchString(part) && !inModule(modules, f.Path) {
				c.drop(f.Path, fmt.Sprintf("a checkpoint of the training in %s/, not the model", dir))
				break
			}
		}
	}
}

// modules reads the folders that modules.json names. Only sentence-transformers
// cannot do without it.
func (c *chooser) modules(p Profile) (map[string]bool, error) {
	if _, ok := c.byPath[modulesFile]; !ok {
		return nil, nil
	}
	b, err := c.read(modulesFile, maxSmall)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", modulesFile, err)
	}
	out := make(map[string]bool)
	err = walkJSON(b, false, func(keys []string, v jsonValue) error {
		if len(keys) == 0 && v.kind != '[' && v.kind != '{' {
			return errors.New("want a list of modules")
		}
		if len(keys) == 1 && keys[0] == "path" && v.kind == '"' {
			if dir := strings.Trim(v.text(), "/"); dir != "" {
				out[dir] = true
			}
		}
		return nil
	})
	if err != nil && p.name == profileST {
		return nil, fmt.Errorf("%s: %w", modulesFile, err)
	}
	if err != nil {
		c.note("%s cannot be read: %v", modulesFile, err)
	}
	return out, nil
}

// inModule reports whether a path lies in a folder that modules.json names.
func inModule(modules map[string]bool, p string) bool {
	for dir := dirOf(p); dir != ""; dir = dirOf(dir) {
		if modules[dir] {
			return true
		}
	}
	return false
}

// pipeline leaves out what a diffusers pipeline does not load: whole pipelines
// in one file, and folders that model_index.json does not name. It gives the
// sets that stay.
func (c *chooser) pipeline(best []*weightSet) ([]*weightSet, error) {
	if _, ok := c.byPath[pipelineFile]; !ok {
		return best, nil
	}
	b, err := c.read(pipelineFile, maxSmall)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", pipelineFile, err)
	}
	parts := make(map[string]bool)
	err = walkJSON(b, false, func(keys []string, v jsonValue) error {
		if len(keys) == 1 && v.kind == '[' && !strings.HasPrefix(keys[0], "_") {
			parts[keys[0]] = true
		}
		return nil
	})
	if err != nil {
		c.note("%s cannot be read, nothing is left out for it: %v", pipelineFile, err)
		return best, nil
	}
	whole := slices.ContainsFunc(best, func(s *weightSet) bool { return parts[s.dir] && s.lacks == "" })
	if !whole {
		return best, nil
	}
	var stay []*weightSet
	for _, s := range best {
		top, _, _ := strings.Cut(s.dir, "/")
		if parts[top] || strings.HasPrefix(s.stem, "adapter_model") {
			stay = append(stay, s)
			continue
		}
		c.dropSet(s, "not part of the pipeline that "+pipelineFile+" names", nil)
	}
	return stay, nil
}

// notePick says what a user should know of the choice.
func (c *chooser) notePick(best []*weightSet) {
	for _, s := range best {
		if len(s.files) == 0 || !c.kept(s.files[0]) {
			continue // it lay in original/
		}
		switch {
		case s.consolidated() && s.format == "safetensors":
			c.note("%s: the format of mistral, which vLLM loads with --load-format mistral", s.title())
		case s.class() == mainClass && s.format != "safetensors":
			c.note("%s: pickled weights; there is no safetensors copy", s.title())
		}
		if s.variant != "" {
			c.note("%s: only this precision is there (%s): the loader must be told", s.title(), s.variant)
		}
	}
}
