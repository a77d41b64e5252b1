package fetch

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// defaultLimit bounds a document where the caller names no limit.
const defaultLimit = 16 << 20

// GetOptions are the choices of one request.
type GetOptions struct {
	Accept string
	// Limit bounds the document in bytes, after decompression; 0 means
	// 16 MiB.
	Limit int64
	// ETag and LastModified, where set, allow a 304 answer.
	ETag, LastModified string
}

// A Response is a whole small document.
type Response struct {
	Status int
	Header http.Header
	URL    string // after redirects, redacted
	Body   []byte
}

// Get reads a document. A status other than 200, or 304 where a validator was
// sent, is an *[Error]. A document over the limit is an ErrIntegrity refusal
// (FETCH-LIMIT).
func (c *Client) Get(ctx context.Context, rawURL string, o GetOptions) (*Response, error) {
	if o.Limit <= 0 {
		o.Limit = defaultLimit
	}
	header := func() http.Header {
		h := make(http.Header)
		for k, v := range map[string]string{"Accept": o.Accept, "If-None-Match": o.ETag, "If-Modified-Since": o.LastModified} {
			if v != "" {
				h.Set(k, v)
			}
		}
		return h
	}
	var out *Response
	err := c.do(ctx, "get", http.MethodGet, rawURL, header, nil, func(resp *http.Response) (err error) {
		out, err = c.document(resp, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// document reads and bounds a reply. net/http asks for gzip and undoes it.
func (c *Client) document(resp *http.Response, o GetOptions) (*Response, error) {
	out := response(resp)
	conditional := o.ETag != "" || o.LastModified != ""
	switch {
	case resp.StatusCode == http.StatusNotModified && conditional:
		return out, nil
	case resp.StatusCode != http.StatusOK:
		return nil, c.statusError("get", resp)
	case resp.ContentLength > o.Limit:
		return nil, c.overLimit(out.URL, o.Limit)
	}
	var err error
	out.Body, err = io.ReadAll(io.LimitReader(resp.Body, o.Limit+1))
	if int64(len(out.Body)) > o.Limit {
		return nil, c.overLimit(out.URL, o.Limit)
	}
	if err != nil {
		return nil, &cutError{err: err}
	}
	return out, nil
}

func response(resp *http.Response) *Response {
	return &Response{Status: resp.StatusCode, Header: resp.Header, URL: Redact(resp.Request.URL.String())}
}

func (c *Client) overLimit(url string, limit int64) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "FETCH-LIMIT", Subject: c.c.Name + ": " + url,
		Reason: "the document is larger than allowed", Want: fmt.Sprintf("at most %d bytes", limit),
	}
}

// Head asks for a document's headers. A status other than 200 is an *[Error].
func (c *Client) Head(ctx context.Context, rawURL string) (*Response, error) {
	// identity, for the true Content-Length.
	header := func() http.Header { return http.Header{"Accept-Encoding": {"identity"}} }
	var out *Response
	err := c.do(ctx, "head", http.MethodHead, rawURL, header, nil, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return c.statusError("head", resp)
		}
		out = response(resp)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func slogSource(c *Client) slog.Attr  { return slog.String("source", c.c.Name) }
func slogURL(rawURL string) slog.Attr { return slog.String("url", Redact(rawURL)) }
func slogWhy(reason string) slog.Attr { return slog.String("reason", reason) }
