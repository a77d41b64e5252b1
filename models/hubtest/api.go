package hubtest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	typeJSON = "application/json; charset=utf-8"
	typeText = "text/plain; charset=utf-8"
	// hubTime is how the hub writes times.
	hubTime = "2006-01-02T15:04:05.000Z"
)

func sendJSON(w http.ResponseWriter, status int, doc any) {
	b, err := json.Marshal(doc)
	must(err)
	sendBody(w, status, typeJSON, b)
}

func sendBody(w http.ResponseWriter, status int, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // #nosec G705 -- JSON; a client that went away is its own affair
}

// segments are the parts of a path, decoded one by one: a revision may hold an
// encoded slash.
func segments(q *http.Request) []string {
	parts := strings.Split(strings.Trim(q.URL.EscapedPath(), "/"), "/")
	for i, p := range parts {
		if s, err := url.PathUnescape(p); err == nil {
			parts[i] = s
		}
	}
	return parts
}

// serveHub answers on the hub's own host.
func (h *Hub) serveHub(w http.ResponseWriter, q *http.Request) {
	if h.refused(OnHub, w) {
		return
	}
	parts := segments(q)
	isAPI := parts[0] == "api"
	if isAPI && len(parts) > 1 && h.serveAlways(w, q, parts) {
		return
	}
	switch {
	case isAPI && len(parts) > 1 && parts[1] == "resolve-cache":
		// A resolver's second half is not counted against any limit.
	case slices.Contains(parts, "resolve"):
		if !h.allow(w, q, "resolvers", h.opts.Limit.Resolve) {
			return
		}
	case isAPI:
		if !h.allow(w, q, "api", h.opts.Limit.API) {
			return
		}
	}
	user, ok := h.user(w, q)
	if !ok {
		return
	}
	if isAPI {
		h.serveAPI(w, q, parts[1:], user)
		return
	}
	h.serveFile(w, q, parts, user)
}

// serveAlways answers what a client asks for beside its work.
func (h *Hub) serveAlways(w http.ResponseWriter, _ *http.Request, parts []string) bool {
	switch parts[1] {
	case "agent-harnesses":
		sendJSON(w, http.StatusOK, map[string]any{"standardEnvVars": []any{}, "harnesses": map[string]any{}})
	case "telemetry":
		w.WriteHeader(http.StatusOK)
	default:
		return false
	}
	return true
}

// actions are what can follow a repository's name below the API; names are of
// one part or of two.
var actions = []string{"revision", "refs", "commits", "tree", "paths-info", "xet-read-token", "resolve"}

func (h *Hub) serveAPI(w http.ResponseWriter, q *http.Request, parts []string, user string) {
	if len(parts) == 0 {
		notHere(w)
		return
	}
	switch kind := parts[0]; {
	case kind == "whoami-v2":
		h.whoami(w, user)
	case kind == "resolve-cache" && len(parts) > 1:
		h.serveCache(w, q, parts[1:], user)
	case (kind == models || kind == datasets) && len(parts) == 1:
		h.search(w, q, kind, user)
	case kind == models || kind == datasets:
		id, rest := parts[1], parts[2:]
		if len(rest) > 0 && !slices.Contains(actions, rest[0]) {
			id, rest = id+"/"+rest[0], rest[1:]
		}
		h.serveRepo(w, q, kind, id, rest, user)
	default:
		notHere(w)
	}
}

func notHere(w http.ResponseWriter) {
	fail(w, http.StatusNotFound, "", "Sorry, we can't find the page you are looking for.")
}

func (h *Hub) whoami(w http.ResponseWriter, user string) {
	if user == "" {
		fail(w, http.StatusUnauthorized, "", "Invalid username or password.")
		return
	}
	sendJSON(w, http.StatusOK, map[string]any{
		"type": "user", "id": gitID("blob", []byte(user))[:24], "name": user, "fullname": user, "isPro": false, "orgs": []any{},
		"auth": map[string]any{"type": "access_token", "accessToken": map[string]any{"displayName": "test", "role": "read"}},
	})
}

