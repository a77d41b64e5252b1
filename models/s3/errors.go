package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// Codes of refusals.
const (
	CodeBucket      = "MODELS-S3-BUCKET"      // there is no such bucket
	CodeDenied      = "MODELS-S3-DENIED"      // the key may not do this
	CodeLogin       = "MODELS-S3-LOGIN"       // the key is unknown, wrong or has expired
	CodeSpace       = "MODELS-S3-SPACE"       // a quota or the store is full
	CodeRegion      = "MODELS-S3-REGION"      // the bucket is elsewhere
	CodeClock       = "MODELS-S3-CLOCK"       // the clocks differ too much for a signature
	CodeName        = "MODELS-S3-NAME"        // a file cannot have its name there
	CodeManifest    = "MODELS-S3-MANIFEST"    // the manifest in the bucket cannot be read
	CodeDamaged     = "MODELS-S3-DAMAGED"     // the store has other bytes than it was sent
	CodeUnreachable = "MODELS-S3-UNREACHABLE" // no answer, or none that helps, for too long
	CodeRefused     = "MODELS-S3-REFUSED"     // anything else that the store says no to
)

const (
	// maxTries is how often a request is sent; firstWait is the pause after
	// the first, which doubles up to maxWait.
	maxTries  = 6
	firstWait = 500 * time.Millisecond
	maxWait   = 30 * time.Second
	// maxText bounds what of a store's message enters ours.
	maxText = 300
)

// An op is a kind of request, and what a key needs for it.
type op struct {
	name  string
	right string
	reads bool // the transport repeats it already
}

var (
	opList    = op{"list", "s3:ListBucket", true}
	opRead    = op{"read", "s3:GetObject", true}
	opPut     = op{"put", "s3:PutObject", false}
	opDelete  = op{"delete", "s3:DeleteObject", false}
	opUploads = op{"list the open uploads of", "s3:ListBucketMultipartUploads", true}
	opParts   = op{"list the parts of", "s3:ListMultipartUploadParts", true}
	opAbort   = op{"abort the upload of", "s3:AbortMultipartUpload", false}
	opCopy    = op{"copy to", "s3:PutObject", false}
)

// try calls fn until it succeeds, or fails in a way that another try will not
// mend. A store that knows no checksums is asked again without them. What fn sends as a body stops the try where it stalls.
func (t *Target) try(ctx context.Context, o op, key string, fn func(context.Context, context.CancelCauseFunc) error) error {
	for n := 1; ; n++ {
		c, plain := &call{object: o == opRead}, t.plain.Load()
		err := t.once(withCall(ctx, c), fn)
		if err == nil {
			return nil
		}
		if o == opPut && !plain && is(err, "NotImplemented") {
			t.plain.Store(true) // it refuses headers that it does not know
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %s %s: %w", t.opt.Name, o.name, t.name(key), ctx.Err())
		}
		if n == maxTries || !passing(o, c, err) {
			return t.explain(o, key, c, err)
		}
		t.log.WarnContext(ctx, "a request to the object store is tried again", slog.String("source", t.opt.Name), slog.String("object", key), slog.String("reason", t.clean(err)))
		t.onEvent(artifact.Event{Stage: "publish", Source: t.opt.Name, Item: key, Note: fmt.Sprintf("%s %s: %s; retry %d of %d", o.name, t.name(key), t.clean(err), n, maxTries-1)})
		if err := t.wait(ctx, n, c.after); err != nil {
			return fmt.Errorf("%s: %s %s: %w", t.opt.Name, o.name, t.name(key), err)
		}
	}
}

