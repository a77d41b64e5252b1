package s3

import (
	"cmp"
	"context"
	"crypto/md5" // #nosec G501 -- an etag is an MD5 in most stores; nothing is trusted by it alone
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxRestarts is how often a file starts from nothing.
	maxRestarts = 3
	// maxUploads bounds the open uploads of one object that are looked at.
	maxUploads = 1000
)

type sum [sha256.Size]byte

// compose is the checksum that a store gives an object of parts.
func compose(sums []sum) string {
	h := sha256.New()
	for _, s := range sums {
		_, _ = h.Write(s[:]) // hash.Hash never fails
	}
	return checksum(h.Sum(nil)) + "-" + strconv.Itoa(len(sums))
}

// sums hashes the parts of a file.
func (t *Target) sums(ctx context.Context, f io.ReaderAt, size int64) ([]sum, error) {
	part := t.partSize(size)
	out := make([]sum, (size+part-1)/part)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range out {
		g.Go(func() (err error) {
			offset := int64(i) * part
			out[i], err = sumRange(gctx, f, offset, min(part, size-offset))
			return err
		})
	}
	return out, g.Wait()
}

func sumRange(ctx context.Context, f io.ReaderAt, offset, size int64) (s sum, err error) {
	h := sha256.New()
	err = hashRange(ctx, h, f, offset, size)
	return sum(h.Sum(nil)), err
}

// An upload is one file on its way, in parts.
type upload struct {
	*run
	o    *object
	f    io.ReaderAt
	id   string
	from *object     // an object with the same bytes, to copy from
	sole atomic.Bool // nothing can be copied
	have map[int]minio.ObjectPart
	sums []sum
	done []minio.CompletePart
}

var errLost = errors.New("the store has lost the upload")

// sendParts puts a large file: it goes on with what a killed run has left in
// the store, copies what is there under another name, and sends the rest.
func (r *run) sendParts(ctx context.Context, o *object, f io.ReaderAt) error {
	u := &upload{run: r, o: o, f: f}
	r.count(func() { u.from = r.at[o.digest] })
	rejected := false
	for n := 1; ; n++ {
		err := u.attempt(ctx)
		if err == nil {
			// A killed run may have opened more than the one that was used.
			return r.abort(ctx, o)
		}
		if u.id != "" && ctx.Err() == nil {
			// The parts of an upload stay for the next run, unless they are
			// of no use to it.
			if errors.Is(err, errLost) || errors.Is(err, errRejected) {
				u.id = ""
				err = errors.Join(err, r.abort(ctx, o))
			}
		}
		switch {
		case errors.Is(err, errRejected):
			if err := r.reject(ctx, o, rejected); err != nil {
				return err
			}
			rejected, u.from = true, nil
		case !errors.Is(err, errLost) || n > maxRestarts:
			return err
		}
		r.log.WarnContext(ctx, "an upload starts anew", slog.String("source", r.opt.Name), slog.String("object", o.key), slog.Any("error", err))
	}
}

// errRejected is an object that was put together from other bytes than ours.
var errRejected = errors.New("the store has other bytes than it was sent")

func (u *upload) attempt(ctx context.Context) error {
	if err := u.open(ctx); err != nil {
		return err
	}
	if err := u.parts(ctx); err != nil {
		return err
	}
	failpoint.Here("s3.complete")
	if err := u.complete(ctx); err != nil {
		return err
	}
	failpoint.Here("s3.completed")
	info, err := u.stat(ctx, u.o.key)
	if err != nil {
		return err
	}
	if info == nil || info.Size != u.o.size || info.UserMetadata[metaDigest] != u.o.digest.Hex() {
		return errRejected
	}
	if info.ChecksumSHA256 != compose(u.sums) {
		if ok, err := u.proven(ctx, u.o, info); err != nil || !ok {
			return cmp.Or(err, errRejected)
		}
	}
	u.o.etag = info.ETag
	return nil
}

// open finds the upload that a killed run has left, or opens one.
func (u *upload) open(ctx context.Context) error {
	u.have = nil
	ids, err := u.uploads(ctx, u.o.key)
	if err != nil {
		return err
	}
	for _, id := range ids {
		have, err := u.arrived(ctx, id)
		if err != nil {
			return err
		}
		if u.have == nil || len(have) > len(u.have) {
			u.id, u.have = id, have
		}
	}
	if u.have != nil {
		u.log.InfoContext(ctx, "an upload goes on where it was", slog.String("source", u.opt.Name), slog.String("object", u.o.key), slog.Int("parts", len(u.have)))
		return nil
	}
	err = u.try(ctx, opPut, u.o.key, func(ctx context.Context, _ context.CancelCauseFunc) (err error) {
		u.id, err = u.c.NewMultipartUpload(ctx, u.opt.Bucket, u.o.key, u.headers(u.o.digest, "", true, ""))
		return err
	})
	failpoint.Here("s3.opened")
	return err
}

