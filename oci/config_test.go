package oci

import (
	"slices"
	"strings"
	"testing"
)

func TestConfigValidate(t *testing.T) {
	good := func() Config {
		return Config{Name: "platform", Registry: "https://registry.example", Images: []string{"library/nginx:1.27"}}
	}
	for name, c := range map[string]struct {
		spoil func(*Config)
		want  string // the problem's beginning; empty: none
	}{
		"as it is":            {func(*Config) {}, ""},
		"a host alone":        {func(c *Config) { c.Registry = "registry.example" }, ""},
		"helm":                {func(c *Config) { c.Registry, c.Helm = "", "https://charts.example/stable" }, ""},
		"layout":              {func(c *Config) { c.Registry, c.Layout, c.Host = "", "/srv/x", "local/apps" }, ""},
		"nothing":             {func(c *Config) { c.Registry = "" }, "registry: missing"},
		"two upstreams":       {func(c *Config) { c.Helm = "https://charts.example" }, "helm: a source has one upstream"},
		"layout without host": {func(c *Config) { c.Registry, c.Layout = "", "/srv/x" }, "host: missing"},
		"http":                {func(c *Config) { c.Registry = "http://registry.example" }, "registry: plain http"},
		"http, allowed":       {func(c *Config) { c.Registry, c.AllowHTTP = "http://127.0.0.1:5000", true }, ""},
		"credentials":         {func(c *Config) { c.Registry = "https://u:p@registry.example" }, "registry: credentials"},
		"path":                {func(c *Config) { c.Registry = "https://registry.example/x" }, "registry: a path"},
		"query":               {func(c *Config) { c.Helm, c.Registry = "https://charts.example/x?a=b", "" }, "helm: an address has no query"},
		"no tag":              {func(c *Config) { c.Images[0] = "library/nginx" }, "images[0]: image"},
		"upper case":          {func(c *Config) { c.Images[0] = "Library/nginx:1" }, "images[0]: image"},
		"chart by digest": {func(c *Config) {
			c.Registry, c.Helm = "", "https://charts.example"
			c.Images[0] = "x@sha256:" + strings.Repeat("a", 64)
		}, "images[0]:"},
		"selects nothing":  {func(c *Config) { c.Select = []Select{{Repository: "x"}} }, "select[0].glob: nothing"},
		"bad glob":         {func(c *Config) { c.Select = []Select{{Repository: "x", Glob: []string{"[a"}}} }, "select[0].glob[0]:"},
		"bad regex":        {func(c *Config) { c.Select = []Select{{Repository: "x", Regex: "("}} }, "select[0].regex:"},
		"bad range":        {func(c *Config) { c.Select = []Select{{Repository: "x", Semver: "newest"}} }, "select[0].semver:"},
		"bad newest":       {func(c *Config) { c.Select = []Select{{Repository: "x", Newest: -1}} }, "select[0].newest:"},
		"bad platform":     {func(c *Config) { c.Platforms = []string{"amd64"} }, "platforms[0]:"},
		"bad referrers":    {func(c *Config) { c.Referrers = "some" }, "referrers:"},
		"bad foreign":      {func(c *Config) { c.ForeignLayers = "push" }, "foreign_layers:"},
		"host with scheme": {func(c *Config) { c.AllowHosts = []string{"https://x.example"} }, "allow_hosts[0]:"},
		"half a login":     {func(c *Config) { c.User = "u" }, "password_file:"},
		"two logins":       {func(c *Config) { c.User, c.PasswordFile, c.DockerConfig = "u", "p", "d" }, "docker_config:"},
		"bad host":         {func(c *Config) { c.Host = "Registry.example" }, "host:"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good()
			c.spoil(&cfg)
			err := cfg.Validate()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), "u:p"):
				t.Errorf("a secret: %v", err)
			}
		})
	}
}

