// Package pypitest is a fake package index for tests: a real HTTP handler of
// the Simple API, in JSON or HTML, with faults to order, and makers of wheels
// and source archives. It shares no code with package pypi, so that client
// and server cannot share one mistake.
//
// Specification: PEP 503 and PEP 691 for the pages, PEP 427 for wheels.
package pypitest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A File is one file of the index, with what the index says of it.
type File struct {
	Name           string
	Body           []byte
	RequiresPython string
	Yanked         bool
	YankedReason   string
	UploadTime     string
	Metadata       []byte // if set, the index names its hash as core metadata
	Provenance     []byte // if set, the index offers it as the file's attestations

	// Faults.
	Hash     string // the index names this sha256 instead of the body's
	NoHash   bool   // the index names no hash
	Size     int64  // the index names this size, if not zero
	URL      string // the index links here instead
	Cut      int    // the first answer ends after so many bytes
	Redirect string // a request for the file is sent on to this URL
}

// SHA256 is the digest of the body in hex.
func (f File) SHA256() string {
	d := sha256.Sum256(f.Body)
	return hex.EncodeToString(d[:])
}

// project is the normal form of the name in a filename.
func (f File) project() string {
	stem := strings.TrimSuffix(strings.TrimSuffix(f.Name, ".tar.gz"), ".zip")
	name, _, _ := strings.Cut(stem, "-")
	return normal(name)
}

var separators = regexp.MustCompile(`[-_.]+`)

func normal(s string) string { return strings.ToLower(separators.ReplaceAllString(s, "-")) }

// Pin is a requirements line for these files of one version: NAME==VERSION
// with a hash for each.
func Pin(files ...File) string {
	parts := strings.Split(strings.TrimSuffix(strings.TrimSuffix(files[0].Name, ".tar.gz"), ".zip"), "-")
	line := normal(parts[0]) + "==" + parts[1]
	for _, f := range files {
		line += " --hash=sha256:" + f.SHA256()
	}
	return line
}

// A Page replaces a project's page.
type Page struct {
	ContentType string
	Body        string
}

// An Index is the fake upstream: /simple/ and /files/. Set its fields before
// the first request.
type Index struct {
	HTML         bool // no JSON is offered
	NoMetadata   bool // no METADATA is offered beside the wheels
	LostMetadata bool // METADATA is named and is not there
	NoRanges     bool // files are sent whole
	APIVersion   string
	Pages        map[string]Page   // by project, instead of a made one
	Status       map[string]string // by project, PEP 792
	User, Secret string            // if set, basic authentication is demanded
	ETags        bool              // pages have validators

	files []File

	mu        sync.Mutex
	requests  []string
	unchanged int
	cut       map[string]bool
}

// New makes an index of these files.
func New(files ...File) *Index {
	return &Index{files: files, APIVersion: "1.1", Pages: map[string]Page{}, Status: map[string]string{}, cut: map[string]bool{}}
}

// Requests lists what was asked for, as "GET /simple/x/".
func (x *Index) Requests() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.requests)
}

