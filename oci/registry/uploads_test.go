package registry

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
)

const app = "/v2/platform/app"

// begin starts an upload and returns where it goes on.
func (w *world) begin() string {
	w.t.Helper()
	return w.want(w.do(http.MethodPost, app+"/blobs/uploads/", nil), http.StatusAccepted, "").header.Get("Location")
}

// arrived checks what the registry says of an upload.
func (w *world) arrived(at string, n int) {
	w.t.Helper()
	r := w.want(w.do(http.MethodGet, at, nil), http.StatusNoContent, "")
	if got, want := r.header.Get("Range"), fmt.Sprintf("0-%d", max(n-1, 0)); got != want || r.header.Get("Location") != at {
		w.t.Fatalf("range %s at %s, want %s at %s", got, r.header.Get("Location"), want, at)
	}
}

func TestUploadChunks(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	b := noise(1000, 1)
	d := string(digestOf(b))
	at := w.begin()
	w.arrived(at, 0)
	patch := func(from, to int, rng string, status int, code string) {
		t.Helper()
		r := w.want(w.do(http.MethodPatch, at, bytes.NewReader(b[from:to]), "Content-Range", rng), status, code)
		if status == http.StatusAccepted || status == http.StatusRequestedRangeNotSatisfiable {
			if r.header.Get("Location") != at || r.header.Get("Range") == "" {
				t.Errorf("headers %v", r.header)
			}
		}
	}
	patch(0, 300, "0-299", http.StatusAccepted, "")
	w.arrived(at, 300)
	patch(400, 500, "400-499", http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid)
	patch(0, 300, "0-299", http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid)
	patch(300, 310, "300-399", http.StatusBadRequest, codeSizeInvalid)
	patch(300, 310, "300-305", http.StatusBadRequest, codeSizeInvalid)
	for _, bad := range []string{"bytes 300-309", "300", "309-300", "-5", "300-", "a-b", "300-9223372036854775807", "+300-309"} {
		patch(300, 310, bad, http.StatusBadRequest, codeUploadInvalid)
	}
	w.arrived(at, 300)
	patch(300, 600, "300-599", http.StatusAccepted, "")
	// A chunk without a range goes to the end, however it is sent.
	w.want(w.do(http.MethodPatch, at, io.MultiReader(bytes.NewReader(b[600:900]))), http.StatusAccepted, "")
	w.arrived(at, 900)
	// Too many bytes for the range that was announced.
	w.want(w.do(http.MethodPut, at+"?digest="+d, bytes.NewReader(b[:100]), "Content-Range", "0-99"), http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid)
	w.want(w.do(http.MethodPut, at+"?digest=sha256:abc", nil), http.StatusBadRequest, codeDigestInvalid)
	w.want(w.do(http.MethodPut, at, nil), http.StatusBadRequest, codeDigestInvalid)
	w.arrived(at, 900)
	r := w.want(w.do(http.MethodPut, at+"?digest="+d, bytes.NewReader(b[900:]), "Content-Range", "900-999"), http.StatusCreated, "")
	if got := r.header.Get("Location"); got != app+"/blobs/"+d || r.header.Get("Docker-Content-Digest") != d {
		t.Errorf("headers %v", r.header)
	}
	if r := w.want(w.do(http.MethodGet, app+"/blobs/"+d, nil), http.StatusOK, ""); !bytes.Equal(r.body, b) {
		t.Errorf("%d bytes", len(r.body))
	}
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		w.want(w.do(method, at, nil), http.StatusNotFound, codeUploadUnknown)
	}
	if n, err := w.store.Uploads(); err != nil || n != 0 {
		t.Errorf("%d uploads are left, %v", n, err)
	}
}

// A chunk of more bytes than its range says, sent without a length.
func TestUploadLongChunk(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	at := w.begin()
	body := io.MultiReader(strings.NewReader("0123456789"))
	w.want(w.do(http.MethodPatch, at, body, "Content-Range", "0-4"), http.StatusBadRequest, codeSizeInvalid)
	w.arrived(at, 5)
	w.want(w.do(http.MethodPatch, at, io.MultiReader(strings.NewReader("56")), "Content-Range", "5-9"), http.StatusBadRequest, codeSizeInvalid)
	w.arrived(at, 7)
	w.want(w.do(http.MethodPut, at+"?digest="+string(digestOf([]byte("0123456789"))), strings.NewReader("789")), http.StatusCreated, "")
}

