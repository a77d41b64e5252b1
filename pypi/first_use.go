package pypi

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// What is done with a file of which the index names no sha256, as some
// indexes of CUDA builds do.
const (
	hashRefuse = "refuse"    // it does not count
	hashRecord = "first-use" // its hash is computed once, and holds from then on
)

// firstUseAlias marks the blob that a file without a hash had when it was used
// first.
const firstUseAlias = "pypi-first-use-"

type namedOnce struct {
	once sync.Once
	f    *pageFile
	err  error
}

// named is a file with its hash. One of which the index tells none gets the
// one that it had when it was used first: the last run's snapshot or the store
// remembers it, or the file is fetched now.
func (o *offers) named(ctx context.Context, project string, f *offeredFile) (*pageFile, error) {
	if !f.Digest.IsZero() {
		return f.pageFile, nil
	}
	o.mu.Lock()
	n := o.firstUses[f.URL]
	if n == nil {
		n = &namedOnce{}
		o.firstUses[f.URL] = n
	}
	o.mu.Unlock()
	n.once.Do(func() { n.f, n.err = o.name(ctx, project, f) })
	return n.f, n.err
}

func (o *offers) name(ctx context.Context, project string, f *offeredFile) (*pageFile, error) {
	out := *f.pageFile
	alias := o.s.firstUseAlias(f.Filename)
	out.Digest = o.known[f.Filename]
	if out.Digest.IsZero() {
		out.Digest, _ = o.s.store.Alias(alias)
	}
	if out.Digest.IsZero() {
		if err := o.s.fetchUnnamed(ctx, project, f, &out); err != nil {
			return nil, err
		}
		if err := o.s.store.SetAlias(alias, out.Digest); err != nil {
			return nil, err
		}
	}
	o.saidOf(&out)
	return &out, nil
}

// saidOf remembers what METADATA was read of a wheel whose hash was not known
// then.
func (o *offers) saidOf(f *pageFile) {
	o.mu.Lock()
	d, ok := o.ranged[f.URL]
	o.mu.Unlock()
	if ok {
		o.s.said(f.Digest, d)
	}
}

func (s *Source) firstUseAlias(filename string) string {
	return firstUseAlias + artifact.Sum([]byte(s.name+"\n"+filename)).Hex()
}

// namedIn is a file of which the index tells no hash, with one of those that a
// lock or a requirement names. They do not say which file each belongs to: where
// there are several, the file is fetched to see which it is.
func (o *offers) namedIn(ctx context.Context, project string, f *pageFile, hashes map[artifact.Digest]bool) (*pageFile, error) {
	out := *f
	alias := o.s.firstUseAlias(f.Filename)
	used, _ := o.s.store.Alias(alias)
	switch {
	case len(hashes) == 1:
		for d := range hashes {
			out.Digest = d
		}
	case hashes[o.known[f.Filename]]:
		out.Digest = o.known[f.Filename]
	case hashes[used]:
		out.Digest = used
	default:
		if err := o.s.fetchUnnamed(ctx, project, &offeredFile{pageFile: f}, &out); err != nil {
			return nil, err
		}
		if !hashes[out.Digest] {
			return nil, &artifact.Refusal{
				Class: artifact.ErrIntegrity, Code: "PYPI-HASH-MISMATCH", Subject: o.s.name + ": " + f.Filename,
				Reason: fmt.Sprintf("the index names no hash, and the file has none of the %d that are demanded", len(hashes)), Got: out.Digest.String(),
			}
		}
		if err := o.s.store.SetAlias(alias, out.Digest); err != nil {
			return nil, err
		}
	}
	o.saidOf(&out)
	return &out, nil
}

// fetchUnnamed fetches f into the store, and fills in its hash and size.
func (s *Source) fetchUnnamed(ctx context.Context, project string, f *offeredFile, out *pageFile) (err error) {
	ix, err := s.reach(ctx, project, f)
	if err != nil {
		return err
	}
	if out.Size < 0 {
		if out.Size, err = s.size(ctx, ix, f.URL); err != nil {
			return err
		}
	}
	u := &unnamed{st: s.store, total: out.Size}
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
	out.Digest = u.digest
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
