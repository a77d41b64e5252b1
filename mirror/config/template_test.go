package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/apt"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/pypi"
)

func debian(url string, suites ...string) apt.FoundArchive {
	return apt.FoundArchive{
		Origin: "/etc/apt/sources.list", Line: 3, URL: url, Suites: suites, Components: []string{"main"},
		SignedBy: []string{"/usr/share/keyrings/archive.gpg"}, CheckValidUntil: true,
	}
}

func host() Host {
	noKeys := debian("https://other.example/tools", "bookworm")
	noKeys.SignedBy = nil
	return Host{
		Codename: "bookworm", Architecture: "arm64",
		OCI:    []oci.Found{{Origin: "/etc/docker/daemon.json", Registry: "http://registry.example:5000"}, {Origin: "config.json", Registry: "https://other.example"}},
		Models: []models.Found{{Origin: "HF_ENDPOINT", Note: "cannot be read"}, {Origin: "HF_ENDPOINT", Hub: "http://hub.example"}},
		PyPI: []pypi.Found{
			{Origin: "/etc/pip.conf", Index: "https://index.example/simple", AllowHosts: []string{"files.example"}, Note: "credentials were dropped"},
			{Origin: "uv.toml", Note: "its URL cannot be read"},
			{Origin: "uv.toml", Index: "http://second.example/simple", CAFile: "/etc/ca.pem"},
		},
		Apt: []apt.FoundArchive{
			debian("http://mirror.example/debian", "bookworm", "bookworm-updates"),
			debian("https://security.example/debian", "bookworm-security"),
			debian("https://third.example/apt", "stable"),
			noKeys,
		},
		Skipped: []apt.Skipped{{Origin: "/etc/apt/sources.list", Line: 9, Text: "cdrom:", Reason: "scheme \"cdrom\" is not mirrored"}},
	}
}

func TestTemplateOutside(t *testing.T) {
	text := string(Template(Outside, host()))
	c, err := Parse("darkmirror.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(c.PyPI) != 1 || c.PyPI[0].Index != "https://index.example/simple" || !cmp.Equal(c.PyPI[0].AllowHosts, []string{"files.example"}) {
		t.Errorf("pypi %+v, want the first index found", c.PyPI)
	}
	if len(c.Apt) != 1 || c.Apt[0].Name != "bookworm" || !c.Apt[0].AllowHTTP || !cmp.Equal(c.Apt[0].Architectures, []string{"arm64"}) {
		t.Fatalf("apt %+v, want one source bookworm", c.Apt)
	}
	if len(c.OCI) != 1 || c.OCI[0].Name != "platform" || c.OCI[0].Registry != "http://registry.example:5000" || !c.OCI[0].AllowHTTP {
		t.Errorf("oci %+v, want the first registry found", c.OCI)
	}
	if len(c.Models) != 1 || c.Models[0].Name != "llm" || c.Models[0].Hub != "http://hub.example" || !c.Models[0].AllowHTTP {
		t.Errorf("models %+v, want the hub found", c.Models)
	}
	var got []string
	for _, a := range c.Apt[0].Archives {
		got = append(got, a.Name+" "+a.URL+" "+strings.Join(a.Suites, ","))
	}
	want := []string{"debian http://mirror.example/debian bookworm,bookworm-updates", "debian-2 https://security.example/debian bookworm-security"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("archives (-want +got):\n%s", diff)
	}
	for _, said := range []string{"http://second.example/simple", "https://third.example/apt", "https://other.example/tools", "sources.list:9", "credentials were dropped", "/etc/pip.conf"} {
		if !strings.Contains(text, said) {
			t.Errorf("the file does not mention %s", said)
		}
	}
}

