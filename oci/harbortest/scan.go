package harbortest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	reportType  = "application/vnd.security.vulnerability.report; version=1.1"
	dockerType  = "application/vnd.docker.distribution.manifest.v2+json"
	requestType = "application/vnd.scanner.adapter.scan.request+json; version=1.0"
	answerType  = "application/vnd.scanner.adapter.scan.response+json; version=1.0"
	metaType    = "application/vnd.scanner.adapter.metadata+json; version=1.0"
)

// A Vulnerability is what a scan found.
type Vulnerability struct {
	ID       string `json:"id"`
	Package  string `json:"package"`
	Version  string `json:"version"`
	Severity string `json:"severity"`
}

// A scan is the last one of an artifact.
type scan struct {
	status  string // "Success", "Error"
	message string
	found   []Vulnerability
}

type scanSummary struct {
	Status   string `json:"scan_status"`
	Severity string `json:"severity"`
	Summary  struct {
		Total  int            `json:"total"`
		Counts map[string]int `json:"summary"`
	} `json:"summary"`
}

func (s *scan) summary() (sum scanSummary) {
	sum.Status, sum.Severity = s.status, "None"
	sum.Summary.Total, sum.Summary.Counts = len(s.found), make(map[string]int)
	for _, v := range s.found {
		sum.Summary.Counts[v.Severity]++
		if rank(v.Severity) > rank(sum.Severity) {
			sum.Severity = v.Severity
		}
	}
	return sum
}

// A scanner is a registered adapter.
type scanner struct {
	UUID     string `json:"uuid"`
	Name     string `json:"name"`
	URL      string `json:"url"`
	Auth     string `json:"auth"`
	Disabled bool   `json:"disabled"`
	Default  bool   `json:"is_default"`

	token string
}

// Scanner gives Harbor a scanner of its own, which finds nothing but what
// [Harbor.Vulnerable] says.
func (h *Harbor) Scanner() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.isOn = true
}

// Vulnerable lets the scanner of [Harbor.Scanner] find these in a digest.
func (h *Harbor) Vulnerable(digest string, found ...Vulnerability) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.builtin[digest] = found
}

// ScanLog is what the log of the artifact's last scan says of its failure.
func (h *Harbor) ScanLog(repo, digest string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.scans[repo+"@"+digest]; s != nil {
		return s.message
	}
	return ""
}

// scannerOf is the adapter of a project, or the default, or nil. The caller
// holds the lock.
func (h *Harbor) scannerOf(p *Project) *scanner {
	for _, s := range h.scanners {
		if s.UUID == p.scanner {
			return s
		}
	}
	for _, s := range h.scanners {
		if s.Default {
			return s
		}
	}
	return nil
}

func (h *Harbor) scan(w http.ResponseWriter, r *http.Request, repo string, a *artifactView) {
	p := h.Project(r.PathValue("project"))
	h.mu.Lock()
	s, on := h.scannerOf(p), h.isOn
	h.mu.Unlock()
	switch {
	case s == nil && !on:
		fail(w, http.StatusPreconditionFailed, "PRECONDITION", fmt.Sprintf("no available scanner for project: %d", p.ID))
	case s != nil && s.Disabled:
		fail(w, http.StatusPreconditionFailed, "PRECONDITION", "scanner "+s.Name+" is deactivated")
	case a.Type != "IMAGE":
		fail(w, http.StatusBadRequest, "BAD_REQUEST", "the configured scanner does not support scanning artifact with mime type "+a.ManifestMediaType)
	default:
		h.scanNow(repo, a.Digest)
		w.WriteHeader(http.StatusAccepted)
	}
}

