package harbor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
)

// A Label is a word in colour that artifacts of the project can bear.
type Label struct {
	ID          int64  `json:"id,omitempty"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Color       string `json:"color"` // "#48960C"
	Scope       string `json:"scope,omitempty"`
	ProjectID   int64  `json:"project_id,omitempty"`
}

// EnsureLabel makes a label of the project unless one of that name is there,
// and answers its number. One that is there is not changed.
func (c *Client) EnsureLabel(ctx context.Context, l Label) (int64, error) {
	if l.Name == "" {
		return 0, fmt.Errorf("%s: a label needs a name", c.cfg.Name)
	}
	id, err := c.findLabel(ctx, l.Name)
	if err != nil || id != 0 {
		return id, err
	}
	if l.ProjectID, err = c.id(ctx); err != nil {
		return 0, err
	}
	l.ID, l.Scope = 0, "p"
	k := call{
		op: fmt.Sprintf("make label %q", l.Name), method: http.MethodPost, path: "/labels", in: l,
		needs: "label:create", ok: []int{http.StatusConflict},
	}
	r, err := c.do(ctx, k)
	if err != nil {
		return 0, err
	}
	if id, err := strconv.ParseInt(path.Base(r.header.Get("Location")), 10, 64); err == nil && r.status == http.StatusCreated && id > 0 {
		return id, nil
	}
	// Somebody else made it meanwhile, or a proxy has taken the header away.
	id, err = c.findLabel(ctx, l.Name)
	if err == nil && id == 0 {
		err = c.senseless(k, clip(r.header.Get("X-Request-Id")), fmt.Errorf("the label is neither new nor there"))
	}
	return id, err
}

// findLabel answers the number of the project's label of that name, or 0.
func (c *Client) findLabel(ctx context.Context, name string) (int64, error) {
	project, err := c.id(ctx)
	if err != nil {
		return 0, err
	}
	all, err := list[Label](ctx, c, call{
		op: fmt.Sprintf("look for label %q", name), path: "/labels", needs: "label:list",
		// The name is a filter of parts of names, hence the comparison below.
		query: url.Values{"scope": {"p"}, "project_id": {strconv.FormatInt(project, 10)}, "name": {name}},
	})
	if err != nil {
		return 0, err
	}
	for _, l := range all {
		if l.Name == name && l.ID > 0 {
			return l.ID, nil
		}
	}
	return 0, nil
}

// AddLabel gives an artifact a label. That it has it already is no error.
func (c *Client) AddLabel(ctx context.Context, repo, digest string, label int64) error {
	at, err := c.artifactPath(repo, digest, "/labels")
	if err != nil {
		return err
	}
	_, err = c.do(ctx, call{
		op: "label " + join(repo, digest), method: http.MethodPost, path: at, needs: "artifact-label:create",
		in: struct {
			ID int64 `json:"id"`
		}{label},
		ok: []int{http.StatusConflict},
	})
	return err
}
