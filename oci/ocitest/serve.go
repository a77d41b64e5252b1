package ocitest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// logged writes a log of a handler's requests.
func (r *Registry) logged(server string, h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		e := &entry{req: Request{
			Server: server, Method: q.Method, Path: q.URL.Path, Query: q.URL.RawQuery, Host: q.Host, Header: q.Header.Clone(),
		}}
		r.mu.Lock()
		r.log = append(r.log, e)
		n := r.next()
		r.mu.Unlock()
		q.Body = &countedBody{ReadCloser: q.Body, e: e}
		w.Header().Set("X-Request-Id", fmt.Sprintf("req-%d", n))
		h(&countedWriter{ResponseWriter: w, e: e}, q)
	})
}

type countedBody struct {
	io.ReadCloser
	e *entry
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.e.in.Add(int64(n))
	return n, err
}

type countedWriter struct {
	http.ResponseWriter
	e *entry
}

func (w *countedWriter) WriteHeader(status int) {
	w.e.status.CompareAndSwap(0, int64(status))
	w.ResponseWriter.WriteHeader(status)
}

func (w *countedWriter) Write(p []byte) (int, error) {
	w.e.status.CompareAndSwap(0, http.StatusOK)
	n, err := w.ResponseWriter.Write(p)
	w.e.out.Add(int64(n))
	return n, err
}

func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fail answers with an error as the specification has it.
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	must(json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}}))
}

// ServeHTTP answers below /v2/.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.logged(OnRegistry, r.serve).ServeHTTP(w, q)
}

func (r *Registry) serve(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	before := slices.Clone(r.f.before)
	r.mu.Unlock()
	for _, fn := range before {
		if fn(w, q) {
			return
		}
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	rest, ok := strings.CutPrefix(q.URL.Path, "/v2/")
	if !ok {
		fail(w, http.StatusNotFound, "UNSUPPORTED", "only /v2/ is here")
		return
	}
	repo, kind, ref := split(rest)
	if !r.admit(w, q, repo) {
		return
	}
	if rest == "" {
		w.WriteHeader(http.StatusOK)
		return
	}
	if r.busy(w) {
		return
	}
	if spec.CheckName(repo) != nil {
		fail(w, http.StatusBadRequest, "NAME_INVALID", "invalid repository name")
		return
	}
	switch kind {
	case "uploads":
		r.serveUpload(w, q, repo, ref)
	case "blobs":
		r.serveBlob(w, q, repo, spec.Digest(ref))
	case "manifests":
		r.serveManifest(w, q, repo, ref)
	case "tags":
		r.serveTags(w, q, repo)
	case "referrers":
		r.serveReferrers(w, q, repo, spec.Digest(ref))
	default:
		fail(w, http.StatusNotFound, "UNSUPPORTED", "no such path")
	}
}

// split takes the path below /v2/ apart.
func split(rest string) (repo, kind, ref string) {
	if repo, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return repo, "tags", ""
	}
	if i := strings.LastIndex(rest, "/blobs/uploads"); i >= 0 {
		return rest[:i], "uploads", strings.Trim(rest[i+len("/blobs/uploads"):], "/")
	}
	for _, kind := range []string{"blobs", "manifests", "referrers"} {
		if i := strings.LastIndex(rest, "/"+kind+"/"); i >= 0 {
			return rest[:i], kind, rest[i+len(kind)+2:]
		}
	}
	return "", "", ""
}

func (r *Registry) busy(w http.ResponseWriter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f.busy == 0 {
		return false
	}
	r.f.busy--
	if r.f.retryAfter != "" {
		w.Header().Set("Retry-After", r.f.retryAfter)
	}
	fail(w, r.f.busyStatus, "TOOMANYREQUESTS", "slow down")
	return true
}

