package walk

import (
	"hash/maphash"
	"path"
	"strings"
	"unicode/utf8"
)

const (
	// maxName bounds a name, as systems do.
	maxName = 4096
	// maxLink bounds the target of a link.
	maxLink = 4096
)

// What a name was seen as.
const (
	seenFolder byte = iota + 1
	seenImplied
	seenLink
	seenFile
)

// names holds the rules for the names of one archive, apart from zip, whose
// reader has them. It keeps 16 bytes a name, however long it is.
type names struct {
	tree bool // of a file system
	seed maphash.Seed
	seen map[uint64]sighting
}

type sighting struct {
	exact uint64
	kind  byte
}

func newNames(tree bool) *names {
	return &names{tree: tree, seed: maphash.MakeSeed(), seen: make(map[uint64]sighting)}
}

// clean is the name without what says nothing, "" for the top.
func clean(name string) string {
	if c := path.Clean(name); c != name {
		name = c
	}
	if name == "." || name == "/" {
		return ""
	}
	return strings.TrimPrefix(name, "/")
}

// check looks at a name; "" is none that is refused.
func (n *names) check(name string) string {
	switch {
	case name == "":
		return "no name"
	case len(name) > maxName:
		return "a name of more than 4096 bytes"
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c < 0x20 || c == 0x7f:
			return "a control character in a name"
		case c == '\\' && !n.tree:
			return "a backslash in a name, which some systems take for a slash"
		}
	}
	if !n.tree {
		switch {
		case name[0] == '/':
			return "an absolute name"
		case len(name) > 1 && name[1] == ':':
			return "a name with a drive letter"
		case !utf8.ValidString(name):
			return "a name that is not UTF-8"
		}
	}
	for seg := range strings.SplitSeq(name, "/") {
		if seg == ".." {
			return "a name with a .. part"
		}
	}
	return ""
}

// add notes a name and says what is wrong with it beside those before.
func (n *names) add(name string, kind byte) (code, text string) {
	name = clean(name)
	if name == "" {
		return "", ""
	}
	exact := maphash.String(n.seed, name)
	key := exact
	if !n.tree {
		key = maphash.String(n.seed, strings.ToLower(name))
		if code, text = n.parents(name); code != "" {
			return code, text
		}
	}
	before, ok := n.seen[key]
	switch {
	case !ok, before.kind == seenImplied && kind == seenFolder && before.exact == exact:
		n.seen[key] = sighting{exact, kind}
		return "", ""
	case before.exact != exact:
		return CodeCollision, "only letter case tells this name from one before"
	case before.kind == seenFolder && kind == seenFolder:
		if n.tree {
			return "", ""
		}
		return CodeDuplicate, "this folder is there twice"
	case (before.kind <= seenImplied) != (kind == seenFolder):
		return CodeDuplicate, "a file and a folder, or a link, of one name"
	}
	return CodeDuplicate, "this name is there twice"
}

// parents notes the folders that a name lies in.
func (n *names) parents(name string) (code, text string) {
	for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		exact, key := maphash.String(n.seed, name[:i]), maphash.String(n.seed, strings.ToLower(name[:i]))
		before, ok := n.seen[key]
		switch {
		case !ok:
			n.seen[key] = sighting{exact, seenImplied}
		case before.exact != exact:
			return CodeCollision, "only letter case tells its folder from a name before"
		case before.kind == seenLink:
			return CodeLink, "lies behind a link of the same archive"
		case before.kind == seenFile:
			return CodeDuplicate, "its folder is a file too"
		default:
			return "", "" // what that one lies in was noted with it
		}
	}
	return "", ""
}

// has reports whether a name was seen as anything but a folder.
func (n *names) has(name string) bool {
	name = clean(name)
	if !n.tree {
		name = strings.ToLower(name)
	}
	s, ok := n.seen[maphash.String(n.seed, name)]
	return ok && s.kind > seenImplied
}

// leads reports whether a symbolic link leads out of the archive.
func leads(name, target string) bool {
	if target == "" || target[0] == '/' || len(target) > 1 && target[1] == ':' || strings.ContainsAny(target, "\\\x00") {
		return true
	}
	to := path.Join(path.Dir(path.Clean(name)), target)
	return to == ".." || strings.HasPrefix(to, "../") || path.IsAbs(to)
}
