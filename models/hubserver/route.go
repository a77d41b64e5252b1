package hubserver

import (
	"net/url"
	"strings"

	"github.com/darkmirror/darkmirror/models/hub"
)

// do is what an address asks for.
type do string

const (
	doHarnesses do = "agent-harnesses"
	doTelemetry do = "telemetry"
	doWhoami    do = "whoami-v2"
	doList      do = "list"
	// Of a repository, as the API spells them; doInfo is "revision" and the
	// address without any.
	doInfo    do = "revision"
	doTree    do = "tree"
	doPaths   do = "paths-info"
	doRefs    do = "refs"
	doCommits do = "commits"
	doAuth    do = "auth-check"
	// Of a file.
	doResolve do = "resolve"
	doRaw     do = "raw"
)

const (
	apiPart      = "api"
	modelsPart   = "models"
	datasetsPart = "datasets"
	headRevision = "HEAD"
)

// A route is a request's path, taken apart. Nothing of it is known to be here.
type route struct {
	do       do
	repo     hub.Repo // its kind alone where a list is asked for
	revision string
	path     string // of a file or folder, without a slash at the end
}

// parseRoute takes apart the path below the endpoint, as it was sent: each
// segment is decoded by itself, since the slashes of a revision come encoded,
// and "+" is a plus. known says which repositories there are: a name may have
// one part, and may be a word of the API.
func parseRoute(escaped string, known func(hub.Repo) bool) (route, bool) {
	var segments []string
	for s := range strings.SplitSeq(strings.Trim(escaped, "/"), "/") {
		s, err := url.PathUnescape(s)
		if err != nil {
			return route{}, false
		}
		segments = append(segments, s)
	}
	if segments[0] == apiPart {
		return parseAPI(segments[1:], known)
	}
	kind := hub.Model
	if segments[0] == datasetsPart {
		kind, segments = hub.Dataset, segments[1:]
	}
	repo, rest := splitRepo(kind, segments, known)
	if len(rest) < 3 {
		return route{}, false
	}
	rt := route{do: do(rest[0]), repo: repo}
	rt.revision, rt.path = splitRevision(rest[1:])
	return rt, (rt.do == doResolve || rt.do == doRaw) && rt.path != ""
}

func parseAPI(segments []string, known func(hub.Repo) bool) (route, bool) {
	if len(segments) == 0 {
		return route{}, false
	}
	var kind hub.Kind
	switch first := segments[0]; first {
	case string(doTelemetry), string(doHarnesses), string(doWhoami):
		return route{do: do(first)}, first == string(doTelemetry) || len(segments) == 1
	case modelsPart:
		kind = hub.Model
	case datasetsPart:
		kind = hub.Dataset
	default:
		return route{}, false
	}
	if len(segments) == 1 {
		return route{do: doList, repo: hub.Repo{Kind: kind}}, true
	}
	rt := route{do: doInfo, revision: headRevision}
	var rest []string
	if rt.repo, rest = splitRepo(kind, segments[1:], known); len(rest) == 0 {
		return rt, true
	}
	rt.do, rest = do(rest[0]), rest[1:]
	switch {
	case rt.do.whole():
		return rt, len(rest) == 0
	case len(rest) == 0:
		return rt, false
	}
	rt.revision, rt.path = splitRevision(rest)
	switch rt.do {
	case doTree:
		return rt, true
	case doInfo, doCommits, doPaths:
		return rt, rt.path == ""
	}
	return route{}, false
}

// splitRepo cuts a repository's name off: one that there is, or else what has
// the form of one.
func splitRepo(kind hub.Kind, segments []string, known func(hub.Repo) bool) (hub.Repo, []string) {
	name := func(n int) hub.Repo { return hub.Repo{Kind: kind, ID: strings.Join(segments[:n], "/")} }
	for n := min(2, len(segments)); n > 0; n-- {
		if r := name(n); known(r) {
			return r, segments[n:]
		}
	}
	if len(segments) > 1 {
		if d := do(segments[1]); d.whole() || len(segments) > 2 && d.ofRevision() {
			return name(1), segments[1:]
		}
	}
	n := min(2, len(segments))
	return name(n), segments[n:]
}

// whole reports whether an address is about a repository as a whole.
func (d do) whole() bool { return d == doRefs || d == doAuth }

// ofRevision reports whether a revision follows in the address.
func (d do) ofRevision() bool {
	switch d {
	case doInfo, doTree, doPaths, doCommits, doResolve, doRaw:
		return true
	}
	return false
}

// splitRevision cuts a revision off a path. Some clients send the slashes of
// refs/pr/1 as they are.
func splitRevision(segments []string) (revision, path string) {
	n := 1
	if segments[0] == "refs" && len(segments) > 2 {
		n = 3
	}
	return strings.Join(segments[:n], "/"), strings.TrimSuffix(strings.Join(segments[n:], "/"), "/")
}
