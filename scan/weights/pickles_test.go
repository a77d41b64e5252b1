package weights

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// Pickles for tests, as picklers write them.
const (
	plainPickle = "\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s."        // {"a": 1}
	osPickle    = "\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R." // posix.system("true")
	userPickle  = "\x80\x02cmypkg.models\nForest\n)\x81}b."             // an object of mypkg.models.Forest
	oldPickle   = "cposix\nsystem\n(S'true'\ntR."                       // protocol 0
	oldPlain    = "(dp0\nS'a'\np1\nI1\ns."                              // {"a": 1}, protocol 0
	getattrWalk = "\x80\x04\x8c\x08builtins\x8c\x07getattr\x93."        // names getattr
	dotted      = "\x80\x04\x8c\x07logging\x8c\x0aos.system!\x93."      // an odd name
	cutOff      = "\x80\x02cmypkg\nThing\n"                             // ends early
	extension   = "\x80\x02\x82\x01."                                   // EXT1
	persistent  = "Pabc\n."                                             // PERSID
	trailing    = "\x80\x02N.\x00\x00"                                  // bytes behind the end
)

func TestPickles(t *testing.T) {
	for name, c := range map[string]struct {
		kind     walk.Kind
		content  string
		path     string // elements, "|" between them
		expected string
		words    []string
	}{
		"plain":                {walk.Pickle, plainPickle, "model.pkl", "", nil},
		"calls the system":     {walk.Pickle, osPickle, "model.pkl", "critical MODEL-PICKLE-DANGER", []string{"calls posix.system"}},
		"any name":             {walk.Pickle, osPickle, "vocab.txt", "critical MODEL-PICKLE-DANGER", nil},
		"unknown class":        {walk.Pickle, userPickle, "model.pkl", "high MODEL-PICKLE-GLOBAL", []string{"creates mypkg.models.Forest"}},
		"names getattr":        {walk.Pickle, getattrWalk, "model.pkl", "critical MODEL-PICKLE-DANGER", []string{"imports builtins.getattr"}},
		"odd name":             {walk.Pickle, dotted, "model.pkl", "critical MODEL-PICKLE-DANGER, high MODEL-PICKLE-NAME", nil},
		"ends early":           {walk.Pickle, cutOff, "model.pkl", "high MODEL-PICKLE-GLOBAL, high MODEL-PICKLE-TRUNCATED", nil},
		"extension":            {walk.Pickle, extension, "model.pkl", "high MODEL-PICKLE-EXT", nil},
		"trailing":             {walk.Pickle, trailing, "model.pkl", "high MODEL-PICKLE-TRAILING", nil},
		"protocol 0, named":    {walk.Text, oldPickle, "model.pkl", "critical MODEL-PICKLE-DANGER", nil},
		"protocol 0, .bin":     {walk.Text, oldPickle, "weights.bin", "critical MODEL-PICKLE-DANGER", nil},
		"protocol 0, unnamed":  {walk.Text, oldPickle, "vocab.txt", "critical MODEL-PICKLE-DANGER", nil},
		"protocol 0, clean":    {walk.Text, oldPlain, "model.pkl", "", nil},
		"a word list":          {walk.Text, "cat\ndog\nemu\n", "vocab.txt", "", nil},
		"a guess, a word list": {walk.Pickle, "(cat\ndog\nemu\n", "vocab.txt", "", nil},
		"a guess, and one":     {walk.Pickle, oldPickle, "vocab.txt", "critical MODEL-PICKLE-DANGER", nil},
		"a guess, in a wheel":  {walk.Pickle, oldPickle, "a-1-py3-none-any.whl|vocab.txt", "critical MODEL-PICKLE-DANGER", nil},
		"broken, named":        {walk.Pickle, "(I1\n", "model.pkl", "high MODEL-PICKLE-TRUNCATED", nil},
		"no pickle":            {walk.Data, "\x00\x01\x02\x03", "model.pkl", "high MODEL-UNKNOWN", []string{"no format"}},
		"no pickle, .pt":       {walk.Data, "\x00\x01\x02\x03", "model.pt", "high MODEL-UNKNOWN", nil},
		"no pickle, .bin":      {walk.Data, "\x00\x01\x02\x03", "tensors.bin", "medium MODEL-UNKNOWN", nil},
		"no pickle, torch's":   {walk.Data, "\x00\x01\x02\x03", "pytorch_model-00001-of-00002.bin", "high MODEL-UNKNOWN", nil},
		"an image, .pt":        {walk.Image, "\x89PNG\r\n\x1a\n", "model.pt", "high MODEL-NAME", nil},
		"only persistent":      {walk.Text, persistent, "model.pt", "high MODEL-UNKNOWN", nil},
		"empty":                {walk.Empty, "", "model.pt", "medium MODEL-EMPTY", nil},

		"in a wheel":                    {walk.Pickle, userPickle, "pkg-1.0-py3-none-any.whl|pkg/tests/data/a.pkl", "medium MODEL-PICKLE-GLOBAL", nil},
		"dangerous, in a wheel":         {walk.Pickle, osPickle, "pkg-1.0-py3-none-any.whl|pkg/a.pkl", "critical MODEL-PICKLE-DANGER", nil},
		"broken, in a layer":            {walk.Pickle, "\x80\x02(", strings.Repeat("a", 64) + "||usr/lib/python3/a.pkl", "medium MODEL-PICKLE-TRUNCATED", nil},
		"in a layer's models":           {walk.Pickle, userPickle, "sha256-" + strings.Repeat("a", 64) + "|models/1/a.pkl", "high MODEL-PICKLE-GLOBAL", nil},
		"in a source package":           {walk.Pickle, userPickle, "pkg-1.0.tar.gz||pkg-1.0/a.pkl", "medium MODEL-PICKLE-GLOBAL", nil},
		"in a model's archive":          {walk.Pickle, userPickle, "model.nemo|a.ckpt", "high MODEL-PICKLE-GLOBAL", nil},
		"paths of a package, .pth":      {walk.Text, "import sys; sys.path.append('x')\n", "pkg-1.0-py3-none-any.whl|a.pth", "", nil},
		"numbers in a layer, .bin":      {walk.Data, "\x00\x01", strings.Repeat("a", 64) + "|usr/share/a.bin", "", nil},
		"protocol 0, named, in a wheel": {walk.Text, oldPickle, "pkg-1.0-py3-none-any.whl|a.pkl", "critical MODEL-PICKLE-DANGER", nil},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, c.kind, c.content, strings.Split(c.path, "|")...), c.expected, c.words...)
		})
	}
}

