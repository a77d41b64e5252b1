package pypi

import (
	"bytes"
	"encoding/json"
	"html"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// apiVersion is what the pages offer: PEP 700 (1.1), the provenance of PEP 740
// (1.3) and the status markers of PEP 792 (1.4).
const apiVersion = "1.4"

type jsonMeta struct {
	APIVersion string `json:"api-version"`
}

type jsonList struct {
	Meta     jsonMeta   `json:"meta"`
	Projects []jsonName `json:"projects"`
}

type jsonName struct {
	Name string `json:"name"`
}

type jsonProject struct {
	Meta     jsonMeta   `json:"meta"`
	Name     string     `json:"name"`
	Status   jsonStatus `json:"project-status"`
	Versions []string   `json:"versions"`
	Files    []jsonFile `json:"files"`
}

type jsonStatus struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"`
}

type jsonFile struct {
	Filename       string     `json:"filename"`
	URL            string     `json:"url"`
	Hashes         jsonHashes `json:"hashes"`
	RequiresPython string     `json:"requires-python,omitempty"`
	Size           int64      `json:"size"`
	UploadTime     string     `json:"upload-time,omitempty"`
	Yanked         jsonYanked `json:"yanked"`
	// CoreMetadata has no omitted form that old clients read alike: a file
	// without metadata has no key.
	CoreMetadata *jsonHashes `json:"core-metadata,omitempty"`
	Provenance   string      `json:"provenance,omitempty"`
}

type jsonHashes struct {
	SHA256 string `json:"sha256"`
}

// jsonYanked is false, true, or a reason.
type jsonYanked struct {
	yanked bool
	reason string
}

// MarshalJSON writes the form of PEP 691.
func (y jsonYanked) MarshalJSON() ([]byte, error) {
	if y.yanked && y.reason != "" {
		return json.Marshal(y.reason)
	}
	return json.Marshal(y.yanked)
}

// render writes the list of projects (p is nil) or a project's page.
func (s *state) render(p *project, kind string) ([]byte, error) {
	switch {
	case p == nil && kind == typeJSON:
		list := jsonList{Meta: jsonMeta{apiVersion}, Projects: make([]jsonName, len(s.names))}
		for i, n := range s.names {
			list.Projects[i].Name = n
		}
		return json.Marshal(&list)
	case p == nil:
		return s.listHTML(), nil
	case kind == typeJSON:
		return p.json()
	}
	return p.html(), nil
}

// path is where a file lies below the index's root.
func (f *currentFile) path() string {
	if f.Blake2b == "" {
		return "files/" + f.File.SHA256.Hex() + "/" + f.File.Filename
	}
	return "packages/" + f.Blake2b[:2] + "/" + f.Blake2b[2:4] + "/" + f.Blake2b[4:] + "/" + f.File.Filename
}

// href is a file's link, relative to its project's page.
func (f *currentFile) href() string {
	dir, name := path.Split(f.path())
	return "../../" + dir + strings.ReplaceAll(url.PathEscape(name), "+", "%2B")
}

// provenance is the link of a file's attestations, or nothing.
func (f *currentFile) provenance() string {
	if f.Provenance == "" {
		return ""
	}
	return f.href() + ".provenance"
}

// uploadTime is the time in the form of PEP 700: UTC, six digits at most.
func (f *currentFile) uploadTime() string {
	t, err := time.Parse(time.RFC3339Nano, f.File.UploadTime)
	if err != nil {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.999999Z")
}

func (p *currentProject) json() ([]byte, error) {
	out := jsonProject{
		Meta: jsonMeta{apiVersion}, Name: p.Name, Status: jsonStatus{Status: "active", Reason: p.StatusReason}, Versions: p.versions(),
		Files: make([]jsonFile, 0, len(p.Files)),
	}
	if p.Status != "" {
		out.Status.Status = p.Status
	}
	for i := range p.Files {
		f := &p.Files[i]
		file := jsonFile{
			Filename: f.File.Filename, URL: f.href(), Hashes: jsonHashes{f.File.SHA256.Hex()},
			RequiresPython: f.File.RequiresPython, Size: f.File.Size, UploadTime: f.uploadTime(),
			Yanked: jsonYanked{f.File.Yanked, f.File.YankedReason}, Provenance: f.provenance(),
		}
		if f.Metadata != "" {
			file.CoreMetadata = &jsonHashes{f.metadataHex()}
		}
		out.Files = append(out.Files, file)
	}
	return json.Marshal(&out)
}

func (f *currentFile) metadataHex() string { return strings.TrimPrefix(f.Metadata, "sha256:") }

// versions lists the versions of the files, oldest first.
func (p *currentProject) versions() []string {
	var vs []packaging.Version
	for i := range p.Files {
		if v, err := packaging.ParseVersion(p.Files[i].File.Version); err == nil {
			vs = append(vs, v)
		}
	}
	slices.SortFunc(vs, packaging.Version.Compare)
	out := make([]string, 0, len(vs))
	for _, v := range vs {
		out = append(out, v.String())
	}
	return slices.Compact(out)
}

const htmlHead = "<!DOCTYPE html>\n<html>\n  <head>\n    <meta charset=\"utf-8\">\n    <meta name=\"pypi:repository-version\" content=\"" + apiVersion + "\">\n"

func (s *state) listHTML() []byte {
	var b bytes.Buffer
	b.WriteString(htmlHead + "    <title>Simple index</title>\n  </head>\n  <body>\n")
	for _, n := range s.names {
		b.WriteString("    <a href=\"" + n + "/\">" + n + "</a><br>\n")
	}
	b.WriteString("  </body>\n</html>\n")
	return b.Bytes()
}

func (p *currentProject) html() []byte {
	var b bytes.Buffer
	b.WriteString(htmlHead)
	if p.Status != "" {
		attribute(&b, "    <meta name=\"pypi:project-status\" content", p.Status)
		b.WriteString(">\n")
		if p.StatusReason != "" {
			attribute(&b, "    <meta name=\"pypi:project-status-reason\" content", p.StatusReason)
			b.WriteString(">\n")
		}
	}
	b.WriteString("    <title>Links for " + p.Name + "</title>\n  </head>\n  <body>\n    <h1>Links for " + p.Name + "</h1>\n")
	for i := range p.Files {
		f := &p.Files[i]
		attribute(&b, "    <a href", f.href()+"#sha256="+f.File.SHA256.Hex())
		if f.File.RequiresPython != "" {
			attribute(&b, " data-requires-python", f.File.RequiresPython)
		}
		if f.Metadata != "" {
			attribute(&b, " data-core-metadata", "sha256="+f.metadataHex())
			attribute(&b, " data-dist-info-metadata", "sha256="+f.metadataHex())
		}
		if link := f.provenance(); link != "" {
			attribute(&b, " data-provenance", link)
		}
		if f.File.Yanked {
			attribute(&b, " data-yanked", f.File.YankedReason)
		}
		b.WriteString(">" + html.EscapeString(f.File.Filename) + "</a><br>\n")
	}
	b.WriteString("  </body>\n</html>\n")
	return b.Bytes()
}

func attribute(b *bytes.Buffer, name, value string) {
	b.WriteString(name + "=\"" + html.EscapeString(value) + "\"")
}