func TestTemplateInside(t *testing.T) {
	c, err := Parse("darkmirror.yaml", Template(Inside, host()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range c.Apt[0].Publish.Archives {
		names = append(names, a.Name)
	}
	if diff := cmp.Diff([]string{"debian", "debian-2"}, names); diff != "" {
		t.Errorf("archives are not called as outside (-want +got):\n%s", diff)
	}
	if len(c.PyPI) != 1 || len(c.Inbox) != 1 {
		t.Errorf("pypi %+v, inbox %v", c.PyPI, c.Inbox)
	}
}

// Where a host is not found there is none: an example stands in comments, and
// every line of it is one that would pass.
func TestTemplateOfBareHost(t *testing.T) {
	for _, role := range []string{Outside, Inside} {
		text := string(Template(role, Host{Codename: "bookworm"}))
		c, err := Parse("darkmirror.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		for _, s := range Show(c) {
			if strings.Contains(s.Value, "://") {
				t.Errorf("%s: %s is %s, though nothing was found", role, s.Key, s.Value)
			}
		}
		if len(c.Apt) != 0 {
			t.Errorf("%s: apt %+v", role, c.Apt)
		}
		// The example, with its comment signs taken off.
		var lines []string
		for line := range strings.SplitSeq(text, "\n") {
			if strings.HasPrefix(line, "# apt:") || strings.HasPrefix(line, "# pypi:") || strings.HasPrefix(line, "# oci:") || strings.HasPrefix(line, "# models:") || strings.HasPrefix(line, "#   ") {
				if !strings.Contains(line, "An example") {
					line = strings.TrimPrefix(line, "# ")
				}
			}
			lines = append(lines, line)
		}
		c, err = Parse("darkmirror.yaml", []byte(strings.Join(lines, "\n")))
		if err != nil {
			t.Fatalf("%s, example: %v", role, err)
		}
		if len(c.Apt) != 1 || len(c.PyPI) != 1 || len(c.OCI) != 1 || len(c.Models) != 1 {
			t.Errorf("%s, example: apt %+v, pypi %+v, oci %+v, models %+v, want one of each", role, c.Apt, c.PyPI, c.OCI, c.Models)
		}
	}
}

// Text of the host's own files must not break out of its place.
func FuzzTemplate(f *testing.F) {
	seeds := []string{"bookworm", "a\nrole: inside", "x: y", "~", "null", "%", "- a", "\x1b[31m", "\xff", "#", "'\"", "[a, b]", "{", "Bookworm", "ümlaut", "https://u:p@h.example/x y", "-", ":"}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h := Host{
			Codename: s, Architecture: "amd64",
			Models: []models.Found{{Origin: s, Hub: "https://hub.example/" + s, Note: s}, {Origin: s, Hub: s}},
			OCI:    []oci.Found{{Origin: s, Registry: "https://registry.example/" + s}, {Origin: s, Registry: s}, {Origin: s, Registry: "http://registry.example"}},
			PyPI:   []pypi.Found{{Origin: s, Index: "https://index.example/" + s, AllowHosts: []string{s}, CAFile: s, Note: s}, {Origin: s, Index: s, Note: s}},
			Apt: []apt.FoundArchive{
				{Origin: s, URL: "https://mirror.example/" + s, Suites: []string{s, s + "-" + s}, Components: []string{s}, SignedBy: []string{"/" + s}, Notes: []string{s}},
				{Origin: s, URL: s, Suites: []string{s}, Components: []string{s}, SignedBy: []string{s}},
			},
			Skipped: []apt.Skipped{{Origin: s, Text: s, Reason: s}},
		}
		for _, role := range []string{Outside, Inside} {
			text := Template(role, h)
			c, err := Parse("darkmirror.yaml", text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if c.Role != role {
				t.Errorf("role %s became %s", role, c.Role)
			}
			for _, src := range c.PyPI {
				if role == Outside && !strings.HasPrefix(src.Index, "https://index.example/") && src.Index != s {
					t.Errorf("index %q was not found on the host", src.Index)
				}
			}
		}
	})
}

func TestTemplateKeepsNoLogin(t *testing.T) {
	h := host()
	h.PyPI[0].Note = "was https://user:hunter2@index.example/simple"
	h.Apt[2].URL = "https://user:hunter2@third.example/apt"
	if text := Template(Outside, h); strings.Contains(string(text), "hunter2") {
		t.Errorf("a password of the host is in the file:\n%s", text)
	}
	if _, err := Parse("x", Template(Outside, h)); errors.As(err, new(Problems)) {
		t.Errorf("the file does not pass: %v", err)
	}
}
