package pypi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/klauspost/compress/zstd"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// pagesAtOnce is how many pages of locks are read at once, as long as they
	// are small. Resolving reads up to walkers of them: memory is at most that
	// many times smallPage, and in practice as many as there are connections.
	pagesAtOnce = 8
	// smallPage is the size up to which pages are read side by side. Nearly
	// all are below; the others are read one at a time.
	smallPage = 4 << 20
	// maxKeptPage bounds a page that is kept, compressed: the largest known
	// has 40 MiB of text, which is a tenth of it.
	maxKeptPage = 32 << 20
	// maxKeptHead bounds the line before a kept page; a longer address is not
	// worth it.
	maxKeptHead = 8 << 10
	// maxValidator bounds an ETag; what is longer is no digest.
	maxValidator = 256
	// codeLimit is [fetch]'s, of a document over its limit.
	codeLimit = "FETCH-LIMIT"
)

// page fetches and reads a project's page. host is where it came from.
func (s *Source) page(ctx context.Context, name string, keep func(string) bool) (pg *page, host string, err error) {
	if s.internal(name) { // whoever wants it: a lock, too
		return nil, "", &artifact.Refusal{Class: ErrLock, Code: "PYPI-INTERNAL", Subject: s.name + ": " + name, Reason: "the name is reserved as internal, and never asked for outside"}
	}
	ix := s.indexOf(name)
	u := ix.url.JoinPath(name, "/").String()
	resp, err := s.get(ctx, ix, u, min(smallPage, s.cfg.MaxPage))
	if overLimit(err) && s.cfg.MaxPage > smallPage {
		// A large page: one at a time, so that memory stays flat.
		s.big.Lock()
		defer s.big.Unlock()
		resp, err = s.get(ctx, ix, u, s.cfg.MaxPage)
	}
	subject := s.name + ": " + name
	switch {
	case overLimit(err):
		return nil, "", &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-PAGE-LIMIT", Subject: subject, Reason: fmt.Sprintf("its page has over %d bytes (max_page)", s.cfg.MaxPage)}
	case ix.lacks(err):
		return nil, "", &artifact.Refusal{Class: artifact.ErrUnavailable, Code: codeNotFound, Subject: subject, Reason: "the index does not have the project", Err: err}
	case err != nil:
		return nil, "", err
	}
	base, err := url.Parse(resp.URL)
	if err != nil {
		return nil, "", err
	}
	pg, err = parsePage(resp.Header.Get("Content-Type"), resp.Body, base, keep)
	if err != nil {
		r := &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-PAGE", Subject: subject, Reason: "its page cannot be read", Err: err}
		switch {
		case errors.Is(err, errVersion):
			r.Class, r.Code = artifact.ErrUnavailable, "PYPI-API-VERSION"
		case errors.Is(err, packaging.ErrFilename):
			r.Code = "PYPI-FILENAME"
		}
		return nil, "", r
	}
	if pg.Name != "" {
		if got, err := packaging.NormalizeName(pg.Name); err != nil || got != name {
			return nil, "", &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-PAGE", Subject: subject, Reason: "the index sent the page of another project", Want: name, Got: clip(pg.Name)}
		}
	}
	return pg, base.Host, nil
}

// get asks for a page, and with the validator of the one that is kept where
// there is one: the answer is then mostly that nothing has changed.
func (s *Source) get(ctx context.Context, ix *index, u string, limit int64) (*fetch.Response, error) {
	kept := s.keptPage(u)
	o := fetch.GetOptions{Accept: acceptPage, Limit: limit}
	if kept != nil {
		if kept.Size > limit {
			return nil, errLargePage
		}
		o.ETag = kept.ETag
	}
	resp, err := ix.client.Get(ctx, u, o)
	switch {
	case err != nil:
		return nil, err
	case resp.Status == http.StatusNotModified && kept != nil:
		if body, err := s.keptBody(kept); err == nil {
			return &fetch.Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {kept.Type}}, URL: kept.URL, Body: body}, nil
		}
		// Damaged here; whole over there.
		if resp, err = ix.client.Get(ctx, u, fetch.GetOptions{Accept: acceptPage, Limit: limit}); err != nil {
			return nil, err
		}
	}
	if resp.Status != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", fetch.Redact(u), resp.Status)
	}
	return resp, s.keepPage(u, resp)
}

// errLargePage is what a page that is known to be large gives before it is
// asked for.
var errLargePage = &artifact.Refusal{Class: artifact.ErrIntegrity, Code: codeLimit, Subject: "a kept page", Reason: "it is large"}

func overLimit(err error) bool {
	r, ok := errors.AsType[*artifact.Refusal](err)
	return ok && r.Code == codeLimit
}

// A keptPage is a page as the index sent it last, with what is needed to ask
// whether it still is: a line of JSON, then the body as a zstd frame. It is a
// blob under an alias, so what is damaged is not there.
type keptPage struct {
	ETag string `json:"etag"`
	Type string `json:"type"`
	URL  string `json:"url"` // after redirects, as [fetch.Response] has it
	Size int64  `json:"size"`

	blob artifact.Digest
	head int64 // bytes before the frame
}

func pageAlias(u string) string { return "pypi-page-" + artifact.Sum([]byte(u)).Hex() }

// keptPage is what is known of the page that is kept for an address; nil where
// there is none. The page itself stays where it is: many addresses are asked
// for at once, and most answers are that nothing has changed.
func (s *Source) keptPage(u string) *keptPage {
	d, ok := s.store.Alias(pageAlias(u))
	if !ok {
		return nil
	}
	f, err := s.store.File(d)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }() // it was only read
	head, err := bufio.NewReaderSize(f, maxKeptHead).ReadSlice('\n')
	if err != nil {
		return nil
	}
	k := &keptPage{blob: d, head: int64(len(head))}
	if err := strictjson.Unmarshal(head[:len(head)-1], k); err != nil || k.Size < 0 || k.Size > s.cfg.MaxPage {
		return nil
	}
	return k
}

// keptBody reads the page itself.
func (s *Source) keptBody(k *keptPage) (_ []byte, err error) {
	f, err := s.store.File(k.blob)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	frame := io.NewSectionReader(f, k.head, maxKeptPage)
	r, err := zstd.NewReader(frame, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(k.Size, 1<<20))))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body := make([]byte, k.Size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return body, nil
}

// keepPage keeps a page that has a validator.
func (s *Source) keepPage(u string, resp *fetch.Response) error {
	etag := resp.Header.Get("ETag")
	if etag == "" || len(etag) > maxValidator {
		return nil
	}
	head, err := json.Marshal(&keptPage{ETag: etag, Type: resp.Header.Get("Content-Type"), URL: resp.URL, Size: int64(len(resp.Body))})
	if err != nil || len(head) >= maxKeptHead {
		return err
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	b := w.EncodeAll(resp.Body, append(head, '\n'))
	if len(b) > maxKeptPage {
		return nil
	}
	d, err := s.store.PutBytes(b)
	if err != nil {
		return err
	}
	return s.store.SetAlias(pageAlias(u), d)
}
