package pypi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// jsonReader walks JSON token by token, so that depth is bounded and keys are
// taken exactly as they are written.
type jsonReader struct {
	dec   *json.Decoder
	depth int
}

func newJSONReader(b []byte) *jsonReader {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return &jsonReader{dec: dec}
}

func (j *jsonReader) token() (json.Token, error) {
	t, err := j.dec.Token()
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	return t, err
}

// end sees that nothing follows.
func (j *jsonReader) end() error {
	if _, err := j.dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the page")
	}
	return nil
}

func (j *jsonReader) open(want json.Delim) error {
	t, err := j.token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("want %v", want)
	}
	return j.enter()
}

func (j *jsonReader) enter() error {
	if j.depth++; j.depth > maxJSONDepth {
		return fmt.Errorf("nested deeper than %d", maxJSONDepth)
	}
	return nil
}

// object calls fn for each key; fn takes the value.
func (j *jsonReader) object(fn func(key string) error) error {
	if err := j.open('{'); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for j.dec.More() {
		t, err := j.token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok || seen[key] {
			return fmt.Errorf("key %q is there twice", clip(key))
		}
		seen[key] = true
		if err := fn(key); err != nil {
			return err
		}
	}
	j.depth--
	_, err := j.token()
	return err
}

// array calls fn for each value.
func (j *jsonReader) array(fn func() error) error {
	if err := j.open('['); err != nil {
		return err
	}
	for j.dec.More() {
		if err := fn(); err != nil {
			return err
		}
	}
	j.depth--
	_, err := j.token()
	return err
}

// skip passes over any value.
func (j *jsonReader) skip() error {
	from := j.depth
	for {
		t, err := j.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if err := j.enter(); err != nil {
				return err
			}
		case json.Delim('}'), json.Delim(']'):
			j.depth--
		}
		if j.depth == from {
			return nil
		}
	}
}

// text takes a string or null.
func (j *jsonReader) text() (s string, ok bool, err error) {
	t, err := j.token()
	if err != nil || t == nil {
		return "", false, err
	}
	s, ok = t.(string)
	if !ok {
		return "", false, j.wrong(t, "a string")
	}
	return s, true, nil
}

// size takes a length or null.
func (j *jsonReader) size() (int64, error) {
	t, err := j.token()
	if err != nil || t == nil {
		return -1, err
	}
	n, ok := t.(json.Number)
	if !ok {
		return -1, j.wrong(t, "a number")
	}
	v, err := n.Int64()
	if err != nil || v < 0 {
		return -1, fmt.Errorf("%q is not a size", clip(n.String()))
	}
	return v, nil
}

// flagOrText takes what "yanked" may be: a boolean, a reason or null.
func (j *jsonReader) flagOrText() (set bool, text string, err error) {
	t, err := j.token()
	if err != nil {
		return false, "", err
	}
	switch v := t.(type) {
	case nil:
		return false, "", nil
	case bool:
		return v, "", nil
	case string:
		return v != "", v, nil
	}
	return false, "", j.wrong(t, "a boolean or a string")
}

// metadataHash takes what "core-metadata" may be: a boolean, an object of
// hashes or null.
func (j *jsonReader) metadataHash() (d artifact.Digest, err error) {
	t, err := j.token()
	if err != nil {
		return d, err
	}
	switch t.(type) {
	case nil, bool:
		return d, nil
	}
	if t != json.Delim('{') {
		return d, j.wrong(t, "a boolean or an object")
	}
	for j.dec.More() {
		key, err := j.token()
		if err != nil {
			return d, err
		}
		v, ok, err := j.text()
		if err != nil {
			return d, err
		}
		if key == "sha256" && ok {
			if d, err = artifact.ParseHex(strings.ToLower(v)); err != nil {
				return d, err
			}
		}
	}
	_, err = j.token()
	return d, err
}

func (j *jsonReader) wrong(t json.Token, want string) error {
	return fmt.Errorf("%T, want %s", t, want)
}
