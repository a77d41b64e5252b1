package devpi

import (
	"encoding/json"
	"net/url"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

// readPage is a page reader of the tests' own, for JSON.
func readPage(_ string, body []byte, _ *url.URL) (map[string]upload.Entry, error) {
	var doc struct {
		Files []struct {
			Filename string            `json:"filename"`
			Hashes   map[string]string `json:"hashes"`
			Python   string            `json:"requires-python"`
			Yanked   any               `json:"yanked"` // false, true or a reason
		} `json:"files"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, err
	}
	out := make(map[string]upload.Entry)
	for _, f := range doc.Files {
		e := upload.Entry{RequiresPython: f.Python, Yanked: f.Yanked != nil && f.Yanked != false}
		if h := f.Hashes["sha256"]; h != "" {
			var err error
			if e.SHA256, err = artifact.ParseHex(h); err != nil {
				return nil, err
			}
		}
		out[f.Filename] = e
	}
	return out, nil
}
