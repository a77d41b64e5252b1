package files

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A placement is a folder on its way from what the record says to what the
// sets say.
type placement struct {
	*target
	root *os.Root
	old  *record
	want *record

	files   []placed            // by rank, then by path
	version string              // the folder of the version; empty without
	whole   bool                // it is not there yet, and gets its name when it is whole
	mkdir   []string            // folders to be made, parents first
	early   []recordFile        // old files that are in the way
	gone    []recordFile        // old files that are not wanted any more
	link    string              // what the link says now; empty: there is none
	dirty   map[string]struct{} // folders with names that are not yet durable
	left    int
}

// A placed is one wanted file.
type placed struct {
	path   string // below the target
	digest artifact.Digest
	size   int64
	rank   int    // above 0 for files that name others
	is     string // the file that is right; empty: to be put there
	chmod  bool   // right but for its mode
	fresh  bool   // nothing has its name
	staged string // where it waits
}

func newPlacement(t *target, root *os.Root, old *record) *placement {
	return &placement{
		target: t, root: root, old: old, dirty: make(map[string]struct{}),
		want: &record{Schema: recordSchema, Source: t.source, Folder: t.dir, Files: []recordFile{}, Folders: []string{}, Versions: []recordVersion{}},
	}
}

// plan compares the folder with what is wanted. It changes nothing.
func (p *placement) plan(ctx context.Context, files []setFile, sets []*fileSet) error {
	if err := p.planLink(); err != nil {
		return err
	}
	prefix := ""
	if p.versioned && len(files) > 0 {
		p.chooseVersion(files, sets)
		prefix = p.version + "/"
	}
	for _, f := range files {
		w := placed{path: prefix + f.path, digest: f.digest, size: f.size, rank: p.rank(f.path)}
		if err := artifact.CheckPath(w.path); err != nil {
			return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodePath, Subject: p.dir, Reason: "a name that is too long here", Err: err}
		}
		p.files = append(p.files, w)
		p.want.Files = append(p.want.Files, recordFile{Path: w.path, Digests: []artifact.Digest{w.digest}})
	}
	p.keepPrevious()
	p.want.sort()
	p.planRemoval()
	if err := p.planFolders(); err != nil {
		return err
	}
	for i := range p.files {
		if err := p.look(ctx, &p.files[i]); err != nil {
			return err
		}
	}
	slices.SortFunc(p.files, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.path, b.path))
	})
	p.want.sort()
	return nil
}

// rank is 0 for data, and above for files that name others.
func (p *placement) rank(rel string) int {
	for i := range p.last {
		if p.last[i : i+1].match(rel) {
			return i + 1
		}
	}
	return 0
}

// planLink reads the link, which must be ours.
func (p *placement) planLink() error {
	text, err := p.root.Readlink(linkName)
	switch {
	case gone(err):
		return nil
	case err == nil && text != "" && (text == p.old.Current || text == p.old.Next):
		p.link = text
		return nil
	case p.versioned:
		return p.foreign(linkName, "something")
	}
	return nil
}

// chooseVersion names the version's folder: as the set's version, or as what
// several sets have together. One name with two contents gets an end that
// tells them apart.
func (p *placement) chooseVersion(files []setFile, sets []*fileSet) {
	list := slices.Clone(files)
	slices.SortFunc(list, func(a, b setFile) int { return strings.Compare(a.path, b.path) })
	sum := artifact.Sum(listing(list))
	name := sum.Short()
	if len(sets) == 1 {
		name = sets[0].version
	}
	apart := name + "-" + sum.Short()
	switch v, w := p.old.version(name), p.old.version(apart); {
	case w != nil, v != nil && v.Listing != sum:
		p.version = apart
	default:
		p.version = name
	}
	p.want.Current = p.version
	p.want.Versions = append(p.want.Versions, recordVersion{Folder: p.version, Listing: sum})
}

// keepPrevious leaves the version that the link leads to now until the next
// one comes.
func (p *placement) keepPrevious() {
	if p.version == "" {
		return
	}
	previous := cmp.Or(p.link, p.old.Current)
	if previous == p.version {
		if previous = p.old.Current; previous == p.version {
			previous = p.old.Previous
		}
	}
	v := p.old.version(previous)
	if v == nil || previous == p.version {
		return
	}
	p.want.Previous = previous
	p.want.Versions = append(p.want.Versions, *v)
	for _, f := range p.old.Files {
		if strings.HasPrefix(f.Path, previous+"/") {
			p.want.Files = append(p.want.Files, f)
		}
	}
	for _, d := range p.old.Folders {
		if d == previous || strings.HasPrefix(d, previous+"/") {
			p.want.Folders = append(p.want.Folders, d)
		}
	}
}

