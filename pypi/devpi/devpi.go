// Package devpi publishes Python packages into a DevPI server.
//
// Specification: the HTTP interface of devpi-server 6 (docs/devpi.md has what
// of it was tried). There are two ways. As a mirror ([Client.Mirror]) the
// server reads our own index and keeps everything that it can; this is the
// better one. By upload ([Client.Publish]) it loses yanks and the
// Requires-Python of single files, so what it would damage is refused before
// anything is sent.
//
// Invariants, beside those of package upload:
//   - The login is by token, once in nine hours: a password costs the server
//     a second of work each time.
//   - An index that lets files be exchanged (volatile) is refused unless that
//     is allowed; one that is made here is not.
//   - One connection, since the server writes one file at a time.
package devpi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

// Codes of refusals.
const (
	CodeIndex    = "PYPI-DEVPI-INDEX"    // the index is missing, or not as it has to be
	CodeLogin    = "PYPI-DEVPI-LOGIN"    // it does not let us in
	CodeYanked   = "PYPI-DEVPI-YANKED"   // it would offer a yanked file as if it were not
	CodeRequires = "PYPI-DEVPI-REQUIRES" // it would mix up Requires-Python
	CodeSize     = "PYPI-DEVPI-SIZE"     // larger than it takes
	CodeName     = "PYPI-DEVPI-NAME"     // it would refuse the name
	CodeDiffers  = "PYPI-DEVPI-DIFFERS"  // it shows something else than was published
)

const (
	// maxBody is what the server takes in one request unless it was told
	// otherwise (--max-request-body-size).
	maxBody = 1 << 30
	// tokenLife is how long a token is used; the server forgets it after ten
	// hours.
	tokenLife = 9 * time.Hour
)

// indexPattern is a name of DevPI's: USER/INDEX.
var indexPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}$`)

// Config is one index of one server.
type Config struct {
	Name           string // of the source, for messages: "pypi/main"
	URL            string // "https://devpi.example/site/main"
	User, Password string
	Create         bool // makes the index if it is missing
	AllowVolatile  bool
	AllowYanked    bool  // uploads yanked files, which nothing marks there
	MaxBody        int64 // 0: 1 GiB
	Read           upload.PageReader
}

// A Client speaks to one index. Its methods must not run at the same time.
type Client struct {
	cfg   Config
	root  string // "https://devpi.example"
	index string // "site/main"
	http  *http.Client
	token string
	since time.Time
	now   func() time.Time
}

// New makes a client. Requests obey the rules of client: hosts, certificates.
func New(c Config, client *fetch.Client) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s: %s is no address of an index, as https://devpi.example/site/main", c.Name, fetch.Redact(c.URL))
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	index := strings.Join(parts[max(0, len(parts)-2):], "/")
	if !indexPattern.MatchString(index) {
		return nil, fmt.Errorf("%s: %s does not end in USER/INDEX, as https://devpi.example/site/main", c.Name, fetch.Redact(c.URL))
	}
	if c.MaxBody == 0 {
		c.MaxBody = maxBody
	}
	u.Path = "/" + strings.Join(parts[:len(parts)-2], "/")
	return &Client{cfg: c, root: strings.TrimSuffix(u.String(), "/"), index: index, now: time.Now, http: &http.Client{
		Transport:     client.RoundTripper(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// indexConfig is what an index is set to.
type indexConfig struct {
	Type      string `json:"type"`
	Volatile  bool   `json:"volatile"`
	MirrorURL string `json:"mirror_url"`
}

// login gets a token, unless there is one.
func (c *Client) login(ctx context.Context) error {
	if c.token != "" && c.now().Sub(c.since) < tokenLife {
		return nil
	}
	a, err := c.send(ctx, http.MethodPost, "/+login", map[string]string{"user": c.cfg.User, "password": c.cfg.Password}, false)
	if err != nil {
		return err
	}
	var doc struct {
		Result struct {
			Password string `json:"password"`
		} `json:"result"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &doc) != nil || doc.Result.Password == "" {
		return c.refuse(CodeLogin, fmt.Sprintf("login of %s: the server says %s", c.cfg.User, a.Reason))
	}
	c.token, c.since = doc.Result.Password, c.now()
	return nil
}

func (c *Client) refuse(code, reason string) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: c.cfg.Name + ": " + c.root + "/" + c.index, Reason: reason}
}

// send sends JSON, or nothing where in is nil, with the token if there is one.
func (c *Client) send(ctx context.Context, method, path string, in any, auth bool) (*upload.Answer, error) {
	req, err := upload.NewRequest(ctx, method, c.root+path, nil, http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, err
	}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = int64(len(b))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
		if req.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	if auth {
		c.sign(req)
	}
	return upload.Do(c.http, req, c.cfg.Name)
}

