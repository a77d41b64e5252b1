package s3

import (
	"crypto/md5" // #nosec G501 -- the etags of a fake
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A fake is an S3 store of one bucket, for the faults that no real one has on
// request. It checks signatures by no means, and payloads by their SHA-256.
type fake struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	objects map[string]*fakeObject
	uploads map[string]*fakeUpload
	n       int
	log     []string // "PUT key", "PART key 3 5242880", "COMPLETE key"
	// fault may answer a request in the store's place: op is as in the log.
	fault func(op string, w http.ResponseWriter, r *http.Request) bool
	// spoil may change what is kept.
	spoil func(op string, b []byte) []byte
	// sums reports whether the store knows checksums.
	sums bool
	page int
}

type fakeObject struct {
	body      []byte
	etag, sum string
	header    http.Header
}

type fakeUpload struct {
	key    string
	header http.Header
	parts  map[int]*fakeObject
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, objects: make(map[string]*fakeObject), uploads: make(map[string]*fakeUpload), sums: true, page: 2}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

// count is how many requests of some kinds there were since the last call of
// reset.
func (f *fake) count(ops ...string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.log {
		if op, _, _ := strings.Cut(l, " "); slices.Contains(ops, op) {
			n++
		}
	}
	return n
}

func (f *fake) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = nil
}

// keys are the names of all objects, without our manifests.
func (f *fake) keys() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(f.objects)), func(k string) bool { return strings.Contains(k, manifestFolder) })
}

func (f *fake) get(key string) *fakeObject {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects[key]
}

func (f *fake) put(key, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key] = newObject([]byte(text), nil)
}

// set changes what goes wrong.
func (f *fake) set(fault func(string, http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// arrived is how many parts open uploads have.
func (f *fake) arrived() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.uploads {
		n += len(u.parts)
	}
	return n
}

func (f *fake) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

func newObject(b []byte, h http.Header) *fakeObject {
	m, s := md5.Sum(b), sha256.Sum256(b) // #nosec G401 -- an etag
	return &fakeObject{body: b, etag: hex.EncodeToString(m[:]), sum: base64.StdEncoding.EncodeToString(s[:]), header: h}
}

func refuse(w http.ResponseWriter, status int, code, message string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message><RequestId>r1</RequestId></Error>", code, message)
	return true
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(v)
}

// ServeHTTP answers /bucket/key.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/bucket"), "/")
	q := r.URL.Query()
	id, part := q.Get("uploadId"), q.Get("partNumber")
	op := r.Method + " " + key
	switch {
	case key == "" && q.Has("uploads"):
		op = "UPLOADS " + q.Get("prefix")
	case key == "":
		op = "LIST " + q.Get("prefix")
	case q.Has("uploads"):
		op = "OPEN " + key
	case part != "" && r.Header.Get("X-Amz-Copy-Source") != "":
		op = "COPY " + key + " " + part
	case part != "":
		op = "PART " + key + " " + part
	case id != "":
		op = map[string]string{"GET": "PARTS ", "POST": "COMPLETE ", "DELETE": "ABORT "}[r.Method] + key
	}
	f.mu.Lock()
	f.log = append(f.log, op)
	fault := f.fault
	f.mu.Unlock()
	if fault != nil && fault(op, w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	want := r.Header.Get("X-Amz-Content-Sha256")
	if sum := sha256.Sum256(body); r.ContentLength > 0 && hex.EncodeToString(sum[:]) != want {
		refuse(w, http.StatusBadRequest, "XAmzContentSHA256Mismatch", "sent with "+want)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.spoil != nil && r.Method == http.MethodPut {
		body = f.spoil(op, slices.Clone(body))
	}
	if !f.sums && r.Header.Get("X-Amz-Checksum-Algorithm")+r.Header.Get("X-Amz-Checksum-Sha256") != "" {
		refuse(w, http.StatusNotImplemented, "NotImplemented", "a header that you provided implies functionality that is not implemented")
		return
	}
	switch verb, _, _ := strings.Cut(op, " "); verb {
	case "LIST":
		f.list(w, q)
	case "PUT":
		o := newObject(body, r.Header)
		f.objects[key] = o
		w.Header().Set("ETag", `"`+o.etag+`"`)
		if f.sums {
			w.Header().Set("X-Amz-Checksum-Sha256", o.sum)
		}
	case "GET", "HEAD":
		f.read(w, r, key)
	case "DELETE":
		delete(f.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		f.multipart(w, r, verb, key, id, part, body)
	}
}

type listed struct {
	Key  string
	ETag string
	Size int
}

func (f *fake) list(w http.ResponseWriter, q url.Values) {
	var result struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		IsTruncated           bool
		NextContinuationToken string
		EncodingType          string
		Contents              []listed
	}
	result.EncodingType = "url"
	for _, k := range slices.Sorted(maps.Keys(f.objects)) {
		if !strings.HasPrefix(k, q.Get("prefix")) || k <= q.Get("continuation-token") && q.Get("continuation-token") != "" {
			continue
		}
		if len(result.Contents) == f.page {
			result.IsTruncated = true
			break
		}
		result.Contents = append(result.Contents, listed{url.QueryEscape(k), `"` + f.objects[k].etag + `"`, len(f.objects[k].body)})
		result.NextContinuationToken = k
	}
	reply(w, result)
}

func (f *fake) read(w http.ResponseWriter, r *http.Request, key string) {
	o := f.objects[key]
	if o == nil {
		refuse(w, http.StatusNotFound, "NoSuchKey", "no")
		return
	}
	for k, v := range o.header {
		if strings.HasPrefix(k, "X-Amz-Meta-") {
			w.Header()[k] = v
		}
	}
	w.Header().Set("ETag", `"`+o.etag+`"`)
	w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	if f.sums && r.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" {
		w.Header().Set("X-Amz-Checksum-Sha256", o.sum)
	}
	body := o.body
	if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(from, "-"))
		if err != nil || n >= len(body) {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange", from)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", n, len(body)-1, len(body)))
		w.Header().Set("Content-Length", strconv.Itoa(len(body)-n))
		w.WriteHeader(http.StatusPartialContent)
		body = body[n:]
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

