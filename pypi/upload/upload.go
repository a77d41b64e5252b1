// Package upload publishes Python packages into an index that takes uploads,
// as twine does: Artifactory, Nexus, Pulp, pypiserver and their like.
//
// Specification: the legacy upload API of the Python package index; PEP 503
// and 691 for what is there already.
//
// Invariants:
//   - Whether a file is there is read from the index, never from the words or
//     the status of a refusal: no two servers agree on those.
//   - A file of the same name with other bytes is refused as a security event.
//   - What was taken back after its upload is looked for: the target goes on
//     offering it, and nothing is ever deleted there.
//   - After the uploads of a project the index is read again, and has to name
//     every file with its SHA-256, where it names any.
//   - A file is streamed; none is held in memory.
//   - The password goes to the target's own host and stands in no message.
package upload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// Codes of refusals.
const (
	CodeOther    = "PYPI-TARGET-OTHER"    // the target has other bytes under the name
	CodeRefused  = "PYPI-TARGET-REFUSED"  // the target did not take a file
	CodeLogin    = "PYPI-TARGET-LOGIN"    // it does not let us in
	CodeAnswer   = "PYPI-TARGET-ANSWER"   // its answers make no sense
	CodeYanked   = "PYPI-TARGET-YANKED"   // it would offer a yanked file as if it were not
	CodeWithheld = "PYPI-TARGET-WITHHELD" // it offers what must not be offered
)

const (
	// maxPage bounds an index page of the target.
	maxPage = 64 << 20
	// maxWords bounds what is quoted of a refusal.
	maxWords = 300
)

// A State is what our own index does with a file.
type State int

// States of files. Only offered ones are sent.
const (
	Offered  State = iota
	Kept           // the publication lacks it: our index has it, as yanked
	Gone           // our index has it no longer
	Withheld       // nobody must get it: a quarantine, a policy
)

// A File is one file to be published, or one that was before.
type File struct {
	Project        string // normal form
	Version        string // as the filename writes it
	Filename       string
	SHA256         artifact.Digest
	Size           int64
	RequiresPython string
	Yanked         bool
	YankedReason   string
	State          State
	Reason         string // why it is withheld
	// Metadata reads METADATA or PKG-INFO; nil if it is not known.
	Metadata func() ([]byte, error)
	Open     func() (io.ReadCloser, error)
}

// An Entry is what an index says of a file.
type Entry struct {
	SHA256         artifact.Digest // zero: not told
	RequiresPython string
	Yanked         bool
}

// A PageReader reads a project's page of the Simple API, JSON or HTML.
type PageReader func(contentType string, body []byte, base *url.URL) (map[string]Entry, error)

// AcceptPage is what a PageReader is asked to read.
const AcceptPage = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.1, text/html;q=0.01"

// A Report is what became of the files.
type Report struct {
	Uploaded, Present int
	Bytes             int64 // of what was uploaded
	Notes             []string
	// Recalled are files that our own index marks as yanked or has no longer,
	// and that the target offers like any other.
	Recalled []*File
	Left     []Left
}

// Left is a file that was not published, and why.
type Left struct {
	File *File
	Err  error
}

// Leave records a file that is not published.
func (r *Report) Leave(f *File, err error) { r.Left = append(r.Left, Left{f, err}) }

// Recall looks at what became of a file of which the target says e, and says
// whether it is one to be offered there.
func (r *Report) Recall(name string, f *File, e Entry, there bool) bool {
	if f.State != Offered && !e.SHA256.IsZero() && e.SHA256 != f.SHA256 {
		there = false // a file of their own
	}
	switch {
	case f.State == Withheld && there:
		r.Leave(f, &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: CodeWithheld, Subject: name + ": " + f.Filename,
			Reason: "the target offers it, and nobody must get it: " + f.Reason + "; delete it there",
		})
	case f.State != Withheld && there && !e.Yanked && (f.State != Offered || f.Yanked):
		r.Recalled = append(r.Recalled, f)
	}
	return f.State == Offered
}

