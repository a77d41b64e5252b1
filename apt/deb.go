package apt

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
)

const (
	// maxMembers bounds the members of the ar archive. Three are usual; signed
	// packages have up to four more.
	maxMembers = 16
	// maxControlTar bounds the unpacked control.tar; kernel packages have the
	// largest, about 20 MB of file lists.
	maxControlTar = 256 << 20
	// maxControlFiles bounds its entries.
	maxControlFiles = 4096
	// maxControl bounds the control file itself.
	maxControl = 4 << 20
	arMagic    = "!<arch>\n"
	arHeader   = 60
)

// A debReader reads package files. It is safe for concurrent use.
type debReader struct{ unxz unxz }

// A debInfo is what the control file of a .deb says it is.
type debInfo struct{ name, version, arch string }

func (d debInfo) String() string { return d.name + " " + d.version + " " + d.arch }

// read checks the frame of a package file and reads its control file. The
// frame: debian-binary with format 2.x, then control.tar, then data.tar;
// between and after them only members whose names begin with "_", as deb(5)
// allows and signers use. data.tar is not unpacked. Where whole is false,
// reading ends at the header of data.tar.
func (d *debReader) read(r io.Reader, size int64, whole bool) (*debInfo, error) {
	a := &arReader{r: r, left: size}
	if err := a.begin(); err != nil {
		return nil, err
	}
	var info *debInfo
	var order []string
	for n := 0; ; n++ {
		m, err := a.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n == maxMembers {
			return nil, fmt.Errorf("more than %d members", maxMembers)
		}
		base, ext := splitMember(m.name)
		switch {
		case base == "debian-binary" && n == 0:
			err = checkFormat(a, m)
		case base == "control.tar" && len(order) == 1:
			info, err = d.control(a.body(), ext)
		case base == "data.tar" && len(order) == 2:
			if !knownExt(ext) && ext != ".lzma" {
				err = fmt.Errorf("unknown compression %q", ext)
			}
		case n > 0 && strings.HasPrefix(m.name, "_"):
			continue
		default:
			err = errors.New("unexpected member")
		}
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", m.name, err)
		}
		if order = append(order, base); len(order) == 3 && !whole {
			break
		}
	}
	if len(order) != 3 {
		return nil, fmt.Errorf("members %v, want debian-binary, control.tar and data.tar", order)
	}
	return info, nil
}

// splitMember cuts "control.tar.xz" into "control.tar" and ".xz".
func splitMember(name string) (base, ext string) {
	if i := strings.Index(name, ".tar"); i >= 0 {
		return name[:i+len(".tar")], name[i+len(".tar"):]
	}
	return name, ""
}

func knownExt(ext string) bool {
	for _, c := range compressions {
		if c.ext == ext {
			return true
		}
	}
	return false
}

func checkFormat(a *arReader, m arMember) error {
	const most = 64
	if m.size > most {
		return fmt.Errorf("%d bytes", m.size)
	}
	b, err := io.ReadAll(a.body())
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(b, []byte("2.")) || !bytes.HasSuffix(b, []byte("\n")) {
		return fmt.Errorf("format %q, want 2.x", clip(string(b)))
	}
	return nil
}

// control finds the control file in control.tar.
func (d *debReader) control(r io.Reader, ext string) (info *debInfo, err error) {
	read := func(z io.Reader) (err error) {
		info, err = controlOf(z)
		return err
	}
	if ext == ".xz" {
		err = d.unxz.use(r, maxControlTar, read)
		return info, err
	}
	z, err := decompress(r, ext, maxControlTar)
	if err != nil {
		return nil, err
	}
	err = errors.Join(read(z), z.Close())
	return info, err
}

