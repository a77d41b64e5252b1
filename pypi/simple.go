package pypi

import (
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// Content types of PEP 691.
const (
	typeJSON   = "application/vnd.pypi.simple.v1+json"
	typeHTML   = "application/vnd.pypi.simple.v1+html"
	typePlain  = "text/html"
	acceptPage = typeJSON + ", " + typeHTML + ";q=0.1, " + typePlain + ";q=0.01"
)

const (
	// maxKept bounds the files of one page that match a pin: releases have
	// up to about 150.
	maxKept = 20_000
	// maxText bounds a reason or a version set that is carried on.
	maxText = 4096
)

// errVersion is a page of a major version that is not known.
var errVersion = errors.New("version of the Simple API")

// A page is a project's page of the Simple API, with those files only that
// are of interest.
type page struct {
	Name         string // as the page says; empty in HTML
	Status       string // PEP 792; empty is active
	StatusReason string
	Files        []pageFile
}

// A pageFile is one file of a page.
type pageFile struct {
	Filename       string
	URL            string // absolute, without query and fragment
	Digest         artifact.Digest
	OtherHash      bool // there is a hash, but not sha256
	Size           int64
	RequiresPython string
	Yanked         bool
	YankedReason   string
	UploadTime     string
	CoreMetadata   artifact.Digest
	Provenance     string // where its attestations lie; empty: none
	urlName        string // last part of the URL, percent-decoded once
}

// parsePage reads a page of either kind. base is the page's own URL; keep
// says whether a file is of interest. Every filename is checked, kept or not.
func parsePage(contentType string, body []byte, base *url.URL, keep func(filename string) bool) (*page, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, fmt.Errorf("content type %q: %w", clip(contentType), err)
	}
	switch {
	case media == typeJSON:
		return parseJSON(body, base, keep)
	case media == typeHTML, media == typePlain:
		return parseHTML(body, base, keep)
	case strings.HasPrefix(media, "application/vnd.pypi.simple."):
		return nil, fmt.Errorf("%w: %q, only 1 is known", errVersion, clip(media))
	}
	return nil, fmt.Errorf("content type %q is none of the Simple API", clip(media))
}

// checkAPI accepts 1.x.
func checkAPI(v string) error {
	major, minor, ok := strings.Cut(v, ".")
	one, err := strconv.ParseUint(major, 10, 32)
	if _, bad := strconv.ParseUint(minor, 10, 32); !ok || err != nil || bad != nil {
		return fmt.Errorf("%w: %q is malformed", errVersion, clip(v))
	}
	if one != 1 {
		return fmt.Errorf("%w: %q, only 1.x is known", errVersion, clip(v))
	}
	return nil
}

// add finishes a file and keeps it if it is wanted. href may be relative.
func (p *page) add(f pageFile, href string, base *url.URL, keep func(string) bool) error {
	if err := packaging.CheckFilename(f.Filename); err != nil {
		return err
	}
	if !keep(f.Filename) {
		return nil
	}
	if f.plainURL(href) {
		return p.keep(f)
	}
	u, err := base.Parse(strings.TrimSpace(href))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fmt.Errorf("%s: malformed URL", f.Filename)
	}
	if f.urlName, err = urlBase(u.String()); err != nil {
		return fmt.Errorf("%s: %w", f.Filename, err)
	}
	if f.Digest.IsZero() && !f.OtherHash {
		if err := f.fragment(u.Fragment); err != nil {
			return err
		}
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	f.URL = u.String()
	return p.keep(f)
}

// plainURL takes an absolute address in which nothing has to be decoded,
// resolved or cut off, as most are, without parsing it.
func (f *pageFile) plainURL(href string) bool {
	rest, ok := strings.CutPrefix(href, "https://")
	if !ok || f.Digest.IsZero() && !f.OtherHash || strings.Contains(rest, "//") || strings.Contains(rest, "/.") {
		return false
	}
	host, path, _ := strings.Cut(rest, "/")
	name := path[strings.LastIndexByte(path, '/')+1:]
	if host == "" || name == "" {
		return false
	}
	for _, c := range []byte(host) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	for _, c := range []byte(path) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("/._-~!", c) < 0 {
			return false
		}
	}
	f.URL, f.urlName = href, name
	return true
}

// keep takes a file whose address is known.
func (p *page) keep(f pageFile) error {
	f.RequiresPython, f.YankedReason = plain(f.RequiresPython), plain(f.YankedReason)
	if _, err := time.Parse(time.RFC3339Nano, f.UploadTime); err != nil {
		f.UploadTime = ""
	}
	if len(p.Files) == maxKept {
		return fmt.Errorf("over %d files of one project", maxKept)
	}
	p.Files = append(p.Files, f)
	return nil
}

// fragment reads the hash of PEP 503, "#sha256=...".
func (f *pageFile) fragment(s string) error {
	for part := range strings.SplitSeq(s, "&") {
		alg, value, _ := strings.Cut(part, "=")
		switch alg {
		case "sha256":
			d, err := artifact.ParseHex(strings.ToLower(value))
			if err != nil {
				return fmt.Errorf("%s: %w", f.Filename, err)
			}
			f.Digest = d
		case "md5", "sha1", "sha224", "sha384", "sha512":
			f.OtherHash = true
		}
	}
	return nil
}

// metadataHash reads the value of core-metadata in HTML: "sha256=...", "true"
// or nothing.
func metadataHash(s string) artifact.Digest {
	hexed, ok := strings.CutPrefix(s, "sha256=")
	if !ok {
		return artifact.Digest{}
	}
	d, err := artifact.ParseHex(strings.ToLower(hexed))
	if err != nil {
		return artifact.Digest{}
	}
	return d
}

// plain makes outside text fit to be carried on: one line of valid UTF-8
// without control characters, within maxText bytes.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < 0x20 || r >= 0x7f && r < 0xa0:
			return -1
		case r == '\uFFFD':
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return strings.TrimSpace(s)
}

// clip shortens outside text for an error message.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
