package remote

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// maxRestarts is how often a blob starts from zero.
	maxRestarts = 3
	// maxMounts bounds the repositories that are tried for a mount.
	maxMounts = 3
	// maxMinChunk bounds what a registry may demand of a chunk; asked for
	// more, the blob goes in one piece.
	maxMinChunk = 5 << 30
)

// Content opens the bytes of a blob; it may be called more than once.
type Content func() (io.ReadSeekCloser, error)

// A Verified content is a file whose whole bytes are known to have Digest, and
// cannot change: one of the store. It is not hashed again while it is sent,
// and the kernel may send it from where it lies.
type Verified struct {
	*os.File
	Digest spec.Digest
}

// How a blob came to be in a repository.
const (
	Present  = "present"
	Mounted  = "mounted"
	Uploaded = "uploaded"
)

// PushBlob brings a blob into a repository: it may be there already, in one of
// the repositories of mountFrom, or it is sent, going on with what an earlier
// call, of this process or another, got through.
func (c *Client) PushBlob(ctx context.Context, repo string, d spec.Digest, size int64, open Content, mountFrom ...string) (how string, err error) {
	if err := c.checkBlob(repo, d); err != nil {
		return "", err
	}
	u := &uploader{
		c: c, repo: repo, d: d, size: size, open: open, file: c.sessionFile(repo, d),
		a: ask{op: "push blob", ref: repo + "@" + string(d), need: need{repo: repo, push: true}},
	}
	unlock, err := c.locks.lock(ctx, "blob "+u.a.ref)
	if err != nil {
		return "", c.problem(u.a, err)
	}
	defer unlock()
	have, err := c.hasBlob(ctx, repo, d, size, u.a.need)
	if err != nil {
		return "", err
	}
	if have {
		return Present, u.forget()
	}
	if u.s, err = c.resume(u.file, repo, d, size); err != nil {
		return "", err
	}
	if u.s == nil {
		if mounted, err := u.mount(ctx, mountFrom); mounted || err != nil {
			return Mounted, err
		}
	}
	defer func() {
		if u.content != nil {
			err = errors.Join(err, u.content.Close())
		}
		if err != nil {
			how = ""
		}
	}()
	return Uploaded, u.run(ctx)
}

// An uploader sends one blob.
type uploader struct {
	c       *Client
	a       ask
	repo    string
	d       spec.Digest
	size    int64
	open    Content
	content io.ReadSeekCloser
	proven  *os.File // the content, where it needs no hashing
	file    string
	s       *session // nil: none is open

	whole    bool // chunks are refused here
	restarts int
	fails    int   // tries since the last progress
	best     int64 // offset of the last progress
	told     int64 // bytes reported
	sent     int64 // offset of the byte that is sent next
}

func (u *uploader) forget() error {
	if err := forget(u.file); err != nil {
		return fmt.Errorf("%s: %w", u.c.c.Name, err)
	}
	return nil
}

// progress reports bytes that were not reported before.
func (u *uploader) progress(n int64) {
	u.sent += n
	if u.sent <= u.told || u.c.c.OnEvent == nil {
		return
	}
	if most := u.sent - u.told; most >= 1<<20 || u.sent == u.size {
		u.told = u.sent
		u.c.c.OnEvent(artifact.Event{Stage: "publish", Source: u.c.c.Name, Item: u.a.ref, Bytes: most})
	}
}

// mount asks the registry to take the blob from another of its repositories. A
// registry that does not opens an upload instead, which is then used.
func (u *uploader) mount(ctx context.Context, from []string) (bool, error) {
	tried := 0
	for _, other := range from {
		if other == u.repo || spec.CheckName(other) != nil || tried == maxMounts {
			continue
		}
		tried++
		a := u.a
		a.need.from = other
		at := withQuery(withQuery(u.c.url("/v2/"+u.repo+"/blobs/uploads/"), "mount", string(u.d)), "from", other)
		resp, err := u.c.writeOnce(ctx, a, http.MethodPost, at, nil, nil)
		if err != nil {
			continue // not allowed, not known or not now: then it is sent
		}
		closeBody(resp)
		u.cancel(ctx)
		if resp.StatusCode == http.StatusCreated {
			return true, nil
		}
		if u.s, err = u.opened(resp); err != nil {
			return false, err
		}
	}
	return false, nil
}