// Config is one target.
type Config struct {
	Name           string // of the source, for messages: "pypi/main"
	Upload         string // address that takes uploads
	Simple         string // root of the target's Simple API
	User, Password string
	AllowYanked    bool // uploads yanked files, which nothing marks there
	Read           PageReader
}

// A Target takes uploads. Its methods must not run at the same time.
type Target struct {
	cfg    Config
	simple *url.URL
	http   *http.Client
}

// New makes a target. Requests obey the rules of client: hosts, certificates.
func New(c Config, client *fetch.Client) (*Target, error) {
	simple, err := url.Parse(strings.TrimSuffix(c.Simple, "/") + "/")
	if err != nil || simple.Host == "" {
		return nil, fmt.Errorf("%s: %s is no address of a simple index", c.Name, fetch.Redact(c.Simple))
	}
	if u, err := url.Parse(c.Upload); err != nil || u.Host != simple.Host {
		return nil, fmt.Errorf("%s: uploads to %s and the index at %s are of different hosts", c.Name, fetch.Redact(c.Upload), fetch.Redact(c.Simple))
	}
	return &Target{cfg: c, simple: simple, http: &http.Client{
		Transport: client.RoundTripper(),
		// A redirect would lead the login elsewhere: none is followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Publish uploads what the target lacks, project by project. What it does not
// take is in the report; an error ends the work.
func (t *Target) Publish(ctx context.Context, files []File) (*Report, error) {
	rep := &Report{}
	for project, list := range ByProject(files) {
		if err := t.project(ctx, rep, project, list); err != nil {
			return rep, err
		}
	}
	return rep, nil
}

// ByProject gives the files of each project, both sorted.
func ByProject(files []File) func(yield func(string, []*File) bool) {
	sorted := make([]*File, len(files))
	for i := range files {
		sorted[i] = &files[i]
	}
	slices.SortFunc(sorted, func(a, b *File) int {
		return cmp.Or(strings.Compare(a.Project, b.Project), strings.Compare(a.Filename, b.Filename))
	})
	return func(yield func(string, []*File) bool) {
		for i := 0; i < len(sorted); {
			j := i
			for j < len(sorted) && sorted[j].Project == sorted[i].Project {
				j++
			}
			if !yield(sorted[i].Project, sorted[i:j]) {
				return
			}
			i = j
		}
	}
}

func (t *Target) project(ctx context.Context, rep *Report, project string, files []*File) error {
	there, err := t.page(ctx, project)
	if err != nil {
		return err
	}
	var sent []*File
	for _, f := range files {
		e, ok := there[f.Filename]
		if !rep.Recall(t.cfg.Name, f, e, ok) {
			continue
		}
		switch {
		case !ok && f.Yanked && !t.cfg.AllowYanked:
			rep.Leave(f, &artifact.Refusal{
				Class: artifact.ErrUnavailable, Code: CodeYanked, Subject: t.cfg.Name + ": " + f.Filename,
				Reason: "it is yanked, and an upload cannot say so: the target would offer it like any other; allow_yanked uploads it all the same",
			})
			continue
		case ok && e.SHA256.IsZero():
			rep.Present++
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s is there; the target does not tell its hash", f.Filename))
			continue
		case ok && e.SHA256 == f.SHA256:
			rep.Present++
			continue
		case ok:
			rep.Leave(f, Other(t.cfg.Name, f, e.SHA256))
			continue
		}
		err := t.upload(ctx, f)
		if errors.Is(err, artifact.ErrUnavailable) && !isLogin(err) {
			rep.Leave(f, err)
			continue
		}
		if err != nil {
			return err
		}
		rep.Uploaded++
		rep.Bytes += f.Size
		sent = append(sent, f)
	}
	if len(sent) == 0 {
		return nil
	}
	if there, err = t.page(ctx, project); err != nil {
		return err
	}
	for _, f := range sent {
		if e, ok := there[f.Filename]; !ok {
			// Some index in the background; the next run looks again.
			rep.Notes = append(rep.Notes, fmt.Sprintf("%s was taken and is not listed yet", f.Filename))
		} else if !e.SHA256.IsZero() && e.SHA256 != f.SHA256 {
			rep.Leave(f, Other(t.cfg.Name, f, e.SHA256))
		}
	}
	return nil
}

// isLogin is an error that every further file would meet too, until the
// target locks the account.
func isLogin(err error) bool {
	r, ok := errors.AsType[*artifact.Refusal](err)
	return ok && r.Code == CodeLogin
}

// Other refuses a file that a target has with other bytes.
func Other(name string, f *File, got artifact.Digest) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: CodeOther, Subject: name + ": " + f.Filename,
		Reason: "the target has another file under this name: somebody has exchanged one of them", Want: f.SHA256.String(), Got: got.String(),
	}
}

// page reads what the target has of a project.
func (t *Target) page(ctx context.Context, project string) (map[string]Entry, error) {
	u := t.simple.JoinPath(project, "/")
	resp, err := t.do(ctx, http.MethodGet, u.String(), nil, http.Header{"Accept": {AcceptPage}})
	if err != nil {
		return nil, err
	}
	switch resp.Status {
	case http.StatusOK:
		entries, err := t.cfg.Read(resp.Header.Get("Content-Type"), resp.Body, u)
		if err != nil {
			return nil, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeAnswer, Subject: t.cfg.Name + ": " + project, Reason: "the target's page cannot be read", Err: err}
		}
		return entries, nil
	case http.StatusNotFound, http.StatusSeeOther, http.StatusFound:
		return nil, nil // some send on to the index that they would ask; there is none inside
	}
	return nil, t.refused("read the page of "+project, resp)
}

