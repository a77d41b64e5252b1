package hubtest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// A Fault is a defect of the download of a file. [Hub.Break] orders it.
type Fault struct {
	kind   faultKind
	n      int64
	status int
	url    string
	times  int // 0: always
	skip   int
}

type faultKind int

const (
	faultCorrupt faultKind = iota + 1
	faultTruncate
	faultCut
	faultStall
	faultNoRange
	faultWrongRange
	faultStatus
	faultRedirect
	faultExpire
	faultHeader
)

// Corrupt changes the byte at that place, the one in the middle if it is
// negative. The size stays.
func Corrupt(at int64) Fault { return Fault{kind: faultCorrupt, n: at} }

// Truncate serves the first n bytes as if they were all.
func Truncate(n int64) Fault { return Fault{kind: faultTruncate, n: n} }

// Cut ends the connection after n bytes of a reply's body.
func Cut(n int64) Fault { return Fault{kind: faultCut, n: n} }

// Stall sends no more after n bytes of a reply's body, and keeps the
// connection.
func Stall(n int64) Fault { return Fault{kind: faultStall, n: n} }

// NoRange answers 200 with everything where a range was asked for.
func NoRange() Fault { return Fault{kind: faultNoRange} }

// WrongRange names in Content-Range a range that is one byte off.
func WrongRange() Fault { return Fault{kind: faultWrongRange} }

// Fail answers the request for the bytes with a status.
func Fail(status int) Fault { return Fault{kind: faultStatus, status: status} }

// RedirectTo makes the resolver lead to another address.
func RedirectTo(url string) Fault { return Fault{kind: faultRedirect, url: url} }

// ExpireAfter lets each signed link of the file give n bytes in all; then the
// connection is cut, and the link answers 403. A new link holds again.
func ExpireAfter(n int64) Fault { return Fault{kind: faultExpire, n: n} }

// DropHeader leaves a header out of the resolver's reply: "X-Linked-Etag".
func DropHeader(name string) Fault { return Fault{kind: faultHeader, url: name} }

// Times makes it happen to so many requests alone.
func (f Fault) Times(n int) Fault {
	f.times = n
	return f
}

// Skip lets so many requests pass first.
func (f Fault) Skip(n int) Fault {
	f.skip = n
	return f
}

// A placed fault belongs to a repository and a path, each of which may be
// empty for any.
type placed struct {
	Fault
	repo, path string
	left       int
}

// Break orders a fault for a file; an empty repository or path means each.
func (h *Hub) Break(repo, path string, f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, &placed{Fault: f, repo: repo, path: path, left: f.times})
}

// take is every fault that this request for the file meets, of these kinds.
// The hub's lock is held.
func (h *Hub) take(repo, path string, kinds ...faultKind) []Fault {
	var out []Fault
	for _, p := range h.faults {
		switch {
		case p.repo != "" && p.repo != repo, p.path != "" && p.path != path, !slices.Contains(kinds, p.kind):
		case p.skip > 0:
			p.skip--
		case p.times > 0 && p.left == 0:
		default:
			p.left--
			out = append(out, p.Fault)
		}
	}
	return out
}

type busy struct {
	left       int
	status     int
	retryAfter string
}

// Busy answers the next n requests to a server with a status, and with
// Retry-After where that is not empty.
func (h *Hub) Busy(at Server, n, status int, retryAfter string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy[at] = &busy{left: n, status: status, retryAfter: retryAfter}
}

// refused answers where [Hub.Busy] says so.
func (h *Hub) refused(at Server, w http.ResponseWriter) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.busy[at]
	if b == nil || b.left == 0 {
		return false
	}
	b.left--
	if b.retryAfter != "" {
		w.Header().Set("Retry-After", b.retryAfter)
	}
	fail(w, b.status, "", http.StatusText(b.status))
	return true
}

// Heal takes every fault away.
func (h *Hub) Heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults, h.before = nil, nil
	clear(h.trees)
	clear(h.busy)
	clear(h.spent)
}

// A TreePage is one page of a tree before it is sent, for a fault to change.
type TreePage struct {
	Entries []map[string]any
	First   string // the link to the first page
	Next    string // the link to the next page, empty on the last
	Number  int    // of the page, from 0
	Pad     int    // bytes of white space at its end
	find    func(path string) map[string]any
}