// lookup is the repository, or nil where the reply has gone out. The hub's
// lock is held.
func (h *Hub) lookup(w http.ResponseWriter, q *http.Request, kind, id, user string) *Repo {
	name := id
	if kind == datasets {
		name = datasets + "/" + id
	}
	if r := h.repos[name]; r != nil {
		return r
	}
	if to := h.repos[h.aliases[name]]; to != nil {
		where := strings.Replace(q.URL.EscapedPath(), id, to.id, 1)
		if q.URL.RawQuery != "" {
			where += "?" + q.URL.RawQuery
		}
		w.Header().Set("Location", where)
		sendBody(w, http.StatusTemporaryRedirect, typeText, []byte("Temporary Redirect. Redirecting to "+where))
		return nil
	}
	noRepo(w, user)
	return nil
}

// A held reply is written under the hub's lock and sent without it: a client
// that does not read must not stop the others.
type held struct {
	http.ResponseWriter
	status int
	body   []byte
}

// WriteHeader keeps the status.
func (w *held) WriteHeader(status int) { w.status = status }

// Write keeps the body.
func (w *held) Write(p []byte) (int, error) {
	w.body = append(w.body, p...)
	return len(p), nil
}

func (w *held) send() {
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = w.ResponseWriter.Write(w.body) // a client that went away is its own affair
}

func (h *Hub) serveRepo(w http.ResponseWriter, q *http.Request, kind, id string, rest []string, user string) {
	reply := &held{ResponseWriter: w}
	h.mu.Lock()
	h.answer(reply, q, kind, id, rest, user)
	h.mu.Unlock()
	reply.send()
}

// answer is all that the API says of one repository. The hub's lock is held.
func (h *Hub) answer(w http.ResponseWriter, q *http.Request, kind, id string, rest []string, user string) {
	r := h.lookup(w, q, kind, id, user)
	if r == nil {
		return
	}
	action, revision := "", "HEAD"
	if len(rest) > 0 {
		action = rest[0]
	}
	if len(rest) > 1 {
		revision = rest[1]
	}
	closed := r.listing && (action == "tree" || action == "paths-info") || action == "xet-read-token"
	if !r.admit(w, user, closed) {
		return
	}
	if action == "refs" {
		r.sendRefs(w, q)
		return
	}
	c := r.find(revision)
	if c == nil {
		fail(w, http.StatusNotFound, codeRevision, "Invalid rev id: "+revision)
		return
	}
	switch action {
	case "", "revision":
		r.sendInfo(w, q, c)
	case "commits":
		r.sendCommits(w, q, c)
	case "tree":
		r.sendTree(w, q, c, revision, strings.Join(rest[min(2, len(rest)):], "/"))
	case "paths-info":
		r.sendPaths(w, q, c)
	case "xet-read-token":
		r.sendXetToken(w, c)
	default:
		notHere(w)
	}
}

// base is the scheme and host under which a request came.
func base(q *http.Request) string {
	if q.TLS != nil {
		return "https://" + q.Host
	}
	return "http://" + q.Host
}

func boolOf(q *http.Request, name string) bool {
	v := q.URL.Query().Get(name)
	return v == "true" || v == "1" || v == "True"
}

// gatedValue is false, "auto" or "manual", as the hub has it.
func (r *Repo) gatedValue() any {
	if r.gated == "" {
		return false
	}
	return r.gated
}

