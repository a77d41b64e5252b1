package harbor

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/harbortest"
	"github.com/darkmirror/darkmirror/oci/ocitest"
)

const scanToken = "token-of-the-adapter"

type verdicts map[string]Verdict

func (v verdicts) Verdict(digest string) (Verdict, bool) {
	x, ok := v[digest]
	return x, ok
}

func digestOf(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// ask sends one request to an adapter.
func ask(t *testing.T, h http.Handler, method, path, body string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, serve(t, h)+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // it was read to its end
	return resp, string(b)
}

var bearer = map[string]string{"Authorization": "Bearer " + scanToken}

// TestVerdictsInHarbor is the whole way: register, scan, report, pull
// prevention.
func TestVerdictsInHarbor(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	put := func(tag, layer string) string {
		return string(w.harbor.Registry.Put(app, tag, ocitest.Image([]byte(layer))))
	}
	bad, good, unknown := put("bad", "bad"), put("good", "good"), put("unknown", "unknown")
	v := verdicts{
		bad:  {Digest: bad, At: time.Now(), Findings: []Finding{{ID: "CVE-1", Severity: "high", Package: "zlib", Version: "1"}, {ID: "CVE-2", Severity: "low", Package: "bash", Version: "5"}}},
		good: {Digest: good, At: time.Now()},
	}
	url := serve(t, NewAdapter(v, AdapterOptions{Token: scanToken}))
	c := w.robot(RobotOptions{Create: true, Scanner: true, Scan: true})
	o := ScannerOptions{Name: "darkmirror", URL: url, Token: scanToken, Project: true}
	id, err := c.EnsureScanner(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	w.harbor.Change("platform", func(p *harbortest.Project) { p.Metadata["prevent_vul"], p.Metadata["severity"] = "true", "high" })
	for d, want := range map[string]struct {
		status   string
		severity string
		pull     int
	}{
		bad:     {"Success", "High", http.StatusPreconditionFailed},
		good:    {"Success", "None", http.StatusOK},
		unknown: {"Error", "None", http.StatusPreconditionFailed},
	} {
		if err := c.Scan(t.Context(), app, d); err != nil {
			t.Fatal(err)
		}
		a, err := c.Artifact(t.Context(), app, d)
		if err != nil {
			t.Fatal(err)
		}
		s, ok := a.Scan()
		if !ok || s.Status != want.status || s.Severity != want.severity || s.Summary.Total != len(v[d].Findings) {
			t.Errorf("%s: scan %+v, want %+v", a.Tags[0].Name, s, want)
		}
		resp, body := ask(t, w.harbor, http.MethodGet, "/v2/"+app+"/manifests/"+d, "", map[string]string{"Authorization": "Basic YWRtaW46QWRtaW5pc3RyYXRvci1TZWNyZXQ="})
		if resp.StatusCode != want.pull {
			t.Errorf("%s: pulled with %d %s, want %d", a.Tags[0].Name, resp.StatusCode, body, want.pull)
		}
	}
	if got, want := w.harbor.ScanLog(app, unknown), "darkmirror has no verdict for "+unknown; !strings.Contains(got, want) {
		t.Errorf("Harbor's log says %q, want %q", got, want)
	}
	if again, err := c.EnsureScanner(t.Context(), o); err != nil || again != id {
		t.Errorf("the second time %s, %v; want %s", again, err, id)
	}
	if n := w.harbor.Count(http.MethodPost, "/scanners"); n != 1 {
		t.Errorf("registered %d times", n)
	}
	notes(t, c, 0)
}

func TestEnsureScanner(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	first := serve(t, NewAdapter(verdicts{}, AdapterOptions{Token: "other"}))
	second := serve(t, NewAdapter(verdicts{}, AdapterOptions{Token: scanToken}))
	c := w.admin()
	if _, err := c.EnsureScanner(t.Context(), ScannerOptions{Name: "trivy", URL: first, Token: "other"}); err != nil {
		t.Fatal(err)
	}
	isDefault := func() (names []string) {
		all, err := list[registration](t.Context(), c, call{op: "list", path: "/scanners"})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.IsDefault {
				names = append(names, r.Name)
			}
		}
		return names
	}
	o := ScannerOptions{Name: "darkmirror", URL: second, Token: scanToken}
	id, err := c.EnsureScanner(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"trivy"}, isDefault()); d != "" {
		t.Error(d)
	}
	o.Default = true
	if again, err := c.EnsureScanner(t.Context(), o); err != nil || again != id {
		t.Errorf("%s, %v; want %s", again, err, id)
	}
	if d := cmp.Diff([]string{"darkmirror"}, isDefault()); d != "" {
		t.Error(d)
	}
	// A wrong token: Harbor asks the adapter and does not take it.
	_, err = c.EnsureScanner(t.Context(), ScannerOptions{Name: "new", URL: serve(t, NewAdapter(verdicts{}, AdapterOptions{Token: scanToken})), Token: "wrong"})
	hasID(t, err)
	if !hasStatus(err, http.StatusInternalServerError) {
		t.Errorf("got %v", err)
	}
	for _, o := range []ScannerOptions{{URL: second, Token: "t"}, {Name: "n", Token: "t"}, {Name: "n", URL: second}, {Name: "n", URL: "http://u:Secret@scan.example", Token: "t"}} {
		if _, err := c.EnsureScanner(t.Context(), o); err == nil || strings.Contains(err.Error(), "Secret") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	_, err = w.robot(RobotOptions{Project: "platform"}).EnsureScanner(t.Context(), o)
	refused(t, err, CodeForbidden)
}

func TestAdapterToken(t *testing.T) {
	a := NewAdapter(verdicts{}, AdapterOptions{Token: scanToken})
	shut := NewAdapter(verdicts{}, AdapterOptions{})
	for _, tt := range []struct {
		h      http.Handler
		header map[string]string
		want   int
	}{
		{a, bearer, http.StatusOK},
		{a, map[string]string{"X-ScannerAdapter-API-Key": scanToken}, http.StatusOK},
		{a, nil, http.StatusUnauthorized},
		{a, map[string]string{"Authorization": "Bearer"}, http.StatusUnauthorized},
		{a, map[string]string{"Authorization": "Bearer " + scanToken + "x"}, http.StatusUnauthorized},
		{a, map[string]string{"Authorization": scanToken}, http.StatusUnauthorized},
		{a, map[string]string{"Authorization": "Bearer wrong", "X-ScannerAdapter-API-Key": scanToken}, http.StatusUnauthorized},
		{shut, nil, http.StatusUnauthorized},
		{shut, map[string]string{"Authorization": "Bearer "}, http.StatusUnauthorized},
	} {
		for _, path := range []string{"/api/v1/metadata", "/api/v1/nothing"} {
			resp, body := ask(t, tt.h, http.MethodGet, path, "", tt.header)
			want := tt.want
			if want == http.StatusOK && path != "/api/v1/metadata" {
				want = http.StatusNotFound
			}
			if resp.StatusCode != want {
				t.Errorf("%s with %v: %d, want %d", path, tt.header, resp.StatusCode, want)
			}
			if want == http.StatusUnauthorized && !strings.Contains(body, `{"error":{"message":"`) {
				t.Errorf("401 with %s", body)
			}
		}
	}
}

func TestAdapterScan(t *testing.T) {
	a := NewAdapter(verdicts{}, AdapterOptions{Token: scanToken})
	for name, tt := range map[string]struct {
		body string
		want int
	}{
		"good":    {`{"registry":{"url":"http://core:8080","authorization":"Bearer x"},"artifact":{"repository":"a/b","digest":"` + digestOf("a") + `","mime_type":"x"}}`, http.StatusAccepted},
		"kind":    {`{"artifact":{"digest":"` + digestOf("a") + `"},"enabled_capabilities":[{"type":"vulnerability"}]}`, http.StatusAccepted},
		"sbom":    {`{"artifact":{"digest":"` + digestOf("a") + `"},"enabled_capabilities":[{"type":"sbom"}]}`, http.StatusUnprocessableEntity},
		"sha512":  {`{"artifact":{"digest":"sha512:` + strings.Repeat("b", 128) + `"}}`, http.StatusAccepted},
		"escape":  {`{"artifact":{"digest":"sha256:../../` + strings.Repeat("a", 58) + `"}}`, http.StatusUnprocessableEntity},
		"upper":   {`{"artifact":{"digest":"` + strings.ToUpper(digestOf("a")) + `"}}`, http.StatusUnprocessableEntity},
		"absent":  {`{}`, http.StatusUnprocessableEntity},
		"no json": {`digest`, http.StatusBadRequest},
		"kinds":   {`{"artifact":{"digest":1}}`, http.StatusBadRequest},
		"large":   {`{"x":"` + strings.Repeat("x", maxScanRequest) + `"}`, http.StatusBadRequest},
	} {
		resp, body := ask(t, a, http.MethodPost, "/api/v1/scan", tt.body, bearer)
		if resp.StatusCode != tt.want {
			t.Errorf("%s: %d %.100s, want %d", name, resp.StatusCode, body, tt.want)
		}
		if tt.want == http.StatusAccepted && !strings.HasPrefix(body, `{"id":"sha`) {
			t.Errorf("%s: %s", name, body)
		}
	}
}

func TestAdapterReport(t *testing.T) {
	d, clean := digestOf("a"), digestOf("c")
	liar := digestOf("e") // the source answers for another
	v := verdicts{
		d: {
			Digest: d, Stream: "main", Bundle: 42, At: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC), Policy: "waived: 1",
			Findings: []Finding{
				{ID: "CVE-2", Severity: "moderate", Package: "b", Version: "1", FixedIn: "2", Text: "text", Links: []string{"https://tracker.example/CVE-2"}},
				{Severity: "malware"},
				{ID: "CVE-1", Severity: "UNKNOWN", Package: "a"},
			},
		},
		clean: {Digest: clean, At: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)},
		liar:  {Digest: d},
	}
	a := NewAdapter(v, AdapterOptions{Token: scanToken, Version: "0.2.0"})
	get := func(id, accept string) (*http.Response, string) {
		return ask(t, a, http.MethodGet, "/api/v1/scan/"+id+"/report", "", map[string]string{"Authorization": "Bearer " + scanToken, "Accept": accept})
	}
	id := strings.Replace(d, ":", "-", 1)
	resp, body := get(id, reportType)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != reportType {
		t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	const attributes = `"vendor_attributes":{"darkmirror":{"bundle":42,"policy":"waived: 1","stream":"main"}}`
	want := `{"generated_at":"2026-11-22T01:02:03Z","artifact":{"digest":"` + d + `"},` +
		`"scanner":{"name":"darkmirror","vendor":"darkmirror","version":"0.2.0"},"severity":"Critical","vulnerabilities":[` +
		`{"id":"CVE-1","package":"a","version":"","fix_version":"","severity":"Unknown","description":"","links":[],` + attributes + `},` +
		`{"id":"CVE-2","package":"b","version":"1","fix_version":"2","severity":"Medium","description":"text","links":["https://tracker.example/CVE-2"],` + attributes + `},` +
		`{"id":"DARKMIRROR-UNNAMED","package":"","version":"","fix_version":"","severity":"Critical","description":"","links":[],` + attributes + `}]}`
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	if _, body = get(strings.Replace(clean, ":", "-", 1), ""); !strings.Contains(body, `"severity":"None","vulnerabilities":[]`) {
		t.Errorf("a verdict without findings: %s", body)
	}
	for _, tt := range []struct {
		id, accept string
		want       int
	}{
		{id, "*/*", http.StatusOK},
		{id, nativeType, http.StatusOK},
		{id, "text/plain, " + reportType, http.StatusOK},
		{id, "application/vnd.security.sbom.report+json; version=1.0", http.StatusNotAcceptable},
		{strings.Replace(digestOf("b"), ":", "-", 1), reportType, http.StatusInternalServerError},
		{strings.Replace(liar, ":", "-", 1), reportType, http.StatusInternalServerError},
		{"sha256-xyz", reportType, http.StatusNotFound},
		{"..%2F..%2Fetc", reportType, http.StatusNotFound},
	} {
		resp, body := get(tt.id, tt.accept)
		if resp.StatusCode != tt.want {
			t.Errorf("%s as %s: %d, want %d", tt.id, tt.accept, resp.StatusCode, tt.want)
		}
		if tt.want != http.StatusOK && (strings.Contains(body, "vulnerabilities") || !strings.Contains(body, `{"error":{"message":"`)) {
			t.Errorf("%s as %s: %s", tt.id, tt.accept, body)
		}
	}
}

