package pypi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	currentName   = "current.json"
	currentSchema = "darkmirror.pypi-current/v1"
	// checks is how many archives are checked at once: the hash is what
	// takes the time, and two cores are what is promised.
	checks = 2
)

// A current is what the handler serves: index.json with the digest of each
// wheel's METADATA, and the bundle that brought it.
type current struct {
	Schema string `json:"schema"`
	Source string `json:"source"`
	Seq    uint64 `json:"seq"`
	// Serial grows with every change of what follows, and never shrinks.
	Serial   uint64           `json:"serial,omitempty"`
	Projects []currentProject `json:"projects"`
}

type currentProject struct {
	Name         string        `json:"name"`
	Status       string        `json:"status,omitempty"`
	StatusReason string        `json:"status_reason,omitempty"`
	Files        []currentFile `json:"files"`
}

type currentFile struct {
	File indexFile `json:"file"`
	// Metadata is the METADATA file of a wheel, which is in the store.
	Metadata     string `json:"metadata,omitempty"`
	MetadataSize int64  `json:"metadata_size,omitempty"`
	// Blake2b is the BLAKE2b-256 of the file, which its URL holds.
	Blake2b string `json:"blake2b,omitempty"`
	// Provenance is the file's provenance object (PEP 740), in the store.
	Provenance string `json:"provenance,omitempty"`
	// Kept is the bundle that lacked the file first: it stays, as yanked.
	Kept uint64 `json:"kept,omitempty"`
}

// A Publisher makes snapshots of one source current inside. Its methods must
// not run at the same time.
type Publisher struct {
	name  string
	store *store.Store
	dir   string
	hide  bool   // what a snapshot lacks, rather than keep it as yanked
	tree  string // gets the index as files; may be empty

	attester  *attester // nil: attestations are carried on as they are
	anyRecord []string

	target     target // gets the files too; may be nil
	targetName string
	log        *slog.Logger
}

// NewPublisher returns the publisher of the source name, which keeps its
// state in dir.
func NewPublisher(cfg PublishConfig, name string, st *store.Store, dir string, log *slog.Logger) (*Publisher, error) {
	if err := errors.Join(cfg.Validate(), artifact.CheckSource(name)); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	at, err := newAttester(cfg.Attestations)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Publisher{name: name, store: st, dir: dir, hide: cfg.Removed == removedHide, tree: cfg.Tree, log: log, attester: at, anyRecord: cfg.AnyRecord}, nil
}

// Name is the source that it publishes.
func (p *Publisher) Name() string { return p.name }

// Verify checks snap as strictly as the outside did: index.json and the
// snapshot name the same files with the same digests and sizes, every
// filename is strict, every archive is what its name says, and its METADATA
// is the one that the index named. A filename that prev has with other bytes
// is a security refusal. It writes nothing.
func (p *Publisher) Verify(ctx context.Context, snap, prev *artifact.Snapshot) error {
	doc, _, err := p.load(snap)
	if err != nil {
		return err
	}
	if err := errors.Join(changed(p.name, snap, prev), p.changedHere(doc)); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(checks)
	for i := range doc.Projects {
		for j := range doc.Projects[i].Files {
			f := &doc.Projects[i].Files[j]
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				_, err := p.check(f)
				return err
			})
		}
	}
	return g.Wait()
}

// changed refuses a filename that had other bytes before: upstreams never
// reuse one, so somebody has exchanged a file.
func changed(source string, snap, prev *artifact.Snapshot) error {
	if prev == nil {
		return nil
	}
	old := make(map[string]artifact.Digest)
	for i := range prev.Artifacts {
		for _, f := range prev.Artifacts[i].Files {
			old[f.Path] = f.Digest
		}
	}
	for i := range snap.Artifacts {
		for _, f := range snap.Artifacts[i].Files {
			if was, ok := old[f.Path]; ok && was != f.Digest {
				return &artifact.Refusal{
					Class: artifact.ErrIntegrity, Code: "PYPI-FILE-CHANGED", Subject: source + ": " + f.Path,
					Reason: "the file was published before with other bytes", Want: was.String(), Got: f.Digest.String(),
				}
			}
		}
	}
	return nil
}