// A TreeFault is a defect of a tree. [Hub.BreakTree] orders it.
type TreeFault func(*TreePage)

// BreakTree orders a fault for a repository's tree, for each if the name is
// empty.
func (h *Hub) BreakTree(repo string, f TreeFault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trees[repo] = append(h.trees[repo], f)
}

// edit changes the entry of that path, where the page has it.
func edit(path string, fn func(map[string]any)) TreeFault {
	return func(p *TreePage) {
		for _, e := range p.Entries {
			if e["path"] == path {
				fn(e)
			}
		}
	}
}

// within is the object that holds a dotted field, and the field's last name.
func within(e map[string]any, field string) (holder map[string]any, name string) {
	if outer, inner, ok := strings.Cut(field, "."); ok {
		holder, _ = e[outer].(map[string]any)
		return holder, inner
	}
	return e, field
}

// WithoutField leaves a field of an entry out: "oid", "size", "lfs.oid".
func WithoutField(path, field string) TreeFault {
	return edit(path, func(e map[string]any) { deleteField(e, field) })
}

func deleteField(e map[string]any, field string) {
	holder, name := within(e, field)
	delete(holder, name)
}

// WithField gives a field of an entry another value: "size", "lfs.size".
func WithField(path, field string, value any) TreeFault {
	return edit(path, func(e map[string]any) {
		if holder, name := within(e, field); holder != nil {
			holder[name] = value
		}
	})
}

// WrongSize makes a file larger than it is.
func WrongSize(path string, by int64) TreeFault {
	return edit(path, func(e map[string]any) {
		e["size"] = e["size"].(int64) + by
		if lfs, ok := e["lfs"].(map[string]any); ok {
			lfs["size"] = lfs["size"].(int64) + by
		}
	})
}

// WrongHash names another content: by SHA-256 for LFS, by git's id otherwise.
func WrongHash(path string) TreeFault {
	other := func(s any) string {
		text := s.(string)
		last := "0"
		if strings.HasSuffix(text, last) {
			last = "1"
		}
		return text[:len(text)-1] + last
	}
	return edit(path, func(e map[string]any) {
		if lfs, ok := e["lfs"].(map[string]any); ok {
			lfs["oid"] = other(lfs["oid"])
			return
		}
		e["oid"] = other(e["oid"])
	})
}

// Duplicate lists a path once more, on the last page.
func Duplicate(path string) TreeFault { return CopyAs(path, path) }

// CaseClash lists a path once more in capital letters, on the last page.
func CaseClash(path string) TreeFault { return CopyAs(path, strings.ToUpper(path)) }

// CopyAs lists a file once more under another path, on the last page:
// "../escape", "/absolute".
func CopyAs(path, as string) TreeFault {
	return func(p *TreePage) {
		if p.Next != "" {
			return
		}
		if e := p.find(path); e != nil {
			e["path"] = as
			p.Entries = append(p.Entries, e)
		}
	}
}

// EndlessPages never ends: pages past the last have a made entry each.
func EndlessPages() TreeFault {
	return func(p *TreePage) {
		if p.Next == "" {
			p.Entries = append(p.Entries, map[string]any{
				"type": "file", "path": fmt.Sprintf("endless-%06d.txt", p.Number), "size": 0, "oid": gitID("blob", nil),
			})
			p.Next = withQuery(p.First, "cursor", encodeCursor(p.Number+1, -1))
		}
	}
}

// LoopPages leads from the last page to the first.
func LoopPages() TreeFault {
	return func(p *TreePage) {
		if p.Next == "" {
			p.Next = p.First
		}
	}
}

// LeadAway sends the client to another address for the second page.
func LeadAway(url string) TreeFault { return func(p *TreePage) { p.Next = url } }

// HugePage makes each page larger by so many bytes of white space.
func HugePage(pad int) TreeFault { return func(p *TreePage) { p.Pad = pad } }

// spoil lets faults change a page. The hub's lock is held.
func (h *Hub) spoil(repo string, p *TreePage) {
	for _, f := range slices.Concat(h.trees[""], h.trees[repo]) {
		f(p)
	}
}

// clone copies an entry as deep as entries are.
func clone(e map[string]any) map[string]any {
	out := maps.Clone(e)
	if lfs, ok := out["lfs"].(map[string]any); ok {
		out["lfs"] = maps.Clone(lfs)
	}
	return out
}