// A pickle in a file of another format is found, whatever the other is.
func TestPolyglots(t *testing.T) {
	// "G" takes the magic for a number; what follows is a pickle.
	in := "GIF89a\x01\x00\x01" + oldPickle
	want(t, inspect(t, Config{}, walk.Image, in, "logo.gif"), "critical MODEL-PICKLE-DANGER, high MODEL-PICKLE-LEFTOVER, high MODEL-POLYGLOT", "a file of type image, and a pickle")
	want(t, inspect(t, Config{}, walk.Tar, oldPickle+strings.Repeat("\x00", 512), "model.tar"), "critical MODEL-PICKLE-DANGER, high MODEL-PICKLE-TRAILING, high MODEL-POLYGLOT")
	want(t, inspect(t, Config{}, walk.Image, "GIF89a\x01\x00\x01\x00\x00\x00;", "logo.gif"), "")
}

func TestPickleRefuse(t *testing.T) {
	refuse := Config{Pickle: PickleRefuse}
	want(t, inspect(t, refuse, walk.Pickle, plainPickle, "model.pkl"), "high MODEL-PICKLE")
	want(t, inspect(t, refuse, walk.Text, oldPlain, "model.pkl"), "high MODEL-PICKLE")
	want(t, inspect(t, refuse, walk.Pickle, plainPickle, "a-1-py3-none-any.whl", "a.pkl"), "medium MODEL-PICKLE")
	want(t, inspect(t, refuse, walk.Text, "hello\n", "README.md"), "")
}

