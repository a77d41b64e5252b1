package walk

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	arMagic  = "!<arch>\n"
	arHeader = 60
	// maxArNames bounds the table of long names of GNU's form.
	maxArNames = 1 << 20
)

// An arWalk goes through an ar archive: a .deb, see deb(5), or a library of
// objects in the form of GNU or BSD.
type arWalk struct {
	w    *walker
	f    *File
	p    place
	at   int64
	deb  bool
	long []byte // GNU's table of long names
	seen map[string]bool
}

// openAr opens an ar archive if it is empty or its first header is right.
func (w *walker) openAr(f *File, p place) (*opened, error) {
	a := &arWalk{w: w, f: f, p: p, at: int64(len(arMagic)), seen: make(map[string]bool)}
	if f.Size > a.at {
		name, _, err := a.header()
		if err != nil {
			return nil, w.flawed(err, p, f.Path)
		}
		a.deb = name == "debian-binary"
	}
	return &opened{walk: a.walk}, nil
}

func (a *arWalk) walk() error {
	for a.at < a.f.Size {
		if err := a.w.ctx.Err(); err != nil {
			return err
		}
		done, err := a.next()
		if err != nil {
			return a.w.flawed(err, a.p, a.f.Path)
		}
		if done {
			return nil
		}
	}
	return nil
}

// header reads the header at the present place, without going on.
func (a *arWalk) header() (name string, size int64, err error) {
	var h [arHeader]byte
	if a.f.Size-a.at < arHeader {
		return "", 0, &flaw{code: CodeTrailing, text: fmt.Sprintf("ar: %d bytes behind the last member", a.f.Size-a.at)}
	}
	if n, err := a.f.content.ReadAt(h[:], a.at); n < len(h) {
		return "", 0, err
	}
	if h[58] != '`' || h[59] != '\n' {
		return "", 0, malformed("ar: no member header at byte %d", a.at)
	}
	n, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 62)
	size = int64(n) // 62 bits
	if err != nil || size > a.f.Size-a.at-arHeader {
		return "", 0, malformed("ar: a member of %s bytes at byte %d", quote(string(h[48:58])), a.at)
	}
	return strings.TrimRight(string(h[:16]), " "), size, nil
}

// next visits the next member.
func (a *arWalk) next() (done bool, err error) {
	raw, size, err := a.header()
	if err != nil {
		return false, err
	}
	off := a.at + arHeader
	a.at = off + size
	if size%2 == 1 && a.at < a.f.Size { // the last member's padding may be missing
		var pad [1]byte
		if n, err := a.f.content.ReadAt(pad[:], a.at); n < 1 {
			return false, err
		}
		if pad[0] != '\n' && pad[0] != 0 {
			return false, malformed("ar: members are not padded at byte %d", a.at)
		}
		a.at++
	}
	if err := a.w.count(a.f); err != nil {
		return true, err
	}
	name, off, size, err := a.name(raw, off, size)
	if err != nil || name == "" {
		return false, err
	}
	child := a.w.entry(a.f, name, 0)
	a.judge(name, child.Path)
	section(child, a.f, off, size)
	p := a.p.in()
	if base, _, ok := strings.Cut(name, ".tar"); ok && a.deb && (base == "control" || base == "data") {
		p.tree, p.below, p.tar = true, a.p.below, true
	}
	if err := a.w.file(child, p, checks{}); err != nil {
		return true, err
	}
	return false, nil
}

// name finds a member's name in the forms of GNU and BSD; "" is a table of
// the archive itself.
func (a *arWalk) name(raw string, off, size int64) (string, int64, int64, error) {
	switch {
	case raw == "/", raw == "/SYM64/":
		return "", off, size, nil
	case raw == "//":
		if size > maxArNames || a.long != nil {
			return "", 0, 0, malformed("ar: a second or too large table of names")
		}
		a.long = make([]byte, size)
		_, err := io.ReadFull(io.NewSectionReader(a.f.content, off, size), a.long)
		return "", off, size, err
	case strings.HasPrefix(raw, "#1/"):
		n, err := strconv.ParseUint(raw[3:], 10, 16)
		if err != nil || int64(n) > min(size, maxName) { // 16 bits
			return "", 0, 0, malformed("ar: a name of %s bytes", quote(raw[3:]))
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(io.NewSectionReader(a.f.content, off, size), b); err != nil {
			return "", 0, 0, err
		}
		return string(bytes.TrimRight(b, "\x00")), off + int64(n), size - int64(n), nil // 16 bits
	case len(raw) > 1 && raw[0] == '/' && raw[1] >= '0' && raw[1] <= '9':
		n, err := strconv.ParseUint(raw[1:], 10, 31)
		if err != nil || int64(n) >= int64(len(a.long)) { // 31 bits
			return "", 0, 0, malformed("ar: no name at %s of the table", quote(raw[1:]))
		}
		name, _, ok := bytes.Cut(a.long[n:], []byte("\n"))
		if !ok {
			return "", 0, 0, malformed("ar: a name without an end")
		}
		return strings.TrimSuffix(string(name), "/"), off, size, nil
	case raw == "":
		return "", 0, 0, malformed("ar: a member without a name")
	}
	return strings.TrimSuffix(raw, "/"), off, size, nil
}

// judge looks at a name. Libraries have objects of one name; a .deb has not.
func (a *arWalk) judge(name string, path []string) {
	if strings.ContainsAny(name, "/\\") || name == ".." || new(names).check(name) != "" {
		a.w.problem(CodePath, a.p, path, "ar: a name that is no plain file name: %s", quote(name))
	}
	if !a.deb {
		return
	}
	if a.seen[name] {
		a.w.problem(CodeDuplicate, a.p, path, "ar: %s is there twice", quote(name))
	}
	a.seen[name] = true
}
