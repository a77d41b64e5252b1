package ocitest

import (
	"net/http"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// faults is how a registry differs from a good one. The registry's lock
// guards it.
type faults struct {
	noReferrers   bool
	noMount       bool
	loseOnCut     bool
	dropPart      bool
	takeLess      int64
	lenient       bool
	relative      bool
	immutable     bool
	noDigest      bool
	pageSize      int
	noChunks      int
	minChunk      int64
	rangeRefusals int
	busy          int
	busyStatus    int
	retryAfter    string
	remaining     int // of the rate limit, plus one; 0: none
	replaced      map[spec.Digest][]byte
	cutDownloads  map[spec.Digest]*cut
	cutUpload     *cut
	redirect      string
	uploadsAt     string
	basicUser     string
	basicPassword string
	auth          *tokenAuth
	before        []func(http.ResponseWriter, *http.Request) bool
}

// A cut ends a connection after some bytes, so often.
type cut struct {
	every int64
	after int64 // what is left of every
	times int
	stall bool
}

// An Option is a fault, or another choice.
type Option func(*faults)

// NoReferrersAPI answers 404 to referrers, as registries before OCI 1.1 do,
// and sends no OCI-Subject.
func NoReferrersAPI() Option { return func(f *faults) { f.noReferrers = true } }

// ReferrersAPI undoes [NoReferrersAPI]: the registry was upgraded.
func ReferrersAPI() Option { return func(f *faults) { f.noReferrers = false } }

// NoMount answers 202 to each mount.
func NoMount() Option { return func(f *faults) { f.noMount = true } }

// LoseUploadOnCut forgets an upload whose chunk was cut, and one that is
// continued by a stale URL, as docker-registry 2.8.2 does.
func LoseUploadOnCut() Option { return func(f *faults) { f.loseOnCut = true } }

// DropPart keeps of an upload whose chunk was cut the whole chunks alone.
func DropPart() Option { return func(f *faults) { f.dropPart = true } }

// TakeLess keeps of each chunk so many bytes at most, and says so.
func TakeLess(n int64) Option { return func(f *faults) { f.takeLess = n } }

// Lenient takes manifests whose members are missing.
func Lenient() Option { return func(f *faults) { f.lenient = true } }

// RelativeLocation sends upload locations without scheme and host.
func RelativeLocation() Option { return func(f *faults) { f.relative = true } }

// ImmutableTags answers 412 to a manifest for a tag that exists, the same
// bytes included, as Harbor does.
func ImmutableTags() Option { return func(f *faults) { f.immutable = true } }

// NoDigestHeader leaves Docker-Content-Digest out.
func NoDigestHeader() Option { return func(f *faults) { f.noDigest = true } }

// PageSize sends lists in pages, with Link.
func PageSize(n int) Option { return func(f *faults) { f.pageSize = n } }

// NoChunks answers status (405, 411, 416) to each PATCH.
func NoChunks(status int) Option { return func(f *faults) { f.noChunks = status } }

// MinChunk announces OCI-Chunk-Min-Length and refuses smaller chunks but the
// last, which a PUT brings.
func MinChunk(n int64) Option { return func(f *faults) { f.minChunk = n } }

// RefuseRange answers 416 to the next n chunks, with the true range.
func RefuseRange(n int) Option { return func(f *faults) { f.rangeRefusals = n } }

// Busy answers status, with Retry-After where that is not empty, to the next n
// requests below a repository.
func Busy(n, status int, retryAfter string) Option {
	return func(f *faults) { f.busy, f.busyStatus, f.retryAfter = n, status, retryAfter }
}

// RateLimit sends ratelimit headers; each manifest that is read takes one
// of what remains, and with none left the answer is 429.
func RateLimit(remaining int) Option { return func(f *faults) { f.remaining = remaining + 1 } }

// Replace serves other bytes under a digest.
func Replace(d spec.Digest, b []byte) Option {
	return func(f *faults) {
		if f.replaced == nil {
			f.replaced = make(map[spec.Digest][]byte)
		}
		f.replaced[d] = b
	}
}

// CutDownload ends the next replies with this blob after so many bytes.
func CutDownload(d spec.Digest, after int64, times int) Option {
	return func(f *faults) {
		if f.cutDownloads == nil {
			f.cutDownloads = make(map[spec.Digest]*cut)
		}
		f.cutDownloads[d] = &cut{after: after, times: times}
	}
}

// CutUpload ends the connection when so many bytes of blobs have come in,
// counted over all requests from now on; then again after as many, so often.
func CutUpload(after int64, times int) Option {
	return func(f *faults) { f.cutUpload = &cut{every: after, after: after, times: times} }
}

// StallUpload reads no more when so many bytes of blobs have come in.
func StallUpload(after int64) Option {
	return func(f *faults) { f.cutUpload = &cut{every: after, after: after, times: 1, stall: true} }
}

// Redirect sends downloads of blobs on to the server of [Registry.Storage],
// whose address is given, with a signed query.
func Redirect(storage string) Option { return func(f *faults) { f.redirect = storage } }

// UploadsAt sends upload sessions to another address of this registry.
func UploadsAt(address string) Option { return func(f *faults) { f.uploadsAt = address } }

// BasicAuth demands basic authentication.
func BasicAuth(user, password string) Option {
	return func(f *faults) { f.basicUser, f.basicPassword = user, password }
}

// Before lets fn answer a request in the registry's place: it returns true
// where it has.
func Before(fn func(http.ResponseWriter, *http.Request) bool) Option {
	return func(f *faults) { f.before = append(f.before, fn) }
}

// Healthy takes every fault away, authentication too.
func Healthy() Option { return func(f *faults) { *f = faults{} } }