// upload sends one file.
func (t *Target) upload(ctx context.Context, f *File) error {
	form, err := NewForm(f)
	if err != nil {
		return err
	}
	resp, err := t.do(ctx, http.MethodPost, t.cfg.Upload, form, nil)
	if err != nil {
		return err
	}
	if resp.Status/100 == 2 {
		return nil
	}
	return t.refused("upload "+f.Filename, resp)
}

// refused tells what the target said.
func (t *Target) refused(op string, resp *Answer) error {
	code := CodeRefused
	if resp.Status == http.StatusUnauthorized { // 403 may be about this one file
		code = CodeLogin
	}
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: t.cfg.Name, Reason: op + ": the target says " + resp.Words()}
}

func (t *Target) do(ctx context.Context, method, address string, form *Form, header http.Header) (*Answer, error) {
	req, err := NewRequest(ctx, method, address, form, header)
	if err != nil {
		return nil, err
	}
	if t.cfg.User != "" {
		req.SetBasicAuth(t.cfg.User, t.cfg.Password)
	}
	return Do(t.http, req, t.cfg.Name)
}

// NewRequest makes a request, with a form if there is one.
func NewRequest(ctx context.Context, method, address string, form *Form, header http.Header) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: malformed address", fetch.Redact(address))
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if form != nil {
		req.Header.Set("Content-Type", form.ContentType)
		req.ContentLength, req.GetBody = form.Length, form.Open
		if req.Body, err = form.Open(); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// An Answer is what a target said.
type Answer struct {
	Status int
	Reason string // behind the status
	Header http.Header
	Body   []byte
}

// Words are the answer in one line.
func (a *Answer) Words() string {
	text := strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(a.Body[:min(len(a.Body), maxWords)]), "?"))), " ")
	if text == "" {
		return a.Reason
	}
	return a.Reason + ": " + text
}

// Do sends a request and reads the answer whole.
func Do(c *http.Client, req *http.Request, name string) (a *Answer, err error) {
	resp, err := c.Do(req) //nolint:gosec // the address is the configuration's, the transport knows its hosts
	if err != nil {
		if ctx := req.Context().Err(); ctx != nil {
			return nil, ctx
		}
		return nil, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeAnswer, Subject: name, Reason: "the target cannot be reached", Err: err}
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	a = &Answer{Status: resp.StatusCode, Reason: resp.Status, Header: resp.Header}
	a.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err == nil && len(a.Body) > maxPage {
		err = fmt.Errorf("%s: an answer of over %d bytes", name, maxPage)
	}
	return a, err
}
