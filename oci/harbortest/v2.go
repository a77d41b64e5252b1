package harbortest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/([^/]+)$`)
	uploadPath   = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]*)$`)
	otherPath    = regexp.MustCompile(`^/v2/(.+)/(?:blobs/[^/]+|tags/list|referrers/[^/]+)$`)
)

// serveV2 lets a request through to the registry if Harbor would, and keeps
// account of what came of it.
func (h *Harbor) serveV2(w http.ResponseWriter, r *http.Request) {
	repo, ref := "", ""
	manifest := manifestPath.FindStringSubmatch(r.URL.Path)
	upload := uploadPath.FindStringSubmatch(r.URL.Path)
	switch {
	case manifest != nil:
		repo, ref = manifest[1], manifest[2]
	case upload != nil:
		repo = upload[1]
	default:
		if m := otherPath.FindStringSubmatch(r.URL.Path); m != nil {
			repo = m[1]
		}
	}
	action := "push"
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		action = "pull"
	case http.MethodDelete:
		if upload == nil {
			action = "delete"
		}
	}
	if !h.admit(w, r, repo, action) {
		return
	}
	r = r.Clone(r.Context())
	r.Header.Del("Authorization") // the registry behind trusts us
	switch {
	case manifest != nil && r.Method == http.MethodPut:
		h.putManifest(w, r, repo, ref)
	case manifest != nil && action == "pull":
		if why := h.prevented(repo, ref); why != "" {
			fail(w, http.StatusPreconditionFailed, "PROJECTPOLICYVIOLATION", why)
			return
		}
		h.Registry.ServeHTTP(w, r)
	case manifest != nil && r.Method == http.MethodDelete:
		if tag := h.frozen(repo, ref); tag != "" {
			fail(w, http.StatusPreconditionFailed, "PRECONDITION", immutableText(repo, tag))
			return
		}
		h.Registry.ServeHTTP(w, r)
	case upload != nil && r.Method != http.MethodGet:
		h.upload(w, r, repo)
	default:
		h.Registry.ServeHTTP(w, r)
	}
}

// below is a repository's name within its project.
func below(repo string) (project, name string) {
	project, name, _ = strings.Cut(repo, "/")
	return project, name
}

func immutableText(repo, tag string) string {
	_, name := below(repo)
	return fmt.Sprintf("Failed to process request due to '%s:%s' configured as immutable.", name, tag)
}

// holds reports whether a rule of the project makes the tag immutable.
func (p *Project) holds(tag string) bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool {
		ok, err := path.Match(strings.ReplaceAll(r.Tags, "**", "*"), tag)
		return !r.Disabled && err == nil && ok != r.Excludes
	})
}

// frozen is a tag that is immutable: ref itself, or for a digest any that
// points at it. Empty: there is none.
func (h *Harbor) frozen(repo, ref string) string {
	project, _ := below(repo)
	p := h.Project(project)
	for tag, d := range h.Registry.Tags(repo) {
		if (tag == ref || string(d) == ref) && p.holds(tag) {
			return tag
		}
	}
	return ""
}

// take counts bytes against the project's quota. It answers Harbor's text
// where they are too many.
func (h *Harbor) take(project, digest string, size int64) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.projects[project]
	if p.blobs[digest] {
		return ""
	}
	if p.Quota >= 0 && p.Used+size > p.Quota {
		return fmt.Sprintf("adding %s of storage resource, which when updated to current usage of %s will exceed the configured upper limit of %s.",
			human(size), human(p.Used), human(p.Quota))
	}
	return ""
}

func (h *Harbor) taken(project, digest string, size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.projects[project]
	h.sizes[digest] = size
	if !p.blobs[digest] {
		p.blobs[digest] = true
		p.Used += size
	}
}

