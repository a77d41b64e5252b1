package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// corpusFolder finds a labelled corpus of models beside the checkout, above
// the folder of this package; "" if there is none. It is no part of the
// repository: every rule has a test of its own elsewhere, and what these files
// add is that they were made by others.
func corpusFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		at := filepath.Join(dir, "shared", "corpus", "models")
		if _, err := os.Stat(filepath.Join(at, "LABELS.tsv")); err == nil {
			return at
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

// scanFile walks a file and inspects what is in it, as a run does. What the
// walker could not open counts as refused.
func scanFile(t *testing.T, name string) (held []string) {
	t.Helper()
	in, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	i := newInspector(t, Config{})
	res, err := walk.Walk(t.Context(), filepath.Base(name), bytes.NewReader(in), int64(len(in)), walk.Options{Scratch: t.TempDir()}, func(f *walk.File) error {
		list, err := i.Inspect(t.Context(), f)
		for _, x := range list {
			if x.Severity == scan.Critical || x.Severity == scan.High || x.Kind == scan.KindNotScanned {
				held = append(held, fmt.Sprintf("%s: %s %s: %s", f.Inner(), x.Severity, x.ID, x.Text))
			}
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, p := range res.Problems {
		held = append(held, fmt.Sprintf("%s: %s: %s", walk.Join(p.Path), p.Code, p.Text))
	}
	return held
}

// TestCorpus: nothing that is labelled hostile or broken passes, and what is
// benign is held for a reason that is right.
func TestCorpus(t *testing.T) {
	corpus := corpusFolder(t)
	if corpus == "" {
		t.Log("there is no labelled corpus above this folder: this test holds nothing here")
		return
	}
	labels, err := os.ReadFile(filepath.Join(corpus, "LABELS.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	type count struct{ passed, held int }
	counts := map[string]*count{}
	for _, line := range strings.Split(strings.TrimSpace(string(labels)), "\n")[1:] {
		fields := strings.Split(line, "\t")
		name, label := fields[0], fields[1]
		if counts[label] == nil {
			counts[label] = &count{}
		}
		held := scanFile(t, filepath.Join(corpus, filepath.FromSlash(name)))
		if len(held) > 0 {
			counts[label].held++
		} else {
			counts[label].passed++
		}
		checkLabel(t, name, label, held)
	}
	for label, c := range counts {
		t.Logf("%-15s %3d pass, %3d held", label, c.passed, c.held)
	}
	if c := counts["malicious"]; c == nil || c.held < 100 {
		t.Errorf("hostile files: %+v", c)
	}
}

// wrongLabels are rows whose bytes contradict them. The bytes decide.
var wrongLabels = map[string]string{
	"modelaudit/samples/jinja2/tokenizer_config.json": "its chat template is the published exploit of CVE-2024-34359",
}

func checkLabel(t *testing.T, name, label string, held []string) {
	t.Helper()
	if why := wrongLabels[name]; why != "" {
		t.Logf("%s is labelled %s: %s", name, label, why)
		label = "malicious"
	}
	switch label {
	case "malicious", "malformed", "dos", "unscannable", "untrusted-type":
		if len(held) == 0 {
			t.Errorf("%s is labelled %s and passes", name, label)
		}
	case "benign":
		if len(held) == 0 {
			return
		}
		t.Logf("%s is labelled benign and held: %s", name, strings.Join(held, "; "))
		if strings.HasPrefix(name, "gopickle/") {
			t.Errorf("%s was written by torch.save", name)
		}
		// A global is right to refuse; the shape of what a pickler wrote is
		// not. Those of fickling were put together by hand.
		for _, h := range held {
			right := strings.Contains(h, "MODEL-PICKLE-GLOBAL") || strings.Contains(h, "MODEL-PICKLE-DANGER")
			byHand := strings.HasPrefix(name, "fickling/") && slices.ContainsFunc([]string{"PROTOCOL", "SHARED"}, func(s string) bool { return strings.Contains(h, s) })
			if !right && !byHand {
				t.Errorf("%s (%s) is labelled benign: %s", name, path.Ext(name), h)
			}
		}
	case "nested-data", "not-pickle", "suspicious-text":
		if len(held) > 0 {
			t.Errorf("%s is labelled %s: %s", name, label, strings.Join(held, "; "))
		}
	default:
		t.Logf("%s is labelled %s: %s", name, label, strings.Join(held, "; "))
	}
}
