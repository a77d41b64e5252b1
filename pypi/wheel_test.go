package pypi

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

const wheelName = "x-1.0-py3-none-any.whl"

// raw is one entry of a hand-made archive; edit may spoil its headers.
type raw struct {
	name       string
	body       string
	localExtra []byte
	edit       func(local, central []byte)
	gap        string // bytes behind the entry
}

// rawZip writes a stored archive byte by byte.
func rawZip(entries ...raw) []byte {
	var b, dir bytes.Buffer
	for _, e := range entries {
		crc, n := crc32.ChecksumIEEE([]byte(e.body)), uint32(len(e.body))
		local, central := make([]byte, lenLocal), make([]byte, lenCentral)
		le.PutUint32(local, sigLocal)
		le.PutUint16(local[4:], 20)
		le.PutUint32(central, sigCentral)
		le.PutUint16(central[6:], 20)
		for h, at := range map[*[]byte]int{&local: 14, &central: 16} {
			le.PutUint32((*h)[at:], crc)
			le.PutUint32((*h)[at+4:], n)
			le.PutUint32((*h)[at+8:], n)
			le.PutUint16((*h)[at+12:], uint16(len(e.name)))
		}
		le.PutUint16(local[28:], uint16(len(e.localExtra)))
		le.PutUint32(central[42:], uint32(b.Len()))
		if e.edit != nil {
			e.edit(local, central)
		}
		b.Write(local)
		b.WriteString(e.name)
		b.Write(e.localExtra)
		b.WriteString(e.body + e.gap)
		dir.Write(central)
		dir.WriteString(e.name)
	}
	end := make([]byte, lenEnd)
	le.PutUint32(end, sigEnd)
	le.PutUint16(end[8:], uint16(len(entries)))
	le.PutUint16(end[10:], uint16(len(entries)))
	le.PutUint32(end[12:], uint32(dir.Len()))
	le.PutUint32(end[16:], uint32(b.Len()))
	b.Write(dir.Bytes())
	b.Write(end)
	return b.Bytes()
}

// with makes a good wheel with one more raw entry in front.
func with(first ...raw) []byte {
	for _, e := range pypitest.WheelEntries(wheelName, ">=3.9") {
		first = append(first, raw{name: e.Name, body: e.Body})
	}
	return rawZip(first...)
}

// zip64 puts a zip64 end record and its locator before the end record.
func zip64(b []byte, spoil func(end64 []byte)) []byte {
	end := b[len(b)-lenEnd:]
	body := b[:len(b)-lenEnd]
	end64, loc := make([]byte, lenEnd64), make([]byte, lenLocator64)
	le.PutUint32(end64, sigEnd64)
	le.PutUint64(end64[4:], lenEnd64-12)
	le.PutUint64(end64[24:], uint64(le.Uint16(end[8:])))
	le.PutUint64(end64[32:], uint64(le.Uint16(end[10:])))
	le.PutUint64(end64[40:], uint64(le.Uint32(end[12:])))
	le.PutUint64(end64[48:], uint64(le.Uint32(end[16:])))
	if spoil != nil {
		spoil(end64)
	}
	le.PutUint32(loc, sigLocator64)
	le.PutUint64(loc[8:], uint64(len(body)))
	le.PutUint32(loc[16:], 1)
	return bytes.Join([][]byte{body, end64, loc, end}, nil)
}

func checkBytes(name string, b []byte) (*Checked, error) {
	return CheckFile(name, bytes.NewReader(b), int64(len(b)))
}

