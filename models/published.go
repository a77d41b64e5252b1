package models

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
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// CurrentName is the one pointer of a source's publication. It is
	// replaced whole.
	CurrentName = "current.json"
	// ArrivingName is the pointer to a set that is announced and not yet
	// complete.
	ArrivingName = "arriving.json"

	publishedSchema = "darkmirror.models-published/v1"
	// maxPublished bounds a pointer: about 200 bytes a kept revision.
	maxPublished = 4 << 20
)

// Published is what a source's folder says that clients see.
type Published struct {
	Schema   string          `json:"schema"`
	Snapshot artifact.Digest `json:"snapshot"`
	Seq      uint64          `json:"seq"` // the bundle that brought it
	Time     time.Time       `json:"time"`
	// Kept are revisions of earlier snapshots that stay, by commit alone.
	Kept []Kept `json:"kept,omitempty"`
}

// A Kept is a revision that a branch has left and that is still served.
type Kept struct {
	Snapshot artifact.Digest `json:"snapshot"`
	Repo     string          `json:"repo"`
	Commit   string          `json:"commit"`
}

// ReadPublished reads the pointer in a source's folder; false where nothing
// was published yet.
func ReadPublished(dir string) (Published, bool, error) {
	return readPublished(filepath.Join(dir, CurrentName))
}

// ReadArriving reads the set that is on its way; false where there is none.
func ReadArriving(dir string) (Published, bool, error) {
	return readPublished(filepath.Join(dir, ArrivingName))
}

func readPublished(name string) (Published, bool, error) {
	var p Published
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, err
	}
	if len(b) > maxPublished {
		return p, false, fmt.Errorf("%s: over %d bytes", name, maxPublished)
	}
	if err := strictjson.Unmarshal(b, &p); err != nil {
		return p, false, fmt.Errorf("%s: %w", name, err)
	}
	if p.Schema != publishedSchema {
		return p, false, fmt.Errorf("%s: schema %q, want %q", name, p.Schema, publishedSchema)
	}
	return p, true, nil
}

// Load reads the revisions that p points at, the kept ones included. A kept
// revision answers to its commit alone.
func (p Published) Load(st *store.Store) (*Set, error) {
	set, err := loadSet(p.Snapshot, st)
	if err != nil {
		return nil, err
	}
	loaded := map[artifact.Digest]*Set{}
	for _, k := range p.Kept {
		name, err := hub.ParseRepo(k.Repo)
		if err != nil {
			return nil, err
		}
		if _, again := set.Find(name, k.Commit); again {
			continue
		}
		old := loaded[k.Snapshot]
		if old == nil {
			if old, err = loadSet(k.Snapshot, st); err != nil {
				return nil, err
			}
			loaded[k.Snapshot] = old
		}
		if r, ok := old.Find(name, k.Commit); ok {
			kept := *r
			kept.Refs = nil
			set.Revisions = append(set.Revisions, kept)
		}
	}
	set.sort()
	return set, nil
}

func loadSet(d artifact.Digest, st *store.Store) (*Set, error) {
	b, err := st.ReadAll(d, artifact.MaxSnapshot)
	if err != nil {
		return nil, err
	}
	snap, err := artifact.DecodeSnapshot(b)
	if err != nil {
		return nil, err
	}
	return ReadSet(snap, st)
}

// write makes p what the pointer of that name says.
func (p Published) write(dir, name string) error {
	p.Schema = publishedSchema
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, name), b, 0o640)
}