// unable tells a store, or a key, that cannot list uploads: then nothing is
// gone on with, and what a killed run left stays until the bucket's own rules
// end it.
func unable(err error) bool {
	e, ok := asAnswer(err)
	return ok && (e.StatusCode == http.StatusForbidden || e.StatusCode == http.StatusNotImplemented || e.StatusCode == http.StatusMethodNotAllowed)
}

// uploads lists the open uploads of one object. They are asked for one by one,
// since not every store lists those below a prefix.
func (t *Target) uploads(ctx context.Context, key string) ([]string, error) {
	var ids []string
	err := t.try(ctx, opUploads, key, func(ctx context.Context, _ context.CancelCauseFunc) error {
		ids = nil
		for keyMarker, idMarker := "", ""; ; {
			page, err := t.c.ListMultipartUploads(ctx, t.opt.Bucket, key, keyMarker, idMarker, "", 0)
			if unable(err) {
				t.log.WarnContext(ctx, "the open uploads cannot be listed; nothing is gone on with", slog.String("source", t.opt.Name), slog.String("reason", t.clean(err)))
				return nil
			}
			if err != nil {
				return err
			}
			for _, up := range page.Uploads {
				if up.Key == key && len(ids) < maxUploads {
					ids = append(ids, up.UploadID)
				}
			}
			if !page.IsTruncated || page.NextKeyMarker == "" || page.NextKeyMarker > key {
				return nil
			}
			keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
		}
	})
	return ids, err
}

// arrived lists the parts of an upload, by number.
func (u *upload) arrived(ctx context.Context, id string) (map[int]minio.ObjectPart, error) {
	have := make(map[int]minio.ObjectPart)
	err := u.try(ctx, opParts, u.o.key, func(ctx context.Context, _ context.CancelCauseFunc) error {
		for marker := 0; ; {
			page, err := u.c.ListObjectParts(ctx, u.opt.Bucket, u.o.key, id, marker, 1000)
			if is(err, "NoSuchUpload") || unable(err) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, p := range page.ObjectParts {
				if p.PartNumber >= 1 && p.PartNumber <= maxParts {
					p.ETag = trimETag(p.ETag)
					have[p.PartNumber] = p
				}
			}
			if !page.IsTruncated || page.NextPartNumberMarker <= marker {
				return nil
			}
			marker = page.NextPartNumberMarker
		}
	})
	return have, err
}

// parts brings every part there, several at once.
func (u *upload) parts(ctx context.Context) error {
	size := u.partSize(u.o.size)
	n := int((u.o.size + size - 1) / size)
	u.sums, u.done = make([]sum, n), make([]minio.CompletePart, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error {
			offset := int64(i) * size
			return u.part(gctx, i+1, offset, min(size, u.o.size-offset))
		})
	}
	return g.Wait()
}

func (u *upload) part(ctx context.Context, n int, offset, size int64) error {
	if err := u.enter(ctx); err != nil {
		return err
	}
	defer u.leave()
	s, err := sumRange(ctx, u.f, offset, size)
	if err != nil {
		return u.explain(opPut, u.o.key, &call{}, err)
	}
	u.sums[n-1] = s
	want := checksum(s[:])
	p, kept := u.have[n]
	if kept {
		if kept, err = u.same(ctx, p, offset, size, want); err != nil {
			return err
		}
	}
	if !kept {
		if p, kept = u.copyPart(ctx, n, offset, size, want); kept {
			failpoint.Here("s3.part-copied")
		}
	}
	if !kept {
		if p, err = u.sendPart(ctx, n, offset, size, s); err != nil {
			return err
		}
		failpoint.Here("s3.part-sent")
	}
	u.done[n-1] = minio.CompletePart{PartNumber: n, ETag: p.ETag, ChecksumSHA256: p.ChecksumSHA256}
	u.sent(u.o, size)
	return nil
}

