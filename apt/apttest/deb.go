package apttest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Compress packs data by the extension of a file name.
func Compress(ext string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ext {
	case "":
		return data, nil
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	default:
		return nil, fmt.Errorf("no compression %q", ext)
	}
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Deb builds a package file around a control stanza, without any payload but
// one small file.
func Deb(control string) ([]byte, error) {
	name := Field(control, "Package")
	for _, f := range []string{"Maintainer: Test <test@mirror.example>", "Description: test"} {
		if name, _, _ := strings.Cut(f, ":"); !strings.Contains(control, "\n"+name+":") {
			control = strings.TrimRight(control, "\n") + "\n" + f + "\n"
		}
	}
	ctl, err := tarOf("./control", control)
	if err != nil {
		return nil, err
	}
	data, err := tarOf("./usr/share/doc/"+name+"/README", "of "+name+"\n")
	if err != nil {
		return nil, err
	}
	if ctl, err = Compress(".xz", ctl); err != nil {
		return nil, err
	}
	if data, err = Compress(".gz", data); err != nil {
		return nil, err
	}
	return Ar(
		Member{"debian-binary", []byte("2.0\n")},
		Member{"control.tar.xz", ctl},
		Member{"data.tar.gz", data},
	), nil
}

// A Member is one file of an ar archive.
type Member struct {
	Name string
	Data []byte
}

// Ar builds an ar archive.
func Ar(members ...Member) []byte {
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range members {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.Name, 0, 0, 0, "100644", len(m.Data))
		b.Write(m.Data)
		if len(m.Data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func tarOf(name, text string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dir := "./"
	for _, part := range strings.Split(strings.TrimPrefix(name, "./"), "/") {
		// dpkg wants the folders too.
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
		dir += part + "/"
	}
	if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
