package harbor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/harbortest"
)

func TestCheck(t *testing.T) {
	w := newWorld(t)
	info, err := w.admin().Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &Info{Version: harbortest.Version, Registry: strings.TrimPrefix(w.url, "http://"), AuthMode: "db_auth"}
	if d := cmp.Diff(want, info); d != "" {
		t.Error(d)
	}
	w.harbor.SetReadOnly(true)
	if info, err = w.admin().Check(t.Context()); err != nil || !info.ReadOnly {
		t.Errorf("read-only mode: %+v, %v", info, err)
	}
}

// TestCheckWrongPassword is the trap: Harbor answers 200.
func TestCheckWrongPassword(t *testing.T) {
	w := newWorld(t)
	for _, c := range []*Client{w.as("admin", "wrong"), w.as("robot$nobody", "wrong"), w.as("", "")} {
		_, err := c.Check(t.Context())
		refused(t, err, CodeLogin)
		hasID(t, err)
	}
	for _, q := range w.harbor.Requests() {
		if q.Status != http.StatusOK {
			t.Errorf("%s: the double does not set the trap", q)
		}
	}
}

func TestCheckNoHarbor(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"404":        http.NotFound,
		"page":       func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>hello</html>") },
		"other json": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"harbor_version":"v2"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, Config{Name: "oci/platform", URL: serve(t, h), Project: "platform", User: "u", Password: "p"})
			_, err := c.Check(t.Context())
			refused(t, err, CodeNoHarbor)
		})
	}
}

func TestNew(t *testing.T) {
	f, err := fetch.New(fetch.NewPool(1, 1), fetch.Config{Name: "oci/platform"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ url, project, want string }{
		{"harbor.example", "platform", "is no address"},
		{"ftp://harbor.example", "platform", "is no address"},
		{"https://u:Secret@harbor.example", "platform", "credentials do not belong"},
		{"https://harbor.example/registry", "platform", "neither path nor query"},
		{"https://harbor.example?x=Secret", "platform", "neither path nor query"},
		{"https://harbor.example", "", "cannot be a project"},
		{"https://harbor.example", "Platform", "cannot be a project"},
		{"https://harbor.example", "a/b", "cannot be a project"},
		{"https://harbor.example", "../x", "cannot be a project"},
		{"https://harbor.example", strings.Repeat("a", 256), "cannot be a project"},
	} {
		_, err := New(Config{Name: "oci/platform", URL: tt.url, Project: tt.project}, f)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%s, %.20s) = %v, want %q", tt.url, tt.project, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "Secret") {
			t.Errorf("%v holds a secret", err)
		}
	}
	c, err := New(Config{Name: "oci/platform", URL: "https://harbor.example/", Project: "platform"}, f)
	if err != nil || c.Project() != "platform" {
		t.Errorf("a trailing slash: %v", err)
	}
}

// TestLoginStaysHome: the login goes to Harbor only, and no cookie comes back.
func TestLoginStaysHome(t *testing.T) {
	asked := 0
	other := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	home := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != "robot$importer" || p != "Secret" {
			t.Errorf("%s %s came with %q", r.Method, r.URL, r.Header.Get("Authorization"))
		}
		w.Header().Set("X-Request-Id", "harbor-request-1")
		http.Redirect(w, r, other+"/api/v2.0/systeminfo?token=Secret", http.StatusFound)
	}))
	c := connect(t, Config{Name: "oci/platform", URL: home, Project: "platform", User: "robot$importer", Password: "Secret"}, strings.TrimPrefix(other, "http://"))
	_, err := c.Check(t.Context())
	hasID(t, err)
	if err == nil || !strings.Contains(err.Error(), "redirects are not followed") || !strings.Contains(err.Error(), other) {
		t.Errorf("got %v", err)
	}
	if err != nil && strings.Contains(err.Error(), "Secret") {
		t.Errorf("%v holds a secret", err)
	}
	if asked != 0 {
		t.Error("the redirect was followed")
	}
}