// scanNow scans an artifact, or the children of an index, at once.
func (h *Harbor) scanNow(repo, digest string) {
	a := h.artifact(repo, digest)
	if a == nil || a.Type != "IMAGE" {
		return
	}
	for _, c := range a.References {
		h.scanNow(repo, c.Digest)
	}
	if len(a.References) > 0 {
		return
	}
	name, _ := below(repo)
	p := h.Project(name)
	h.mu.Lock()
	s, on := h.scannerOf(p), h.isOn
	result := &scan{status: "Success", found: h.builtin[digest]}
	h.mu.Unlock()
	switch {
	case s != nil:
		found, err := s.ask(repo, a)
		result = &scan{status: "Success", found: found}
		if err != nil {
			result = &scan{status: "Error", message: err.Error()}
		}
	case !on:
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scans[repo+"@"+digest] = result
}

// call sends one request to an adapter, as Harbor's client does: five seconds,
// no redirects.
func (s *scanner) call(method, path, contentType, accept string, body []byte, want int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.URL, "/")+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", accept)
	switch s.Auth {
	case "Bearer":
		req.Header.Set("Authorization", "Bearer "+s.token)
	case "APIKey":
		req.Header.Set("X-ScannerAdapter-API-Key", s.token)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != want {
		var e struct {
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			return nil, fmt.Errorf("general response handler: %w", err)
		}
		return nil, fmt.Errorf("%s: general response handler: unexpected status code: %d, expected: %d", e.Error.Message, resp.StatusCode, want)
	}
	return b, nil
}

// ping is what Harbor demands of an adapter before it takes it.
func (s *scanner) ping() error {
	b, err := s.call(http.MethodGet, "/metadata", "", metaType, nil, http.StatusOK)
	if err != nil {
		return err
	}
	var meta struct {
		Scanner struct {
			Name, Vendor, Version string
		} `json:"scanner"`
		Capabilities []struct {
			Consumes []string `json:"consumes_mime_types"`
			Produces []string `json:"produces_mime_types"`
		} `json:"capabilities"`
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return err
	}
	if meta.Scanner.Name == "" || meta.Scanner.Vendor == "" || meta.Scanner.Version == "" || len(meta.Capabilities) == 0 {
		return errors.New("invalid scanner in metadata")
	}
	for _, c := range meta.Capabilities {
		if !slices.Contains(c.Consumes, dockerType) || !slices.Contains(c.Produces, reportType) {
			return fmt.Errorf("missing %s in consumes_mime_types or %s in produces_mime_types", dockerType, reportType)
		}
	}
	return nil
}

// ask has an adapter scan an artifact.
func (s *scanner) ask(repo string, a *artifactView) ([]Vulnerability, error) {
	in, err := json.Marshal(map[string]any{
		"registry": map[string]any{"url": "http://core:8080", "authorization": "Bearer a-token-for-the-scanner", "insecure": true},
		"artifact": map[string]any{"repository": repo, "digest": a.Digest, "tag": "", "mime_type": a.ManifestMediaType, "size": a.Size},
		"enabled_capabilities": []map[string]any{{
			"type": "vulnerability", "produces_mime_types": []string{reportType}, "parameters": nil,
		}},
	})
	if err != nil {
		return nil, err
	}
	b, err := s.call(http.MethodPost, "/scan", requestType, answerType, in, http.StatusAccepted)
	if err != nil {
		return nil, err
	}
	var accepted struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(b, &accepted); err != nil || accepted.ID == "" {
		return nil, errors.Join(errors.New("empty scan request ID"), err)
	}
	if b, err = s.call(http.MethodGet, "/scan/"+accepted.ID+"/report", "", reportType, nil, http.StatusOK); err != nil {
		return nil, err
	}
	var report struct {
		Vulnerabilities []Vulnerability `json:"vulnerabilities"`
	}
	if err := json.Unmarshal(b, &report); err != nil {
		return nil, err
	}
	return report.Vulnerabilities, nil
}

type scannerDocument struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Auth     string `json:"auth"`
	Token    string `json:"access_credential"`
	Disabled bool   `json:"disabled"`
}

func (h *Harbor) listScanners(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	list := []scanner{}
	for _, s := range h.scanners {
		list = append(list, *s)
	}
	h.mu.Unlock()
	answerPage(w, r, list)
}

func (h *Harbor) addScanner(w http.ResponseWriter, r *http.Request) {
	var in scannerDocument
	if !decode(w, r, &in) {
		return
	}
	s := &scanner{Name: in.Name, URL: in.URL, Auth: in.Auth, token: in.Token, Disabled: in.Disabled}
	if s.Auth != "" && s.token == "" {
		fail(w, http.StatusBadRequest, "BAD_REQUEST", "access_credential is required for auth type "+s.Auth)
		return
	}
	if err := s.ping(); err != nil { // its text stays in Harbor's log
		fail(w, http.StatusInternalServerError, "UNKNOWN", "internal server error")
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(h.scanners, func(o *scanner) bool { return o.Name == s.Name || o.URL == s.URL }) {
		fail(w, http.StatusConflict, "CONFLICT", "registration name or url already exists")
		return
	}
	s.UUID = fmt.Sprintf("%08x-1111-11f1-8000-0242ac120002", h.number())
	s.Default = len(h.scanners) == 0 && !h.isOn
	h.scanners = append(h.scanners, s)
	w.Header().Set("Location", "/api/v2.0/scanners/"+s.UUID)
	w.WriteHeader(http.StatusCreated)
}

func (h *Harbor) registered(w http.ResponseWriter, id string) *scanner {
	i := slices.IndexFunc(h.scanners, func(s *scanner) bool { return s.UUID == id })
	if i < 0 {
		fail(w, http.StatusNotFound, "NOT_FOUND", "scanner "+id+" not found")
		return nil
	}
	return h.scanners[i]
}

func (h *Harbor) putScanner(w http.ResponseWriter, r *http.Request) {
	var in scannerDocument
	if !decode(w, r, &in) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.registered(w, r.PathValue("id")); s != nil {
		s.Name, s.URL, s.Auth, s.Disabled = in.Name, in.URL, in.Auth, in.Disabled
		if in.Token != "" {
			s.token = in.Token
		}
	}
}

func (h *Harbor) defaultScanner(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Default bool `json:"is_default"`
	}
	if !decode(w, r, &in) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.registered(w, r.PathValue("id")); s != nil && in.Default {
		for _, o := range h.scanners {
			o.Default = o == s
		}
	}
}

func (h *Harbor) projectScanner(w http.ResponseWriter, r *http.Request) {
	var in struct {
		UUID string `json:"uuid"`
	}
	if !decode(w, r, &in) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.registered(w, in.UUID); s != nil {
		h.projects[r.PathValue("project")].scanner = s.UUID
	}
}
