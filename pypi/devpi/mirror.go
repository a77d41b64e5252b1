package devpi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
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
		if err := c.mirrored(ctx, rep, project, list); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

func (c *Client) mirrored(ctx context.Context, rep *upload.Report, project string, files []*upload.File) error {
	a, err := c.send(ctx, http.MethodPost, "/"+c.index+"/+simple/"+project+"/refresh", nil, true)
	if err != nil {
		return err
	}
	// A project of which our index has nothing left is none that it can read.
	ours := slices.ContainsFunc(files, func(f *upload.File) bool { return f.State == upload.Offered || f.State == upload.Kept })
	if a.Status/100 > 3 && ours {
		return c.refuse(upload.CodeRefused, "refresh of "+project+": the server says "+a.Words())
	}
	there, err := c.page(ctx, project)
	if err != nil {
		return err
	}
	for _, f := range files {
		e, ok := there[f.Filename]
		if f.State == upload.Withheld || f.State == upload.Gone {
			rep.Recall(c.cfg.Name, f, e, ok)
			continue
		}
		err := c.compare(f, there)
		if err == nil && e.Yanked != f.Yanked {
			err = c.refuse(CodeDiffers, fmt.Sprintf("%s: yanked there is %t, and here %t", f.Filename, e.Yanked, f.Yanked))
		}
		if err != nil {
			rep.Leave(f, err)
			continue
		}
		if f.State == upload.Offered {
			rep.Present++
		}
	}
	return nil
}