func TestSeverityOf(t *testing.T) {
	for in, want := range map[string]string{
		"CRITICAL": "Critical", "Important": "High", "medium": "Medium", " low ": "Low", "unimportant": "Negligible", "unknown": "Unknown",
		"": "Critical", "malware": "Critical", "none": "Critical",
	} {
		if got := severityOf(in).String(); got != want {
			t.Errorf("%q is %s, want %s", in, got, want)
		}
	}
}

// FuzzParseScanRequest: what is accepted has a digest of which the number of
// the scan is made, and back.
func FuzzParseScanRequest(f *testing.F) {
	for _, s := range []string{
		`{"artifact":{"digest":"` + digestOf("a") + `"},"enabled_capabilities":[{"type":"vulnerability"}]}`,
		`{"artifact":{"digest":"` + digestOf("a") + `"},"enabled_capabilities":[{"type":"sbom"}]}`,
		`{"artifact":null}`, `[]`, `{"artifact":{"digest":"sha512:` + strings.Repeat("0", 128) + `"}}`, "{",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseScanRequest(b)
		if (err == nil) != (d != "") {
			t.Errorf("%q beside %v", d, err)
		}
		if err != nil {
			return
		}
		if !json.Valid(b) || !digestText.MatchString(d) || strings.Replace(strings.Replace(d, ":", "-", 1), "-", ":", 1) != d {
			t.Errorf("accepted %q of %q", d, b)
		}
	})
}