// load reads index.json of a snapshot and compares the two. held are the
// filenames that the document has and the snapshot lacks: somebody has decided
// against them, so they must not stay.
func (p *Publisher) load(snap *artifact.Snapshot) (doc *indexDoc, held map[string]bool, err error) {
	refuse := func(reason string, err error) (*indexDoc, map[string]bool, error) {
		return nil, nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-INDEX", Subject: p.name + ": " + indexName, Reason: reason, Err: err}
	}
	if snap.Source != p.name {
		return refuse(fmt.Sprintf("the snapshot is of %q", clip(snap.Source)), nil)
	}
	meta, ok := snap.MetaFile(indexName)
	if !ok || meta.Size > maxIndex {
		return refuse("the snapshot does not hold it", nil)
	}
	objects, err := provenances(snap.Meta)
	if err != nil {
		return refuse("the snapshot holds more than it", err)
	}
	b, err := p.store.ReadAll(meta.Digest, maxIndex)
	if err != nil {
		return nil, nil, err
	}
	if doc, err = decodeIndex(b); err != nil {
		return refuse("malformed", err)
	}
	files := make(map[string]*indexFile)
	for i := range doc.Projects {
		for j := range doc.Projects[i].Files {
			f := &doc.Projects[i].Files[j]
			files[doc.Projects[i].Name+" "+f.Version+" "+f.Filename] = f
		}
	}
	for i := range snap.Artifacts {
		a := &snap.Artifacts[i]
		for _, f := range a.Files {
			key := a.Name + " " + a.Version + " " + f.Path
			d, ok := files[key]
			if !ok || d.SHA256 != f.Digest || d.Size != f.Size {
				return refuse(fmt.Sprintf("the snapshot has %q otherwise or alone", clip(key)), nil)
			}
			if _, ok := objects[d.Provenance]; !ok && d.Provenance != "" {
				return refuse(fmt.Sprintf("the snapshot lacks the provenance object of %q", clip(key)), nil)
			}
			delete(files, key)
		}
	}
	// What was held back or could not be had outside is in the index and not
	// in the snapshot, which is signed and decides.
	held = make(map[string]bool, len(files))
	for _, f := range files {
		held[f.Filename] = true
	}
	kept := doc.Projects[:0]
	for _, pr := range doc.Projects {
		pr.Files = slices.DeleteFunc(pr.Files, func(f indexFile) bool { return held[f.Filename] })
		if len(pr.Files) > 0 {
			kept = append(kept, pr)
		}
	}
	doc.Projects = kept
	return doc, held, nil
}

// check opens one file in the store and checks it.
func (p *Publisher) check(f *indexFile) (*Checked, error) {
	c, err := checkBlob(p.store, f.Filename, f.SHA256, f.Size)
	if err != nil {
		return nil, err
	}
	if f.CoreMetadata != "" && c.Metadata != nil && artifact.Sum(c.Metadata).String() != f.CoreMetadata {
		return nil, metadataRefusal(f.Filename, f.CoreMetadata, c.Metadata)
	}
	if err := p.recorded(f, c); err != nil {
		return nil, err
	}
	return c, p.attested(f)
}

func metadataRefusal(filename, want string, got []byte) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "PYPI-METADATA-MISMATCH", Subject: filename,
		Reason: "METADATA is not the one that the index names", Want: want, Got: artifact.Sum(got).String(),
	}
}

