package registry

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	// maxPage is the longest list of names that is answered at once: about
	// a megabyte. More are on the next page.
	maxPage = 10_000
	// maxReferrersPage bounds a list of referrers in bytes: clients take it
	// as a manifest, which has at most 4 MiB.
	maxReferrersPage = spec.MaxManifest
	// maxReferrersScan and maxReferrersRead bound the manifests that are read
	// for one page, in number and in bytes: with a filter, few of them may be
	// on it.
	maxReferrersScan = 1000
	maxReferrersRead = 64 << 20
)

// page cuts out of a sorted list what a request's n and last ask for; next is
// the query of the page that follows, or empty.
func page(names []string, q url.Values) (out []string, next string, err error) {
	n := maxPage
	if text := q.Get("n"); text != "" {
		// More than we answer at once is no mistake.
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			return nil, "", faultf(http.StatusBadRequest, codePageNumber, "n=%s: want a number of entries", clip(text))
		}
		n = min(n, maxPage)
	}
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(names, last)
		if found {
			i++
		}
		names = names[i:]
	}
	if n == 0 || len(names) <= n {
		return names[:min(n, len(names))], "", nil
	}
	return names[:n], url.Values{"n": {strconv.Itoa(n)}, "last": {names[n-1]}}.Encode(), nil
}

// setNext announces the next page.
func setNext(w http.ResponseWriter, path, query string) {
	if query != "" {
		w.Header().Set("Link", "<"+path+"?"+query+`>; rel="next"`)
	}
}

// listTags answers with a repository's tags.
func (h *Handler) listTags(w http.ResponseWriter, r *http.Request, t *target) error {
	if !t.exists() {
		return faultf(http.StatusNotFound, codeNameUnknown, "repository %s is not here", t.name)
	}
	tags, err := t.tags()
	if err != nil {
		return err
	}
	tags, next, err := page(tags, r.URL.Query())
	if err != nil {
		return err
	}
	if tags == nil {
		tags = []string{} // a list, not null
	}
	setNext(w, t.link("tags", "list"), next)
	body, err := json.Marshal(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{t.name, tags})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", notAtAll)
	return writeJSON(w, r, "application/json", body)
}

// catalog lists the repositories of all sources, as Docker's registry does.
func (h *Handler) catalog(w http.ResponseWriter, r *http.Request, _ *target) error {
	names := []string{}
	for _, s := range h.sources {
		now, err := s.current(r.Context())
		if err != nil {
			return err
		}
		repos, err := s.tree.repos()
		if err != nil {
			return err
		}
		for name := range now.repos {
			repos = append(repos, name)
		}
		for _, name := range repos {
			names = append(names, s.name+"/"+name)
		}
	}
	names, next, err := page(merge(names, nil), r.URL.Query())
	if err != nil {
		return err
	}
	setNext(w, root+catalogPath, next)
	body, err := json.Marshal(struct {
		Repositories []string `json:"repositories"`
	}{slices.Concat([]string{}, names)})
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", notAtAll)
	return writeJSON(w, r, "application/json", body)
}

// referrers lists the manifests that refer to one, which need not be here.
func (h *Handler) referrers(w http.ResponseWriter, r *http.Request, t *target) error {
	subject, err := spec.ParseDigest(t.ref)
	if err != nil {
		return badDigest(err)
	}
	all, err := t.referrersOf(subject)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearchFunc(all, last, func(d spec.Digest, s string) int { return strings.Compare(string(d), s) })
		if found {
			i++
		}
		all = all[i:]
	}
	wanted := q.Get("artifactType")
	list, last, err := t.describe(subject, all, wanted)
	if err != nil {
		return err
	}
	head := w.Header()
	if wanted != "" {
		head.Set("Oci-Filters-Applied", "artifactType")
	}
	if last != "" {
		next := url.Values{"last": {string(last)}}
		if wanted != "" {
			next.Set("artifactType", wanted)
		}
		setNext(w, t.link("referrers", string(subject)), next.Encode())
	}
	head.Set("Cache-Control", notAtAll)
	return writeJSON(w, r, spec.OCIIndex, list)
}

// describe writes an index of one page of referrers; last is where the next
// page begins, or empty.
func (t *target) describe(subject spec.Digest, all []spec.Digest, wanted string) (index []byte, last spec.Digest, err error) {
	var list bytes.Buffer
	list.WriteString(`{"schemaVersion":2,"mediaType":"` + spec.OCIIndex + `","manifests":[`)
	const end = `]}`
	first := true
	var read int64
	for i, d := range all {
		if i == maxReferrersScan || read > maxReferrersRead {
			return append(list.Bytes(), end...), all[i-1], nil
		}
		one, size, err := t.describeOne(subject, d, wanted)
		if err != nil {
			return nil, "", err
		}
		read += size
		if one == nil {
			continue
		}
		if !first && list.Len()+len(one)+len(end)+1 > maxReferrersPage {
			return append(list.Bytes(), end...), all[i-1], nil
		}
		if !first {
			list.WriteByte(',')
		}
		first = false
		list.Write(one)
	}
	return append(list.Bytes(), end...), "", nil
}

// describeOne writes a referrer's descriptor; nil if it is not wanted, or not
// (or no longer) here. read is how many bytes it took to know.
func (t *target) describeOne(subject, d spec.Digest, wanted string) (one []byte, read int64, err error) {
	e, err := t.manifest(d)
	if absent(err) || err == nil && e.subject != subject {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	m, err := t.parse(e.blob, e.mediaType)
	if absent(err) || err == nil && wanted != "" && m.Type() != wanted {
		return nil, e.size, nil
	}
	if err != nil {
		return nil, 0, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // it is no HTML, and would grow sixfold
	err = enc.Encode(spec.Descriptor{MediaType: e.mediaType, Digest: d, Size: e.size, Annotations: m.Annotations, ArtifactType: m.Type()})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), e.size, err
}