func TestUploadWrongDigest(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	d := string(digestOf([]byte("right")))
	at := w.begin()
	w.want(w.do(http.MethodPut, at+"?digest="+d, strings.NewReader("wrong")), http.StatusBadRequest, codeDigestInvalid)
	w.want(w.do(http.MethodGet, at, nil), http.StatusNotFound, codeUploadUnknown)
	w.want(w.do(http.MethodPost, app+"/blobs/uploads/?digest="+d, strings.NewReader("wrong")), http.StatusBadRequest, codeDigestInvalid)
	w.want(w.do(http.MethodPost, app+"/blobs/uploads/?digest=none", strings.NewReader("wrong")), http.StatusBadRequest, codeDigestInvalid)
	w.want(w.do(http.MethodHead, app+"/blobs/"+d, nil), http.StatusNotFound, "")
	if n, err := w.store.Uploads(); err != nil || n != 0 || w.store.Has(digestArtifact(t, "wrong")) {
		t.Errorf("%d uploads are left, %v", n, err)
	}
	// The empty blob is one.
	empty := string(digestOf(nil))
	w.want(w.do(http.MethodPost, app+"/blobs/uploads/?digest="+empty, nil), http.StatusCreated, "")
	w.want(w.do(http.MethodPut, w.begin()+"?digest="+empty, nil), http.StatusCreated, "")
	if r := w.want(w.do(http.MethodGet, app+"/blobs/"+empty, nil), http.StatusOK, ""); len(r.body) != 0 {
		t.Errorf("the empty blob has %d bytes", len(r.body))
	}
}

// An upload belongs to one repository, and outlives the server.
func TestUploadBound(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	at := w.begin()
	w.want(w.do(http.MethodPatch, at, strings.NewReader("half")), http.StatusAccepted, "")
	other := strings.Replace(at, app, "/v2/conformance/app", 1)
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		w.want(w.do(method, other, nil), http.StatusNotFound, codeUploadUnknown)
	}
	again := openWorld(t, w.dir, Options{PushToken: secret})
	again.url = w.url
	w.h.sources = again.h.sources // the server goes on with the new one's state
	w.arrived(at, 4)
	w.want(w.do(http.MethodPut, at+"?digest="+string(digestOf([]byte("half and half"))), strings.NewReader(" and half")), http.StatusCreated, "")
}

func TestUploadCancel(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	at := w.begin()
	w.want(w.do(http.MethodDelete, at, nil), http.StatusNoContent, "")
	w.want(w.do(http.MethodDelete, at, nil), http.StatusNotFound, codeUploadUnknown)
}