func TestNoCookie(t *testing.T) {
	w := newWorld(t)
	c := w.admin()
	for range 2 {
		if err := c.EnsureProject(t.Context(), ProjectOptions{Create: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.EnsureImmutableRule(t.Context()); err != nil {
		t.Fatal(err)
	}
	requests := w.harbor.Requests()
	if len(requests) == 0 {
		t.Fatal("nothing was asked")
	}
	for _, q := range requests {
		if q.Header.Get("Cookie") != "" {
			t.Errorf("%s came with a cookie", q)
		}
	}
}

func TestHostNotAllowed(t *testing.T) {
	f, err := fetch.New(fetch.NewPool(1, 1), fetch.Config{Name: "oci/platform", Hosts: []string{"other.example"}, AllowHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Name: "oci/platform", URL: "http://127.0.0.1:9", Project: "platform", User: "u", Password: "Secret"}, f)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Check(t.Context())
	if !errors.Is(err, fetch.ErrHost) || errors.Is(err, artifact.ErrUnavailable) {
		t.Errorf("got %v, want a host that is not allowed, and not unavailable", err)
	}
	err = c.EnsureImmutableRule(t.Context())
	if !errors.Is(err, fetch.ErrHost) {
		t.Errorf("got %v", err)
	}
}

// TestBrokenReplies: whatever comes, the answer is an error of a class.
func TestBrokenReplies(t *testing.T) {
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		class  error
		want   string
	}{
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"quota":`)
		}, artifact.ErrUnavailable, "EOF"},
		"page": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Request-Id", "harbor-request-7")
			_, _ = io.WriteString(w, "<html>")
		}, artifact.ErrIntegrity, "harbor-request-7"},
		"large": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(" ", maxReply+1))
		}, artifact.ErrIntegrity, "larger than"},
		"negative": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"quota":{"used":{"storage":-1}}}`)
		}, artifact.ErrIntegrity, "-1 bytes"},
		"proxy": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "<h1>502\x1b[31m\r\n bad</h1>")
		}, artifact.ErrUnavailable, "502 Bad Gateway: <h1>502 [31m bad</h1>"},
		"unauthorized": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
		}, artifact.ErrUnavailable, "is not let in"},
		"too large": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}, artifact.ErrUnavailable, "takes no request of this size"},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, Config{Name: "oci/platform", URL: serve(t, tt.answer), Project: "platform", User: "u", Password: "p"})
			_, _, err := c.Quota(t.Context())
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %v with %q", err, tt.class, tt.want)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.admin().Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	gone := connect(t, Config{Name: "oci/platform", URL: "http://127.0.0.1:9", Project: "platform"})
	_, err := gone.Check(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || !e.Temporary() || !errors.Is(err, artifact.ErrUnavailable) {
		t.Errorf("got %v, want something temporary", err)
	}
}

// TestPages: a list is read to its end, and one without end is refused.
func TestPages(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	w.harbor.Change("platform", func(p *harbortest.Project) {
		for i := range 250 {
			p.Rules = append(p.Rules, harbortest.Rule{Tags: fmt.Sprintf("v%d", i)})
		}
	})
	rules, err := w.admin().Immutable(t.Context())
	if err != nil || len(rules) != 250 {
		t.Errorf("%d rules, %v; want 250", len(rules), err)
	}
	page := "[" + strings.TrimSuffix(strings.Repeat("{},", pageSize), ",") + "]"
	endless := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) }))
	c := connect(t, Config{Name: "oci/platform", URL: endless, Project: "platform"})
	if _, err := c.Immutable(t.Context()); !errors.Is(err, artifact.ErrIntegrity) {
		t.Errorf("a list without end: %v", err)
	}
}

