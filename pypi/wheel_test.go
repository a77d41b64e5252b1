package pypi

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/internal/strictzip"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

const wheelName = "x-1.0-py3-none-any.whl"

func checkBytes(name string, b []byte) (*Checked, error) {
	return CheckFile(name, bytes.NewReader(b), int64(len(b)))
}

func TestCheckWheel(t *testing.T) {
	for name, b := range map[string][]byte{
		"plain":        pypitest.Wheel(wheelName, ">=3.9").Body,
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

// TestWheelZipRefused: what package strictzip refuses is no wheel.
func TestWheelZipRefused(t *testing.T) {
	good := pypitest.Wheel(wheelName, "").Body
	var described bytes.Buffer
	w := zip.NewWriter(&described)
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
	for name, c := range map[string]struct {
		b    []byte
		text string
	}{
		"empty":           {nil, "EOF"},
		"prefix":          {append([]byte("MZ"), good...), "does not end where"},
		"suffix":          {append(bytes.Clone(good), 0), "no end record"},
		"data descriptor": {described.Bytes(), "data descriptor"},
		"twice":           {pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "X/__init__.py"}).Body, "there twice"},
		"dot dot":         {pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "x/../../y"}).Body, ".. part"},
		"bomb":            {pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "x/zeros", Body: strings.Repeat("\x00", 65<<20)}).Body, "bomb"},
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
	binary.LittleEndian.PutUint32(sum, crc32.ChecksumIEEE([]byte(meta)))
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
		"RECORD twice":       {change("RECORD", info+"RECORD,,\n", info+"RECORD,,\n"+info+"WHEEL,,\n"), "RECORD: line 5: " + `"x-1.0.dist-info/WHEEL" is there twice`},
		"RECORD other case":  {change("RECORD", info+"RECORD,,\n", info+"RECORD,,\nX/__INIT__.py,,\n"), "RECORD: line 5: " + `"X/__INIT__.py" is there twice`},
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
	if _, err := checkBytes(wheelName, change("RECORD", info+"RECORD,,\n", info+"RECORD,,\n"+info+"RECORD,,\n")); err != nil {
		t.Errorf("the same line of RECORD again: %v", err)
	}
}

