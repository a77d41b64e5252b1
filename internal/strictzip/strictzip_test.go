package strictzip

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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

// with makes a good archive with more raw entries in front.
func with(first ...raw) []byte {
	return rawZip(append(first, raw{name: "x/__init__.py", body: "import y\n"}, raw{name: "x/data/", body: ""}, raw{name: "x/data/one.txt", body: "one"})...)
}

// packed makes an archive as Go writes it, with data descriptors unless raw
// headers are asked for.
func packed(t testing.TB, descriptors bool, entries ...raw) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		content := []byte(e.body)
		var f io.Writer
		var err error
		if descriptors {
			f, err = w.CreateHeader(h)
		} else {
			var p bytes.Buffer
			d, derr := flate.NewWriter(&p, 9)
			if derr != nil {
				t.Fatal(derr)
			}
			_, werr := d.Write(content)
			if err := errors.Join(werr, d.Close()); err != nil {
				t.Fatal(err)
			}
			h.CRC32, h.UncompressedSize64, h.CompressedSize64 = crc32.ChecksumIEEE(content), uint64(len(content)), uint64(p.Len())
			content = p.Bytes()
			f, err = w.CreateRaw(h)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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

func TestOpenRefuses(t *testing.T) {
	good := with()
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
		"data descriptor":   {packed(t, true, raw{name: "a", body: "b"}), "data descriptor"},
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
		"bomb":              {packed(t, false, raw{name: "zeros", body: strings.Repeat("\x00", 65<<20)}), "bomb"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(c.b, Options{})
			if err == nil {
				t.Fatalf("accepted, want %q", c.text)
			}
			if _, ok := errors.AsType[*Defect](err); !ok {
				t.Errorf("got %T, want a *Defect", err)
			}
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q in it", err, c.text)
			}
		})
	}
}

func open(b []byte, o Options) (*Archive, error) { return Open(bytes.NewReader(b), int64(len(b)), o) }

// contents reads every entry.
func contents(a *Archive) (map[string]string, error) {
	m := make(map[string]string)
	for i := range a.Entries {
		b, err := a.ReadAll(&a.Entries[i], 1<<30)
		if err != nil {
			return nil, err
		}
		m[a.Entries[i].Name] = string(b)
	}
	return m, nil
}

