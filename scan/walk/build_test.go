package walk

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	writexz "github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// one is a file of an archive that a test makes.
type one struct {
	name string
	body string
	// stored keeps a zip entry from being compressed.
	stored bool
	mode   uint32 // Unix mode of a zip or 7z entry
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// zipOf makes a zip archive without data descriptors: entries are stored, or
// deflated in a single pass.
func zipOf(t testing.TB, files ...one) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		if f.stored {
			h.Method = zip.Store
		}
		if f.mode != 0 {
			h.CreatorVersion, h.ExternalAttrs = 3<<8, f.mode<<16
		}
		e, err := w.CreateHeader(h)
		must(t, err)
		_, err = io.WriteString(e, f.body)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// tarOf makes a tar archive; an entry's size is that of its body.
func tarOf(t testing.TB, entries ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		switch e := e.(type) {
		case one:
			must(t, w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.body)), Typeflag: tar.TypeReg}))
			_, err := io.WriteString(w, e.body)
			must(t, err)
		case tar.Header:
			must(t, w.WriteHeader(&e))
			_, err := io.CopyN(w, zeros{}, e.Size)
			must(t, err)
		default:
			t.Fatalf("no entry: %T", e)
		}
	}
	must(t, w.Close())
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// packer is a writer of a compressed format.
func pack(t testing.TB, kind Kind, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case Gzip:
		w, err = gzip.NewWriterLevel(&out, gzip.BestCompression)
	case XZ:
		w, err = writexz.NewWriter(&out)
	case Zstd:
		w, err = zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	case LZ4:
		w = lz4.NewWriter(&out)
	default:
		t.Fatalf("no writer for %s", kind)
	}
	must(t, err)
	_, err = w.Write(b)
	must(t, err, w.Close())
	return out.Bytes()
}

// bzip2Hello is "hello, hello\n", which the standard library cannot pack.
const bzip2Hello = "BZh91AY&SY\x9f<\x11\xf3\x00\x00\x03Q\x00\x00\x10@\x04\x02D\xa0\x00!)\xa3\x10\x86\x02\xf2\x83p\xa1\xe2\xeeH\xa7\n\x12\x13\xe7\x82>`"

// arOf makes an ar archive with short names.
func arOf(files ...one) []byte {
	b := []byte(arMagic)
	for _, f := range files {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", f.name, 0, 0, 0, 0o100644, len(f.body), f.body)
		if len(f.body)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

// debOf makes a .deb with that data.tar, packed as gzip.
func debOf(t testing.TB, data []byte) []byte {
	t.Helper()
	control := tarOf(t, one{name: "./control", body: "Package: x\n"})
	return arOf(one{name: "debian-binary", body: "2.0\n"}, one{name: "control.tar.gz", body: string(pack(t, Gzip, control))},
		one{name: "data.tar.gz", body: string(pack(t, Gzip, data))})
}

// sevenOf makes a 7z archive of one folder with one coder; change may spoil
// the header.
func sevenOf(t testing.TB, method string, files []one, change ...func(header []byte) []byte) []byte {
	t.Helper()
	var plain bytes.Buffer
	for _, f := range files {
		plain.WriteString(f.body)
	}
	packed, properties := plain.Bytes(), []byte(nil)
	if method == methodLZMA {
		var b bytes.Buffer
		w, err := lzma.WriterConfig{DictCap: 1 << 16, Size: int64(plain.Len()), SizeInHeader: true}.NewWriter(&b)
		must(t, err)
		_, err = w.Write(plain.Bytes())
		must(t, err, w.Close())
		properties, packed = b.Bytes()[:5], b.Bytes()[13:]
	}
	num := func(b []byte, n int) []byte { // of eight bytes
		return binary.LittleEndian.AppendUint64(append(b, 0xff), uint64(n))
	}
	h := []byte{sevenHeader, sevenMainStreams, sevenPackInfo}
	h = append(num(num(h, 0), 1), sevenSize)
	h = append(num(h, len(packed)), sevenEnd, sevenUnpackInfo, sevenFolder, 1, 0, 1)
	flags := byte(len(method))
	if properties != nil {
		flags |= 0x20
	}
	h = append(append(h, flags), method...)
	if properties != nil {
		h = append(append(h, byte(len(properties))), properties...)
	}
	h = append(num(append(h, sevenUnpackSize), plain.Len()), sevenEnd, sevenSubStreams, sevenNumStreams)
	h = append(num(h, len(files)), sevenSize)
	for _, f := range files[:len(files)-1] {
		h = num(h, len(f.body))
	}
	h = append(h, sevenCRC, 1)
	for _, f := range files {
		h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE([]byte(f.body)))
	}
	h = append(h, sevenEnd, sevenEnd, sevenFilesInfo)
	h = append(num(h, len(files)), sevenNames)
	var names, attrs []byte
	for _, f := range files {
		for _, c := range append(utf16.Encode([]rune(f.name)), 0) {
			names = binary.LittleEndian.AppendUint16(names, c)
		}
		attrs = binary.LittleEndian.AppendUint32(attrs, f.mode<<16)
	}
	h = append(append(num(h, len(names)+1), 0), names...)
	h = append(append(num(append(h, sevenAttributes), len(attrs)+2), 1, 0), attrs...)
	h = append(h, sevenEnd, sevenEnd)
	for _, f := range change {
		h = f(h)
	}
	b := append([]byte("7z\xbc\xaf\x27\x1c\x00\x04"), make([]byte, 24)...)
	binary.LittleEndian.PutUint64(b[12:], uint64(len(packed)))
	binary.LittleEndian.PutUint64(b[20:], uint64(len(h)))
	binary.LittleEndian.PutUint32(b[28:], crc32.ChecksumIEEE(h))
	binary.LittleEndian.PutUint32(b[8:], crc32.ChecksumIEEE(b[12:32]))
	return append(append(b, packed...), h...)
}