// Behind the point where a pickle breaks, dangerous names are still found.
func TestBehind(t *testing.T) {
	for name, tail := range map[string]string{
		"GLOBAL":               "\x00\x00cposix\nsystem\n",
		"INST":                 "\xff(S'x'\niposix\nsystem\n",
		"SHORT_BINUNICODE":     "\xff\x8c\x05posix\x8c\x06system\x93",
		"BINUNICODE":           "\xffX\x0a\x00\x00\x00subprocessq\x01X\x05\x00\x00\x00Popenr\x02\x00\x00\x00\x93",
		"memoized":             "\xff\x8c\x05posix\x94\x8c\x06system\x94\x93",
		"across two pieces":    "\xff" + strings.Repeat("\x00", searchChunk-5) + "cposix\nsystem\n",
		"behind other letters": "\xffRRcposix\nsystem\n",
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, walk.Pickle, "\x80\x02N\x00"+tail, "a-1-py3-none-any.whl", "a.pkl"), "critical MODEL-PICKLE-DANGER, medium MODEL-PICKLE-OPCODE", "behind it")
		})
	}
	for name, tail := range map[string]string{
		"nothing":   strings.Repeat("\x00", 2*searchChunk),
		"words":     "\xff\x8c\x02os\x94\x8c\x06system\x94K\x01",
		"cut words": "\xff\x8c\x02os\x94\x8c\x06sys",
		"no name":   "\xffcposix\n\x00\n",
		"other one": "\xffcnumpy\nndarray\n",
	} {
		t.Run(name, func(t *testing.T) {
			want(t, inspect(t, Config{}, walk.Pickle, "\x80\x02N\x00"+tail, "a-1-py3-none-any.whl", "a.pkl"), "medium MODEL-PICKLE-OPCODE")
		})
	}
}

