package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// maxPassword bounds a password file; tokens of clouds have some kilobytes.
const maxPassword = 64 << 10

// readPassword reads a file that holds a secret and perhaps a line's end.
func readPassword(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	if len(b) > maxPassword {
		return "", fmt.Errorf("password_file: %s has more than %d bytes", name, maxPassword)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// A registryUpstream is a registry.
type registryUpstream struct {
	s *Source
	r *remote.Client
}

func newRegistryUpstream(s *Source) (*registryUpstream, error) {
	password, err := readPassword(s.cfg.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	r, err := remote.New(remote.Config{
		Name: s.name, Registry: s.cfg.Address(), User: s.cfg.User, Password: password, DockerConfig: s.cfg.DockerConfig,
		MinRemaining: s.cfg.MinRemaining, Log: s.log,
	}, s.client)
	if err != nil {
		return nil, err
	}
	return &registryUpstream{s, r}, nil
}

func (u *registryUpstream) derived() string { return "" }

func (u *registryUpstream) tags(ctx context.Context, repo string) ([]string, error) {
	return u.r.Tags(ctx, repo)
}

func (u *registryUpstream) head(ctx context.Context, repo, ref string) (*spec.Descriptor, error) {
	return u.r.Head(ctx, repo, ref)
}

func (u *registryUpstream) manifest(ctx context.Context, repo string, d spec.Digest) (*remote.Raw, error) {
	return u.r.Manifest(ctx, repo, string(d))
}

func (u *registryUpstream) referrers(ctx context.Context, repo string, d spec.Digest) ([]spec.Descriptor, error) {
	list, _, err := u.r.Referrers(ctx, repo, d)
	return list, err
}

func (u *registryUpstream) url(repo, kind string, d spec.Digest) string {
	base := u.r.BlobURL(repo, d)
	if kind == "manifests" {
		i := strings.LastIndex(base, "/blobs/")
		return base[:i] + "/manifests/" + string(d)
	}
	return base
}

// fetch downloads a blob, going on where an earlier run stopped. One that is
// not named by its SHA-256 comes in one piece.
func (u *registryUpstream) fetch(ctx context.Context, repo string, d spec.Digest, size int64) (artifact.Digest, error) {
	sum, ok := d.SHA256()
	if !ok {
		return u.fetchOther(ctx, repo, d, size)
	}
	if u.s.st.Has(sum) {
		return sum, nil
	}
	p, err := u.s.st.Partial(sum, size)
	if err != nil {
		return artifact.Digest{}, err
	}
	err = u.r.Download(ctx, repo, d, p)
	if cerr := p.Close(); cerr != nil {
		return artifact.Digest{}, errors.Join(err, cerr)
	}
	if remote.IsNotFound(err) {
		return artifact.Digest{}, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeMissing, Subject: u.s.name, Reason: "upstream lacks a blob of the image", Err: err}
	}
	return sum, err
}

func (u *registryUpstream) fetchOther(ctx context.Context, repo string, d spec.Digest, size int64) (artifact.Digest, error) {
	body, n, err := u.r.OpenBlob(ctx, repo, d)
	if err != nil {
		return artifact.Digest{}, err
	}
	defer func() { _ = body.Close() }() // only read; what counts is the digest
	if n >= 0 && n != size {
		return artifact.Digest{}, wrongSize(u.s.name, repo, d, size, n)
	}
	return ingest(u.s.st, u.s.name, repo, d, size, body)
}

func wrongSize(source, repo string, d spec.Digest, want, got int64) error {
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: "OCI-SIZE", Subject: fmt.Sprintf("%s: %s@%s", source, repo, d),
		Reason: "its size is not what its manifest says", Want: fmt.Sprint(want), Got: fmt.Sprint(got),
	}
}

// ingest brings a blob of any algorithm into the store and answers its digest
// there.
func ingest(st *store.Store, source, repo string, d spec.Digest, size int64, r io.Reader) (_ artifact.Digest, err error) {
	up, err := st.NewUpload()
	if err != nil {
		return artifact.Digest{}, err
	}
	defer func() { err = errors.Join(err, up.Discard()) }() // nothing to do after a commit
	h := d.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(up, h)}, io.LimitReader(r, size+1), make([]byte, 256<<10))
	if err != nil {
		return artifact.Digest{}, fmt.Errorf("%s: %s@%s: %w", source, repo, d, err)
	}
	if n != size {
		return artifact.Digest{}, wrongSize(source, repo, d, size, n)
	}
	if got := d.With(h); got != d {
		return artifact.Digest{}, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "OCI-DIGEST", Subject: fmt.Sprintf("%s: %s@%s", source, repo, d),
			Reason: "the bytes have another digest", Want: string(d), Got: string(got),
		}
	}
	return up.Commit()
}