// info is the document about a repository at a commit.
func (r *Repo) info(c *commit, blobs bool) map[string]any {
	author, _, _ := strings.Cut(r.id, "/")
	var siblings []map[string]any
	for _, e := range c.entries {
		if e.dir {
			continue
		}
		s := map[string]any{"rfilename": e.Path}
		if blobs {
			s["size"], s["blobId"] = e.Size, e.OID
			if e.SHA256 != "" {
				s["lfs"] = map[string]any{"sha256": e.SHA256, "size": e.Size, "pointerSize": e.PointerSize}
			}
		}
		siblings = append(siblings, s)
	}
	tags := []string{}
	card := c.card()
	if list, ok := card["tags"].([]string); ok {
		tags = append(tags, list...)
	}
	if licence, ok := card["license"].(string); ok {
		tags = append(tags, "license:"+licence)
	}
	doc := map[string]any{
		"_id": gitID("blob", []byte(r.Name()))[:24], "id": r.id, "author": author, "sha": c.sha,
		"lastModified": c.time.Format(hubTime), "createdAt": epoch.Format(hubTime), "private": r.private, "gated": r.gatedValue(),
		"disabled": r.disabled, "downloads": 0, "likes": 0, "tags": tags, "siblings": siblings, "usedStorage": 0,
	}
	if card != nil {
		doc["cardData"] = card
	}
	if r.kind == models {
		doc["modelId"] = r.id
		for _, k := range []string{"pipeline_tag", "library_name"} {
			if v, ok := card[k]; ok {
				doc[k] = v
			}
		}
	}
	return doc
}

// sendInfo answers with all, or with what "expand" names.
func (r *Repo) sendInfo(w http.ResponseWriter, q *http.Request, c *commit) {
	doc := r.info(c, boolOf(q, "blobs"))
	query := q.URL.Query()
	if fields := append(query["expand"], query["expand[]"]...); len(fields) > 0 {
		maps.DeleteFunc(doc, func(k string, _ any) bool { return k != "_id" && k != "id" && !slices.Contains(fields, k) })
	}
	sendJSON(w, http.StatusOK, doc)
}

func (r *Repo) sendRefs(w http.ResponseWriter, q *http.Request) {
	doc := map[string][]map[string]string{"branches": {}, "tags": {}, "converts": {}}
	prs := boolOf(q, "include_prs") || boolOf(q, "include_pull_requests")
	if prs {
		doc["pullRequests"] = []map[string]string{}
	}
	for _, ref := range slices.Sorted(maps.Keys(r.refs)) {
		item := map[string]string{"name": ref, "ref": ref, "targetCommit": r.refs[ref]}
		kind := "converts"
		switch {
		case strings.HasPrefix(ref, headsPrefix):
			kind, item["name"] = "branches", strings.TrimPrefix(ref, headsPrefix)
		case strings.HasPrefix(ref, tagsPrefix):
			kind, item["name"] = "tags", strings.TrimPrefix(ref, tagsPrefix)
		case strings.HasPrefix(ref, prPrefix):
			kind, item["name"] = "pullRequests", strings.TrimPrefix(ref, prPrefix)
		}
		if kind == "pullRequests" && !prs {
			continue
		}
		doc[kind] = append(doc[kind], item)
	}
	sendJSON(w, http.StatusOK, doc)
}

func (c *commit) short() map[string]any {
	return map[string]any{"id": c.sha, "title": c.title, "date": c.time.Format(hubTime)}
}

func (r *Repo) sendCommits(w http.ResponseWriter, q *http.Request, c *commit) {
	var all []map[string]any
	for ; c != nil; c = r.commits[c.parent] {
		doc := c.short()
		doc["message"], doc["authors"] = "", []map[string]string{{"user": "tester"}}
		all = append(all, doc)
	}
	const perPage = 50
	page, err := strconv.Atoi(q.URL.Query().Get("p"))
	if err != nil || page < 0 {
		page = 0
	}
	w.Header().Set("X-Total-Count", strconv.Itoa(len(all)))
	all = all[min(page*perPage, len(all)):]
	if len(all) > perPage {
		all = all[:perPage]
		setNext(w, withQuery(base(q)+q.URL.RequestURI(), "p", strconv.Itoa(page+1)))
	}
	if all == nil {
		all = []map[string]any{}
	}
	sendJSON(w, http.StatusOK, all)
}

