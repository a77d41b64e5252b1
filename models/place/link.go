package place

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"syscall"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// nameTaken is the store's code for a name that holds other bytes.
const nameTaken = "STORE-LINK"

// An Identity tells a file from every other and from itself before a change:
// inode, size and modification time, and whether it is the store's own. It is
// for records; the empty one is that of no file.
type Identity string

// linked ends the Identity of a file that is the store's blob.
const linked Identity = " linked"

// identify tells which file is at rel, as one that shall hold d.
func (p *Place) identify(d artifact.Digest, rel string) (Identity, error) {
	fi, err := p.root.Lstat(rel)
	if err != nil {
		return "", err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", p.Path(rel))
	}
	id := Identity(strconv.FormatUint(st.Ino, 10) + " " + strconv.FormatInt(st.Size, 10) + " " + strconv.FormatInt(fi.ModTime().UnixNano(), 10))
	if p.st.Is(d, fi) {
		id += linked
	}
	return id, nil
}

// Link makes the file at rel hold the blob d: as a hard link of the store's,
// or as a copy where the file system allows none. It returns which file that
// is, for the next time: one that still is what it was is right. A link that
// is no longer the store's blob, since that was damaged or restored, is made
// anew; any other file is compared byte by byte, and replaced where it
// differs.
func (p *Place) Link(d artifact.Digest, rel string, was Identity) (Identity, error) {
	is, err := p.identify(d, rel)
	if err == nil && is == was {
		return is, nil
	}
	if outlived := is != "" && is+linked == was; !outlived && !Gone(err) {
		err := p.linkAt(d, rel)
		if err == nil {
			return p.identify(d, rel)
		}
		if r, ok := errors.AsType[*artifact.Refusal](err); !ok || r.Code != nameTaken {
			return "", err
		}
	}
	temp := temp()
	if err := p.linkAt(d, temp); err != nil {
		return "", err
	}
	failpoint.Here("models.place-linked")
	if err := p.rename(temp, rel); err != nil {
		return "", err
	}
	return p.identify(d, rel)
}

// linkAt has the store link d, or compare what is there. It names the folder
// by what is open, so that no link which somebody puts in its way is followed.
func (p *Place) linkAt(d artifact.Digest, rel string) (err error) {
	dir, err := p.root.Open(path.Dir(rel))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := p.st.Link(d, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), path.Base(rel))); err != nil {
		return fmt.Errorf("%s: %w", p.Path(rel), err)
	}
	return nil
}
