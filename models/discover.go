package models

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Found is a hub that this host already uses.
type Found struct {
	Origin string // the variable that names it
	Hub    string // "https://hub.example"
	Note   string
}

// Discover reads which hub huggingface_hub on this host is set up for. Its own
// default is not known here: a host that never named one has none. environ is
// as os.Environ gives it, home the user's folder.
func Discover(environ []string, home string) []Found {
	get := func(name string) string {
		for _, e := range environ {
			if v, ok := strings.CutPrefix(e, name+"="); ok {
				return v
			}
		}
		return ""
	}
	endpoint := strings.TrimSuffix(get("HF_ENDPOINT"), "/")
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return nil
	}
	note := ""
	if u.User != nil {
		note = "its login is not copied"
		u.User = nil
	}
	u.RawQuery, u.Fragment = "", ""
	token := get("HF_TOKEN_PATH")
	if token == "" && home != "" {
		token = filepath.Join(home, ".cache", "huggingface", "token")
	}
	if _, err := os.Stat(token); err == nil && token != "" {
		note = strings.TrimPrefix(note+"; there is a token: token_file may name a copy that only darkmirror reads", "; ")
	}
	return []Found{{Origin: "HF_ENDPOINT", Hub: u.String(), Note: note}}
}
