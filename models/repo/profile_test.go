package repo_test

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/models/repo"
)

func TestParseProfile(t *testing.T) {
	for in, want := range map[string]string{
		"all": "all", "vllm": "vllm", "st": "st", "gguf": "gguf", "onnx": "onnx",
		"gguf:q4_k_m": "gguf:Q4_K_M", "gguf:Q8_0+q4_K_m+Q8_0": "gguf:Q4_K_M+Q8_0", "onnx:O4+INT8": "onnx:int8+o4", "gguf:UD-Q4_K_XL": "gguf:UD-Q4_K_XL",
	} {
		p, err := repo.ParseProfile(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		again, err := repo.ParseProfile(p.String())
		if p.String() != want || err != nil || again != p {
			t.Errorf("%q is %q (want %q) and then %q, %v", in, p, want, again, err)
		}
	}
	var zero repo.Profile
	if all, err := repo.ParseProfile("all"); err != nil || all != zero || zero.String() != "all" {
		t.Errorf("all is %v (%v), the zero profile is %v", all, err, zero)
	}
	for _, in := range []string{
		"", "ALL", "tgi", "all:x", "vllm:", "st:x", "gguf:", "gguf:+", "gguf:Q4_K_M+", "gguf:../x", "gguf:a b", "onnx:", "onnx:ü", "gguf:*",
		"gguf:" + strings.Repeat("A", 300), "gguf:a+b+c+d+e+f+g+h+i+j+k+l+m+n+o+p+q",
	} {
		if p, err := repo.ParseProfile(in); err == nil {
			t.Errorf("%q was read as %q", in, p)
		}
	}
}

func TestSelectRefuses(t *testing.T) {
	broken := shards("model-%05d-of-00002.safetensors", 2)
	for _, c := range []struct {
		name, profile, listing string
		docs                   map[string]string
		is                     error
		says                   []string
	}{
		{
			"GGUF alone for vllm", "vllm", ggufRepo, nil, repo.ErrNoWeights,
			[]string{"profile vllm", "GGUF (Q4_K_M) (model-Q4_K_M.gguf)", "GGUF (BF16) (3 files"},
		},
		{"data alone", "vllm", "1K README.md\n4M data/train.parquet", nil, repo.ErrNoWeights, []string{"parquet (data/train.parquet)"}},
		{"nothing", "st", "1K README.md", nil, repo.ErrNoWeights, []string{"none among 1 files"}},
		{"the authors' layout alone", "vllm", "1K params.json\n13G consolidated.00.pth", nil, repo.ErrNoWeights, []string{"pth (consolidated.00.pth)"}},
		{"checkpoints alone", "vllm", "1K README.md\n13G checkpoint-10/model.safetensors", nil, repo.ErrNoWeights, []string{"checkpoint-10/model.safetensors"}},
		{"mistral's format for st", "st", "1K params.json\n13G consolidated.safetensors", nil, repo.ErrNoWeights, []string{"consolidated.safetensors"}},
		{"no such quantisation", "gguf:Q2_K", ggufRepo, nil, repo.ErrNoWeights, []string{"no Q2_K", "BF16, Q4_K_M, Q4_K_S, Q5_K_M, Q8_0, UD-Q4_K_XL"}},
		{"which quantisation", "gguf", ggufRepo, nil, repo.ErrNoWeights, []string{"say which", "Q8_0"}},
		{"no GGUF", "gguf:Q8_0", gpt2, nil, repo.ErrNoWeights, []string{"safetensors (model.safetensors)", "TensorFlow Lite (3 files"}},
		{
			"a part of a split file", "gguf:Q8_0", "1G m-Q8_0-00001-of-00003.gguf\n1G m-Q8_0-00003-of-00003.gguf", nil, repo.ErrIncomplete,
			[]string{"m-Q8_0-00002-of-00003.gguf is missing"},
		},
		{"no ONNX", "onnx", "1G model.safetensors", nil, repo.ErrNoWeights, []string{"safetensors (model.safetensors)"}},
		{"no such variant", "onnx:bnb4", miniLM, nil, repo.ErrNoWeights, []string{"no variant bnb4", "default, o1, o4, qint8_arm64"}},
		{"which variant", "onnx", "1G model_fp16.onnx\n1G model_int8.onnx", nil, repo.ErrNoWeights, []string{"no variant default", "fp16, int8"}},
		{
			"an index without its shard", "vllm", "1G model-00001-of-00002.safetensors",
			map[string]string{"model.safetensors.index.json": broken},
			repo.ErrIncomplete,
			[]string{"model.safetensors.index.json", "model-00002-of-00002.safetensors is missing"},
		},
		{
			"the same for all", "all", "1G model-00001-of-00002.safetensors",
			map[string]string{"model.safetensors.index.json": broken},
			repo.ErrIncomplete,
			[]string{"profile all", "model-00002-of-00002.safetensors is missing"},
		},
		{"shards without an index", "vllm", "1G model-00001-of-00002.safetensors", nil, repo.ErrIncomplete, []string{"model-00002-of-00002.safetensors is missing"}},
		{"an index that cannot be read", "vllm", "1K model.safetensors.index.json\n1G model.safetensors", nil, fs.ErrNotExist, []string{"model.safetensors.index.json"}},
		{
			"an ambiguous index", "vllm", "1G a.safetensors",
			map[string]string{"model.safetensors.index.json": `{"weight_map":{"x":"a.safetensors","x":"a.safetensors"}}`},
			repo.ErrIndex,
			[]string{`"x" stands twice`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := repo.ParseProfile(c.profile)
			if err != nil {
				t.Fatal(err)
			}
			tr := newTree(t, c.listing, c.docs)
			choice, err := p.Select(tr.files, tr.read, nil, nil)
			if !errors.Is(err, c.is) {
				t.Fatalf("want %v, got %v", c.is, err)
			}
			if len(choice.Keep)+len(choice.Left) != 0 {
				t.Errorf("a choice beside an error: %+v", choice)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		name, profile    string
		include, exclude []string
		keep             []string
		notes            int
		fails            string
	}{
		{name: "a file that the profile leaves out", profile: "vllm", include: []string{"pytorch_*"}, keep: []string{"README.md", "config.json", "model.safetensors", "pytorch_model.bin"}},
		{name: "a file that it keeps", profile: "vllm", exclude: []string{"*.md"}, keep: []string{"config.json", "model.safetensors"}},
		{name: "a star matches slashes", profile: "all", exclude: []string{"*.onnx", "onnx/"}, keep: []string{"README.md", "config.json", "model.safetensors", "pytorch_model.bin"}},
		{name: "only what is included", profile: "all", include: []string{"*.json"}, keep: []string{"config.json", "onnx/config.json"}},
		{name: "exclude wins", profile: "all", include: []string{"*.json"}, exclude: []string{"onnx/*"}, keep: []string{"config.json"}},
		{name: "a pattern for nothing", profile: "all", exclude: []string{"*.zip"}, keep: []string{"README.md", "config.json", "model.safetensors", "onnx/config.json", "onnx/model.onnx", "pytorch_model.bin"}, notes: 1},
		{name: "nothing left", profile: "all", include: []string{"*.zip"}, fails: "leave no file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := repo.ParseProfile(c.profile)
			if err != nil {
				t.Fatal(err)
			}
			tr := newTree(t, "1K README.md\n1K config.json\n1G model.safetensors\n1K onnx/config.json\n1G onnx/model.onnx\n1G pytorch_model.bin", nil)
			choice, err := p.Select(tr.files, tr.read, c.include, c.exclude)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("want %q, got %v", c.fails, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkChoice(t, tr, choice)
			var keep []string
			for _, f := range choice.Keep {
				keep = append(keep, f.Path)
			}
			if diff := cmp.Diff(c.keep, keep); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			if len(choice.Notes) != c.notes {
				t.Errorf("notes %q, want %d", choice.Notes, c.notes)
			}
		})
	}
}

// A shard that a pattern takes out breaks the index: that is refused.
func TestPatternBreaksIndex(t *testing.T) {
	p, err := repo.ParseProfile("vllm")
	if err != nil {
		t.Fatal(err)
	}
	tr := newTree(t, llama3, map[string]string{"model.safetensors.index.json": shards("model-%05d-of-00004.safetensors", 4)})
	_, err = p.Select(tr.files, tr.read, nil, []string{"*00003*"})
	if !errors.Is(err, repo.ErrIncomplete) || !strings.Contains(err.Error(), "model-00003-of-00004.safetensors is missing") {
		t.Fatalf("want an incomplete index, got %v", err)
	}
}

// The order of the listing decides nothing, and the listing stays as it was.
func TestSelectIsDeterministic(t *testing.T) {
	for _, s := range shapes {
		p, err := repo.ParseProfile(s.profile)
		if err != nil {
			t.Fatal(err)
		}
		tr := newTree(t, s.listing, s.docs)
		slices.SortFunc(tr.files, func(a, b repo.File) int { return strings.Compare(a.Path, b.Path) })
		one, err := p.Select(tr.files, tr.read, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(tr.files)
		before := slices.Clone(tr.files)
		two, err := p.Select(tr.files, tr.read, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(one, two); diff != "" {
			t.Errorf("%s: another order, another choice:\n%s", s.name, diff)
		}
		if !slices.Equal(before, tr.files) {
			t.Errorf("%s: the caller's list was changed", s.name)
		}
	}
}

// Copies of one content count once.
func TestSavedCountsContents(t *testing.T) {
	tr := newTree(t, `
1G model.safetensors =w
1G copy/model.ckpt =w
2G tf_model.h5 =h
2G flax_model.msgpack =h
1K config.json`, nil)
	p, err := repo.ParseProfile("vllm")
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Select(tr.files, tr.read, nil, []string{"copy/*"})
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(2 << 30); c.Saved != want {
		t.Errorf("saved %d, want %d: %+v", c.Saved, want, c.Left)
	}
	why := make(map[string]string)
	for _, l := range c.Left {
		why[l.Path] = l.Why
	}
	if why["copy/model.ckpt"] != "a copy of model.safetensors" || len(why) != 3 {
		t.Errorf("reasons %v", why)
	}
}

// FuzzSelect: whatever the names, each file is kept or left out with a reason,
// and what is kept is whole.
func FuzzSelect(f *testing.F) {
	for _, s := range shapes {
		f.Add(s.profile, strings.Join(slices.Sorted(maps.Keys(paths(s.listing))), "\n"), s.docs["model.safetensors.index.json"], s.docs["modules.json"])
	}
	f.Fuzz(func(t *testing.T, profile, names, index, modules string) {
		p, err := repo.ParseProfile(profile)
		if err != nil {
			return
		}
		tr := &tree{docs: map[string]string{"model.safetensors.index.json": index, "modules.json": modules, "model_index.json": modules}}
		for name := range paths("1 " + strings.ReplaceAll(names, "\n", "\n1 ")) {
			tr.files = append(tr.files, repo.File{Path: name, Size: int64(len(name)), ID: name})
		}
		c, err := p.Select(tr.files, tr.read, nil, nil)
		if err != nil {
			return
		}
		checkChoice(t, tr, c)
		if err := repo.CheckIndexes(c.Keep, tr.read); err != nil {
			t.Errorf("what was kept is not whole: %v", err)
		}
	})
}

// paths are the second words of lines.
func paths(listing string) map[string]bool {
	out := make(map[string]bool)
	for line := range strings.Lines(listing) {
		if fields := strings.Fields(line); len(fields) > 1 {
			out[fields[1]] = true
		}
	}
	return out
}
