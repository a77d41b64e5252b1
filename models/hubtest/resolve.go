package hubtest

import (
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha1" // #nosec G505 -- only shortens a name
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// serveFile answers outside the API: ID/resolve/REV/PATH and ID/raw/REV/PATH.
func (h *Hub) serveFile(w http.ResponseWriter, q *http.Request, parts []string, user string) {
	kind := models
	if parts[0] == datasets {
		kind, parts = datasets, parts[1:]
	}
	at := 1
	if len(parts) > 1 && parts[1] != "resolve" && parts[1] != "raw" {
		at = 2
	}
	if len(parts) < at+3 || parts[at] != "resolve" && parts[at] != "raw" {
		notHere(w)
		return
	}
	id, verb, revision, name := strings.Join(parts[:at], "/"), parts[at], parts[at+1], strings.Join(parts[at+2:], "/")
	h.mu.Lock()
	r, c, e := h.file(w, q, kind, id, revision, name, user)
	h.mu.Unlock()
	switch {
	case e == nil:
	case verb == "raw":
		h.sendRaw(w, q, e)
	default:
		h.sendResolved(w, q, r, c, e)
	}
}

// file is what a resolver's address names, or nil where the reply has gone
// out. The hub's lock is held.
func (h *Hub) file(w http.ResponseWriter, q *http.Request, kind, id, revision, name, user string) (*Repo, *commit, *entry) {
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		fail(w, http.StatusMethodNotAllowed, "", "Method not allowed")
		return nil, nil, nil
	}
	r := h.lookup(w, q, kind, id, user)
	if r == nil || !r.admit(w, user, true) {
		return nil, nil, nil
	}
	c := r.find(revision)
	if c == nil {
		fail(w, http.StatusNotFound, codeRevision, "Invalid rev id: "+revision)
		return nil, nil, nil
	}
	w.Header().Set("X-Repo-Commit", c.sha)
	e := c.byPath[name]
	if e == nil || e.dir {
		w.Header().Set("X-Error-Code", codeEntry)
		w.Header().Set("X-Error-Message", "Entry not found")
		sendBody(w, http.StatusNotFound, typeText, []byte("Entry not found"))
		return nil, nil, nil
	}
	return r, c, e
}

// sendRaw serves what git itself keeps: of an LFS file its pointer.
func (h *Hub) sendRaw(w http.ResponseWriter, q *http.Request, e *entry) {
	w.Header().Set("ETag", strconv.Quote(e.OID))
	content := e.content
	if e.SHA256 != "" {
		content = Bytes([]byte(pointer(e.SHA256, e.Size)))
	}
	w.Header().Set("Content-Type", typeText)
	h.sendContent(w, q, content, nil, "")
}

// sendResolved leads to the bytes: of an LFS file on the CDN, else in the
// hub's own cache.
func (h *Hub) sendResolved(w http.ResponseWriter, q *http.Request, r *Repo, c *commit, e *entry) {
	h.mu.Lock()
	redirects := h.take(r.Name(), e.Path, faultRedirect)
	dropped := h.take(r.Name(), e.Path, faultHeader)
	h.mu.Unlock()
	w.Header().Set("Accept-Ranges", "bytes")
	status, where := http.StatusTemporaryRedirect, cachePath(r, c, e, q)
	if e.SHA256 != "" {
		w.Header().Set("X-Linked-Etag", strconv.Quote(e.SHA256))
		w.Header().Set("X-Linked-Size", strconv.FormatInt(e.Size, 10))
		if h.opts.Xet {
			hash := xetHash(e.SHA256)
			w.Header().Set("X-Xet-Hash", hash)
			w.Header().Set("Link", fmt.Sprintf(`<%s/api/%s/%s/xet-read-token/%s>; rel="xet-auth", <%s/cas/v1/reconstructions/%s>; rel="xet-reconstruction-info"`,
				base(q), r.kind, r.id, c.sha, h.CDN, hash))
		}
		status, where = http.StatusFound, h.CDN+h.sign(objectPath(r, &e.Entry), path.Base(e.Path), time.Now().Add(h.opts.Expire))
	}
	for _, f := range redirects {
		status, where = http.StatusFound, f.url
	}
	for _, f := range dropped {
		w.Header().Del(f.url)
	}
	w.Header().Set("Location", where)
	w.Header().Set("Vary", "Origin, Accept")
	sendBody(w, status, typeText, []byte(http.StatusText(status)+". Redirecting to "+where))
}

