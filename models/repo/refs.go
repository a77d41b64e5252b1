package repo

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	// maxDocs bounds the documents that are looked into for references.
	maxDocs = 500
	// maxRefs bounds what is reported: more than that is no closure but an
	// attack on one.
	maxRefs = 1000
	// maxRepo is the hub's bound for a repository's name.
	maxRepo = 96
)

// References lists the other repositories that the documents of a repository
// name, self excepted: each once, sorted, the strongest reason first. The
// second result says what could not be read, and needed names that are none of
// a hub's: the folder on its author's disk that an adapter was made for.
//
// Only fields that are known to name repositories count. That a text looks like
// one means nothing: "application/json".
func References(self string, files []File, read Reader) ([]Reference, []string) {
	r := &references{self: self, found: make(map[string]Reference), tokenizer: hasTokenizer(files)}
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	n := 0
	for _, f := range sorted {
		if !isReferenceDoc(f.Path) {
			continue
		}
		if n++; n <= maxDocs {
			r.document(f, read)
		}
	}
	if n > maxDocs {
		r.unread = append(r.unread, fmt.Sprintf("%d of %d documents were not looked into", n-maxDocs, n))
	}
	r.card(sorted, read)
	if r.over > 0 {
		r.unread = append(r.unread, fmt.Sprintf("%d references beyond the first %d are left out", r.over, maxRefs))
	}
	out := make([]Reference, 0, len(r.found))
	for _, ref := range r.found {
		out = append(out, ref)
	}
	slices.SortFunc(out, func(a, b Reference) int { return strings.Compare(a.Repo, b.Repo) })
	return out, r.unread
}

// references collects what is found.
type references struct {
	self      string
	tokenizer bool // the repository has one of its own
	found     map[string]Reference
	over      int // beyond maxRefs
	unread    []string
}

// isReferenceDoc knows the documents that loaders read settings from.
func isReferenceDoc(p string) bool {
	switch base := strings.ToLower(path.Base(p)); base {
	case modulesFile, pipelineFile, mistralParams, "config_sentence_transformers.json", "open_clip_config.json":
		return true
	default:
		return strings.HasSuffix(base, "config.json")
	}
}

// tokenizerNames are the files that hold a tokenizer.
var tokenizerNames = map[string]bool{
	"tokenizer.json": true, "tokenizer.model": true, "tokenizer.model.v3": true, "tekken.json": true, "vocab.json": true, "vocab.txt": true,
	"spiece.model": true, "sentencepiece.bpe.model": true, "spm.model": true, "source.spm": true, "bpe.codes": true, "merges.txt": true,
}

func hasTokenizer(files []File) bool {
	return slices.ContainsFunc(files, func(f File) bool {
		base := strings.ToLower(path.Base(f.Path))
		return tokenizerNames[base] || strings.HasSuffix(base, ".tiktoken")
	})
}

func (r *references) document(f File, read Reader) {
	fail := func(why any) { r.unread = append(r.unread, fmt.Sprintf("%s: %v", clip(f.Path), why)) }
	if f.Size > maxSmall {
		fail(fmt.Sprintf("%d bytes, at most %d are read", f.Size, maxSmall))
		return
	}
	b, err := read(f.Path, maxSmall)
	if err != nil {
		fail(err)
		return
	}
	base := strings.ToLower(path.Base(f.Path))
	err = walkJSON(b, false, func(keys []string, v jsonValue) error {
		if v.kind != '"' || len(v.raw) > maxName || len(keys) == 0 {
			return nil
		}
		r.field(f.Path, base, keys, v)
		return nil
	})
	if err != nil {
		fail(err)
	}
}

// field looks at one string of a document.
func (r *references) field(doc, base string, keys []string, v jsonValue) {
	where := func() string { return clip(doc) + ": " + clip(strings.Join(keys, ".")) }
	if isCodeField(base, keys) {
		// "other/repo--modeling.Class"; without it, the code is here.
		if name, _, ok := strings.Cut(v.text(), "--"); ok {
			r.add(name, where(), true)
		}
		return
	}
	switch r.use(base, keys) {
	case needed:
		s := v.text()
		if !r.add(s, where(), true) && s != "" && s != "." {
			r.unread = append(r.unread, fmt.Sprintf("%s: %q is not of the form ORGANISATION/NAME", where(), clip(s)))
		}
	case wanted:
		r.add(v.text(), where(), true)
	case hinted:
		r.add(v.text(), where(), false)
	}
}

// isCodeField reports whether a field names a class, perhaps one of another
// repository: auto_map, and the types of modules.json.
func isCodeField(base string, keys []string) bool {
	return slices.Contains(keys, "auto_map") || base == modulesFile && keys[len(keys)-1] == "type"
}

// A use is what a field does with a name.
type use int

const (
	ignored use = iota
	hinted      // names what the model was made of
	wanted      // loading it fetches that, where it is a repository
	needed      // and it must be one
)

