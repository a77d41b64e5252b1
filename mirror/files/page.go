package files

import (
	"bytes"
	"encoding/json"
	"html"
	"net/url"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// Kinds of pages.
const (
	typeHTML = "text/html; charset=utf-8"
	typeJSON = "application/json"
	typeSums = "text/plain; charset=utf-8"

	pageSchema = "darkmirror.files/v1"
)

// A page is a listing in one form.
type page struct {
	body []byte
	etag string
}

type pageKey struct{ set, kind string }

type jsonIndex struct {
	Schema    string     `json:"schema"`
	Source    string     `json:"source,omitempty"`
	Bundle    uint64     `json:"bundle,omitempty"`
	Published *time.Time `json:"published,omitempty"`
	Sets      []jsonSet  `json:"sets"`
}

type jsonSet struct {
	Name    string     `json:"name"`
	Version string     `json:"version"`
	Files   []jsonFile `json:"files"`
}

type jsonFile struct {
	Path   string `json:"path"`
	Href   string `json:"href"` // relative to the page
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Origin string `json:"origin,omitempty"`
}

// page renders once for each publication.
func (s *state) page(key pageKey) (*page, error) {
	if p, ok := s.pages.Load(key); ok {
		if p, ok := p.(*page); ok {
			return p, nil
		}
	}
	sets := s.sets
	if key.set != "" {
		sets = []*fileSet{s.byName[key.set]}
	}
	var body []byte
	var err error
	switch key.kind {
	case typeJSON:
		body, err = s.json(sets, key.set == "")
	case typeSums:
		body = sums(sets, key.set == "")
	default:
		body = s.html(sets, key.set)
	}
	if err != nil {
		return nil, err
	}
	p := &page{body: body, etag: `"` + artifact.Sum(body).Hex() + `"`}
	s.pages.Store(key, p)
	return p, nil
}

// sums is what sha256sum writes; all has the sets' names before the paths.
func sums(sets []*fileSet, all bool) []byte {
	var b bytes.Buffer
	for _, set := range sets {
		if !all {
			return listing(set.files)
		}
		for _, f := range set.files {
			b.WriteString(f.digest.Hex() + "  " + set.name + "/" + f.path + "\n")
		}
	}
	return b.Bytes()
}

func (s *state) json(sets []*fileSet, all bool) ([]byte, error) {
	out := jsonIndex{Schema: pageSchema, Source: s.current.Source, Bundle: s.current.Seq, Sets: make([]jsonSet, len(sets))}
	if !s.current.Time.IsZero() {
		out.Published = &s.current.Time
	}
	for i, set := range sets {
		prefix := ""
		if all {
			prefix = set.name + "/"
		}
		js := jsonSet{Name: set.name, Version: set.version, Files: make([]jsonFile, len(set.files))}
		for j, f := range set.files {
			js.Files[j] = jsonFile{Path: f.path, Href: href(prefix + f.path), SHA256: f.digest.Hex(), Size: f.size, Origin: f.url}
		}
		out.Sets[i] = js
	}
	return json.Marshal(&out)
}

// href is a relative reference to a path: one that has a colon in its first
// part is no scheme.
func href(p string) string {
	parts := strings.Split(p, "/")
	for i, part := range parts {
		parts[i] = strings.ReplaceAll(url.PathEscape(part), "+", "%2B")
	}
	return "./" + strings.Join(parts, "/")
}

func (s *state) html(sets []*fileSet, set string) []byte {
	var b bytes.Buffer
	title := s.current.Source
	if set != "" {
		title += ": " + set + " " + sets[0].version
	}
	esc := html.EscapeString
	b.WriteString("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>" + esc(title) + "</title></head>\n<body>\n<h1>" + esc(title) + "</h1>\n")
	if set == "" {
		b.WriteString("<table>\n<tr><th>set</th><th>version</th><th>files</th><th>size</th></tr>\n")
		for _, set := range sets {
			b.WriteString("<tr><td><a href=\"" + esc(href(set.name)) + "/\">" + esc(set.name) + "</a></td><td>" + esc(set.version) + "</td><td>" +
				plural(len(set.files), "file") + "</td><td>" + sizeText(set.bytes()) + "</td></tr>\n")
		}
	} else {
		b.WriteString("<table>\n<tr><th>file</th><th>size</th><th>SHA-256</th></tr>\n")
		for _, f := range sets[0].files {
			b.WriteString("<tr><td><a href=\"" + esc(href(f.path)) + "\">" + esc(f.path) + "</a></td><td>" + sizeText(f.size) + "</td><td><code>" + f.digest.Hex() + "</code></td></tr>\n")
		}
	}
	b.WriteString("</table>\n<p><a href=\"" + sumsName + "\">" + sumsName + "</a></p>\n</body>\n</html>\n")
	return b.Bytes()
}
