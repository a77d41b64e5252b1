package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxBody bounds what is read into memory: the largest layer is far below.
const maxBody = 1 << 30

// A registry is a small client of one, for trusted registries on this host.
type registry struct {
	address, prefix string
	client          *http.Client
	pushed          int64
}

func newRegistry(address, prefix string) *registry {
	if prefix != "" {
		prefix = strings.Trim(prefix, "/") + "/"
	}
	// No proxy: what the demo counts goes to the mirror itself.
	return &registry{address: strings.TrimSuffix(address, "/"), prefix: prefix, client: &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Minute}}
}

// do sends one request and reads the whole answer.
func (r *registry) do(method, target string, body []byte, header map[string]string) (*http.Response, []byte, error) {
	req, err := http.NewRequest(method, target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp, b, err
}

func (r *registry) url(repo, rest string) string {
	return r.address + "/v2/" + r.prefix + repo + "/" + rest
}

func unexpected(resp *http.Response, b []byte) error {
	return fmt.Errorf("%s %s: %s: %.300s", resp.Request.Method, resp.Request.URL, resp.Status, b)
}

func (r *registry) pushBlob(repo, mediaType string, b []byte) (descriptor, error) {
	d := descriptor{MediaType: mediaType, Digest: digest(b), Size: int64(len(b))}
	resp, body, err := r.do(http.MethodPost, r.url(repo, "blobs/uploads/"), nil, nil)
	if err != nil {
		return d, err
	}
	if resp.StatusCode != http.StatusAccepted {
		return d, unexpected(resp, body)
	}
	to, err := resp.Location()
	if err != nil {
		return d, err
	}
	q := to.Query()
	q.Set("digest", d.Digest)
	to.RawQuery = q.Encode()
	resp, body, err = r.do(http.MethodPut, to.String(), b, map[string]string{"Content-Type": "application/octet-stream"})
	if err != nil {
		return d, err
	}
	if resp.StatusCode != http.StatusCreated {
		return d, unexpected(resp, body)
	}
	r.pushed += d.Size
	return d, nil
}

// pushManifest puts a manifest under a tag, or under its digest alone.
func (r *registry) pushManifest(repo, tag string, m manifest) (descriptor, error) {
	b := encode(m)
	d := descriptor{MediaType: m.MediaType, Digest: digest(b), Size: int64(len(b))}
	if d.MediaType == "" {
		d.MediaType = mediaManifest
	}
	if tag == "" {
		tag = d.Digest
	}
	resp, body, err := r.do(http.MethodPut, r.url(repo, "manifests/"+tag), b, map[string]string{"Content-Type": d.MediaType})
	if err != nil {
		return d, err
	}
	if resp.StatusCode != http.StatusCreated {
		return d, unexpected(resp, body)
	}
	return d, nil
}

// get reads something that has to be there; with a digest it has to be that.
func (r *registry) get(repo, rest, want string) ([]byte, string, error) {
	resp, b, err := r.do(http.MethodGet, r.url(repo, rest), nil, map[string]string{"Accept": mediaIndex + ", " + mediaManifest})
	if err != nil {
		return nil, "", err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", unexpected(resp, b)
	}
	if got := digest(b); want != "" && got != want {
		return nil, "", fmt.Errorf("%s: digest %s, want %s", resp.Request.URL, got, want)
	}
	return b, resp.Header.Get("Content-Type"), nil
}

func (r *registry) tags(repo string) ([]string, error) {
	b, _, err := r.get(repo, "tags/list", "")
	if err != nil {
		return nil, err
	}
	var list struct {
		Tags []string `json:"tags"`
	}
	return list.Tags, json.Unmarshal(b, &list)
}

// referrers asks the way that the registry knows: its API, or the tag.
func (r *registry) referrers(repo, subject string) ([]descriptor, error) {
	var index manifest
	for _, rest := range []string{"referrers/" + url.PathEscape(subject), "manifests/" + strings.Replace(subject, ":", "-", 1)} {
		resp, b, err := r.do(http.MethodGet, r.url(repo, rest), nil, map[string]string{"Accept": mediaIndex})
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			return index.Manifests, json.Unmarshal(b, &index)
		case http.StatusNotFound:
		default:
			return nil, unexpected(resp, b)
		}
	}
	return nil, nil
}
