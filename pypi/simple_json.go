package pypi

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// maxJSONDepth bounds nesting; the Simple API needs 5.
const maxJSONDepth = 32

// parseJSON reads a page of PEP 691. Keys that are not known are skipped, as
// it demands; known ones must be there once, in their exact spelling, with
// their type. The page is never held as a tree.
func parseJSON(body []byte, base *url.URL, keep func(string) bool) (*page, error) {
	j := newJSONReader(body)
	p := &page{}
	meta := false
	err := j.object(func(key string) (err error) {
		switch key {
		case "meta":
			return j.object(func(key string) error {
				if key != "api-version" {
					return j.skip()
				}
				meta = true
				v, _, err := j.text()
				if err != nil {
					return err
				}
				return checkAPI(v)
			})
		case "name":
			p.Name, _, err = j.text()
			return err
		case "project-status":
			return p.status(j)
		case "files":
			return j.array(func() error { return p.file(j, base, keep) })
		}
		return j.skip()
	})
	if err == nil {
		err = j.end()
	}
	if err != nil {
		return nil, err
	}
	if !meta {
		return nil, fmt.Errorf("%w: the page names none", errVersion)
	}
	return p, nil
}

// status reads the project-status object of PEP 792.
func (p *page) status(j *jsonReader) error {
	return j.object(func(key string) (err error) {
		var s string
		switch key {
		case "status":
			s, _, err = j.text()
			p.Status = plain(s)
		case "reason":
			s, _, err = j.text()
			p.StatusReason = plain(s)
		default:
			err = j.skip()
		}
		return err
	})
}

func (p *page) file(j *jsonReader, base *url.URL, keep func(string) bool) error {
	f := pageFile{Size: -1}
	href, hasName, hasURL := "", false, false
	var legacy artifact.Digest
	core := false
	err := j.object(func(key string) (err error) {
		switch key {
		case "filename":
			f.Filename, hasName, err = j.text()
		case "url":
			href, hasURL, err = j.text()
		case "hashes":
			err = f.hashes(j)
		case "requires-python":
			f.RequiresPython, _, err = j.text()
		case "upload-time":
			f.UploadTime, _, err = j.text()
		case "size":
			f.Size, err = j.size()
		case "yanked":
			f.Yanked, f.YankedReason, err = j.flagOrText()
		case "provenance":
			var href string
			href, _, err = j.text()
			f.Provenance = provenanceURL(base, href)
		case "core-metadata":
			core = true
			f.CoreMetadata, err = j.metadataHash()
		case "data-dist-info-metadata", "dist-info-metadata":
			legacy, err = j.metadataHash()
		default:
			err = j.skip()
		}
		if err != nil {
			return fmt.Errorf("file %q: %s: %w", clip(f.Filename), clip(key), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !hasName || !hasURL {
		return fmt.Errorf("file %q: filename or url is missing", clip(f.Filename))
	}
	if !core {
		f.CoreMetadata = legacy
	}
	return p.add(f, href, base, keep)
}

func (f *pageFile) hashes(j *jsonReader) error {
	return j.object(func(key string) error {
		v, _, err := j.text()
		if err != nil {
			return err
		}
		if key != "sha256" {
			f.OtherHash = true
			return nil
		}
		f.Digest, err = artifact.ParseHex(strings.ToLower(v))
		return err
	})
}