// TestWheelScripts: a command is written under its name, wherever that leads.
func TestWheelScripts(t *testing.T) {
	for text, bad := range map[string]bool{
		"[console_scripts]\npip3.11 = x:main\nf2py=x.f2py:main [extra]\n": false,
		"[console_scripts]\n# ../a = x:b\nlong =\n    x.long:main\n":      false,
		"[other.group]\nimage/png = x:png\n":                              false,
		"\n[gui_scripts]\n\nx = x:main":                                   false,
		"[console_scripts]\n../../x = x:main":                             true,
		"[console_scripts]\r\nok = x:main\r\n  ../x = x:main\r\n":         true,
		"\ufeff[gui_scripts]\na/b=x:main":                                 true,
		"[console_scripts]\na\\b = x:main":                                true,
		"[console_scripts]\n.. = x:main":                                  true,
		"[console_scripts]\n = x:main":                                    true,
		"[console_scripts]\nC:x = x:main":                                 true,
		"[console_scripts]\n../x: x:main":                                 true,
		"[ Console_Scripts ]\n/etc/x = x:main":                            true,
		"[other]\v[console_scripts]\u2028../x = x:main":                   true,
	} {
		b := pypitest.Wheel(wheelName, "", pypitest.Entry{Name: "x-1.0.dist-info/entry_points.txt", Body: text}).Body
		_, err := checkBytes(wheelName, b)
		if !bad {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		wantRefusal(t, err, artifact.ErrIntegrity, "PYPI-WHEEL", wheelName)
		if err == nil || !strings.Contains(err.Error(), "entry_points.txt") {
			t.Errorf("%q: got %v", text, err)
		}
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
		"bomb":          {pypitest.TarGz(info, pypitest.Entry{Name: "foo-bar-1.0/x", Body: strings.Repeat("\x00", strictzip.BombSize)}), "bomb"},
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

// TestSdistLinks: where a link leads, and what is reached through one.
func TestSdistLinks(t *testing.T) {
	const name, info = "foo-1.0.tar.gz", "Metadata-Version: 1.0\nName: foo\nVersion: 1.0\n"
	type member struct {
		name, link string
		kind       byte
	}
	archive := func(members ...member) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		err := w.WriteHeader(&tar.Header{Name: "foo-1.0/PKG-INFO", Typeflag: tar.TypeReg, Size: int64(len(info))})
		if err == nil {
			_, err = w.Write([]byte(info))
		}
		for _, m := range members {
			if err == nil {
				err = w.WriteHeader(&tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link})
			}
		}
		if err := errors.Join(err, w.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	file := func(name string) member { return member{name: "foo-1.0/" + name, kind: tar.TypeReg} }
	soft := func(name, to string) member { return member{"foo-1.0/" + name, to, tar.TypeSymlink} }
	hard := func(name, to string) member { return member{"foo-1.0/" + name, to, tar.TypeLink} }
	for what, c := range map[string]struct {
		members []member
		text    string // of the refusal; empty: taken
	}{
		"beside":                  {[]member{file("a"), soft("b", "a")}, ""},
		"up and down":             {[]member{file("d/a"), soft("e/b", "../d/./a")}, ""},
		"a folder":                {[]member{file("d/a"), soft("b", "d/")}, ""},
		"link to link":            {[]member{file("l.so.1.2"), soft("l.so.1", "l.so.1.2"), soft("l.so", "l.so.1")}, ""},
		"hard":                    {[]member{file("a"), hard("b", "foo-1.0/a"), hard("c", "foo-1.0/b")}, ""},
		"behind a link":           {[]member{soft("sub/a", ".."), file("sub/a/x")}, "reached through"},
		"before the link":         {[]member{file("sub/a/x"), soft("sub/a", "..")}, "reached through"},
		"through in other case":   {[]member{soft("A", "d"), file("a/x")}, "reached through"},
		"over a link":             {[]member{soft("a", "b"), file("a")}, "a link and something else"},
		"two links of a name":     {[]member{soft("a", "b"), soft("a", "c")}, "twice"},
		"link behind a link":      {[]member{soft("a", "d"), soft("a/b", "c")}, "reached through"},
		"the top folder":          {[]member{{"foo-1.0", "x", tar.TypeSymlink}}, "reached through"},
		"a sibling":               {[]member{soft("sub/a", "../../other")}, "out of the top"},
		"out and in again":        {[]member{soft("a", "../foo-1.0/b")}, "out of the top"},
		"to nothing":              {[]member{soft("a", "")}, "out of the top"},
		"a drive":                 {[]member{soft("a", "C:x")}, "out of the top"},
		"up through another link": {[]member{soft("a/b/c/x", "../../.."), soft("a/b/c/y", "x/../../b")}, "through another link"},
		"hard, a sibling":         {[]member{hard("a", "other/x")}, "out of the top"},
		"hard, dots":              {[]member{hard("a", "foo-1.0/../x")}, "out of the top"},
		"hard, of a link":         {[]member{soft("a/b/l", "../../x"), hard("h", "foo-1.0/a/b/l")}, "hard link through"},
		"hard, through a link":    {[]member{soft("a", "."), hard("h", "foo-1.0/a/x")}, "hard link through"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := checkBytes(name, archive(c.members...))
			if c.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
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

func TestCheckRecord(t *testing.T) {
	const name, record = "foo-1.0-py3-none-any.whl", "foo-1.0.dist-info/RECORD"
	entries := func() []pypitest.Entry { return pypitest.WheelEntries(name, "") }
	change := func(old, with string) []pypitest.Entry {
		es := entries()
		last := &es[len(es)-1]
		if !strings.Contains(last.Body, old) {
			t.Fatalf("%q is not in RECORD", old)
		}
		last.Body = strings.Replace(last.Body, old, with, 1)
		return es
	}
	tests := map[string]struct {
		entries        []pypitest.Entry
		wrong, missing []string
	}{
		"good": {entries: entries()},
		"changed after it was built": {
			entries: func() []pypitest.Entry {
				es := entries()
				es[0].Body = strings.ToUpper(es[0].Body)
				return es
			}(),
			wrong: []string{"foo/__init__.py: hash "},
		},
		"longer": {
			entries: func() []pypitest.Entry {
				es := entries()
				es[0].Body += "import os"
				return es
			}(),
			wrong: []string{"foo/__init__.py: 29 bytes, 20 in RECORD"},
		},
		"not listed": {
			entries: append([]pypitest.Entry{{Name: "foo.pth", Body: "import os"}}, entries()...),
			missing: []string{"foo.pth is not in RECORD"},
		},
		"not there":   {entries: change("foo/__init__.py", "foo/other.py"), missing: []string{"foo/__init__.py is not in RECORD", "foo/other.py is in RECORD and not in the wheel"}},
		"md5":         {entries: change("__init__.py,sha256=", "__init__.py,md5="), wrong: []string{"foo/__init__.py: its hash in RECORD is md5"}},
		"no hash":     {entries: change(strings.Split(entries()[3].Body, ",")[1], ""), wrong: []string{"foo/__init__.py: no hash in RECORD"}},
		"signed":      {entries: append([]pypitest.Entry{{Name: record + ".jws", Body: "{}"}}, entries()...)},
		"padded hash": {entries: change(",20\n", "=,20\n")},
	}
	for name1, c := range tests {
		t.Run(name1, func(t *testing.T) {
			b := pypitest.Zip(c.entries...)
			rep, err := CheckRecord(name, bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			for what, lists := range map[string][2][]string{"wrong": {c.wrong, rep.Wrong}, "missing": {c.missing, rep.Missing}} {
				if len(lists[0]) != len(lists[1]) {
					t.Fatalf("%s: got %q, want %q", what, lists[1], lists[0])
				}
				for i := range lists[0] {
					if !strings.HasPrefix(lists[1][i], lists[0][i]) {
						t.Errorf("%s: got %q, want %q", what, lists[1], lists[0])
					}
				}
			}
		})
	}
	broken := pypitest.Zip(change(",20\n", ",-1\n")...)
	if _, err := CheckRecord(name, bytes.NewReader(broken), int64(len(broken))); err == nil || !strings.Contains(err.Error(), "size") {
		t.Errorf("a size below zero: %v", err)
	}
}
