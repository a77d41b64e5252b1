package cachedir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/internal/failpoint"
)

// treeFormat is the version of trees/COMMIT.json that clients read. They
// ignore every other one.
const treeFormat = 1

// A treeFile is a file as trees/COMMIT.json lists it.
type treeFile struct {
	Size      int64  `json:"size"`
	BlobID    string `json:"blob_id"`
	LFSSHA256 string `json:"lfs_sha256,omitempty"`
	LFSSize   *int64 `json:"lfs_size,omitempty"`
}

// tree writes the listing of a commit: exactly what the sources have put
// there. A client without a network takes a snapshot for whole when it has
// every file of the listing.
func (r *repository) tree(commit string) error {
	files := make(map[string]treeFile)
	for _, rr := range r.keepers(commit) {
		for _, n := range rr.Files {
			f := treeFile{Size: n.Size, BlobID: n.OID}
			if n.SHA256 != "" {
				f.LFSSHA256, f.LFSSize = n.SHA256, &n.Size
			}
			files[n.Path] = f
		}
	}
	at := path.Join(treesDir, commit+".json")
	if len(files) == 0 {
		return r.Remove(at)
	}
	b, err := encodeTree(files)
	if err != nil {
		return err
	}
	if err := r.Mkdir(treesDir); err != nil {
		return err
	}
	failpoint.Here("cachedir.tree")
	return r.Write(at, b)
}

// encodeTree writes what Python's json.dump writes with indent=1, byte for
// byte: sorted, in ASCII, without a newline at the end.
func encodeTree(files map[string]treeFile) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(struct {
		FormatVersion int                 `json:"format_version"`
		Files         map[string]treeFile `json:"files"` // encoding/json sorts the keys
	}{treeFormat, files}); err != nil {
		return nil, err
	}
	var ascii []byte
	for _, c := range string(bytes.TrimSuffix(b.Bytes(), []byte("\n"))) {
		if c < 0x7f {
			ascii = utf8.AppendRune(ascii, c)
			continue
		}
		for _, u := range utf16.AppendRune(nil, c) {
			ascii = fmt.Appendf(ascii, `\u%04x`, u)
		}
	}
	return ascii, nil
}
