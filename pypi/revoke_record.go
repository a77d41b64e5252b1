package pypi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// revocationsName is the record of what was taken back, a JSON object a
	// line, oldest first.
	revocationsName = "revocations.jsonl"
	// maxRevocations bounds that record; the oldest lines go first. It has
	// 250 bytes a line.
	maxRevocations = 20_000
	// maxRevocationsFile bounds what is read of it.
	maxRevocationsFile = maxRevocations * 4096
)

// Actions of a [revocation].
const (
	actYanked   = "yanked"      // the index outside has yanked it
	actUnyanked = "unyanked"    // and taken that back
	actKept     = "kept"        // the snapshot lacks it: it stays, as yanked
	actHidden   = "hidden"      // it is no longer served, by a decision against it
	actRemoved  = "removed"     // it is no longer served, for no snapshot has it
	actRestored = "restored"    // a snapshot has it again
	actLocked   = "quarantined" // no file of the project is served
	actReleased = "released"    // the quarantine is over
)

// A revocation is one line of the record.
type revocation struct {
	Time     string `json:"time"`
	Source   string `json:"source"`
	Seq      uint64 `json:"seq"` // of the bundle
	Project  string `json:"project"`
	Filename string `json:"filename,omitempty"` // none: the whole project
	SHA256   string `json:"sha256,omitempty"`
	Action   string `json:"action"`
	Reason   string `json:"reason,omitempty"`
}

// revocations reads the record. A damaged line is passed over, with a word:
// the record must not keep anything from being published.
func (p *Publisher) revocations() ([]revocation, error) {
	f, err := os.Open(filepath.Join(p.dir, revocationsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRevocationsFile))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	var past []revocation
	for line := range bytes.Lines(b) {
		var r revocation
		if err := strictjson.Unmarshal(line, &r); err != nil {
			p.log.Error("a line of the record of revocations is damaged", slog.String("source", p.name), slog.Any("error", err))
			continue
		}
		past = append(past, r)
	}
	return past, nil
}

// record appends to the record, and logs. A run that was killed before it
// published finds its lines there already.
func (p *Publisher) record(past, done []revocation, now time.Time) error {
	type key struct{ project, filename string }
	last := make(map[key]revocation)
	for _, r := range past {
		last[key{r.Project, r.Filename}] = r
	}
	lines := past
	for _, r := range done {
		r.Source, r.Time = p.name, now.UTC().Truncate(time.Second).Format(time.RFC3339)
		p.log.Warn("revocation", slog.String("source", r.Source), slog.String("project", r.Project), slog.String("artifact", r.Filename),
			slog.String("action", r.Action), slog.String("reason", r.Reason), slog.Uint64("bundle", r.Seq))
		was := last[key{r.Project, r.Filename}]
		if was.Time = r.Time; was != r {
			lines = append(lines, r)
		}
	}
	if len(lines) == len(past) {
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, r := range lines[max(0, len(lines)-maxRevocations):] {
		if err := enc.Encode(&r); err != nil {
			return err
		}
	}
	failpoint.Here("pypi.before-revocations")
	if err := durable.WriteFile(filepath.Join(p.dir, revocationsName), b.Bytes(), 0o640); err != nil {
		return err
	}
	failpoint.Here("pypi.revocations")
	return nil
}

// Kept are the files that are served, as yanked, though the snapshot lacks
// them. Whoever judges again what clients see has to judge them too.
func (p *Publisher) Kept() ([]artifact.Artifact, error) {
	cur, err := p.previous()
	if err != nil {
		return nil, err
	}
	var out []artifact.Artifact
	for i := range cur.Projects {
		for _, f := range cur.Projects[i].Files {
			if f.Kept == 0 {
				continue
			}
			out = append(out, artifact.Artifact{
				Name: cur.Projects[i].Name, Version: f.File.Version, Why: f.File.YankedReason,
				Files: []artifact.File{{Path: f.File.Filename, Digest: f.File.SHA256, Size: f.File.Size}},
			})
		}
	}
	return out, nil
}

// Hide takes kept files out of the publication, by digest, for good.
func (p *Publisher) Hide(ctx context.Context, files []artifact.Digest, reason string, now time.Time) error {
	cur, err := p.previous()
	if err != nil {
		return err
	}
	past, err := p.revocations()
	if err != nil {
		return err
	}
	r := reviser{pub: p, seq: cur.Seq}
	for i := range cur.Projects {
		pr := &cur.Projects[i]
		pr.Files = slices.DeleteFunc(pr.Files, func(f currentFile) bool {
			gone := f.Kept > 0 && slices.Contains(files, f.File.SHA256)
			if gone {
				r.note(pr.Name, &f, actHidden, reason)
			}
			return gone
		})
	}
	if len(r.done) == 0 {
		return nil
	}
	cur.Projects = slices.DeleteFunc(cur.Projects, func(p currentProject) bool { return len(p.Files) == 0 })
	cur.Serial++
	if err := p.record(past, r.done, now); err != nil {
		return err
	}
	if err := p.write(cur); err != nil {
		return err
	}
	return p.writeTree(ctx)
}
