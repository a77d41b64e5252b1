package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Found is a registry that this host already uses.
type Found struct {
	Origin   string // the file that names it
	Registry string // "https://registry.example"
	Note     string
}

// maxDockerConfig bounds docker's files; a real one has a few kilobytes.
const maxDockerConfig = 1 << 20

// Discover reads which registries docker on this host is set up for: the
// mirrors of its daemon and the logins of its client, of which nothing but the
// host is taken over. root is put before system paths, home before the user's.
// The error joins what could not be read; the rest is usable.
func Discover(root, home string) ([]Found, error) {
	var list []Found
	var errs []error
	read := func(name string, v any) bool {
		err := readJSON(name, v)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
		return err == nil
	}
	add := func(origin, address, note string) {
		u, err := url.Parse(withScheme(address))
		if err != nil || u.Host == "" {
			return
		}
		f := Found{Origin: origin, Registry: u.Scheme + "://" + u.Host, Note: note}
		if !slices.ContainsFunc(list, func(o Found) bool { return o.Registry == f.Registry }) {
			list = append(list, f)
		}
	}
	daemon := filepath.Join(root, "/etc/docker/daemon.json")
	var d struct {
		Mirrors []string `json:"registry-mirrors"`
	}
	if read(daemon, &d) {
		for _, m := range d.Mirrors {
			add(daemon, m, "mirror of the daemon")
		}
	}
	client := filepath.Join(home, ".docker", "config.json")
	var c struct {
		Auths   map[string]json.RawMessage `json:"auths"`
		Helpers map[string]string          `json:"credHelpers"`
	}
	if home != "" && read(client, &c) {
		var hosts []string
		for h := range c.Auths {
			hosts = append(hosts, h)
		}
		for h := range c.Helpers {
			hosts = append(hosts, h)
		}
		slices.Sort(hosts)
		for _, h := range slices.Compact(hosts) {
			add(client, h, "login not copied")
		}
	}
	return list, errors.Join(errs...)
}

func readJSON(name string, v any) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxDockerConfig+1))
	if err != nil {
		return err
	}
	if len(b) > maxDockerConfig {
		return fmt.Errorf("%s has more than %d bytes", name, maxDockerConfig)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, strippedJSON(err))
	}
	return nil
}

// strippedJSON is an error of encoding/json without the text that it met,
// which may be a secret.
func strippedJSON(err error) error {
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON, at byte %d", s.Offset)
	}
	return errors.New(strings.SplitN(err.Error(), " into ", 2)[0])
}
