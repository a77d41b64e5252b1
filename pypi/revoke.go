package pypi

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// Values of [PublishConfig.Removed].
	removedYank = "yank"
	removedHide = "hide"
	// mostKept bounds the files that stay though the snapshot lacks them: with
	// 500 bytes each they are a fifth of what current.json may be.
	mostKept = 50_000
	// hashBuffer is what one loop over a file holds.
	hashBuffer = 256 << 10
)

// check holds what current.json adds to an [indexFile].
func (f *currentFile) check() error {
	if f.Blake2b != "" {
		if _, err := artifact.ParseHex(f.Blake2b); err != nil {
			return fmt.Errorf("blake2b: %w", err)
		}
	}
	if f.Provenance != "" {
		if _, err := artifact.ParseDigest(f.Provenance); err != nil {
			return fmt.Errorf("provenance: %w", err)
		}
	}
	return nil
}

// previous is what is served now. Where there is none, or a damaged one that
// is about to be replaced, it is empty.
func (p *Publisher) previous() (*current, error) {
	b, err := os.ReadFile(filepath.Join(p.dir, currentName))
	if errors.Is(err, fs.ErrNotExist) {
		return &current{}, nil
	}
	if err != nil {
		return nil, err
	}
	cur, err := decodeCurrent(b)
	if err != nil {
		p.log.Error("the publication before is damaged: what it kept is lost", slog.String("source", p.name), slog.Any("error", err))
		// The serial that it had is not known; seconds are beyond any that grew
		// by bundles.
		return &current{Serial: uint64(max(time.Now().Unix(), 0))}, nil
	}
	if cur.Source != p.name {
		return nil, fmt.Errorf("%s: %s holds the publication of %q; give every source a folder of its own", p.name, p.dir, clip(cur.Source))
	}
	return cur, nil
}

// files indexes a publication by filename, which holds the project's name.
func (c *current) files() map[string]*currentFile {
	out := make(map[string]*currentFile)
	for i := range c.Projects {
		for j := range c.Projects[i].Files {
			f := &c.Projects[i].Files[j]
			out[f.File.Filename] = f
		}
	}
	return out
}

// changedHere refuses a filename that is served with other bytes, or was
// before it was hidden: the snapshot before may have lacked it already.
func (p *Publisher) changedHere(doc *indexDoc) error {
	old, err := p.previous()
	if err != nil {
		return err
	}
	past, err := p.revocations()
	if err != nil {
		return err
	}
	was := make(map[string]string)
	for i := range past {
		if past[i].SHA256 != "" {
			was[past[i].Filename] = "sha256:" + past[i].SHA256
		}
	}
	for name, f := range old.files() {
		was[name] = f.File.SHA256.String()
	}
	for i := range doc.Projects {
		for j := range doc.Projects[i].Files {
			f := &doc.Projects[i].Files[j]
			if d, ok := was[f.Filename]; ok && d != f.SHA256.String() {
				return &artifact.Refusal{
					Class: artifact.ErrIntegrity, Code: "PYPI-FILE-CHANGED", Subject: p.name + ": " + f.Filename,
					Reason: "the file was published before with other bytes", Want: d, Got: f.SHA256.String(),
				}
			}
		}
	}
	return nil
}

// revise completes cur, which is made from a snapshot alone, with what the
// publication before says: what stays as yanked, the hashes that are known,
// the serial. What was taken back is recorded and logged before anybody sees
// it.
func (p *Publisher) revise(ctx context.Context, held map[string]bool, cur *current, now time.Time) error {
	old, err := p.previous()
	if err != nil {
		return err
	}
	past, err := p.revocations()
	if err != nil {
		return err
	}
	r := reviser{pub: p, old: old.files(), now: cur.files(), held: held, seq: cur.Seq}
	if err := r.compare(old, cur, past); err != nil {
		return err
	}
	cur.merge(r.kept, old)
	if err := p.hash(ctx, cur, r.old); err != nil {
		return err
	}
	cur.Serial = old.Serial
	if cur.Serial == 0 || !slices.EqualFunc(old.Projects, cur.Projects, sameProject) {
		cur.Serial = max(old.Serial+1, cur.Seq)
	}
	return p.record(past, r.done, now)
}

func sameProject(a, b currentProject) bool {
	return a.Name == b.Name && a.Status == b.Status && a.StatusReason == b.StatusReason && slices.Equal(a.Files, b.Files)
}

// A reviser compares two publications.
type reviser struct {
	pub      *Publisher
	old, now map[string]*currentFile
	held     map[string]bool
	seq      uint64
	kept     map[string][]currentFile // by project
	done     []revocation
}

func (r *reviser) note(project string, f *currentFile, action, reason string) {
	n := revocation{Seq: r.seq, Project: project, Action: action, Reason: reason}
	if f != nil {
		n.Filename, n.SHA256 = f.File.Filename, f.File.SHA256.Hex()
	}
	r.done = append(r.done, n)
}

