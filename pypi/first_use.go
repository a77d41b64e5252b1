package pypi

import (
	"context"
	"errors"
	"fmt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// What is done with a file of which the index names no sha256, as some
// indexes of CUDA builds do.
const (
	hashRefuse = "refuse"    // it does not count
	hashRecord = "first-use" // its hash is computed once, and holds from then on
)

// firstUse gives a file without a hash the one that it had when it was used
// first: the record of the last run names it, or the file is fetched now.
func (s *Source) firstUse(ctx context.Context, o *offers, project string, f *offeredFile) (err error) {
	if !f.Digest.IsZero() {
		return nil
	}
	if d, ok := o.known[f.Filename]; ok {
		f.Digest, f.firstUse = d, true
		return nil
	}
	ix, err := s.reach(ctx, project, f)
	if err != nil {
		return err
	}
	if f.Size < 0 {
		if f.Size, err = s.size(ctx, ix, f.URL); err != nil {
			return err
		}
	}
	u := &unnamed{st: s.store, total: f.Size}
	if err := u.Reset(); err != nil {
		return err
	}
	defer func() {
		if u.digest.IsZero() {
			err = errors.Join(err, u.Discard())
		}
	}()
	if err := ix.client.Download(ctx, f.URL, u); err != nil {
		return err
	}
	f.Digest, f.firstUse = u.digest, true
	if d, ok := o.ranged[f.URL]; ok {
		s.said(f.Digest, d)
	}
	return nil
}

// An unnamed file is fetched without knowing its digest: a fetch.Partial.
type unnamed struct {
	*store.Upload
	st        *store.Store
	total     int64
	digest    artifact.Digest
	validator string
}

// Total is the size that the index or the server told.
func (u *unnamed) Total() int64 { return u.total }

// Reset begins anew.
func (u *unnamed) Reset() error {
	if u.Upload != nil {
		if err := u.Discard(); err != nil {
			return err
		}
	}
	var err error
	u.Upload, err = u.st.NewUpload()
	u.validator = ""
	return err
}

// Validator is the ETag or the date of what is there.
func (u *unnamed) Validator() string { return u.validator }

// SetValidator keeps it for as long as the file is fetched.
func (u *unnamed) SetValidator(v string) error {
	u.validator = v
	return nil
}

// Commit puts the file into the store under the digest that it has.
func (u *unnamed) Commit() error {
	if u.Size() != u.total {
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "PYPI-SIZE-MISMATCH", Subject: "a file without a hash", Reason: "another length than was told", Want: fmt.Sprint(u.total), Got: fmt.Sprint(u.Size())}
	}
	var err error
	u.digest, err = u.Upload.Commit()
	return err
}

// known are the hashes of files that were used before, by filename.
func known(prev *artifact.Snapshot) map[string]artifact.Digest {
	known := make(map[string]artifact.Digest)
	if prev == nil {
		return known
	}
	for i := range prev.Artifacts {
		for _, f := range prev.Artifacts[i].Files {
			known[f.Path] = f.Digest
		}
	}
	return known
}
