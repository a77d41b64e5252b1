package harbortest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/ocitest"
)

const (
	password = "Administrator-Secret"
	jsonType = "application/json"
	dockerM  = "application/vnd.oci.image.manifest.v1+json"
)

// A world is a Harbor with project platform, asked by plain HTTP.
type world struct {
	t *testing.T
	*Harbor
	url string
}

func newWorld(t *testing.T, quota int64) *world {
	t.Helper()
	h := New(password)
	h.AddProject("platform", quota)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &world{t: t, Harbor: h, url: s.URL}
}

// An answer is what came back.
type answered struct {
	status int
	header http.Header
	body   string
}

// code and message are those of the first error.
func (a answered) code() string { c, _ := a.err(); return c }

func (a answered) err() (code, message string) {
	var doc struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	if json.Unmarshal([]byte(a.body), &doc) != nil || len(doc.Errors) == 0 {
		return "", ""
	}
	return doc.Errors[0].Code, doc.Errors[0].Message
}

// do asks as who ("user:password", a bearer token, or empty).
func (w *world) do(who, method, path, contentType, body string) answered {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if user, pass, ok := strings.Cut(who, ":"); ok {
		req.SetBasicAuth(user, pass)
	} else if who != "" {
		req.Header.Set("Authorization", "Bearer "+who)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = resp.Body.Close() // it was read to its end
	if resp.Header.Get("X-Request-Id") == "" {
		w.t.Errorf("%s %s: no X-Request-Id", method, path)
	}
	return answered{resp.StatusCode, resp.Header, string(b)}
}

const admin = "admin:" + password

// robot makes a robot account and answers "name:secret".
func (w *world) robot(level, namespace string, access ...string) string {
	w.t.Helper()
	list := []string{}
	for _, a := range access {
		resource, action, _ := strings.Cut(a, ":")
		list = append(list, fmt.Sprintf(`{"resource":%q,"action":%q}`, resource, action))
	}
	kind := "project"
	if namespace == "/" {
		kind = "system"
	}
	body := fmt.Sprintf(`{"name":"importer","level":%q,"duration":-1,"permissions":[{"kind":%q,"namespace":%q,"access":[%s]}]}`, level, kind, namespace, strings.Join(list, ","))
	a := w.do(admin, "POST", "/api/v2.0/robots", jsonType, body)
	var made struct{ Name, Secret string }
	if a.status != http.StatusCreated || json.Unmarshal([]byte(a.body), &made) != nil {
		w.t.Fatalf("robot account: %d %s", a.status, a.body)
	}
	return made.Name + ":" + made.Secret
}

// push sends a blob of n bytes and a manifest with it, and answers the last
// answer that was not 201.
func (w *world) push(who, repo, tag string, n int) answered {
	w.t.Helper()
	im := ocitest.Image(ocitest.Noise(n, 1))
	for i, b := range im.Blobs {
		a := w.do(who, "POST", "/v2/"+repo+"/blobs/uploads/", "", "")
		if a.status != http.StatusAccepted {
			return a
		}
		at := a.header.Get("Location")
		at = strings.TrimPrefix(at, w.url)
		sep := "?"
		if strings.Contains(at, "?") {
			sep = "&"
		}
		a = w.do(who, "PUT", at+sep+"digest="+sum(b), "application/octet-stream", string(b))
		if a.status != http.StatusCreated {
			w.t.Logf("blob %d: %d", i, a.status)
			return a
		}
	}
	return w.do(who, "PUT", "/v2/"+repo+"/manifests/"+tag, dockerM, string(im.Raw))
}

func expect(t *testing.T, what string, a answered, status int, code, message string) {
	t.Helper()
	c, m := a.err()
	if a.status != status || c != code || !strings.Contains(m, message) {
		t.Errorf("%s: %d %s %q, want %d %s %q", what, a.status, c, m, status, code, message)
	}
}

func TestLogin(t *testing.T) {
	w := newWorld(t, -1)
	robot := w.robot("project", "platform", "repository:pull")
	wrong := "admin:wrong"

	a := w.do("", "GET", "/v2/", "", "")
	want := fmt.Sprintf(`Bearer realm="%s/service/token",service="harbor-registry"`, w.url)
	if a.status != http.StatusUnauthorized || a.header.Get("Www-Authenticate") != want {
		t.Errorf("H1: %d %s, want %s", a.status, a.header.Get("Www-Authenticate"), want)
	}
	for who, shown := range map[string]bool{admin: true, robot: true, wrong: false, "": false} {
		a := w.do(who, "GET", "/api/v2.0/systeminfo", "", "")
		if a.status != http.StatusOK || strings.Contains(a.body, "harbor_version") != shown || !strings.Contains(a.body, "auth_mode") {
			t.Errorf("H2: %d %s", a.status, a.body)
		}
	}
	expect(t, "H3 user", w.do(admin, "GET", "/api/v2.0/users/current", "", ""), 200, "", "")
	expect(t, "H3 robot", w.do(robot, "GET", "/api/v2.0/users/current", "", ""), 412, "PRECONDITION", "")
	expect(t, "H3 wrong", w.do(wrong, "GET", "/api/v2.0/users/current", "", ""), 401, "UNAUTHORIZED", "")
	expect(t, "H5 wrong", w.do(wrong, "GET", "/api/v2.0/projects", "", ""), 200, "", "")
	if a := w.do(wrong, "GET", "/service/token?scope=repository:platform/a:pull", "", ""); a.status != 200 || !strings.Contains(a.body, "harbor-token-") {
		t.Errorf("H4: a wrong password gets %d %s, want a token", a.status, a.body)
	}
	if a := w.do("", "GET", "/portal", "", ""); a.status != 200 || !strings.Contains(a.header.Get("Content-Type"), "html") {
		t.Errorf("the portal: %d", a.status)
	}
	for _, c := range []string{"GET /api/v2.0/systeminfo", "POST /api/v2.0/robots"} {
		if w.Count("", strings.Fields(c)[1]) == 0 {
			t.Errorf("%s is not in the log", c)
		}
	}
	w.ResetLog()
	if len(w.Requests()) != 0 {
		t.Error("the log is not empty")
	}
}

func TestTokens(t *testing.T) {
	w := newWorld(t, -1)
	robot := w.robot("project", "platform", "repository:pull", "repository:push")
	token := func(who, scope string) string {
		var doc struct{ Token string }
		a := w.do(who, "GET", "/service/token?service=harbor-registry&scope="+scope, "", "")
		if err := json.Unmarshal([]byte(a.body), &doc); err != nil || doc.Token == "" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return doc.Token
	}
	expect(t, "push", w.push(token(robot, "repository:platform/a:pull,push"), "platform/a", "1.0", 10), 201, "", "")
	for name, tok := range map[string]string{
		"wrong password": token("admin:wrong", "repository:platform/a:pull"),
		"other scope":    token(robot, "repository:platform/b:pull"),
		"invented":       "no-token-of-ours",
	} {
		expect(t, name, w.do(tok, "GET", "/v2/platform/a/manifests/1.0", "", ""), 401, "UNAUTHORIZED", "unauthorized to access repository: platform/a, action: pull")
	}
	expect(t, "good", w.do(token(robot, "repository:platform/a:pull"), "GET", "/v2/platform/a/manifests/1.0", "", ""), 200, "", "")
	expect(t, "pull only", w.push(token(robot, "repository:platform/a:pull"), "platform/a", "1.1", 10), 401, "UNAUTHORIZED", "action: push")
	expect(t, "H9 absent project", w.push(token(admin, "repository:absent/a:pull,push"), "absent/a", "1.0", 10), 401, "UNAUTHORIZED", "project absent not found")
	if a := w.do(admin, "HEAD", "/v2/absent/a/manifests/1.0", "", ""); a.status != 401 || a.body != "" {
		t.Errorf("H9 HEAD: %d %q", a.status, a.body)
	}
}

func TestProjects(t *testing.T) {
	w := newWorld(t, -1)
	system := w.robot("system", "*", "project:read", "immutable-tag:list")
	project := w.robot("project", "platform", "project:read")
	head := "/api/v2.0/projects?project_name="
	expect(t, "H6", w.do(project, "HEAD", head+"platform", "", ""), 200, "", "")
	expect(t, "H6 absent", w.do(project, "HEAD", head+"absent", "", ""), 404, "", "")
	expect(t, "H7 admin", w.do(admin, "GET", "/api/v2.0/projects/absent", "", ""), 404, "NOT_FOUND", "")
	expect(t, "H7 robot", w.do(system, "GET", "/api/v2.0/projects/absent", "", ""), 403, "FORBIDDEN", "")
	post := func(who, body string) answered { return w.do(who, "POST", "/api/v2.0/projects", jsonType, body) }
	a := post(admin, `{"project_name":"new","metadata":{"public":"false"},"storage_limit":-1}`)
	expect(t, "H8", a, 201, "", "")
	if !regexp.MustCompile(`/projects/\d+$`).MatchString(a.header.Get("Location")) {
		t.Errorf("H8: Location %q", a.header.Get("Location"))
	}
	expect(t, "H8 again", post(admin, `{"project_name":"new"}`), 409, "CONFLICT", "already exists")
	expect(t, "H8 name", post(admin, `{"project_name":"New"}`), 400, "BAD_REQUEST", "")
	expect(t, "H8 anonymous", post("", `{"project_name":"x"}`), 401, "UNAUTHORIZED", "")
	expect(t, "H8 robot", post(project, `{"project_name":"x"}`), 403, "FORBIDDEN", "Only system level robot can create project")
	expect(t, "H11", w.do(project, "GET", "/api/v2.0/quotas?reference=project&reference_id=1", "", ""), 403, "FORBIDDEN", "")
	expect(t, "H24", w.do(project, "GET", "/api/v2.0/permissions", "", ""), 200, "", "")
	expect(t, "form", w.do(admin, "POST", "/api/v2.0/projects", "text/plain", "{}"), 415, "UNSUPPORTED_MEDIA_TYPE", "")
}

func TestQuotaAndReadOnly(t *testing.T) {
	w := newWorld(t, 1<<20)
	expect(t, "small", w.push(admin, "platform/a", "1.0", 100), 201, "", "")
	used := w.Project("platform").Used
	if used < 100 || used > 2000 {
		t.Errorf("%d bytes are used", used)
	}
	a := w.push(admin, "platform/a", "2.0", 3<<20)
	used = w.Project("platform").Used // the config of that image fits
	expect(t, "H12", a, 403, "DENIED", fmt.Sprintf(
		"adding 3.0 MiB of storage resource, which when updated to current usage of %d B will exceed the configured upper limit of 1.0 MiB.", used))
	expect(t, "the same again", w.push(admin, "platform/a", "1.0", 100), 201, "", "")
	if got := w.Project("platform").Used; got != used {
		t.Errorf("a second push of the same counts: %d, was %d", got, used)
	}
	a = w.do(admin, "GET", "/api/v2.0/projects/platform/summary", "", "")
	if want := fmt.Sprintf(`"quota":{"hard":{"storage":1048576},"used":{"storage":%d}}`, used); !strings.Contains(a.body, want) {
		t.Errorf("H10: %s, want %s", a.body, want)
	}
	expect(t, "H13", w.do(admin, "PUT", "/api/v2.0/configurations", jsonType, `{"read_only":true}`), 200, "", "")
	const m2 = "The system is in read only mode. Any modification is prohibited."
	expect(t, "H13 push", w.push(admin, "platform/a", "3.0", 10), 403, "DENIED", m2)
	expect(t, "H13 API", w.do(admin, "POST", "/api/v2.0/labels", jsonType, "{}"), 403, "DENIED", m2)
	expect(t, "H13 pull", w.do(admin, "GET", "/v2/platform/a/manifests/1.0", "", ""), 200, "", "")
	expect(t, "H13 off", w.do(admin, "PUT", "/api/v2.0/configurations", jsonType, `{"read_only":false}`), 200, "", "")
	if w.do("admin:wrong", "PUT", "/api/v2.0/configurations", jsonType, `{"read_only":true}`).status != 403 {
		t.Error("anybody may configure")
	}
}

// TestQuotaOfChunks: a chunked upload is measured when it is finished.
func TestQuotaOfChunks(t *testing.T) {
	w := newWorld(t, 1000)
	b := ocitest.Noise(1500, 2)
	a := w.do(admin, "POST", "/v2/platform/a/blobs/uploads/", "", "")
	for _, part := range [][]byte{b[:900], b[900:]} {
		at := strings.TrimPrefix(a.header.Get("Location"), w.url)
		if a = w.do(admin, "PATCH", at, "application/octet-stream", string(part)); a.status != http.StatusAccepted {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	at := strings.TrimPrefix(a.header.Get("Location"), w.url)
	sep := "?"
	if strings.Contains(at, "?") {
		sep = "&"
	}
	expect(t, "finish", w.do(admin, "PUT", at+sep+"digest="+sum(b), "", ""), 403, "DENIED", "adding 1.5 KiB of storage resource")
}

func TestImmutable(t *testing.T) {
	w := newWorld(t, -1)
	rule := func(decoration, pattern string) string {
		return fmt.Sprintf(`{"action":"immutable","template":"immutable_template","disabled":false,
			"tag_selectors":[{"kind":"doublestar","decoration":%q,"pattern":%q}],
			"scope_selectors":{"repository":[{"kind":"doublestar","decoration":"repoMatches","pattern":"**"}]}}`, decoration, pattern)
	}
	const rules = "/api/v2.0/projects/platform/immutabletagrules"
	expect(t, "H14", w.do(admin, "POST", rules, jsonType, rule("matches", "**")), 201, "", "")
	expect(t, "first push", w.push(admin, "platform/tiny", "1.0", 10), 201, "", "")
	const text = "Failed to process request due to 'tiny:1.0' configured as immutable."
	expect(t, "H14 same bytes", w.push(admin, "platform/tiny", "1.0", 10), 412, "PRECONDITION", text)
	expect(t, "H14 other bytes", w.push(admin, "platform/tiny", "1.0", 11), 412, "PRECONDITION", text)
	expect(t, "another tag", w.push(admin, "platform/tiny", "1.1", 10), 201, "", "")
	expect(t, "H14 delete", w.do(admin, "DELETE", "/v2/platform/tiny/manifests/1.0", "", ""), 412, "PRECONDITION", text)
	expect(t, "H14 delete by the API", w.do(admin, "DELETE", "/api/v2.0/projects/platform/repositories/tiny/artifacts/1.0", "", ""), 412, "PRECONDITION", "")

	// The second signature of an image comes under the tag of the first.
	tag := "sha256-" + strings.Repeat("a", 64) + ".sig"
	expect(t, "signature", w.push(admin, "platform/tiny", tag, 20), 201, "", "")
	expect(t, "second signature", w.push(admin, "platform/tiny", tag, 21), 412, "PRECONDITION", "")
	w.Change("platform", func(p *Project) { p.Rules = nil })
	expect(t, "H14 excludes", w.do(admin, "POST", rules, jsonType, rule("excludes", "sha256-*")), 201, "", "")
	expect(t, "second signature", w.push(admin, "platform/tiny", tag, 21), 201, "", "")
	expect(t, "tag", w.push(admin, "platform/tiny", "1.0", 10), 412, "PRECONDITION", text)
	expect(t, "bad rule", w.do(admin, "POST", rules, jsonType, `{}`), 400, "BAD_REQUEST", "")
}

func TestArtifactAPI(t *testing.T) {
	w := newWorld(t, -1)
	im := ocitest.Image([]byte("layer"))
	d := string(w.Registry.Put("platform/a/b", "1.0", im))
	sig := string(w.Registry.Sign("platform/a/b", im).Digest)
	sbom := ocitest.Artifact("application/spdx+json", im, []byte("{}"))
	for _, b := range sbom.Blobs {
		w.Registry.AddBlob("platform/a/b", b)
	}
	expect(t, "referrer", w.do(admin, "PUT", "/v2/platform/a/b/manifests/"+string(sbom.Digest), sbom.MediaType, string(sbom.Raw)), 201, "", "")
	at := "/api/v2.0/projects/platform/repositories/a%252Fb/artifacts/" + d
	var got []struct {
		Digest string `json:"digest"`
		Type   string `json:"type"`
	}
	if a := w.do(admin, "GET", at+"/accessories", "", ""); json.Unmarshal([]byte(a.body), &got) != nil {
		t.Fatalf("H22: %d %s", a.status, a.body)
	}
	want := got[:0:0]
	for _, x := range [][2]string{{sig, "signature.cosign"}, {string(sbom.Digest), "subject.accessory"}} {
		want = append(want, struct {
			Digest string `json:"digest"`
			Type   string `json:"type"`
		}{x[0], x[1]})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	expect(t, "H17", w.do(admin, "POST", at+"/tags", jsonType, `{"name":"1"}`), 201, "", "")
	expect(t, "H17 again", w.do(admin, "POST", at+"/tags", jsonType, `{"name":"1"}`), 409, "CONFLICT", "")
	expect(t, "H18 none", w.do(admin, "POST", at+"/scan", jsonType, `{"scan_type":"vulnerability"}`), 412, "PRECONDITION", "no available scanner for project: ")
	w.Scanner()
	expect(t, "H18", w.do(admin, "POST", at+"/scan", jsonType, `{"scan_type":"vulnerability"}`), 202, "", "")
	expect(t, "single escape", w.do(admin, "GET", strings.Replace(at, "%252F", "%2F", 1), "", ""), 200, "", "")
	expect(t, "absent", w.do(admin, "GET", strings.Replace(at, d, "9.9", 1), "", ""), 404, "NOT_FOUND", "artifact platform/a/b:9.9 not found")
	id := w.Project("platform").ID
	expect(t, "H15", w.do(admin, "POST", "/api/v2.0/retentions", jsonType, fmt.Sprintf(`{"algorithm":"or","rules":[],"scope":{"level":"project","ref":%d}}`, id)), 201, "", "")
	label := fmt.Sprintf(`{"name":"x","color":"#fff","scope":"p","project_id":%d}`, id)
	a := w.do(admin, "POST", "/api/v2.0/labels", jsonType, label)
	expect(t, "H16", a, 201, "", "")
	expect(t, "H16 again", w.do(admin, "POST", "/api/v2.0/labels", jsonType, label), 409, "CONFLICT", "already exists")
	in := fmt.Sprintf(`{"id":%s}`, a.header.Get("Location")[strings.LastIndex(a.header.Get("Location"), "/")+1:])
	expect(t, "H16 label", w.do(admin, "POST", at+"/labels", jsonType, in), 200, "", "")
	expect(t, "H16 label again", w.do(admin, "POST", at+"/labels", jsonType, in), 409, "CONFLICT", "already added")
	expect(t, "H16 no label", w.do(admin, "POST", at+"/labels", jsonType, `{"id":99999}`), 404, "NOT_FOUND", "")
}

func TestPullPrevention(t *testing.T) {
	w := newWorld(t, -1)
	im := ocitest.Image([]byte("layer"))
	index := ocitest.Index(im)
	d := string(im.Digest)
	w.Registry.Put("platform/a", "1.0", index)
	set := func(k, v string) { w.Change("platform", func(p *Project) { p.Metadata[k] = v }) }
	set("prevent_vul", "true")
	set("severity", "high")
	at := "/v2/platform/a/manifests/" + d
	expect(t, "no scanner", w.do(admin, "GET", at, "", ""), 200, "", "")
	w.Scanner()
	const code = "PROJECTPOLICYVIOLATION"
	expect(t, "no scan", w.do(admin, "GET", at, "", ""), 412, code, "current image without vulnerability scanning cannot be pulled")
	w.Vulnerable(d, Vulnerability{ID: "CVE-1", Severity: "High"}, Vulnerability{ID: "CVE-2", Severity: "Low"})
	scan := func() {
		expect(t, "scan", w.do(admin, "POST", "/api/v2.0/projects/platform/repositories/a/artifacts/1.0/scan", jsonType, `{}`), 202, "", "")
	}
	scan()
	expect(t, "H20", w.do(admin, "GET", at, "", ""), 412, code, "current image with 2 vulnerabilities cannot be pulled due to configured policy in 'Prevent images with vulnerability severity of \"High\" or higher from running.'")
	if a := w.do(admin, "HEAD", at, "", ""); a.status != 412 || a.body != "" {
		t.Errorf("H20 HEAD: %d %q", a.status, a.body)
	}
	expect(t, "the index", w.do(admin, "GET", "/v2/platform/a/manifests/1.0", "", ""), 200, "", "")
	put := func(body string) {
		expect(t, "H19", w.do(admin, "PUT", "/api/v2.0/projects/platform", jsonType, body), 200, "", "")
	}
	put(`{"cve_allowlist":{"items":[{"cve_id":"CVE-1"}],"expires_at":4102444800},"metadata":{"prevent_vul":"true"}}`)
	expect(t, "the system's list counts", w.do(admin, "GET", at, "", ""), 412, code, "")
	put(`{"metadata":{"reuse_sys_cve_allowlist":"false"}}`)
	expect(t, "H20 allowed", w.do(admin, "GET", at, "", ""), 200, "", "")
	put(`{"cve_allowlist":{"items":[{"cve_id":"CVE-1"}],"expires_at":1}}`)
	expect(t, "expired", w.do(admin, "GET", at, "", ""), 412, code, "with 2 vulnerabilities")
	put(`{"cve_allowlist":{"items":[]}}`)
	if l := w.Project("platform").Allowlist; l.Expires != 0 || len(l.CVEs) != 0 {
		t.Errorf("a list without a date keeps one: %+v", l)
	}
	set("prevent_vul", "false")
	set("enable_content_trust_cosign", "true")
	expect(t, "M3 cosign", w.do(admin, "GET", at, "", ""), 412, code, "The image is not signed by cosign.")
	w.Registry.Sign("platform/a", im)
	expect(t, "signed", w.do(admin, "GET", at, "", ""), 200, "", "")
}

func TestRobots(t *testing.T) {
	w := newWorld(t, -1)
	if got := w.robot("system", "*", "repository:push"); !strings.HasPrefix(got, "robot$importer:") {
		t.Errorf("H23: %s", got)
	}
	if got := w.robot("project", "platform", "repository:push"); !strings.HasPrefix(got, "robot$platform+importer:") {
		t.Errorf("H23: %s", got)
	}
	for name, body := range map[string]string{
		"permission": `{"name":"x","level":"system","duration":-1,"permissions":[{"kind":"project","namespace":"*","access":[{"resource":"nothing","action":"push"}]}]}`,
		"duration":   `{"name":"x","level":"system","permissions":[{"kind":"project","namespace":"*","access":[{"resource":"tag","action":"list"}]}]}`,
		"level":      `{"name":"x","level":"all","duration":-1,"permissions":[{"kind":"project","namespace":"*","access":[{"resource":"tag","action":"list"}]}]}`,
		"two":        `{"name":"x","level":"project","duration":-1,"permissions":[{"kind":"project"},{"kind":"project"}]}`,
		"none":       `{"name":"x","level":"project","duration":-1,"permissions":[]}`,
		"access":     `{"name":"x","level":"project","duration":-1,"permissions":[{"kind":"project","namespace":"platform"}]}`,
		"name":       `{"name":"X","level":"project","duration":-1,"permissions":[{"kind":"project","namespace":"platform"}]}`,
	} {
		if a := w.do(admin, "POST", "/api/v2.0/robots", jsonType, body); a.status != 400 || a.code() != "BAD_REQUEST" {
			t.Errorf("H23 %s: %d %s", name, a.status, a.body)
		}
		if _, _, err := w.AddRobot([]byte(body)); err == nil {
			t.Errorf("H23 %s: AddRobot takes it", name)
		}
	}
	expect(t, "robot", w.do("admin:wrong", "POST", "/api/v2.0/robots", jsonType, "{}"), 401, "UNAUTHORIZED", "")
}
