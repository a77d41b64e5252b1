package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Names in the corner.
const (
	stagedVersion = "version"
	stagedLink    = "link"
)

// run does what was planned. Everything is staged before the first name
// changes, so that readers see the old and the new side by side for as short
// as a plain folder allows.
func (p *placement) run(ctx context.Context) error {
	if err := p.stage(ctx); err != nil {
		return err
	}
	if err := p.clear(ctx); err != nil {
		return err
	}
	if p.whole {
		if err := p.nameVersion(); err != nil {
			return err
		}
	} else if err := p.placeAll(); err != nil {
		return err
	}
	if err := p.setModes(); err != nil {
		return err
	}
	if err := p.moveLink(); err != nil {
		return err
	}
	if err := p.removeOld(ctx); err != nil {
		return err
	}
	return p.identify()
}

// sweep takes away the corner: what a killed run left, or what this one does
// not need any more.
func (p *placement) sweep() error {
	if _, err := p.root.Lstat(p.corner()); gone(err) {
		return nil
	}
	if err := p.root.RemoveAll(p.corner()); err != nil {
		return err
	}
	failpoint.Here("files.swept")
	return p.sync(".")
}

// stage writes the files that are missing into the corner, each durable.
func (p *placement) stage(ctx context.Context) error {
	if err := p.root.Mkdir(p.corner(), 0o700); err != nil {
		return err
	}
	failpoint.Here("files.corner-made")
	if p.whole {
		if err := p.stageFolders(); err != nil {
			return err
		}
	}
	for i := range p.files {
		f := &p.files[i]
		if f.is != "" {
			continue
		}
		f.staged = p.corner() + "/" + strconv.Itoa(i)
		if p.whole {
			f.staged = p.corner() + "/" + stagedVersion + f.path[len(p.version):]
		}
		if err := p.write(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.path, err)
		}
		failpoint.Here("files.staged")
	}
	return nil
}

// stageFolders makes the folders of a version in the corner.
func (p *placement) stageFolders() error {
	for _, dir := range p.mkdir {
		if err := p.makeFolder(p.corner() + "/" + stagedVersion + dir[len(p.version):]); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes one folder with its mode, whatever the umask says.
func (p *placement) makeFolder(rel string) error {
	if err := p.root.Mkdir(rel, dirMode(p.mode)); err != nil {
		return err
	}
	failpoint.Here("files.folder-made")
	p.touch(path.Dir(rel))
	return p.root.Chmod(rel, dirMode(p.mode))
}

// write copies a blob, which the store hashes on the way.
func (p *placement) write(ctx context.Context, f *placed) (err error) {
	blob, err := p.st.Open(f.digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	out, err := p.root.OpenFile(f.staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := copyBlob(ctx, out, blob)
	if err == nil && n != f.size {
		err = &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: CodeSize, Subject: p.source + ": " + f.path, Reason: "the blob has another size",
			Want: strconv.FormatInt(f.size, 10), Got: strconv.FormatInt(n, 10),
		}
	}
	if err == nil {
		err = out.Chmod(p.mode)
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// copyBlob copies as long as the context lasts.
func copyBlob(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	return io.Copy(writerFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return w.Write(b)
	}), r)
}

// A writerFunc writes.
type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// clear takes away old files of ours that are in the way of new ones.
func (p *placement) clear(ctx context.Context) error {
	for _, f := range p.early {
		left, err := p.remove(ctx, f)
		if err != nil {
			return err
		}
		if left {
			return fmt.Errorf("%s is in the way, and was changed by somebody else", f.Path)
		}
	}
	for _, d := range p.oldFolders() {
		if !p.wantsFileAt(d) {
			continue
		}
		if err := p.removeFolder(d); err != nil && !gone(err) {
			return fmt.Errorf("the folder %s is in the way: %w", d, err)
		}
	}
	return p.syncAll()
}

// removeFolder takes away an empty folder, and nothing else that has its name
// by now.
func (p *placement) removeFolder(rel string) (err error) {
	up, err := p.root.Open(path.Dir(rel))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.Close()) }()
	if err := unix.Unlinkat(int(up.Fd()), path.Base(rel), unix.AT_REMOVEDIR); err != nil {
		return err
	}
	failpoint.Here("files.folder-removed")
	p.touch(path.Dir(rel))
	return nil
}

// wantsFileAt reports whether a folder, or one above it, has the name of a
// wanted file.
func (p *placement) wantsFileAt(dir string) bool {
	for up := range parents(dir) {
		if p.want.file(up) != nil {
			return true
		}
	}
	return p.want.file(dir) != nil
}

// placeAll gives the staged files their names: data first and durable, then
// what names it.
func (p *placement) placeAll() error {
	for _, dir := range p.mkdir {
		if err := p.makeFolder(dir); err != nil {
			return err
		}
	}
	rank := 0
	for i := range p.files {
		f := &p.files[i]
		if f.staged == "" {
			continue
		}
		if f.rank != rank {
			if err := p.syncAll(); err != nil {
				return err
			}
			failpoint.Here("files.data-durable")
			rank = f.rank
		}
		if err := p.rename(f.staged, f.path, f.fresh); err != nil {
			return err
		}
		failpoint.Here("files.placed")
	}
	return p.syncAll()
}

// nameVersion gives a whole version its name.
func (p *placement) nameVersion() error {
	if err := p.syncAll(); err != nil {
		return err
	}
	for _, dir := range p.mkdir {
		if err := p.sync(p.corner() + "/" + stagedVersion + dir[len(p.version):]); err != nil {
			return err
		}
	}
	if err := p.rename(p.corner()+"/"+stagedVersion, p.version, true); err != nil {
		return err
	}
	failpoint.Here("files.version-named")
	return p.syncAll()
}

// setModes gives files that are right the mode that is configured now.
func (p *placement) setModes() error {
	for i := range p.files {
		if f := &p.files[i]; f.chmod {
			if err := p.root.Chmod(f.path, p.mode); err != nil {
				return err
			}
			failpoint.Here("files.mode-set")
		}
	}
	return nil
}

// moveLink has the link lead to the new version, by one rename.
func (p *placement) moveLink() error {
	if p.version == "" || p.link == p.version {
		return nil
	}
	staged := p.corner() + "/" + stagedLink
	if err := p.root.Symlink(p.version, staged); err != nil {
		return err
	}
	failpoint.Here("files.link-staged")
	if err := p.rename(staged, linkName, p.link == ""); err != nil {
		return err
	}
	failpoint.Here("files.link-moved")
	return p.syncAll()
}

// removeOld takes away what is not wanted any more.
func (p *placement) removeOld(ctx context.Context) error {
	if p.version == "" && p.link != "" {
		if err := p.root.Remove(linkName); err != nil && !gone(err) {
			return err
		}
		failpoint.Here("files.link-removed")
		p.touch(".")
	}
	for _, f := range p.gone {
		left, err := p.remove(ctx, f)
		if err != nil {
			return err
		}
		if left {
			p.left++
			p.log.WarnContext(ctx, "an old file was changed by somebody else and is left", slog.String("source", p.source), slog.String("artifact", f.Path))
		}
	}
	for _, d := range p.oldFolders() {
		switch err := p.removeFolder(d); {
		case err == nil, gone(err):
		case errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST):
			p.want.Folders = append(p.want.Folders, d) // something else is in it
		default:
			return err
		}
	}
	return p.syncAll()
}

