package hubserver

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/models/hub"
)

// maxBody bounds the paths of one question; each is answered once.
const maxBody = 2 << 20

// A treeItem is an entry of a tree. What scanners of the hub would say of it
// is left out: clients read all of it or nothing.
type treeItem struct {
	hub.TreeItem
	LastCommit *lastCommit `json:"lastCommit,omitempty"`
}

func (e *item) json(last *lastCommit) treeItem {
	out := treeItem{TreeItem: hub.TreeItem{Type: "directory", OID: string(e.oid), Path: e.path()}, LastCommit: last}
	if f := e.file; f != nil {
		out.Type, out.OID, out.Size = "file", string(f.OID), f.Size
		if f.LFS != nil {
			out.LFS = &hub.TreeLFS{OID: f.LFS.SHA256.Hex(), Size: f.Size, PointerSize: f.LFS.PointerSize}
		}
	}
	return out
}

// tree lists a folder of a revision. The next page is asked for by the commit:
// a branch that moves between two pages does not mix them.
func (h *Handler) tree(w http.ResponseWriter, q *request) error {
	_, r, err := h.find(q, q.revision)
	if err != nil {
		return err
	}
	query := q.URL.Query()
	first, err := strconv.Atoi(query.Get("cursor"))
	if query.Has("cursor") && (err != nil || first < 0) {
		return faultf(http.StatusBadRequest, "", "the cursor is none of this hub's")
	}
	list, more, ok := r.below(q.path, isTrue(query.Get("recursive")), first, limitOf(query))
	if !ok {
		return noEntry(r, q.path)
	}
	if more {
		address := "/" + q.repo.API() + "/tree/" + r.Commit
		if q.path != "" {
			address += "/" + url.PathEscape(q.path)
		}
		h.setNext(w, q, address, strconv.Itoa(first+len(list)))
	}
	return writeJSON(w, http.StatusOK, r.describe(list, isTrue(query.Get("expand"))))
}

func (r *revision) describe(list []*item, expand bool) []treeItem {
	out := make([]treeItem, len(list))
	var last *lastCommit
	if expand {
		last = r.last()
	}
	for i, e := range list {
		out[i] = e.json(last)
	}
	return out
}

// noEntry says that a revision has no such file. Clients remember it by the
// commit.
func noEntry(r *revision, path string) *fault {
	return faultf(http.StatusNotFound, hub.CodeEntryNotFound, "%s has no %s at %s", r.Repo, clip(path), r.Commit).with(hub.HeaderCommit, r.Commit)
}

// paths answers which of the paths in a body there are.
func (h *Handler) paths(w http.ResponseWriter, q *request) error {
	_, r, err := h.find(q, q.revision)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return faultf(http.StatusRequestEntityTooLarge, "", "over %d bytes of paths: ask in parts", maxBody)
	}
	if err != nil {
		return faultf(http.StatusBadRequest, "", "the body cannot be read")
	}
	paths, expand, err := parsePaths(q.Header.Get("Content-Type"), body)
	if err != nil {
		return faultf(http.StatusBadRequest, "", "the body is neither a form nor a JSON document with paths")
	}
	var list []*item
	seen := make(map[int]bool)
	for _, p := range paths {
		if i, ok := r.item(strings.TrimSuffix(p, "/")); ok && !seen[i] {
			seen[i] = true
			list = append(list, &r.items[i])
		}
	}
	return writeJSON(w, http.StatusOK, r.describe(list, expand))
}

// parsePaths reads a form, which Python's client sends, or the JSON document
// of the one in JavaScript.
func parsePaths(contentType string, body []byte) (paths []string, expand bool, err error) {
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == "application/json" {
		var doc struct {
			Paths  []string `json:"paths"`
			Expand bool     `json:"expand"`
		}
		err := json.Unmarshal(body, &doc)
		return doc.Paths, doc.Expand, err
	}
	form, err := url.ParseQuery(string(body))
	return form["paths"], isTrue(form.Get("expand")), err
}
