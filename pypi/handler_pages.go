package pypi

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// gzipFrom is the page size from which compression pays.
	gzipFrom = 1 << 10
	// maxPages bounds the pages that are kept, plain and compressed: all of a
	// closure of 2,000 projects are 100 MiB. What is beyond it is rendered for
	// each request.
	maxPages = 128 << 20
)

// pages are the forms of one page; the two HTML types are the same bytes.
type pages struct{ json, html onePage }

// A onePage is rendered when it is first asked for, once.
type onePage struct {
	mu   sync.Mutex // held while rendering
	kept atomic.Pointer[rendered]
}

// rendered is one page in one form. It does not change.
type rendered struct {
	body, packed []byte
	etags        [4][]string // by etag
}

// etag is the strong tag of a representation, as a header's value: the two
// HTML types are different ones, and so is a compressed one.
func (r *rendered) etag(kind string, packed bool) []string {
	i := 0
	if kind == typeHTML {
		i += 2
	}
	if packed {
		i++
	}
	return r.etags[i]
}

// page returns the list of projects (p is nil) or a project's page.
func (s *state) page(p *project, kind string) (*rendered, error) {
	forms := &s.list
	if p != nil {
		forms = &p.pages
	}
	pg := &forms.html
	if kind == typeJSON {
		pg = &forms.json
	}
	if r := pg.kept.Load(); r != nil {
		return r, nil
	}
	pg.mu.Lock()
	defer pg.mu.Unlock()
	if r := pg.kept.Load(); r != nil {
		return r, nil
	}
	r, err := s.rendered(p, kind)
	if err != nil {
		return nil, err
	}
	size := int64(len(r.body) + len(r.packed))
	if s.room.Add(-size) >= 0 {
		pg.kept.Store(r)
	} else {
		s.room.Add(size)
	}
	return r, nil
}

func (s *state) rendered(p *project, kind string) (*rendered, error) {
	body, err := s.render(p, kind)
	if err != nil {
		return nil, err
	}
	r := &rendered{body: body}
	if len(body) >= gzipFrom {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := z.Write(body)
		if err := errors.Join(err, z.Close()); err != nil {
			return nil, err
		}
		r.packed = bytes.Clone(b.Bytes()) // without the buffer's spare room
	}
	digest := artifact.Sum(body).Hex()
	for i, suffix := range []string{"", "-gzip", "-v1", "-v1-gzip"} {
		r.etags[i] = []string{`"` + digest + suffix + `"`}
	}
	return r, nil
}
