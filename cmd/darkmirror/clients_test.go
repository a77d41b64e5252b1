package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/oci/ocitest"
)

// publishImages publishes images of a registry in the state folder of an
// inside, without a bundle between.
func publishImages(t *testing.T, state, source, host string, refs map[string]*ocitest.Object) {
	t.Helper()
	reg := ocitest.New()
	srv := httptest.NewServer(reg)
	defer srv.Close()
	c := oci.Config{Name: source, Registry: srv.URL, Host: host, AllowHTTP: true}
	for ref, o := range refs {
		repo, tag, _ := strings.Cut(ref, ":")
		reg.Put(repo, tag, o)
		c.Images = append(c.Images, ref)
	}
	name := "oci/" + source
	client, err := newClient(fetch.NewPool(0, 0), c.Fetch(name), c.Address())
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(filepath.Join(state, "store"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := oci.NewSource(c, name, client, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	snap, _, err := s.Resolve(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			if err := s.Fetch(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
	}
	p, err := oci.NewPublisher(oci.PublishConfig{Name: source}, name, nil, st, filepath.Join(state, "published", "oci", source), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), snap, 1, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// clientsOf runs the command and gives its result by tool and file.
func clientsOf(t *testing.T, dir string, args ...string) (map[string]string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"--config", filepath.Join(dir, "darkmirror.yaml"), "-o", "json", "clients"}, args...)
	if code := run(t.Context(), args, streams{in: strings.NewReader(""), out: &out, err: &errs}); code != 0 {
		t.Fatalf("%q: exit status %d: %s", args, code, &errs)
	}
	var res clientsResult
	if err := json.Unmarshal(out.Bytes(), &res); err != nil {
		t.Fatal(err)
	}
	if res.Schema != "darkmirror.clients/v1" || len(res.Tools) == 0 {
		t.Fatalf("%q: schema %q with %d tools", args, res.Schema, len(res.Tools))
	}
	got := make(map[string]string)
	for _, s := range res.Tools {
		got[s.Tool+" "+s.File] = s.Content
	}
	return got, errs.String()
}

func TestClientsOfWhatIsPublished(t *testing.T) {
	dir := t.TempDir()
	text := `version: 1
role: inside
state_dir: state
inbox: [inbox]
oci:
  - {name: platform, registry: "https://target.example/mirror"}
  - {name: team, registry: "https://target.example", paths: plain}
  - {name: none}
serve: {listen: "0.0.0.0:80", name: mirror.example}
`
	if err := os.WriteFile(filepath.Join(dir, "darkmirror.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	layer := ocitest.Tar(map[string]string{"file": "text"})
	chart := ocitest.Chart(map[string]string{"apiVersion": "v2", "name": "qdrant", "version": "1.2.0+3"}, []byte("a chart"))
	publishImages(t, filepath.Join(dir, "state"), "platform", "registry.example", map[string]*ocitest.Object{
		"library/nginx:1.27": ocitest.Image(layer), "library/nginx:1.26": ocitest.Image(layer, layer), "charts/qdrant:1.2.0_3": chart,
	})
	publishImages(t, filepath.Join(dir, "state"), "team", "registry.example-5000", map[string]*ocitest.Object{"app:2": ocitest.Image(layer)})

	got, errs := clientsOf(t, dir)
	want := "warning: registry.example-5000 is taken for registry.example:5000; if that is wrong, --host registry.example-5000\n"
	if errs != want {
		t.Errorf("standard error:\n%swant:\n%s", errs, want)
	}
	// A registry lies in the source that has images of it, and nowhere else.
	wantHosts := `server = "http://mirror.example:80/v2/team/registry.example-5000"
capabilities = ["pull", "resolve"]
override_path = true

[host."http://mirror.example:80/v2/team/registry.example-5000"]
  capabilities = ["pull", "resolve"]
  override_path = true
`
	if diff := cmp.Diff(wantHosts, got["containerd /etc/containerd/certs.d/registry.example:5000/hosts.toml"]); diff != "" {
		t.Errorf("hosts.toml (-want +got):\n%s", diff)
	}
	wantDocker := `docker pull mirror.example:80/platform/registry.example/library/nginx:1.27
docker tag mirror.example:80/platform/registry.example/library/nginx:1.27 registry.example/library/nginx:1.27
docker pull mirror.example:80/team/registry.example-5000/app:2
docker tag mirror.example:80/team/registry.example-5000/app:2 registry.example:5000/app:2
`
	if diff := cmp.Diff(wantDocker, got["docker "]); diff != "" {
		t.Errorf("docker (-want +got):\n%s", diff)
	}
	wantHelm := "helm pull oci://mirror.example:80/platform/registry.example/charts/qdrant --version 1.2.0+3 --plain-http\n"
	if diff := cmp.Diff(wantHelm, got["helm "]); diff != "" {
		t.Errorf("helm (-want +got):\n%s", diff)
	}
	if pod := got["kubernetes kubernetes/darkmirror-pod.yaml"]; !strings.Contains(pod, "image: mirror.example:80/platform/registry.example/library/nginx:1.27\n") {
		t.Errorf("pod: %s", pod)
	}

	// In their targets they have other names.
	got, _ = clientsOf(t, dir, "--target", "podman")
	wantConf := `[[registry]]
prefix = "registry.example"
location = "registry.example"
blocked = true
mirror-by-digest-only = false

[[registry.mirror]]
location = "target.example/mirror/registry.example"
insecure = false

[[registry]]
prefix = "registry.example:5000"
location = "registry.example:5000"
blocked = true
mirror-by-digest-only = false

[[registry.mirror]]
location = "target.example"
insecure = false
`
	if diff := cmp.Diff(map[string]string{"podman /etc/containers/registries.conf.d/50-darkmirror.conf": wantConf}, got); diff != "" {
		t.Errorf("podman with --target (-want +got):\n%s", diff)
	}
	// Only a mirror at the root of its server is one for the daemon.
	got, _ = clientsOf(t, dir, "--target", "docker")
	if want := "{\n  \"registry-mirrors\": [\n    \"https://target.example\"\n  ]\n}\n"; got["docker /etc/docker/daemon.json"] != want {
		t.Errorf("daemon.json with --target is %q, want %q", got["docker /etc/docker/daemon.json"], want)
	}
	// What is named and lies nowhere may be pushed into any source.
	got, errs = clientsOf(t, dir, "--host", "Hub.example", "podman")
	conf := got["podman /etc/containers/registries.conf.d/50-darkmirror.conf"]
	for _, source := range []string{"platform", "team", "none"} {
		if !strings.Contains(conf, fmt.Sprintf("location = \"mirror.example:80/%s/hub.example\"\n", source)) {
			t.Errorf("no %s in\n%s", source, conf)
		}
	}
	if errs != "" || strings.Contains(conf, "registry.example") {
		t.Errorf("more than was named: %s\n%s", errs, conf)
	}
}

func TestGuessHost(t *testing.T) {
	for inside, want := range map[string]string{
		"registry.example":          "registry.example",
		"registry.example-5000":     "registry.example:5000",
		"192.0.2.1-5000":            "192.0.2.1:5000",
		"localhost-5000":            "localhost:5000",
		"registry-1.example":        "registry-1.example",
		"registry.example-0":        "registry.example-0",
		"registry.example-70000":    "registry.example-70000",
		"registry-5000":             "registry-5000", // no name of a registry
		"registry.example-99999999": "registry.example-99999999",
	} {
		if got := guessHost(inside); got.name != want || got.inside != inside || got.guessed != (want != inside) {
			t.Errorf("%s is %+v, want %s", inside, got, want)
		}
	}
}

func TestParseHost(t *testing.T) {
	for _, name := range []string{"", "nginx", "https://registry.example", "registry.example/library", "registry.example:", "registry.example:port", "registry.example:70000", "../x.y", ".example", "a b.example", "registry.example:5000:1", `a"b.example`} {
		if h, err := parseHost(name); err == nil {
			t.Errorf("%q is %+v", name, h)
		}
	}
	for name, inside := range map[string]string{"registry.example": "registry.example", "Registry.example:5000": "registry.example-5000", "localhost": "localhost", "localhost:1": "localhost-1"} {
		if h, err := parseHost(name); err != nil || h.inside != inside || h.name != strings.ToLower(name) || len(h.places) > 0 {
			t.Errorf("%q is %+v, %v", name, h, err)
		}
	}
}

func TestWrap(t *testing.T) {
	got := wrap("  one two  three-and-more four", 9)
	if want := []string{"one two", "three-and-more", "four"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := wrap(" ", 9); len(got) > 0 {
		t.Errorf("of nothing: %q", got)
	}
}
