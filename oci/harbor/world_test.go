package harbor

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/harbortest"
	"github.com/darkmirror/darkmirror/oci/ocitest"
)

const adminPassword = "Administrator-Secret"

// A world is a Harbor on loopback.
type world struct {
	t      *testing.T
	harbor *harbortest.Harbor
	url    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	h := harbortest.New(adminPassword)
	return &world{t: t, harbor: h, url: serve(t, h)}
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// connect makes a client of any server.
func connect(t *testing.T, c Config, hosts ...string) *Client {
	t.Helper()
	u, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fetch.New(fetch.NewPool(4, 8), fetch.Config{Name: c.Name, Hosts: append(hosts, u.Host), AllowHTTP: true, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	cl, err := New(c, f)
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func (w *world) as(user, password string) *Client {
	w.t.Helper()
	return connect(w.t, Config{Name: "oci/platform", URL: w.url, Project: "platform", User: user, Password: password})
}

func (w *world) admin() *Client { return w.as("admin", adminPassword) }

// robot is a client with a robot account of exactly the permissions for o.
func (w *world) robot(o RobotOptions) *Client {
	w.t.Helper()
	o.Name = "importer"
	body, err := RobotBody(o)
	if err != nil {
		w.t.Fatal(err)
	}
	name, secret, err := w.harbor.AddRobot(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.as(name, secret)
}

// image puts an image into the project's repository, tagged 1.0.
func (w *world) image(repo string) string {
	w.t.Helper()
	im := ocitest.Image([]byte("a layer of " + repo))
	return string(w.harbor.Registry.Put(repo, "1.0", im))
}

// notes takes the client's notes, which must be so many.
func notes(t *testing.T, c *Client, want int) string {
	t.Helper()
	list := c.Notes()
	if len(list) != want {
		t.Fatalf("%d notes, want %d: %q", len(list), want, list)
	}
	return strings.Join(list, "\n")
}

// refused checks that err is a refusal of that code, which names the request.
func refused(t *testing.T, err error, code string) artifact.Refusal {
	t.Helper()
	r, ok := errors.AsType[*artifact.Refusal](err)
	if !ok || r.Code != code {
		t.Fatalf("got %v, want a refusal %s", err, code)
	}
	if !errors.Is(err, artifact.ErrUnavailable) && code != CodeReply {
		t.Errorf("%v is not of class ErrUnavailable", err)
	}
	for _, secret := range []string{adminPassword, "Secret", "Basic "} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q holds a secret", err)
		}
	}
	return *r
}

func hasID(t *testing.T, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "(X-Request-Id harbor-request-") {
		t.Errorf("%v does not name Harbor's request", err)
	}
}
