package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

const (
	// MaxDocument bounds one document of the API: a page of the tree has
	// 1,000 entries of some 400 bytes, a long model card's data a few MiB.
	MaxDocument = 16 << 20
	// MaxEntries bounds the files of one revision; the hub itself advises
	// below 100,000.
	MaxEntries = 500_000
	// maxPages bounds a tree whose pages are small; the hub's own need 500.
	maxPages = 10_000
	// maxEmptyPages is how many pages in a row may bring nothing.
	maxEmptyPages = 3
	// maxText bounds what of a hub's message enters ours.
	maxText = 300
	// shownRefs bounds the branches in a refusal.
	shownRefs = 12
)

// Codes of refusals.
const (
	CodeGated      = "MODELS-GATED"       // the hub wants its terms accepted first
	CodeDenied     = "MODELS-DENIED"      // the token is wrong, or may not read this
	CodeNoRepo     = "MODELS-NO-REPO"     // the hub has no such repository, or hides it
	CodeNoRevision = "MODELS-NO-REVISION" // no such branch, tag or commit
	CodeDisabled   = "MODELS-DISABLED"    // the hub has closed the repository
	CodeDocument   = "MODELS-DOCUMENT"    // a document of the API cannot be read
	CodeContent    = "MODELS-CONTENT"     // a file is not what the tree says
)

// A Client reads one hub. It may be used concurrently.
type Client struct {
	name string
	base *url.URL
	c    *fetch.Client
}

// NewClient reads the hub at endpoint through c; token, where not empty, is
// sent to the endpoint's host alone. name is the source's, for messages.
func NewClient(name, endpoint, token string, c *fetch.Client) (*Client, error) {
	base, err := url.Parse(strings.TrimSuffix(endpoint, "/"))
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("%s: %q is no address", name, fetch.Redact(endpoint))
	}
	if token != "" {
		c = c.With(func(next http.RoundTripper) http.RoundTripper {
			return &bearer{host: base.Host, token: token, next: next}
		})
	}
	return &Client{name: name, base: base, c: c}, nil
}

// bearer adds the token to requests for the hub itself.
type bearer struct {
	host, token string
	next        http.RoundTripper
}

func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == b.host {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(req)
}

// Endpoint is the hub's address.
func (c *Client) Endpoint() string { return c.base.String() }

// FileURL is where a file is asked for.
func (c *Client) FileURL(name Repo, commit, path string) string {
	return c.base.String() + "/" + name.ResolvePath(commit, path)
}

// A Commit is what a revision stands for.
type Commit struct {
	SHA string
	// Gated is "auto" or "manual" where the hub asks its users to accept
	// terms first, and empty otherwise.
	Gated string
}

// Resolve asks what commit a revision stands for.
func (c *Client) Resolve(ctx context.Context, name Repo, revision string) (*Commit, error) {
	subject := fmt.Sprintf("%s: %s@%s", c.name, name, revision)
	var doc struct {
		ID       string          `json:"id"`
		SHA      string          `json:"sha"`
		Gated    json.RawMessage `json:"gated"`
		Disabled bool            `json:"disabled"`
	}
	_, err := c.document(ctx, subject, c.base.String()+"/"+name.API()+"/revision/"+url.PathEscape(revision), &doc)
	if err != nil {
		return nil, c.explain(ctx, name, revision, err)
	}
	if !IsCommit(doc.SHA) {
		return nil, c.unreadable(subject, fmt.Errorf("sha %q is not a commit", clip(doc.SHA)))
	}
	if IsCommit(revision) && doc.SHA != revision {
		return nil, c.unreadable(subject, fmt.Errorf("the hub answers with commit %s", doc.SHA))
	}
	if doc.Disabled {
		return nil, refuse(CodeDisabled, subject, "the hub has closed the repository", nil)
	}
	out := &Commit{SHA: doc.SHA}
	switch gated := strings.Trim(string(doc.Gated), `"`); gated {
	case "auto", "manual":
		out.Gated = gated
	}
	return out, nil
}