func (f *fake) multipart(w http.ResponseWriter, r *http.Request, verb, key, id, part string, body []byte) {
	u := f.uploads[id]
	if u == nil && verb != "OPEN" && verb != "UPLOADS" {
		refuse(w, http.StatusNotFound, "NoSuchUpload", id)
		return
	}
	switch verb {
	case "OPEN":
		f.n++
		id = fmt.Sprintf("upload-%d", f.n)
		f.uploads[id] = &fakeUpload{key: key, header: r.Header, parts: make(map[int]*fakeObject)}
		reply(w, struct {
			XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
			UploadID string   `xml:"UploadId"`
		}{UploadID: id})
	case "UPLOADS":
		type upload struct {
			Key      string
			UploadID string `xml:"UploadId"`
		}
		var result struct {
			XMLName xml.Name `xml:"ListMultipartUploadsResult"`
			Upload  []upload
		}
		for _, id := range slices.Sorted(maps.Keys(f.uploads)) {
			if strings.HasPrefix(f.uploads[id].key, r.URL.Query().Get("prefix")) {
				result.Upload = append(result.Upload, upload{f.uploads[id].key, id})
			}
		}
		reply(w, result)
	case "PART", "COPY":
		n, _ := strconv.Atoi(part)
		if verb == "COPY" {
			var from, to int
			source, _ := url.PathUnescape(r.Header.Get("X-Amz-Copy-Source"))
			_, _ = fmt.Sscanf(r.Header.Get("X-Amz-Copy-Source-Range"), "bytes=%d-%d", &from, &to)
			body = f.objects[strings.TrimPrefix(source, "bucket/")].body[from : to+1]
		}
		o := newObject(body, nil)
		u.parts[n] = o
		if verb == "COPY" {
			reply(w, struct {
				XMLName                            xml.Name `xml:"CopyPartResult"`
				ETag, LastModified, ChecksumSHA256 string
			}{ETag: o.etag, LastModified: "2006-01-02T15:04:05.000Z", ChecksumSHA256: o.sum})
			return
		}
		w.Header().Set("ETag", `"`+o.etag+`"`)
		if f.sums {
			w.Header().Set("X-Amz-Checksum-Sha256", o.sum)
		}
	case "PARTS":
		f.listParts(w, r, u)
	case "COMPLETE":
		f.complete(w, id, u)
	case "ABORT":
		delete(f.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (f *fake) listParts(w http.ResponseWriter, r *http.Request, u *fakeUpload) {
	type part struct {
		PartNumber, Size     int
		ETag, ChecksumSHA256 string
	}
	var result struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		IsTruncated          bool
		NextPartNumberMarker int
		Part                 []part
	}
	marker, _ := strconv.Atoi(r.URL.Query().Get("part-number-marker"))
	for _, n := range slices.Sorted(maps.Keys(u.parts)) {
		if n <= marker {
			continue
		}
		if len(result.Part) == f.page {
			result.IsTruncated = true
			break
		}
		p := part{PartNumber: n, Size: len(u.parts[n].body), ETag: `"` + u.parts[n].etag + `"`}
		if f.sums {
			p.ChecksumSHA256 = u.parts[n].sum
		}
		result.Part, result.NextPartNumberMarker = append(result.Part, p), n
	}
	reply(w, result)
}

// complete puts the parts together as S3 does: an etag of etags, and a
// checksum of checksums.
func (f *fake) complete(w http.ResponseWriter, id string, u *fakeUpload) {
	var all []byte
	etags, sums := md5.New(), sha256.New() // #nosec G401 -- an etag
	for i := range len(u.parts) {
		p := u.parts[i+1]
		if p == nil {
			refuse(w, http.StatusBadRequest, "InvalidPart", strconv.Itoa(i+1))
			return
		}
		all = append(all, p.body...)
		m, s := md5.Sum(p.body), sha256.Sum256(p.body) // #nosec G401 -- an etag
		_, _ = etags.Write(m[:])
		_, _ = sums.Write(s[:])
	}
	o := &fakeObject{body: all, header: u.header}
	o.etag = fmt.Sprintf("%x-%d", etags.Sum(nil), len(u.parts))
	o.sum = base64.StdEncoding.EncodeToString(sums.Sum(nil)) + "-" + strconv.Itoa(len(u.parts))
	f.objects[u.key] = o
	delete(f.uploads, id)
	reply(w, struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		Bucket  string
		ETag    string
	}{Bucket: "bucket", ETag: `"` + o.etag + `"`})
}
