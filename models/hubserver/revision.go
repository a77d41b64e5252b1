package hubserver

import (
	"bytes"
	"crypto/sha1" // #nosec G505 -- git's object ids are SHA-1
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	mainBranch  = "main"
	headsPrefix = "refs/heads/"
	tagsPrefix  = "refs/tags/"
	prPrefix    = "refs/pr/"
	refsPrefix  = "refs/"
	// shownRefs bounds the revisions in a message.
	shownRefs = 8
)

// A revision is one that is served, or arriving.
type revision struct {
	*models.Revision
	kept  bool      // the branch has left it
	seq   uint64    // of the bundle that its publication came with
	time  time.Time // of the publication
	items []item    // in git's order: a folder stands before what is in it

	cardOnce sync.Once
	cardData map[string]string

	mu      sync.Mutex
	have    int       // of the files that are arriving
	counted time.Time // until when that holds
}

// An item is a file or a folder.
type item struct {
	key  string       // its path; that of a folder ends in a slash
	file *models.File // nil for a folder
	oid  hub.OID      // of a folder's tree
	end  int          // behind what is in a folder
}

func newRevision(r *models.Revision, seq uint64, at time.Time) *revision {
	out := &revision{Revision: r, seq: seq, time: at}
	out.grow("", r.Files)
	return out
}

// grow appends what is in a folder, whose files these are, and returns the id
// that git would give it if all of them are carried and none is executable.
func (r *revision) grow(dir string, files []models.File) hub.OID {
	var tree bytes.Buffer
	for len(files) > 0 {
		name, _, deeper := strings.Cut(files[0].Path[len(dir):], "/")
		if !deeper {
			r.items = append(r.items, item{key: files[0].Path, file: &files[0]})
			fmt.Fprintf(&tree, "100644 %s\x00%s", name, raw(files[0].OID))
			files = files[1:]
			continue
		}
		sub := dir + name + "/"
		n := sort.Search(len(files), func(i int) bool { return !strings.HasPrefix(files[i].Path, sub) })
		at := len(r.items)
		r.items = append(r.items, item{key: sub})
		oid := r.grow(sub, files[:n])
		r.items[at].oid, r.items[at].end = oid, len(r.items)
		fmt.Fprintf(&tree, "40000 %s\x00%s", name, raw(oid))
		files = files[n:]
	}
	sum := sha1.Sum(fmt.Appendf(nil, "tree %d\x00%s", tree.Len(), tree.Bytes())) // #nosec G401 -- see the import
	return hub.OID(hex.EncodeToString(sum[:]))
}

// raw is an id's bytes; the set has checked it.
func raw(id hub.OID) []byte {
	b, err := hex.DecodeString(string(id))
	if err != nil {
		return nil
	}
	return b
}

// path is the item's own, without a slash.
func (e *item) path() string { return strings.TrimSuffix(e.key, "/") }

// item finds a file or a folder.
func (r *revision) item(path string) (int, bool) {
	for _, key := range []string{path, path + "/"} {
		if i, ok := slices.BinarySearchFunc(r.items, key, func(e item, key string) int { return strings.Compare(e.key, key) }); ok {
			return i, path != ""
		}
	}
	return 0, false
}

// below lists what is in a folder, "" for the root, and deeper folders too
// where recursive: at most n items from the first on, and whether there are
// more. A file's path lists the file alone. ok is false where there is neither.
func (r *revision) below(dir string, recursive bool, first, n int) (list []*item, more, ok bool) {
	i, end := 0, len(r.items)
	if dir != "" {
		at, found := r.item(dir)
		if !found {
			return nil, false, false
		}
		i, end = at+1, r.items[at].end
		if r.items[at].file != nil {
			i, end = at, at+1
		}
	}
	for ; i < end; i++ {
		e := &r.items[i]
		switch {
		case first > 0:
			first--
		case len(list) == n:
			return list, true, true
		default:
			list = append(list, e)
		}
		if e.file == nil && !recursive {
			i = e.end - 1
		}
	}
	return list, false, true
}

// stands reports whether a name means this revision.
func (r *revision) stands(name string) bool {
	return name == r.Commit || slices.ContainsFunc(r.Refs, func(ref string) bool {
		return name == ref || name == fullRef(ref) || name == headRevision && ref == mainBranch
	})
}

// arrived counts the files that are inside. Each is a look into the store, so
// counting takes little of the time.
func (r *revision) arrived(st *store.Store) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	began := time.Now()
	if began.Before(r.counted) {
		return r.have
	}
	r.have = 0
	for i := range r.Files {
		if st.Has(r.Files[i].Blob) {
			r.have++
		}
	}
	r.counted = time.Now().Add(max(lookEvery, 20*time.Since(began)))
	return r.have
}

// fullRef is a reference as git writes it. What was asked for does not tell
// branches from tags: a name that begins as a version does is shown as a tag.
func fullRef(ref string) string {
	switch {
	case strings.HasPrefix(ref, refsPrefix):
		return ref
	case startsWithDigit(strings.TrimPrefix(ref, "v")):
		return tagsPrefix + ref
	}
	return headsPrefix + ref
}

func startsWithDigit(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

// noRevision names those that there are.
func noRevision(name hub.Repo, revision string, shares []*share) *fault {
	var there []string
	for _, s := range shares {
		for _, r := range s.revisions {
			if len(r.Refs) == 0 {
				there = append(there, r.Commit)
			}
			there = append(there, r.Refs...)
		}
	}
	if len(there) == 0 {
		there = append(there, "none yet")
	}
	slices.Sort(there)
	there = slices.Compact(there)
	if more := len(there) - shownRefs; more > 0 {
		there = append(there[:shownRefs], fmt.Sprintf("%d more", more))
	}
	return faultf(http.StatusNotFound, hub.CodeRevisionNotFound, "%s has no revision %s here; there are: %s", name, clip(revision), strings.Join(there, ", "))
}
