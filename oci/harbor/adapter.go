package harbor

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// Media types of the Pluggable Scanner API.
const (
	metadataType = "application/vnd.scanner.adapter.metadata+json; version=1.0"
	responseType = "application/vnd.scanner.adapter.scan.response+json; version=1.0"
	errorType    = "application/vnd.scanner.adapter.error+json; version=1.0"
	// nativeType is the older report. It is the same but for its name.
	nativeType = "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0"
)

// maxScanRequest bounds a request to scan. Harbor's is about 3 KiB, most of it
// a token.
const maxScanRequest = 256 << 10

// digestText is a digest of a manifest, as Harbor and registries write it.
var digestText = regexp.MustCompile(`^(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

// Verdicts knows what was found in images. It may be asked concurrently.
type Verdicts interface {
	// Verdict answers for the digest of a manifest. False means that there
	// is no verdict, which is not the same as one without findings.
	Verdict(digest string) (Verdict, bool)
}

// A Verdict is what darkmirror's scanners said of an image.
type Verdict struct {
	Digest   string    // of the manifest
	Stream   string    // that brought it
	Bundle   uint64    // its number
	At       time.Time // when it was scanned
	Policy   string    // what the policy made of it, for people
	Findings []Finding
}

// A Finding is one thing that was found.
type Finding struct {
	ID       string // "CVE-2026-1234"
	Severity string
	Package  string
	Version  string
	FixedIn  string
	Text     string
	Links    []string
}

// AdapterOptions are the choices of an adapter.
type AdapterOptions struct {
	// Token must come with each request, as "Authorization: Bearer" or as
	// "X-ScannerAdapter-API-Key". Without a token nobody is let in.
	Token   string
	Version string       // darkmirror's; "unknown" where empty
	Log     *slog.Logger // nil discards
}

// An adapter answers from verdicts that are there already: it fetches and
// scans nothing, and makes no use of the access to the registry that Harbor
// sends along. It keeps no state: the number of a scan is the digest.
type adapter struct {
	verdicts Verdicts
	o        AdapterOptions
	token    [sha256.Size]byte
	log      *slog.Logger
}

// NewAdapter makes a scanner for Harbor to register, with the paths
// /api/v1/metadata, /api/v1/scan and /api/v1/scan/ID/report.
//
// It fails closed. An image without a verdict gets no report, but the error
// that the specification has for that: the scan fails, and where the project
// prevents pulling, Harbor does not serve the image.
func NewAdapter(v Verdicts, o AdapterOptions) http.Handler {
	a := &adapter{verdicts: v, o: o, token: sha256.Sum256([]byte(o.Token)), log: o.Log}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.o.Version == "" {
		a.o.Version = "unknown" // Harbor takes no scanner without one
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/metadata", a.metadata)
	mux.HandleFunc("POST /api/v1/scan", a.scan)
	mux.HandleFunc("GET /api/v1/scan/{id}/report", a.report)
	return a.authorized(mux)
}

func (a *adapter) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			given = r.Header.Get("X-ScannerAdapter-API-Key")
		}
		sum := sha256.Sum256([]byte(given)) // so that lengths do not show either
		if subtle.ConstantTimeCompare(sum[:], a.token[:]) != 1 || a.o.Token == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="darkmirror"`)
			a.refuse(w, r, http.StatusUnauthorized, "the token is missing or wrong")
			return
		}
		next.ServeHTTP(w, r)
	})
}

type scannerName struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor"`
	Version string `json:"version"`
}

func (a *adapter) name() scannerName {
	return scannerName{Name: "darkmirror", Vendor: "darkmirror", Version: a.o.Version}
}

func (a *adapter) metadata(w http.ResponseWriter, r *http.Request) {
	type capability struct {
		Type     string   `json:"type"`
		Consumes []string `json:"consumes_mime_types"`
		Produces []string `json:"produces_mime_types"`
	}
	a.send(w, r, http.StatusOK, metadataType, struct {
		Scanner      scannerName       `json:"scanner"`
		Capabilities []capability      `json:"capabilities"`
		Properties   map[string]string `json:"properties"`
	}{
		Scanner: a.name(),
		Capabilities: []capability{{
			Type: "vulnerability",
			Consumes: []string{
				"application/vnd.oci.image.manifest.v1+json",
				"application/vnd.docker.distribution.manifest.v2+json",
			},
			Produces: []string{reportType},
		}},
		Properties: map[string]string{
			"harbor.scanner-adapter/scanner-type": "os-package-vulnerability",
			// The access that is sent to us, and not used, is then a token
			// that ends soon instead of a password.
			"harbor.scanner-adapter/registry-authorization-type": "Bearer",
		},
	})
}

