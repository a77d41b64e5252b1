package hubtest

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

const (
	models   = "models"
	datasets = "datasets"

	headsPrefix = "refs/heads/"
	tagsPrefix  = "refs/tags/"
	prPrefix    = "refs/pr/"
	mainRef     = headsPrefix + "main"
)

// epoch is the time of a repository's first commit; each further one is an
// hour later, so that commits are the same wherever a test runs.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// A Repo is a repository of the hub. The hub's lock guards it.
type Repo struct {
	hub      *Hub
	kind, id string

	commits map[string]*commit
	refs    map[string]string // "refs/heads/main" to a commit
	count   int

	gated    string // "auto" or "manual"
	private  bool
	disabled bool
	readers  []string // users with access
	listing  bool     // of a gated repository is closed too
}

type commit struct {
	sha, parent, title string
	time               time.Time
	entries            []*entry // git's order, folders before what is in them
	byPath             map[string]*entry
}

// An entry is a file or a folder.
type entry struct {
	Entry
	dir     bool
	content Content
	last    *commit // that brought it
}

// Name is "team/model", or "datasets/team/name".
func (r *Repo) Name() string {
	if r.kind == datasets {
		return datasets + "/" + r.id
	}
	return r.id
}

// Commit replaces the files of main and returns the commit's id.
func (r *Repo) Commit(files map[string][]byte) string {
	sha, err := r.CommitTo("main", Memory(files))
	must(err) // memory can be read
	return sha
}

// CommitTo replaces the files of a branch, a new one too, and returns the
// commit's id. Each file is read once.
func (r *Repo) CommitTo(branch string, files Files) (string, error) {
	r.hub.mu.Lock()
	parent := r.commits[r.refs[headsPrefix+branch]]
	r.count++
	n := r.count
	r.hub.mu.Unlock()
	c := &commit{title: fmt.Sprintf("Commit %d", n), time: epoch.Add(time.Duration(n-1) * time.Hour), byPath: make(map[string]*entry)}
	var list []*entry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name == "" || path.Clean("/"+name) != "/"+name {
			return "", fmt.Errorf("%q cannot be in a git tree", name)
		}
		e, err := describe(name, files[name], r.hub.opts.LFSAbove)
		if err != nil {
			return "", err
		}
		list = append(list, &entry{Entry: e, content: files[name]})
	}
	tree := c.grow("", list)
	if parent != nil {
		c.parent = parent.sha
		for _, e := range c.entries {
			if old := parent.byPath[e.Path]; old != nil && old.OID == e.OID {
				e.last = old.last
			}
		}
	}
	c.sha = gitID("commit", c.object(tree))
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.commits[c.sha] = c
	r.refs[headsPrefix+branch] = c.sha
	for _, e := range c.entries {
		if e.SHA256 != "" {
			r.hub.objects[objectPath(r, &e.Entry)] = object{repo: r.Name(), entry: e}
		}
	}
	return c.sha, nil
}

// grow adds the folder's entries, in git's order, and returns its tree id.
func (c *commit) grow(dir string, list []*entry) string {
	type child struct {
		name string
		sort string // git sorts a folder as if its name ended in a slash
		file *entry
		list []*entry
	}
	children := make(map[string]*child)
	for _, e := range list {
		name, rest, deeper := strings.Cut(strings.TrimPrefix(e.Path, dir), "/")
		ch := children[name]
		if ch == nil {
			ch = &child{name: name, sort: name}
			children[name] = ch
		}
		if deeper && rest != "" {
			ch.sort = name + "/"
			ch.list = append(ch.list, e)
		} else {
			ch.file = e
		}
	}
	var tree bytes.Buffer
	for _, ch := range slices.SortedFunc(maps.Values(children), func(a, b *child) int { return cmp.Compare(a.sort, b.sort) }) {
		e, mode := ch.file, "100644"
		if ch.list != nil {
			e, mode = &entry{Entry: Entry{Path: dir + ch.name}, dir: true}, "40000"
		}
		e.last = c
		c.entries = append(c.entries, e)
		c.byPath[e.Path] = e
		if e.dir {
			e.OID = c.grow(dir+ch.name+"/", ch.list)
		}
		id, err := hex.DecodeString(e.OID)
		must(err)
		fmt.Fprintf(&tree, "%s %s\x00%s", mode, ch.name, id)
	}
	return gitID("tree", tree.Bytes())
}

