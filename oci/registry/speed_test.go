package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkPush pushes blobs of 256 MiB over HTTP: client and server share
// the machine. Nothing is pushed twice, so each is written and fsynced.
func BenchmarkPush(b *testing.B) {
	const size = 256 << 20
	data := noise(size, 7)
	for _, chunk := range []int{size, 64 << 20} {
		b.Run(fmt.Sprintf("chunks of %d MiB", chunk>>20), func(b *testing.B) {
			w := newWorld(b, Options{PushToken: secret})
			b.SetBytes(size)
			b.StopTimer()
			for i := range b.N {
				data[0], data[1], data[2] = byte(i), byte(b.N), byte(chunk>>20)
				d := digestOf(data)
				b.StartTimer()
				at := w.want(w.do(http.MethodPost, "/v2/platform/bench/blobs/uploads/", nil), http.StatusAccepted, "").header.Get("Location")
				for off := 0; off < size && chunk < size; off += chunk {
					r := w.do(http.MethodPatch, at, bytes.NewReader(data[off:off+chunk]), "Content-Range", fmt.Sprintf("%d-%d", off, off+chunk-1))
					at = w.want(r, http.StatusAccepted, "").header.Get("Location")
				}
				var last io.Reader
				if chunk == size {
					last = bytes.NewReader(data)
				}
				w.want(w.do(http.MethodPut, at+"?digest="+string(d), last), http.StatusCreated, "")
				b.StopTimer()
				// The page cache is used again: fresh memory is the
				// machine's speed, not ours.
				hex := d.Hex()
				if err := os.Remove(filepath.Join(w.dir, "store", "blobs", "sha256", hex[:2], hex)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPull pulls a blob that was verified before.
func BenchmarkPull(b *testing.B) {
	const size = 256 << 20
	w := newWorld(b, Options{PushToken: secret})
	data := noise(size, 8)
	d := w.pushBlob("platform/bench", data)
	pull := func() {
		resp, err := http.Get(w.url + "/v2/platform/bench/blobs/" + string(d.Digest))
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if cerr := resp.Body.Close(); err != nil || cerr != nil || n != size {
			b.Fatalf("%d bytes: %v, %v", n, err, cerr)
		}
	}
	pull()
	b.SetBytes(size)
	for b.Loop() {
		pull()
	}
}