// raw opens a connection and sends the head and a part of a body.
func (w *world) raw(method, at string, length int, part []byte) net.Conn {
	w.t.Helper()
	u, err := url.Parse(w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	var d net.Dialer
	c, err := d.DialContext(w.t.Context(), "tcp", u.Host)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", method, at, u.Host, secret, length, part)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// await asks until so much of the upload has arrived.
func (w *world) await(at string, n int) {
	w.t.Helper()
	want := fmt.Sprintf("0-%d", n-1)
	for range 500 {
		if r := w.do(http.MethodGet, at, nil); r.header.Get("Range") == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("%d bytes did not arrive", n)
}

// A line that breaks in the middle of a chunk loses nothing that arrived.
func TestUploadCut(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	b := noise(600_000, 1)
	at := w.begin()
	c := w.raw(http.MethodPatch, at, len(b), b[:400_000])
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	w.await(at, 400_000)
	w.want(w.do(http.MethodPatch, at, bytes.NewReader(b[400_000:500_000]), "Content-Range", "400000-499999"), http.StatusAccepted, "")
	w.want(w.do(http.MethodPut, at+"?digest="+string(digestOf(b)), bytes.NewReader(b[500_000:])), http.StatusCreated, "")
}

// A client whose line is dead comes back before the server has noticed: the
// old request gives the upload up to the new one.
func TestUploadTakenOver(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	b := noise(600_000, 2)
	at := w.begin()
	old := w.raw(http.MethodPatch, at, len(b), b[:store256()])
	w.await(at, store256()) // and nothing more comes
	began := time.Now()
	r := w.do(http.MethodPatch, at, bytes.NewReader(b[store256():]), "Content-Range", fmt.Sprintf("%d-%d", store256(), len(b)-1))
	w.want(r, http.StatusAccepted, "")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	resp, err := http.ReadResponse(bufio.NewReader(old), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("the old request got %d, %v", resp.StatusCode, err)
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	w.want(w.do(http.MethodPut, at+"?digest="+string(digestOf(b)), nil), http.StatusCreated, "")
	if len(w.h.sessions.open) != 0 {
		t.Errorf("%d sessions are left", len(w.h.sessions.open))
	}
}

// store256 is the store's copy buffer: so much is written at once.
func store256() int { return 256 << 10 }

// Another process has the upload open.
func TestUploadBusy(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	at := w.begin()
	id, ok := uploadOf(filepath.Base(at), "platform/app")
	if !ok {
		t.Fatalf("no upload in %s", at)
	}
	other, err := store.Open(filepath.Join(w.dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	u, err := other.ResumeUpload(id)
	if err != nil {
		t.Fatal(err)
	}
	w.want(w.do(http.MethodPatch, at, strings.NewReader("x")), http.StatusConflict, codeUploadInvalid)
	w.arrived(at, 0)
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	w.want(w.do(http.MethodPatch, at, strings.NewReader("x")), http.StatusAccepted, "")
}

func TestUploadLimits(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret, MaxUploads: 2, UploadExpiry: time.Hour})
	first, second := w.begin(), w.begin()
	r := w.want(w.do(http.MethodPost, app+"/blobs/uploads/", nil), http.StatusTooManyRequests, codeTooMany)
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.want(w.do(http.MethodPost, app+"/blobs/uploads/?digest="+string(digestOf([]byte("x"))), strings.NewReader("x")), http.StatusTooManyRequests, codeTooMany)
	w.want(w.do(http.MethodDelete, first, nil), http.StatusNoContent, "")
	third := w.begin()
	// An hour later.
	id, _ := uploadOf(filepath.Base(second), "platform/app")
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(w.dir, "store", "uploads", id), old, old); err != nil {
		t.Fatal(err)
	}
	w.h.swept = time.Time{}
	w.arrived(w.begin(), 0)
	w.want(w.do(http.MethodPatch, second, nil), http.StatusNotFound, codeUploadUnknown)
	w.arrived(third, 0)
}

// More than the disk has room for is refused before a byte is read.
func TestUploadNoSpace(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	at := w.begin()
	c := w.raw(http.MethodPatch, at, 1<<60, []byte("abc"))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusInsufficientStorage {
		t.Errorf("got %d, %v", resp.StatusCode, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	w.arrived(at, 0)
}

func TestMount(t *testing.T) {
	w := newWorld(t, Options{PushToken: secret})
	d := string(w.pushBlob("conformance/from", noise(1000, 1)).Digest)
	up := upstream(t, "app", "1", 2, nil)
	w.publish("conformance", 1, up)
	published := string(digestOf(up.blobs[0]))
	mount := func(digest, from string, status int) *reply {
		t.Helper()
		return w.want(w.do(http.MethodPost, app+"/blobs/uploads/?mount="+digest+"&from="+from, nil), status, "")
	}
	// Nowhere, nobody, nothing: the client uploads.
	for _, from := range []string{"conformance/empty", "nobody/from", "UPPER", "conformance", "../.."} {
		if r := mount(d, from, http.StatusAccepted); !strings.HasPrefix(r.header.Get("Location"), app+"/blobs/uploads/") {
			t.Errorf("%s: location %s", from, r.header.Get("Location"))
		}
	}
	secretBlob, err := w.store.PutBytes([]byte("in the store, in no repository"))
	if err != nil {
		t.Fatal(err)
	}
	mount(secretBlob.String(), "", http.StatusAccepted)
	mount("sha256:abc", "", http.StatusBadRequest)
	w.want(w.do(http.MethodHead, app+"/blobs/"+d, nil), http.StatusNotFound, "")
	for _, c := range []struct{ digest, from string }{{d, "conformance/from"}, {published, ""}} {
		r := mount(c.digest, c.from, http.StatusCreated)
		if r.header.Get("Location") != app+"/blobs/"+c.digest || r.header.Get("Docker-Content-Digest") != c.digest {
			t.Errorf("headers %v", r.header)
		}
		w.want(w.do(http.MethodGet, app+"/blobs/"+c.digest, nil), http.StatusOK, "")
	}
	// A mounted blob is one's own.
	w.want(w.do(http.MethodDelete, "/v2/conformance/from/blobs/"+d, nil), http.StatusAccepted, "")
	w.want(w.do(http.MethodGet, app+"/blobs/"+d, nil), http.StatusOK, "")
}
