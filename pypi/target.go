package pypi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/devpi"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

// DevPIConfig is an index of a DevPI server inside.
type DevPIConfig struct {
	// Index is its address, "https://devpi.example/site/main".
	Index string `yaml:"index"`
	// MirrorOf is the address of our own Simple API, as the DevPI server
	// reaches it, "https://inside.example/pypi/main/simple/": then the index is
	// a mirror of it, which keeps what uploads would lose. Empty uploads.
	MirrorOf string `yaml:"mirror_of,omitempty"`
	Access   `yaml:",inline"`
	// Create makes the index if it is missing.
	Create bool `yaml:"create,omitempty"`
	// AllowVolatile takes an index that lets files be exchanged.
	AllowVolatile bool `yaml:"allow_volatile,omitempty"`
	// AllowYanked uploads yanked files, which nothing marks there.
	AllowYanked bool `yaml:"allow_yanked,omitempty"`
	// MaxBody is what the server takes in one request, in bytes; 0 is 1 GiB.
	MaxBody int64 `yaml:"max_body,omitempty"`
}

// UploadConfig is an index inside that takes uploads as twine makes them:
// Artifactory, Nexus, Pulp, pypiserver.
type UploadConfig struct {
	URL    string `yaml:"url"`    // where uploads go
	Simple string `yaml:"simple"` // its Simple API, on the same host
	Access `yaml:",inline"`
	// AllowYanked uploads yanked files, which nothing marks there.
	AllowYanked bool `yaml:"allow_yanked,omitempty"`
}

