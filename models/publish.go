package models

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models/repo"
)

// A Publisher publishes one source inside: for the embedded hub, which reads
// the folder that the Publisher writes, and into further targets.
type Publisher struct {
	cfg     PublishConfig
	name    string // "models/llm"
	st      *store.Store
	dir     string
	log     *slog.Logger
	targets []Target
}

// NewPublisher makes a publisher of a configuration that is valid. dir is its
// own folder.
func NewPublisher(cfg PublishConfig, name string, st *store.Store, dir string, log *slog.Logger, targets ...Target) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Publisher{cfg: cfg, name: name, st: st, dir: dir, log: log, targets: targets}, nil
}

// Name is the source that it publishes.
func (p *Publisher) Name() string { return p.name }

// Verify checks, without writing anything, that every file is the one that
// the hub's tree names and that no weights are missing. The store knows the
// SHA-256 of each; what the hub names by a git id is hashed once more, unless
// the set that is published has the very same file.
func (p *Publisher) Verify(ctx context.Context, snap, prev *artifact.Snapshot) error {
	set, err := ReadSet(snap, p.st)
	if err != nil {
		return err
	}
	known := make(map[string]bool) // "git id, SHA-256"
	if prev != nil {
		if old, err := ReadSet(prev, p.st); err == nil {
			for i := range old.Revisions {
				for _, f := range old.Revisions[i].Files {
					known[string(f.OID)+f.Blob.Hex()] = true
				}
			}
		}
	}
	for i := range set.Revisions {
		r := &set.Revisions[i]
		for j := range r.Files {
			f := &r.Files[j]
			if err := ctx.Err(); err != nil {
				return err
			}
			key := string(f.OID) + f.Blob.Hex()
			if f.LFS != nil || known[key] {
				continue
			}
			if err := p.verify(r, f); err != nil {
				return err
			}
			known[key] = true
		}
		if err := p.complete(r); err != nil {
			return err
		}
	}
	return nil
}

// verify hashes one file as git does.
func (p *Publisher) verify(r *Revision, f *File) (err error) {
	b, err := p.st.Open(f.Blob)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := f.Verify(b); err != nil {
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeFile, Subject: fmt.Sprintf("%s: %s@%s", p.name, r.Repo, r.Commit), Reason: "a file is not the one that the hub's tree names", Err: err}
	}
	return nil
}

// complete looks for the files that the indexes of the weights name.
func (p *Publisher) complete(r *Revision) error {
	files := make([]repo.File, len(r.Files))
	for i, f := range r.Files {
		files[i] = repo.File{Path: f.Path, Size: f.Size, ID: f.ETag()}
	}
	read := func(path string, limit int64) ([]byte, error) {
		f, ok := r.File(path)
		if !ok {
			return nil, fmt.Errorf("%s is not there", path)
		}
		return p.st.ReadAll(f.Blob, limit)
	}
	if err := repo.CheckIndexes(files, read); err != nil {
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: CodeIndex, Subject: fmt.Sprintf("%s: %s@%s", p.name, r.Repo, r.Commit), Reason: "its weights are not complete", Err: err}
	}
	return nil
}

// Announce tells clients what is on its way: until it is published they learn
// how much of it has arrived.
func (p *Publisher) Announce(_ context.Context, snap *artifact.Snapshot) error {
	b, err := snap.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o750); err != nil {
		return err
	}
	return Published{Snapshot: artifact.Sum(b)}.write(p.dir, ArrivingName)
}

// Publish makes the snapshot what the embedded hub shows, by one rename, and
// then brings it to the targets. Revisions that a target does not take are
// listed in an *artifact.Incomplete.
func (p *Publisher) Publish(ctx context.Context, snap *artifact.Snapshot, seq uint64, now time.Time) (string, error) {
	set, err := ReadSet(snap, p.st)
	if err != nil {
		return "", err
	}
	b, err := snap.Encode()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(p.dir, 0o750); err != nil {
		return "", err
	}
	if err := durable.Sweep(p.dir); err != nil { // of a killed run
		return "", err
	}
	old, ok, err := ReadPublished(p.dir)
	if err != nil {
		return "", err
	}
	at := Published{Snapshot: artifact.Sum(b), Seq: seq, Time: now.UTC().Truncate(time.Second)}
	if !p.st.Has(at.Snapshot) { // published without an import
		if _, err := p.st.PutBytes(b); err != nil {
			return "", err
		}
	}
	if ok {
		at.Kept = p.keep(ctx, old, set)
	}
	if !ok || old.Snapshot != at.Snapshot || !slices.Equal(old.Kept, at.Kept) {
		failpoint.Here("models.publish")
		if err := at.write(p.dir, CurrentName); err != nil {
			return "", err
		}
		failpoint.Here("models.published")
	}
	if err := os.Remove(filepath.Join(p.dir, ArrivingName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	full, err := at.Load(p.st)
	if err != nil {
		return "", err
	}
	texts := []string{count(set) + "   /" + p.name}
	var lost []artifact.Lost
	for _, t := range p.targets {
		text, err := t.Publish(ctx, full, seq, now)
		if in, partial := errors.AsType[*artifact.Incomplete](err); partial {
			lost = append(lost, in.Items...)
		} else if err != nil {
			return "", err
		}
		texts = append(texts, text)
	}
	if len(lost) > 0 {
		return strings.Join(texts, "\n"), &artifact.Incomplete{Items: lost}
	}
	return strings.Join(texts, "\n"), nil
}

// keep chooses which revisions of earlier sets stay, newest first. A
// repository that is not in the new set at all was taken away, or held back,
// and nothing of it stays.
func (p *Publisher) keep(ctx context.Context, old Published, set *Set) []Kept {
	var all []Kept
	was, err := loadSet(old.Snapshot, p.st)
	if err != nil {
		p.log.WarnContext(ctx, "the set that was published cannot be read; none of its revisions is kept", slog.String("source", p.name), slog.Any("error", err))
		return nil
	}
	for _, r := range was.Revisions {
		all = append(all, Kept{Snapshot: old.Snapshot, Repo: r.Repo.String(), Commit: r.Commit})
	}
	all = append(all, old.Kept...)
	here := make(map[string]bool)
	for _, r := range set.Revisions {
		here[r.Repo.String()] = true
		here[r.Repo.String()+" "+r.Commit] = true
	}
	n := make(map[string]int)
	var kept []Kept
	for _, k := range all {
		if !here[k.Repo] || here[k.Repo+" "+k.Commit] || n[k.Repo] >= p.cfg.Keep() {
			continue
		}
		n[k.Repo]++
		here[k.Repo+" "+k.Commit] = true
		kept = append(kept, k)
	}
	slices.SortStableFunc(kept, func(a, b Kept) int {
		return strings.Compare(a.Repo, b.Repo) // within one, newest first
	})
	return kept
}

func count(set *Set) string {
	var files int
	var bytes int64
	for i := range set.Revisions {
		files += len(set.Revisions[i].Files)
		bytes += set.Revisions[i].Size()
	}
	return fmt.Sprintf("%s, %s, %s", plural(len(set.Revisions), "revision"), plural(files, "file"), sizeText(bytes))
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
