package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/layout"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// A localUpstream is an OCI image layout or a docker archive. It is opened
// anew by each process, when it is first asked.
type localUpstream struct {
	s    *Source
	once sync.Once
	l    *layout.Layout
	err  error
	// tagged are the manifests by "repository:tag".
	tagged map[string]spec.Descriptor
	// subjects are the referrers by what they refer to.
	subjects map[spec.Digest][]spec.Descriptor
}

func (u *localUpstream) open() (*layout.Layout, error) {
	u.once.Do(func() {
		if u.s.cfg.Layout != "" {
			u.l, u.err = layout.OpenLayout(u.s.cfg.Layout)
		} else {
			u.l, u.err = layout.OpenArchive(u.s.cfg.Archive)
		}
		if u.err == nil {
			u.index()
		}
		if u.err != nil {
			u.err = fmt.Errorf("%s: %w", u.s.name, u.err)
		}
	})
	return u.l, u.err
}

// index sorts the layout's entries by name, and by what they refer to.
func (u *localUpstream) index() {
	u.tagged, u.subjects = make(map[string]spec.Descriptor), make(map[spec.Digest][]spec.Descriptor)
	for _, ref := range u.l.Refs() {
		if repo, tag, ok := localName(ref.Name); ok {
			u.tagged[repo+":"+tag] = ref.Descriptor
		}
		// What is damaged or missing is found by the image that needs it, and
		// is no reason to lose the others.
		raw, err := u.read(ref.Descriptor.Digest)
		if err != nil {
			u.s.log.Warn("a manifest of the layout cannot be read", slog.String("source", u.s.name), slog.Any("error", err))
			continue
		}
		m, err := spec.ParseManifest(raw, ref.Descriptor.MediaType)
		if err != nil {
			u.s.log.Warn("a manifest of the layout cannot be read", slog.String("source", u.s.name), slog.String("digest", string(ref.Descriptor.Digest)), slog.Any("error", err))
			continue
		}
		if m.Subject != nil {
			d := ref.Descriptor
			d.ArtifactType = m.Type()
			u.subjects[m.Subject.Digest] = append(u.subjects[m.Subject.Digest], d)
		}
	}
}

// localName reads the name of an entry: "team/app:1.0", with or without a
// registry before it, or a tag alone, which belongs to no repository of its
// own.
func localName(name string) (repo, tag string, ok bool) {
	if name == "" {
		return "", "", false
	}
	i := strings.LastIndexByte(name, ':')
	if i <= strings.LastIndexByte(name, '/') {
		if strings.Contains(name, "/") || spec.CheckTag(name) != nil {
			return "", "", false
		}
		return "", name, true
	}
	repo, tag = name[:i], name[i+1:]
	if host, rest, ok := strings.Cut(repo, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		repo = rest
	}
	return repo, tag, spec.CheckName(repo) == nil && spec.CheckTag(tag) == nil
}

func (u *localUpstream) derived() string {
	if u.s.cfg.Archive != "" {
		return "archive"
	}
	return "layout"
}

func (u *localUpstream) url(string, string, spec.Digest) string { return "" }

func (u *localUpstream) tags(_ context.Context, repo string) ([]string, error) {
	if _, err := u.open(); err != nil {
		return nil, err
	}
	var list []string
	for name := range u.tagged {
		if r, tag, _ := strings.Cut(name, ":"); r == repo || r == "" {
			list = append(list, tag)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func (u *localUpstream) head(_ context.Context, repo, ref string) (*spec.Descriptor, error) {
	l, err := u.open()
	if err != nil {
		return nil, err
	}
	if d, err := spec.ParseDigest(ref); err == nil {
		for _, r := range l.Refs() {
			if r.Descriptor.Digest == d {
				return &r.Descriptor, nil
			}
		}
		raw, err := u.read(d)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		m, err := spec.ParseManifest(raw, "")
		if err != nil {
			return nil, nil //nolint:nilerr // a blob, not a manifest
		}
		return &spec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(raw))}, nil
	}
	for _, name := range []string{repo + ":" + ref, ":" + ref} {
		if d, ok := u.tagged[name]; ok {
			return &d, nil
		}
	}
	return nil, nil
}

// read reads a small document of the layout; layout.Open verifies nothing.
func (u *localUpstream) read(d spec.Digest) (_ []byte, err error) {
	f, size, err := u.l.Open(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size > spec.MaxManifest {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are taken for a manifest", d, size, spec.MaxManifest)
	}
	b, err := io.ReadAll(io.LimitReader(f, spec.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if got := d.Sum(b); got != d {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: "OCI-DIGEST", Subject: u.s.name, Reason: "a manifest has another digest than its name", Want: string(d), Got: string(got)}
	}
	return b, nil
}

func (u *localUpstream) manifest(_ context.Context, _ string, d spec.Digest) (*remote.Raw, error) {
	if _, err := u.open(); err != nil {
		return nil, err
	}
	b, err := u.read(d)
	if err != nil {
		return nil, unavailable(u.s.name, d, err)
	}
	return &remote.Raw{Bytes: b, Digest: d}, nil
}

// unavailable makes a missing file what a registry's 404 is.
func unavailable(source string, d spec.Digest, err error) error {
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeMissing, Subject: source, Reason: "upstream lacks " + string(d), Err: err}
}

func (u *localUpstream) referrers(_ context.Context, _ string, d spec.Digest) ([]spec.Descriptor, error) {
	if _, err := u.open(); err != nil {
		return nil, err
	}
	return u.subjects[d], nil
}

func (u *localUpstream) fetch(ctx context.Context, repo string, d spec.Digest, size int64) (_ artifact.Digest, err error) {
	l, err := u.open()
	if err != nil {
		return artifact.Digest{}, err
	}
	sum, named := d.SHA256()
	if named && u.s.st.Has(sum) {
		return sum, nil
	}
	f, n, err := l.Open(d)
	if err != nil {
		return artifact.Digest{}, unavailable(u.s.name, d, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if n != size {
		return artifact.Digest{}, wrongSize(u.s.name, repo, d, size, n)
	}
	if !named {
		return ingest(u.s.st, u.s.name, repo, d, size, f)
	}
	return sum, u.s.st.Put(ctx, f, sum, size)
}
