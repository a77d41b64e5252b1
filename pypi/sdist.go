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
	var info []byte
	if strings.HasSuffix(filename, ".zip") {
		info, err = zipPkgInfo(r, size)
	} else {
		info, err = tarPkgInfo(io.NewSectionReader(r, 0, size), size)
	}
	if err != nil {
		return nil, err
	}
	m, err := packaging.ParseMetadata(info)
	if err != nil {
		return nil, fmt.Errorf("PKG-INFO: %w", err)
	}
	if m.Name != name.Project || m.Version.Compare(name.Version) != 0 {
		return nil, fmt.Errorf("PKG-INFO is of %s %s", m.Name, m.Version)
	}
	return &Checked{RequiresPython: m.RequiresPython}, nil
}

// zipPkgInfo reads TOP/PKG-INFO of a .zip source archive.
func zipPkgInfo(r io.ReaderAt, size int64) ([]byte, error) {
	z, err := strictzip.Open(r, size, strictzip.Options{})
	if err != nil {
		return nil, err
	}
	top, _, _ := strings.Cut(z.Entries[0].Name, "/")
	for i := range z.Entries {
		if !strings.HasPrefix(z.Entries[i].Name, top+"/") {
			return nil, fmt.Errorf("%q is outside the top folder %q", clip(z.Entries[i].Name), clip(top))
		}
	}
	return readNamed(z, top+"/PKG-INFO", packaging.MaxMetadata)
}

// tarPkgInfo walks a .tar.gz source archive and returns TOP/PKG-INFO.
func tarPkgInfo(r io.Reader, size int64) ([]byte, error) {
	src := bufio.NewReaderSize(r, 64<<10)
	gz, err := gzip.NewReader(src)
	if err != nil {
		return nil, err
	}
	gz.Multistream(false)
	limit := int64(strictzip.MaxUnpacked)
	if size < limit/strictzip.BombRatio {
		limit = max(strictzip.BombSize, size*strictzip.BombRatio)
	}
	lr := &io.LimitedReader{R: gz, N: limit}
	info, err := walkTar(tar.NewReader(lr))
	if err == nil {
		// The padding behind the archive, then the gzip checksum.
		_, err = io.Copy(io.Discard, lr)
	}
	if lr.N <= 0 {
		return nil, fmt.Errorf("unpacks to over %d bytes: a bomb", limit)
	}
	if err != nil {
		return nil, err
	}
	if _, err := src.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data behind the gzip stream")
	}
	return info, nil
}

func walkTar(t *tar.Reader) (info []byte, err error) {
	top := ""
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if info == nil {
				return nil, errors.New("no PKG-INFO in the top folder")
			}
			return info, nil
		}
		if err != nil {
			return nil, err
		}
		if n >= strictzip.MaxEntries {
			return nil, fmt.Errorf("over %d entries", strictzip.MaxEntries)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name := strings.TrimSuffix(h.Name, "/")
		if err := checkTarEntry(h, name); err != nil {
			return nil, fmt.Errorf("%q: %w", clip(h.Name), err)
		}
		first, rest, _ := strings.Cut(name, "/")
		if top == "" {
			top = first
		}
		if first != top {
			return nil, fmt.Errorf("%q is outside the top folder %q", clip(h.Name), clip(top))
		}
		if rest != "PKG-INFO" {
			continue
		}
		if info != nil || h.Typeflag != tar.TypeReg || h.Size > packaging.MaxMetadata {
			return nil, errors.New("PKG-INFO is there twice, too large or not a file")
		}
		if info, err = io.ReadAll(t); err != nil {
			return nil, err
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