func (c *Client) sign(req *http.Request) {
	req.Header.Set("X-Devpi-Auth", base64.StdEncoding.EncodeToString([]byte(c.cfg.User+":"+c.token)))
}

// settings reads how the index is set; nil if there is none.
func (c *Client) settings(ctx context.Context) (*indexConfig, error) {
	a, err := c.send(ctx, http.MethodGet, "/"+c.index, nil, true)
	if err != nil {
		return nil, err
	}
	if a.Status == http.StatusNotFound {
		return nil, nil
	}
	var doc struct {
		Result *indexConfig `json:"result"`
	}
	if a.Status != http.StatusOK || json.Unmarshal(a.Body, &doc) != nil || doc.Result == nil {
		return nil, c.refuse(CodeIndex, "the server says "+a.Reason+" where its settings were asked for")
	}
	return doc.Result, nil
}

// ensure makes the index if it is missing and may be made.
func (c *Client) ensure(ctx context.Context, want map[string]any) (*indexConfig, error) {
	if err := c.login(ctx); err != nil {
		return nil, err
	}
	have, err := c.settings(ctx)
	if have != nil || err != nil {
		return have, err
	}
	if !c.cfg.Create {
		return nil, c.refuse(CodeIndex, "there is no such index; make it, or let it be made (create)")
	}
	a, err := c.send(ctx, http.MethodPut, "/"+c.index, want, true)
	if err != nil {
		return nil, err
	}
	if a.Status != http.StatusOK && a.Status != http.StatusConflict {
		return nil, c.refuse(CodeIndex, "it cannot be made: the server says "+a.Words())
	}
	if have, err = c.settings(ctx); err == nil && have == nil {
		err = c.refuse(CodeIndex, "it was made and is not there")
	}
	return have, err
}

// Publish uploads what the index lacks, project by project. What the server
// would damage or not take is in the report; an error ends the work.
func (c *Client) Publish(ctx context.Context, files []upload.File) (*upload.Report, error) {
	have, err := c.ensure(ctx, map[string]any{"type": "stage", "volatile": false, "bases": []string{}, "acl_upload": []string{c.cfg.User}})
	if err != nil {
		return nil, err
	}
	switch {
	case have.Type != "stage":
		return nil, c.refuse(CodeIndex, "it is a "+have.Type+", which takes no uploads")
	case have.Volatile && !c.cfg.AllowVolatile:
		return nil, c.refuse(CodeIndex, "it is volatile: it would let anybody who may upload exchange files. Set volatile=False on it, or allow_volatile here")
	}
	rep := &upload.Report{}
	for project, list := range upload.ByProject(files) {
		if err := c.project(ctx, rep, project, list); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

func (c *Client) project(ctx context.Context, rep *upload.Report, project string, files []*upload.File) error {
	there, err := c.page(ctx, project)
	if err != nil {
		return err
	}
	var want []*upload.File
	sent := false
	for _, f := range files {
		e, ok := there[f.Filename]
		if !rep.Recall(c.cfg.Name, f, e, ok) {
			continue
		}
		if ok {
			if e.SHA256 != f.SHA256 {
				rep.Leave(f, upload.Other(c.cfg.Name, f, e.SHA256))
				continue
			}
			rep.Present++
			want = append(want, f)
			continue
		}
		if err := c.damage(f, files, there); err != nil {
			rep.Leave(f, err)
			continue
		}
		sent = true
		err := c.upload(ctx, f)
		if errors.Is(err, errTaken) {
			want = append(want, f) // the page tells below what is there
			continue
		}
		if err != nil && errors.Is(err, artifact.ErrUnavailable) && ctx.Err() == nil && !isLogin(err) {
			rep.Leave(f, err)
			continue
		}
		if err != nil {
			return err
		}
		rep.Uploaded++
		rep.Bytes += f.Size
		want = append(want, f)
	}
	if sent {
		if there, err = c.page(ctx, project); err != nil {
			return err
		}
	}
	for _, f := range want {
		if err := c.compare(f, there); err != nil {
			rep.Leave(f, err)
		}
	}
	return nil
}

func isLogin(err error) bool {
	r, ok := errors.AsType[*artifact.Refusal](err)
	return ok && r.Code == CodeLogin
}

// damage says what the server would do wrong with a file.
func (c *Client) damage(f *upload.File, all []*upload.File, there map[string]upload.Entry) error {
	file := func(code, reason string) error {
		return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: c.cfg.Name + ": " + f.Filename, Reason: reason}
	}
	if f.Yanked && !c.cfg.AllowYanked {
		return file(CodeYanked, "it is yanked, and an index of DevPI would offer it as if it were not; a mirror index keeps the mark, allow_yanked uploads it all the same")
	}
	mixed := func(other, requires string) error {
		return file(CodeRequires, fmt.Sprintf("it requires Python %q, and %s of the same version %q: DevPI keeps one for a version; a mirror index keeps both", f.RequiresPython, other, requires))
	}
	for _, o := range all {
		if o.Version == f.Version && o.RequiresPython != f.RequiresPython && o.State == upload.Offered && (c.cfg.AllowYanked || !o.Yanked) {
			return mixed(o.Filename, o.RequiresPython)
		}
	}
	// What came with another bundle, or from somebody else.
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if _, v, err := packaging.ParseDistName(name); err == nil && v.Text() == f.Version && there[name].RequiresPython != f.RequiresPython {
			return mixed(name+", which is there,", there[name].RequiresPython)
		}
	}
	for _, r := range f.Filename {
		if r < '!' || r > '~' {
			return file(CodeName, "DevPI refuses names that are not plain ASCII")
		}
	}
	if !strings.Contains(f.Filename, f.Version) || strings.HasSuffix(f.Filename, ".tar.xz") {
		return file(CodeName, "DevPI refuses the name")
	}
	form, err := upload.NewForm(f)
	if err != nil {
		return file(CodeName, err.Error())
	}
	if form.Length > c.cfg.MaxBody {
		return file(CodeSize, fmt.Sprintf("its upload has %d bytes, the server takes %d (--max-request-body-size there, max_body here)", form.Length, c.cfg.MaxBody))
	}
	return nil
}