// Access is how a target is reached.
type Access struct {
	User         string `yaml:"user,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	AllowHTTP    bool   `yaml:"allow_http,omitempty"`
	CAFile       string `yaml:"ca_file,omitempty"`
}

func (c *PublishConfig) validateTargets(add func(string, string, ...any)) {
	if c.DevPI != nil && c.Upload != nil {
		add("upload", "devpi is set already; a source has one target")
	}
	if d := c.DevPI; d != nil {
		if err := checkIndex(d.Index, d.AllowHTTP); err != nil {
			add("devpi.index", "%w", err)
		}
		if d.MirrorOf != "" {
			if err := checkIndex(d.MirrorOf, true); err != nil {
				add("devpi.mirror_of", "%w", err)
			}
		}
		if d.User == "" {
			add("devpi.user", "missing: who uploads?")
		}
		checkAccess("devpi.", nil, d.User, d.PasswordFile, add)
		if d.MaxBody < 0 {
			add("devpi.max_body", "%d bytes", d.MaxBody)
		}
	}
	if u := c.Upload; u != nil {
		for field, address := range map[string]string{"upload.url": u.URL, "upload.simple": u.Simple} {
			if err := checkIndex(address, u.AllowHTTP); err != nil {
				add(field, "%w", err)
			}
		}
		checkAccess("upload.", nil, u.User, u.PasswordFile, add)
	}
}

// Target is the address of the target, empty if there is none, and what its
// client needs.
func (c *PublishConfig) Target(name string) (address string, fc fetch.Config) {
	switch {
	case c.DevPI != nil:
		return c.DevPI.Index, fetch.Config{Name: name, AllowHTTP: c.DevPI.AllowHTTP, CAFile: c.DevPI.CAFile}
	case c.Upload != nil:
		return c.Upload.URL, fetch.Config{Name: name, AllowHTTP: c.Upload.AllowHTTP, CAFile: c.Upload.CAFile}
	}
	return "", fetch.Config{}
}

// target publishes into another server.
type target interface {
	publish(ctx context.Context, files []upload.File) (*upload.Report, error)
}

type (
	devpiTarget struct {
		c      *devpi.Client
		mirror string
	}
	uploadTarget struct{ t *upload.Target }
)

func (t devpiTarget) publish(ctx context.Context, files []upload.File) (*upload.Report, error) {
	if t.mirror != "" {
		return t.c.Mirror(ctx, t.mirror, files)
	}
	return t.c.Publish(ctx, files)
}

func (t uploadTarget) publish(ctx context.Context, files []upload.File) (*upload.Report, error) {
	return t.t.Publish(ctx, files)
}

// UseTarget makes Publish write into the target of the configuration too.
func (p *Publisher) UseTarget(cfg PublishConfig, client *fetch.Client) error {
	switch {
	case cfg.DevPI != nil:
		d := cfg.DevPI
		password, err := readPassword(d.PasswordFile)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		c, err := devpi.New(devpi.Config{
			Name: p.name, URL: d.Index, User: d.User, Password: password, Create: d.Create,
			AllowVolatile: d.AllowVolatile, AllowYanked: d.AllowYanked, MaxBody: d.MaxBody, Read: readEntries,
		}, client)
		if err != nil {
			return err
		}
		p.target, p.targetName = devpiTarget{c, d.MirrorOf}, "devpi "+strings.TrimSuffix(d.Index, "/")
	case cfg.Upload != nil:
		u := cfg.Upload
		password, err := readPassword(u.PasswordFile)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		t, err := upload.New(upload.Config{Name: p.name, Upload: u.URL, Simple: u.Simple, User: u.User, Password: password, AllowYanked: u.AllowYanked, Read: readEntries}, client)
		if err != nil {
			return err
		}
		p.target, p.targetName = uploadTarget{t}, strings.TrimSuffix(u.URL, "/")
	}
	return nil
}

func readPassword(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// readEntries is how targets' pages are read: as strictly as an index outside.
func readEntries(contentType string, body []byte, base *url.URL) (map[string]upload.Entry, error) {
	pg, err := parsePage(contentType, body, base, func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	out := make(map[string]upload.Entry, len(pg.Files))
	for i := range pg.Files {
		f := &pg.Files[i]
		out[f.Filename] = upload.Entry{SHA256: f.Digest, RequiresPython: f.RequiresPython, Yanked: f.Yanked}
	}
	return out, nil
}

// push publishes what is current into the target. It returns a line for the
// operator, and an *artifact.Incomplete for what the target did not take.
func (p *Publisher) push(ctx context.Context, cur *current) (string, error) {
	if p.target == nil {
		return "", nil
	}
	files, err := p.targetFiles(cur)
	if err != nil {
		return "", err
	}
	rep, err := p.target.publish(ctx, files)
	if err != nil {
		return "", err
	}
	for _, n := range rep.Notes {
		p.log.InfoContext(ctx, "target", slog.String("source", p.name), slog.String("note", n))
	}
	text := fmt.Sprintf("; %s: %d files new, %d there", p.targetName, rep.Uploaded, rep.Present)
	for _, f := range rep.Recalled {
		p.log.WarnContext(ctx, "the target offers what was taken back here", slog.String("source", p.name), slog.String("target", p.targetName),
			slog.String("artifact", f.Filename), slog.String("reason", cmp.Or(f.YankedReason, f.Reason)))
	}
	if n := len(rep.Recalled); n > 0 {
		text += fmt.Sprintf(", %d taken back here and still offered there", n)
	}
	if len(rep.Left) == 0 {
		return text, nil
	}
	lost := &artifact.Incomplete{}
	var security []error
	for _, l := range rep.Left {
		if errors.Is(l.Err, artifact.ErrIntegrity) {
			security = append(security, l.Err)
		}
		lost.Items = append(lost.Items, artifact.Lost{Name: l.File.Project, Version: l.File.Version, Err: l.Err})
	}
	if len(security) > 0 {
		return text, joinSome(security)
	}
	return text, lost
}

// targetFiles are the files of a publication, and those that were taken back.
func (p *Publisher) targetFiles(cur *current) ([]upload.File, error) {
	var files []upload.File
	now := make(map[string]bool)
	for i := range cur.Projects {
		pr := &cur.Projects[i]
		for j := range pr.Files {
			u, err := p.uploadFile(pr.Name, &pr.Files[j])
			if err != nil {
				return nil, err
			}
			if pr.Status == quarantined {
				u.State, u.Reason = upload.Withheld, "its project is in quarantine: "+cmp.Or(pr.StatusReason, "no reason given")
			}
			files, now[u.Filename] = append(files, u), true
		}
	}
	past, err := p.revocations()
	if err != nil {
		return nil, err
	}
	for _, r := range slices.Backward(past) {
		if r.Filename == "" || now[r.Filename] {
			continue
		}
		now[r.Filename] = true // a later line holds
		_, v, err := packaging.ParseDistName(r.Filename)
		if err != nil {
			continue // a damaged line
		}
		u := upload.File{Project: r.Project, Version: v.Text(), Filename: r.Filename, State: upload.Gone, Reason: r.Reason}
		if u.SHA256, err = artifact.ParseHex(r.SHA256); err != nil {
			continue
		}
		if r.Action == actHidden {
			u.State = upload.Withheld
		}
		files = append(files, u)
	}
	return files, nil
}

func (p *Publisher) uploadFile(project string, f *currentFile) (upload.File, error) {
	_, v, err := packaging.ParseDistName(f.File.Filename)
	if err != nil {
		return upload.File{}, err
	}
	u := upload.File{
		Project: project, Version: v.Text(), Filename: f.File.Filename, SHA256: f.File.SHA256, Size: f.File.Size, RequiresPython: f.File.RequiresPython,
		Yanked: f.File.Yanked, YankedReason: f.File.YankedReason,
		Open: func() (io.ReadCloser, error) { return p.store.Open(f.File.SHA256) },
	}
	if f.Kept > 0 {
		u.State = upload.Kept // it was sent when it was new
	}
	if f.Metadata != "" {
		d, err := artifact.ParseDigest(f.Metadata)
		if err != nil {
			return u, err
		}
		u.Metadata = func() ([]byte, error) { return p.store.ReadAll(d, packaging.MaxMetadata) }
	}
	return u, nil
}