// opened makes a session of a reply that opens one.
func (u *uploader) opened(resp *http.Response) (*session, error) {
	at, err := u.c.location(resp.Request.URL, resp.Header.Get("Location"))
	if err != nil {
		return nil, u.c.problem(u.a, err)
	}
	minChunk, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64)
	if err != nil || minChunk < 0 {
		minChunk = 0
	}
	return u.c.newSession(u.repo, u.d, u.size, at, minChunk), nil
}

// cancel gives a session back to the registry, which would drop it sometime.
func (u *uploader) cancel(ctx context.Context) {
	if u.s == nil {
		return
	}
	if resp, err := u.c.writeOnce(ctx, u.a, http.MethodDelete, u.s.url, nil, nil); err == nil {
		closeBody(resp)
	}
	u.s = nil
}

// chunk is the size of a request's body.
func (u *uploader) chunk() int64 { return max(u.c.c.Chunk, u.s.MinChunk) }

// inChunks reports whether the blob goes up in pieces.
func (u *uploader) inChunks() bool {
	return !u.whole && u.size >= u.c.c.Chunk && u.s.MinChunk <= maxMinChunk
}

// run sends the blob.
func (u *uploader) run(ctx context.Context) error {
	resumed := u.s != nil && u.s.Offset > 0
	for {
		err := u.begin(ctx, resumed)
		resumed = false
		if err == nil {
			err = u.send(ctx)
		}
		if err == nil {
			failpoint.Here("remote.uploaded")
			return u.forget()
		}
		if err = u.mend(ctx, err); errors.Is(err, errDone) {
			return u.forget()
		}
		if err != nil {
			return err
		}
	}
}

// begin opens a session, or asks where one stands that was kept.
func (u *uploader) begin(ctx context.Context, resumed bool) error {
	if u.s != nil && (resumed || u.fails > 0) {
		return u.resync(ctx)
	}
	if u.s != nil {
		return nil
	}
	resp, err := u.c.writeOnce(ctx, u.a, http.MethodPost, u.c.url("/v2/"+u.repo+"/blobs/uploads/"), nil, nil)
	if err != nil {
		return err
	}
	closeBody(resp)
	if u.s, err = u.opened(resp); err != nil {
		return err
	}
	failpoint.Here("remote.session-opened")
	return nil
}

// send sends what is missing and completes the blob.
func (u *uploader) send(ctx context.Context) error {
	if !u.inChunks() {
		return u.put(ctx, u.size-u.s.Offset)
	}
	for u.s.Offset < u.size {
		n := min(u.chunk(), u.size-u.s.Offset)
		if n < u.s.MinChunk {
			return u.put(ctx, n) // the last one may be shorter only there
		}
		if err := u.patch(ctx, n); err != nil {
			return err
		}
		failpoint.Here("remote.chunk-sent")
		if err := u.s.save(u.file); err != nil {
			return &ownError{err}
		}
	}
	failpoint.Here("remote.complete")
	return u.put(ctx, 0)
}

// patch sends one chunk.
func (u *uploader) patch(ctx context.Context, n int64) error {
	start := u.s.Offset
	resp, err := u.body(ctx, http.MethodPatch, u.s.url, n, fmt.Sprintf("%d-%d", start, start+n-1)) //nolint:bodyclose // body has closed it
	if err != nil {
		return err
	}
	if v := resp.Header.Get("Location"); v != "" {
		if u.s.url, err = u.c.location(resp.Request.URL, v); err != nil {
			return u.c.problem(u.a, err)
		}
	}
	u.s.Offset = start + n
	u.fails, u.best = 0, u.s.Offset
	if has, ok := uploaded(resp.Header.Get("Range")); ok && has != u.s.Offset {
		return u.goTo(ctx, has) // it took less than it was sent
	}
	return nil
}