// once calls fn with a context that ends when it has returned.
func (t *Target) once(ctx context.Context, fn func(context.Context, context.CancelCauseFunc) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := fn(ctx, stop)
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// wait pauses: what the store asks for, or else twice the last, of which half
// is chance.
func (t *Target) wait(ctx context.Context, n int, asked time.Duration) error {
	d := min(maxWait, firstWait<<min(n-1, 10))
	d = max(d/2+rand.N(d/2+1), asked) //nolint:gosec // jitter, no secret
	timer := time.NewTimer(t.pause(d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// name is an object's address.
func (t *Target) name(key string) string { return "s3://" + t.opt.Bucket + "/" + key }

// asAnswer finds what the store answered.
func asAnswer(err error) (minio.ErrorResponse, bool) { return errors.AsType[minio.ErrorResponse](err) }

// is reports whether the store answered with one of some codes.
func is(err error, codes ...string) bool {
	e, ok := asAnswer(err)
	return ok && slices.Contains(codes, e.Code)
}

// Codes that say that other bytes arrived than were sent.
var corrupted = []string{"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}

// passing tells failures that another try may not meet again.
func passing(o op, c *call, err error) bool {
	for _, final := range []error{fetch.ErrHost, errDocument, errPages, artifact.ErrIntegrity} {
		if errors.Is(err, final) {
			return false
		}
	}
	if isA[*artifact.Refusal](err) || isA[*tls.CertificateVerificationError](err) || isA[tls.RecordHeaderError](err) || isA[*ownError](err) {
		return false
	}
	if o.reads && (c.status < 200 || c.status > 299) {
		return false // the transport has tried
	}
	e, ok := asAnswer(err)
	if !ok {
		return true // no answer, or none that can be read
	}
	switch e.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return slices.Contains(corrupted, e.Code) || is(err, "InternalError", "SlowDown", "RequestTimeout", "IncompleteBody", "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict", "Throttling")
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// An ownError is trouble on our own side, which no other try mends.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// diagnoses give the store's codes ours.
var diagnoses = []struct {
	code, reason string
	answers      []string
}{
	{CodeBucket, "there is no such bucket: create it, or set s3.bucket", []string{"NoSuchBucket", "InvalidBucketName"}},
	{CodeClock, "this host's clock and the store's are too far apart for a signature: set the one that is wrong", []string{"RequestTimeTooSkewed", "RequestExpired"}},
	{CodeLogin, "the store does not know the access key, or the secret key is another: look at s3.access_key_file and s3.secret_key_file", []string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidSecurity"}},
	{CodeRegion, "the bucket is not in the region that is configured, or has another endpoint: set s3.region or s3.endpoint", []string{"AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException", "PermanentRedirect", "TemporaryRedirect", "IncorrectEndpoint"}},
	{CodeSpace, noRoom, []string{"QuotaExceeded", "QuotaExceededException", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull", "StorageFull", "InsufficientStorage", "InsufficientCapacity", "EntityTooLarge"}},
	{CodeName, "the store takes no object of that name: leave that file out of what is carried", []string{"KeyTooLongError", "KeyTooLong", "InvalidObjectName", "XMinioInvalidObjectName", "InvalidURI", "ObjectParentIsFile"}},
	{CodeDamaged, "other bytes arrive in the store than are sent, every time", corrupted},
}

const noRoom = "the store has no room for it: raise the quota, or carry less"

// explain makes a refusal of a failure.
func (t *Target) explain(o op, key string, c *call, err error) error {
	if h, ok := errors.AsType[*fetch.HostError](err); ok {
		return h
	}
	if r, ok := errors.AsType[*artifact.Refusal](err); ok {
		return r
	}
	if own, ok := errors.AsType[*ownError](err); ok {
		return fmt.Errorf("%s: %s %s: %w", t.opt.Name, o.name, t.name(key), own.err)
	}
	r := &artifact.Refusal{Class: artifact.ErrUnavailable, Subject: t.opt.Name + ": " + t.name(key)}
	e, answered := asAnswer(err)
	switch said := t.said(e); {
	case !answered || passing(op{}, c, err) && !slices.Contains(corrupted, e.Code):
		r.Code, r.Reason, r.Err = CodeUnreachable, "cannot "+o.name+" it: "+t.opt.Endpoint+" gives no answer that helps", errors.New(t.clean(err))
	case e.StatusCode == http.StatusInsufficientStorage:
		r.Code, r.Reason = CodeSpace, noRoom+said
	default:
		r.Code, r.Reason = CodeRefused, "the store refuses to "+o.name+" it"+said
		if e.StatusCode == http.StatusForbidden || is(err, "AccessDenied", "AllAccessDisabled") {
			r.Code, r.Reason = CodeDenied, "the key may not "+o.name+" it: give it "+o.right+said
		}
		if e.StatusCode == http.StatusMovedPermanently || e.StatusCode == http.StatusTemporaryRedirect {
			r.Code, r.Reason = CodeRegion, "the store sends us to another endpoint: set s3.region or s3.endpoint"+said
		}
		for _, d := range diagnoses {
			if slices.Contains(d.answers, e.Code) {
				r.Code, r.Reason = d.code, d.reason+said
			}
		}
	}
	switch r.Code {
	case CodeClock:
		if !c.date.IsZero() {
			r.Want, r.Got = c.date.UTC().Format(time.RFC3339), c.at.UTC().Format(time.RFC3339)
		}
	case CodeRegion:
		if e.Region != "" {
			r.Want, r.Got = printable(e.Region), t.opt.Region
		}
	case CodeBucket:
		r.Subject = t.opt.Name + ": s3://" + t.opt.Bucket
	case CodeDamaged:
		r.Class = artifact.ErrIntegrity
	}
	return r
}

// said is what the store said, for a message.
func (t *Target) said(e minio.ErrorResponse) string {
	text := printable(e.Code)
	if m := printable(e.Message); m != "" && m != text {
		text = strings.TrimPrefix(text+": "+m, ": ")
	}
	if text == "" {
		return ""
	}
	if id := printable(e.RequestID); id != "" {
		text += ", request " + id
	}
	for _, secret := range []string{t.opt.SecretKey, t.opt.AccessKey} {
		if secret != "" { // a store may repeat what it was sent
			text = strings.ReplaceAll(text, secret, "...")
		}
	}
	return " (it says " + text + ")"
}

// stops tells failures that every other object would meet too.
func stops(err error) bool {
	if errors.Is(err, fetch.ErrHost) {
		return true
	}
	r, ok := errors.AsType[*artifact.Refusal](err)
	return ok && slices.Contains([]string{CodeBucket, CodeDenied, CodeLogin, CodeRegion, CodeClock, CodeUnreachable}, r.Code)
}

// aURL finds URLs in text.
var aURL = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>]*`)

// clean is an error's text without what must not be seen.
func (t *Target) clean(err error) string {
	for {
		u, ok := errors.AsType[*url.Error](err)
		if !ok || u.Err == nil {
			break
		}
		err = u.Err // its text holds the whole URL
	}
	if e, ok := asAnswer(err); ok {
		return strings.TrimSuffix(strings.TrimPrefix(t.said(e), " (it says "), ")")
	}
	return printable(aURL.ReplaceAllStringFunc(err.Error(), fetch.Redact))
}

// printable bounds outside text, and keeps it in one line.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return strings.TrimSpace(s)
}
