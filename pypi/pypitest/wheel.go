package pypitest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"strings"
)

// An Entry is one file of an archive.
type Entry struct {
	Name  string
	Body  string
	Store bool // stored, not deflated
}

// Zip makes an archive as package indexes demand it: sizes in the local
// headers, no data descriptors.
func Zip(entries ...Entry) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.Name, Method: zip.Deflate, CRC32: crc32.ChecksumIEEE([]byte(e.Body)), UncompressedSize64: uint64(len(e.Body))}
		packed := []byte(e.Body)
		if e.Store || len(e.Body) == 0 {
			h.Method = zip.Store
		} else {
			packed = deflate(packed)
		}
		h.CompressedSize64 = uint64(len(packed))
		f, err := w.CreateRaw(h)
		must(err)
		_, err = f.Write(packed)
		must(err)
	}
	must(w.Close())
	return b.Bytes()
}

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	must(err)
	_, err = w.Write(b)
	must(err)
	must(w.Close())
	return out.Bytes()
}

// must: writing to memory does not fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// WheelEntries are the files of a small wheel: a module, METADATA, WHEEL and
// RECORD. extra files come behind the module.
func WheelEntries(filename, requiresPython string, extra ...Entry) []Entry {
	parts := strings.Split(strings.TrimSuffix(filename, ".whl"), "-")
	name, version := parts[0], parts[1]
	info := name + "-" + version + ".dist-info/"
	meta := fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version)
	if requiresPython != "" {
		meta += "Requires-Python: " + requiresPython + "\n"
	}
	meta += "\nA test package.\n"
	tag := strings.Join(parts[len(parts)-3:], "-")
	entries := append([]Entry{{Name: name + "/__init__.py", Body: "__version__ = '" + version + "'\n"}}, extra...)
	entries = append(entries,
		Entry{Name: info + "METADATA", Body: meta},
		Entry{Name: info + "WHEEL", Body: "Wheel-Version: 1.0\nGenerator: pypitest\nRoot-Is-Purelib: true\nTag: " + tag + "\n"})
	return WithRecord(entries, info+"RECORD")
}

// Wheel makes a small installable wheel of that filename.
func Wheel(filename, requiresPython string, extra ...Entry) File {
	entries := WheelEntries(filename, requiresPython, extra...)
	f := File{Name: filename, RequiresPython: requiresPython, Body: Zip(entries...)}
	for _, e := range entries {
		if strings.HasSuffix(e.Name, ".dist-info/METADATA") {
			f.Metadata = []byte(e.Body)
		}
	}
	return f
}

// Requiring makes a small wheel whose METADATA has these further headers,
// "Requires-Dist: x>=1".
func Requiring(filename, requiresPython string, headers ...string) File {
	entries := WheelEntries(filename, requiresPython)
	f := File{Name: filename, RequiresPython: requiresPython}
	for i, e := range entries {
		if strings.HasSuffix(e.Name, ".dist-info/METADATA") {
			head, body, _ := strings.Cut(e.Body, "\n\n")
			entries[i].Body = head + "\n" + strings.Join(headers, "\n") + "\n\n" + body
			f.Metadata = []byte(entries[i].Body)
		}
	}
	f.Body = Zip(WithRecord(entries[:len(entries)-1], entries[len(entries)-1].Name)...)
	return f
}

// WithRecord adds the RECORD of entries, under name.
func WithRecord(entries []Entry, name string) []Entry {
	var record strings.Builder
	for _, e := range entries {
		d := sha256.Sum256([]byte(e.Body))
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", e.Name, base64.RawURLEncoding.EncodeToString(d[:]), len(e.Body))
	}
	fmt.Fprintf(&record, "%s,,\n", name)
	return append(entries, Entry{Name: name, Body: record.String()})
}

// Sdist makes a source archive with nothing but its PKG-INFO, which gets the
// further headers, and a module.
func Sdist(filename string, headers ...string) File {
	stem := strings.TrimSuffix(filename, ".tar.gz")
	i := strings.LastIndexByte(stem, '-')
	info := fmt.Sprintf("Metadata-Version: 2.2\nName: %s\nVersion: %s\n", stem[:i], stem[i+1:])
	for _, h := range headers {
		info += h + "\n"
	}
	return File{Name: filename, Body: TarGz(Entry{Name: stem + "/PKG-INFO", Body: info}, Entry{Name: stem + "/mod.py", Body: "x = 1\n"})}
}

// TarGz makes a .tar.gz of regular files.
func TarGz(entries ...Entry) []byte {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	must(err)
	w := tar.NewWriter(z)
	for _, e := range entries {
		must(w.WriteHeader(&tar.Header{Name: e.Name, Mode: 0o644, Size: int64(len(e.Body)), Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(e.Body))
		must(err)
	}
	must(w.Close())
	must(z.Close())
	return b.Bytes()
}
