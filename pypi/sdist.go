package pypi

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictzip"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// CheckSdist checks a source archive: it unpacks within limits, every name
// stays inside its one top folder, links stay inside too, there are no
// devices or sparse files, and PKG-INFO agrees with the filename.
func CheckSdist(filename string, r io.ReaderAt, size int64) (*Checked, error) {
	name, err := packaging.ParseSdistName(filename)
	if err != nil {
		return nil, err
	}
	var top sdistTop
	if strings.HasSuffix(filename, ".zip") {
		top, err = zipTop(r, size)
	} else {
		top, err = tarTop(io.NewSectionReader(r, 0, size), size)
	}
	if err != nil {
		return nil, err
	}
	m, err := packaging.ParseMetadata(top.info)
	if err != nil {
		return nil, fmt.Errorf("PKG-INFO: %w", err)
	}
	if m.Name != name.Project || m.Version.Compare(name.Version) != 0 {
		return nil, fmt.Errorf("PKG-INFO is of %s %s", m.Name, m.Version)
	}
	return &Checked{RequiresPython: m.RequiresPython, metadata: top.info, build: top.build}, nil
}

// maxBuildFile bounds pyproject.toml; the settings of many tools fill some
// ten thousand bytes.
const maxBuildFile = 1 << 20

// sdistTop is what is read of a source archive's one top folder.
type sdistTop struct {
	info  []byte // PKG-INFO
	build []byte // pyproject.toml; nil if there is none
}

// zipTop reads a .zip source archive.
func zipTop(r io.ReaderAt, size int64) (t sdistTop, err error) {
	z, err := strictzip.Open(r, size, strictzip.Options{})
	if err != nil {
		return t, err
	}
	top, _, _ := strings.Cut(z.Entries[0].Name, "/")
	for i := range z.Entries {
		if !strings.HasPrefix(z.Entries[i].Name, top+"/") {
			return t, fmt.Errorf("%q is outside the top folder %q", clip(z.Entries[i].Name), clip(top))
		}
	}
	if _, ok := z.Find(top + "/pyproject.toml"); ok {
		if t.build, err = readNamed(z, top+"/pyproject.toml", maxBuildFile); err != nil {
			return t, err
		}
	}
	t.info, err = readNamed(z, top+"/PKG-INFO", packaging.MaxMetadata)
	return t, err
}

// tarTop walks a .tar.gz source archive.
func tarTop(r io.Reader, size int64) (t sdistTop, err error) {
	src := bufio.NewReaderSize(r, 64<<10)
	gz, err := gzip.NewReader(src)
	if err != nil {
		return t, err
	}
	gz.Multistream(false)
	limit := int64(strictzip.MaxUnpacked)
	if size < limit/strictzip.BombRatio {
		limit = max(strictzip.BombSize, size*strictzip.BombRatio)
	}
	lr := &io.LimitedReader{R: gz, N: limit}
	t, err = walkTar(tar.NewReader(lr))
	if err == nil {
		// The padding behind the archive, then the gzip checksum.
		_, err = io.Copy(io.Discard, lr)
	}
	if lr.N <= 0 {
		return t, fmt.Errorf("unpacks to over %d bytes: a bomb", limit)
	}
	if err != nil {
		return t, err
	}
	if _, err := src.ReadByte(); !errors.Is(err, io.EOF) {
		return t, errors.New("data behind the gzip stream")
	}
	return t, nil
}

func walkTar(r *tar.Reader) (t sdistTop, err error) {
	top := ""
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if t.info == nil {
				return t, errors.New("no PKG-INFO in the top folder")
			}
			return t, nil
		}
		if err != nil {
			return t, err
		}
		if n >= strictzip.MaxEntries {
			return t, fmt.Errorf("over %d entries", strictzip.MaxEntries)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name := strings.TrimSuffix(h.Name, "/")
		if err := checkTarEntry(h, name); err != nil {
			return t, fmt.Errorf("%q: %w", clip(h.Name), err)
		}
		first, rest, _ := strings.Cut(name, "/")
		if top == "" {
			top = first
		}
		if first != top {
			return t, fmt.Errorf("%q is outside the top folder %q", clip(h.Name), clip(top))
		}
		to, limit := &t.info, int64(packaging.MaxMetadata)
		switch rest {
		case "PKG-INFO":
		case "pyproject.toml":
			to, limit = &t.build, maxBuildFile
		default:
			continue
		}
		if *to != nil || h.Typeflag != tar.TypeReg || h.Size > limit {
			return t, fmt.Errorf("%s is there twice, too large or not a file", rest)
		}
		if *to, err = io.ReadAll(r); err != nil {
			return t, err
		}
	}
}

func checkTarEntry(h *tar.Header, name string) error {
	if len(name) > strictzip.MaxName {
		return fmt.Errorf("name of %d bytes", len(name))
	}
	if err := strictzip.CheckName(name); err != nil {
		return err
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return errors.New("a sparse file")
		}
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
		return nil
	case tar.TypeSymlink, tar.TypeLink:
		target := h.Linkname
		if h.Typeflag == tar.TypeSymlink {
			target = path.Join(path.Dir(name), target) //nolint:gosec // nothing is unpacked; the result is what is checked
		}
		if path.IsAbs(h.Linkname) || strings.ContainsAny(h.Linkname, "\\\x00") || strictzip.CheckName(path.Clean(target)) != nil {
			return errors.New("a link out of the archive")
		}
		return nil
	}
	return errors.New("a sparse or special file")
}
