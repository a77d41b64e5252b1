package hubserver

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// maxPage is the hub's own page of a tree, and of a list.
	maxPage = 1000
	// hubTime is how the hub writes times. Old clients read no other form.
	hubTime = "2006-01-02T15:04:05.000Z"
	// idLength is that of the hub's own ids of users and repositories.
	idLength = 24
)

// harnesses answers clients that want to know by what they may be run.
func (h *Handler) harnesses(w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, map[string]any{"standardEnvVars": []any{}, "harnesses": map[string]any{}})
}

// telemetry takes what clients report, and forgets it.
func (h *Handler) telemetry(w http.ResponseWriter, _ *request) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// whoami tells the holder of a token what it is called.
func (h *Handler) whoami(w http.ResponseWriter, q *request) error {
	name := q.caller.name
	if name == "" {
		return faultf(http.StatusUnauthorized, "", "Invalid username or password.")
	}
	return writeJSON(w, http.StatusOK, map[string]any{
		"type": "user", "id": stableID(name), "name": name, "fullname": name, "isPro": false, "orgs": []any{},
		"auth": map[string]any{"type": "access_token", "accessToken": map[string]any{"displayName": name, "role": "read"}},
	})
}

// stableID has the form of the hub's ids.
func stableID(name string) string { return string(hub.SumBlob([]byte(name)))[:idLength] }

// info is the document about a repository at a revision.
func (h *Handler) info(w http.ResponseWriter, q *request) error {
	s, r, err := h.find(q, q.revision)
	if err != nil {
		return err
	}
	query := q.URL.Query()
	doc := h.document(s, r)
	if fields := expand(query); len(fields) == 0 || slices.Contains(fields, "siblings") {
		doc["siblings"] = r.siblings(isTrue(query.Get("blobs")))
	}
	return writeJSON(w, http.StatusOK, expanded(doc, query))
}

// authCheck answers whether the caller may read a repository.
func (h *Handler) authCheck(w http.ResponseWriter, q *request) error {
	if _, err := h.shares(q); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{})
}

// document is what lists say too. Of what only the hub itself knows there are
// zeros: clients ask for the fields.
func (h *Handler) document(s *share, r *revision) map[string]any {
	name := r.Repo
	author, _, _ := strings.Cut(name.ID, "/")
	at := r.time.UTC().Format(hubTime)
	doc := map[string]any{
		"_id": stableID(name.String()), "id": name.ID, "author": author, "sha": r.Commit, "lastModified": at, "createdAt": at,
		"private": false, "gated": false, "disabled": false, "downloads": 0, "likes": 0, "tags": []string{}, "usedStorage": r.Size(),
	}
	card := r.card(h.store)
	if len(card) > 0 {
		doc["cardData"] = card
	}
	if id := card["license"]; id != "" {
		doc["tags"] = []string{"license:" + id}
	}
	if len(s.rules) > 0 {
		doc["gated"] = "manual"
	}
	if name.Kind == hub.Model {
		doc["modelId"] = name.ID
		for key, value := range map[string]string{"pipeline_tag": card["pipeline_tag"], "library_name": r.library(card)} {
			if value != "" {
				doc[key] = value
			}
		}
	}
	return doc
}

// A sibling is a file as the document about a repository has it.
type sibling struct {
	Path   string      `json:"rfilename"`
	Size   *int64      `json:"size,omitempty"`
	BlobID hub.OID     `json:"blobId,omitempty"`
	LFS    *siblingLFS `json:"lfs,omitempty"`
}

type siblingLFS struct {
	SHA256      string `json:"sha256"`
	Size        int64  `json:"size"`
	PointerSize int64  `json:"pointerSize"`
}

// siblings lists the files, with sizes and ids where blobs.
func (r *revision) siblings(blobs bool) []sibling {
	out := make([]sibling, len(r.Files))
	for i := range r.Files {
		f := &r.Files[i]
		out[i].Path = f.Path
		if !blobs {
			continue
		}
		out[i].Size, out[i].BlobID = &f.Size, f.OID
		if f.LFS != nil {
			out[i].LFS = &siblingLFS{f.LFS.SHA256.Hex(), f.Size, f.LFS.PointerSize}
		}
	}
	return out
}

// expanded leaves of a document what "expand" names; all, where it does not.
func expanded(doc map[string]any, query url.Values) map[string]any {
	if fields := expand(query); len(fields) > 0 {
		maps.DeleteFunc(doc, func(k string, _ any) bool { return k != "_id" && k != "id" && !slices.Contains(fields, k) })
	}
	return doc
}

// expand lists the parts of a document that a client wants; none: all.
func expand(query url.Values) []string { return slices.Concat(query["expand"], query["expand[]"]) }

// isTrue reads a parameter as clients in several languages write it.
func isTrue(s string) bool { return s == "1" || strings.EqualFold(s, "true") }