func (r *Registry) serveBlob(w http.ResponseWriter, q *http.Request, repo string, d spec.Digest) {
	r.mu.Lock()
	b, ok := r.blob(repo, d)
	if other, is := r.f.replaced[d]; is {
		b = other
	}
	redirect := r.f.redirect
	if ok && q.Method == http.MethodDelete {
		delete(r.repo(repo).blobs, d)
	}
	r.mu.Unlock()
	switch {
	case !ok:
		fail(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
	case q.Method == http.MethodDelete:
		w.WriteHeader(http.StatusAccepted)
	case q.Method != http.MethodGet && q.Method != http.MethodHead:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed")
	case redirect != "" && q.Method == http.MethodGet:
		http.Redirect(w, q, redirect+"/storage/"+string(d)+"?X-Signature=secret-signature", http.StatusTemporaryRedirect) //nolint:gosec // to where the test says
	default:
		w.Header().Set("Docker-Content-Digest", string(d))
		r.send(w, q, d, b)
	}
}

// Storage is the handler of the host to which [Redirect] leads: it has every
// blob, and takes no credentials: like the stores of cloud providers it
// answers 400 where there are two kinds of them.
func (r *Registry) Storage() http.Handler {
	return r.logged(OnStorage, func(w http.ResponseWriter, q *http.Request) {
		d := spec.Digest(strings.TrimPrefix(q.URL.Path, "/storage/"))
		if q.Header.Get("Authorization") != "" || q.URL.Query().Get("X-Signature") != "secret-signature" {
			fail(w, http.StatusBadRequest, "UNSUPPORTED", "want the signature and nothing else")
			return
		}
		r.mu.Lock()
		b, ok := r.blobs[d]
		if other, is := r.f.replaced[d]; is {
			b = other
		}
		r.mu.Unlock()
		if !ok {
			fail(w, http.StatusNotFound, "UNKNOWN", "no such object")
			return
		}
		r.send(w, q, d, b)
	})
}

// send serves a blob with ranges, or cuts it short.
func (r *Registry) send(w http.ResponseWriter, q *http.Request, d spec.Digest, b []byte) {
	r.mu.Lock()
	c := r.f.cutDownloads[d]
	end := int64(-1)
	if c != nil && c.times > 0 && q.Method == http.MethodGet {
		c.times--
		end = c.after
	}
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+string(d)+`"`)
	content := io.ReadSeeker(strings.NewReader(string(b)))
	if end >= 0 {
		content = &cutReader{ReadSeeker: content, left: end}
		w = &abortingWriter{w}
	}
	http.ServeContent(w, q, "", time.Time{}, content)
}

var errCut = errors.New("cut as ordered")

// A cutReader gives so many bytes.
type cutReader struct {
	io.ReadSeeker
	left int64
}

func (c *cutReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errCut
	}
	n, err := c.ReadSeeker.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}

// An abortingWriter ends the connection where its source fails.
type abortingWriter struct{ http.ResponseWriter }

// ReadFrom copies until the source fails.
func (w *abortingWriter) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
	if errors.Is(err, errCut) {
		// What was written before the cut shall arrive.
		must(http.NewResponseController(w.ResponseWriter).Flush())
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func (r *Registry) serveManifest(w http.ResponseWriter, q *http.Request, repo, ref string) {
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		r.getManifest(w, q, repo, ref)
	case http.MethodPut:
		r.putManifest(w, q, repo, ref)
	case http.MethodDelete:
		r.mu.Lock()
		defer r.mu.Unlock()
		d, _, ok := r.manifest(repo, ref)
		if !ok {
			fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		if ref == string(d) {
			r.removeManifest(repo, d)
		} else {
			delete(r.repo(repo).tags, ref)
		}
		w.WriteHeader(http.StatusAccepted)
	default:
		fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "method not allowed")
	}
}

func (r *Registry) getManifest(w http.ResponseWriter, q *http.Request, repo, ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f.remaining > 0 {
		left := max(0, r.f.remaining-1)
		w.Header().Set("RateLimit-Limit", "100;w=21600")
		w.Header().Set("RateLimit-Remaining", strconv.Itoa(left)+";w=21600")
		if q.Method == http.MethodGet {
			if left == 0 {
				w.Header().Set("Retry-After", "21600")
				fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "you have reached your pull rate limit")
				return
			}
			r.f.remaining--
		}
	}
	d, m, ok := r.manifest(repo, ref)
	if !ok {
		fail(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	if other, is := r.f.replaced[d]; is {
		m.raw = other
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(m.raw)))
	if !r.f.noDigest {
		w.Header().Set("Docker-Content-Digest", string(d))
	}
	w.WriteHeader(http.StatusOK)
	if q.Method == http.MethodGet {
		_, _ = w.Write(m.raw) // a client that went away is its own affair
	}
}