func TestZlib(t *testing.T) {
	pack := func(s string) string {
		var b bytes.Buffer
		z := zlib.NewWriter(&b)
		if _, err := z.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	old := "ZF" + fmt.Sprintf("%-19s", "0x2a")
	want(t, inspect(t, Config{}, walk.Data, pack(osPickle), "model.joblib"), "critical MODEL-PICKLE-DANGER", "in a zlib stream")
	want(t, inspect(t, Config{}, walk.Data, pack(osPickle), "anything"), "critical MODEL-PICKLE-DANGER")
	want(t, inspect(t, Config{}, walk.Data, old+pack(osPickle), "model.pkl"), "critical MODEL-PICKLE-DANGER")
	want(t, inspect(t, Config{}, walk.Data, pack(plainPickle), "model.joblib"), "")
	want(t, inspect(t, Config{}, walk.Data, pack(oldPlain), "model.pkl.z"), "")
	want(t, inspect(t, Config{}, walk.Data, pack("not a pickle"), "blob"), "medium MODEL-ZLIB")
	want(t, inspect(t, Config{}, walk.Data, pack("not a pickle"), "model.joblib"), "high MODEL-PICKLE-OPCODE")
	cut := pack(osPickle + strings.Repeat("x", 100))
	want(t, inspect(t, Config{}, walk.Data, cut[:len(cut)-8], "model.joblib"), "critical MODEL-PICKLE-DANGER, high MODEL-PICKLE-TRAILING")
	// The header alone, which one file in a thousand has by chance.
	want(t, inspect(t, Config{}, walk.Data, "\x78\x9c\xff\xff\xff\xff", "notes"), "")
	want(t, inspect(t, Config{}, walk.Data, "\x5d\x00\x00\x80\x00"+strings.Repeat("\xff", 100), "model.joblib"), "?high MODEL-LZMA, high MODEL-NAME")
	want(t, inspect(t, Config{}, walk.Data, "\x5d\x00\x00\x80\x00"+strings.Repeat("\xff", 100), "a-1-py3-none-any.whl", "t.pkl.lzma"), "medium MODEL-LZMA, medium MODEL-NAME")
}

func TestDangerousGlobal(t *testing.T) {
	for _, c := range []struct {
		module, name string
		dangerous    bool
	}{
		{"os", "system", true},
		{"nt", "system", true},
		{"os.path", "join", true},
		{"__builtin__", "eval", true},
		{"builtins", "set", false},
		{"builtins", "getattr", true},
		{"torch.hub", "load", true},
		{"torch.hubcap", "load", false},
		{"torch", "load", true},
		{"torch", "FloatStorage", false},
		{"numpy.f2py.crackfortran", "getlincoef", true},
		{"uuid", "UUID", false},
		{"uuid", "_get_command_stdout", true},
		{"logging", "FileHandler", true},
		{"logging", "os.system", true},
		{"collections", "OrderedDict.__init__", true},
		{"sklearn.svm", "SVC", false},
		{"mypkg.os", "thing", false},
		{"", "", false},
		{"torch.jit._pickle", "build_intlist", false},
		{"numpy.random._pickle", "__generator_ctor", false},
		{"mypkg", "__builtins__", true},
	} {
		if got := dangerousGlobal(c.module, c.name); got != c.dangerous {
			t.Errorf("%s.%s: dangerous %v, want %v", c.module, c.name, got, c.dangerous)
		}
	}
}

// Many findings are cut, and the last one says so.
func TestFindingsAreCapped(t *testing.T) {
	v := &visit{place: top}
	for i := range 50 {
		v.add(scan.Low, fmt.Sprintf("MODEL-%02d", i), "text")
	}
	v.add(scan.Critical, "MODEL-WORST", "text")
	v.add(scan.Critical, "MODEL-WORST", "text")
	list := v.result()
	if len(list) != maxFindings || list[0].ID != "MODEL-WORST" || list[1].ID == "MODEL-WORST" {
		t.Fatalf("%d findings, the first %s, %s", len(list), list[0].ID, list[1].ID)
	}
	if last := list[maxFindings-1].Text; !strings.Contains(last, "and 31 more") {
		t.Errorf("the last finding says %q", last)
	}
}

func TestPlaces(t *testing.T) {
	digest := strings.Repeat("0123456789abcdef", 4)
	for in, expected := range map[string]place{
		"model.bin":                          top,
		"model.joblib.gz|":                   top,
		digest:                               top,
		"model.zip|a":                        inside,
		"model.tar.gz||a":                    inside,
		"pkg-1.0-py3-none-any.whl":           library,
		"pkg-1.0-py3-none-any.whl|a":         library,
		"a_1.0_amd64.deb|data.tar.xz||usr/a": library,
		"pkg-1.0.tar.gz||pkg/a":              library,
		"x_1.0.orig.tar.xz||x/a":             library,
		digest + "||usr/a":                   library,
		digest + "||./models/a":              inside,
		digest + "|models/a":                 inside,
		"sha256:" + digest + "|app/a":        library,
	} {
		if got := placeOf(strings.Split(in, "|")); got != expected {
			t.Errorf("%s: place %d, want %d", in, got, expected)
		}
	}
}

// A file of random bytes whose name says nothing is no pickle, and no finding.
func TestRandomBytesAreNoPickle(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	i, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 6000 {
		b := make([]byte, 4096)
		if _, err := r.Read(b); err != nil {
			t.Fatal(err)
		}
		list, err := i.Inspect(t.Context(), walk.NewFile(walk.Data, b, "data"))
		// Two bytes of a zlib header are met by chance, and are a warning.
		grave := slices.ContainsFunc(list, func(f scan.Finding) bool { return f.Severity != scan.Medium })
		if err != nil || grave {
			t.Errorf("file %d, which starts with %x: %+v, %v", n, b[:8], list, err)
		}
	}
}
