package fetch

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func TestAllowed(t *testing.T) {
	p := NewPool(1, 1)
	strict, err := New(p, Config{Name: "pypi/main", Hosts: []string{"Index.Example", "files.example:8443", "mirror.example:443", "[::1]:80", "xn--bcher-kva.example"}})
	if err != nil {
		t.Fatal(err)
	}
	loose, err := New(p, Config{Name: "pypi/main", Hosts: []string{"index.example", "mirror.example:443"}, AllowHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		client *Client
		url    string
		ok     bool
	}{
		{strict, "https://index.example/simple/", true},
		{strict, "https://INDEX.example/simple/", true},
		{strict, "https://index.example:443/", true},
		{strict, "https://files.example:8443/", true},
		{strict, "https://mirror.example/", true},
		{strict, "https://xn--bcher-kva.example/", true},
		{strict, "https://index.example./", true}, // the same name, fully written
		{strict, "http://index.example/", false},
		{strict, "https://index.example:8443/", false},
		{strict, "https://files.example/", false},
		{strict, "https://sub.index.example/", false},
		{strict, "https://index.example.evil.example/", false},
		{strict, "https://evil.example/index.example", false},
		{strict, "https://index.example@evil.example/", false},
		{strict, "https://evil.example#@index.example/", false},
		{strict, "https://evil.example\\@index.example/", false},
		{strict, "https://index%2eexample/", false},
		{strict, "https://b\u00fccher.example/", false},
		{strict, "https://\u0131ndex.example/", false},     // a dotless i
		{strict, "https://index\u3002example/", false},     // a dot that IDNA maps to one
		{strict, "https://index.example:0443/", false},     // one spelling only
		{strict, "https://index.example:/", false},         // likewise
		{strict, "ftp://index.example/", false},            //
		{strict, "file:///etc/passwd", false},              //
		{strict, "//index.example/", false},                //
		{strict, "index.example/simple", false},            //
		{strict, "https:index.example", false},             //
		{strict, "https:///simple", false},                 //
		{strict, "https://[::1]/", false},                  // the port is not the scheme's
		{strict, "https://[::1%25eth0]:80/", false},        //
		{loose, "http://index.example/", true},             //
		{loose, "http://index.example:80/", true},          //
		{loose, "https://index.example/", true},            //
		{loose, "http://mirror.example/", false},           // named with the port of https
		{loose, "http://index.example:443/", false},        //
		{loose, "https://index.example:80/simple/", false}, //
	} {
		err := c.client.Allowed(c.url, "")
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.url, err)
		}
		if err != nil && errors.Is(err, artifact.ErrUnavailable) {
			t.Errorf("%q: counts as unavailable: %v", c.url, err)
		}
	}
}

