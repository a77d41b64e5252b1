package registry

import (
	"strings"
)

// An endpoint is one kind of URL of the specification.
type endpoint int

const (
	endPing endpoint = iota + 1
	endToken
	endCatalog
	endTags
	endManifest
	endBlob
	endUploads // where uploads begin
	endUpload  // one upload
	endReferrers
)

const (
	root = "/v2/"
	// tokenPath is where clients fetch a bearer token. No repository name
	// begins with "_".
	tokenPath   = "_token"
	catalogPath = "_catalog"
)

// A route is a request's path, taken apart but not checked.
type route struct {
	end  endpoint
	name string // of the repository, its source's first
	ref  string // tag, digest or upload
}

// parseRoute takes a path apart from its right end: a repository may be
// called a/manifests/b.
func parseRoute(path string) (route, bool) {
	rest, ok := strings.CutPrefix(path, root)
	switch {
	case path == strings.TrimSuffix(root, "/") || ok && rest == "":
		return route{end: endPing}, true
	case !ok:
		return route{}, false
	case rest == tokenPath:
		return route{end: endToken}, true
	case rest == catalogPath:
		return route{end: endCatalog}, true
	}
	head, last := cutLast(rest)
	if name, ok := strings.CutSuffix(head, "/blobs/uploads"); ok {
		if last == "" {
			return route{end: endUploads, name: name}, true
		}
		return route{end: endUpload, name: name, ref: last}, true
	}
	name, kind := cutLast(head)
	if name == "" || last == "" {
		return route{}, false
	}
	switch {
	case kind == "blobs" && last == "uploads":
		return route{end: endUploads, name: name}, true
	case kind == "tags" && last == "list":
		return route{end: endTags, name: name}, true
	case kind == "manifests":
		return route{end: endManifest, name: name, ref: last}, true
	case kind == "blobs":
		return route{end: endBlob, name: name, ref: last}, true
	case kind == "referrers":
		return route{end: endReferrers, name: name, ref: last}, true
	}
	return route{}, false
}

// cutLast cuts at the last slash.
func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}
