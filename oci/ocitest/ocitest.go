// Package ocitest is a fake container registry for tests: a real HTTP handler
// of the distribution API in memory, for pulls and for pushes, with faults to
// order, a token server, a storage host for redirects, and makers of images,
// indexes and artifacts. It shares no code with oci/remote and oci/registry,
// so that client and server cannot share one mistake.
//
// Specification: OCI distribution-spec v1.1.1; the faults are those seen in
// docker-registry 2.8.2, distribution 3.1.2 and Harbor 2.15.2.
package ocitest

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// A Registry is the fake. New makes one; it may be used concurrently, and its
// faults may be changed between requests by [Registry.Set].
type Registry struct {
	mu      sync.Mutex
	f       faults
	repos   map[string]*repository
	blobs   map[spec.Digest][]byte
	uploads map[string]*upload
	tokens  map[string]*token
	log     []*entry
	serial  int
}

type repository struct {
	blobs     map[spec.Digest]int64
	manifests map[spec.Digest]manifest
	tags      map[string]spec.Digest
}

type manifest struct {
	mediaType string
	raw       []byte
}

// New makes an empty registry.
func New(opts ...Option) *Registry {
	r := &Registry{
		repos: make(map[string]*repository), blobs: make(map[spec.Digest][]byte),
		uploads: make(map[string]*upload), tokens: make(map[string]*token),
	}
	r.Set(opts...)
	return r
}

// Set adds to the registry's faults.
func (r *Registry) Set(opts ...Option) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range opts {
		o(&r.f)
	}
}

func (r *Registry) repo(name string) *repository {
	if r.repos[name] == nil {
		r.repos[name] = &repository{
			blobs: make(map[spec.Digest]int64), manifests: make(map[spec.Digest]manifest), tags: make(map[string]spec.Digest),
		}
	}
	return r.repos[name]
}

// digestOf is the sha256 digest of b.
func digestOf(b []byte) spec.Digest { return spec.Digest("sha256:").Sum(b) }

// AddBlob gives a repository a blob.
func (r *Registry) AddBlob(repo string, b []byte) spec.Descriptor {
	d := digestOf(b)
	r.AddBlobAs(repo, d, b)
	return spec.Descriptor{MediaType: spec.OCILayer, Digest: d, Size: int64(len(b))}
}

// AddBlobAs gives a repository a blob by a digest, right or wrong, of any
// algorithm.
func (r *Registry) AddBlobAs(repo string, d spec.Digest, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[d] = b
	r.repo(repo).blobs[d] = int64(len(b))
}

// RemoveBlob makes a repository lack a blob, whatever refers to it.
func (r *Registry) RemoveBlob(repo string, d spec.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.repo(repo).blobs, d)
}

// AddManifest gives a repository a manifest, unchecked; tag may be empty.
func (r *Registry) AddManifest(repo, tag, mediaType string, raw []byte) spec.Digest {
	d := digestOf(raw)
	r.AddManifestAs(repo, d, mediaType, raw)
	if tag != "" {
		r.Tag(repo, tag, d)
	}
	return d
}

// AddManifestAs gives a repository a manifest by a digest, right or wrong, of
// any algorithm.
func (r *Registry) AddManifestAs(repo string, d spec.Digest, mediaType string, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(repo).manifests[d] = manifest{mediaType: mediaType, raw: raw}
}

// RemoveManifest makes a repository lack a manifest and its tags.
func (r *Registry) RemoveManifest(repo string, d spec.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeManifest(repo, d)
}

func (r *Registry) removeManifest(repo string, d spec.Digest) {
	delete(r.repo(repo).manifests, d)
	maps.DeleteFunc(r.repo(repo).tags, func(_ string, have spec.Digest) bool { return have == d })
}

// Tag points a tag at a digest.
func (r *Registry) Tag(repo, tag string, d spec.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(repo).tags[tag] = d
}

// Untag removes a tag.
func (r *Registry) Untag(repo, tag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.repo(repo).tags, tag)
}

// Manifest is what ref, a tag or a digest, names.
func (r *Registry) Manifest(repo, ref string) (raw []byte, mediaType string, d spec.Digest, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, m, ok := r.manifest(repo, ref)
	return m.raw, m.mediaType, d, ok
}