// planRemoval lists the old files that are not wanted. Those that are in the
// way go first: one whose name is now a folder's, or that lies in a folder
// whose name is now a file's.
func (p *placement) planRemoval() {
	folders := make(map[string]bool)
	for _, f := range p.want.Files {
		for dir := range parents(f.Path) {
			folders[dir] = true
		}
	}
	for _, f := range p.old.Files {
		if p.want.file(f.Path) != nil {
			continue
		}
		inTheWay := folders[f.Path]
		for dir := range parents(f.Path) {
			inTheWay = inTheWay || p.want.file(dir) != nil
		}
		if inTheWay {
			p.early = append(p.early, f)
		} else {
			p.gone = append(p.gone, f)
		}
	}
}

// parents yields the folders of a path, from the top.
func parents(rel string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for i := range len(rel) {
			if rel[i] == '/' && !yield(rel[:i]) {
				return
			}
		}
	}
}

// planFolders lists the folders to be made. Those that others have made are
// used; one of a version must be ours.
func (p *placement) planFolders() error {
	seen := make(map[string]bool)
	for i := range p.files {
		for dir := range parents(p.files[i].path) {
			if seen[dir] {
				continue
			}
			seen[dir] = true
			ours := slices.Contains(p.old.Folders, dir)
			fi, err := p.root.Lstat(dir)
			switch {
			case gone(err) || err == nil && p.inTheWay(dir):
				p.mkdir = append(p.mkdir, dir)
				p.whole = p.whole || dir == p.version
				ours = true
			case err != nil:
				return err
			case !fi.IsDir():
				return p.foreign(dir, "something")
			case dir == p.version && !ours:
				return p.foreign(dir, "a folder")
			}
			if ours {
				p.want.Folders = append(p.want.Folders, dir)
			}
		}
	}
	slices.Sort(p.mkdir)
	return nil
}

// inTheWay reports whether a file of ours has the name, and goes first.
func (p *placement) inTheWay(name string) bool {
	return slices.ContainsFunc(p.early, func(f recordFile) bool { return f.Path == name })
}

// look tells whether a file is right, has to be put there, or must not be.
func (p *placement) look(ctx context.Context, f *placed) error {
	fi, err := p.root.Lstat(f.path)
	if gone(err) {
		f.fresh = true
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		if !slices.Contains(p.old.Folders, f.path) {
			return p.foreign(f.path, "a folder")
		}
		f.fresh = true // once what we have in it is gone
		return nil
	}
	rec := p.old.file(f.path)
	if rec == nil {
		return p.foreign(f.path, "a file")
	}
	is, found, err := p.examine(ctx, f.path, fi, rec)
	if err != nil {
		return err
	}
	if rec.Is == "" && !slices.Contains(rec.Digests, found) {
		return p.foreign(f.path, "a file") // somebody was faster
	}
	if found == f.digest {
		f.is, f.chmod = is, fi.Mode().Perm() != p.mode
	}
	return nil
}

// examine tells which file is there and what it holds: by the record, where
// it is the very one that was put there, else by reading it.
func (p *placement) examine(ctx context.Context, rel string, fi fs.FileInfo, rec *recordFile) (is string, d artifact.Digest, err error) {
	if !fi.Mode().IsRegular() {
		return "", d, nil
	}
	is = identityText(fi)
	if is == rec.Is && len(rec.Digests) == 1 {
		return is, rec.Digests[0], nil
	}
	f, err := openRegular(p.root, rel)
	if err != nil {
		return "", d, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if at, err := f.Stat(); err != nil || !os.SameFile(at, fi) {
		return "", d, errors.Join(err, fmt.Errorf("%s is being replaced", rel))
	}
	h := sha256.New()
	if _, err := io.Copy(h, until(ctx, f)); err != nil {
		return "", d, err
	}
	return is, artifact.Digest(h.Sum(nil)), nil
}

// identityText tells a file from every other, and from itself before a
// change.
func identityText(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return strconv.FormatUint(st.Ino, 10) + " " + strconv.FormatInt(st.Size, 10) + " " + strconv.FormatInt(fi.ModTime().UnixNano(), 10)
}

// todo reports whether anything has to be done.
func (p *placement) todo() bool {
	return len(p.mkdir)+len(p.early)+len(p.gone) > 0 || p.link != p.want.Current || len(p.oldFolders()) > 0 ||
		slices.ContainsFunc(p.files, func(f placed) bool { return f.is == "" || f.chmod })
}

// oldFolders are those of ours that are not wanted any more, deepest first.
func (p *placement) oldFolders() []string {
	wanted := make(map[string]bool, len(p.want.Folders))
	for _, d := range p.want.Folders {
		wanted[d] = true
	}
	var list []string
	for _, d := range slices.Backward(slices.Sorted(slices.Values(p.old.Folders))) {
		if !wanted[d] {
			list = append(list, d)
		}
	}
	return list
}

// gone reports that there is nothing of that name.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// settle has the record say what is there now.
func (p *placement) settle() {
	p.want.sort()
	for i := range p.files {
		if f := p.want.file(p.files[i].path); f != nil {
			f.Is = p.files[i].is
		}
	}
}
