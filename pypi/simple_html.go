package pypi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// maxToken bounds one tag or text of an HTML page.
const maxToken = 1 << 20

// htmlPage reads tags one after another; no tree is built.
type htmlPage struct {
	page
	base    *url.URL
	keep    func(string) bool
	based   bool // a base element was seen
	anchor  bool // inside an a element
	text    strings.Builder
	current map[string]string
}

// parseHTML reads a page of PEP 503 with the attributes of PEP 592, 629, 658,
// 714 and 792. A file's name is the last part of its URL.
func parseHTML(body []byte, base *url.URL, keep func(string) bool) (*page, error) {
	h := &htmlPage{base: base, keep: keep}
	z := html.NewTokenizer(bytes.NewReader(body))
	z.SetMaxBuf(maxToken)
	for {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("HTML: %w", err)
			}
			if h.anchor {
				return nil, errors.New("HTML: ends inside an anchor")
			}
			return &h.page, nil
		case html.StartTagToken, html.SelfClosingTagToken:
			if err := h.open(z); err != nil {
				return nil, err
			}
		case html.EndTagToken:
			if name, _ := z.TagName(); string(name) == "a" && h.anchor {
				if err := h.close(); err != nil {
					return nil, err
				}
			}
		case html.TextToken:
			if h.anchor && h.text.Len() < maxText {
				h.text.Write(z.Text())
			}
		}
	}
}

func (h *htmlPage) open(z *html.Tokenizer) error {
	name, more := z.TagName()
	switch string(name) {
	case "a", "base", "meta":
	default:
		return nil
	}
	tag := string(name)
	attr := make(map[string]string)
	for more {
		var k, v []byte
		k, v, more = z.TagAttr()
		// A browser takes the first of two equal attributes; so do we.
		if _, dup := attr[string(k)]; !dup {
			attr[string(k)] = string(v)
		}
	}
	switch tag {
	case "a":
		if h.anchor {
			return errors.New("HTML: an anchor inside an anchor")
		}
		h.anchor, h.current = true, attr
		h.text.Reset()
	case "base":
		if href, ok := attr["href"]; ok && !h.based {
			u, err := h.base.Parse(strings.TrimSpace(href))
			if err != nil {
				return errors.New("HTML: malformed base")
			}
			h.base, h.based = u, true
		}
	case "meta":
		return h.meta(attr["name"], attr["content"])
	}
	return nil
}

func (h *htmlPage) meta(name, content string) error {
	switch name {
	case "pypi:repository-version":
		return checkAPI(content)
	case "pypi:project-status":
		h.Status = plain(content)
	case "pypi:project-status-reason":
		h.StatusReason = plain(content)
	}
	return nil
}

// close ends an anchor, which is a file if it has an href.
func (h *htmlPage) close() error {
	h.anchor = false
	href, ok := h.current["href"]
	if !ok {
		return nil
	}
	u, err := h.base.Parse(strings.TrimSpace(href))
	if err != nil {
		return errors.New("HTML: malformed link")
	}
	name, err := urlBase(u.String())
	if err != nil {
		return fmt.Errorf("HTML: %w", err)
	}
	if name == "" || !strings.Contains(name, ".") {
		return nil // a link to a folder, not a file
	}
	f := pageFile{Filename: name, Size: -1, RequiresPython: h.current["data-requires-python"]}
	f.YankedReason, f.Yanked = h.current["data-yanked"]
	f.Provenance = provenanceURL(h.base, h.current["data-provenance"])
	if v, ok := h.current["data-core-metadata"]; ok {
		f.CoreMetadata = metadataHash(v)
	} else {
		f.CoreMetadata = metadataHash(h.current["data-dist-info-metadata"])
	}
	before := len(h.Files)
	if err := h.add(f, href, h.base, h.keep); err != nil {
		return err
	}
	if len(h.Files) == before {
		return nil
	}
	// PEP 503: the text of the anchor is the filename.
	if text := strings.TrimSpace(h.text.String()); text != name {
		h.Files[before].urlName = text
	}
	return nil
}
