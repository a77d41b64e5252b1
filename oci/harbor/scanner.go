package harbor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"

	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// uuid is how Harbor numbers scanners.
var uuid = regexp.MustCompile(`^[0-9A-Fa-f-]{8,64}$`)

// ScannerOptions say how a scanner is registered.
type ScannerOptions struct {
	Name  string // "darkmirror"
	URL   string // of the adapter, as Harbor reaches it, without /api/v1
	Token string // for the adapter
	// Default makes it the scanner of every project that has none of its
	// own; Project makes it that of this project alone.
	Default, Project bool
}

// A registration is a scanner as Harbor keeps it.
type registration struct {
	UUID      string `json:"uuid,omitempty"`
	Name      string `json:"name"`
	URL       string `json:"url"`
	Auth      string `json:"auth"`
	Token     string `json:"access_credential,omitempty"`
	Disabled  bool   `json:"disabled"`
	IsDefault bool   `json:"is_default,omitempty"`
}

// EnsureScanner registers an adapter and answers its number. Harbor asks the
// adapter for its metadata before it takes it. A scanner of that name is
// brought up to date each time, since Harbor does not show what token it has.
func (c *Client) EnsureScanner(ctx context.Context, o ScannerOptions) (string, error) {
	if u, err := url.Parse(o.URL); err != nil || u.Host == "" || u.User != nil || o.Name == "" || o.Token == "" {
		return "", fmt.Errorf("%s: scanner %q at %s: want a name, an address without a user, and a token", c.cfg.Name, o.Name, fetch.Redact(o.URL))
	}
	reg, err := c.findScanner(ctx, o)
	if err != nil {
		return "", err
	}
	if reg == nil {
		reg, err = c.createScanner(ctx, o)
	} else {
		err = c.updateScanner(ctx, o, reg)
	}
	if err != nil {
		return "", err
	}
	if o.Default && !reg.IsDefault {
		_, err = c.do(ctx, call{
			op: "make scanner " + o.Name + " the default", method: http.MethodPatch, path: "/scanners/" + reg.UUID, needs: "scanner:update of the system",
			in: struct {
				Default bool `json:"is_default"`
			}{true},
		})
	}
	if err == nil && o.Project {
		_, err = c.do(ctx, call{
			op: "set the scanner of project " + c.cfg.Project, method: http.MethodPut, path: c.projectPath("/scanner"), needs: "scanner:create",
			in: struct {
				UUID string `json:"uuid"`
			}{reg.UUID},
		})
	}
	if err != nil {
		return "", err
	}
	return reg.UUID, nil
}

// findScanner answers the registration of that name, or else of that address:
// Harbor takes each once.
func (c *Client) findScanner(ctx context.Context, o ScannerOptions) (*registration, error) {
	k := call{op: "look for scanner " + o.Name, path: "/scanners", needs: "scanner:list of the system"}
	all, err := list[registration](ctx, c, k)
	if err != nil {
		return nil, err
	}
	var same *registration
	for i, r := range all {
		if r.Name == o.Name || same == nil && r.URL == o.URL {
			same = &all[i]
		}
	}
	if same != nil && !uuid.MatchString(same.UUID) {
		return nil, c.senseless(k, "", fmt.Errorf("scanner %q has the number %q", clip(same.Name), clip(same.UUID)))
	}
	return same, nil
}

func (c *Client) createScanner(ctx context.Context, o ScannerOptions) (*registration, error) {
	k := call{
		op: "register scanner " + o.Name, method: http.MethodPost, path: "/scanners", needs: "scanner:create of the system",
		in: registration{Name: o.Name, URL: o.URL, Auth: "Bearer", Token: o.Token}, ok: []int{http.StatusConflict},
	}
	r, err := c.do(ctx, k)
	if err != nil {
		return nil, err
	}
	reg, err := c.findScanner(ctx, o) // the first of all becomes the default by itself
	if err == nil && reg == nil {
		err = c.senseless(k, clip(r.header.Get("X-Request-Id")), fmt.Errorf("the scanner %q is neither new nor there", clip(path.Base(r.header.Get("Location")))))
	}
	return reg, err
}

// updateScanner brings address and token up to date. That somebody has
// disabled it stays so.
func (c *Client) updateScanner(ctx context.Context, o ScannerOptions, reg *registration) error {
	if reg.Disabled {
		c.note(ctx, "scanner %s is disabled in harbor", reg.Name)
	}
	_, err := c.do(ctx, call{
		op: "update scanner " + reg.Name, method: http.MethodPut, path: "/scanners/" + reg.UUID, needs: "scanner:update of the system",
		in: registration{Name: reg.Name, URL: o.URL, Auth: "Bearer", Token: o.Token, Disabled: reg.Disabled},
	})
	return err
}