func TestOpen(t *testing.T) {
	wide := make([]byte, 20)
	le.PutUint16(wide, extraZip64)
	le.PutUint16(wide[2:], 16)
	le.PutUint64(wide[4:], 4)
	le.PutUint64(wide[12:], 4)
	for name, c := range map[string]struct {
		b []byte
		o Options
		// name and body of an entry that must be there
		entry, body string
	}{
		"stored":            {with(), Options{}, "x/data/one.txt", "one"},
		"deflated":          {packed(t, false, raw{name: "a", body: strings.Repeat("ab", 5000)}), Options{}, "a", strings.Repeat("ab", 5000)},
		"utf-8 name":        {with(raw{name: "ü.txt", edit: func(l, c []byte) { le.PutUint16(l[6:], flagUTF8); le.PutUint16(c[8:], flagUTF8) }}), Options{}, "ü.txt", ""},
		"zip64 end":         {zip64(with(), nil), Options{}, "x/data/one.txt", "one"},
		"file mode":         {with(raw{name: "run", body: "x", edit: func(_, c []byte) { le.PutUint32(c[38:], 0o100755<<16) }}), Options{}, "run", "x"},
		"zip64 local":       {with(raw{name: "big", body: "four", localExtra: wide, edit: func(l, _ []byte) { le.PutUint32(l[18:], 0xffffffff); le.PutUint32(l[22:], 0xffffffff) }}), Options{}, "big", "four"},
		"descriptors":       {packed(t, true, raw{name: "a", body: "hello"}, raw{name: "b", body: ""}), Options{Descriptors: true}, "a", "hello"},
		"comment":           {commented(with(), "hi"), Options{Comment: true}, "x/data/one.txt", "one"},
		"stored, described": {described(16), Options{Descriptors: true}, "a", "hello"},
		"unsigned":          {described(12), Options{Descriptors: true}, "a", "hello"},
		"wide":              {described(24), Options{Descriptors: true}, "a", "hello"},
		"wide, unsigned":    {described(20), Options{Descriptors: true}, "a", "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := open(c.b, c.o)
			if err != nil {
				t.Fatal(err)
			}
			m, err := contents(a)
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := m[c.entry]; !ok || got != c.body {
				t.Errorf("%q is %q, %v, want %q", c.entry, got, ok, c.body)
			}
		})
	}
	a, err := open(with(raw{name: "run", edit: func(_, c []byte) { le.PutUint32(c[38:], 0o104755<<16) }}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := a.Find("run"); !ok || e.Mode.String() != "urwxr-xr-x" {
		t.Errorf("run: %+v, %v", e, ok)
	}
	if _, ok := a.Find("no"); ok {
		t.Error("found what is not there")
	}
	if _, err := a.ReadAll(&a.Entries[1], 2); err == nil {
		t.Error("read more than the limit")
	}
	if a, err := open(rawZip(), Options{Empty: true}); err != nil || len(a.Entries) != 0 {
		t.Errorf("an empty archive: %v", err)
	}
}

// commented puts a comment behind an archive.
func commented(b []byte, text string) []byte {
	b = append(bytes.Clone(b), text...)
	le.PutUint16(b[len(b)-len(text)-2:], uint16(len(text)))
	return b
}

// described is an archive of one stored entry with a data descriptor of n
// bytes; change spoils it.
func described(n int, change ...func(descriptor []byte)) []byte {
	d := le.AppendUint32(nil, sigDescriptor)
	d = le.AppendUint32(d, crc32.ChecksumIEEE([]byte("hello")))
	if n >= 20 {
		d = le.AppendUint64(le.AppendUint64(d, 5), 5)
	} else {
		d = le.AppendUint32(le.AppendUint32(d, 5), 5)
	}
	d = d[len(d)-n:]
	for _, f := range change {
		f(d)
	}
	return rawZip(raw{name: "a", body: "hello", gap: string(d), edit: func(l, c []byte) {
		le.PutUint16(l[6:], flagDescriptor)
		le.PutUint16(c[8:], flagDescriptor)
		clear(l[14:26])
	}})
}

// TestReport: what is let pass where somebody is told, and what is not.
func TestReport(t *testing.T) {
	good := with()
	both := func(at int, v uint16) func(l, c []byte) {
		return func(l, c []byte) { le.PutUint16(l[at:], v); le.PutUint16(c[at+2:], v) }
	}
	mode := func(m uint32) func(l, c []byte) { return func(_, c []byte) { le.PutUint32(c[38:], m<<16) } }
	// All offsets counted from the start of the file, as zip -A makes them.
	adjusted := append([]byte("#!sh\n"), good...)
	end := adjusted[len(adjusted)-lenEnd:]
	dir := int(le.Uint32(end[16:])) + 5
	le.PutUint32(end[16:], uint32(dir))
	for at := dir; le.Uint32(adjusted[at:]) == sigCentral; at += lenCentral + int(le.Uint16(adjusted[at+28:])) {
		le.PutUint32(adjusted[at+42:], le.Uint32(adjusted[at+42:])+5)
	}
	for name, c := range map[string]struct {
		b    []byte
		want []Kind // nil: refused
	}{
		"nothing":         {good, []Kind{}},
		"prefix":          {append([]byte("MZ"), good...), []Kind{Prefix}},
		"prefix, zip64":   {append([]byte("MZ"), zip64(good, nil)...), []Kind{Prefix}},
		"prefix, counted": {adjusted, []Kind{Prefix}},
		"prefix of none":  {append([]byte("MZ"), rawZip()...), []Kind{Prefix}},
		"suffix":          {append(bytes.Clone(good), "more"...), []Kind{Trailing}},
		"comment":         {commented(good, "hi"), []Kind{}},
		"gap":             {with(raw{name: "a", gap: "PK"}), []Kind{Gap}},
		"gap at end":      {rawZip(raw{name: "a", gap: "PK"}), []Kind{Gap}},
		"escape":          {with(raw{name: "../a"}), []Kind{Path}},
		"twice":           {with(raw{name: "a"}, raw{name: "a"}), []Kind{Duplicate}},
		"file and folder": {with(raw{name: "a"}, raw{name: "a/b"}), []Kind{Duplicate}},
		"letter case":     {with(raw{name: "a"}, raw{name: "A"}), []Kind{Collision}},
		"symlink":         {with(raw{name: "a", body: "/etc/passwd", edit: mode(0o120777)}), []Kind{Link}},
		"device":          {with(raw{name: "a", edit: mode(0o020666)}), []Kind{Device}},
		"no mode":         {with(raw{name: "a/", edit: mode(0xffff)}), []Kind{}},
		"encrypted":       {with(raw{name: "a", edit: both(6, 1)}), []Kind{Encrypted}},
		"bzip2":           {with(raw{name: "a", edit: both(8, 12)}), []Kind{Method}},
		"two records":     {commented(good, string(rawZip())), nil},
		"overlap":         {with(raw{name: "a"}, raw{name: "b", edit: func(_, c []byte) { le.PutUint32(c[42:], 0) }}), nil},
		"other name":      {bytes.Replace(with(raw{name: "a"}), []byte("a"), []byte("b"), 1), nil},
		"local size":      {with(raw{name: "a", body: "b", edit: func(l, _ []byte) { le.PutUint32(l[22:], 2) }}), nil},
		"descriptor":      {described(16, func(d []byte) { d[15]++ }), nil},
		"cut":             {good[:len(good)-1], nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := []Kind{}
			a, err := open(c.b, Options{Descriptors: true, Comment: true, Empty: true, Report: func(d *Defect) {
				if d.Error() == "" {
					t.Error("a defect without text")
				}
				got = append(got, d.Kind)
			}})
			if c.want == nil {
				if d, ok := errors.AsType[*Defect](err); !ok || d.Kind != Malformed {
					t.Errorf("got %v, want it malformed", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("defects (-want +got):\n%s", diff)
			}
			for i := range a.Entries {
				if e := &a.Entries[i]; !e.Unreadable {
					if _, err := a.ReadAll(e, 1<<20); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	b := with()
	for name, c := range map[string]struct {
		l    Limits
		want Kind
	}{
		"entries":   {Limits{Entries: 2}, TooMany},
		"directory": {Limits{Directory: 100}, TooMany},
		"unpacked":  {Limits{Unpacked: 11}, TooLarge},
	} {
		_, err := open(b, Options{Limits: c.l})
		if d, ok := errors.AsType[*Defect](err); !ok || d.Kind != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if _, err := open(b, Options{Limits: Limits{Entries: 3, Directory: 1000, Unpacked: 12}}); err != nil {
		t.Error(err)
	}
}

// TestReaderChecks: an entry that is not what the directory tells ends in a
// defect, never in io.EOF.
func TestReaderChecks(t *testing.T) {
	spoil := func(b []byte, from, to string) []byte {
		c := bytes.Replace(bytes.Clone(b), []byte(from), []byte(to), 1)
		if bytes.Equal(b, c) {
			t.Fatalf("%q is not there", from)
		}
		return c
	}
	deflated := packed(t, false, raw{name: "a", body: "hello, hello, hello"})
	flip := bytes.Clone(deflated)
	flip[lenLocal+1] ^= 0x06 // the type of the first block
	short := func(l, c []byte) { le.PutUint32(l[22:], 3); le.PutUint32(c[24:], 3) }
	for name, c := range map[string]struct {
		b    []byte
		want Kind
	}{
		"changed":       {spoil(rawZip(raw{name: "a", body: "hello"}), "hello", "hallo"), Checksum},
		"broken stream": {flip, Malformed},
		"longer":        {packedAs(t, "hello", short), Checksum},
	} {
		a, err := open(c.b, Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = a.ReadAll(&a.Entries[0], 100)
		if d, ok := errors.AsType[*Defect](err); !ok || d.Kind != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// packedAs is a deflated entry whose headers edit spoils.
func packedAs(t *testing.T, body string, edit func(l, c []byte)) []byte {
	t.Helper()
	var p bytes.Buffer
	d, err := flate.NewWriter(&p, 9)
	if err != nil {
		t.Fatal(err)
	}
	_, werr := d.Write([]byte(body))
	if err := errors.Join(werr, d.Close()); err != nil {
		t.Fatal(err)
	}
	return rawZip(raw{name: "a", body: p.String(), edit: func(l, c []byte) {
		le.PutUint16(l[8:], methodDeflated)
		le.PutUint16(c[10:], methodDeflated)
		edit(l, c)
	}})
}

// failing is a reader whose disk is broken: no verdict on the archive.
type failing struct{}

var errDisk = errors.New("input/output error")

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestOpenKeepsCause(t *testing.T) {
	for _, o := range []Options{{}, {Comment: true}} {
		_, err := Open(failing{}, 1000, o)
		if _, ok := errors.AsType[*Defect](err); ok || !errors.Is(err, errDisk) {
			t.Errorf("got %v", err)
		}
	}
}

// FuzzOpen: never panics; what is accepted holds every rule, and what the
// strict options accept the loose ones accept without a word.
func FuzzOpen(f *testing.F) {
	seeds := [][]byte{with(), zip64(with(), nil), with(raw{name: "a", gap: "x"}), described(16), described(24), commented(with(), "hi"), packed(f, false, raw{name: "a", body: "aaaa"})}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		strict, err := open(b, Options{})
		told := 0
		loose, lerr := open(b, Options{Descriptors: true, Comment: true, Empty: true, Report: func(*Defect) { told++ }})
		if err == nil && (lerr != nil || told > 0 || len(loose.Entries) != len(strict.Entries)) {
			t.Fatalf("strict accepts, loose says %v, %d defects", lerr, told)
		}
		if lerr != nil {
			return
		}
		stop := int64(0)
		order := slices.Clone(loose.Entries)
		slices.SortFunc(order, func(x, y Entry) int { return int(x.start - y.start) })
		for _, e := range order {
			if e.start < stop || e.Packed < 0 || e.start+e.Packed > int64(len(b)) {
				t.Fatalf("%+v overlaps or is outside", e)
			}
			stop = e.start + e.Packed
			if told == 0 && CheckName(strings.TrimSuffix(e.Name, "/")) != nil {
				t.Fatalf("%q", e.Name)
			}
			if e.Size < 1<<20 {
				if got, err := loose.ReadAll(&e, 1<<20); err == nil && (int64(len(got)) != e.Size || crc32.ChecksumIEEE(got) != e.CRC) {
					t.Fatalf("%q: read %d bytes", e.Name, len(got))
				}
			}
		}
	})
}