// errTaken is a server that has a file of that name.
var errTaken = errors.New("the server has a file of that name")

// upload sends one file, with a new token if the old one is not taken.
func (c *Client) upload(ctx context.Context, f *upload.File) error {
	form, err := upload.NewForm(f)
	if err != nil {
		return err
	}
	for again := false; ; again = true {
		if err := c.login(ctx); err != nil {
			return err
		}
		req, err := upload.NewRequest(ctx, http.MethodPost, c.root+"/"+c.index+"/", form, nil)
		if err != nil {
			return err
		}
		c.sign(req)
		a, err := upload.Do(c.http, req, c.cfg.Name)
		if err != nil {
			return err
		}
		switch {
		case a.Status == http.StatusOK:
			return nil
		case a.Status == http.StatusConflict:
			return errTaken
		case a.Status == http.StatusUnauthorized && !again:
			c.token = ""
		case a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden:
			return c.refuse(CodeLogin, fmt.Sprintf("user %s may not upload: the server says %s", c.cfg.User, a.Words()))
		case a.Status == http.StatusRequestEntityTooLarge:
			return c.refuse(CodeSize, f.Filename+" is larger than the server takes (--max-request-body-size there)")
		default:
			return c.refuse(upload.CodeRefused, f.Filename+": the server says "+a.Words())
		}
	}
}

// page reads what the index has of a project.
func (c *Client) page(ctx context.Context, project string) (map[string]upload.Entry, error) {
	if err := c.login(ctx); err != nil { // the token may have grown old meanwhile
		return nil, err
	}
	u, err := url.Parse(c.root + "/" + c.index + "/+simple/" + project + "/")
	if err != nil {
		return nil, err
	}
	req, err := upload.NewRequest(ctx, http.MethodGet, u.String(), nil, http.Header{"Accept": {upload.AcceptPage}})
	if err != nil {
		return nil, err
	}
	c.sign(req)
	a, err := upload.Do(c.http, req, c.cfg.Name)
	switch {
	case err != nil:
		return nil, err
	case a.Status == http.StatusNotFound:
		return nil, nil
	case a.Status != http.StatusOK:
		return nil, c.refuse(upload.CodeAnswer, "page of "+project+": the server says "+a.Words())
	}
	entries, err := c.cfg.Read(a.Header.Get("Content-Type"), a.Body, u)
	if err != nil {
		r := c.refuse(upload.CodeAnswer, "the page of "+project+" cannot be read")
		r.Err = err
		return nil, r
	}
	return entries, nil
}

// compare holds what the index shows against what was published.
func (c *Client) compare(f *upload.File, there map[string]upload.Entry) error {
	e, ok := there[f.Filename]
	if !ok {
		return c.refuse(CodeDiffers, f.Filename+" is not listed")
	}
	if e.SHA256 != f.SHA256 {
		return upload.Other(c.cfg.Name, f, e.SHA256)
	}
	if e.RequiresPython != f.RequiresPython {
		return c.refuse(CodeDiffers, fmt.Sprintf("%s requires Python %q there, and %q here: a mirror index keeps what each file says", f.Filename, e.RequiresPython, f.RequiresPython))
	}
	return nil
}