func TestCheckWheel(t *testing.T) {
	wide := make([]byte, 20)
	le.PutUint16(wide, extraZip64)
	le.PutUint16(wide[2:], 16)
	le.PutUint64(wide[4:], 4)
	le.PutUint64(wide[12:], 4)
	for name, b := range map[string][]byte{
		"deflated":     pypitest.Wheel(wheelName, ">=3.9").Body,
		"stored":       with(),
		"folder":       with(raw{name: "data/"}),
		"utf-8 name":   with(raw{name: "ü.txt", edit: func(l, c []byte) { le.PutUint16(l[6:], flagUTF8); le.PutUint16(c[8:], flagUTF8) }}),
		"zip64 end":    zip64(with(), nil),
		"file mode":    with(raw{name: "run", edit: func(_, c []byte) { le.PutUint32(c[38:], 0o100755<<16) }}),
		"zip64 local":  with(raw{name: "big", body: "four", localExtra: wide, edit: func(l, _ []byte) { le.PutUint32(l[18:], 0xffffffff); le.PutUint32(l[22:], 0xffffffff) }}),
		"ratio of few": pypitest.Wheel(wheelName, ">=3.9", pypitest.Entry{Name: "x/zeros", Body: strings.Repeat("\x00", 1<<20)}).Body,
	} {
		c, err := checkBytes(wheelName, b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.RequiresPython != ">=3.9" || !strings.HasPrefix(string(c.Metadata), "Metadata-Version: 2.1\nName: x\n") {
			t.Errorf("%s: got %q %q", name, c.RequiresPython, c.Metadata)
		}
	}
}

func TestZipRefused(t *testing.T) {
	good := with()
	descriptor := func() []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for _, e := range pypitest.WheelEntries(wheelName, "") {
			f, err := w.Create(e.Name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte(e.Body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	both := func(at int, v uint16) func(l, c []byte) {
		return func(l, c []byte) { le.PutUint16(l[at:], v); le.PutUint16(c[at+2:], v) }
	}
	mode := func(m uint32) func(l, c []byte) { return func(_, c []byte) { le.PutUint32(c[38:], m<<16) } }
	comment := append(bytes.Clone(good), "hi"...)
	le.PutUint16(comment[len(good)-2:], 2)
	for name, c := range map[string]struct {
		b    []byte
		text string
	}{
		"empty":             {nil, "EOF"},
		"not a zip":         {bytes.Repeat([]byte("x"), 100), "no end record"},
		"prefix":            {append([]byte("MZ"), good...), "does not end where"},
		"suffix":            {append(bytes.Clone(good), 0), "no end record"},
		"comment":           {comment, "no end record"},
		"cut":               {good[:len(good)-1], "no end record"},
		"gap":               {with(raw{name: "a", gap: "PK"}), "between entries"},
		"gap at end":        {rawZip(raw{name: "a", gap: "PK"}), "central directory"},
		"hidden entry":      {bytes.Replace(with(raw{name: "a"}), []byte("a"), []byte("b"), 1), "another name"},
		"overlap":           {with(raw{name: "a"}, raw{name: "b", edit: func(_, c []byte) { le.PutUint32(c[42:], 0) }}), "overlap"},
		"data descriptor":   {descriptor(), "data descriptor"},
		"encrypted":         {with(raw{name: "a", edit: both(6, 1)}), "encrypted"},
		"bzip2":             {with(raw{name: "a", edit: both(8, 12)}), "compression method"},
		"local method":      {with(raw{name: "a", edit: func(l, _ []byte) { le.PutUint16(l[8:], 8) }}), "another compression"},
		"local flags":       {with(raw{name: "a", edit: func(l, _ []byte) { le.PutUint16(l[6:], flagUTF8) }}), "other flags"},
		"local size":        {with(raw{name: "a", body: "b", edit: func(l, _ []byte) { le.PutUint32(l[22:], 2) }}), "other sizes"},
		"local checksum":    {with(raw{name: "a", body: "b", edit: func(l, _ []byte) { le.PutUint32(l[14:], 2) }}), "other sizes"},
		"two sizes":         {with(raw{name: "a", body: "b", edit: func(_, c []byte) { le.PutUint32(c[24:], 7) }}), "two sizes"},
		"second name":       {with(raw{name: "a", localExtra: []byte{0x75, 0x70, 0, 0}}), "second name"},
		"broken extra":      {with(raw{name: "a", localExtra: []byte{1, 0, 9, 0}}), "malformed extra"},
		"zip64 missing":     {with(raw{name: "a", edit: func(_, c []byte) { le.PutUint32(c[24:], 0xffffffff) }}), "zip64 field missing"},
		"zip64 disagrees":   {zip64(good, func(e []byte) { le.PutUint64(e[32:], 1); le.PutUint64(e[24:], 1) }), "differ"},
		"zip64 elsewhere":   {zip64(good, func(e []byte) { le.PutUint64(e[4:], 99) }), "malformed zip64"},
		"twice":             {with(raw{name: "a"}, raw{name: "a"}), "there twice"},
		"case twice":        {with(raw{name: "a/B"}, raw{name: "A/b"}), "there twice"},
		"file and folder":   {with(raw{name: "a"}, raw{name: "a/b"}), "a file and a folder"},
		"dot dot":           {with(raw{name: "a/../../b"}), ".. part"},
		"absolute":          {with(raw{name: "/etc/passwd"}), "absolute"},
		"backslash":         {with(raw{name: `a\b`}), "backslash"},
		"drive":             {with(raw{name: "C:a"}), "drive"},
		"newline":           {with(raw{name: "a\nb"}), "control"},
		"nul":               {with(raw{name: "a\x00b"}), "control"},
		"empty part":        {with(raw{name: "a//b"}), "empty"},
		"unknown encoding":  {with(raw{name: "\xfc.txt"}), "unknown encoding"},
		"symlink":           {with(raw{name: "a", body: "/etc/passwd", edit: mode(0o120777)}), "link or a special"},
		"device":            {with(raw{name: "a", edit: mode(0o020666)}), "link or a special"},
		"folder as file":    {with(raw{name: "a", edit: mode(0o040755)}), "marked as a folder"},
		"folder with bytes": {with(raw{name: "a/", body: "x"}), "folder with content"},
		"long name":         {with(raw{name: strings.Repeat("a/", 600) + "a"}), "name of"},
		"bomb":              {pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "x/zeros", Body: strings.Repeat("\x00", 65<<20)}).Body, "bomb"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := checkBytes(wheelName, c.b)
			wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-WHEEL", wheelName)
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q in it", err, c.text)
			}
		})
	}
}

