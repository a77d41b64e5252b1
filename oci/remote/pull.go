package remote

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// maxTries is how often a request is made without progress.
const maxTries = 5

// Raw is a manifest as the registry sent it.
type Raw struct {
	Bytes     []byte
	MediaType string      // as the registry calls it, without parameters
	Digest    spec.Digest // of Bytes, computed here
}

// named is "library/nginx:1.27" or "library/nginx@sha256:...".
func named(repo, ref string) string {
	if _, err := spec.ParseDigest(ref); err == nil {
		return repo + "@" + ref
	}
	return repo + ":" + ref
}

// check holds a repository and a tag or digest to the specification before
// they become part of a URL.
func (c *Client) check(repo, ref string) error {
	err := spec.CheckName(repo)
	if err == nil && spec.CheckTag(ref) != nil {
		if _, bad := spec.ParseDigest(ref); bad != nil {
			err = fmt.Errorf("%q is neither a tag nor a digest", plainText(ref, 80))
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.c.Name, err)
	}
	return nil
}

func (c *Client) checkBlob(repo string, d spec.Digest) error {
	err := spec.CheckName(repo)
	if err == nil {
		_, err = spec.ParseDigest(string(d))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.c.Name, err)
	}
	return nil
}

// get sends a GET and hands back a reply of status 200.
func (c *Client) get(ctx context.Context, a ask, u *url.URL, header http.Header) (*http.Response, error) {
	return c.read(ctx, http.MethodGet, a, u, header)
}

// read sends a GET or a HEAD. fetch repeats it where that may help.
func (c *Client) read(ctx context.Context, method string, a ask, u *url.URL, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(withNeed(ctx, a.need), method, u.String(), nil)
	if err != nil {
		return nil, c.problem(a, err)
	}
	if header != nil {
		req.Header = header
	}
	// identity, for the true Content-Length and against bombs.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.problem(a, err)
	}
	c.heed(resp)
	if resp.StatusCode != http.StatusOK {
		return nil, c.failure(a, resp)
	}
	return resp, nil
}

// document reads a small document whole; a reply that is cut is asked for
// again. A document over the limit is nil with the reply.
func (c *Client) document(ctx context.Context, a ask, u *url.URL, accept string, limit int64) ([]byte, *http.Response, error) {
	for try := 1; ; try++ {
		resp, err := c.get(ctx, a, u, http.Header{"Accept": {accept}})
		if err != nil {
			return nil, nil, err
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
		_ = resp.Body.Close() // it was read as far as it is wanted
		switch {
		case int64(len(b)) > limit:
			return nil, resp, nil
		case err == nil:
			return b, resp, nil
		case try == maxTries || ctx.Err() != nil:
			return nil, nil, c.problem(a, err)
		}
		if err := c.wait(ctx, try, 0); err != nil {
			return nil, nil, c.problem(a, err)
		}
	}
}

// mediaType is a Content-Type without its parameters.
func mediaType(h http.Header) string {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// Manifest reads the manifest that ref, a tag or a digest, names. Its bytes
// have the digest that was asked for, and the one that the registry names.
func (c *Client) Manifest(ctx context.Context, repo, ref string) (*Raw, error) {
	if err := c.check(repo, ref); err != nil {
		return nil, err
	}
	a := ask{op: "get manifest", ref: named(repo, ref), need: need{repo: repo}}
	if err := c.spared(a); err != nil {
		return nil, err
	}
	b, resp, err := c.document(ctx, a, c.url("/v2/"+repo+"/manifests/"+ref), spec.Accept, spec.MaxManifest) //nolint:bodyclose // document has closed it
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, c.refuse(spec.CodeManifestSize, a.ref, "the manifest is too large", fmt.Sprintf("at most %d bytes", spec.MaxManifest), "more")
	}
	raw := &Raw{Bytes: b, MediaType: mediaType(resp.Header), Digest: spec.Digest("sha256:").Sum(b)}
	if want, err := spec.ParseDigest(ref); err == nil {
		raw.Digest = want.Sum(b)
		if raw.Digest != want {
			return nil, c.refuse(CodeDigest, a.ref, "the manifest is not the one that was asked for", string(want), string(raw.Digest))
		}
	}
	// A header that is no digest at all says nothing.
	if said, err := spec.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		if got := said.Sum(b); got != said {
			return nil, c.refuse(CodeDigest, a.ref, "the manifest is not what the registry says it is", string(said), string(got))
		}
	}
	return raw, nil
}

// Head asks what ref names, without reading it; nil where there is no such
// manifest.
func (c *Client) Head(ctx context.Context, repo, ref string) (*spec.Descriptor, error) {
	if err := c.check(repo, ref); err != nil {
		return nil, err
	}
	a := ask{op: "look for manifest", ref: named(repo, ref), need: need{repo: repo}}
	resp, err := c.read(ctx, http.MethodHead, a, c.url("/v2/"+repo+"/manifests/"+ref), http.Header{"Accept": {spec.Accept}})
	if IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	closeBody(resp)
	d := &spec.Descriptor{MediaType: mediaType(resp.Header), Size: resp.ContentLength}
	want, pinned := spec.ParseDigest(ref)
	said, told := spec.ParseDigest(resp.Header.Get("Docker-Content-Digest"))
	switch {
	case pinned == nil && told == nil && want.Algorithm() == said.Algorithm() && want != said:
		return nil, c.refuse(CodeDigest, a.ref, "the manifest is not the one that was asked for", string(want), string(said))
	case pinned == nil:
		d.Digest = want
	case told == nil:
		d.Digest = said
	}
	if d.Digest == "" || d.Size < 0 || d.MediaType == "" {
		raw, err := c.Manifest(ctx, repo, ref) // this registry does not tell
		if err != nil {
			return nil, err
		}
		return &spec.Descriptor{MediaType: raw.MediaType, Digest: raw.Digest, Size: int64(len(raw.Bytes))}, nil
	}
	return d, nil
}