// fieldUses are the fields that name repositories, by the last key.
var fieldUses = map[string]use{
	"_name_or_path":                 hinted,
	"name_or_path":                  hinted,
	"model_name_or_path":            hinted,
	"base_model":                    hinted,
	"parent_model":                  hinted,
	"hf_hub_id":                     hinted,
	"tokenizer_name_or_path":        wanted, // see use
	"tokenizer_name":                wanted,
	"tokenizer":                     wanted,
	"tokenizer_class":               wanted,
	"text_tokenizer":                wanted,
	"hf_tokenizer_name":             wanted, // open_clip loads both by name
	"hf_model_name":                 wanted,
	"base_model_name_or_path":       needed,
	"draft_model":                   wanted,
	"draft_model_name_or_path":      wanted,
	"speculative_model":             wanted,
	"assistant_model":               wanted,
	"mm_vision_tower":               wanted, // LLaVA's own code
	"vision_tower":                  wanted,
	"mm_audio_tower":                wanted,
	"audio_tower":                   wanted,
	"processor":                     wanted,
	"processor_name_or_path":        wanted,
	"audio_tokenizer_name_or_path":  wanted,
	"vision_tokenizer_name_or_path": wanted,
	"_attn_implementation":          wanted, // a kernel
	"attn_implementation":           wanted,
}

// use says what a field of a document does with a name.
func (r *references) use(base string, keys []string) use {
	last := keys[len(keys)-1]
	parent := ""
	if len(keys) > 1 {
		parent = keys[len(keys)-2]
	}
	u := fieldUses[last]
	switch {
	case strings.HasPrefix(last, "tokenizer") && u == wanted:
		if r.tokenizer || base == adapterConfig || parent == "quantization_config" {
			return hinted // it has one; or only training read that
		}
	case last == "name_or_path" && parent == "verifier": // the model that a drafter is for
		return wanted
	case last == "model" && (parent == "speculative_config" || parent == "speculators_config"):
		return wanted
	case last == "model_name" && base == "gliner_config.json":
		return wanted
	}
	return u
}

// adapterConfig is PEFT's.
const adapterConfig = "adapter_config.json"

// add reports a repository; false where the text is not the name of one.
func (r *references) add(name, where string, must bool) bool {
	if !isRepoName(name) {
		return false
	}
	r.report(Reference{Repo: name, Where: where, Needed: must})
	return true
}

func (r *references) report(ref Reference) {
	if strings.EqualFold(ref.Repo, r.self) {
		return
	}
	had, ok := r.found[ref.Repo]
	switch {
	case ok && (had.Needed || !ref.Needed):
	case !ok && len(r.found) == maxRefs:
		r.over++
	default:
		r.found[ref.Repo] = ref
	}
}

// card looks at the README's settings.
func (r *references) card(files []File, read Reader) {
	c, problems := findCard(files, read)
	r.unread = append(r.unread, problems...)
	if c == nil {
		return
	}
	for _, field := range []string{"base_model", "new_version"} {
		for _, name := range c.fields[field] {
			r.add(name, c.path+": "+field, false)
		}
	}
	for _, name := range c.fields["datasets"] {
		if isRepoName(name) {
			r.report(Reference{Repo: "datasets/" + name, Where: c.path + ": datasets"})
		}
	}
}

// repoPart matches one half of a repository's name, but for what isRepoName
// says.
var repoPart = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

// localFolders are the first parts of paths on their authors' disks.
var localFolders = map[string]bool{
	"model": true, "models": true, "checkpoint": true, "checkpoints": true, "ckpt": true, "ckpts": true, "output": true, "outputs": true,
	"out": true, "result": true, "results": true, "run": true, "runs": true, "data": true, "dataset": true, "datasets": true, "tmp": true,
	"mnt": true, "home": true, "root": true, "workspace": true, "content": true, "save": true, "saved": true, "saved_models": true,
	"weights": true, "pretrained": true, "pretrained_models": true, "pretrain": true, "experiments": true, "exp": true, "logs": true,
	"local": true, "llm": true, "hf_models": true, "base_models": true, "workdir": true, "work_dirs": true, "scratch": true, "cache": true,
	"src": true, "lora": true, "merged": true, "final": true,
}

// isRepoName accepts ORG/NAME by the hub's rules, and refuses what is more
// likely a file or a folder.
func isRepoName(s string) bool {
	org, name, ok := strings.Cut(s, "/")
	if !ok || len(s) > maxRepo || !repoPart.MatchString(org) || !repoPart.MatchString(name) {
		return false
	}
	if strings.Contains(s, "--") || strings.Contains(s, "..") {
		return false
	}
	if localFolders[strings.ToLower(org)] || trialFolder.MatchString(strings.ToLower(name)) {
		return false
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".json", ".yaml", ".yml", ".py", ".txt", ".md", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".model", ".jinja":
		return false
	}
	return true
}