func TestWheelRefused(t *testing.T) {
	info := "x-1.0.dist-info/"
	change := func(name, from, to string) []byte {
		entries := pypitest.WheelEntries(wheelName, "")
		hit := false
		for i := range entries {
			if entries[i].Name == info+name && strings.Contains(entries[i].Body, from) {
				entries[i].Body = strings.ReplaceAll(entries[i].Body, from, to)
				hit = true
			}
		}
		if !hit {
			t.Fatalf("%s does not hold %q", name, from)
		}
		return pypitest.Zip(entries...)
	}
	without := func(name string) []byte {
		var entries []pypitest.Entry
		for _, e := range pypitest.WheelEntries(wheelName, "") {
			if !strings.HasSuffix(e.Name, name) {
				entries = append(entries, e)
			}
		}
		return pypitest.Zip(entries...)
	}
	checksum := pypitest.Zip(pypitest.WheelEntries(wheelName, "")...)
	// The checksum of METADATA, wrong in both headers alike.
	meta := pypitest.WheelEntries(wheelName, "")[1].Body
	sum := make([]byte, 4)
	le.PutUint32(sum, crc32.ChecksumIEEE([]byte(meta)))
	checksum = bytes.ReplaceAll(checksum, sum, []byte{1, 2, 3, 4})
	for name, c := range map[string]struct {
		b    []byte
		text string
	}{
		"no METADATA":        {without("METADATA"), "METADATA"},
		"no WHEEL":           {without("WHEEL"), "WHEEL"},
		"no RECORD":          {without("RECORD"), "RECORD"},
		"no dist-info":       {pypitest.Zip(pypitest.Entry{Name: "a"}), "no .dist-info"},
		"two dist-infos":     {pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "y-1.0.dist-info/METADATA"}).Body, "two .dist-info"},
		"case of dist-info":  {pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "y-1.0.DIST-INFO/METADATA"}).Body, "two .dist-info"},
		"other project":      {pypitest.Wheel("y-1.0-py3-none-any.whl", "").Body, "another project"},
		"other version":      {pypitest.Wheel("x-1.1-py3-none-any.whl", "").Body, "another project or version"},
		"name in METADATA":   {change("METADATA", "Name: x", "Name: y"), "METADATA is of y"},
		"version":            {change("METADATA", "\nVersion: 1.0", "\nVersion: 1.0.1"), "METADATA is of x 1.0.1"},
		"two names":          {change("METADATA", "Name: x", "Name: x\nName: x"), "2 Name"},
		"no version field":   {change("METADATA", "\nVersion: 1.0", ""), "0 Version"},
		"metadata version":   {change("METADATA", "Metadata-Version: 2.1", "Metadata-Version: 3.0"), "not known"},
		"no header":          {change("METADATA", "Name: x", "Name x"), "malformed header"},
		"wheel version":      {change("WHEEL", "Wheel-Version: 1.0", "Wheel-Version: 2.0"), "not known"},
		"RECORD escapes":     {change("RECORD", "x/__init__.py", "../../x.py"), "RECORD: line 1"},
		"RECORD absolute":    {change("RECORD", "x/__init__.py", "/etc/passwd"), "RECORD: line 1"},
		"RECORD fields":      {change("RECORD", ",,", ","), "want 3"},
		"METADATA checksum":  {checksum, "checksum"},
		"METADATA too large": {pypitest.Zip(pypitest.Entry{Name: info + "METADATA", Body: strings.Repeat("Description: a longer text\n", 17<<20/27+1)}), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := checkBytes(wheelName, c.b)
			wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-WHEEL", wheelName)
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q in it", err, c.text)
			}
		})
	}
}

