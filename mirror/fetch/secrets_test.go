package fetch

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func withPassword(w *world) func(*Config) {
	return func(c *Config) {
		c.User, c.PasswordFile, c.CredentialHost = "me", w.file("password", []byte("pa55word\r\n")), "index.example"
	}
}

// TestCredentials go to their host, and to no other on any way.
func TestCredentials(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:pa55word"))
	var index, files, sub, other journal
	w := newWorld(t, map[string]http.HandlerFunc{
		"https://index.example": index.steps(text("page"), redirect("https://files.example/x?sig=s1gned"), redirect("https://sub.index.example/y"),
			redirect("https://index.example:8443/z"), redirect("https://u53r:link@files.example/w")),
		"https://files.example":      files.steps(text("file")),
		"https://sub.index.example":  sub.steps(text("file")),
		"https://index.example:8443": other.steps(text("file")),
	})
	c := w.client(withPassword(w))
	for range 5 {
		if _, err := c.Get(t.Context(), "https://link:l1nk@index.example/", GetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Get(t.Context(), "https://files.example/", GetOptions{}); err != nil {
		t.Fatal(err)
	}
	for i, r := range index.all() {
		if got := r.Header.Get("Authorization"); got != basic {
			t.Errorf("index, request %d: %q", i, got)
		}
	}
	if n := [4]int{len(index.all()), len(files.all()), len(sub.all()), len(other.all())}; n != [4]int{5, 3, 1, 1} {
		t.Errorf("requests: %v", n)
	}
	for _, j := range []*journal{&files, &sub, &other} {
		for _, r := range j.all() {
			if got := r.Header.Get("Authorization"); got != "" {
				t.Errorf("%s got %q", r.Host, got)
			}
			if got := r.Header.Get("Referer"); got != "" {
				t.Errorf("%s got Referer %q", r.Host, got)
			}
			if got := r.Header.Get("User-Agent"); got != "darkmirror" {
				t.Errorf("%s got User-Agent %q", r.Host, got)
			}
		}
	}
}

// TestForeignCredentials: another library's own credentials pass to where it
// sends them, and no redirect carries them on, not even to a subdomain.
func TestForeignCredentials(t *testing.T) {
	var index, sub journal
	w := newWorld(t, map[string]http.HandlerFunc{
		"https://index.example":     index.steps(redirect("https://sub.index.example/y")),
		"https://sub.index.example": sub.steps(text("file")),
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://index.example/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer t0ken")
	resp, err := (&http.Client{Transport: w.client(withPassword(w)).RoundTripper()}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if got := index.all()[0].Header.Get("Authorization"); got != "Bearer t0ken" {
		t.Errorf("index got %q", got)
	}
	if got := sub.all()[0].Header.Get("Authorization"); got != "" {
		t.Errorf("the subdomain got %q", got)
	}
}

// TestNothingSecretIsTold: whatever goes wrong, no password, userinfo or query
// enters an error, an event or the log.
func TestNothingSecretIsTold(t *testing.T) {
	abort := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	for name, h := range map[string]http.HandlerFunc{
		"status":           status(http.StatusForbidden),
		"retried":          status(http.StatusBadGateway),
		"cut":              abort,
		"redirect":         redirect("https://u53r:l1nk@files.example/x?sig=s1gned"),
		"redirect, a loop": redirect("?sig=s1gned"),
		"redirect, bad": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/%zz?sig=s1gned")
			w.WriteHeader(http.StatusFound)
		},
		"redirect, worse": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://u53r:l1nk@h:p/")
			w.WriteHeader(http.StatusFound)
		},
		"not allowed": redirect("https://u53r:l1nk@evil.example/x?sig=s1gned"),
		"too large":   text(strings.Repeat("x", 100)),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": h, "https://files.example": abort})
			c := w.client(withPassword(w))
			const secret = "https://u53r:l1nk@index.example/p/x.whl?sig=s1gned#fr4gment"
			_, getErr := c.Get(t.Context(), secret, GetOptions{Limit: 10})
			_, headErr := c.Head(t.Context(), secret)
			downloadErr := c.Download(t.Context(), secret, newTarget(t, noise(10), nil, ""))
			if getErr == nil || downloadErr == nil {
				t.Fatal("no error")
			}
			told := w.told(errors.Join(getErr, headErr, downloadErr)) + w.told(getErr) + w.told(downloadErr)
			for _, s := range []string{"pa55word", "u53r", "l1nk", "s1gned", "fr4gment"} {
				if strings.Contains(told, s) {
					t.Errorf("%q is told:\n%s", s, told)
				}
			}
			contains(t, told, "example")
		})
	}
	w := newWorld(t, nil)
	for _, bad := range []string{"https://u53r:l1nk@index.example:port/?sig=s1gned", "https://u53r:l1nk@index.example/%zz?sig=s1gned", "\x7f?sig=s1gned"} {
		_, err := w.client().Get(t.Context(), bad, GetOptions{})
		if err == nil || strings.Contains(err.Error(), "l1nk") || strings.Contains(err.Error(), "s1gned") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"https://u:p@index.example/a/b?c#d": "https://index.example/a/b",
		"https://index.example/?":           "https://index.example/",
		"/relative?x=y":                     "/relative",
		"https:u:p@index.example":           "https:(not shown)",
		"https://index.example:p/?secret":   "(a URL that cannot be read)",
		"":                                  "",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func FuzzRedact(f *testing.F) {
	for _, s := range []string{"https://u:p@index.example/a?b#c", "//u@h/", "a:b@c", "https://h/%3f?x", "https://[::1]:1/", "?#@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Redact(s)
		u, err := url.Parse(got)
		if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(got, "?#") {
			t.Fatalf("%q becomes %q: %v", s, got, err)
		}
	})
}

// TestScrub: a URL in the text of an error, and in the one that net/url makes.
func TestScrub(t *testing.T) {
	cause := errors.New("the cause")
	for in, want := range map[error]string{
		fmt.Errorf(`proxy "http://u:p4ss@proxy.example:3128/?k=v" says no: %w`, cause):                           `proxy "http://proxy.example:3128/" says no: the cause`,
		fmt.Errorf("x: %w", &url.Error{Op: "Get", URL: "https://u:p4ss@h/?q", Err: cause}):                       "the cause",
		&url.Error{Op: "Get", URL: "https://h/", Err: fmt.Errorf("a %w at https://u:p4ss@h:x/", cause)}:          "a the cause at (a URL that cannot be read)",
		fmt.Errorf("failed to parse Location header %q: %w", "/?p4ss", cause):                                    "the server's redirect cannot be read",
		fmt.Errorf("nothing to hide: %w", cause):                                                                 "nothing to hide: the cause",
		&url.Error{Op: "parse", URL: "p4ss", Err: &url.Error{Op: "parse", URL: "https://h/?p4ss=q", Err: cause}}: "the cause",
	} {
		got := scrub(in)
		if got.Error() != want || !errors.Is(got, cause) {
			t.Errorf("%v\n got  %v\n want %s", in, got, want)
		}
		for err := got; err != nil; err = errors.Unwrap(err) {
			if strings.Contains(err.Error(), "p4ss") {
				t.Errorf("unwraps to %v", err)
			}
		}
	}
}
