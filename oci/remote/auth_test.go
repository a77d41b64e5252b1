package remote

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/ocitest"
)

const password = "pass/word+1"

// tokenWorld demands tokens.
func tokenWorld(t *testing.T, opts ...ocitest.Option) *world {
	t.Helper()
	w := newWorld(t)
	w.r.Set(append([]ocitest.Option{ocitest.TokenAuth("me", password, w.tokens+"/token")}, opts...)...)
	w.r.Put("app", "1", ocitest.Image(ocitest.Noise(50, 1)))
	return w
}

// on lists the requests of one server.
func (w *world) on(server string) (list []ocitest.Request) {
	for _, q := range w.r.Requests() {
		if q.Server == server {
			list = append(list, q)
		}
	}
	return list
}

func TestToken(t *testing.T) {
	w := tokenWorld(t)
	c := w.client(as("me", password))
	for range 3 {
		_, err := c.Manifest(t.Context(), "app", "1")
		must(t, err)
	}
	if n := len(w.on(ocitest.OnToken)); n != 1 {
		t.Errorf("want 1 token, got %d", n)
	}
	if n := len(w.on(ocitest.OnRegistry)); n != 4 {
		t.Errorf("want 1 challenge and 3 manifests, got %v", w.on(ocitest.OnRegistry))
	}
	// The realm is known now: another repository needs no challenge.
	w.r.Put("other", "1", ocitest.Image())
	_, err := c.Manifest(t.Context(), "other", "1")
	must(t, err)
	if n := len(w.on(ocitest.OnRegistry)); n != 5 {
		t.Errorf("want 5 requests, got %v", w.on(ocitest.OnRegistry))
	}
}

func TestTokenRefresh(t *testing.T) {
	w := tokenWorld(t, ocitest.TokenUses(2))
	c := w.client(as("me", password))
	for range 5 {
		_, err := c.Manifest(t.Context(), "app", "1")
		must(t, err)
	}
	if n := len(w.on(ocitest.OnToken)); n != 3 {
		t.Errorf("want 3 tokens, got %d", n)
	}

	// A token that has lived for three quarters of its 300 s is renewed
	// before it is refused.
	w = tokenWorld(t)
	c = w.client(as("me", password))
	now := time.Now()
	c.auth.now = func() time.Time { return now }
	for _, age := range []time.Duration{0, 224 * time.Second, 2 * time.Second} {
		now = now.Add(age)
		_, err := c.Manifest(t.Context(), "app", "1")
		must(t, err)
	}
	if n, m := len(w.on(ocitest.OnToken)), len(w.on(ocitest.OnRegistry)); n != 2 || m != 4 {
		t.Errorf("want 2 tokens and 4 requests, got %d and %d", n, m)
	}
}