// object is the commit as git stores it.
func (c *commit) object(tree string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "tree %s\n", tree)
	if c.parent != "" {
		fmt.Fprintf(&b, "parent %s\n", c.parent)
	}
	const who = "tester <tester@hub.example>"
	fmt.Fprintf(&b, "author %s %d +0000\ncommitter %s %d +0000\n\n%s\n", who, c.time.Unix(), who, c.time.Unix(), c.title)
	return b.Bytes()
}

// SetRef points a branch ("main"), or a full ref ("refs/tags/v1", "refs/pr/1"),
// at a commit; an empty sha removes it.
func (r *Repo) SetRef(ref, sha string) {
	if !strings.HasPrefix(ref, "refs/") {
		ref = headsPrefix + ref
	}
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if sha == "" {
		delete(r.refs, ref)
		return
	}
	r.refs[ref] = sha
}

// Gate asks for access before files are given, "auto" or "manual"; these
// users have it. Documents about the repository stay open.
func (r *Repo) Gate(mode string, readers ...string) {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.gated, r.readers = mode, readers
}

// CloseListing makes a gated repository refuse its tree too.
func (r *Repo) CloseListing() {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.listing = true
}

// Hide makes a repository private: to all but these users it does not exist.
func (r *Repo) Hide(readers ...string) {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.private, r.readers = true, readers
}

// Disable makes the hub refuse a repository to all.
func (r *Repo) Disable() {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.disabled = true
}

// Head is the commit of main.
func (r *Repo) Head() string {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	return r.refs[mainRef]
}

// Entries lists the files of a revision, sorted by path.
func (r *Repo) Entries(revision string) []Entry {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	c := r.find(revision)
	if c == nil {
		return nil
	}
	var list []Entry
	for _, e := range c.entries {
		if !e.dir {
			list = append(list, e.Entry)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	return list
}

// Entry is one file of a revision.
func (r *Repo) Entry(revision, name string) (Entry, bool) {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	if c := r.find(revision); c != nil {
		if e := c.byPath[name]; e != nil && !e.dir {
			return e.Entry, true
		}
	}
	return Entry{}, false
}

// find is the commit that a revision names: a branch, a tag, a full ref, HEAD
// or the whole id of a commit. Short ids are not known.
func (r *Repo) find(revision string) *commit {
	if revision == "HEAD" {
		revision = mainRef
	}
	for _, ref := range []string{headsPrefix + revision, tagsPrefix + revision, revision} {
		if sha := r.refs[ref]; sha != "" {
			return r.commits[sha]
		}
	}
	return r.commits[revision]
}

// readable reports whether a user (empty: nobody) has access.
func (r *Repo) readable(user string) bool {
	return user != "" && slices.Contains(r.readers, user)
}

// card is the front matter of README.md as far as it is flat: scalars and
// lists of them.
func (c *commit) card() map[string]any {
	e := c.byPath["README.md"]
	if e == nil || e.dir {
		return nil
	}
	f, err := e.content.Open()
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // it is only read
	const maxCard = 64 << 10         // of a test's own making
	b, err := io.ReadAll(io.LimitReader(f, maxCard))
	if err != nil {
		return nil
	}
	text, ok := strings.CutPrefix(strings.ReplaceAll(string(b), "\r\n", "\n"), "---\n")
	if !ok {
		return nil
	}
	text, _, ok = strings.Cut(text, "\n---")
	if !ok {
		return nil
	}
	card := make(map[string]any)
	last := ""
	for line := range strings.SplitSeq(text, "\n") {
		if item, ok := strings.CutPrefix(strings.TrimSpace(line), "- "); ok && last != "" {
			list, _ := card[last].([]string)
			card[last] = append(list, plain(item))
			continue
		}
		if k, v, ok := strings.Cut(line, ":"); ok && k == strings.TrimSpace(k) {
			last = k
			card[k] = plain(v)
		}
	}
	return card
}

func plain(s string) string { return strings.Trim(strings.TrimSpace(s), `"'`) }