// same reports whether a part that is there is ours: by its checksum, or by an
// etag that is an MD5.
func (u *upload) same(ctx context.Context, p minio.ObjectPart, offset, size int64, want string) (bool, error) {
	if p.Size != size || p.ETag == "" {
		return false, nil
	}
	if p.ChecksumSHA256 != "" || !isMD5(p.ETag) {
		return p.ChecksumSHA256 == want, nil
	}
	h := md5.New() // #nosec G401 -- see the import
	if err := hashRange(ctx, h, u.f, offset, size); err != nil {
		return false, u.explain(opPut, u.o.key, &call{}, err)
	}
	return hex.EncodeToString(h.Sum(nil)) == p.ETag, nil
}

// copyPart lets the store copy a part from an object that has the same bytes.
// Only a store that says the part's checksum is believed; in any other case the
// part is sent. (versitygw 1.8 says the whole object's for each part.)
func (u *upload) copyPart(ctx context.Context, n int, offset, size int64, want string) (minio.ObjectPart, bool) {
	if u.from == nil || u.sole.Load() {
		return minio.ObjectPart{}, false
	}
	var p minio.CompletePart
	err := u.try(ctx, opCopy, u.o.key, func(ctx context.Context, _ context.CancelCauseFunc) (err error) {
		bucket := u.opt.Bucket
		p, err = u.c.CopyObjectPart(ctx, bucket, u.from.key, bucket, u.o.key, u.id, n, offset, size,
			map[string]string{"x-amz-copy-source-if-match": u.from.etag})
		return err
	})
	if err != nil || p.ChecksumSHA256 != want {
		u.sole.Store(true)
		u.log.DebugContext(ctx, "a part is sent, since it cannot be copied", slog.String("source", u.opt.Name), slog.String("object", u.o.key), slog.Any("error", err))
		return minio.ObjectPart{}, false
	}
	return minio.ObjectPart{PartNumber: n, ETag: trimETag(p.ETag), ChecksumSHA256: p.ChecksumSHA256}, true
}

// sendPart sends one part.
func (u *upload) sendPart(ctx context.Context, n int, offset, size int64, s sum) (p minio.ObjectPart, err error) {
	err = u.try(ctx, opPut, u.o.key, func(ctx context.Context, stop context.CancelCauseFunc) (err error) {
		header := http.Header{}
		if !u.plain.Load() {
			header.Set("X-Amz-Checksum-Sha256", checksum(s[:]))
		}
		body := newPiece(u.f, offset, size, u.stall, stop)
		defer body.timer.Stop()
		p, err = u.c.PutObjectPart(ctx, u.opt.Bucket, u.o.key, u.id, n, body, size, minio.PutObjectPartOptions{
			Sha256Hex: artifact.Digest(s).Hex(), CustomHeader: header, DisableContentSha256: true,
		})
		if is(err, "NoSuchUpload") {
			return &ownError{errLost}
		}
		if err == nil && p.ChecksumSHA256 != "" && p.ChecksumSHA256 != checksum(s[:]) {
			return minio.ErrorResponse{Code: corrupted[0], Message: fmt.Sprintf("part %d has another checksum there", n)}
		}
		return err
	})
	p.ETag = trimETag(p.ETag)
	return p, err
}

// complete lets the store put the parts together. An answer that was lost is
// no harm: the object is there then.
func (u *upload) complete(ctx context.Context) error {
	tried := false
	return u.try(ctx, opPut, u.o.key, func(ctx context.Context, _ context.CancelCauseFunc) error {
		_, err := u.c.CompleteMultipartUpload(ctx, u.opt.Bucket, u.o.key, u.id, u.done, minio.PutObjectOptions{})
		if is(err, "NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall") {
			if info, serr := u.stat(ctx, u.o.key); tried && serr == nil && info != nil && info.Size == u.o.size {
				return nil // it is looked at in any case
			}
			return &ownError{fmt.Errorf("%w: %w", errLost, err)}
		}
		tried = true
		return err
	})
}

// abort ends every open upload of an object.
func (t *Target) abort(ctx context.Context, o *object) error {
	ids, err := t.uploads(ctx, o.key)
	if err != nil {
		return err
	}
	for _, id := range ids {
		err := t.try(ctx, opAbort, o.key, func(ctx context.Context, _ context.CancelCauseFunc) error {
			err := t.c.AbortMultipartUpload(ctx, t.opt.Bucket, o.key, id)
			if is(err, "NoSuchUpload") {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		failpoint.Here("s3.aborted")
	}
	return nil
}
