package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// ErrNoRanges is a server that does not send a part where one was asked for.
var ErrNoRanges = errors.New("the server sends no parts of files")

// Range reads length bytes of a file from offset on; a negative offset counts
// from the file's end. It returns fewer bytes where the file ends, the place
// where they begin, and the size of the whole file. Who sends something else
// than was asked for is [ErrNoRanges].
func (c *Client) Range(ctx context.Context, rawURL string, offset, length int64) (body []byte, start, total int64, err error) {
	if length <= 0 || offset < 0 && -offset != length {
		return nil, 0, 0, fmt.Errorf("%s: range of %d bytes from %d", c.c.Name, length, offset)
	}
	asked := fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
	if offset < 0 {
		asked = fmt.Sprintf("bytes=-%d", length)
	}
	header := func() http.Header { return http.Header{"Accept-Encoding": {"identity"}, "Range": {asked}} }
	err = c.do(ctx, "get", http.MethodGet, rawURL, header, nil, func(resp *http.Response) error {
		switch resp.StatusCode {
		case http.StatusPartialContent:
		case http.StatusOK, http.StatusRequestedRangeNotSatisfiable:
			return &localError{ErrNoRanges}
		default:
			return c.statusError("get", resp)
		}
		var ok bool
		start, total, ok = contentRange(resp.Header.Get("Content-Range"))
		want := offset
		if offset < 0 {
			want = max(0, total-length)
		}
		if !ok || total < 0 || start != want || resp.Header.Get("Content-Encoding") != "" {
			return &localError{ErrNoRanges}
		}
		length = min(length, total-start)
		body = make([]byte, length)
		if _, err := io.ReadFull(resp.Body, body); err != nil {
			return &cutError{err: err}
		}
		return nil
	})
	if err != nil {
		return nil, 0, 0, err
	}
	return body, start, total, nil
}
