package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// corpus is a labelled corpus of models, where the checkout has one beside
// it. It is no part of the repository: every rule has a test of its own
// elsewhere, and what these files add is that they were made by others.
const corpus = "../../../shared/corpus/models"

// TestCorpus judges the pickles of the corpus: nothing that is labelled
// hostile or broken passes, what torch.save wrote does, and what is benign is
// refused for its globals alone.
func TestCorpus(t *testing.T) {
	labels, err := os.ReadFile(filepath.Join(corpus, "LABELS.tsv"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Logf("there is no labelled corpus at %s: this test holds nothing here", corpus)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	type count struct{ safe, numpy, refused, other int }
	counts := map[string]*count{}
	lines := strings.Split(strings.TrimSpace(string(labels)), "\n")
	for _, line := range lines[1:] {
		fields := strings.Split(line, "\t")
		name, label := fields[0], fields[1]
		if counts[label] == nil {
			counts[label] = &count{}
		}
		c := counts[label]
		pickles, ok := unpack(t, name)
		if !ok {
			c.other++
			continue
		}
		torch, numpy := judge(t, pickles, Torch), judge(t, pickles, Numpy)
		switch {
		case torch == "":
			c.safe++
		case numpy == "":
			c.numpy++
		default:
			c.refused++
		}
		checkLabel(t, name, label, torch, numpy)
	}
	for label, c := range counts {
		t.Logf("%-15s %3d safe, %3d safe with numpy, %3d refused, %3d of other formats", label, c.safe, c.numpy, c.refused, c.other)
	}
	if c := counts["malicious"]; c == nil || c.refused < 100 {
		t.Errorf("hostile files: %+v", c)
	}
}

func checkLabel(t *testing.T, name, label, torch, numpy string) {
	t.Helper()
	switch label {
	case "malicious", "malformed", "dos", "unscannable":
		if torch == "" || numpy == "" {
			t.Errorf("%s is labelled %s and passes", name, label)
		}
	case "benign":
		if strings.HasPrefix(name, "gopickle/") && torch != "" {
			t.Errorf("%s was written by torch.save: %s", name, torch)
		}
		// A global is right to refuse; the shape of what a pickler wrote is
		// not. Those of fickling were put together by hand.
		right := []string{CodeGlobal, CodeCall, CodeNew}
		if strings.HasPrefix(name, "fickling/") {
			right = append(right, CodeProtocol, CodeShared)
		}
		for _, code := range strings.Fields(numpy) {
			if !slices.Contains(right, code) {
				t.Errorf("%s is labelled benign: %s", name, numpy)
			}
		}
		if torch != "" {
			t.Logf("%s is labelled benign: torch %s; numpy %s", name, torch, numpy)
		}
	case "nested-data":
		if torch != "" {
			t.Errorf("%s holds data only: %s", name, torch)
		}
	default:
		t.Logf("%s is labelled %s: %s", name, label, torch)
	}
}

// judge is the codes of the findings in any of the pickles.
func judge(t *testing.T, pickles [][]byte, p Profile) string {
	t.Helper()
	var out []string
	for _, in := range pickles {
		rep, err := Scan(bytes.NewReader(in), Options{Profile: p})
		if err != nil {
			t.Fatal(err)
		}
		if !rep.Safe {
			out = append(out, codes(rep)...)
		}
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// unpack takes the pickles out of a file: the whole, the members of a zip that
// could be one, or what stands in an array file. A container that does not
// open is judged as it is.
func unpack(t *testing.T, name string) (pickles [][]byte, ok bool) {
	t.Helper()
	if slices.Contains([]string{".json", ".j2", ".jinja", ".template", ".yaml", ".h5", ".pb", ".skops"}, path.Ext(name)) {
		return nil, false
	}
	in, err := os.ReadFile(filepath.Join(corpus, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case bytes.HasPrefix(in, []byte("\x93NUMPY")):
		return fromArray(in), true
	case bytes.HasPrefix(in, []byte("PK")):
		return fromZip(in), true
	}
	return [][]byte{in}, true
}

// fromArray is the pickle of an array of objects; other arrays have none.
func fromArray(in []byte) [][]byte {
	if len(in) < 10 {
		return [][]byte{in}
	}
	start := 10 + int(binary.LittleEndian.Uint16(in[8:]))
	if start > len(in) || !bytes.Contains(in[:start], []byte("'|O'")) {
		return nil
	}
	return [][]byte{in[start:]}
}

func fromZip(in []byte) [][]byte {
	z, err := zip.NewReader(bytes.NewReader(in), int64(len(in)))
	if err != nil {
		return [][]byte{in}
	}
	var out [][]byte
	for _, f := range z.File {
		if strings.Contains(f.Name, "/data/") || path.Base(f.Name) == "version" {
			continue
		}
		var member bytes.Buffer
		r, err := f.Open()
		if err == nil {
			_, err = member.ReadFrom(r)
			err = errors.Join(err, r.Close())
		}
		switch {
		case err != nil:
			out = append(out, in) // it does not open: the file is judged as it is
		case bytes.HasPrefix(member.Bytes(), []byte("\x93NUMPY")):
			out = append(out, fromArray(member.Bytes())...)
		default:
			out = append(out, member.Bytes())
		}
	}
	return out
}