func TestAllowedSaysWhoSentUs(t *testing.T) {
	c, err := New(NewPool(1, 1), Config{Name: "pypi/main", Hosts: []string{"index.example"}})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Allowed("https://files.example/x.whl?sig=secret", "index.example")
	if err == nil || err.Error() != "pypi/main: index.example sends downloads to files.example, which is not allowed" {
		t.Errorf("got %v", err)
	}
	if h, ok := errors.AsType[*HostError](err); !ok || h.Source != "pypi/main" || h.From != "index.example" || h.Host != "files.example" || !errors.Is(err, ErrHost) {
		t.Errorf("got %+v", h)
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t, nil)
	secret := w.file("password", []byte("x\n"))
	for name, c := range map[string]Config{
		"scheme":          {Hosts: []string{"https://index.example"}},
		"path":            {Hosts: []string{"index.example/simple"}},
		"wildcard":        {Hosts: []string{"*.example"}},
		"userinfo":        {Hosts: []string{"me@index.example"}},
		"not ASCII":       {Hosts: []string{"b\u00fccher.example"}},
		"no port":         {Hosts: []string{"index.example:"}},
		"port by name":    {Hosts: []string{"index.example:https"}},
		"empty":           {Hosts: []string{""}},
		"only a dot":      {Hosts: []string{"."}},
		"no CA":           {CAFile: "/nonexistent/ca.pem"},
		"CA is no PEM":    {CAFile: secret},
		"CA too large":    {CAFile: w.file("big", make([]byte, maxCA+1))},
		"no user":         {PasswordFile: secret, CredentialHost: "index.example"},
		"no host":         {User: "me", PasswordFile: secret},
		"bad host":        {User: "me", CredentialHost: "https://index.example"},
		"no password":     {User: "me", PasswordFile: "/nonexistent/password", CredentialHost: "index.example"},
		"password as big": {User: "me", PasswordFile: w.file("bigger", make([]byte, maxSecret+1)), CredentialHost: "index.example"},
	} {
		c.Name = "pypi/main"
		if _, err := New(w.pool, c); err == nil || !strings.HasPrefix(err.Error(), "pypi/main: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHost(t *testing.T) {
	for in, want := range map[string]string{
		"https://Index.Example/simple": "index.example", "https://index.example:443": "index.example",
		"http://index.example:443": "index.example:443", "http://127.0.0.1:8080/x": "127.0.0.1:8080", "http://[::1]:80/": "[::1]",
		"https://u:p@index.example:8443/?q": "index.example:8443",
	} {
		if got, err := Host(in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	if _, err := Host("https://u:secret@index.example:port/"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

// TestRedirects: each kind of redirect, by Get, Download and another library.
func TestRedirects(t *testing.T) {
	const hostText = "pypi/main: index.example sends downloads to "
	for name, c := range map[string]struct {
		to   string
		want string // "" follows
	}{
		"allowed":           {"https://files.example/x", ""},
		"same host":         {"/there", ""},
		"not allowed":       {"https://evil.example/x?token=secret", hostText + "evil.example, which is not allowed"},
		"another port":      {"https://files.example:8443/x", hostText + "files.example:8443, which is not allowed"},
		"by userinfo":       {"https://files.example@evil.example/", hostText + "evil.example, which is not allowed"},
		"https to http":     {"http://files.example/x", hostText + "files.example, from https to http, which is never allowed"},
		"to another scheme": {"ftp://files.example/x", hostText + `files.example, by "ftp", which is neither https nor http`},
	} {
		t.Run(name, func(t *testing.T) {
			var reached journal
			w := newWorld(t, map[string]http.HandlerFunc{
				"https://index.example": func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/there" {
						reached.steps(text("hello"))(w, r)
						return
					}
					redirect(c.to)(w, r)
				},
				"https://files.example": reached.steps(text("hello")),
				"http://files.example":  reached.steps(text("hello")),
			})
			cl := w.client()
			_, getErr := cl.Get(t.Context(), "https://index.example/x", GetOptions{})
			p := newTarget(t, []byte("hello"), nil, "")
			downloadErr := cl.Download(t.Context(), "https://index.example/x", p)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://index.example/x", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, libErr := (&http.Client{Transport: cl.RoundTripper()}).Do(req)
			if libErr == nil {
				if err := resp.Body.Close(); err != nil {
					t.Error(err)
				}
			}
			for _, err := range []error{getErr, downloadErr, libErr} {
				if c.want == "" {
					if err != nil {
						t.Error(err)
					}
					continue
				}
				if !errors.Is(err, ErrHost) || errors.Is(err, artifact.ErrUnavailable) || !strings.HasSuffix(err.Error(), c.want) {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
			}
			n, followed := len(reached.all()), 0
			if c.want == "" {
				followed = 3
				p.check(t, nil)
			}
			if n != followed {
				t.Errorf("%d requests reached the target", n)
			}
			if told := w.told(errors.Join(getErr, downloadErr)); strings.Contains(told, "secret") {
				t.Errorf("told: %s", told)
			}
			for _, d := range w.dials {
				if strings.Contains(d, "evil") {
					t.Errorf("dialled %s", d)
				}
			}
		})
	}
}

func TestRedirectLoopEnds(t *testing.T) {
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": j.steps(redirect("/again"))})
	_, err := w.client().Get(t.Context(), "https://index.example/", GetOptions{})
	unavailable(t, err, 0)
	contains(t, err.Error(), "more than 10 redirects")
	if n := len(j.all()); n != maxRedirects+1 {
		t.Errorf("%d requests", n)
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, s := range []string{"index.example", "Index.Example:8443", "[::1]:80", "::1", "xn--bcher-kva.example", "a.", ":80", "[", "a:b:c", "b\u00fccher"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once, err := canonicalHost(s)
		if err != nil {
			return
		}
		twice, err := canonicalHost(once)
		if err != nil || once != twice {
			t.Fatalf("%q, then %q: %v", once, twice, err)
		}
		if once != strings.ToLower(once) || strings.ContainsAny(once, "/@?# %*") || strings.Trim(once, ".:") == "" {
			t.Fatalf("accepted as %q", once)
		}
	})
}
