package pickle

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTorchNames compares the list of profile torch with torch's own: the
// names of _get_allowed_globals in torch 2.15.
func TestTorchNames(t *testing.T) {
	want, err := os.ReadFile("testdata/torch-2.15.txt")
	if err != nil {
		t.Fatal(err)
	}
	list := torchNames()
	names := strings.Fields(string(want))
	if len(names) < 100 {
		t.Fatalf("%d names", len(names))
	}
	for _, name := range names {
		if list[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	for name, e := range list {
		if !slices.Contains(names, name) {
			t.Errorf("%s is not torch's", name)
		}
		if e.callable() && e.result == kindNothing {
			t.Errorf("%s returns nothing that the machine knows", name)
		}
	}
}

// TestSignatures holds that every letter of a signature means something: one
// that does not would match nothing, and a typo would go unseen.
func TestSignatures(t *testing.T) {
	list := torchNames()
	addNumpy(list)
	all := map[string][]string{}
	for name, e := range list {
		all[name] = slices.Concat(e.calls, e.creates)
	}
	for k, forms := range states {
		all[kindNames[k]] = forms
	}
	for name, signatures := range all {
		for _, s := range signatures {
			for _, c := range []byte(s) {
				_, group := letterGroups[c]
				if letterKinds[c] == nil && !group && !strings.ContainsRune("axLDoqSzhe|*", rune(c)) {
					t.Errorf("%s: unknown letter %q in %q", name, c, s)
				}
			}
		}
	}
}

// large is the pickle of a model with n tensors, with the memo as Python
// writes it.
func large(n int) string {
	var b strings.Builder
	memo := uint64(0)
	put := func(s string) string {
		memo++
		return s + "r" + le(memo-1, 4)
	}
	b.WriteString(proto(2) + put(hooks) + "(")
	for i := range n {
		key := strings.Repeat("0", 5) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + string(rune('a'+i/17576%26))
		b.WriteString(put(uni("model.layers.10.mlp.experts.down_proj." + key)))
		b.WriteString(glob("torch._utils", "_rebuild_tensor_v2") + "(")
		b.WriteString("(" + uni("storage") + glob("torch", "FloatStorage") + put(uni(key)) + uni("cpu") + "K\x04" + put("t") + "Q")
		b.WriteString("K\x00" + put("K\x04\x85") + put("K\x01\x85") + "\x89" + put(hooks) + put("t") + put("R"))
	}
	b.WriteString("u.")
	return b.String()
}

// TestLarge holds what the default limits promise.
func TestLarge(t *testing.T) {
	rep := scan(t, large(30_000), Torch)
	if !rep.Safe || len(rep.Storages) != 30_000 {
		t.Errorf("%d storages, %+v", len(rep.Storages), rep.Findings)
	}
}

func BenchmarkScan(b *testing.B) {
	in := large(10_000)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		rep, err := Scan(strings.NewReader(in), Options{})
		if err != nil || !rep.Safe {
			b.Fatal(err, rep.Findings)
		}
	}
}
