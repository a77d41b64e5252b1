package hub

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Kind is what a repository holds.
type Kind string

// The kinds that are carried.
const (
	Model   Kind = "model"
	Dataset Kind = "dataset"
)

// datasetsPrefix is how a dataset's name begins where a model's could stand.
const datasetsPrefix = "datasets/"

const (
	// maxName is the hub's own bound for a repository's id.
	maxName = 96
	// maxRevision bounds a branch's or tag's name; git servers take 255.
	maxRevision = 255
)

// A Repo names a repository of a hub.
type Repo struct {
	Kind Kind
	ID   string // "team/model", or "gpt2" in the manner of the hub's first years
}

// ParseRepo reads "team/model" or "datasets/team/name".
func ParseRepo(s string) (Repo, error) {
	r := Repo{Kind: Model, ID: s}
	if id, ok := strings.CutPrefix(s, datasetsPrefix); ok {
		r = Repo{Kind: Dataset, ID: id}
	}
	return r, r.check(s)
}

// check holds the hub's rules for names: letters, digits, "-", "_" and ".", no
// "--" and no "..", neither "-" nor "." at an end, at most one "/".
func (r Repo) check(s string) error {
	bad := func(why string) error { return fmt.Errorf("repository %q: %s", clip(s), why) }
	if r.ID == "" || len(r.ID) > maxName {
		return bad(fmt.Sprintf("want 1 to %d characters", maxName))
	}
	parts := strings.Split(r.ID, "/")
	if len(parts) > 2 {
		return bad("want ORGANISATION/NAME, or datasets/ORGANISATION/NAME")
	}
	for _, part := range parts {
		switch {
		case part == "":
			return bad("empty part")
		case strings.Trim(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "":
			return bad("want letters, digits, '-', '_' and '.'")
		case strings.Contains(part, "--") || strings.Contains(part, ".."):
			return bad("'--' and '..' are not for names")
		case strings.ContainsAny(part[:1]+part[len(part)-1:], "-."):
			return bad("'-' and '.' may not stand at an end")
		}
	}
	return nil
}

// String is the form that [ParseRepo] reads.
func (r Repo) String() string {
	if r.Kind == Dataset {
		return datasetsPrefix + r.ID
	}
	return r.ID
}

// API is the path of the repository's documents below the endpoint:
// "api/models/team/model".
func (r Repo) API() string { return "api/" + string(r.Kind) + "s/" + r.ID }

// CacheFolder is the repository's folder in a cache of huggingface_hub:
// "models--team--model".
func (r Repo) CacheFolder() string {
	return string(r.Kind) + "s--" + strings.ReplaceAll(r.ID, "/", "--")
}

// ResolvePath is the path of a file below the endpoint, percent-encoded: the
// revision as one segment, the file's name with its slashes.
func (r Repo) ResolvePath(revision, file string) string {
	segments := strings.Split(file, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return r.String() + "/resolve/" + url.PathEscape(revision) + "/" + strings.Join(segments, "/")
}

// IsCommit reports whether s is the name of a commit: 40 lower-case hex
// digits.
func IsCommit(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// CheckRevision accepts the name of a branch or tag, "refs/pr/7" or a commit,
// by the rules of git that keep it out of the way of a path.
func CheckRevision(s string) error {
	bad := func(why string) error { return fmt.Errorf("revision %q: %s", clip(s), why) }
	switch {
	case s == "" || len(s) > maxRevision:
		return bad(fmt.Sprintf("want 1 to %d characters", maxRevision))
	case strings.Contains(s, "@{") || s == "@":
		return bad("not a name in git")
	case strings.HasSuffix(s, ".lock"):
		return bad("a name in git does not end in .lock")
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return bad("a space, a control character or one of ~^:?*[\\ stands in it")
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, ".") || strings.Contains(part, "..") {
			return bad("a part is empty, starts with '.' or '-', ends in '.', or has '..'")
		}
	}
	return nil
}

// SplitRevision cuts "team/model@v1" into a repository's name and a revision,
// which is empty where there is none.
func SplitRevision(s string) (repo, revision string) {
	repo, revision, _ = strings.Cut(s, "@")
	return repo, revision
}

// CheckFile accepts the path of a file in a repository: one that can be
// created below a folder on any system.
func CheckFile(p string) error { return artifact.CheckPath(p) }

// clip shortens outside text for a message.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
