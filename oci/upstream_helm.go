package oci

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/oci/helm"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// maxIndex bounds an index.yaml. The largest public ones are about 30 MiB.
	maxIndex = 64 << 20
	// maxChart bounds a chart. They are templates: a few hundred kilobytes.
	maxChart = 32 << 20
	// maxProvenance bounds a signature file.
	maxProvenance = 1 << 20
)

// A helmUpstream is a classic Helm repository: index.yaml and .tgz files. Each
// chart becomes an OCI artifact, of the very form that "helm push" makes, so
// that "helm pull oci://" reads it inside.
type helmUpstream struct {
	s    *Source
	base *url.URL

	mu    sync.Mutex
	index *helm.Index
	made  map[spec.Digest][]byte // manifests
	urls  map[spec.Digest]string // of charts and their provenance
	heads map[string]spec.Descriptor
}

func newHelmUpstream(s *Source) (*helmUpstream, error) {
	base, err := url.Parse(s.cfg.Address() + "/")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return &helmUpstream{
		s: s, base: base, made: make(map[spec.Digest][]byte), urls: make(map[spec.Digest]string), heads: make(map[string]spec.Descriptor),
	}, nil
}

func (u *helmUpstream) derived() string { return "helm" }

// load reads the index once a process.
func (u *helmUpstream) load(ctx context.Context) (*helm.Index, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.index != nil {
		return u.index, nil
	}
	resp, err := u.s.client.Get(ctx, u.base.JoinPath("index.yaml").String(), fetch.GetOptions{Limit: maxIndex})
	if err != nil {
		return nil, err
	}
	x, err := helm.ParseIndex(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.s.name, err)
	}
	for _, e := range x.Skipped {
		u.s.log.WarnContext(ctx, "an entry of the index cannot be used", slog.String("source", u.s.name), slog.String("chart", e.Name), slog.String("version", e.Version), slog.String("reason", e.Reason))
	}
	u.index = x
	return x, nil
}

func (u *helmUpstream) tags(ctx context.Context, repo string) ([]string, error) {
	x, err := u.load(ctx)
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, e := range x.Versions(repo) {
		tags = append(tags, helm.Tag(e.Version))
	}
	return tags, nil
}

// head makes the artifact of one version of a chart.
func (u *helmUpstream) head(ctx context.Context, repo, ref string) (*spec.Descriptor, error) {
	u.mu.Lock()
	d, ok := u.heads[repo+":"+ref]
	if _, made := u.made[spec.Digest(ref)]; made && !ok {
		d, ok = spec.Descriptor{MediaType: spec.OCIManifest, Digest: spec.Digest(ref), Size: int64(len(u.made[spec.Digest(ref)]))}, true
	}
	u.mu.Unlock()
	if ok {
		return &d, nil
	}
	if strings.Contains(ref, ":") || attachedTag.MatchString(ref) {
		return nil, nil
	}
	x, err := u.load(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range x.Versions(repo) {
		if helm.Tag(e.Version) == helm.Tag(ref) {
			return u.convert(ctx, repo, e)
		}
	}
	return nil, nil
}

// convert fetches a chart and makes its artifact.
func (u *helmUpstream) convert(ctx context.Context, repo string, e helm.Entry) (*spec.Descriptor, error) {
	subject := fmt.Sprintf("%s: chart %s %s", u.s.name, e.Name, e.Version)
	if len(e.URLs) == 0 || e.Digest.IsZero() {
		return nil, &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: "HELM-DIGEST", Subject: subject,
			Reason: "the index names no address or no digest of it, so nothing proves what it is",
		}
	}
	where, err := u.base.Parse(e.URLs[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	chart, err := u.get(ctx, where.String(), e.Digest)
	if err != nil {
		return nil, err
	}
	provenance := *where
	provenance.Path += ".prov"
	prov, err := u.s.client.Get(ctx, provenance.String(), fetch.GetOptions{Limit: maxProvenance})
	if err != nil && !fetch.IsNotFound(err) {
		return nil, err
	}
	var provBytes []byte
	if err == nil {
		provBytes = prov.Body
	}
	made, err := helm.Convert(chart, provBytes, e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	for _, b := range [][]byte{made.Config, chart, provBytes} {
		if b == nil {
			continue
		}
		if _, err := u.s.st.PutBytes(b); err != nil {
			return nil, err
		}
	}
	d := spec.Descriptor{MediaType: spec.OCIManifest, Digest: spec.FromSHA256(artifact.Sum(made.Manifest)), Size: int64(len(made.Manifest))}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.made[d.Digest], u.heads[repo+":"+helm.Tag(e.Version)] = made.Manifest, d
	u.urls[spec.FromSHA256(e.Digest)] = fetch.Redact(where.String())
	if provBytes != nil {
		u.urls[spec.FromSHA256(artifact.Sum(provBytes))] = fetch.Redact(provenance.String())
	}
	return &d, nil
}

// get reads a chart, from the store where it came before.
func (u *helmUpstream) get(ctx context.Context, where string, d artifact.Digest) ([]byte, error) {
	if u.s.st.Has(d) {
		b, err := u.s.st.ReadAll(d, maxChart)
		if err == nil || !errors.Is(err, artifact.ErrIntegrity) {
			return b, err
		}
	}
	resp, err := u.s.client.Get(ctx, where, fetch.GetOptions{Limit: maxChart})
	if err != nil {
		return nil, err
	}
	if got := artifact.Sum(resp.Body); got != d {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: "OCI-DIGEST", Subject: u.s.name + ": " + fetch.Redact(where),
			Reason: "the chart is not what the index says", Want: d.String(), Got: got.String(),
		}
	}
	return bytes.Clone(resp.Body), nil
}

func (u *helmUpstream) manifest(_ context.Context, repo string, d spec.Digest) (*remote.Raw, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	b, ok := u.made[d]
	if !ok {
		return nil, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeMissing, Subject: u.s.name + ": " + repo, Reason: "no such chart was made in this run: " + string(d)}
	}
	return &remote.Raw{Bytes: b, MediaType: spec.OCIManifest, Digest: d}, nil
}

func (u *helmUpstream) referrers(context.Context, string, spec.Digest) ([]spec.Descriptor, error) {
	return nil, nil
}

func (u *helmUpstream) url(_, _ string, d spec.Digest) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.urls[d]
}

// fetch finds in the store what convert put there.
func (u *helmUpstream) fetch(_ context.Context, repo string, d spec.Digest, _ int64) (artifact.Digest, error) {
	sum, ok := d.SHA256()
	if !ok || !u.s.st.Has(sum) {
		return artifact.Digest{}, &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeMissing, Subject: u.s.name + ": " + repo, Reason: "no such blob of a chart was made in this run: " + string(d)}
	}
	return sum, nil
}