func TestScopes(t *testing.T) {
	w := tokenWorld(t)
	c := w.client(as("me", password))
	_, err := c.Manifest(t.Context(), "app", "1")
	must(t, err)
	b := &blob{b: ocitest.Noise(100, 9)}
	w.push(c, b, Uploaded)
	other := &blob{b: ocitest.Noise(100, 8)}
	w.r.AddBlob("base", other.b)
	w.push(c, other, Mounted, "base")
	must(t, c.DeleteManifest(t.Context(), "app", "1"))
	var got []string
	for _, q := range w.on(ocitest.OnToken) {
		got = append(got, q.Query)
	}
	want := []string{
		"scope=repository%3Aapp%3Apull&service=registry.example",
		"scope=repository%3Aapp%3Apull%2Cpush&service=registry.example",
		"scope=repository%3Abase%3Apull&scope=repository%3Aapp%3Apull%2Cpush&service=registry.example",
		"scope=repository%3Aapp%3Apull%2Cdelete&scope=repository%3Aapp%3Apull%2Cpush&service=registry.example",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTokenOnce(t *testing.T) {
	w := tokenWorld(t)
	c := w.client(as("me", password))
	must(t, c.Ping(t.Context()))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Manifest(t.Context(), "app", "1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(w.on(ocitest.OnToken)); n != 2 {
		t.Errorf("want a token to log in and one to pull, got %d", n)
	}
}

func TestWrongPassword(t *testing.T) {
	for name, opts := range map[string][]ocitest.Option{"refused": nil, "empty token": {ocitest.EmptyTokens()}} {
		t.Run(name, func(t *testing.T) {
			w := tokenWorld(t, opts...)
			c := w.client(as("me", "wrong-password"))
			_, err := c.Manifest(t.Context(), "app", "1")
			r := refused(t, err, artifact.ErrUnavailable, CodeAuth)
			if strings.Contains(r.Error(), "wrong-password") || !strings.Contains(r.Error(), "login") {
				t.Errorf("%v", r)
			}
			if n := len(w.on(ocitest.OnToken)); n != 1 {
				t.Errorf("a wrong password was sent %d times", n)
			}
		})
	}
	w := tokenWorld(t)
	_ = refused(t, w.client(as("me", "wrong")).Ping(t.Context()), artifact.ErrUnavailable, CodeAuth)
	must(t, w.client(as("me", password)).Ping(t.Context()))
	_ = refused(t, w.client().Ping(t.Context()), artifact.ErrUnavailable, CodeAuth)

	w = newWorld(t, ocitest.BasicAuth("me", password))
	_ = refused(t, w.client(as("me", "wrong")).Ping(t.Context()), artifact.ErrUnavailable, CodeAuth)
	must(t, w.client(as("me", password)).Ping(t.Context()))
	r := refused(t, w.client().Ping(t.Context()), artifact.ErrUnavailable, CodeAuth)
	if !strings.Contains(r.Reason, "none is configured") {
		t.Errorf("%v", r)
	}
}

func TestAnonymous(t *testing.T) {
	w := tokenWorld(t, ocitest.AnonymousPull())
	c := w.client()
	_, err := c.Manifest(t.Context(), "app", "1")
	must(t, err)
	b := &blob{b: ocitest.Noise(10, 1)}
	_, err = c.PushBlob(t.Context(), "app", b.digest(), 10, b.open)
	_ = refused(t, err, artifact.ErrUnavailable, CodeAuth)
	for _, q := range w.on(ocitest.OnToken) {
		if v := q.Header.Get("Authorization"); v != "" {
			t.Errorf("the token server got %q", v)
		}
	}
}

func TestBasic(t *testing.T) {
	w := newWorld(t, ocitest.BasicAuth("me", password))
	w.r.Put("app", "1", ocitest.Image())
	c := w.client(as("me", password))
	for range 3 {
		_, err := c.Manifest(t.Context(), "app", "1")
		must(t, err)
	}
	if n := len(w.on(ocitest.OnRegistry)); n != 4 {
		t.Errorf("want 1 challenge and 3 manifests, got %d", n)
	}
}

// A registry must not send our password wherever it likes.
func TestRealm(t *testing.T) {
	for _, c := range []struct{ name, realm, want string }{
		{"not allowed", "https://evil.example/token", "evil.example, which is not allowed"},
		{"userinfo", "http://me:x@%s/token", "names no token server"},
		{"no URL", "token", "names no token server"},
		{"not http", "file:///etc/passwd", "names no token server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			realm := c.realm
			if strings.Contains(realm, "%s") {
				realm = fmt.Sprintf(realm, strings.TrimPrefix(w.tokens, "http://"))
			}
			w.r.Set(ocitest.TokenAuth("me", password, realm))
			_, err := w.client(as("me", password)).Manifest(t.Context(), "app", "1")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %v", c.want, err)
			}
			if strings.Contains(fmt.Sprint(err), password) {
				t.Errorf("the password is in %v", err)
			}
			if n := len(w.on(ocitest.OnRegistry)); n != 1 {
				t.Errorf("a refused realm was asked for %d times", n)
			}
		})
	}
}

// A realm by http is refused where http is not allowed, and for a registry
// that has https in any case.
func TestRealmDowngrade(t *testing.T) {
	w := newTLSWorld(t)
	for _, allow := range []bool{false, true} {
		w.r.Set(ocitest.TokenAuth("me", password, w.tokens+"/token"))
		c := w.tlsClient(func(c *fetch.Config) { c.AllowHTTP = allow }, as("me", password))
		_, err := c.Manifest(t.Context(), "app", "1")
		if h, ok := errors.AsType[*fetch.HostError](err); !ok || !strings.Contains(h.Reason, "http") {
			t.Errorf("http allowed: %v: want the realm refused, got %v", allow, err)
		}
	}
	if n := len(w.on(ocitest.OnToken)); n != 0 {
		t.Errorf("the token server was asked %d times", n)
	}
	if n := len(w.on(ocitest.OnRegistry)); n != 2 {
		t.Errorf("want 2 challenges, got %d", n)
	}
}

