package devpi

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/upload"
)

// Mirror makes the index a mirror of our own one, whose Simple API lies at
// simple, lets it read the projects anew, and compares what it shows. The
// server fetches the files when somebody asks for them, and keeps them.
func (c *Client) Mirror(ctx context.Context, simple string, files []upload.File) (*upload.Report, error) {
	have, err := c.ensure(ctx, map[string]any{"type": "mirror", "mirror_url": simple, "volatile": false})
	if err != nil {
		return nil, err
	}
	if have.Type != "mirror" || strings.TrimSuffix(have.MirrorURL, "/") != strings.TrimSuffix(simple, "/") {
		return nil, c.refuse(CodeIndex, fmt.Sprintf("it is a %s of %q, want a mirror of %s", have.Type, have.MirrorURL, simple))
	}
	rep := &upload.Report{}
	for project, list := range upload.ByProject(files) {
		a, err := c.send(ctx, http.MethodPost, "/"+c.index+"/+simple/"+project+"/refresh", nil, true)
		if err != nil {
			return rep, err
		}
		if a.Status/100 > 3 {
			return rep, c.refuse(upload.CodeRefused, "refresh of "+project+": the server says "+a.Words())
		}
		there, err := c.page(ctx, project)
		if err != nil {
			return rep, err
		}
		for _, f := range list {
			if err := c.compare(f, there); err != nil {
				rep.Leave(f, err)
				continue
			}
			rep.Present++
		}
	}
	return rep, nil
}