// A scanRequest is as much of Harbor's request as matters here.
type scanRequest struct {
	Artifact struct {
		Digest string `json:"digest"`
	} `json:"artifact"`
	Capabilities []struct {
		Type string `json:"type"`
	} `json:"enabled_capabilities"`
}

var errInvalidField = errors.New("invalid field")

// parseScanRequest answers the digest to be judged. An error that is
// errInvalidField says that the JSON was in order.
func parseScanRequest(b []byte) (string, error) {
	var req scanRequest
	if err := json.Unmarshal(b, &req); err != nil {
		return "", fmt.Errorf("the request is not the JSON of a scan request: %w", err)
	}
	if !digestText.MatchString(req.Artifact.Digest) {
		return "", fmt.Errorf("%w: artifact.digest is no digest", errInvalidField)
	}
	for _, c := range req.Capabilities {
		if c.Type != "" && c.Type != "vulnerability" {
			return "", fmt.Errorf("%w: enabled_capabilities: only vulnerability is offered", errInvalidField)
		}
	}
	return req.Artifact.Digest, nil
}

func (a *adapter) scan(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxScanRequest))
	if err != nil {
		a.refuse(w, r, http.StatusBadRequest, "the request cannot be read, or is too large")
		return
	}
	digest, err := parseScanRequest(b)
	switch {
	case errors.Is(err, errInvalidField):
		a.refuse(w, r, http.StatusUnprocessableEntity, err.Error())
	case err != nil:
		a.refuse(w, r, http.StatusBadRequest, "the request is not the JSON of a scan request")
	default:
		a.send(w, r, http.StatusAccepted, responseType, struct {
			ID string `json:"id"`
		}{strings.Replace(digest, ":", "-", 1)})
	}
}

func (a *adapter) report(w http.ResponseWriter, r *http.Request) {
	digest := strings.Replace(r.PathValue("id"), "-", ":", 1)
	if !digestText.MatchString(digest) {
		a.refuse(w, r, http.StatusNotFound, "there is no such scan")
		return
	}
	mime, ok := wantedReport(r.Header.Get("Accept"))
	if !ok {
		a.refuse(w, r, http.StatusNotAcceptable, "only "+reportType+" is offered")
		return
	}
	v, ok := a.verdicts.Verdict(digest)
	if !ok || v.Digest != digest {
		a.refuse(w, r, http.StatusInternalServerError, "darkmirror has no verdict for "+digest+": no bundle brought it, or it was not scanned")
		return
	}
	a.send(w, r, http.StatusOK, mime, a.harborReport(v))
}

// wantedReport chooses the kind of report.
func wantedReport(accept string) (string, bool) {
	if accept == "" {
		return reportType, true
	}
	for part := range strings.SplitSeq(accept, ",") {
		switch strings.ReplaceAll(strings.TrimSpace(part), " ", "") {
		case strings.ReplaceAll(reportType, " ", ""), "*/*", "application/*":
			return reportType, true
		case strings.ReplaceAll(nativeType, " ", ""):
			return nativeType, true
		}
	}
	return "", false
}

func (a *adapter) refuse(w http.ResponseWriter, r *http.Request, status int, message string) {
	type text struct {
		Message string `json:"message"`
	}
	a.send(w, r, status, errorType, struct {
		Error text `json:"error"`
	}{text{message}})
}

func (a *adapter) send(w http.ResponseWriter, r *http.Request, status int, mime string, v any) {
	b, err := json.Marshal(v)
	if err != nil { // nothing that is sent here can fail; a report must not be cut
		status, mime, b = http.StatusInternalServerError, errorType, []byte(`{"error":{"message":"the answer cannot be written"}}`)
	}
	w.Header().Set("Content-Type", mime)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(b); err != nil {
		a.log.LogAttrs(r.Context(), slog.LevelInfo, "scanner answer not sent", slog.String("error", err.Error()))
	}
}