func setNext(w http.ResponseWriter, link string) { w.Header().Add("Link", "<"+link+`>; rel="next"`) }

// withQuery gives a parameter of an address another value.
func withQuery(address, name, value string) string {
	u, err := url.Parse(address)
	must(err)
	v := u.Query()
	v.Set(name, value)
	u.RawQuery = v.Encode()
	return u.String()
}

// search lists repositories by a part of their name.
func (h *Hub) search(w http.ResponseWriter, q *http.Request, kind, user string) {
	reply := &held{ResponseWriter: w}
	h.mu.Lock()
	h.list(reply, q, kind, user)
	h.mu.Unlock()
	reply.send()
}

func (h *Hub) list(w http.ResponseWriter, q *http.Request, kind, user string) {
	query := q.URL.Query()
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit < 1 {
		limit = defaultPage
	}
	after := query.Get("cursor")
	out := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(h.repos)) {
		r := h.repos[name]
		author, _, _ := strings.Cut(r.id, "/")
		c := r.find("HEAD")
		switch {
		case r.kind != kind || r.disabled || c == nil || r.private && !r.readable(user) || r.id <= after:
		case !strings.Contains(r.id, query.Get("search")) || query.Get("author") != "" && query.Get("author") != author:
		case len(out) == limit:
			setNext(w, withQuery(base(q)+q.URL.RequestURI(), "cursor", out[limit-1]["id"].(string)))
			sendJSON(w, http.StatusOK, out)
			return
		default:
			doc := r.info(c, false)
			if !boolOf(q, "full") {
				delete(doc, "siblings")
				delete(doc, "cardData")
			}
			out = append(out, doc)
		}
	}
	sendJSON(w, http.StatusOK, out)
}

// sendXetToken gives the token that leads to nothing: the CAS is not here.
func (r *Repo) sendXetToken(w http.ResponseWriter, c *commit) {
	if !r.hub.opts.Xet {
		notHere(w)
		return
	}
	exp := time.Now().Add(r.hub.opts.Expire).Unix()
	cas := r.hub.CDN + "/cas"
	w.Header().Set("X-Xet-Cas-Url", cas)
	w.Header().Set("X-Xet-Access-Token", "xet-"+c.sha)
	w.Header().Set("X-Xet-Token-Expiration", strconv.FormatInt(exp, 10))
	sendJSON(w, http.StatusOK, map[string]any{"accessToken": "xet-" + c.sha, "exp": exp, "casUrl": cas})
}

// paths reads the paths of a POST, a form or JSON.
func paths(q *http.Request) (list []string, expand bool, err error) {
	const maxBody = 8 << 20 // of a client under test
	b, err := io.ReadAll(io.LimitReader(q.Body, maxBody))
	if err != nil {
		return nil, false, err
	}
	if strings.HasPrefix(q.Header.Get("Content-Type"), "application/json") {
		var doc struct {
			Paths  []string `json:"paths"`
			Expand bool     `json:"expand"`
		}
		err = json.Unmarshal(b, &doc)
		return doc.Paths, doc.Expand, err
	}
	form, err := url.ParseQuery(string(b))
	return form["paths"], strings.EqualFold(form.Get("expand"), "true"), err
}

func (r *Repo) sendPaths(w http.ResponseWriter, q *http.Request, c *commit) {
	if q.Method != http.MethodPost {
		fail(w, http.StatusMethodNotAllowed, "", "Method not allowed")
		return
	}
	list, expand, err := paths(q)
	if err != nil {
		fail(w, http.StatusBadRequest, "", fmt.Sprintf("Invalid body: %v", err))
		return
	}
	out := []map[string]any{}
	for _, p := range list {
		if e := c.byPath[p]; e != nil {
			out = append(out, r.item(e, expand))
		}
	}
	// A page that is not the last: faults change entries here and add none.
	page := &TreePage{Entries: out, Next: "none"}
	r.hub.spoil(r.Name(), page)
	sendJSON(w, http.StatusOK, page.Entries)
}