func TestChallengeMalformed(t *testing.T) {
	w := newWorld(t, ocitest.Before(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("WWW-Authenticate", `Bearer realm="x`)
		rw.WriteHeader(http.StatusUnauthorized)
		return true
	}))
	err := w.client(as("me", password)).Ping(t.Context())
	if r := refused(t, err, artifact.ErrUnavailable, CodeAuth); !strings.Contains(r.Error(), "challenge cannot be read") {
		t.Errorf("%v", r)
	}
	if n := len(w.on(ocitest.OnRegistry)); n != 1 {
		t.Errorf("want 1 request, got %d", n)
	}
}

func TestTokenServerBusy(t *testing.T) {
	w := newWorld(t)
	fails := 2
	var mu sync.Mutex
	inner := w.r.TokenServer()
	realm := w.serve(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if fails > 0 {
			fails--
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(rw, q)
	}))
	w.r.Set(ocitest.TokenAuth("me", password, realm+"/token"))
	w.r.Put("app", "1", ocitest.Image())
	_, err := w.client(as("me", password)).Manifest(t.Context(), "app", "1")
	must(t, err)

	// What a token server writes is not shown.
	bad := w.serve(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write([]byte(`{"refresh_token":"secret-refresh"}`))
	}))
	w.r.Set(ocitest.TokenAuth("me", password, bad+"/token"))
	_, err = w.client(as("me", password)).Manifest(t.Context(), "app", "1")
	if r := refused(t, err, artifact.ErrUnavailable, CodeAuth); strings.Contains(r.Error(), "secret") {
		t.Errorf("%v", r)
	}
}

// file writes a docker config.json.
func file(t *testing.T, mode os.FileMode, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(name, []byte(content), mode))
	must(t, os.Chmod(name, mode))
	return name
}

func TestDockerConfig(t *testing.T) {
	w := tokenWorld(t)
	host := strings.TrimPrefix(w.url, "http://")
	good, bad := "bWU6cGFzcy93b3JkKzE=", "bWU6d3Jvbmc=" // me:pass/word+1, me:wrong
	for _, c := range []struct {
		name, auths string
		ok          bool
	}{
		{"host", fmt.Sprintf(`{%q:{"auth":%q}}`, host, good), true},
		{"as docker writes it", fmt.Sprintf(`{%q:{"auth":%q}}`, "https://"+host+"/v1/", good), true},
		{"repository first", fmt.Sprintf(`{%q:{"auth":%q},%q:{"auth":%q}}`, host, bad, host+"/app", good), true},
		{"other repository", fmt.Sprintf(`{%q:{"auth":%q},%q:{"auth":%q}}`, host, bad, host+"/ap", good), false},
		{"wrong", fmt.Sprintf(`{%q:{"auth":%q}}`, host, bad), false},
		{"other host", fmt.Sprintf(`{"files.example":{"auth":%q}}`, good), false},
		{"user and password", fmt.Sprintf(`{%q:{"username":"me","password":%q}}`, host, password), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := w.client(func(cfg *Config) { cfg.DockerConfig = file(t, 0o600, `{"auths":`+c.auths+`,"currentContext":"x"}`) })
			_, err := cl.Manifest(t.Context(), "app", "1")
			if c.ok {
				must(t, err)
			} else {
				_ = refused(t, err, artifact.ErrUnavailable, CodeAuth)
			}
		})
	}
	for _, c := range []struct {
		name, content, want string
		mode                os.FileMode
	}{
		{"others may read", `{"auths":{"files.example":{"auth":"` + good + `"}}}`, "0600", 0o640},
		{"no JSON", `{"auths":{"files.example":{"auth":"` + good, "is no docker config.json", 0o600},
		{"path as helper", `{"credsStore":"../../bin/sh"}`, "is no program's name", 0o600},
		{"too long", strings.Repeat(" ", maxDockerConfig+1), "more than", 0o600},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := New(Config{Name: "oci/test", Registry: w.url, DockerConfig: file(t, c.mode, c.content)}, w.fetch())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), good) {
				t.Errorf("want %q, got %v", c.want, err)
			}
		})
	}
	// Without a secret in it everybody may read it.
	w.client(func(cfg *Config) { cfg.DockerConfig = file(t, 0o644, `{"auths":{"files.example":{}}}`) })
}

