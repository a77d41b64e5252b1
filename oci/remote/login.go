package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	// maxDockerConfig bounds a config.json; a long one has some 10 KiB.
	maxDockerConfig = 1 << 20
	// maxHelper bounds what a credential helper prints: one login.
	maxHelper = 64 << 10
	// helperTime is how long a helper may take; those of cloud providers ask
	// their own service.
	helperTime = 30 * time.Second
	// helperLife is how long its answer is used; the shortest-lived logins
	// last for an hour.
	helperLife = 10 * time.Minute
	// askAgain is how soon a helper is asked anew because its answer was
	// refused.
	askAgain = 10 * time.Second
)

// A login is who we are: one name for all repositories, or what a docker
// config.json says of each.
type login struct {
	host  string
	fixed authn.AuthConfig
	// auths are those of the file, by "host" or "host/path".
	auths  map[string]authn.AuthConfig
	helper string // program for this host; empty: none

	mu    sync.Mutex
	known authn.AuthConfig // of the helper
	at    time.Time
}

// dockerConfig is what is read of a config.json.
type dockerConfig struct {
	Auths       map[string]authn.AuthConfig `json:"auths"`
	CredHelpers map[string]string           `json:"credHelpers"`
	CredsStore  string                      `json:"credsStore"`
}

// newLogin reads the configuration.
func newLogin(c *Config, host string) (*login, error) {
	l := &login{host: host, auths: make(map[string]authn.AuthConfig)}
	if c.User != "" || c.Password != "" {
		if c.User == "" || c.Password == "" {
			return nil, fmt.Errorf("%s: a login needs a user and a password", c.Name)
		}
		l.fixed = authn.AuthConfig{Username: c.User, Password: c.Password}
		return l, nil
	}
	if c.DockerConfig == "" {
		return l, nil
	}
	doc, err := readDockerConfig(c.DockerConfig)
	if err != nil {
		return nil, fmt.Errorf("%s: docker_config: %w", c.Name, err)
	}
	for key, auth := range doc.Auths {
		if at := configKey(key); at == host || strings.HasPrefix(at, host+"/") {
			l.auths[at] = auth
		}
	}
	l.helper = doc.CredsStore
	for key, program := range doc.CredHelpers {
		if configKey(key) == host {
			l.helper = program
		}
	}
	if strings.Trim(l.helper, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return nil, fmt.Errorf("%s: docker_config: credential helper %q is no program's name", c.Name, plainText(l.helper, 64))
	}
	return l, nil
}

// configKey is the host, and the path where there is one, that a key of the
// file means: docker writes "https://host/v1/" too.
func configKey(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	key = strings.TrimSuffix(key, "/")
	host, rest, _ := strings.Cut(key, "/")
	if rest == "v1" || rest == "v2" {
		rest = ""
	}
	return path.Join(strings.ToLower(host), rest)
}

// readDockerConfig reads the file; one that holds passwords and may be read
// by others is refused.
func readDockerConfig(name string) (doc *dockerConfig, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxDockerConfig+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxDockerConfig {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxDockerConfig)
	}
	doc = new(dockerConfig)
	if err := json.Unmarshal(b, doc); err != nil {
		return nil, fmt.Errorf("%s is no docker config.json", name) // the cause may quote it
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	secret := false
	for _, a := range doc.Auths {
		secret = secret || a.Password != "" || a.Auth != "" || a.IdentityToken != "" || a.RegistryToken != ""
	}
	if mode := info.Mode().Perm(); secret && mode&0o077 != 0 {
		return nil, fmt.Errorf("%s holds passwords and others may read it: want mode 0600, got %04o", name, mode)
	}
	return doc, nil
}

// anonymous reports whether nobody is configured.
func (l *login) anonymous() bool {
	return l.fixed == (authn.AuthConfig{}) && len(l.auths) == 0 && l.helper == ""
}

// config is who we are for a repository. fresh asks a helper again.
func (l *login) config(ctx context.Context, repo string, fresh bool) (authn.AuthConfig, error) {
	if l.fixed != (authn.AuthConfig{}) {
		return l.fixed, nil
	}
	if l.helper != "" {
		who, err := l.ask(ctx, fresh)
		if err != nil || who != (authn.AuthConfig{}) {
			return who, err
		}
	}
	for at := path.Join(l.host, repo); at != "." && at != "/"; at = path.Dir(at) {
		if who, ok := l.auths[at]; ok {
			return who, nil
		}
	}
	return authn.AuthConfig{}, nil
}

// ask asks the helper, or remembers what it said.
func (l *login) ask(ctx context.Context, fresh bool) (authn.AuthConfig, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	age := time.Since(l.at)
	if !l.at.IsZero() && age < helperLife && (!fresh || age < askAgain) {
		return l.known, nil
	}
	who, err := runHelper(ctx, l.helper, l.host)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	l.known, l.at = who, time.Now()
	return who, nil
}

// runHelper speaks the protocol of docker-credential-helpers: the host on
// standard input, a login as JSON on standard output.
func runHelper(ctx context.Context, helper, host string) (authn.AuthConfig, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	var out limited
	// The name was checked to be one word; it is looked up like every program.
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get") //nolint:gosec // the user's own configuration names it
	cmd.Stdin = strings.NewReader(host)
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if bytes.Contains(out.b.Bytes(), []byte("credentials not found")) {
		return authn.AuthConfig{}, nil // it knows nobody for this host
	}
	if err != nil {
		return authn.AuthConfig{}, err // what it printed may hold a secret
	}
	var doc struct {
		Username string `json:"Username"`
		Secret   string `json:"Secret"`
	}
	if err := json.Unmarshal(out.b.Bytes(), &doc); err != nil || doc.Secret == "" {
		return authn.AuthConfig{}, errors.New("its answer is no login")
	}
	if doc.Username == "<token>" {
		return authn.AuthConfig{IdentityToken: doc.Secret}, nil
	}
	return authn.AuthConfig{Username: doc.Username, Password: doc.Secret}, nil
}

// limited keeps the beginning of what a helper prints.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), maxHelper-l.b.Len())])
	return len(p), nil
}

// secrets are what must not be shown.
func (l *login) secrets() []string {
	l.mu.Lock()
	known := l.known
	l.mu.Unlock()
	var list []string
	for _, a := range append([]authn.AuthConfig{l.fixed, known}, values(l.auths)...) {
		list = append(list, a.Password, a.IdentityToken, a.RegistryToken, a.Auth, url.QueryEscape(a.Password))
		if a.Password != "" {
			list = append(list, base64.StdEncoding.EncodeToString([]byte(a.Username+":"+a.Password)))
		}
	}
	return list
}

func values(m map[string]authn.AuthConfig) []authn.AuthConfig {
	list := make([]authn.AuthConfig, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	return list
}