func TestPublishConfigValidate(t *testing.T) {
	no := false
	for name, c := range map[string]struct {
		cfg  PublishConfig
		want string
	}{
		"embedded":         {PublishConfig{}, ""},
		"registry":         {PublishConfig{Registry: "https://registry.example/mirror/x", User: "u", PasswordFile: "p"}, ""},
		"harbor":           {PublishConfig{Harbor: "https://harbor.example/platform", Project: Project{Create: &no, Labels: true, StorageLimit: "500GiB"}}, ""},
		"both":             {PublishConfig{Registry: "https://a.example", Harbor: "https://b.example/p"}, "harbor: registry is set"},
		"no project":       {PublishConfig{Harbor: "https://harbor.example"}, "harbor: want the address of one project"},
		"two projects":     {PublishConfig{Harbor: "https://harbor.example/a/b"}, "harbor: want the address of one project"},
		"bad prefix":       {PublishConfig{Registry: "https://registry.example/Mirror"}, "registry: repository name"},
		"login to nothing": {PublishConfig{User: "u", PasswordFile: "p"}, "user: there is no target"},
		"bad paths":        {PublishConfig{Paths: "short"}, "paths:"},
		"bad tags":         {PublishConfig{Tags: "overwrite"}, "tags:"},
		"bad verify":       {PublishConfig{Verify: "never"}, "verify:"},
		"not harbor":       {PublishConfig{Registry: "https://registry.example", Project: Project{Labels: true}}, "project: is for harbor"},
		"bad limit":        {PublishConfig{Harbor: "https://harbor.example/p", Project: Project{StorageLimit: "much"}}, "project.storage_limit:"},
		"http":             {PublishConfig{Registry: "http://registry.example"}, "registry: plain http"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.cfg.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestNamesInside(t *testing.T) {
	for _, c := range []struct {
		cfg        Config
		repo, want string
	}{
		{Config{Registry: "https://registry.example"}, "library/nginx", "registry.example/library/nginx"},
		{Config{Registry: "http://127.0.0.1:5000"}, "a", "127.0.0.1-5000/a"},
		{Config{Registry: "https://api.hub.example", Host: "hub.example"}, "a/b", "hub.example/a/b"},
		{Config{Registry: "https://api.hub.example", Host: dockerHub}, "nginx", dockerHub + "/library/nginx"},
		{Config{Helm: "https://charts.example/stable/"}, "qdrant", "charts.example/stable/qdrant"},
	} {
		s := &Source{cfg: c.cfg}
		got := s.inside(c.repo)
		if got != c.want {
			t.Errorf("%+v: %s, want %s", c.cfg, got, c.want)
		}
		if back, err := s.upstreamName(got); err != nil || !slices.Contains([]string{c.repo, "library/" + c.repo}, back) {
			t.Errorf("back: %s, %v", back, err)
		}
	}
	full := PublishConfig{Registry: "https://registry.example/mirror"}
	if got := full.targetName("hub.example/a/b"); got != "mirror/hub.example/a/b" {
		t.Error(got)
	}
	plain := PublishConfig{Harbor: "https://harbor.example/p", Paths: pathsPlain, Name: "p"}
	if got := plain.targetName("hub.example/a/b"); got != "p/a/b" {
		t.Error(got)
	}
	clash := &Set{Repositories: []Repository{{Name: "one.example/a"}, {Name: "two.example/a"}}}
	if err := plain.checkNames(clash); err == nil || !strings.Contains(err.Error(), "one.example/a and two.example/a") {
		t.Errorf("a clash of names: %v", err)
	}
	if err := full.checkNames(clash); err != nil {
		t.Error(err)
	}
}

func TestLocalName(t *testing.T) {
	for in, want := range map[string]string{
		"team/app:1.0": "team/app 1.0", "registry.example/team/app:1.0": "team/app 1.0", "registry.example:5000/app:1": "app 1", "1.0": " 1.0",
		"localhost/app:1": "app 1", "": "", "team/app": "", "Team/App:1": "",
	} {
		repo, tag, ok := localName(in)
		if got := repo + " " + tag; ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}