// Tree lists the files of a commit, sorted by path and checked by
// [CheckEntries].
func (c *Client) Tree(ctx context.Context, name Repo, commit string) ([]Entry, error) {
	subject := fmt.Sprintf("%s: %s@%s", c.name, name, commit)
	next := c.base.String() + "/" + name.API() + "/tree/" + commit + "?recursive=true&expand=false"
	var entries []Entry
	seen := make(map[string]bool) // ends pages that go round in a circle
	empty := 0
	for page := 0; next != ""; page++ {
		if page >= maxPages {
			return nil, c.unreadable(subject, fmt.Errorf("the tree has over %d pages", maxPages))
		}
		var items []TreeItem
		resp, err := c.document(ctx, subject, next, &items)
		if err != nil {
			return nil, c.explain(ctx, name, commit, err)
		}
		if empty++; len(items) > 0 {
			empty = 0
		}
		if empty >= maxEmptyPages {
			return nil, c.unreadable(subject, errors.New("page after page of the tree is empty"))
		}
		for i := range items {
			if items[i].Type == "directory" {
				continue
			}
			e, err := items[i].entry()
			if err != nil {
				return nil, c.unreadable(subject, err)
			}
			if seen[e.Path] {
				return nil, c.unreadable(subject, fmt.Errorf("the tree has %q twice", clip(e.Path)))
			}
			seen[e.Path] = true
			if entries = append(entries, e); len(entries) > MaxEntries {
				return nil, c.unreadable(subject, fmt.Errorf("over %d files", MaxEntries))
			}
		}
		if next, err = c.next(resp); err != nil {
			return nil, c.unreadable(subject, err)
		}
	}
	if err := CheckEntries(entries); err != nil {
		return nil, refuseIntegrity(CodeDocument, subject, "its list of files cannot be carried", err)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return entries, nil
}

// entry reads one element; the fields are required, as the hub's own clients
// require them.
func (t *TreeItem) entry() (Entry, error) {
	e := Entry{Path: t.Path, Size: t.Size, OID: OID(t.OID)}
	if t.Type != "file" {
		return e, fmt.Errorf("%q is a %q, neither file nor directory", clip(t.Path), clip(t.Type))
	}
	if t.LFS == nil {
		return e, nil
	}
	d, err := artifact.ParseHex(t.LFS.OID)
	if err != nil {
		return e, fmt.Errorf("%q: %w", clip(t.Path), err)
	}
	if t.LFS.Size != t.Size {
		return e, fmt.Errorf("%q: %d bytes, and %d of LFS", clip(t.Path), t.Size, t.LFS.Size)
	}
	e.LFS = &LFS{SHA256: d, PointerSize: t.LFS.PointerSize}
	return e, nil
}

// next is the page that a Link header names, or nothing. It must be of the
// same hub: the token goes along.
func (c *Client) next(resp *fetch.Response) (string, error) {
	for _, header := range resp.Header.Values("Link") {
		for link := range strings.SplitSeq(header, ",") {
			target, params, ok := strings.Cut(link, ">")
			target, open := strings.CutPrefix(strings.TrimSpace(target), "<")
			if !ok || !open || !strings.Contains(strings.ReplaceAll(params, " ", ""), `rel="next"`) {
				continue
			}
			u, err := c.base.Parse(target)
			if err != nil || u.Host != c.base.Host || u.Scheme != c.base.Scheme {
				return "", errors.New("the next page of the tree is not of this hub")
			}
			return u.String(), nil
		}
	}
	return "", nil
}

// Content reads a file that git itself keeps, verified by its id. Wrong bytes
// are asked for once more.
func (c *Client) Content(ctx context.Context, name Repo, commit string, e *Entry) ([]byte, error) {
	subject := fmt.Sprintf("%s: %s@%s: %s", c.name, name, commit, e.Path)
	for again := false; ; again = true {
		resp, err := c.c.Get(ctx, c.FileURL(name, commit, e.Path), fetch.GetOptions{Limit: max(e.Size, 1)})
		if err != nil {
			return nil, c.explain(ctx, name, commit, err)
		}
		got := SumBlob(resp.Body)
		if got == e.OID && int64(len(resp.Body)) == e.Size {
			return resp.Body, nil
		}
		if again {
			r := refuseIntegrity(CodeContent, subject, "the hub sent another file than its tree names, twice", nil)
			r.Want, r.Got = fmt.Sprintf("%d bytes, git id %s", e.Size, e.OID), fmt.Sprintf("%d bytes, %s", len(resp.Body), got)
			return nil, r
		}
	}
}

// Access asks whether this account is given a commit's files, by the headers
// of one. A hub shows the list of a gated repository to everybody, and files
// that are already here under their digests are never asked for: without this
// a repository could be carried whose terms nobody accepted.
func (c *Client) Access(ctx context.Context, name Repo, commit string, entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	// One of git's own, which the hub itself answers for: an address that a
	// hub signs for an LFS file may be good for GET alone.
	e := &entries[max(0, slices.IndexFunc(entries, func(e Entry) bool { return e.LFS == nil }))]
	if _, err := c.c.Head(ctx, c.FileURL(name, commit, e.Path)); err != nil {
		return c.explain(ctx, name, commit, err)
	}
	return nil
}

// Download fetches a large file in parts, conns of them at once.
func (c *Client) Download(ctx context.Context, name Repo, commit, path string, p fetch.PartsPartial, conns int) error {
	if err := c.c.DownloadParts(ctx, c.FileURL(name, commit, path), p, conns); err != nil {
		return c.explain(ctx, name, commit, err)
	}
	return nil
}

// document reads one document of the API.
func (c *Client) document(ctx context.Context, subject, address string, v any) (*fetch.Response, error) {
	resp, err := c.c.Get(ctx, address, fetch.GetOptions{Accept: "application/json", Limit: MaxDocument})
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(resp.Body, v); err != nil {
		return nil, c.unreadable(subject, err)
	}
	return resp, nil
}

func (c *Client) unreadable(subject string, err error) error {
	return refuse(CodeDocument, subject, "the hub's answer cannot be read", err)
}

// explain says in the hub's own words why something is not to be had.
func (c *Client) explain(ctx context.Context, name Repo, revision string, err error) error {
	e, ok := errors.AsType[*fetch.Error](err)
	if !ok || e.Status == 0 {
		return err
	}
	if u, bad := url.Parse(e.URL); bad != nil || u.Host != c.base.Host {
		return err // of the server that holds the bytes, which knows nothing of accounts
	}
	subject := fmt.Sprintf("%s: %s", c.name, name)
	text := printable(e.Header.Get(HeaderErrorText))
	with := func(reason string) string {
		if text != "" {
			reason += ` (the hub says "` + text + `")`
		}
		return reason
	}
	page := c.base.String() + "/" + name.String()
	switch code := e.Header.Get(HeaderErrorCode); {
	case code == CodeGatedRepo:
		return refuse(CodeGated, subject, with("the hub gives it only to users who have accepted its terms: accept them at "+page+" with the account whose token token_file holds"), err)
	case strings.Contains(text, "disabled"):
		return refuse(CodeDisabled, subject, with("the hub has closed the repository"), err)
	case code == CodeRevisionNotFound:
		r := refuse(CodeNoRevision, subject+"@"+revision, "no such branch, tag or commit", err)
		if refs := c.refs(ctx, name); refs != "" {
			r.Reason += "; there are " + refs
		}
		return r
	case code == CodeRepoNotFound || e.Status == http.StatusNotFound && code == "":
		return refuse(CodeNoRepo, subject, with("the hub does not have it, or does not show it to this account"), err)
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return refuse(CodeDenied, subject, with("the hub refuses: token_file is missing, wrong, or of an account that may not read it"), err)
	}
	return err
}

// refs names the branches and tags that there are, for a message.
func (c *Client) refs(ctx context.Context, name Repo) string {
	var doc Refs
	if _, err := c.document(ctx, "", c.base.String()+"/"+name.API()+"/refs", &doc); err != nil {
		return ""
	}
	var names []string
	for _, r := range append(doc.Branches, doc.Tags...) {
		if CheckRevision(r.Name) == nil {
			names = append(names, r.Name)
		}
	}
	if more := len(names) - shownRefs; more > 0 {
		names = append(names[:shownRefs], strconv.Itoa(more)+" more")
	}
	return strings.Join(names, ", ")
}

// printable bounds a hub's text, and keeps it in one line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '"' {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	return strings.TrimSpace(strings.ToValidUTF8(s, "?"))
}

func refuse(code, subject, reason string, err error) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: code, Subject: subject, Reason: reason, Err: err}
}

func refuseIntegrity(code, subject, reason string, err error) *artifact.Refusal {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Subject: subject, Reason: reason, Err: err}
}