// put sends the last n bytes, or none, and completes the blob. Of a session
// that has bytes already the range is told.
func (u *uploader) put(ctx context.Context, n int64) error {
	if err := u.seek(ctx, u.s.Offset); err != nil {
		return err
	}
	if n == 0 && u.proven == nil {
		if err := u.verify(u.s.hash); err != nil {
			return &ownError{err}
		}
	}
	span := ""
	if n > 0 && u.s.Offset > 0 {
		span = fmt.Sprintf("%d-%d", u.s.Offset, u.s.Offset+n-1)
	}
	resp, err := u.body(ctx, http.MethodPut, withQuery(u.s.url, "digest", string(u.d)), n, span) //nolint:bodyclose // body has closed it
	if err != nil {
		return err
	}
	if said, err := spec.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil && said.Algorithm() == u.d.Algorithm() && said != u.d {
		return &ownError{u.c.refuse(CodeDigest, u.a.ref, "the registry has stored another blob", string(u.d), string(said))}
	}
	return nil
}

// body sends one request with n bytes from where the session stands.
func (u *uploader) body(ctx context.Context, method string, at *url.URL, n int64, span string) (*http.Response, error) {
	if err := u.seek(ctx, u.s.Offset); err != nil {
		return nil, err
	}
	before, err := snapshot(u.s.hash)
	if err != nil {
		return nil, &ownError{err}
	}
	ctx, stop := context.WithCancelCause(withNeed(ctx, u.a.need))
	defer stop(nil)
	p := u.newPiece(n, stop)
	u.sent = u.s.Offset
	r, err := u.reader(p, n)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), r)
	if err != nil {
		return nil, u.c.problem(u.a, err)
	}
	req.ContentLength = n
	if n == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if span != "" {
		req.Header.Set("Content-Range", span)
	}
	resp, err := u.c.rt.RoundTrip(req)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errStalled) {
		err = cause
	}
	own := p.detach()
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 299) {
		err = u.c.failure(u.a, resp)
	} else if err == nil {
		closeBody(resp)
	}
	if p.file != nil && err != nil {
		// net/http may still be reading it: the next request gets its own.
		if cerr := u.content.Close(); cerr != nil {
			return nil, &ownError{cerr}
		}
		u.content, u.proven = nil, nil
	}
	if err != nil || own != nil {
		// What was read counts no more: the hash goes back to where it was.
		u.s.hash = u.d.New()
		if back := restore(u.s.hash, before); back != nil {
			return nil, &ownError{back}
		}
	}
	if own != nil {
		return nil, own
	}
	if err != nil {
		return nil, u.c.problem(u.a, err)
	}
	if p.left > 0 {
		return nil, u.c.problem(u.a, errors.New("the registry answered before it had all"))
	}
	return resp, nil
}

// snapshot is the state of a hash; restore goes back to it.
func snapshot(h hash.Hash) ([]byte, error) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok {
		return nil, errors.New("the hash cannot be kept") // both of ours can
	}
	return m.MarshalBinary()
}

func restore(h hash.Hash, state []byte) error {
	m, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return errors.New("the hash cannot be kept")
	}
	return m.UnmarshalBinary(state)
}

// resync asks the registry where the session stands.
func (u *uploader) resync(ctx context.Context) error {
	req := u.a
	req.op = "ask for the upload of"
	resp, err := u.c.writeOnce(ctx, req, http.MethodGet, u.s.url, nil, nil)
	if err != nil {
		if e, ok := asError(err); ok && e.Status >= 400 && e.Status < 500 && !passing(err) && !loginStatus(e.Status) {
			return fmt.Errorf("%w: %w", errLost, err)
		}
		return err
	}
	closeBody(resp)
	if v := resp.Header.Get("Location"); v != "" {
		if u.s.url, err = u.c.location(resp.Request.URL, v); err != nil {
			return u.c.problem(u.a, err)
		}
	}
	has, ok := uploaded(resp.Header.Get("Range"))
	if !ok {
		return errLost // it does not tell, so the blob starts anew
	}
	return u.goTo(ctx, has)
}

// errLost is a session that cannot be gone on with.
var errLost = errors.New("the registry has lost the upload")