// Count is how many requests began with prefix.
func (x *Index) Count(prefix string) int {
	n := 0
	for _, r := range x.Requests() {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// Unchanged is how many pages were asked for with a validator that held.
func (x *Index) Unchanged() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.unchanged
}

// ServeHTTP answers GET and HEAD.
func (x *Index) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	x.requests = append(x.requests, r.Method+" "+r.URL.Path)
	x.mu.Unlock()
	if user, secret, _ := r.BasicAuth(); x.User != "" && (user != x.User || secret != x.Secret) {
		w.Header().Set("WWW-Authenticate", "Basic")
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	if project, ok := strings.CutPrefix(r.URL.Path, "/simple/"); ok {
		x.page(w, r, strings.TrimSuffix(project, "/"))
		return
	}
	for _, f := range x.files {
		switch r.URL.Path {
		case "/files/" + f.Name:
			x.file(w, r, f)
			return
		case "/files/" + f.Name + ".provenance":
			if f.Provenance != nil {
				x.send(w, "application/vnd.pypi.integrity.v1+json", string(f.Provenance))
				return
			}
		case "/files/" + f.Name + ".metadata":
			if f.Metadata != nil && !x.NoMetadata && !x.LostMetadata {
				x.send(w, "text/plain", string(f.Metadata))
				return
			}
		}
	}
	http.NotFound(w, r)
}

func (x *Index) page(w http.ResponseWriter, r *http.Request, project string) {
	if p, ok := x.Pages[project]; ok {
		x.send(w, p.ContentType, p.Body)
		return
	}
	if x.ETags {
		tag := `"` + File{Body: fmt.Appendf(nil, "%v %v", x.files, x.Status)}.SHA256() + `"`
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			x.mu.Lock()
			x.unchanged++
			x.mu.Unlock()
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	var files []File
	for _, f := range x.files {
		if f.project() == project {
			files = append(files, f)
		}
	}
	switch {
	case len(files) == 0:
		http.NotFound(w, r)
	case !x.HTML && strings.Contains(r.Header.Get("Accept"), "application/vnd.pypi.simple.v1+json"):
		x.json(w, project, files)
	default:
		x.html(w, project, files)
	}
}

func (x *Index) send(w http.ResponseWriter, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write([]byte(body)) // the client may have gone: its own test notices
}

func (f File) link() string {
	if f.URL != "" {
		return f.URL
	}
	return "../../files/" + strings.ReplaceAll(f.Name, "+", "%2B")
}

func (f File) hash() string {
	if f.Hash != "" {
		return f.Hash
	}
	return f.SHA256()
}

func (x *Index) json(w http.ResponseWriter, project string, files []File) {
	list := []map[string]any{}
	for _, f := range files {
		m := map[string]any{"filename": f.Name, "url": f.link(), "hashes": map[string]string{}, "size": len(f.Body), "requires-python": nil, "yanked": f.Yanked, "unknown-key": []any{map[string]any{"a": 1.5}}}
		if !f.NoHash {
			m["hashes"] = map[string]string{"sha256": f.hash()}
		}
		if f.Size != 0 {
			m["size"] = f.Size
		}
		if f.RequiresPython != "" {
			m["requires-python"] = f.RequiresPython
		}
		if f.Yanked && f.YankedReason != "" {
			m["yanked"] = f.YankedReason
		}
		if f.UploadTime != "" {
			m["upload-time"] = f.UploadTime
		}
		if f.Provenance != nil {
			m["provenance"] = f.link() + ".provenance"
		}
		if f.Metadata != nil && !x.NoMetadata {
			m["core-metadata"] = map[string]string{"sha256": File{Body: f.Metadata}.SHA256()}
		}
		list = append(list, m)
	}
	doc := map[string]any{"meta": map[string]any{"api-version": x.APIVersion, "_last-serial": time.Now().UnixNano()}, "name": project, "files": list}
	if s := x.Status[project]; s != "" {
		doc["project-status"] = map[string]string{"status": s}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	x.send(w, "application/vnd.pypi.simple.v1+json", string(b))
}

func (x *Index) html(w http.ResponseWriter, project string, files []File) {
	var b strings.Builder
	fmt.Fprintf(&b, "<!DOCTYPE html><html><head><meta name='pypi:repository-version' content='%s'>", x.APIVersion)
	if s := x.Status[project]; s != "" {
		fmt.Fprintf(&b, "<meta name='pypi:project-status' content='%s'>", s)
	}
	b.WriteString("</head><body>")
	for _, f := range files {
		href := f.link()
		if !f.NoHash {
			href += "#sha256=" + f.hash()
		}
		fmt.Fprintf(&b, `<a href="%s"`, html.EscapeString(href))
		if f.RequiresPython != "" {
			fmt.Fprintf(&b, ` data-requires-python="%s"`, html.EscapeString(f.RequiresPython))
		}
		if f.Yanked {
			fmt.Fprintf(&b, ` data-yanked="%s"`, html.EscapeString(f.YankedReason))
		}
		if f.Metadata != nil && !x.NoMetadata {
			fmt.Fprintf(&b, ` data-dist-info-metadata="sha256=%s"`, File{Body: f.Metadata}.SHA256())
		}
		fmt.Fprintf(&b, ">%s</a><br/>\n", html.EscapeString(f.Name))
	}
	b.WriteString("</body></html>")
	x.send(w, "text/html; charset=UTF-8", b.String())
}

// file sends a body, whole or a range of it.
func (x *Index) file(w http.ResponseWriter, r *http.Request, f File) {
	if f.Redirect != "" {
		http.Redirect(w, r, f.Redirect, http.StatusFound)
		return
	}
	x.mu.Lock()
	cut := f.Cut > 0 && !x.cut[f.Name] && r.Method == http.MethodGet
	x.cut[f.Name] = x.cut[f.Name] || cut
	x.mu.Unlock()
	if cut {
		w.Header().Set("ETag", `"`+f.SHA256()+`"`)
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.Itoa(len(f.Body)))
		_, _ = w.Write(f.Body[:f.Cut])
		panic(http.ErrAbortHandler) // closes the connection
	}
	if x.NoRanges {
		r.Header.Del("Range")
	}
	w.Header().Set("ETag", `"`+f.SHA256()+`"`)
	http.ServeContent(w, r, f.Name, time.Time{}, strings.NewReader(string(f.Body)))
}
