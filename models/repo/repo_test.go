package repo_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/models/repo"
)

// A tree is a repository for tests: files, and the content of those that are
// read.
type tree struct {
	files []repo.File
	docs  map[string]string
}

// newTree reads lines of a path and a size, "5G model.safetensors"; equal ids
// are given as "5G model.safetensors =id". A document's size is its own.
func newTree(t *testing.T, listing string, docs map[string]string) *tree {
	t.Helper()
	tr := &tree{docs: docs}
	for line := range strings.Lines(listing) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		f := repo.File{Path: fields[1], Size: size(t, fields[0]), ID: fmt.Sprintf("%040d", len(tr.files))}
		if len(fields) > 2 {
			f.ID = fields[2]
		}
		if doc, ok := docs[f.Path]; ok {
			f.Size = int64(len(doc))
		}
		tr.files = append(tr.files, f)
	}
	for p := range docs {
		if !slices.ContainsFunc(tr.files, func(f repo.File) bool { return f.Path == p }) {
			tr.files = append(tr.files, repo.File{Path: p, Size: int64(len(docs[p])), ID: "doc:" + p})
		}
	}
	return tr
}

func size(t *testing.T, s string) int64 {
	t.Helper()
	unit := int64(1)
	for suffix, n := range map[string]int64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = rest, n
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return int64(f * float64(unit))
}

func (tr *tree) read(p string, limit int64) ([]byte, error) {
	doc, ok := tr.docs[p]
	if !ok {
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	if int64(len(doc)) > limit {
		return nil, errors.New("over the limit")
	}
	return []byte(doc), nil
}

// shards is an index over n shards of a name with "%05d".
func shards(name string, n int) string {
	var b strings.Builder
	b.WriteString(`{"metadata":{"total_size":1},"weight_map":{`)
	for i := 1; i <= n; i++ {
		if i > 1 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, `"layers.%d.weight":%q,"layers.%d.bias":%q`, i, fmt.Sprintf(name, i), i, fmt.Sprintf(name, i))
	}
	return b.String() + "}}"
}
