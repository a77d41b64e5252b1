package main

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// maxMember keeps members of a wheel below what needs zip64 headers of its
// own; a wheel over 4 GiB needs a zip64 directory all the same.
const maxMember = 512 << 20

// A wheel is a file of the index.
type wheel struct {
	*blob
	filename string
	project  string
	metadata []byte
}

// serveWheels makes COUNT projects with one wheel each and writes their
// requirements file.
func serveWheels(mux *http.ServeMux, seed string, s spec, out string) error {
	var pins strings.Builder
	for i := range s.Count {
		name := s.Name
		if s.Count > 1 {
			name = fmt.Sprintf("%s-%05d", s.Name, i)
		}
		w, err := newWheel(seed, name, s.Size)
		if err != nil {
			return err
		}
		page, err := w.page()
		if err != nil {
			return err
		}
		mux.Handle("/simple/"+name+"/", text("application/vnd.pypi.simple.v1+json", page))
		mux.Handle("/files/"+w.filename, w)
		mux.Handle("/files/"+w.filename+".metadata", text("application/octet-stream", w.metadata))
		fmt.Fprintf(&pins, "%s==1.0 --hash=sha256:%s\n", name, w.sha256)
	}
	return writeFile(out, "requirements-"+s.Name+".txt", pins.String())
}

// newWheel makes a wheel whose stored members have size bytes of noise.
func newWheel(seed, project string, size int64) (*wheel, error) {
	dist := strings.ReplaceAll(project, "-", "_")
	w := &wheel{
		filename: dist + "-1.0-py3-none-any.whl", project: project,
		metadata: fmt.Appendf(nil, "Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n", project),
	}
	b := newBuilder()
	z := zip.NewWriter(b)
	info := dist + "-1.0.dist-info/"
	var record strings.Builder
	entry := func(name string, p part) error {
		crc, sum := crc32.NewIEEE(), sha256.New()
		if err := p.copyTo(io.MultiWriter(crc, sum)); err != nil {
			return err
		}
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum.Sum(nil)), p.size)
		return store(z, b, name, p, crc.Sum32())
	}
	err := entry(dist+"/__init__.py", plain(""))
	for i := 0; size > 0 && err == nil; i++ {
		name := fmt.Sprintf("%s/data%d.bin", dist, i)
		n := min(size, maxMember)
		err = entry(name, noise(seed, name, n))
		size -= n
	}
	if err != nil {
		return nil, err
	}
	if err := entry(info+"METADATA", plain(string(w.metadata))); err != nil {
		return nil, err
	}
	if err := entry(info+"WHEEL", plain("Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n")); err != nil {
		return nil, err
	}
	fmt.Fprintf(&record, "%sRECORD,,\n", info)
	if err := entry(info+"RECORD", plain(record.String())); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	w.blob = b.done()
	return w, nil
}

func plain(s string) part { return part{data: []byte(s), size: int64(len(s))} }

// store adds a member that is not compressed.
func store(z *zip.Writer, b *builder, name string, p part, crc uint32) error {
	size := uint64(p.size) //nolint:gosec // a size is not negative
	f, err := z.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Store, CRC32: crc, CompressedSize64: size, UncompressedSize64: size})
	if err != nil {
		return err
	}
	if p.key == nil {
		return p.copyTo(f)
	}
	if err := z.Flush(); err != nil {
		return err
	}
	b.begin(p)
	defer b.end()
	if err := p.copyTo(f); err != nil {
		return err
	}
	return z.Flush()
}

// page is the project's page.
func (w *wheel) page() ([]byte, error) {
	meta := sha256.Sum256(w.metadata)
	return json.Marshal(map[string]any{
		"meta": map[string]string{"api-version": "1.1"},
		"name": w.project,
		"files": []map[string]any{{
			"filename": w.filename, "url": "../../files/" + w.filename, "size": w.size,
			"hashes":        map[string]string{"sha256": w.sha256},
			"core-metadata": map[string]string{"sha256": hex.EncodeToString(meta[:])},
		}},
	})
}

// text serves a small document.
func text(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // the asker may have gone
	})
}