func controlOf(z io.Reader) (*debInfo, error) {
	var info *debInfo
	tr := tar.NewReader(z)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n == maxControlFiles {
			return nil, fmt.Errorf("more than %d files", maxControlFiles)
		}
		if path.Clean(h.Name) != "control" {
			continue
		}
		if info != nil || h.Typeflag != tar.TypeReg || h.Size > maxControl {
			return nil, errors.New("control is there twice, no file, or too large")
		}
		if info, err = parseControl(tr); err != nil {
			return nil, err
		}
	}
	// The rest is read so that the compressed stream is checked to its end.
	if _, err := io.Copy(io.Discard, z); err != nil {
		return nil, err
	}
	if info == nil {
		return nil, errors.New("no control file")
	}
	return info, nil
}

func parseControl(r io.Reader) (*debInfo, error) {
	sr := newStanzaReader(r)
	st, err := sr.next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("control is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	info := &debInfo{
		name:    string(st.get("Package")),
		version: string(st.get("Version")),
		arch:    string(st.get("Architecture")),
	}
	if _, err := sr.next(); !errors.Is(err, io.EOF) {
		return nil, errors.New("control has more than one paragraph")
	}
	return info, nil
}

// An arReader reads the members of an ar archive in order. Names are short
// names without a path; the tables of the GNU and BSD variants, which no .deb
// has, are refused as unknown members.
type arReader struct {
	r      io.Reader
	left   int64 // of the archive
	member *io.LimitedReader
	pad    bool
}

type arMember struct {
	name string
	size int64
}

func (a *arReader) begin() error {
	var magic [len(arMagic)]byte
	if err := a.full(magic[:]); err != nil {
		return err
	}
	if string(magic[:]) != arMagic {
		return errors.New("not an ar archive")
	}
	return nil
}

func (a *arReader) full(p []byte) error {
	if int64(len(p)) > a.left {
		return io.ErrUnexpectedEOF
	}
	n, err := io.ReadFull(a.r, p)
	a.left -= int64(n)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next passes the rest of the member before and reads a header.
func (a *arReader) next() (arMember, error) {
	if a.member != nil {
		if err := a.skip(); err != nil {
			return arMember{}, err
		}
	}
	if a.left == 0 {
		var one [1]byte
		if n, err := a.r.Read(one[:]); n > 0 || !errors.Is(err, io.EOF) {
			return arMember{}, errors.Join(errors.New("data after the end"), err)
		}
		return arMember{}, io.EOF
	}
	var h [arHeader]byte
	if err := a.full(h[:]); err != nil {
		return arMember{}, err
	}
	if h[58] != '`' || h[59] != '\n' {
		return arMember{}, errors.New("damaged member header")
	}
	name := strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	for _, c := range []byte(name) {
		if c <= 0x20 || c >= 0x7f || c == '/' {
			return arMember{}, fmt.Errorf("member name %q", name)
		}
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 62)
	if err != nil || name == "" || int64(size) > a.left { // #nosec G115 -- 62 bits
		return arMember{}, fmt.Errorf("member %q: size %q", name, h[48:58])
	}
	a.member = &io.LimitedReader{R: a.r, N: int64(size)} // #nosec G115 -- 62 bits
	a.left -= int64(size)                                // #nosec G115 -- 62 bits
	a.pad = size%2 == 1
	return arMember{name, int64(size)}, nil // #nosec G115 -- 62 bits
}

// body reads the present member; a short archive is an error.
func (a *arReader) body() io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := a.member.Read(p)
		if errors.Is(err, io.EOF) && a.member.N > 0 {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	})
}

func (a *arReader) skip() error {
	if s, ok := a.r.(io.Seeker); ok && a.member.N > 0 {
		if _, err := s.Seek(a.member.N, io.SeekCurrent); err != nil {
			return err
		}
	} else if _, err := io.Copy(io.Discard, a.body()); err != nil {
		return err
	}
	a.member = nil
	if a.pad && a.left > 0 { // the last member's padding may be missing
		var one [1]byte
		if err := a.full(one[:]); err != nil {
			return err
		}
		if one[0] != '\n' && one[0] != 0 {
			return errors.New("members are not padded")
		}
	}
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