// list shows the repositories of a kind that the caller may read.
func (h *Handler) list(w http.ResponseWriter, q *request) error {
	query := q.URL.Query()
	limit := limitOf(query)
	search, author, after := strings.ToLower(query.Get("search")), query.Get("author"), query.Get("cursor")
	out := []map[string]any{}
	last := ""
	for _, name := range q.view.names {
		owner, _, _ := strings.Cut(name.ID, "/")
		if name.Kind != q.repo.Kind || name.ID <= after || !strings.Contains(strings.ToLower(name.ID), search) || author != "" && author != owner {
			continue
		}
		s, r := q.listed(name)
		if r == nil {
			continue
		}
		if len(out) == limit {
			h.setNext(w, q, q.URL.EscapedPath(), last)
			break
		}
		doc := h.document(s, r)
		if isTrue(query.Get("full")) || slices.Contains(expand(query), "siblings") {
			doc["siblings"] = r.siblings(false)
		} else {
			delete(doc, "cardData")
		}
		out, last = append(out, expanded(doc, query)), name.ID
	}
	return writeJSON(w, http.StatusOK, out)
}

// listed is the revision that stands for a repository in a list, if the caller
// may see one.
func (q *request) listed(name hub.Repo) (*share, *revision) {
	for _, s := range q.view.repos[name] {
		if len(s.revisions) == 0 || !admits(s.rules, &q.caller) {
			continue
		}
		if r := s.names[headRevision]; r != nil {
			return s, r
		}
		return s, s.revisions[0]
	}
	return nil, nil
}

// limitOf is how many entries a client wants at once.
func limitOf(query url.Values) int {
	if n, err := strconv.Atoi(query.Get("limit")); err == nil && n > 0 {
		return min(n, maxPage)
	}
	return maxPage
}

// setNext names the next page of an answer, by a whole address: clients do not
// resolve another.
func (h *Handler) setNext(w http.ResponseWriter, q *request, path, cursor string) {
	query := q.URL.Query()
	query.Set("cursor", cursor)
	w.Header().Set("Link", "<"+self(q.Request)+h.prefix+path+"?"+query.Encode()+`>; rel="next"`)
}

// self is this server as the client called it. The header is the one of a
// proxy that ends TLS; whoever forges it deceives himself alone.
func self(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	host := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_:[]", c) {
			return c
		}
		return -1
	}, r.Host)
	return scheme + "://" + host
}

// refs lists branches and tags.
func (h *Handler) refs(w http.ResponseWriter, q *request) error {
	shares, err := h.shares(q)
	if err != nil {
		return err
	}
	doc := map[string][]hub.Ref{"branches": {}, "tags": {}, "converts": {}}
	query := q.URL.Query()
	if isTrue(query.Get("include_prs")) || isTrue(query.Get("include_pull_requests")) {
		doc["pullRequests"] = []hub.Ref{}
	}
	seen := make(map[string]bool)
	revisions := 0
	for _, s := range shares {
		revisions += len(s.revisions)
		for _, r := range s.revisions {
			for _, name := range r.Refs {
				ref := fullRef(name)
				kind, short := refKind(ref)
				if _, wanted := doc[kind]; wanted && !seen[ref] {
					doc[kind] = append(doc[kind], hub.Ref{Name: short, Ref: ref, TargetCommit: r.Commit})
				}
				seen[ref] = true
			}
		}
	}
	if revisions == 0 {
		_, _, err := h.find(q, q.revision) // of what is arriving
		return err
	}
	return writeJSON(w, http.StatusOK, doc)
}

// refKind is where the list of references has one, and its name there.
func refKind(ref string) (kind, name string) {
	for prefix, kind := range map[string]string{headsPrefix: "branches", tagsPrefix: "tags", prPrefix: "pullRequests"} {
		if short, ok := strings.CutPrefix(ref, prefix); ok {
			return kind, short
		}
	}
	return "converts", ref
}

// A lastCommit is a commit as trees name it.
type lastCommit struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Date  string `json:"date"`
}

// last is the one commit that is here: those before it did not cross.
func (r *revision) last() *lastCommit {
	return &lastCommit{ID: r.Commit, Title: "Published here by bundle " + strconv.FormatUint(r.seq, 10), Date: r.time.UTC().Format(hubTime)}
}

func (h *Handler) commits(w http.ResponseWriter, q *request) error {
	_, r, err := h.find(q, q.revision)
	if err != nil {
		return err
	}
	out := []any{}
	if p := q.URL.Query().Get("p"); p == "" || p == "0" {
		out = append(out, struct {
			*lastCommit
			Message string `json:"message"`
			Authors []any  `json:"authors"`
		}{r.last(), "", []any{}})
	}
	w.Header().Set("X-Total-Count", "1")
	return writeJSON(w, http.StatusOK, out)
}