func (r *reviser) compare(old, cur *current, past []revocation) error {
	r.kept = make(map[string][]currentFile)
	r.statuses(old, cur)
	for i := range old.Projects {
		project := old.Projects[i].Name
		for j := range old.Projects[i].Files {
			if err := r.file(project, &old.Projects[i].Files[j]); err != nil {
				return err
			}
		}
	}
	hidden := make(map[string]bool)
	for i := range past {
		hidden[past[i].Filename] = past[i].Action == actHidden || past[i].Action == actRemoved
	}
	for i := range cur.Projects {
		for j := range cur.Projects[i].Files {
			f := &cur.Projects[i].Files[j]
			if r.old[f.File.Filename] == nil && hidden[f.File.Filename] {
				r.note(cur.Projects[i].Name, f, actRestored, "")
			}
		}
	}
	r.bound()
	return nil
}

// statuses notes the projects that went into quarantine or came out of it.
func (r *reviser) statuses(old, cur *current) {
	was := make(map[string]bool)
	for i := range old.Projects {
		was[old.Projects[i].Name] = old.Projects[i].Status == quarantined
	}
	for i := range cur.Projects {
		p := &cur.Projects[i]
		switch is := p.Status == quarantined; {
		case is && !was[p.Name]:
			r.note(p.Name, nil, actLocked, p.StatusReason)
		case !is && was[p.Name]:
			r.note(p.Name, nil, actReleased, "")
		}
	}
}

// file says what becomes of a file that is served now.
func (r *reviser) file(project string, was *currentFile) error {
	if is := r.now[was.File.Filename]; is != nil {
		switch {
		case is.File.SHA256 != was.File.SHA256:
			return fmt.Errorf("%s: %s changed since it was verified", r.pub.name, was.File.Filename)
		case was.Kept > 0:
			r.note(project, is, actRestored, "")
		case is.File.Yanked && !was.File.Yanked:
			r.note(project, is, actYanked, is.File.YankedReason)
		case !is.File.Yanked && was.File.Yanked:
			r.note(project, is, actUnyanked, "")
		}
		return nil
	}
	switch {
	case r.held[was.File.Filename]:
		r.note(project, was, actHidden, "held back by policy")
	case r.pub.hide:
		r.note(project, was, actRemoved, "no longer in the snapshot")
	case !r.pub.store.Has(was.File.SHA256):
		r.note(project, was, actRemoved, "no longer in the snapshot, and its blob is gone")
	default:
		kept := *was
		if kept.Kept == 0 {
			kept.Kept = max(r.seq, 1)
			if !kept.File.Yanked {
				kept.File.Yanked, kept.File.YankedReason = true, fmt.Sprintf("not mirrored any more since bundle %d", kept.Kept)
			}
			r.note(project, &kept, actKept, kept.File.YankedReason)
		}
		r.kept[project] = append(r.kept[project], kept)
	}
	return nil
}

// bound hides the oldest of too many kept files.
func (r *reviser) bound() {
	var all []currentFile
	for _, files := range r.kept {
		all = append(all, files...)
	}
	if len(all) <= mostKept {
		return
	}
	slices.SortFunc(all, func(a, b currentFile) int {
		return cmp.Or(cmp.Compare(b.Kept, a.Kept), strings.Compare(a.File.Filename, b.File.Filename))
	})
	over := make(map[string]bool)
	for _, f := range all[mostKept:] {
		over[f.File.Filename] = true
	}
	for project, files := range r.kept {
		r.kept[project] = slices.DeleteFunc(files, func(f currentFile) bool {
			if over[f.File.Filename] {
				r.note(project, &f, actRemoved, fmt.Sprintf("more than %d files that no snapshot has", mostKept))
			}
			return over[f.File.Filename]
		})
	}
}

// merge adds the kept files, in order. A project of which nothing else is
// left keeps its status: one in quarantine does not come out by vanishing.
func (c *current) merge(kept map[string][]currentFile, old *current) {
	at := make(map[string]int)
	for i := range c.Projects {
		at[c.Projects[i].Name] = i
	}
	for i := range old.Projects {
		o := &old.Projects[i]
		if len(kept[o.Name]) == 0 {
			continue
		}
		j, ok := at[o.Name]
		if !ok {
			j = len(c.Projects)
			c.Projects = append(c.Projects, currentProject{Name: o.Name, Status: o.Status, StatusReason: o.StatusReason})
		}
		files := append(c.Projects[j].Files, kept[o.Name]...)
		slices.SortFunc(files, func(a, b currentFile) int { return strings.Compare(a.File.Filename, b.File.Filename) })
		c.Projects[j].Files = files
	}
	slices.SortFunc(c.Projects, func(a, b currentProject) int { return strings.Compare(a.Name, b.Name) })
}

// hash fills in the BLAKE2b digests; what was published before is not read
// again.
func (p *Publisher) hash(ctx context.Context, cur *current, old map[string]*currentFile) error {
	buf := make([]byte, hashBuffer)
	for i := range cur.Projects {
		for j := range cur.Projects[i].Files {
			f := &cur.Projects[i].Files[j]
			if was := old[f.File.Filename]; was != nil && was.File.SHA256 == f.File.SHA256 {
				f.Blake2b = was.Blake2b
			}
			if f.Blake2b != "" {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			if f.Blake2b, err = p.blake2b(f.File.SHA256, buf); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Publisher) blake2b(d artifact.Digest, buf []byte) (sum string, err error) {
	f, err := p.store.File(d)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, err := blake2b.New256(nil)
	if err != nil {
		return "", err
	}
	// The wrappers hide the ways round buf.
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, buf); err != nil {
		return "", fmt.Errorf("blob %s: %w", d, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