func TestIdentityToken(t *testing.T) {
	w := tokenWorld(t, ocitest.IdentityToken("refresh-secret"))
	host := strings.TrimPrefix(w.url, "http://")
	cl := w.client(func(cfg *Config) {
		cfg.DockerConfig = file(t, 0o600, fmt.Sprintf(`{"auths":{%q:{"identitytoken":"refresh-secret"}}}`, host))
	})
	_, err := cl.Manifest(t.Context(), "app", "1")
	must(t, err)
	if q := w.on(ocitest.OnToken); len(q) != 1 || q[0].Method != http.MethodPost {
		t.Errorf("want one POST, got %v", q)
	}
}

func TestCredentialHelper(t *testing.T) {
	w := tokenWorld(t)
	host := strings.TrimPrefix(w.url, "http://")
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	script := func(body string) {
		must(t, os.WriteFile(filepath.Join(bin, "docker-credential-test"), []byte("#!/bin/sh\n"+body), 0o700))
	}
	client := func() *Client {
		return w.client(func(cfg *Config) {
			cfg.DockerConfig = file(t, 0o644, fmt.Sprintf(`{"credHelpers":{%q:"test"},"credsStore":"other"}`, host))
		})
	}
	script(fmt.Sprintf(`test "$1" = get && test "$(cat)" = %s && echo '{"ServerURL":"x","Username":"me","Secret":%q}'`, host, password))
	_, err := client().Manifest(t.Context(), "app", "1")
	must(t, err)

	script(`echo '{"Username":"me","Secret":"wrong-secret"}'`)
	_, err = client().Manifest(t.Context(), "app", "1")
	if r := refused(t, err, artifact.ErrUnavailable, CodeAuth); strings.Contains(r.Error(), "wrong-secret") {
		t.Errorf("%v", r)
	}
	script(`echo secret-output; exit 3`)
	_, err = client().Manifest(t.Context(), "app", "1")
	if r := refused(t, err, artifact.ErrUnavailable, CodeAuth); !strings.Contains(r.Error(), "helper test") || strings.Contains(r.Error(), "secret-output") {
		t.Errorf("%v", r)
	}
	w.r.Set(ocitest.AnonymousPull())
	script(`echo 'credentials not found in native keychain'; exit 1`)
	_, err = client().Manifest(t.Context(), "app", "1")
	must(t, err)
}

// Nothing that is secret enters a log or an error, whatever fails.
func TestSecrets(t *testing.T) {
	w := tokenWorld(t, ocitest.TokenUses(3), ocitest.RelativeLocation())
	w.r.Set(ocitest.Redirect(w.storage))
	c := w.client(as("me", password), kept(t.TempDir(), 1000))
	var texts []string
	note := func(err error) { texts = append(texts, fmt.Sprint(err)) }
	_, err := c.Manifest(t.Context(), "app", "none")
	note(err)
	b := &blob{b: ocitest.Noise(5000, 3)}
	w.r.Set(ocitest.CutUpload(1500, 3))
	_, err = c.PushBlob(t.Context(), "app", b.digest(), 5000, b.open)
	note(err)
	w.r.Set(ocitest.Replace(b.digest(), []byte("short")))
	note(c.Download(t.Context(), "app", b.digest(), &partial{total: 5000, want: b.digest()}))
	w.r.DropTokens()
	w.r.Set(ocitest.TokenAuth("me", "changed", w.tokens+"/token"))
	_, err = c.Manifest(t.Context(), "app", "1")
	note(err)
	w.mu.Lock()
	texts = append(texts, w.log.String())
	w.mu.Unlock()
	if !strings.Contains(texts[len(texts)-1], "tried again") {
		t.Errorf("the log says nothing of the cuts: %q", texts)
	}
	for _, text := range texts {
		for _, secret := range []string{password, "secret-token", "secret-state", "secret-signature", "bWU6cGFz"} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %q", secret, text)
			}
		}
	}
}