func TestExplain(t *testing.T) {
	w := newWorld(t)
	c := w.as("robot$importer", "Secret")
	body := func(code, message string) string {
		return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
	for _, tt := range []struct {
		op     string
		status int
		body   string
		want   string // code; empty: an *Error
	}{
		{OpPush, 401, body("UNAUTHORIZED", "project absent not found: project absent not found"), CodeProject},
		{OpPush, 401, "", CodeProject},
		{OpRead, 401, "", CodeProject},
		{OpPush, 403, body("DENIED", "adding 2.9 MiB of storage resource, which when updated to current usage of 233 B will exceed the configured upper limit of 1.0 MiB."), CodeQuota},
		{OpPush, 403, body("DENIED", "The system is in read only mode. Any modification is prohibited."), CodeReadOnly},
		{OpPush, 403, body("DENIED", "something new"), CodeDenied},
		{OpPush, 403, body("FORBIDDEN", "forbidden"), CodeForbidden},
		{OpPush, 412, body("PRECONDITION", "Failed to process request due to 'tiny:1.0' configured as immutable."), CodeImmutable},
		{OpDelete, 412, "", CodeImmutable},
		{OpRead, 412, body("PROJECTPOLICYVIOLATION", "current image with 1 vulnerability cannot be pulled"), CodePolicy},
		{OpRead, 412, "", CodePolicy}, // HEAD has no body
		{OpPush, 413, "<html>413</html>", CodeTooLarge},
		{OpPush, 404, body("NAME_UNKNOWN", "repository name not known"), ""},
		{OpPush, 500, body("UNKNOWN", "internal server error"), ""},
		{OpPush, 429, "", ""},
	} {
		err := c.Explain(tt.op, "platform/tiny:1.0", tt.status, []byte(tt.body), "harbor-request-9")
		hasID(t, err)
		if !strings.Contains(err.Error(), tt.op+" platform/tiny:1.0 at 127.0.0.1") || !strings.Contains(err.Error(), fmt.Sprint(tt.status)) {
			t.Errorf("%v does not say what, where and which status", err)
		}
		if tt.want != "" {
			refused(t, err, tt.want)
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if _, is := errors.AsType[*artifact.Refusal](err); !ok || is || !errors.Is(err, artifact.ErrUnavailable) {
			t.Errorf("%d: got %v, want an *Error", tt.status, err)
		}
		if e.Temporary() != (tt.status >= 429) || IsNotFound(err) != (tt.status == 404) {
			t.Errorf("%d: temporary %v, not found %v", tt.status, e.Temporary(), IsNotFound(err))
		}
	}
	if !IsPolicy(c.ExplainCode(OpRead, "platform/a@x", 412, "PROJECTPOLICYVIOLATION", "", "1")) || !IsImmutable(c.ExplainCode(OpPush, "platform/a:x", 412, "", "", "1")) {
		t.Error("the helpers do not know their codes")
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[2Jb\r\n\tc":              "a [2Jb c",
		"\xff\xfe":                      "\uFFFD",
		"  ":                            "",
		strings.Repeat("ä", maxMessage): strings.Repeat("ä", maxMessage/2) + "...",
	} {
		if got := clip(in); got != want {
			t.Errorf("clip(%.20q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzParseErrors: an error body of any kind gives one clean line.
func FuzzParseErrors(f *testing.F) {
	seeds := []string{
		`{"errors":[{"code":"DENIED","message":"The system is in read only mode."}]}`,
		`{"errors":[]}`, `{"errors":null}`, `[]`, "", "<html>\x00\x1b[31m</html>", `{"errors":[{"code":"\u001b","message":"` + strings.Repeat("x", 5000) + `"}]}`,
	}
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		code, message := parseErrors(b)
		for _, s := range []string{code, message} {
			if len(s) > maxMessage+3 || clip(s) != s && len(s) <= maxMessage || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q is not one clean line", s)
			}
		}
	})
}

// TestRetries: what only reads is tried again by the client below, what writes
// is not sent twice.
func TestRetries(t *testing.T) {
	n := map[string]int{}
	busy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n[r.Method]++
		w.Header().Set("X-Request-Id", "harbor-request-3")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	f, err := fetch.New(fetch.NewPool(1, 1), fetch.Config{Name: "oci/platform", Hosts: []string{strings.TrimPrefix(busy, "http://")}, AllowHTTP: true, MaxRetries: 2, RetryWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Name: "oci/platform", URL: busy, Project: "platform"}, f)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Quota(t.Context())
	hasID(t, err)
	err = c.Scan(t.Context(), "platform/a", "sha256:"+strings.Repeat("a", 64))
	hasID(t, err)
	if d := cmp.Diff(map[string]int{"GET": 3, "POST": 1}, n); d != "" {
		t.Error(d)
	}
}

// A canned transport answers everything with one reply.
type canned struct {
	status int
	body   []byte
}

func (c canned) RoundTrip(req *http.Request) (*http.Response, error) {
	header := http.Header{"X-Request-Id": {"harbor-request-1"}, "Location": {string(c.body)}}
	return &http.Response{StatusCode: c.status, Header: header, Body: io.NopCloser(bytes.NewReader(c.body)), Request: req, ProtoMajor: 1, ProtoMinor: 1}, nil
}

// FuzzReplies: whatever Harbor answers, each call ends with an error or with
// something that keeps its promises.
func FuzzReplies(f *testing.F) {
	want := "sha256:" + strings.Repeat("a", 64)
	seeds := []string{
		`{"auth_mode":"db_auth","harbor_version":"v2.15.2","read_only":false}`,
		`{"quota":{"hard":{"storage":-1},"used":{"storage":5}}}`,
		`{"quota":{"hard":{"storage":-9223372036854775808},"used":{"storage":9223372036854775807}}}`,
		`{"project_id":1,"name":"platform","metadata":{"public":"false"},"cve_allowlist":{"items":[{"cve_id":"CVE-1"}],"expires_at":null}}`,
		`{"digest":"` + want + `","tags":[{"name":"1.0"}],"scan_overview":{"x":{"scan_status":"Success"}},"push_time":"2026-11-22T00:00:00.000Z"}`,
		`[{"id":1,"name":"x","tag_selectors":[{"kind":"doublestar","decoration":"matches","pattern":"{**"}]}]`,
		`[{"uuid":"../x","name":"darkmirror"}]`, `{"errors":[{"code":"DENIED"}]}`, "<html>", "null", "[null]", "",
	}
	for i, s := range seeds {
		for _, status := range []int{200, 201, 404, 409, 412, 302} {
			f.Add(status, []byte(s))
		}
		if i == 0 {
			f.Add(403, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		c := &Client{cfg: Config{Name: "oci/platform", URL: "https://harbor.example", Project: "platform", User: "u", Password: "Secret-Of-U"}, host: "harbor.example", log: slog.New(slog.DiscardHandler)}
		c.http = &http.Client{
			Transport:     canned{status, body},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
		ctx := t.Context()
		var errs []error
		info, err := c.Check(ctx)
		errs = append(errs, err)
		if err == nil && info.Version == "" {
			t.Error("a login without a version")
		}
		hard, used, err := c.Quota(ctx)
		errs = append(errs, err)
		if hard < -1 || used < 0 || c.CheckQuota(ctx, 1) == nil && err == nil && hard >= 0 && hard-used < 1 {
			t.Errorf("quota %d of %d", used, hard)
		}
		a, err := c.Artifact(ctx, "platform/a", want)
		errs = append(errs, err)
		if a != nil && (err != nil || a.Digest != want) {
			t.Errorf("artifact %+v, %v", a, err)
		}
		id, err := c.EnsureLabel(ctx, Label{Name: "x"})
		errs = append(errs, err)
		if err == nil && id <= 0 {
			t.Errorf("label %d", id)
		}
		n, err := c.EnsureScanner(ctx, ScannerOptions{Name: "darkmirror", URL: "https://mirror.example", Token: "t"})
		errs = append(errs, err)
		if err == nil && !uuid.MatchString(n) {
			t.Errorf("scanner %q", n)
		}
		_, err = c.MergeAllowlist(ctx, []Exception{{"CVE-1", time.Now().Add(time.Hour)}})
		errs = append(errs, err, c.EnsureImmutableRule(ctx), c.EnsureProject(ctx, ProjectOptions{Create: true, StorageLimit: 1}), c.Scan(ctx, "platform/a", want))
		for _, err := range errs {
			if err == nil {
				continue
			}
			if !errors.Is(err, artifact.ErrUnavailable) && !errors.Is(err, artifact.ErrIntegrity) || strings.Contains(err.Error(), "Secret-Of-U") || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("got %q", err)
			}
		}
	})
}
