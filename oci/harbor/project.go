package harbor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Info is what Harbor says of itself.
type Info struct {
	Version  string // "v2.15.2-..."
	ReadOnly bool   // nothing can be written
	Registry string // the registry's name for docker: "harbor.example"
	AuthMode string // "db_auth", "oidc_auth", ...
}

// Check finds out whether this is Harbor and the login good. Harbor shows its
// version only to who is logged in; other calls, such as the token service,
// answer a wrong password with 200.
func (c *Client) Check(ctx context.Context) (*Info, error) {
	k := call{op: "log in", path: "/systeminfo", ok: []int{http.StatusNotFound}}
	var doc struct {
		AuthMode string `json:"auth_mode"`
		Version  string `json:"harbor_version"`
		Registry string `json:"registry_url"`
		ReadOnly bool   `json:"read_only"`
	}
	r, err := c.get(ctx, k, &doc)
	cause := &Error{}
	if r != nil {
		cause.Status, cause.RequestID = r.status, clip(r.header.Get("X-Request-Id"))
	} else if e, ok := errors.AsType[*Error](err); ok {
		cause = e
	}
	no := func(code, reason string) error {
		return &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: code, Subject: c.cfg.Name + ": log in at " + c.host,
			Reason: reason, Err: cause,
		}
	}
	switch {
	case hasCode(err, CodeReply), err == nil && doc.AuthMode == "":
		return nil, no(CodeNoHarbor, "what answers there is not harbor")
	case err != nil:
		return nil, err
	case doc.Version == "" && c.cfg.User == "":
		return nil, no(CodeLogin, "harbor needs a user and a password")
	case doc.Version == "":
		return nil, no(CodeLogin, "wrong password, or no such user as "+c.cfg.User+": harbor does not show its version")
	}
	return &Info{Version: clip(doc.Version), ReadOnly: doc.ReadOnly, Registry: clip(doc.Registry), AuthMode: clip(doc.AuthMode)}, nil
}

// ProjectOptions say what a project that is made is like.
type ProjectOptions struct {
	Create bool // make the project if it is absent
	Public bool // everybody may pull
	// StorageLimit is the quota in bytes, -1 for none; 0 leaves it to
	// Harbor's setting for new projects.
	StorageLimit int64
}

// EnsureProject makes the project unless it is there. One that is there is not
// changed.
func (c *Client) EnsureProject(ctx context.Context, o ProjectOptions) error {
	r, err := c.do(ctx, call{
		op: "look for project " + c.cfg.Project, method: http.MethodHead, path: "/projects",
		query: url.Values{"project_name": {c.cfg.Project}}, ok: []int{http.StatusNotFound},
	})
	if err != nil {
		return err
	}
	switch {
	case r.status == http.StatusOK:
		return nil
	case !o.Create:
		return &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: CodeProject, Subject: c.cfg.Name + ": look for project " + c.cfg.Project + " at " + c.host,
			Reason: "there is no such project, and it is not to be made",
			Err:    &Error{Status: r.status, RequestID: clip(r.header.Get("X-Request-Id"))},
		}
	}
	return c.createProject(ctx, o)
}

func (c *Client) createProject(ctx context.Context, o ProjectOptions) error {
	type metadata struct {
		Public string `json:"public"`
	}
	in := struct {
		Name         string   `json:"project_name"`
		Metadata     metadata `json:"metadata"`
		StorageLimit int64    `json:"storage_limit,omitempty"`
	}{c.cfg.Project, metadata{strconv.FormatBool(o.Public)}, o.StorageLimit}
	r, err := c.do(ctx, call{
		op: "make project " + c.cfg.Project, method: http.MethodPost, path: "/projects", in: in,
		needs: "project:create, of a robot account of the system", ok: []int{http.StatusConflict},
	})
	if err != nil {
		return err
	}
	if r.status == http.StatusConflict || o.StorageLimit == 0 {
		return nil // somebody else made it meanwhile
	}
	// Harbor takes the limit from who may set one, and silently its own
	// setting from others.
	hard, _, err := c.Quota(ctx)
	if err == nil && hard != o.StorageLimit {
		c.note(ctx, "project %s was made with the quota %s of harbor's settings, not %s", c.cfg.Project, quotaText(hard), quotaText(o.StorageLimit))
	}
	return nil
}

func quotaText(n int64) string {
	if n < 0 {
		return "none"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// Quota answers the project's quota, -1 for none, and what is used of it.
func (c *Client) Quota(ctx context.Context) (hard, used int64, err error) {
	type resources struct {
		Storage *int64 `json:"storage"`
	}
	var doc struct {
		Quota struct {
			Hard resources `json:"hard"`
			Used resources `json:"used"`
		} `json:"quota"`
	}
	k := call{op: "read the quota of project " + c.cfg.Project, path: c.projectPath("/summary"), needs: "project:read"}
	r, err := c.get(ctx, k, &doc)
	if err != nil {
		return 0, 0, err
	}
	hard = -1 // Harbor can be set to keep no quotas
	if h := doc.Quota.Hard.Storage; h != nil && *h >= 0 {
		hard = *h
	}
	if u := doc.Quota.Used.Storage; u != nil {
		used = *u
	}
	if used < 0 {
		return 0, 0, c.senseless(k, clip(r.header.Get("X-Request-Id")), fmt.Errorf("the storage used is %d bytes", used))
	}
	return hard, used, nil
}

// CheckQuota refuses where need more bytes do not fit. Harbor counts a blob
// once a project; need is what the project's blobs lack.
func (c *Client) CheckQuota(ctx context.Context, need int64) error {
	hard, used, err := c.Quota(ctx)
	if err != nil || hard < 0 || need <= 0 || need <= hard-used {
		return err
	}
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeQuota, Subject: c.cfg.Name + ": project " + c.cfg.Project + " at " + c.host,
		Reason: fmt.Sprintf("the quota of %d bytes, of which %d are used, does not suffice", hard, used),
		Want:   fmt.Sprintf("%d bytes free", need), Got: fmt.Sprintf("%d", max(0, hard-used)),
	}
}

// id is the project's number, which labels need.
func (c *Client) id(ctx context.Context) (int64, error) {
	c.mu.Lock()
	id := c.projectID
	c.mu.Unlock()
	if id != 0 {
		return id, nil
	}
	p, err := c.project(ctx)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.projectID = p.ID
	return p.ID, nil
}

// A project as Harbor shows it.
type project struct {
	ID        int64             `json:"project_id"`
	Name      string            `json:"name"`
	Metadata  map[string]string `json:"metadata"`
	Allowlist allowlist         `json:"cve_allowlist"`
}

func (c *Client) project(ctx context.Context) (*project, error) {
	k := call{op: "read project " + c.cfg.Project, path: c.projectPath(""), needs: "project:read"}
	var p project
	r, err := c.get(ctx, k, &p)
	if err != nil {
		return nil, err
	}
	if p.ID <= 0 || p.Name != c.cfg.Project {
		return nil, c.senseless(k, clip(r.header.Get("X-Request-Id")), fmt.Errorf("it is of project %q, number %d", clip(p.Name), p.ID))
	}
	return &p, nil
}
