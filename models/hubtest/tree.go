package hubtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// expandPage is the hub's page where each entry names its last commit.
const expandPage = 50

// item is an entry as the tree has it.
func (r *Repo) item(e *entry, expand bool) map[string]any {
	m := map[string]any{"type": "file", "oid": e.OID, "size": e.Size, "path": e.Path}
	if e.dir {
		m["type"] = "directory"
	}
	if e.SHA256 != "" {
		m["lfs"] = map[string]any{"oid": e.SHA256, "size": e.Size, "pointerSize": e.PointerSize}
		if r.hub.opts.Xet {
			m["xetHash"] = xetHash(e.SHA256)
		}
	}
	if expand {
		m["lastCommit"] = e.last.short()
		if !e.dir {
			// Clients read both parts where the whole is there.
			scan := map[string]any{"status": "safe"}
			m["securityFileStatus"] = map[string]any{"status": "safe", "avScan": scan, "pickleImportScan": map[string]any{"status": "unscanned", "pickleImports": nil}}
		}
	}
	return m
}

// xetHash is a name of the right form; nothing answers to it.
func xetHash(sha string) string {
	sum := sha256.Sum256([]byte("xet " + sha))
	return hex.EncodeToString(sum[:])
}

// below lists what lies in a folder ("" for the root), deeper folders too
// where recursive; ok is false where there is no such folder. A file's path
// lists the file alone.
func (c *commit) below(dir string, recursive bool) (list []*entry, ok bool) {
	prefix := ""
	if dir != "" {
		e := c.byPath[dir]
		switch {
		case e == nil:
			return nil, false
		case !e.dir:
			return []*entry{e}, true
		}
		prefix = dir + "/"
	}
	for _, e := range c.entries {
		rest, in := strings.CutPrefix(e.Path, prefix)
		if in && rest != "" && (recursive || !strings.Contains(rest, "/")) {
			list = append(list, e)
		}
	}
	return list, true
}

func encodeCursor(page, at int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"page":%d,"at":%d}`, page, at))
}

// decodeCursor is where a page begins; at is negative past the end.
func decodeCursor(s string) (page, at int, ok bool) {
	if s == "" {
		return 0, 0, true
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return 0, 0, false
	}
	var c struct {
		Page int `json:"page"`
		At   int `json:"at"`
	}
	err = json.Unmarshal(b, &c)
	return c.Page, c.At, err == nil
}

func (r *Repo) sendTree(w http.ResponseWriter, q *http.Request, c *commit, revision, dir string) {
	query := q.URL.Query()
	expand := boolOf(q, "expand")
	list, ok := c.below(dir, boolOf(q, "recursive"))
	if !ok {
		w.Header().Set("X-Repo-Commit", c.sha)
		fail(w, http.StatusNotFound, codeEntry, fmt.Sprintf("%s does not exist on %q", dir, revision))
		return
	}
	number, at, ok := decodeCursor(query.Get("cursor"))
	if !ok {
		fail(w, http.StatusBadRequest, "", "Invalid cursor")
		return
	}
	size := r.hub.opts.Page
	if n, err := strconv.Atoi(query.Get("limit")); err == nil && n > 0 {
		size = min(size, n)
	}
	if expand {
		size = min(size, expandPage)
	}
	first := base(q) + q.URL.EscapedPath()
	query.Del("cursor")
	if len(query) > 0 {
		first += "?" + query.Encode()
	}
	page := &TreePage{Entries: []map[string]any{}, First: first, Number: number, find: func(path string) map[string]any {
		if e := c.byPath[path]; e != nil {
			return clone(r.item(e, expand))
		}
		return nil
	}}
	if at < 0 {
		at = len(list)
	}
	list = list[min(at, len(list)):]
	if len(list) > size {
		list = list[:size]
		page.Next = withQuery(first, "cursor", encodeCursor(number+1, at+size))
	}
	for _, e := range list {
		page.Entries = append(page.Entries, r.item(e, expand))
	}
	r.hub.spoil(r.Name(), page)
	if page.Next != "" {
		setNext(w, page.Next)
	}
	b, err := json.Marshal(page.Entries)
	must(err)
	sendBody(w, http.StatusOK, typeJSON, append(b, bytes.Repeat([]byte(" "), page.Pad)...))
}