// goTo brings the session to an offset that the registry named.
func (u *uploader) goTo(ctx context.Context, offset int64) error {
	if offset > u.size {
		return errLost
	}
	if offset > u.best {
		u.fails, u.best = 0, offset
	}
	u.c.log.InfoContext(ctx, "an upload goes on where it was", slog.String("source", u.c.c.Name), slog.String("digest", string(u.d)), slog.Int64("bytes", offset))
	return u.seek(ctx, offset)
}

// loginStatus tells replies that another login may change.
func loginStatus(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// mend decides what follows a failure: nil is another try. A session is given
// up where nothing could be gained by going on with it; otherwise it stays for
// the next run.
func (u *uploader) mend(ctx context.Context, err error) error {
	if own, ok := errors.AsType[*ownError](err); ok {
		err = u.own(own.err)
		if errors.Is(err, artifact.ErrIntegrity) {
			u.cancel(ctx)
			err = errors.Join(err, u.forget())
		}
		return err
	}
	e, answered := asError(err)
	status := 0
	if answered {
		status = e.Status
	}
	switch {
	case ctx.Err() != nil:
		return u.c.problem(u.a, ctx.Err())
	case errors.Is(err, errLost), status == http.StatusNotFound && u.s != nil, status == http.StatusBadRequest && u.s != nil:
		return u.restart(ctx, err)
	case u.refusesChunks(status):
		u.whole = true
		return u.restart(ctx, err)
	case status == http.StatusRequestedRangeNotSatisfiable, status == http.StatusUnauthorized && u.fails == 0:
		// Where it stands, or with a new token.
	case !passing(err):
		if answered && !loginStatus(status) {
			u.cancel(ctx)
			err = errors.Join(err, u.forget())
		}
		return err
	}
	return u.retry(ctx, err)
}

// refusesChunks tells a registry that takes no chunks by its answer to the
// first.
func (u *uploader) refusesChunks(status int) bool {
	if u.s == nil || u.s.Offset > 0 || !u.inChunks() {
		return false
	}
	return status == http.StatusMethodNotAllowed || status == http.StatusLengthRequired ||
		status == http.StatusRequestedRangeNotSatisfiable || status == http.StatusNotImplemented
}

// retry goes on with the session after a pause, unless there was no progress
// for too long: then it is left to the next run.
func (u *uploader) retry(ctx context.Context, err error) error {
	u.fails++
	var asked time.Duration
	if e, ok := asError(err); ok {
		asked = e.RetryAfter
	}
	if asked > maxObeyed {
		return err
	}
	if u.fails > maxTries {
		return u.give(err, fmt.Sprintf("%d tries without progress", maxTries))
	}
	u.c.log.WarnContext(ctx, "an upload is tried again", slog.String("source", u.c.c.Name), slog.String("digest", string(u.d)), slog.String("reason", u.c.auth.hide(err.Error())))
	if err := u.c.wait(ctx, u.fails, asked); err != nil {
		return u.c.problem(u.a, err)
	}
	// The last request may have got through although its reply did not.
	have, herr := u.c.hasBlob(ctx, u.repo, u.d, u.size, u.a.need)
	if herr == nil && have {
		return errDone
	}
	if u.s != nil && !u.inChunks() {
		return u.restart(ctx, err) // the whole in one request: nothing to go on with
	}
	return nil
}

// errDone is a blob that is there after all.
var errDone = errors.New("the blob is there")

// restart begins the blob anew.
func (u *uploader) restart(ctx context.Context, err error) error {
	u.restarts++
	if u.restarts > maxRestarts {
		u.cancel(ctx)
		return errors.Join(u.give(err, fmt.Sprintf("%d restarts", maxRestarts)), u.forget())
	}
	u.c.log.WarnContext(ctx, "an upload starts anew", slog.String("source", u.c.c.Name), slog.String("digest", string(u.d)), slog.String("reason", u.c.auth.hide(err.Error())))
	u.cancel(ctx)
	u.best = 0
	return u.forget()
}

// give ends the upload.
func (u *uploader) give(err error, why string) error {
	offset := int64(0)
	if u.s != nil {
		offset = u.s.Offset
	}
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeUpload, Subject: u.c.c.Name + ": " + u.c.host + "/" + u.a.ref,
		Reason: fmt.Sprintf("the blob could not be sent: %s, at byte %d of %d", why, offset, u.size), Err: err,
	}
}
