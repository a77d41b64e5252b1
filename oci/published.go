package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	// currentName is the one pointer of a source's publication.
	currentName    = "current.json"
	currentSchema  = "darkmirror.oci-published/v1"
	maxCurrentSize = 4 << 10
)

// Published is what a source's folder says that clients see.
type Published struct {
	Schema   string          `json:"schema"`
	Snapshot artifact.Digest `json:"snapshot"`
	Seq      uint64          `json:"seq"` // the bundle that brought it
	Time     time.Time       `json:"time"`
}

// ReadPublished reads the pointer in a source's folder; false where nothing
// was published yet.
func ReadPublished(dir string) (Published, bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, currentName))
	if errors.Is(err, fs.ErrNotExist) {
		return Published{}, false, nil
	}
	if err != nil {
		return Published{}, false, err
	}
	var p Published
	if err := strictjson.Unmarshal(b, &p); err != nil || p.Schema != currentSchema {
		return Published{}, false, fmt.Errorf("%s: not a publication of this version: %w", filepath.Join(dir, currentName), err)
	}
	return p, true, nil
}

// Load reads the snapshot that p points at.
func (p Published) Load(st *store.Store) (*Set, error) {
	b, err := st.ReadAll(p.Snapshot, artifact.MaxSnapshot)
	if err != nil {
		return nil, err
	}
	snap, err := artifact.DecodeSnapshot(b)
	if err != nil {
		return nil, err
	}
	return ReadSet(snap, st)
}

// write makes p what clients see.
func (p Published) write(dir string) error {
	p.Schema = currentSchema
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, currentName), b, 0o640)
}