// checkBlob checks an archive that is in the store.
func checkBlob(st *store.Store, filename string, d artifact.Digest, size int64) (c *Checked, err error) {
	f, err := st.File(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != size {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-SIZE-MISMATCH", Subject: filename, Reason: "the blob has another size", Want: fmt.Sprint(size), Got: fmt.Sprint(info.Size())}
	}
	return CheckFile(filename, f, size)
}

// Publish puts every wheel's METADATA into the store and then replaces
// current.json, which is what the handler serves. It is idempotent.
func (p *Publisher) Publish(ctx context.Context, snap *artifact.Snapshot, seq uint64, now time.Time) (string, error) {
	doc, held, err := p.load(snap)
	if err != nil {
		return "", err
	}
	if err := durable.Sweep(p.dir); err != nil {
		return "", err
	}
	cur := current{Schema: currentSchema, Source: p.name, Seq: seq, Projects: make([]currentProject, 0, len(doc.Projects))}
	files := 0
	for i := range doc.Projects {
		d := &doc.Projects[i]
		c := currentProject{Name: d.Name, Status: d.Status, StatusReason: d.StatusReason}
		for j := range d.Files {
			if err := ctx.Err(); err != nil {
				return "", err
			}
			f, err := p.file(&d.Files[j])
			if err != nil {
				return "", err
			}
			c.Files = append(c.Files, *f)
		}
		files += len(c.Files)
		cur.Projects = append(cur.Projects, c)
	}
	if err := p.revise(ctx, held, &cur, now); err != nil {
		return "", err
	}
	if err := p.write(&cur); err != nil {
		return "", err
	}
	if err := p.writeTree(ctx); err != nil {
		return "", err
	}
	noun := "files"
	if files == 1 {
		noun = "file"
	}
	pushed, err := p.push(ctx, &cur)
	return fmt.Sprintf("%d %s   /%s/simple/%s", files, noun, p.name, pushed), err
}

// writeTree brings the folder of files to what is published, where one is
// configured.
func (p *Publisher) writeTree(ctx context.Context) error {
	if p.tree == "" {
		return nil
	}
	if err := WriteTree(ctx, p.tree, p.name, NewHandler(p.dir, p.store, p.log)); err != nil {
		return fmt.Errorf("%s: tree %s: %w", p.name, p.tree, err)
	}
	return nil
}

func (p *Publisher) file(f *indexFile) (*currentFile, error) {
	c, err := p.check(f)
	if err != nil {
		return nil, err
	}
	out := &currentFile{File: *f, Provenance: f.Provenance}
	if out.File.RequiresPython == "" {
		out.File.RequiresPython = plain(c.RequiresPython)
	}
	if c.Metadata == nil {
		return out, nil
	}
	d, err := p.store.PutBytes(c.Metadata)
	if err != nil {
		return nil, err
	}
	out.Metadata, out.MetadataSize = d.String(), int64(len(c.Metadata))
	return out, nil
}

// write makes cur current, unless it is.
func (p *Publisher) write(cur *current) error {
	b, err := json.Marshal(cur)
	if err != nil {
		return err
	}
	if len(b) > maxIndex {
		return fmt.Errorf("%s: the publication has %d bytes, at most %d can be served; split the source", p.name, len(b), maxIndex)
	}
	name := filepath.Join(p.dir, currentName)
	old, err := os.ReadFile(name)
	switch {
	case err == nil && bytes.Equal(old, b):
		// A run that was killed behind the rename may not have synced it.
		return durable.SyncDir(p.dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	failpoint.Here("pypi.before-current")
	if err := durable.WriteFile(name, b, 0o640); err != nil {
		return err
	}
	failpoint.Here("pypi.published")
	return nil
}

// decodeCurrent reads current.json, which this host wrote itself; a damaged
// one is refused whole.
func decodeCurrent(b []byte) (*current, error) {
	if len(b) > maxIndex {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(b), maxIndex)
	}
	var c current
	if err := strictjson.Unmarshal(b, &c); err != nil {
		return nil, err
	}
	if c.Schema != currentSchema {
		return nil, fmt.Errorf("schema %q, want %q", clip(c.Schema), currentSchema)
	}
	doc := indexDoc{Schema: indexSchema, Projects: make([]indexProject, len(c.Projects))}
	for i := range c.Projects {
		p := &c.Projects[i]
		doc.Projects[i] = indexProject{Name: p.Name, Status: p.Status, StatusReason: p.StatusReason}
		for j := range p.Files {
			f := &p.Files[j]
			doc.Projects[i].Files = append(doc.Projects[i].Files, f.File)
			if err := f.check(); err != nil {
				return nil, fmt.Errorf("%s: %w", f.File.Filename, err)
			}
			if f.Metadata == "" {
				continue
			}
			if _, err := artifact.ParseDigest(f.Metadata); err != nil || f.MetadataSize < 0 {
				return nil, fmt.Errorf("%s: malformed metadata", f.File.Filename)
			}
		}
	}
	return &c, doc.check()
}