func (r *Registry) putManifest(w http.ResponseWriter, q *http.Request, repo, ref string) {
	raw, err := io.ReadAll(io.LimitReader(q.Body, spec.MaxManifest+1))
	if err != nil || len(raw) > spec.MaxManifest {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "too large, or cut")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digestOf(raw)
	if strings.Contains(ref, ":") {
		want, err := spec.ParseDigest(ref)
		if err != nil || want.Sum(raw) != want {
			fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
			return
		}
		d = want
	} else if _, exists := r.repo(repo).tags[ref]; exists && r.f.immutable {
		fail(w, http.StatusPreconditionFailed, "PRECONDITION", fmt.Sprintf("Failed to process request due to '%s:%s' configured as immutable.", repo, ref))
		return
	}
	var m spec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil || m.SchemaVersion != 2 {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "manifest invalid")
		return
	}
	if missing := r.missing(repo, &m); missing != "" && !r.f.lenient {
		fail(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry: "+string(missing))
		return
	}
	r.repo(repo).manifests[d] = manifest{mediaType: q.Header.Get("Content-Type"), raw: raw}
	if ref != string(d) {
		r.repo(repo).tags[ref] = d
	}
	if m.Subject != nil && !r.f.noReferrers {
		w.Header().Set("OCI-Subject", string(m.Subject.Digest))
	}
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("Location", "/v2/"+repo+"/manifests/"+string(d))
	w.WriteHeader(http.StatusCreated)
}

// missing is a member that the repository lacks.
func (r *Registry) missing(repo string, m *spec.Manifest) spec.Digest {
	for _, b := range m.Blobs() {
		if _, ok := r.repo(repo).blobs[b.Digest]; !ok && !b.Foreign() {
			return b.Digest
		}
	}
	for _, c := range m.Manifests {
		if _, ok := r.repo(repo).manifests[c.Digest]; !ok {
			return c.Digest
		}
	}
	return ""
}

func (r *Registry) serveTags(w http.ResponseWriter, q *http.Request, repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.repos[repo] == nil {
		fail(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
		return
	}
	tags := slices.Sorted(maps.Keys(r.repos[repo].tags))
	if last := q.URL.Query().Get("last"); last != "" {
		tags = slices.DeleteFunc(tags, func(t string) bool { return t <= last })
	}
	n, err := strconv.Atoi(q.URL.Query().Get("n"))
	if err != nil || n < 1 {
		n = len(tags)
	}
	if r.f.pageSize > 0 {
		n = min(n, r.f.pageSize)
	}
	if n < len(tags) {
		tags = tags[:n]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?last=%s&n=%d>; rel="next"`, repo, url.QueryEscape(tags[n-1]), n))
	}
	w.Header().Set("Content-Type", "application/json")
	must(json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags}))
}

func (r *Registry) serveReferrers(w http.ResponseWriter, q *http.Request, repo string, d spec.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.f.noReferrers {
		fail(w, http.StatusNotFound, "NOT_FOUND", "page not found")
		return
	}
	list := []spec.Descriptor{}
	if rp := r.repos[repo]; rp != nil {
		for digest, m := range rp.manifests {
			if e, ok := referrer(digest, m, d); ok {
				list = append(list, e)
			}
		}
	}
	sorted(list)
	if want := q.URL.Query().Get("artifactType"); want != "" {
		list = slices.DeleteFunc(list, func(e spec.Descriptor) bool { return e.ArtifactType != want })
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if start, err := strconv.Atoi(q.URL.Query().Get("start")); err == nil {
		list = list[min(max(start, 0), len(list)):]
	}
	if n := r.f.pageSize; n > 0 && n < len(list) {
		list = list[:n]
		start, _ := strconv.Atoi(q.URL.Query().Get("start")) // absent is 0
		w.Header().Set("Link", fmt.Sprintf(`<%s/v2/%s/referrers/%s?start=%d>; rel="next"`, base(q), repo, d, start+n))
	}
	w.Header().Set("Content-Type", spec.OCIIndex)
	must(json.NewEncoder(w).Encode(map[string]any{"schemaVersion": 2, "mediaType": spec.OCIIndex, "manifests": list}))
}

// referrer describes a manifest that refers to d.
func referrer(digest spec.Digest, m manifest, d spec.Digest) (spec.Descriptor, bool) {
	var v spec.Manifest
	if err := json.Unmarshal(m.raw, &v); err != nil || v.Subject == nil || v.Subject.Digest != d {
		return spec.Descriptor{}, false
	}
	return spec.Descriptor{
		MediaType: m.mediaType, Digest: digest, Size: int64(len(m.raw)), ArtifactType: v.Type(), Annotations: v.Annotations,
	}, true
}
