package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxListed bounds the objects below one repository's name.
	maxListed = 2_000_000
	// Keys of an object's metadata, as minio-go shows them.
	metaDigest = "Sha256"
	metaSource = "Darkmirror-Source"
)

// A listing is what a list says of an object.
type listing struct {
	size int64
	etag string
}

// list calls each for every object below a prefix.
func (t *Target) list(ctx context.Context, prefix string, each func(minio.ObjectInfo) error) error {
	owner := false
	return t.try(ctx, opList, prefix, func(ctx context.Context, _ context.CancelCauseFunc) error {
		n := 0
		for o := range t.c.ListObjectsIter(ctx, t.opt.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, FetchOwner: &owner}) {
			if o.Err != nil {
				return o.Err
			}
			if n++; n > maxListed {
				return errPages
			}
			if err := each(o); err != nil {
				return err
			}
		}
		return ctx.Err() // then the library ends the list without a word
	})
}

// lists asks for everything below the names of the repositories that are
// planned or recorded, and keeps what is known of.
func (r *run) lists(ctx context.Context) error {
	prefixes := make(map[string]bool)
	for _, objects := range []map[string]*object{r.planned, r.recorded} {
		for _, o := range objects {
			prefixes[r.base+o.repo.String()+"/"] = true
		}
	}
	r.listed = make(map[string]listing)
	done := "\x00"
	for _, prefix := range slices.Sorted(maps.Keys(prefixes)) {
		if strings.HasPrefix(prefix, done) {
			continue // "gpt2/" has shown "gpt2/refs/" too
		}
		done = prefix
		err := r.list(ctx, prefix, func(o minio.ObjectInfo) error {
			if r.planned[o.Key] != nil || r.recorded[o.Key] != nil {
				r.listed[o.Key] = listing{o.Size, trimETag(o.ETag)}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func trimETag(s string) string { return strings.Trim(s, `"`) }

// survey finds out which of the planned objects are there. What the manifest
// and the list agree on needs no request of its own.
func (r *run) survey(ctx context.Context) error {
	if err := r.lists(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(looks)
	for _, o := range r.planned {
		l, ok := r.listed[o.key]
		if !ok || l.size != o.size {
			continue
		}
		rec := r.recorded[o.key]
		known := rec != nil && rec.digest == o.digest && rec.etag != "" && rec.etag == l.etag
		if known && r.opt.Verify == verifyQuick {
			o.etag = l.etag
			continue
		}
		g.Go(func() error {
			err := r.look(gctx, o)
			if err == nil && o.etag != "" && rec != nil && rec.etag == "" && r.inParts(o.size) {
				err = r.abort(gctx, o) // what a killed run opened beside the upload that it ended
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, list := range []map[string]*object{r.recorded, r.planned} {
		for _, o := range list {
			if l, ok := r.listed[o.key]; ok && o.etag != "" && o.etag == l.etag {
				r.have(o)
			}
		}
	}
	return nil
}

// look asks for one object, and sets its etag if it is what it should be.
func (r *run) look(ctx context.Context, o *object) error {
	info, err := r.stat(ctx, o.key)
	if err != nil || info == nil || info.Size != o.size || info.UserMetadata[metaDigest] != o.digest.Hex() {
		return err
	}
	var ok bool
	if r.opt.Verify == verifyFull {
		ok, err = r.reread(ctx, o, info.ETag)
	} else {
		ok, err = r.proven(ctx, o, info)
	}
	if err != nil {
		return err
	}
	if !ok {
		r.log.WarnContext(ctx, "the object store has other bytes than it was sent; they are sent again", slog.String("source", r.opt.Name), slog.String("object", o.key))
		r.count(func() { r.damaged++ })
		return nil
	}
	o.etag = info.ETag
	return nil
}

// stat asks for an object's metadata; nil where there is none.
func (t *Target) stat(ctx context.Context, key string) (*minio.ObjectInfo, error) {
	var info minio.ObjectInfo
	gone := false
	err := t.try(ctx, opRead, key, func(ctx context.Context, _ context.CancelCauseFunc) (err error) {
		info, err = t.c.StatObject(ctx, t.opt.Bucket, key, minio.StatObjectOptions{Checksum: !t.plain.Load()})
		if gone = is(err, "NoSuchKey", "NotFound"); gone {
			return nil
		}
		return err
	})
	if err != nil || gone {
		return nil, err
	}
	info.ETag = trimETag(info.ETag)
	return &info, nil
}

// proven reports whether an object's bytes are what they should be: by the
// checksum that the store has computed, by an etag that is an MD5, or else by
// reading them.
func (t *Target) proven(ctx context.Context, o *object, info *minio.ObjectInfo) (bool, error) {
	sum := info.ChecksumSHA256
	switch _, composite, _ := strings.Cut(sum, "-"); {
	case sum == checksum(o.digest[:]):
		return true, nil
	case sum != "" && composite == "":
		return false, nil
	case o.ref:
		return t.reread(ctx, o, info.ETag)
	}
	f, err := t.st.File(o.digest)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // only read
	if sum != "" {
		sums, err := t.sums(ctx, f, o.size)
		if err != nil {
			return false, err
		}
		if compose(sums) == sum {
			return true, nil
		}
		// Another size of parts gives another sum: the bytes decide.
	} else if ok, err := sameMD5(ctx, f, o.size, info.ETag); ok || err != nil {
		return ok, err
	}
	return t.reread(ctx, o, info.ETag)
}

// reread hashes what the store has under an object's name. A read that is cut
// goes on where it was.
func (t *Target) reread(ctx context.Context, o *object, etag string) (bool, error) {
	h := sha256.New()
	var n int64
	changed := false
	for first := true; first || n < o.size; first = false {
		before := n
		err := t.try(ctx, opRead, o.key, func(ctx context.Context, _ context.CancelCauseFunc) error {
			var err error
			n, err = t.readOn(ctx, o, etag, h, n)
			if changed = is(err, "PreconditionFailed", "NoSuchKey"); changed {
				return nil
			}
			if n > before && !isA[*ownError](err) {
				return nil // the tries count anew
			}
			return err
		})
		if err != nil || changed || n > o.size {
			return false, err
		}
	}
	return artifact.Digest(h.Sum(nil)) == o.digest, nil
}

// readOn hashes an object from an offset on, and returns how far it came.
func (t *Target) readOn(ctx context.Context, o *object, etag string, h hash.Hash, offset int64) (int64, error) {
	var opts minio.GetObjectOptions
	if offset > 0 {
		if err := opts.SetRange(offset, 0); err != nil {
			return offset, &ownError{err}
		}
	}
	if etag != "" {
		if err := opts.SetMatchETag(etag); err != nil {
			return offset, &ownError{err}
		}
	}
	body, _, _, err := t.c.GetObject(ctx, t.opt.Bucket, o.key, opts)
	if err != nil {
		return offset, err
	}
	defer func() { _ = body.Close() }() // only read
	if c, ok := ctx.Value(callKey{}).(*call); ok && offset > 0 && !c.ranged {
		h.Reset() // all of it comes again
		offset = 0
	}
	buf := make([]byte, copyBuffer)
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, io.LimitReader(body, o.size-offset+1), buf)
	if err == nil && offset+n < o.size {
		err = io.ErrUnexpectedEOF
	}
	return offset + n, err
}

// copyBuffer is what one reader of a file or an object holds.
const copyBuffer = 256 << 10

var errShort = errors.New("a file of the store ends early")

// hashRange hashes a part of a file.
func hashRange(ctx context.Context, h hash.Hash, f io.ReaderAt, offset, size int64) error {
	buf := make([]byte, copyBuffer)
	for r := io.NewSectionReader(f, offset, size); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		_, _ = h.Write(buf[:n]) // hash.Hash never fails
		size -= int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &ownError{err}
		}
	}
	if size != 0 {
		return &ownError{fmt.Errorf("%w: %d bytes are missing", errShort, size)}
	}
	return nil
}
