package harbor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

const (
	// maxReply bounds a reply. The largest that we ask for is an artifact with
	// all its tags, about 300 bytes each.
	maxReply = 8 << 20
	// maxProject is Harbor's own bound of a project's name.
	maxProject = 255
	// pageSize is the most that Harbor gives at once, and maxPages bounds a
	// list: ten thousand labels or rules are nobody's.
	pageSize = 100
	maxPages = 100
)

// projectName is Harbor's own rule for names of projects.
var projectName = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// Config is one project of one Harbor.
type Config struct {
	Name    string // of the source, for messages: "oci/platform"
	URL     string // "https://harbor.example", without a path
	Project string
	// User is a robot account, "robot$importer", or a user. The password is
	// sent to URL's host and to no other.
	User, Password string
	Log            *slog.Logger // nil discards
}

// A Client speaks to one project. It may be used concurrently.
type Client struct {
	cfg  Config
	host string
	http *http.Client
	log  *slog.Logger

	mu        sync.Mutex
	notes     []string
	projectID int64 // once it is known
}

// New makes a client. Requests obey the rules of client: hosts, certificates,
// and retries of what only reads.
func New(c Config, client *fetch.Client) (*Client, error) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%s: %s is no address, as https://harbor.example", c.Name, fetch.Redact(c.URL))
	case u.User != nil:
		return nil, fmt.Errorf("%s: credentials do not belong into the address of harbor", c.Name)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%s: the address of harbor has neither path nor query (got %s)", c.Name, fetch.Redact(c.URL))
	case len(c.Project) > maxProject || !projectName.MatchString(c.Project):
		return nil, fmt.Errorf("%s: %q cannot be a project: want lower-case words joined by . _ or -", c.Name, c.Project)
	}
	c.URL = u.Scheme + "://" + u.Host
	cl := &Client{cfg: c, host: u.Host, log: c.Log}
	if cl.log == nil {
		cl.log = slog.New(slog.DiscardHandler)
	}
	// A session cookie would make Harbor ask for CSRF tokens: there is no jar.
	// A redirect would lead the login elsewhere: none is followed.
	cl.http = &http.Client{
		Transport:     client.RoundTripper(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return cl, nil
}

// Project is the project's name.
func (c *Client) Project() string { return c.cfg.Project }

// Notes are lines for the operator since the last call: what was left undone
// or stays to be done by hand, and is no error.
func (c *Client) Notes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	notes := c.notes
	c.notes = nil
	return notes
}

func (c *Client) note(ctx context.Context, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.log.LogAttrs(ctx, slog.LevelWarn, "harbor", slog.String("source", c.cfg.Name), slog.String("note", text))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, text)
}

// A call is one request.
type call struct {
	op     string // for people: "read project platform"
	kind   string // OpPush and its like for a registry's answer; empty for the API's
	method string
	path   string // escaped, below /api/v2.0
	query  url.Values
	accept string // X-Accept-Vulnerabilities
	in     any    // encoded as JSON unless nil
	needs  string // the permission, for an answer of 403
	ok     []int  // statuses besides 200 and 201 that are no error
}

func (k call) wants() string {
	if k.needs == "" {
		return ""
	}
	return ": " + k.needs
}

// A reply is an answer whose status was wanted.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do sends a request and reads the answer.
func (c *Client) do(ctx context.Context, k call) (*reply, error) {
	req, err := c.request(ctx, k)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(ctx, k, 0, "", err)
	}
	defer func() { _ = resp.Body.Close() }() // only read
	id := clip(resp.Header.Get("X-Request-Id"))
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, c.failed(ctx, k, resp.StatusCode, id, err)
	}
	if len(body) > maxReply {
		return nil, c.senseless(k, id, fmt.Errorf("the reply is larger than %d bytes", maxReply))
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, &Error{
			Source: c.cfg.Name, Op: k.op, Host: c.host, Status: resp.StatusCode, RequestID: id,
			Message: "redirects are not followed; the configured address must be where this leads: " + clip(fetch.Redact(resp.Header.Get("Location"))),
		}
	}
	if s := resp.StatusCode; s != http.StatusOK && s != http.StatusCreated && !slices.Contains(k.ok, s) {
		code, message := parseErrors(body)
		return nil, c.explain(k, s, code, message, id)
	}
	return &reply{status: resp.StatusCode, header: resp.Header, body: body}, nil
}

func (c *Client) request(ctx context.Context, k call) (*http.Request, error) {
	target := c.cfg.URL + "/api/v2.0" + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	var body io.Reader
	if k.in != nil {
		b, err := json.Marshal(k.in)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", c.cfg.Name, k.op, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", c.cfg.Name, k.op, err)
	}
	req.Header.Set("Accept", "application/json")
	if k.in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if k.accept != "" {
		req.Header.Set("X-Accept-Vulnerabilities", k.accept)
	}
	if c.cfg.User != "" {
		req.SetBasicAuth(c.cfg.User, c.cfg.Password)
	}
	return req, nil
}

// failed is a request without a whole answer.
func (c *Client) failed(ctx context.Context, k call, status int, id string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %s: %w", c.cfg.Name, k.op, ctx.Err())
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // which has the address once more
	}
	return &Error{Source: c.cfg.Name, Op: k.op, Host: c.host, Status: status, RequestID: id, Err: err}
}

// senseless is an answer that cannot be used.
func (c *Client) senseless(k call, id string, err error) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: CodeReply, Subject: c.cfg.Name + ": " + k.op + " at " + c.host,
		Reason: "the reply makes no sense", Err: &Error{RequestID: id, Message: clip(err.Error())},
	}
}

// get reads a document.
func (c *Client) get(ctx context.Context, k call, into any) (*reply, error) {
	k.method = http.MethodGet
	r, err := c.do(ctx, k)
	if err != nil {
		return nil, err
	}
	if r.status != http.StatusOK {
		return r, nil // a status that the caller asked to see
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		return nil, c.senseless(k, clip(r.header.Get("X-Request-Id")), err)
	}
	return r, nil
}

// list reads all pages of a list.
func list[T any](ctx context.Context, c *Client, k call) ([]T, error) {
	query := url.Values{}
	for key, v := range k.query {
		query[key] = v
	}
	query.Set("page_size", strconv.Itoa(pageSize))
	k.query = query
	var all []T
	for page := 1; page <= maxPages; page++ {
		query.Set("page", strconv.Itoa(page))
		var some []T
		if _, err := c.get(ctx, k, &some); err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) < pageSize {
			return all, nil
		}
	}
	return nil, c.senseless(k, "", fmt.Errorf("more than %d pages", maxPages))
}

// projectPath is the path of the project, with what follows.
func (c *Client) projectPath(rest string) string {
	return "/projects/" + url.PathEscape(c.cfg.Project) + rest
}

// artifactPath is the path of an artifact. repo is the repository's full name
// in the registry, the project included. Slashes in names are escaped twice:
// Harbor asks for that, because proxies before it undo an escape.
func (c *Client) artifactPath(repo, ref, rest string) (string, error) {
	name, ok := strings.CutPrefix(repo, c.cfg.Project+"/")
	if !ok || name == "" {
		return "", fmt.Errorf("%s: %q is no repository of project %s", c.cfg.Name, repo, c.cfg.Project)
	}
	if ref == "" || strings.ContainsAny(ref, "/?#%") {
		return "", fmt.Errorf("%s: %q is neither tag nor digest", c.cfg.Name, ref)
	}
	return c.projectPath("/repositories/" + url.PathEscape(url.PathEscape(name)) + "/artifacts/" + url.PathEscape(ref) + rest), nil
}
