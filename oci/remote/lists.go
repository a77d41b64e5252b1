package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// pageSize is what is asked for; registries give less where they like.
	pageSize = 1000
	// maxPage bounds one page: tags have at most 128 bytes each.
	maxPage = 16 << 20
	// maxPages and maxTags bound a list; the largest known repositories have
	// some 100 000 tags.
	maxPages = 10_000
	maxTags  = 1_000_000
	// maxReferrers bounds what may refer to one manifest.
	maxReferrers = 10_000
)

// pages reads a list page by page. handle gets each page and its reply.
func (c *Client) pages(ctx context.Context, a ask, u *url.URL, accept string, limit int64, handle func([]byte, *http.Response) error) error {
	seen := make(map[string]bool)
	for range maxPages {
		if seen[u.String()] {
			return c.badLink(a, "the list's pages go round in a circle")
		}
		seen[u.String()] = true
		b, resp, err := c.document(ctx, a, u, accept, limit) //nolint:bodyclose // document has closed it
		if err != nil {
			return err
		}
		if b == nil {
			return c.refuse(CodeSize, a.ref, "a page of the list is too large", fmt.Sprintf("at most %d bytes", limit), "more")
		}
		if err := handle(b, resp); err != nil {
			return err
		}
		next, err := nextPage(resp.Header)
		if err != nil {
			return c.badLink(a, err.Error())
		}
		if next == "" {
			return nil
		}
		to, err := c.location(resp.Request.URL, next)
		if err != nil {
			return c.badLink(a, "the next page of the list is nowhere that we may go: "+err.Error())
		}
		if !c.auth.ours(to) {
			return c.badLink(a, "the next page of the list is on another host: "+plainText(to.Host, 255))
		}
		u = to
	}
	return c.badLink(a, fmt.Sprintf("the list has more than %d pages", maxPages))
}

// badLink ends a list that cannot be read to its end. It is no attack by
// itself: a proxy that gives its own name does it too.
func (c *Client) badLink(a ask, reason string) error {
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeLink, Subject: c.c.Name + ": " + c.host + "/" + a.ref, Reason: reason,
	}
}

// Tags lists the tags of a repository, sorted. Names that are no tags by the
// specification are left out: nothing could ask for them.
func (c *Client) Tags(ctx context.Context, repo string) ([]string, error) {
	if err := spec.CheckName(repo); err != nil {
		return nil, fmt.Errorf("%s: %w", c.c.Name, err)
	}
	a := ask{op: "list tags of", ref: repo, need: need{repo: repo}}
	if err := c.spared(a); err != nil {
		return nil, err
	}
	u := withQuery(c.url("/v2/"+repo+"/tags/list"), "n", fmt.Sprintf("%d", pageSize))
	var tags []string
	err := c.pages(ctx, a, u, "application/json", maxPage, func(b []byte, _ *http.Response) error {
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return c.refuse(CodeLink, a.ref, "the list of tags cannot be read", "", "")
		}
		for _, t := range page.Tags {
			if spec.CheckTag(t) != nil {
				c.log.WarnContext(ctx, "a name in the list of tags is no tag", slog.String("source", c.c.Name), slog.String("artifact", plainText(t, 80)))
				continue
			}
			tags = append(tags, t)
		}
		if len(tags) > maxTags {
			return c.badLink(a, fmt.Sprintf("the list has more than %d tags", maxTags))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

// Referrers lists what refers to d, sorted by digest. api tells whether the
// registry has the referrers API; where it has not, the list is the one under
// the fallback tag.
func (c *Client) Referrers(ctx context.Context, repo string, d spec.Digest) (list []spec.Descriptor, api bool, err error) {
	if err := c.checkBlob(repo, d); err != nil {
		return nil, false, err
	}
	a := ask{op: "list referrers of", ref: repo + "@" + string(d), need: need{repo: repo}}
	if err := c.spared(a); err != nil {
		return nil, false, err
	}
	list, api, err = c.referrersAPI(ctx, a, repo, d)
	if err != nil || api {
		return list, api, err
	}
	raw, err := c.Manifest(ctx, repo, spec.ReferrersTag(d))
	if IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	list, err = c.referrers(a, raw.Bytes, raw.MediaType)
	if err != nil {
		return nil, false, err
	}
	return tidy(list), false, nil
}

// referrersAPI asks the API; api is false where there is none.
func (c *Client) referrersAPI(ctx context.Context, a ask, repo string, d spec.Digest) (list []spec.Descriptor, api bool, err error) {
	u := c.url("/v2/" + repo + "/referrers/" + string(d))
	first := true
	err = c.pages(ctx, a, u, spec.OCIIndex, spec.MaxManifest, func(b []byte, resp *http.Response) error {
		kind := mediaType(resp.Header)
		if first && kind != spec.OCIIndex {
			return errNoAPI // some page for people, with status 200
		}
		first = false
		page, err := c.referrers(a, b, kind)
		list = append(list, page...)
		if len(list) > maxReferrers {
			return c.badLink(a, fmt.Sprintf("more than %d referrers", maxReferrers))
		}
		return err
	})
	if first && noAPI(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return tidy(list), true, nil
}

// referrers reads one page, or the index under the fallback tag.
func (c *Client) referrers(a ask, b []byte, kind string) ([]spec.Descriptor, error) {
	m, err := spec.ParseManifest(b, kind)
	if err == nil && m.MediaType != spec.OCIIndex {
		err = fmt.Errorf("%s is no index", plainText(m.MediaType, 80))
	}
	if err != nil {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: spec.CodeManifest, Subject: c.c.Name + ": " + c.host + "/" + a.ref,
			Reason: "the list of referrers cannot be read", Err: err,
		}
	}
	return m.Manifests, nil
}

// tidy sorts a list and takes what stands in it twice out.
func tidy(list []spec.Descriptor) []spec.Descriptor {
	slices.SortStableFunc(list, func(x, y spec.Descriptor) int { return cmp.Compare(x.Digest, y.Digest) })
	return slices.CompactFunc(list, func(x, y spec.Descriptor) bool { return x.Digest == y.Digest })
}