// BlobURL is where a blob is read.
func (c *Client) BlobURL(repo string, d spec.Digest) string {
	return c.url("/v2/" + repo + "/blobs/" + string(d)).String()
}

// Download reads a blob into p, going on where p stands, and commits it.
func (c *Client) Download(ctx context.Context, repo string, d spec.Digest, p fetch.Partial) error {
	if err := c.checkBlob(repo, d); err != nil {
		return err
	}
	a := ask{op: "get blob", ref: repo + "@" + string(d), need: need{repo: repo}}
	if err := c.fetch.Download(withNeed(ctx, a.need), c.BlobURL(repo, d), p); err != nil {
		if r, ok := errors.AsType[*artifact.Refusal](err); ok && errors.Is(err, artifact.ErrIntegrity) {
			return c.notTheBlob(a, r)
		}
		if isLocal(err) {
			return err
		}
		if e, ok := errors.AsType[*fetch.Error](err); ok && e.Status >= 400 && e.Status < 500 && !busy(e.Status) {
			// Asked once more, for the registry's own words.
			resp, again := c.get(ctx, a, c.url("/v2/"+repo+"/blobs/"+string(d)), nil)
			if again != nil {
				return again
			}
			closeBody(resp)
		}
		return c.problem(a, err)
	}
	return nil
}

// notTheBlob says in a registry's terms that a download is not what its
// manifest names.
func (c *Client) notTheBlob(a ask, r *artifact.Refusal) error {
	code, reason := CodeDigest, "the blob is not the one that was asked for"
	if r.Code == "FETCH-SIZE" {
		code, reason = CodeSize, "the blob has another size than its manifest says"
	}
	return c.refuse(code, a.ref, reason, r.Want, r.Got)
}

// isLocal tells trouble on our own side, which fetch leaves as it is.
func isLocal(err error) bool {
	if _, ok := errors.AsType[*fetch.Error](err); ok {
		return false
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return false
	}
	return !errors.Is(err, artifact.ErrUnavailable) && !errors.Is(err, fetch.ErrHost)
}

// OpenBlob reads a blob from its beginning, for one whose sha256 is not known.
// size is -1 where the registry does not tell. Reading fails at the end, with
// CodeDigest, where the blob is not d.
func (c *Client) OpenBlob(ctx context.Context, repo string, d spec.Digest) (r io.ReadCloser, size int64, err error) {
	if err := c.checkBlob(repo, d); err != nil {
		return nil, 0, err
	}
	a := ask{op: "get blob", ref: repo + "@" + string(d), need: need{repo: repo}}
	resp, err := c.get(ctx, a, c.url("/v2/"+repo+"/blobs/"+string(d)), nil) //nolint:bodyclose // checked closes it
	if err != nil {
		return nil, 0, err
	}
	return &checked{body: resp.Body, h: d.New(), d: d, c: c, a: a}, resp.ContentLength, nil
}

// checked compares the digest of what was read before it says that the end is
// reached.
type checked struct {
	body io.ReadCloser
	h    hash.Hash
	d    spec.Digest
	c    *Client
	a    ask
}

func (r *checked) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	_, _ = r.h.Write(p[:n]) // hash.Hash never fails
	switch {
	case errors.Is(err, io.EOF):
		if got := r.d.With(r.h); got != r.d {
			return n, r.c.refuse(CodeDigest, r.a.ref, "the blob is not the one that was asked for", string(r.d), string(got))
		}
		return n, io.EOF
	case err != nil:
		return n, r.c.problem(r.a, err)
	}
	return n, nil
}

// Close ends the request.
func (r *checked) Close() error { return r.body.Close() }

// HasBlob asks whether the repository has a blob of that size. One of another
// size is an error: the descriptor or the registry is wrong.
func (c *Client) HasBlob(ctx context.Context, repo string, d spec.Digest, size int64) (bool, error) {
	return c.hasBlob(ctx, repo, d, size, need{repo: repo})
}

func (c *Client) hasBlob(ctx context.Context, repo string, d spec.Digest, size int64, n need) (bool, error) {
	if err := c.checkBlob(repo, d); err != nil {
		return false, err
	}
	a := ask{op: "look for blob", ref: repo + "@" + string(d), need: n}
	resp, err := c.read(ctx, http.MethodHead, a, c.url("/v2/"+repo+"/blobs/"+string(d)), nil)
	if IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	closeBody(resp)
	if resp.ContentLength >= 0 && resp.ContentLength != size {
		return false, c.refuse(CodeSize, a.ref, "the registry has this blob in another size",
			strconv.FormatInt(size, 10), strconv.FormatInt(resp.ContentLength, 10))
	}
	return true, nil
}
