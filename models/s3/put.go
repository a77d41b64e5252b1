package s3

import (
	"bytes"
	"context"
	"crypto/md5" // #nosec G501 -- an etag is an MD5 in most stores; nothing is trusted by it alone
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/minio/minio-go/v7"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// checksum is how S3 writes one.
func checksum(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }

// isMD5 reports whether an etag may be the MD5 of an object's bytes.
func isMD5(etag string) bool {
	b, err := hex.DecodeString(etag)
	return err == nil && len(b) == md5.Size
}

// sameMD5 compares an etag with the MD5 of a part of a file. False says
// nothing: not every etag is one.
func sameMD5(ctx context.Context, f io.ReaderAt, size int64, etag string) (bool, error) {
	if !isMD5(etag) {
		return false, nil
	}
	h := md5.New() // #nosec G401 -- see the import
	if err := hashRange(ctx, h, f, 0, size); err != nil {
		return false, err
	}
	return hex.EncodeToString(h.Sum(nil)) == etag, nil
}

// headers are an object's metadata; algorithm asks the store to sum its parts.
func (t *Target) headers(digest artifact.Digest, sum string, algorithm bool, contentType string) minio.PutObjectOptions {
	meta := map[string]string{metaDigest: digest.Hex(), metaSource: t.opt.Name}
	if !t.plain.Load() {
		if sum != "" {
			meta["x-amz-checksum-sha256"] = sum
		}
		if algorithm {
			meta["x-amz-checksum-algorithm"], meta["x-amz-checksum-type"] = "SHA256", "COMPOSITE"
		}
	}
	// The digest in the signature is that of the whole payload, not of chunks.
	return minio.PutObjectOptions{UserMetadata: meta, ContentType: contentType, DisableContentSha256: true}
}

// putOnce sends one request with a whole object.
func (t *Target) putOnce(ctx context.Context, key string, body io.ReaderAt, size int64, d artifact.Digest, contentType string) (info minio.UploadInfo, err error) {
	if err := t.enter(ctx); err != nil {
		return info, err
	}
	defer t.leave()
	err = t.try(ctx, opPut, key, func(ctx context.Context, stop context.CancelCauseFunc) (err error) {
		p := newPiece(body, 0, size, t.stall, stop)
		defer p.timer.Stop()
		info, err = t.c.PutObject(ctx, t.opt.Bucket, key, p, size, "", d.Hex(), t.headers(d, checksum(d[:]), false, contentType))
		return err
	})
	info.ETag = trimETag(info.ETag)
	return info, err
}

func (t *Target) enter(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *Target) leave() { <-t.slots }

// write puts a small document of our own.
func (t *Target) write(ctx context.Context, key string, b []byte, contentType string) error {
	_, err := t.putOnce(ctx, key, bytes.NewReader(b), int64(len(b)), artifact.Sum(b), contentType)
	return err
}

// sendRef writes one ref.
func (r *run) sendRef(ctx context.Context, o *object) error {
	info, err := r.putOnce(ctx, o.key, bytes.NewReader(o.content()), o.size, o.digest, "text/plain")
	if err == nil {
		o.etag = info.ETag
		r.sent(o, o.size)
	}
	return err
}

// sendFile puts one file. The store has verified its bytes.
func (r *run) sendFile(ctx context.Context, o *object) (err error) {
	f, err := r.st.File(o.digest)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", r.opt.Name, r.name(o.key), err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if r.inParts(o.size) {
		return r.sendParts(ctx, o, f)
	}
	for again := false; ; again = true {
		failpoint.Here("s3.put")
		info, err := r.putOnce(ctx, o.key, f, o.size, o.digest, "")
		if err != nil {
			return err
		}
		ok := info.ChecksumSHA256 == checksum(o.digest[:])
		if info.ChecksumSHA256 == "" { // then we ask for another proof
			if ok, err = r.proven(ctx, o, &minio.ObjectInfo{ETag: info.ETag}); err != nil {
				return err
			}
		}
		if ok {
			failpoint.Here("s3.put-done")
			o.etag = info.ETag
			r.sent(o, o.size)
			return nil
		}
		if err := r.reject(ctx, o, again); err != nil {
			return err
		}
	}
}

// sent reports bytes that have arrived.
func (r *run) sent(o *object, n int64) {
	r.onEvent(artifact.Event{Stage: "publish", Source: r.opt.Name, Item: o.repo.String() + "/" + o.path, Bytes: n})
}

// reject removes an object that has other bytes than it was sent: by its
// metadata a later run would take it for the right one.
func (r *run) reject(ctx context.Context, o *object, again bool) error {
	if err := r.delete(ctx, o.key); err != nil {
		return err
	}
	if !again {
		return nil
	}
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: CodeDamaged, Subject: r.opt.Name + ": " + r.name(o.key),
		Reason: "the store has other bytes than it was sent, twice; the object was removed", Want: o.digest.String() + ", " + strconv.FormatInt(o.size, 10) + " bytes",
	}
}

// delete removes an object, which may be gone already.
func (t *Target) delete(ctx context.Context, key string) error {
	return t.try(ctx, opDelete, key, func(ctx context.Context, _ context.CancelCauseFunc) error {
		err := t.c.RemoveObject(ctx, t.opt.Bucket, key, minio.RemoveObjectOptions{})
		if is(err, "NoSuchKey") {
			return nil
		}
		return err
	})
}
