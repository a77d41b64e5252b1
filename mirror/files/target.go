package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// linkName is the link to the version that programs read.
const linkName = "current"

// A target is one folder that programs read.
type target struct {
	dir       string
	versioned bool
	sets      []string // nil: those that have no folder of their own
	source    string
	state     string // the publisher's own folder
	st        *store.Store
	mode      fs.FileMode
	last      patterns
	log       *slog.Logger
}

// fileMode reads a mode of the configuration.
func fileMode(s string) (fs.FileMode, bool) {
	switch s {
	case "", "0644":
		return 0o644, true
	case "0640":
		return 0o640, true
	case "0600":
		return 0o600, true
	}
	return 0, false
}

// dirMode lets those into a folder who may read its files.
func dirMode(file fs.FileMode) fs.FileMode { return file | file>>2&0o111 }

// publish makes the folder hold the sets, and answers those that it does not
// take: all of them, where something in the folder is not ours.
func (t *target) publish(ctx context.Context, sets []*fileSet) (text string, lost []artifact.Lost, err error) {
	together, sets, lost := join(t.dir, sets)
	left, err := t.bring(ctx, together, sets)
	switch {
	case err == nil:
	case stops(ctx, err):
		return "", nil, fmt.Errorf("%s: %s: %w", t.source, t.dir, err)
	default:
		return "", append(lost, t.lost(sets, err)...), nil
	}
	var bytes int64
	for _, f := range together {
		bytes += f.size
	}
	text = count(len(together), bytes) + "   " + t.dir
	if t.versioned && len(sets) > 0 {
		text += "/" + linkName
	}
	if left > 0 {
		text += fmt.Sprintf("   (%s of ours, changed by others, left there)", plural(left, "old file"))
	}
	return text, lost, nil
}

// stops reports that after this error nothing else would fare better.
func stops(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

// lost lists the sets that the folder did not take, or the folder itself
// where something could not be taken away.
func (t *target) lost(sets []*fileSet, err error) []artifact.Lost {
	r, known := errors.AsType[*artifact.Refusal](err)
	if !known {
		r = &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeTarget, Subject: t.dir, Reason: "the folder does not take it", Err: err}
	}
	if len(sets) == 0 {
		return []artifact.Lost{{Name: t.dir, Version: "no longer published", Err: r}}
	}
	list := make([]artifact.Lost, len(sets))
	for i, s := range sets {
		list[i] = artifact.Lost{Name: s.name, Version: s.version, Err: r}
	}
	return list
}

// join puts the files of several sets together. A set that has a name of
// another's is left out.
func join(dir string, sets []*fileSet) (files []setFile, in []*fileSet, lost []artifact.Lost) {
	for _, s := range sets {
		both := append(files[:len(files):len(files)], s.files...)
		if err := checkPaths(s.name, both); err != nil {
			lost = append(lost, artifact.Lost{Name: s.name, Version: s.version, Err: &artifact.Refusal{
				Class: artifact.ErrUnavailable, Code: CodeClash, Subject: dir, Reason: "another set has the same name in this folder; sets gives each its own", Err: err,
			}})
			continue
		}
		files, in = both, append(in, s)
	}
	return files, in, lost
}

// bring makes the folder hold these files. left is how many old files stay
// since somebody else has changed them.
func (t *target) bring(ctx context.Context, files []setFile, sets []*fileSet) (left int, err error) {
	old, err := readRecord(t.state, t.source, t.dir)
	if err != nil {
		return 0, err
	}
	if err := t.open(len(files) > 0); errors.Is(err, fs.ErrNotExist) {
		return 0, nil // nothing is wanted, and nothing there
	} else if err != nil {
		return 0, err
	}
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	p := newPlacement(t, root, old)
	if err := p.sweep(); err != nil {
		return 0, err
	}
	if err := p.plan(ctx, files, sets); err != nil {
		return 0, err
	}
	if p.todo() {
		if err := merge(old, p.want).write(t.state); err != nil {
			return 0, err
		}
		failpoint.Here("files.intended")
		if err := p.run(ctx); err != nil {
			return 0, errors.Join(err, p.sweep())
		}
	}
	p.settle()
	if err := p.want.write(t.state); err != nil {
		return 0, err
	}
	failpoint.Here("files.settled")
	return p.left, p.sweep()
}

// open makes the folder where it is wanted, and asks for it otherwise.
func (t *target) open(wanted bool) error {
	_, err := os.Stat(t.dir)
	if !wanted || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(t.dir, dirMode(t.mode)); err != nil {
		return err
	}
	failpoint.Here("files.target-made")
	return durable.SyncDir(filepath.Dir(t.dir))
}

// corner is where what is not finished lies, below the target.
func (t *target) corner() string { return ".darkmirror-" + strings.ReplaceAll(t.source, "/", "--") }

// foreign refuses to touch what we have not put there.
func (t *target) foreign(rel, what string) error {
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeForeign, Subject: filepath.Join(t.dir, filepath.FromSlash(rel)),
		Reason: what + " that this source has not put there has the name of one that it brings; nothing in the folder was changed",
	}
}
