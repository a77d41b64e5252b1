package pypi

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	good := Config{
		Index: "https://index.example/simple/", AllowHosts: []string{"files.example", "files.example:8443"}, Targets: []string{linux312}, Locks: []LockConfig{{File: "requirements.txt"}, {File: "pylock.toml", Targets: []string{win311}}},
		User: "me", PasswordFile: "/run/secret",
	}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	fc := good.Fetches("pypi/main")[0]
	if d := cmp.Diff([]string{"index.example", "files.example", "files.example:8443"}, fc.Hosts); d != "" || fc.CredentialHost != "index.example" || good.PerHost() != defaultPerHost {
		t.Errorf("%s %+v", d, fc)
	}
	for name, c := range map[string]struct {
		spoil func(*Config)
		want  string
	}{
		"no index":     {func(c *Config) { c.Index = "" }, "index: missing; no index is built in"},
		"scheme":       {func(c *Config) { c.Index = "ftp://index.example" }, "index: "},
		"plain http":   {func(c *Config) { c.Index = "http://index.example" }, `index: "http://index.example": plain http needs allow_http`},
		"credentials":  {func(c *Config) { c.Index = "https://a:secret@index.example" }, "index: must not hold credentials; use user and password_file"},
		"query":        {func(c *Config) { c.Index = "https://index.example/?x" }, "index: "},
		"broken":       {func(c *Config) { c.Index = "https://a:secret@index.example:x/" }, "index: malformed URL"},
		"host":         {func(c *Config) { c.AllowHosts[1] = "https://files.example" }, "allow_hosts[1]: "},
		"wildcard":     {func(c *Config) { c.AllowHosts[0] = "*.example" }, "allow_hosts[0]: "},
		"port":         {func(c *Config) { c.AllowHosts[0] = "files.example:0" }, "allow_hosts[0]: "},
		"target":       {func(c *Config) { c.Targets[0] = "py3" }, `targets[0]: target "py3": `},
		"target twice": {func(c *Config) { c.Targets = []string{linux312, linux312} }, "targets[1]: "},
		"lock target":  {func(c *Config) { c.Locks[1].Targets = []string{"x"} }, "locks[1].targets[0]: "},
		"no targets":   {func(c *Config) { c.Targets = nil }, "targets: none for locks[0]"},
		"no file":      {func(c *Config) { c.Locks[0].File = "" }, "locks[0].file: missing"},
		"no password":  {func(c *Config) { c.PasswordFile = "" }, "password_file: "},
		"no user":      {func(c *Config) { c.User = "" }, "user: "},
		"connections":  {func(c *Config) { c.MaxPerHost = 51 }, "max_per_host: "},
		"page":         {func(c *Config) { c.MaxPage = -1 }, "max_page: "},
		"status":       {func(c *Config) { c.MissingStatus = []int{403, 500} }, "missing_status[1]: 500, want"},
		"to wait":      {func(c *Config) { c.MissingStatus = []int{429} }, "missing_status[0]: 429, want"},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := good
			c2.AllowHosts = append([]string{}, good.AllowHosts...)
			c2.Targets = append([]string{}, good.Targets...)
			c2.Locks = append([]LockConfig{}, good.Locks...)
			c.spoil(&c2)
			err := c2.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	err := (&Config{User: "x", Locks: []LockConfig{{}}}).Validate()
	if n := strings.Count(err.Error(), "\n"); n != 3 {
		t.Errorf("not every problem is named: %v", err)
	}
	// What a new configuration looks like.
	good.Locks = nil
	if err := good.Validate(); err != nil {
		t.Errorf("without locks: %v", err)
	}
}