func TestCheckSdist(t *testing.T) {
	const name = "foo-bar-1.0.tar.gz"
	if _, err := checkBytes(name, pypitest.Sdist(name).Body); err != nil {
		t.Fatal(err)
	}
	info := pypitest.Entry{Name: "foo-bar-1.0/PKG-INFO", Body: "Metadata-Version: 1.0\nName: foo.bar\nVersion: 1.0\n"}
	if _, err := checkBytes("foo-bar-1.0.zip", pypitest.Zip(info)); err != nil {
		t.Error(err)
	}
	odd := func(h tar.Header) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for _, err := range []error{w.WriteHeader(&h), w.Close(), z.Close()} {
			if err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	for defect, c := range map[string]struct {
		b    []byte
		text string
	}{
		"not gzip":      {[]byte("hello"), "EOF"},
		"no PKG-INFO":   {pypitest.TarGz(pypitest.Entry{Name: "foo-bar-1.0/x"}), "no PKG-INFO"},
		"two PKG-INFO":  {pypitest.TarGz(info, info), "twice"},
		"other project": {pypitest.Sdist("foo-baz-1.0.tar.gz").Body, "PKG-INFO is of"},
		"escape":        {pypitest.TarGz(info, pypitest.Entry{Name: "foo-bar-1.0/../../x"}), ".. part"},
		"outside":       {pypitest.TarGz(info, pypitest.Entry{Name: "other/x"}), "outside the top"},
		"link out":      {odd(tar.Header{Name: "foo-bar-1.0/x", Typeflag: tar.TypeSymlink, Linkname: "../../etc/passwd"}), "link out"},
		"hard link out": {odd(tar.Header{Name: "foo-bar-1.0/x", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}), "link out"},
		"device":        {odd(tar.Header{Name: "foo-bar-1.0/x", Typeflag: tar.TypeChar}), "special"},
		"behind":        {append(pypitest.Sdist(name).Body, 'x'), "behind"},
		"bomb":          {pypitest.TarGz(info, pypitest.Entry{Name: "foo-bar-1.0/x", Body: strings.Repeat("\x00", bombSize)}), "bomb"},
	} {
		t.Run(defect, func(t *testing.T) {
			_, err := checkBytes(name, c.b)
			wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-SDIST", name)
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q in it", err, c.text)
			}
		})
	}
}

// failing is a reader whose disk is broken: no verdict on the archive.
type failing struct{}

var errDisk = errors.New("input/output error")

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestCheckFileKeepsCause(t *testing.T) {
	if _, err := CheckFile(wheelName, failing{}, 1000); !errors.Is(err, errDisk) || errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("got %v", err)
	}
}
