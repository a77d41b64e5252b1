package walk

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// walked is what a test sees of a walk.
type walked struct {
	files    []string // "path kind", "+" for those that were opened
	bodies   map[string]string
	result   *Result
	problems []string // "code severity path", "?" for what was not scanned
}

func line(path []string) string { return strings.Join(path, "/") }

// walkBytes walks a blob and checks what holds for every walk.
func walkBytes(t testing.TB, name string, b []byte, o Options) walked {
	t.Helper()
	o.Scratch = t.TempDir()
	out := walked{bodies: make(map[string]string)}
	size := int64(0)
	res, err := Walk(t.Context(), name, bytes.NewReader(b), int64(len(b)), o, func(f *File) error {
		mark := ""
		if f.Opened {
			mark = "+"
		}
		what := string(f.Kind)
		if !f.Regular() {
			what = f.Mode.String()
			if f.Size != 0 || f.Link == "" && f.Mode&fs.ModeSymlink != 0 {
				t.Errorf("%s: %d bytes, link %q", f.Inner(), f.Size, f.Link)
			}
		}
		out.files = append(out.files, line(f.Path)+" "+what+mark)
		size += f.Size
		if !f.Regular() {
			return nil
		}
		body, err := f.Bytes(1 << 30)
		if err != nil {
			return err
		}
		if d := artifact.Sum(body); d != f.Digest {
			t.Errorf("%s: digest is %s, want %s", f.Inner(), f.Digest, d)
		}
		out.bodies[line(f.Path[1:])] = string(body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Files != len(out.files) || res.Bytes != size {
		t.Errorf("result says %d files of %d bytes, want %d of %d", res.Files, res.Bytes, len(out.files), size)
	}
	for _, p := range res.Problems {
		mark := ""
		if p.NotScanned {
			mark = "?"
		}
		if p.Text == "" || strings.ContainsAny(p.Text, "\n\r") || p.Path[0] != name {
			t.Errorf("problem %+v", p)
		}
		out.problems = append(out.problems, strings.TrimPrefix(p.Code, "ARCHIVE-")+mark+" "+p.Severity+" "+line(p.Path))
	}
	out.result = res
	left, err := os.ReadDir(o.Scratch)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the scratch folder: %v, %v", left, err)
	}
	return out
}

// TestWalk: every kind of container, and what is in it.
func TestWalk(t *testing.T) {
	hello := one{name: "a/hello.txt", body: "hello, hello\n"}
	for name, c := range map[string]struct {
		b    []byte
		want []string
	}{
		"plain":        {[]byte(hello.body), []string{"plain text"}},
		"nothing":      {nil, []string{"nothing empty"}},
		"zip":          {zipOf(t, hello), []string{"zip zip+", "zip/a/hello.txt text"}},
		"zip, stored":  {zipOf(t, one{name: "b", body: "hello, hello\n", stored: true}), []string{"zip, stored zip+", "zip, stored/b text"}},
		"tar":          {tarOf(t, hello), []string{"tar tar+", "tar/a/hello.txt text"}},
		"v7":           {v7(tarOf(t, hello)), []string{"v7 tar+", "v7/a/hello.txt text"}},
		"gzip":         {pack(t, Gzip, []byte(hello.body)), []string{"gzip gzip+", "gzip/ text"}},
		"two members":  {append(pack(t, Gzip, []byte("hello, ")), pack(t, Gzip, []byte("hello\n"))...), []string{"two members gzip+", "two members/ text"}},
		"padded":       {append(pack(t, Gzip, []byte(hello.body)), make([]byte, 700)...), []string{"padded gzip+", "padded/ text"}},
		"bzip2":        {[]byte(bzip2Hello), []string{"bzip2 bzip2+", "bzip2/ text"}},
		"xz":           {pack(t, XZ, []byte(hello.body)), []string{"xz xz+", "xz/ text"}},
		"two streams":  {append(pack(t, XZ, []byte("hello, ")), pack(t, XZ, []byte("hello\n"))...), []string{"two streams xz+", "two streams/ text"}},
		"zstd":         {pack(t, Zstd, []byte(hello.body)), []string{"zstd zstd+", "zstd/ text"}},
		"skippable":    {append([]byte("\x50\x2a\x4d\x18\x03\x00\x00\x00abc"), pack(t, Zstd, []byte(hello.body))...), []string{"skippable zstd+", "skippable/ text"}},
		"lz4":          {pack(t, LZ4, []byte(hello.body)), []string{"lz4 lz4+", "lz4/ text"}},
		"two frames":   {append(pack(t, LZ4, []byte("hello, ")), pack(t, LZ4, []byte("hello\n"))...), []string{"two frames lz4+", "two frames/ text"}},
		"ar":           {arOf(one{name: "x/", body: "hello, hello\n"}), []string{"ar ar+", "ar/x text"}},
		"ar, GNU":      {arOf(one{name: "//", body: "a_very_long_name.o/\n"}, one{name: "/0", body: "hello, hello\n"}), []string{"ar, GNU ar+", "ar, GNU/a_very_long_name.o text"}},
		"ar, BSD":      {arOf(one{name: "#1/12", body: "long name.o\x00hello, hello\n"}), []string{"ar, BSD ar+", "ar, BSD/long name.o text"}},
		"7z, copied":   {sevenOf(t, methodCopy, []one{hello, {name: "b", body: "two"}}), []string{"7z, copied 7z+", "7z, copied/a/hello.txt text", "7z, copied/b text"}},
		"7z, LZMA":     {sevenOf(t, methodLZMA, []one{hello}), []string{"7z, LZMA 7z+", "7z, LZMA/a/hello.txt text"}},
		"empty zip":    {zipOf(t), []string{"empty zip zip+"}},
		"empty ar":     {[]byte(arMagic), []string{"empty ar ar+"}},
		"folder":       {zipOf(t, one{name: "d/"}), []string{"folder zip+", "folder/d/ drwxr-xr-x"}},
		"link, inside": {zipOf(t, one{name: "d/l", body: "../x", mode: 0o120777}), []string{"link, inside zip+", "link, inside/d/l Lrwxrwxrwx"}},
		"deb": {debOf(t, tarOf(t, tar.Header{Name: "./usr/", Typeflag: tar.TypeDir, Mode: 0o755}, hello)), []string{
			"deb ar+", "deb/debian-binary text", "deb/control.tar.gz gzip+", "deb/control.tar.gz/ tar+", "deb/control.tar.gz//./control text",
			"deb/data.tar.gz gzip+", "deb/data.tar.gz/ tar+", "deb/data.tar.gz//./usr/ drwxr-xr-x", "deb/data.tar.gz//a/hello.txt text",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := walkBytes(t, name, c.b, Options{})
			if name == "folder" { // made without a mode
				c.want[1] = "folder/d/ d---------"
			}
			if diff := cmp.Diff(c.want, got.files); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if len(got.problems) > 0 {
				t.Errorf("problems: %+v", got.result.Problems)
			}
			for p, body := range got.bodies {
				if strings.HasSuffix(p, "hello.txt") && body != hello.body {
					t.Errorf("%s is %q", p, body)
				}
			}
		})
	}
}

// v7 takes the magic from the first header of a tar archive.
func v7(b []byte) []byte {
	clear(b[257:512])
	return summed(b)
}

// summed puts the right checksum into the first header.
func summed(b []byte) []byte {
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// edited changes a header of a tar archive and its checksum.
func edited(b []byte, edit func(h []byte)) []byte {
	edit(b)
	return summed(b)
}

// TestProblems: every defect has its code, and is told with the whole path.
func TestProblems(t *testing.T) {
	a := one{name: "a", body: "aaaa"}
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	hard := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeLink}
	}
	good := zipOf(t, a, one{name: "b", body: "bbbb", stored: true})
	encrypted := bytes.Clone(good)
	for i := 0; i+10 < len(encrypted); i++ { // the flags of b in both headers
		switch {
		case string(encrypted[i:i+4]) == "PK\x03\x04" && encrypted[i+30] == 'b':
			encrypted[i+6] |= 1
		case string(encrypted[i:i+4]) == "PK\x01\x02" && encrypted[i+46] == 'b':
			encrypted[i+8] |= 1
		}
	}
	method := bytes.Clone(good)
	for i := 0; i+50 < len(method); i++ {
		switch {
		case string(method[i:i+4]) == "PK\x03\x04" && method[i+30] == 'b':
			method[i+8] = 12
		case string(method[i:i+4]) == "PK\x01\x02" && method[i+46] == 'b':
			method[i+10] = 12
		}
	}
	pax := func(records map[string]string) tar.Header {
		return tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: 4, PAXRecords: records, Format: tar.FormatPAX}
	}
	sizes := tarOf(t, pax(map[string]string{"VENDOR.x": "12"}))
	sizes = bytes.Replace(sizes, []byte("15 VENDOR.x=12\n"), []byte("15 size=000004\n"), 1)
	sparse := tarOf(t, tar.Header{Name: "GNUSparseFile.0/a", Typeflag: tar.TypeReg, Size: 0, Format: tar.FormatPAX, PAXRecords: map[string]string{
		"VEN.sparse.major": "1", "VEN.sparse.minor": "0", "VEN.sparse.realsize": "1000000", "VEN.sparse.name": "a",
	}})
	sparse = bytes.ReplaceAll(sparse, []byte("VEN.sparse."), []byte("GNU.sparse."))
	sparse = slices.Concat(edited2(sparse[:1536], 1024, func(h []byte) { copy(h[124:], "00000001004\x00") }),
		[]byte("1\n0\n4\n"), make([]byte, 506), []byte("aaaa"), make([]byte, 508), tarOf(t, one{name: "b"}))
	gz := pack(t, Gzip, []byte("hello"))
	crc := bytes.Clone(gz)
	crc[len(crc)-8]++
	blocked := pack(t, Zstd, bytes.Repeat([]byte("abc"), 100))
	blocked[len(blocked)-1]++ // of the checksum
	dictionary := pack(t, XZ, []byte("hello"))
	dictionary[16] = 29 // 96 MiB
	binary.LittleEndian.PutUint32(dictionary[20:], crc32.ChecksumIEEE(dictionary[12:20]))
	for name, c := range map[string]struct {
		b        []byte
		want     []string // outside of a file system
		wantTree []string // in a layer; nil is the same
		files    int      // that are visited
	}{
		"duplicate.zip":   {b: zipOf(t, a, a), want: []string{"DUPLICATE high %"}, files: 3},
		"collision.zip":   {b: zipOf(t, a, one{name: "A"}), want: []string{"COLLISION high %"}, files: 3},
		"path.zip":        {b: zipOf(t, one{name: "../a"}), want: []string{"PATH high %/../a"}, files: 2},
		"absolute.zip":    {b: zipOf(t, one{name: "/a"}), want: []string{"PATH high %//a"}, files: 2},
		"backslash.zip":   {b: zipOf(t, one{name: `a\b`}), want: []string{`PATH high %/a\b`}, files: 2},
		"link.zip":        {b: zipOf(t, one{name: "l", body: "../../etc/passwd", mode: 0o120777}), want: []string{"LINK high %/l"}, files: 2},
		"device.zip":      {b: zipOf(t, one{name: "d", mode: 0o020666}), want: []string{"DEVICE high %/d"}, files: 2},
		"prefix.zip":      {b: append([]byte("#!/bin/sh\nexit\n"), good...), want: []string{"PREFIX high %/a"}, files: 3},
		"trailing.zip":    {b: append(bytes.Clone(good), "more"...), want: []string{"TRAILING high %"}, files: 3},
		"encrypted.zip":   {b: encrypted, want: []string{"ENCRYPTED? high %/b"}, files: 2},
		"method.zip":      {b: method, want: []string{"METHOD? high %/b"}, files: 2},
		"crc.zip":         {b: bytes.Replace(good, []byte("bbbb"), []byte("bbbc"), 1), want: []string{"CRC high %/b"}, files: 3},
		"malformed.zip":   {b: good[:len(good)-1], want: []string{"MALFORMED high %"}, files: 1},
		"broken.zip":      {b: flipped(good, 31), want: []string{"MALFORMED high %/a"}, files: 3},
		"duplicate.tar":   {b: tarOf(t, a, a), want: []string{"DUPLICATE high %/a"}, files: 3},
		"folders.tar":     {b: tarOf(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir}, tar.Header{Name: "./d", Typeflag: tar.TypeDir}), want: []string{"DUPLICATE high %/./d"}, wantTree: []string{}, files: 3},
		"file-folder.tar": {b: tarOf(t, a, one{name: "a/b"}), want: []string{"DUPLICATE high %/a/b"}, wantTree: []string{}, files: 3},
		"collision.tar":   {b: tarOf(t, a, one{name: "A"}), want: []string{"COLLISION high %/A"}, wantTree: []string{}, files: 3},
		"folder-case.tar": {b: tarOf(t, one{name: "d/a"}, one{name: "D/b"}), want: []string{"COLLISION high %/D/b"}, wantTree: []string{}, files: 3},
		"path.tar":        {b: tarOf(t, one{name: "a/../../b"}), want: []string{"PATH high %/a/../../b"}, files: 2},
		"absolute.tar":    {b: tarOf(t, one{name: "/etc/x"}), want: []string{"PATH high %//etc/x"}, wantTree: []string{}, files: 2},
		"backslash.tar":   {b: tarOf(t, one{name: `a\b`}), want: []string{`PATH high %/a\b`}, wantTree: []string{}, files: 2},
		"control.tar":     {b: tarOf(t, one{name: "a\x1b[2J"}), want: []string{"PATH high %/a\x1b[2J"}, files: 2},
		"escape.tar":      {b: tarOf(t, link("l", "../x")), want: []string{"LINK high %/l"}, wantTree: []string{}, files: 2},
		"abs-link.tar":    {b: tarOf(t, link("l", "/etc")), want: []string{"LINK high %/l"}, wantTree: []string{}, files: 2},
		"behind-link.tar": {b: tarOf(t, link("l", "d"), one{name: "l/x"}), want: []string{"LINK high %/l/x"}, wantTree: []string{}, files: 3},
		"inner-link.tar":  {b: tarOf(t, a, link("d/l", "../a"), hard("h", "a")), want: []string{}, files: 4},
		"hard-out.tar":    {b: tarOf(t, hard("h", "../../etc/shadow")), want: []string{"LINK high %/h"}, files: 2},
		"hard-none.tar":   {b: tarOf(t, hard("h", "none")), want: []string{"LINK high %/h"}, wantTree: []string{}, files: 2},
		"device.tar":      {b: tarOf(t, tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}), want: []string{"DEVICE high %/null"}, wantTree: []string{}, files: 2},
		"sparse.tar":      {b: sparse, want: []string{"SPARSE? high %/a"}, files: 2},
		"sparse-gnu.tar": {b: edited(tarOf(t, a, one{name: "b"}), func(h []byte) {
			h[156] = 'S'
			copy(h[257:], "ustar  \x00")
			clear(h[345:500])
			copy(h[386:], "00000000000\x0000000000004\x00")
			copy(h[483:], "00000000004\x00")
		}), want: []string{"SPARSE? high %/a"}, files: 2},
		"size.tar":      {b: edited2(sizes, 1024, func(h []byte) { copy(h[124:], "00000000003\x00") }), want: []string{"MALFORMED high %/a"}, files: 2},
		"dir-size.tar":  {b: edited(tarOf(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir}), func(h []byte) { copy(h[124:], "00000001000\x00") }), want: []string{"MALFORMED high %/d/"}, files: 2},
		"type.tar":      {b: edited(tarOf(t, a), func(h []byte) { h[156] = 'V' }), want: []string{"MALFORMED high %/a"}, files: 2},
		"global.tar":    {b: tarOf(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "evil"}}, a), want: []string{"MALFORMED high %"}, files: 2},
		"comment.tar":   {b: tarOf(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "abc"}}, a), want: []string{}, files: 2},
		"trailing.tar":  {b: append(tarOf(t, a), "more"...), want: []string{"TRAILING high %"}, files: 2},
		"cut.tar":       {b: tarOf(t, one{name: "a", body: strings.Repeat("a", 2000)})[:1024], want: []string{"MALFORMED high %"}, files: 1},
		"malformed.tar": {b: append(tarOf(t, a)[:1024], bytes.Repeat([]byte("x"), 512)...), want: []string{"MALFORMED high %"}, files: 2},
		"broken.tar":    {b: flipped(tarOf(t, a), 0), want: []string{"MALFORMED high %"}, files: 1},
		"trailing.gz":   {b: append(bytes.Clone(gz), "more"...), want: []string{"TRAILING high %"}, files: 2},
		"crc.gz":        {b: crc, want: []string{"CRC high %"}, files: 2},
		"cut.gz":        {b: gz[:len(gz)-3], want: []string{"MALFORMED high %"}, files: 2},
		"cut-head.gz":   {b: gz[:5], want: []string{"MALFORMED high %"}, files: 1},
		"trailing.xz":   {b: append(pack(t, XZ, []byte("hello")), "more!"...), want: []string{"TRAILING high %"}, files: 2},
		"dictionary.xz": {b: dictionary, want: []string{"LIMIT-SIZE? high %"}, files: 1},
		"trailing.zst":  {b: append(pack(t, Zstd, []byte("hello")), "more!"...), want: []string{"TRAILING high %"}, files: 2},
		"crc.zst":       {b: blocked, want: []string{"CRC high %"}, files: 1},
		"window.zst":    {b: []byte("\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00"), want: []string{"LIMIT-SIZE? high %"}, files: 1},
		"trailing.lz4":  {b: append(pack(t, LZ4, []byte("hello")), "more!"...), want: []string{"TRAILING high %"}, files: 2},
		"trailing.bz2":  {b: []byte(bzip2Hello + "more!"), want: []string{"TRAILING high %"}, files: 2},
		"duplicate.deb": {b: arOf(one{name: "debian-binary", body: "2.0\n"}, one{name: "x"}, one{name: "x"}), want: []string{"DUPLICATE high %/x"}, files: 4},
		"lzma.deb":      {b: arOf(one{name: "debian-binary", body: "2.0\n"}, one{name: "data.tar.lzma", body: "\x5d\x00\x00\x80\x00abc"}), want: []string{"METHOD? high %/data.tar.lzma"}, files: 3},
		"path.ar":       {b: arOf(one{name: "../x"}), want: []string{"PATH high %/../x"}, files: 2},
		"trailing.ar":   {b: append(arOf(a), "more"...), want: []string{"TRAILING high %"}, files: 2},
		"malformed.ar":  {b: append(arOf(a), bytes.Repeat([]byte("x"), 60)...), want: []string{"MALFORMED high %"}, files: 2},
		"size.ar":       {b: bytes.Replace(arOf(a), []byte("4         `"), []byte("999       `"), 1), want: []string{"MALFORMED high %"}, files: 1},
		"path.7z":       {b: sevenOf(t, methodCopy, []one{{name: "../a", body: "x"}}), want: []string{"PATH high %/../a"}, files: 2},
		"duplicate.7z":  {b: sevenOf(t, methodCopy, []one{a, a}), want: []string{"DUPLICATE high %/a"}, files: 3},
		"link.7z":       {b: sevenOf(t, methodCopy, []one{{name: "l", body: "/etc", mode: 0o120777}}), want: []string{"LINK high %/l"}, files: 2},
		"device.7z":     {b: sevenOf(t, methodCopy, []one{{name: "d", body: "x", mode: 0o020666}}), want: []string{"DEVICE high %/d"}, files: 2},
		"crc.7z":        {b: flipped(sevenOf(t, methodCopy, []one{a}), 32), want: []string{"CRC high %/a"}, files: 2},
		"encrypted.7z":  {b: sevenOf(t, methodAES, []one{a}), want: []string{"ENCRYPTED? high %"}, files: 1},
		"method.7z":     {b: sevenOf(t, "\x03\x04\x01", []one{a}), want: []string{"METHOD? high %"}, files: 1},
		"trailing.7z":   {b: append(sevenOf(t, methodCopy, []one{a}), "more"...), want: []string{"TRAILING high %"}, files: 2},
		"header.7z":     {b: sevenOf(t, methodCopy, []one{a}, func(h []byte) []byte { return append(h, 0) }), want: []string{"MALFORMED high %"}, files: 1},
		"count.7z": {b: sevenOf(t, methodCopy, []one{a}, func(h []byte) []byte {
			i := bytes.IndexByte(h, sevenFilesInfo)
			binary.LittleEndian.PutUint64(h[i+2:], 1<<33)
			return h
		}), want: []string{"LIMIT-ENTRIES? high %"}, files: 1},
		"dictionary.7z": {b: sevenOf(t, methodLZMA, []one{{name: "a", body: strings.Repeat("a", 100)}}, func(h []byte) []byte {
			i := bytes.Index(h, []byte(methodLZMA))
			binary.LittleEndian.PutUint32(h[i+5:], 1<<31)
			i = bytes.IndexByte(h, sevenUnpackSize)
			binary.LittleEndian.PutUint64(h[i+2:], 1<<40)
			return h
		}), want: []string{"LIMIT-SIZE? high %"}, files: 1},
		"cut.7z": {b: sevenOf(t, methodCopy, []one{a})[:40], want: []string{"MALFORMED high %"}, files: 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, tree := range []bool{false, true} {
				got := walkBytes(t, name, c.b, Options{FileSystem: tree})
				want := c.want
				if tree && c.wantTree != nil {
					want = c.wantTree
				}
				want = slices.Clone(want)
				for i := range want {
					want[i] = strings.Replace(want[i], "%", name, 1)
				}
				if diff := cmp.Diff(want, got.problems, emptyIsNil); diff != "" {
					t.Errorf("file system %v: problems (-want +got):\n%s%+v", tree, diff, got.result.Problems)
				}
				if len(got.files) != c.files {
					t.Errorf("file system %v: %d files, want %d: %q", tree, len(got.files), c.files, got.files)
				}
			}
			// Below a file system odd archives are common.
			layer := tarOf(t, one{name: "usr/" + name, body: string(c.b)})
			for _, p := range walkBytes(t, "layer", layer, Options{FileSystem: true}).result.Problems {
				if want := map[bool]string{true: "high", false: "low"}[p.NotScanned]; p.Severity != want || p.Path[1] != "usr/"+name {
					t.Errorf("in a layer: %+v, want severity %s", p, want)
				}
			}
		})
	}
}