// cachePath is where a small file's bytes are, relative to the hub.
func cachePath(r *Repo, c *commit, e *entry, q *http.Request) string {
	segments := strings.Split(e.Path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return "/api/resolve-cache/" + r.kind + "/" + r.id + "/" + c.sha + "/" + strings.Join(segments, "/") +
		"?" + url.QueryEscape(q.URL.EscapedPath()) + "=&etag=" + url.QueryEscape(strconv.Quote(e.OID))
}

// serveCache answers below /api/resolve-cache/: KIND/ID/SHA/PATH.
func (h *Hub) serveCache(w http.ResponseWriter, q *http.Request, parts []string, user string) {
	kind, rest := parts[0], parts[1:]
	at := 1
	if len(rest) > 1 && !isHex40(rest[1]) {
		at = 2
	}
	if kind != models && kind != datasets || len(rest) < at+2 {
		notHere(w)
		return
	}
	h.mu.Lock()
	r, _, e := h.file(w, q, kind, strings.Join(rest[:at], "/"), rest[at], strings.Join(rest[at+1:], "/"), user)
	var faults []Fault
	if e != nil && q.Method == http.MethodGet {
		faults = h.take(r.Name(), e.Path, bodyFaults...)
	}
	h.mu.Unlock()
	if e == nil {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`inline; filename*=UTF-8''%s; filename=%q;`, url.PathEscape(path.Base(e.Path)), path.Base(e.Path)))
	w.Header().Set("ETag", strconv.Quote(e.OID))
	if h.opts.Gzip && q.Header.Get("Range") == "" && strings.Contains(q.Header.Get("Accept-Encoding"), "gzip") && len(faults) == 0 {
		sendGzip(w, q, e)
		return
	}
	h.sendContent(w, q, e.content, faults, "")
}

func isHex40(s string) bool { return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" }

// sendGzip compresses as the hub's edge does: unknown length, weak ETag.
func sendGzip(w http.ResponseWriter, q *http.Request, e *entry) {
	w.Header().Set("ETag", "W/"+strconv.Quote(e.OID))
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Vary", "Accept-Encoding")
	if q.Method == http.MethodHead {
		return
	}
	f, err := e.content.Open()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	z := gzip.NewWriter(w)
	_, err = io.Copy(z, f)
	_ = f.Close() // it is only read
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = z.Close() // a client that went away is its own affair
}

// An object is what the CDN has.
type object struct {
	repo  string
	entry *entry
}

// objectPath is a file's place on the CDN: one object a file, so that faults
// of one do not touch another of the same content.
func objectPath(r *Repo, e *Entry) string {
	sum := sha1.Sum([]byte(r.Name() + "\x00" + e.Path)) // #nosec G401 -- see the import
	name := hex.EncodeToString(sum[:])
	return "/repos/" + name[:2] + "/" + name[2:4] + "/" + name + "/" + e.SHA256
}

// sign makes a link to an object that holds until then.
func (h *Hub) sign(object, filename string, until time.Time) string {
	expires := strconv.FormatInt(until.UnixMilli(), 10)
	disposition := `inline; filename*=UTF-8''` + url.PathEscape(filename) + `;`
	v := url.Values{"response-content-disposition": {disposition}, "Expires": {expires}, "Key-Pair-Id": {"TESTKEY"}}
	v.Set("Signature", h.signature(object, expires))
	return object + "?" + v.Encode()
}

func (h *Hub) signature(object, expires string) string {
	m := hmac.New(sha256.New, h.key)
	_, _ = io.WriteString(m, object+"\n"+expires) // a hash does not fail
	return hex.EncodeToString(m.Sum(nil))
}

// denied answers as an object store does.
func denied(w http.ResponseWriter, status int, code, message string) {
	body := `<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>" + code + "</Code><Message>" + message + "</Message></Error>"
	sendBody(w, status, "application/xml", []byte(body))
}

// serveCDN answers on the second host. It knows signatures and nothing else:
// like the stores of cloud providers it refuses a request with two kinds of
// credentials.
func (h *Hub) serveCDN(w http.ResponseWriter, q *http.Request) {
	if h.refused(OnCDN, w) {
		return
	}
	query := q.URL.Query()
	expires, err := strconv.ParseInt(query.Get("Expires"), 10, 64)
	good := hmac.Equal([]byte(query.Get("Signature")), []byte(h.signature(q.URL.Path, query.Get("Expires"))))
	switch {
	case q.Header.Get("Authorization") != "":
		denied(w, http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed")
		return
	case err != nil || !good:
		denied(w, http.StatusForbidden, "SignatureDoesNotMatch", "The request signature does not match")
		return
	case time.Now().UnixMilli() >= expires:
		denied(w, http.StatusForbidden, "AccessDenied", "Request has expired")
		return
	case q.Method != http.MethodGet && q.Method != http.MethodHead:
		denied(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "The method is not allowed")
		return
	}
	h.mu.Lock()
	o, ok := h.objects[q.URL.Path]
	var faults []Fault
	if ok && q.Method == http.MethodGet {
		faults = h.take(o.repo, o.entry.Path, append(bodyFaults, faultExpire)...)
	}
	h.mu.Unlock()
	if !ok {
		denied(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if d := query.Get("response-content-disposition"); d != "" {
		w.Header().Set("Content-Disposition", d)
	}
	// The object store's own idea of identity, which is not the file's.
	w.Header().Set("ETag", fmt.Sprintf(`"%s-1"`, xetHash(o.entry.SHA256)[:32]))
	h.sendContent(w, q, o.entry.content, faults, query.Get("Signature"))
}
