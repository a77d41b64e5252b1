package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	// currentName is the one pointer of a source's publication.
	currentName   = "current.json"
	currentSchema = "darkmirror.files-current/v1"
	// maxCurrent bounds it: it has a handful of fields.
	maxCurrent = 4 << 10
	// lastByDefault names other files: the metadata of a Trivy database.
	lastByDefault = "**/metadata.json"
)

// A current is what is published.
type current struct {
	Schema   string          `json:"schema"`
	Source   string          `json:"source"`
	Snapshot artifact.Digest `json:"snapshot"`
	Seq      uint64          `json:"seq"` // the bundle that brought it
	Time     time.Time       `json:"time"`
}

// A Publisher publishes one source inside: for a [Handler], and into folders
// that programs read. Its methods must not run at the same time.
type Publisher struct {
	name    string
	st      *store.Store
	dir     string
	targets []*target
}

// NewPublisher makes a publisher of a configuration that is valid. dir is its
// own folder. A nil log discards.
func NewPublisher(cfg PublishConfig, name string, st *store.Store, dir string, log *slog.Logger) (*Publisher, error) {
	if err := errors.Join(cfg.Validate(), artifact.CheckSource(name)); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mode, _ := fileMode(cfg.Mode)
	names := cfg.Last
	if len(names) == 0 {
		names = []string{lastByDefault}
	}
	last, err := parsePatterns(names)
	if err != nil {
		return nil, err
	}
	p := &Publisher{name: name, st: st, dir: dir}
	add := func(folder string, versioned bool, sets ...string) {
		p.targets = append(p.targets, &target{
			dir: filepath.Clean(folder), versioned: versioned, sets: sets,
			source: name, state: dir, st: st, mode: mode, last: last, log: log,
		})
	}
	for _, s := range cfg.Sets {
		add(s.Folder, s.Versioned, s.Name)
	}
	if cfg.Folder != "" {
		add(cfg.Folder, cfg.Versioned)
	}
	return p, nil
}

// Name is the source that it publishes.
func (p *Publisher) Name() string { return p.name }

// Verify checks, without writing anything, that the snapshot is one of this
// package, that every name can be published, that a version which is told
// from the content is that of the content, and that every file is in the
// store with its size. There is no other proof: the pinned digests are the
// snapshot's own.
func (p *Publisher) Verify(ctx context.Context, snap, _ *artifact.Snapshot) error {
	sets, err := readSets(snap, p.name)
	if err != nil {
		return err
	}
	for _, s := range sets {
		for _, f := range s.files {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := p.st.Size(f.digest)
			if err == nil && n == f.size {
				continue
			}
			r := &artifact.Refusal{
				Class: artifact.ErrIntegrity, Code: CodeSize, Subject: p.name + ": " + s.name + "/" + f.path,
				Reason: "the file is not in the store with its size", Want: strconv.FormatInt(f.size, 10), Err: err,
			}
			if err == nil {
				r.Got = strconv.FormatInt(n, 10)
			}
			return r
		}
	}
	return nil
}

// Publish makes the snapshot what the handler shows, by one rename, and then
// brings the files into their folders. Sets that a folder does not take are
// listed in an *artifact.Incomplete.
func (p *Publisher) Publish(ctx context.Context, snap *artifact.Snapshot, seq uint64, now time.Time) (string, error) {
	sets, err := readSets(snap, p.name)
	if err != nil {
		return "", err
	}
	if err := p.point(snap, seq, now); err != nil {
		return "", err
	}
	files, bytes := 0, int64(0)
	for _, s := range sets {
		files, bytes = files+len(s.files), bytes+s.bytes()
	}
	texts := []string{plural(len(sets), "set") + ", " + count(files, bytes) + "   /" + p.name + "/"}
	var lost []artifact.Lost
	rest := slices.Clone(sets)
	for _, t := range p.targets {
		own := rest
		if t.sets != nil {
			own = slices.DeleteFunc(slices.Clone(sets), func(s *fileSet) bool { return !slices.Contains(t.sets, s.name) })
			rest = slices.DeleteFunc(rest, func(s *fileSet) bool { return slices.Contains(t.sets, s.name) })
		}
		text, missing, err := t.publish(ctx, own)
		if err != nil {
			return "", err
		}
		lost = append(lost, missing...)
		if text != "" {
			texts = append(texts, text)
		}
	}
	text := strings.Join(texts, "\n")
	if len(lost) > 0 {
		return text, &artifact.Incomplete{Items: lost}
	}
	return text, nil
}

// point makes the snapshot what current.json names.
func (p *Publisher) point(snap *artifact.Snapshot, seq uint64, now time.Time) error {
	b, err := snap.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o750); err != nil {
		return err
	}
	if err := durable.Sweep(p.dir); err != nil { // of a killed run
		return err
	}
	at := current{Schema: currentSchema, Source: p.name, Snapshot: artifact.Sum(b), Seq: seq, Time: now.UTC().Truncate(time.Second)}
	if !p.st.Has(at.Snapshot) { // published without an import
		if _, err := p.st.PutBytes(b); err != nil {
			return err
		}
	}
	name := filepath.Join(p.dir, currentName)
	old, err := readCurrent(name, p.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && old.Snapshot == at.Snapshot {
		return durable.SyncDir(p.dir) // a run that was killed may not have done it
	}
	if b, err = json.Marshal(at); err != nil {
		return err
	}
	failpoint.Here("files.publish")
	if err := durable.WriteFile(name, b, 0o640); err != nil {
		return err
	}
	failpoint.Here("files.published")
	return nil
}

// readCurrent reads the pointer of a source. It returns an error that matches
// fs.ErrNotExist where nothing was published yet.
func readCurrent(name, source string) (*current, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxCurrent {
		return nil, fmt.Errorf("%s: over %d bytes", name, maxCurrent)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c, err := decodeCurrent(b)
	if err == nil && source != "" && c.Source != source {
		err = fmt.Errorf("it is of %q", clip(c.Source))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func decodeCurrent(b []byte) (*current, error) {
	var c current
	if err := strictjson.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	if c.Schema != currentSchema {
		return nil, fmt.Errorf("schema %q, want %q", clip(c.Schema), currentSchema)
	}
	return &c, artifact.CheckSource(c.Source)
}