// remove takes away a file that holds what we put there; in a version's
// folder, which is ours, whatever it holds by now. left reports that it is
// somebody else's, and stays.
func (p *placement) remove(ctx context.Context, f recordFile) (left bool, err error) {
	fi, err := p.root.Lstat(f.Path)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, found, err := p.examine(ctx, f.Path, fi, &f)
	if err != nil {
		return false, err
	}
	top, _, _ := strings.Cut(f.Path, "/")
	ours := f.Is != "" && p.old.version(top) != nil
	if fi.IsDir() || !ours && !slices.Contains(f.Digests, found) {
		return true, nil
	}
	if err := p.root.Remove(f.Path); err != nil && !gone(err) {
		return false, err
	}
	failpoint.Here("files.removed")
	p.touch(path.Dir(f.Path))
	return false, nil
}

// identify notes which files are right now.
func (p *placement) identify() error {
	for i := range p.files {
		f := &p.files[i]
		fi, err := p.root.Lstat(f.path)
		if err != nil {
			return err
		}
		f.is = identityText(fi)
	}
	return nil
}

// rename gives a staged thing its name; fresh replaces nothing.
func (p *placement) rename(from, to string, fresh bool) error {
	p.touch(path.Dir(to))
	if !fresh {
		return p.root.Rename(from, to)
	}
	err := p.renameNew(from, to)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeForeign, Subject: p.dir + "/" + to, Reason: "somebody else made it at this moment"}
	}
	return err
}

// renameNew names both folders by what is open, so that no link which
// somebody puts in the way is followed.
func (p *placement) renameNew(from, to string) (err error) {
	src, err := p.root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := p.root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	err = unix.Renameat2(int(src.Fd()), path.Base(from), int(dst.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	// A file system without that flag.
	if _, err := p.root.Lstat(to); !gone(err) {
		return errors.Join(fs.ErrExist, err)
	}
	return p.root.Rename(from, to)
}

// touch notes that names in a folder are not yet durable.
func (p *placement) touch(dir string) { p.dirty[dir] = struct{}{} }

// syncAll makes them durable.
func (p *placement) syncAll() error {
	for _, dir := range slices.Sorted(maps.Keys(p.dirty)) {
		if err := p.sync(dir); err != nil && !gone(err) {
			return err
		}
	}
	clear(p.dirty)
	return nil
}

func (p *placement) sync(dir string) error {
	d, err := p.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