func (r *Registry) manifest(repo, ref string) (spec.Digest, manifest, bool) {
	rp := r.repos[repo]
	if rp == nil {
		return "", manifest{}, false
	}
	d := spec.Digest(ref)
	if !strings.Contains(ref, ":") {
		d = rp.tags[ref]
	}
	m, ok := rp.manifests[d]
	return d, m, ok
}

// Blob is the content of a blob that the repository has.
func (r *Registry) Blob(repo string, d spec.Digest) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blob(repo, d)
}

func (r *Registry) blob(repo string, d spec.Digest) ([]byte, bool) {
	rp := r.repos[repo]
	if rp == nil {
		return nil, false
	}
	if _, ok := rp.blobs[d]; !ok {
		return nil, false
	}
	return r.blobs[d], true
}

// Tags lists the tags of a repository, sorted, with what they point at.
func (r *Registry) Tags(repo string) map[string]spec.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rp := r.repos[repo]; rp != nil {
		return maps.Clone(rp.tags)
	}
	return nil
}

// Repositories lists the repositories that hold anything, sorted.
func (r *Registry) Repositories() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.repos))
}

// Uploads is how many upload sessions are open.
func (r *Registry) Uploads() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.uploads)
}

// DropUploads forgets every upload session, as a restart of some registries
// does.
func (r *Registry) DropUploads() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.uploads)
}

// DropTokens makes every token invalid that was given out.
func (r *Registry) DropTokens() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}

// Servers of the log.
const (
	OnRegistry = "registry"
	OnStorage  = "storage"
	OnToken    = "token"
)

// A Request is what was asked of the registry, its storage host or its token
// server.
type Request struct {
	Server string // OnRegistry, OnStorage or OnToken
	Method string
	Path   string
	Query  string
	Host   string
	Header http.Header
	Status int   // 0 where the connection was cut before a reply
	In     int64 // bytes of the body that were read
	Out    int64 // bytes of the body that were sent
}

// String is "PUT /v2/app/manifests/1.0 201".
func (q Request) String() string { return fmt.Sprintf("%s %s %d", q.Method, q.Path, q.Status) }

type entry struct {
	req     Request // but for what follows, unchanged from the start
	status  atomic.Int64
	in, out atomic.Int64
}

// Requests is the log, in the order of arrival.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Request, 0, len(r.log))
	for _, e := range r.log {
		q := e.req
		q.Status, q.In, q.Out = int(e.status.Load()), e.in.Load(), e.out.Load()
		out = append(out, q)
	}
	return out
}

// ResetLog forgets the log.
func (r *Registry) ResetLog() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

// matching picks requests to the registry by method ("" for any) and by a part
// of the path.
func (r *Registry) matching(method, part string) []Request {
	return slices.DeleteFunc(r.Requests(), func(q Request) bool {
		return q.Server != OnRegistry || method != "" && q.Method != method || !strings.Contains(q.Path, part)
	})
}

// Count is how many requests of that method ("" for any), with part in their
// path, the registry got.
func (r *Registry) Count(method, part string) int { return len(r.matching(method, part)) }

// Received is how many bytes of bodies these requests brought.
func (r *Registry) Received(method, part string) int64 {
	var n int64
	for _, q := range r.matching(method, part) {
		n += q.In
	}
	return n
}

// Sent is how many bytes of bodies these requests were answered with.
func (r *Registry) Sent(method, part string) int64 {
	var n int64
	for _, q := range r.matching(method, part) {
		n += q.Out
	}
	return n
}

// Writes is how many requests changed, or tried to change, anything.
func (r *Registry) Writes() int {
	n := 0
	for _, m := range []string{http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		n += r.Count(m, "/v2/")
	}
	return n
}

// next is a number that was not given out before.
func (r *Registry) next() int {
	r.serial++
	return r.serial
}

// base is the scheme and host under which a request came.
func base(q *http.Request) string {
	if q.TLS != nil {
		return "https://" + q.Host
	}
	return "http://" + q.Host
}

// sorted lists descriptors by digest.
func sorted(list []spec.Descriptor) []spec.Descriptor {
	slices.SortFunc(list, func(a, b spec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return list
}
