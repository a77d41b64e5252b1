package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// firstWait doubles up to maxWait between tries.
	firstWait = 500 * time.Millisecond
	maxWait   = 30 * time.Second
	// maxObeyed is the longest Retry-After that a push waits for; asked for
	// more, it ends, and the next run goes on.
	maxObeyed = 2 * time.Minute
	// maxConflicts is how often the fallback list is read anew because
	// somebody else wrote it.
	maxConflicts = 8
)

// wait pauses before the next try.
func (c *Client) wait(ctx context.Context, fails int, asked time.Duration) error {
	d := min(maxWait, firstWait<<min(max(fails, 1)-1, 10))
	d = max(d/2+rand.N(d/2+1), asked) //nolint:gosec // jitter, no secret
	t := time.NewTimer(c.pause(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again reports whether a failed try is worth another, and waits for it.
func (c *Client) again(ctx context.Context, try int, err error) bool {
	if try >= maxTries || ctx.Err() != nil || !passing(err) {
		return false
	}
	e, _ := asError(err)
	var asked time.Duration
	if e != nil {
		asked = e.RetryAfter
	}
	if asked > maxObeyed {
		return false
	}
	c.log.WarnContext(ctx, "request is tried again", slog.String("source", c.c.Name), slog.String("reason", c.auth.hide(err.Error())))
	return c.wait(ctx, try, asked) == nil
}

// write sends a request that may be repeated, with a small body or none, and
// hands back a reply of success.
func (c *Client) write(ctx context.Context, a ask, method string, u *url.URL, body []byte, header http.Header) (*http.Response, error) {
	for try := 1; ; try++ {
		resp, err := c.writeOnce(ctx, a, method, u, body, header)
		if err == nil {
			return resp, nil
		}
		if !c.again(ctx, try, err) {
			return nil, err
		}
	}
}

func (c *Client) writeOnce(ctx context.Context, a ask, method string, u *url.URL, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(withNeed(ctx, a.need), method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, c.problem(a, err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	resp, err := c.rt.RoundTrip(req)
	if err != nil {
		return nil, c.problem(a, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, c.failure(a, resp)
	}
	return resp, nil
}

// PushManifest writes a manifest, byte for byte, under a tag or its digest.
// subject tells whether the registry keeps the list of referrers itself.
func (c *Client) PushManifest(ctx context.Context, repo, ref string, raw []byte, mediaType string) (subject bool, err error) {
	if err := c.check(repo, ref); err != nil {
		return false, err
	}
	a := ask{op: "push manifest", ref: named(repo, ref), need: need{repo: repo, push: true}}
	if len(raw) > spec.MaxManifest {
		return false, c.refuse(spec.CodeManifestSize, a.ref, "the manifest is too large", fmt.Sprintf("at most %d bytes", spec.MaxManifest), fmt.Sprintf("%d", len(raw)))
	}
	if want, err := spec.ParseDigest(ref); err == nil {
		if got := want.Sum(raw); got != want {
			return false, c.refuse(CodeDigest, a.ref, "the manifest is not what it shall be pushed as", string(want), string(got))
		}
	}
	resp, err := c.write(ctx, a, http.MethodPut, c.url("/v2/"+repo+"/manifests/"+ref), raw, http.Header{"Content-Type": {mediaType}})
	if err != nil {
		return false, err
	}
	closeBody(resp)
	if said, err := spec.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		if got := said.Sum(raw); got != said {
			return false, c.refuse(CodeDigest, a.ref, "the registry has understood another manifest", string(got), string(said))
		}
	}
	return resp.Header.Get("OCI-Subject") != "", nil
}

// DeleteManifest removes a tag, or a manifest by its digest.
func (c *Client) DeleteManifest(ctx context.Context, repo, ref string) error {
	if err := c.check(repo, ref); err != nil {
		return err
	}
	a := ask{op: "delete manifest", ref: named(repo, ref), need: need{repo: repo, del: true}}
	resp, err := c.write(ctx, a, http.MethodDelete, c.url("/v2/"+repo+"/manifests/"+ref), nil, nil)
	if err != nil {
		return err
	}
	closeBody(resp)
	return nil
}

// AddReferrer lists d as a referrer of subject under the fallback tag, for a
// registry that has no referrers API. Other entries are kept as they are; the
// order is that of the digests. A registry has no way to write only if nothing
// changed, so that is looked at afterwards, and done again where somebody else
// came between.
func (c *Client) AddReferrer(ctx context.Context, repo string, subject spec.Digest, d spec.Descriptor) error {
	if err := c.checkBlob(repo, subject); err != nil {
		return err
	}
	tag := spec.ReferrersTag(subject)
	a := ask{op: "list a referrer in", ref: named(repo, tag), need: need{repo: repo, push: true}}
	unlock, err := c.locks.lock(ctx, "referrers "+a.ref)
	if err != nil {
		return c.problem(a, err)
	}
	defer unlock()
	for try := 1; ; try++ {
		done, err := c.addReferrer(ctx, a, repo, tag, d)
		if done || err != nil {
			return err
		}
		if try == maxConflicts {
			return &Error{Source: c.c.Name, Op: a.op, Ref: a.ref, Registry: c.host, Err: fmt.Errorf("somebody else has written it %d times meanwhile", try)}
		}
		if err := c.wait(ctx, try, 0); err != nil {
			return c.problem(a, err)
		}
	}
}

// addReferrer is one try; it is not done where somebody else wrote meanwhile.
func (c *Client) addReferrer(ctx context.Context, a ask, repo, tag string, d spec.Descriptor) (done bool, err error) {
	have, err := c.Manifest(ctx, repo, tag)
	if err != nil && !IsNotFound(err) {
		return false, err
	}
	list, err := c.withReferrer(a, have, d)
	if err != nil || list == nil {
		return err == nil, err
	}
	if _, err := c.PushManifest(ctx, repo, tag, list, spec.OCIIndex); err != nil {
		if e, ok := asError(err); ok && (e.Status == http.StatusConflict || have != nil && e.Status == http.StatusPreconditionFailed && c.changed(ctx, repo, tag, have.Digest)) {
			return false, nil
		}
		return false, err
	}
	return !c.changed(ctx, repo, tag, spec.Digest("sha256:").Sum(list)), nil
}

// changed reports whether a tag points elsewhere. Where that cannot be seen
// it is taken for unchanged.
func (c *Client) changed(ctx context.Context, repo, tag string, d spec.Digest) bool {
	now, err := c.Head(ctx, repo, tag)
	return err == nil && (now == nil || now.Digest != d)
}

// withReferrer is the list with d in it; nil where it is there already.
func (c *Client) withReferrer(a ask, have *Raw, d spec.Descriptor) ([]byte, error) {
	list := struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
		Annotations   json.RawMessage   `json:"annotations,omitempty"`
	}{}
	var known []spec.Descriptor
	if have != nil {
		var err error
		if known, err = c.referrers(a, have.Bytes, have.MediaType); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(have.Bytes, &list); err != nil || len(list.Manifests) != len(known) {
			return nil, c.refuse(spec.CodeManifest, a.ref, "the list of referrers cannot be read", "", "")
		}
	}
	if slices.ContainsFunc(known, func(k spec.Descriptor) bool { return k.Digest == d.Digest }) {
		return nil, nil
	}
	entry, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", c.c.Name, a.ref, err)
	}
	byDigest := map[spec.Digest]json.RawMessage{d.Digest: entry}
	for i, k := range known {
		byDigest[k.Digest] = list.Manifests[i]
	}
	list.SchemaVersion, list.MediaType, list.Manifests = 2, spec.OCIIndex, nil
	for _, k := range tidy(append(known, d)) {
		list.Manifests = append(list.Manifests, byDigest[k.Digest])
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", c.c.Name, a.ref, err)
	}
	if len(b) > spec.MaxManifest || len(list.Manifests) > spec.MaxMembers {
		return nil, &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: spec.CodeManifestSize, Subject: c.c.Name + ": " + c.host + "/" + a.ref,
			Reason: "the list of referrers would become too large", Want: fmt.Sprintf("at most %d bytes", spec.MaxManifest), Got: fmt.Sprintf("%d", len(b)),
		}
	}
	return b, nil
}