var emptyIsNil = cmp.Transformer("nil", func(s []string) string { return strings.Join(s, "\n") })

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x55
	return b
}

func edited2(b []byte, at int, edit func(h []byte)) []byte {
	edited(b[at:], edit)
	return b
}

// TestNesting: the whole path is named, and the limit of depth holds.
func TestNesting(t *testing.T) {
	b := zipOf(t, one{name: "../evil", body: "x"})
	b = tarOf(t, one{name: "five.zip", body: string(b)})
	b = pack(t, XZ, b)
	b = zipOf(t, one{name: "three.tar.xz", body: string(b)})
	b = debOf(t, tarOf(t, one{name: "./usr/two.zip", body: string(b)}))
	got := walkBytes(t, "one.deb", b, Options{})
	path := "one.deb/data.tar.gz//./usr/two.zip/three.tar.xz//five.zip/../evil"
	if diff := cmp.Diff([]string{"PATH low " + path}, got.problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if !slices.Contains(got.files, path+" text") {
		t.Errorf("%q was not visited: %q", path, got.files)
	}
	for depth := 1; depth <= 7; depth++ {
		got := walkBytes(t, "one.deb", b, Options{Limits: Limits{Depth: depth}})
		want := []string{"LIMIT-DEPTH? high "}
		if depth == 7 {
			want = []string{"PATH low "}
		}
		last := got.problems[len(got.problems)-1]
		if !strings.HasPrefix(last, want[0]) {
			t.Errorf("depth %d: %q, want %q", depth, got.problems, want)
		}
	}
}

// TestLayer: what a layer has is no problem, and is seen.
func TestLayer(t *testing.T) {
	b := tarOf(t,
		tar.Header{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 10},
		tar.Header{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "/usr/bin", Mode: 0o777},
		tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Mode: 0o666},
		tar.Header{Name: "run/pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
		tar.Header{Name: "usr/bin/sudo", Typeflag: tar.TypeLink, Linkname: "usr/bin/su"},
		one{name: "etc/.wh.passwd"}, one{name: "etc/A"}, one{name: "etc/a"},
		one{name: `lib/system-a\x2db.slice`},
	)
	for _, kind := range []Kind{Tar, Gzip, Zstd} {
		packed := b
		if kind != Tar {
			packed = pack(t, kind, b)
		}
		got := walkBytes(t, "layer", packed, Options{FileSystem: true})
		if len(got.problems) > 0 {
			t.Errorf("%s: %q", kind, got.problems)
		}
		for i := range got.files {
			got.files[i] = strings.Replace(got.files[i], "layer//", "layer/", 1)
		}
		want := []string{
			"layer/usr/bin/ drwxr-xr-x", "layer/usr/bin/su data", "layer/usr/bin/ drwxr-xr-x", "layer/bin Lrwxrwxrwx", "layer/dev/null Dcrw-rw-rw-",
			"layer/run/pipe prw-------", "layer/usr/bin/sudo ?---------", "layer/etc/.wh.passwd empty", "layer/etc/A empty", "layer/etc/a empty", `layer/lib/system-a\x2db.slice empty`,
		}
		if diff := cmp.Diff(want, got.files[len(got.files)-len(want):]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
	}
	// Of an empty layer zeros are all there is.
	for _, o := range []Options{{FileSystem: true}, {}} {
		got := walkBytes(t, "layer", pack(t, Gzip, make([]byte, 1024)), o)
		want := "layer/ data"
		if o.FileSystem {
			want = "layer/ tar+"
		}
		if got.files[1] != want || len(got.problems) > 0 {
			t.Errorf("%+v: %q, %q", o, got.files, got.problems)
		}
	}
}

func TestSetuid(t *testing.T) {
	b := tarOf(t, tar.Header{Name: "su", Typeflag: tar.TypeReg, Mode: 0o7755})
	_, err := Walk(t.Context(), "x", bytes.NewReader(b), int64(len(b)), Options{FileSystem: true}, func(f *File) error {
		if want := fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky | 0o755; len(f.Path) == 2 && f.Mode != want {
			t.Errorf("mode %s, want %s", f.Mode, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAppended: a file that starts as something else and ends as a zip archive
// keeps its kind, and is opened.
func TestAppended(t *testing.T) {
	z := zipOf(t, one{name: "a", body: "aaaa"})
	for _, head := range []string{"#!/bin/sh\n", "\x89PNG\r\n\x1a\n picture", "\x7fELF\x02\x01\x01\x00", "GGUF\x03\x00\x00\x00"} {
		b := append([]byte(head), z...)
		got := walkBytes(t, "x", b, Options{})
		if len(got.files) != 2 || !strings.HasSuffix(got.files[0], "+") || got.files[0] == "x zip+" {
			t.Errorf("%q: %q", head, got.files)
		}
		if diff := cmp.Diff([]string{"PREFIX high x/a"}, got.problems); diff != "" {
			t.Errorf("%q: problems (-want +got):\n%s", head, diff)
		}
	}
	for _, b := range []string{"text about PK\x05\x06 records, followed by much more", "x" + strings.Repeat("PK\x05\x06", 100)} {
		if got := walkBytes(t, "x", []byte(b), Options{}); len(got.problems) > 0 || len(got.files) != 1 {
			t.Errorf("%q: %q, %q", b, got.files, got.problems)
		}
	}
}

// TestHeld: what a visitor retains can be read until it is let go, also when
// its container is not held any more.
func TestHeld(t *testing.T) {
	big := strings.Repeat("0123456789", 300_000)
	inner := zipOf(t, one{name: "big", body: big, stored: true}, one{name: "small", body: "small", stored: true})
	b := pack(t, Gzip, tarOf(t, one{name: "inner.zip", body: string(inner)}))
	scratch := t.TempDir()
	var held []*File
	if _, err := Walk(t.Context(), "x", bytes.NewReader(b), int64(len(b)), Options{Scratch: scratch}, func(f *File) error {
		if f.Name() == "big" || f.Name() == "small" {
			f.Retain()
			held = append(held, f)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(held) != 2 {
		t.Fatalf("%d files", len(held))
	}
	var wg sync.WaitGroup
	for range 8 {
		for n, want := range []string{big, "small"} {
			wg.Go(func() {
				if got, err := held[n].Bytes(1 << 30); err != nil || string(got) != want {
					t.Errorf("file %d: %d bytes, %v", n, len(got), err)
				}
			})
		}
	}
	wg.Wait()
	for _, f := range held {
		if err := f.Release(); err != nil {
			t.Error(err)
		}
	}
	for _, f := range held {
		if f.holders.Load() != 0 || f.parent.holders.Load() != 0 || f.parent.parent.holders.Load() != 0 {
			t.Errorf("%s is still held", f.Name())
		}
	}
	if _, err := held[0].parent.parent.Bytes(1 << 30); err == nil {
		t.Error("the scratch file is still open")
	}
}

type failing struct{ err error }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, f.err
	}
	return copy(p, "PK\x03\x04"), f.err
}

// TestErrors: what is no verdict on an archive is an error.
func TestErrors(t *testing.T) {
	none := func(*File) error { return nil }
	if _, err := Walk(t.Context(), "x", failing{syscall.EIO}, 1000, Options{}, none); !errors.Is(err, syscall.EIO) {
		t.Errorf("a broken disk: %v", err)
	}
	short := zipOf(t, one{name: "a", body: "aaaa"})
	if _, err := Walk(t.Context(), "x", bytes.NewReader(short), int64(len(short)+10), Options{}, none); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short blob: %v", err)
	}
	mine := errors.New("mine")
	for _, b := range [][]byte{short, tarOf(t, one{name: "a"}), pack(t, Gzip, []byte("x")), arOf(one{name: "a"}), sevenOf(t, methodCopy, []one{{name: "a", body: "x"}})} {
		for depth := 1; depth <= 2; depth++ {
			res, err := Walk(t.Context(), "x", bytes.NewReader(b), int64(len(b)), Options{Scratch: t.TempDir()}, func(f *File) error {
				if len(f.Path) == depth {
					return mine
				}
				return nil
			})
			if !errors.Is(err, mine) || res != nil {
				t.Errorf("visit's error at depth %d: %v, %v", depth, res, err)
			}
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := Walk(ctx, "x", bytes.NewReader(short), int64(len(short)), Options{}, func(*File) error {
		cancel(mine)
		return nil
	}); !errors.Is(err, mine) {
		t.Errorf("ended in the middle: %v", err)
	}
	big := pack(t, Gzip, make([]byte, 3<<20))
	if _, err := Walk(t.Context(), "x", bytes.NewReader(big), int64(len(big)), Options{Scratch: t.TempDir() + "/none"}, none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no scratch folder: %v", err)
	}
}

// TestNoSpace: a full scratch folder is an error that says so.
func TestNoSpace(t *testing.T) {
	full := &sink{memory: 0, folder: t.TempDir()}
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)
	full.file = f
	werr := full.write([]byte("x"))
	must(t, full.drop())
	w := &walker{}
	if err := w.flawed(errors.Join(&hostError{werr}, nil), place{}, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