func human(n int64) string {
	for i, unit := range []string{"GiB", "MiB", "KiB"} {
		if shift := 30 - 10*i; n >= 1<<shift {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(int64(1)<<shift), unit)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// upload is one request of an upload. The quota is looked at when the blob is
// finished, which is late: all its bytes have come by then.
func (h *Harbor) upload(w http.ResponseWriter, r *http.Request, repo string) {
	project, _ := below(repo)
	digest := r.URL.Query().Get("digest")
	if from := r.URL.Query().Get("mount"); r.Method == http.MethodPost && from != "" {
		digest = from
	}
	h.mu.Lock()
	size := h.sessions[r.URL.Path] + max(r.ContentLength, 0)
	known, mounted := h.sizes[digest]
	h.mu.Unlock()
	mounted = mounted && r.URL.Query().Get("mount") != ""
	if mounted {
		size = known
	}
	finishes := r.Method == http.MethodPut || r.Method == http.MethodPost && digest != ""
	if finishes {
		if why := h.take(project, digest, size); why != "" {
			fail(w, http.StatusForbidden, "DENIED", why)
			return
		}
	}
	rec := &recorder{ResponseWriter: w}
	h.Registry.ServeHTTP(rec, r)
	switch {
	case r.Method == http.MethodPatch && rec.status == http.StatusAccepted:
		_, last, _ := strings.Cut(w.Header().Get("Range"), "-")
		if n, err := strconv.ParseInt(last, 10, 64); err == nil {
			h.mu.Lock()
			h.sessions[r.URL.Path] = n + 1
			h.mu.Unlock()
		}
	case finishes && rec.status == http.StatusCreated:
		h.taken(project, digest, size)
	}
}

// putManifest refuses a tag that is immutable even where it would not move.
func (h *Harbor) putManifest(w http.ResponseWriter, r *http.Request, repo, ref string) {
	project, _ := below(repo)
	if !strings.Contains(ref, ":") && h.frozen(repo, ref) != "" {
		fail(w, http.StatusPreconditionFailed, "PRECONDITION", immutableText(repo, ref))
		return
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	if why := h.take(project, sum(raw), int64(len(raw))); why != "" {
		fail(w, http.StatusForbidden, "DENIED", why)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	rec := &recorder{ResponseWriter: w}
	h.Registry.ServeHTTP(rec, r)
	if rec.status != http.StatusCreated {
		return
	}
	digest := w.Header().Get("Docker-Content-Digest")
	h.taken(project, digest, int64(len(raw)))
	h.mu.Lock()
	if !slices.Contains(h.pushed[repo], digest) {
		h.pushed[repo] = append(h.pushed[repo], digest)
	}
	auto := h.projects[project].Metadata["auto_scan"] == "true"
	h.mu.Unlock()
	if auto {
		h.scanNow(repo, digest)
	}
}

// prevented says why the project's policy forbids to pull an artifact; empty
// if it does not.
func (h *Harbor) prevented(repo, ref string) string {
	name, _ := below(repo)
	p := h.Project(name)
	a := h.artifact(repo, ref)
	if a == nil {
		return ""
	}
	if p.Metadata["enable_content_trust_cosign"] == "true" && a.image() &&
		!slices.ContainsFunc(a.Accessories, func(c accessory) bool { return c.Type == "signature.cosign" }) {
		return "The image is not signed by cosign."
	}
	// An index passes: its children are looked at when they are pulled.
	if p.Metadata["prevent_vul"] != "true" || !a.image() {
		return ""
	}
	const tail = ` cannot be pulled due to configured policy in 'Prevent images with vulnerability severity of "%s" or higher from running.' To continue with pull, please contact your project administrator`
	limit := p.Metadata["severity"]
	text := func(what, end string) string {
		return "current image " + what + fmt.Sprintf(tail, strings.ToUpper(limit[:min(1, len(limit))])+limit[min(1, len(limit)):]) + end
	}
	h.mu.Lock()
	s, scannable := h.scans[repo+"@"+a.Digest], h.scannerOf(p) != nil || h.isOn
	h.mu.Unlock()
	switch {
	case s == nil && !scannable:
		return "" // with no scanner at all Harbor lets it pass
	case s == nil:
		return text("without vulnerability scanning", " for help.")
	case s.status != "Success":
		return text(fmt.Sprintf("with %q status of vulnerability scanning", s.status), " for help.")
	}
	list := p.Allowlist
	if v, ok := p.Metadata["reuse_sys_cve_allowlist"]; !ok || v == "true" {
		h.mu.Lock()
		list = h.system
		h.mu.Unlock()
	}
	expired := list.Expires != 0 && time.Now().Unix() >= list.Expires
	n, gravest := 0, -1
	for _, v := range s.found {
		if expired || !slices.Contains(list.CVEs, v.ID) {
			n, gravest = n+1, max(gravest, rank(v.Severity))
		}
	}
	if gravest < 0 || gravest < rank(limit) {
		return ""
	}
	word := "vulnerability"
	if n > 1 {
		word = "vulnerabilities"
	}
	return text(fmt.Sprintf("with %d %s", n, word), " to exempt matched vulnerabilities through configuring the CVE allowlist.")
}

// rank orders severities as Harbor does: what it does not know is gravest.
func rank(s string) int {
	switch strings.ToLower(s) {
	case "none", "unknown":
		return 0
	case "negligible":
		return 1
	case "low":
		return 2
	case "medium":
		return 3
	case "high":
		return 4
	case "critical":
		return 5
	}
	return 99
}

// decode reads a body of the API, or answers 400 or 422 as its framework does.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		fail(w, http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE", "unsupported media type, only application/json is allowed")
		return false
	}
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		fail(w, http.StatusBadRequest, "BAD_REQUEST", "parsing body failed: "+err.Error())
		return false
	}
	return true
}
