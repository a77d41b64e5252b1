package pypi

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictzip"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// CheckSdist checks a source archive: it unpacks within limits, every name
// stays inside its one top folder, links stay inside too and nothing is reached
// through one, there are no devices or sparse files, and PKG-INFO agrees with
// the filename.
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
	members := &tarMembers{links: make(map[string]tarLink)}
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if err := members.check(top); err != nil {
				return t, err
			}
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
		if err := members.add(h, name); err != nil {
			return t, fmt.Errorf("%q: %w", clip(h.Name), err)
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
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
		return nil
	}
	return errors.New("a sparse or special file")
}

// maxTarNames bounds the names of a source archive together; 50,000 files have
// some 4 MiB.
const maxTarNames = 32 << 20

// tarMembers are the members of an archive by name. Whoever unpacks the link
// "a -> .." and then "a/x" writes where the name does not say, so nothing may be
// reached through a link; where the links lie is known at the end alone.
type tarMembers struct {
	names []string           // of what is no link
	links map[string]tarLink // by name in lower case: some systems know no other
	bytes int
}

type tarLink struct {
	name, target string
	hard         bool
}

// add takes a member.
func (m *tarMembers) add(h *tar.Header, name string) error {
	if m.bytes += len(name) + len(h.Linkname); m.bytes > maxTarNames {
		return fmt.Errorf("the names so far have over %d bytes", maxTarNames)
	}
	if h.Typeflag != tar.TypeSymlink && h.Typeflag != tar.TypeLink {
		m.names = append(m.names, name)
		return nil
	}
	key := strings.ToLower(name)
	if _, twice := m.links[key]; twice {
		return errors.New("a link that is there twice, perhaps in other letter case")
	}
	m.links[key] = tarLink{name, h.Linkname, h.Typeflag == tar.TypeLink}
	return nil
}

// isLink reports whether there is a link of that name.
func (m *tarMembers) isLink(name string) bool {
	_, ok := m.links[strings.ToLower(name)]
	return ok
}

// through reports whether a name leads through a link.
func (m *tarMembers) through(name string) bool {
	for i := range len(name) {
		if name[i] == '/' && m.isLink(name[:i]) {
			return true
		}
	}
	return false
}

// check sees that no member is reached through a link, and that every link
// stays in the top folder.
func (m *tarMembers) check(top string) error {
	if len(m.links) == 0 {
		return nil
	}
	for _, name := range m.names {
		switch {
		case m.isLink(name):
			return fmt.Errorf("%q: a link and something else", clip(name))
		case m.through(name):
			return fmt.Errorf("%q: reached through a link", clip(name))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m.links)) {
		l := m.links[key]
		follow := m.follow
		if l.hard {
			follow = m.followHard
		}
		if m.through(l.name) {
			return fmt.Errorf("%q: reached through a link", clip(l.name))
		}
		if err := follow(l, top); err != nil {
			return fmt.Errorf("%q: %w", clip(l.name), err)
		}
	}
	return nil
}

var errLinkOut = errors.New("a link out of the top folder")

// follow walks a symbolic link from its folder. Installers unpack the top
// folder under another name, so that not even "../TOP/x" leads back into it.
func (m *tarMembers) follow(l tarLink, top string) error {
	t := l.target
	if t == "" || len(t) > strictzip.MaxName || path.IsAbs(t) || strings.ContainsAny(t, "\\\x00") || len(t) > 1 && t[1] == ':' {
		return errLinkOut
	}
	at := path.Dir(l.name)
	for part := range strings.SplitSeq(t, "/") {
		if part == "" || part == "." {
			continue
		}
		if m.isLink(at) {
			return errors.New("a link through another link")
		}
		switch {
		case part != "..":
			at += "/" + part
		case !strings.Contains(at, "/"):
			return errLinkOut
		default:
			at = path.Dir(at)
		}
	}
	if first, _, _ := strings.Cut(at, "/"); first != top || strictzip.CheckName(at) != nil {
		return errLinkOut
	}
	return nil
}

// followHard checks a hard link, which names its file from the root of the
// archive. One to a symbolic link would be that link in another folder.
func (m *tarMembers) followHard(l tarLink, top string) error {
	if len(l.target) > strictzip.MaxName || !strings.HasPrefix(l.target, top+"/") || strictzip.CheckName(l.target) != nil {
		return errLinkOut
	}
	if to, ok := m.links[strings.ToLower(l.target)]; ok && !to.hard || m.through(l.target) {
		return errors.New("a hard link through a symbolic link")
	}
	return nil
}
