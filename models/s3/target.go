package s3

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
)

const (
	// leastPart is what a killed run sends twice, times the requests at once.
	// Up to this size a file goes up in one request.
	leastPart = 16 << 20
	// maxParts is S3's own: larger files get larger parts.
	maxParts = 10_000
	// parallel is how many requests with data there are at once. It fills a
	// fast line; more gained nothing where the store hashes what it gets.
	parallel = 4
	// looks is how many objects are asked for at once.
	looks = 8
	// stallTime is how long a request's body may make no progress.
	stallTime = 60 * time.Second
)

// How what is there already is looked at.
const (
	verifyQuick = "quick" // by size and recorded digest
	verifyFull  = "full"  // by reading it again
)

// Options say where a set is published.
type Options struct {
	Name     string // the source, for messages and the manifest: "models/llm"
	Endpoint string // "https://s3.example"
	Bucket   string // it must be there
	Prefix   string // of every object's name; may be empty
	Region   string // "us-east-1" where empty
	// AccessKey and SecretKey sign the requests; both empty: nobody does.
	AccessKey, SecretKey string
	// VirtualHost puts the bucket into the host's name.
	VirtualHost bool
	Verify      string // "quick", also where empty, or "full"
}

// A Target is a prefix in a bucket. It implements [models.Target]; one call of
// Publish runs at a time.
type Target struct {
	opt     Options
	base    string // the prefix, with a slash unless it is empty
	c       minio.Core
	st      *store.Store
	log     *slog.Logger
	onEvent func(artifact.Event)
	slots   chan struct{} // requests with data
	plain   atomic.Bool   // the store does not know checksums
	// What tests change: bounds, and pauses.
	part  int64
	stall time.Duration
	pause func(time.Duration) time.Duration
}

var _ models.Target = (*Target)(nil)

// New makes a target. Requests go through rt, which holds the allow-list, the
// certificates and the retries of what only reads.
func New(o Options, rt http.RoundTripper, st *store.Store, log *slog.Logger, onEvent func(artifact.Event)) (*Target, error) {
	o.Region, o.Verify = cmp.Or(o.Region, "us-east-1"), cmp.Or(o.Verify, verifyQuick)
	u, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("%s: s3: %w", o.Name, err)
	}
	lookup := minio.BucketLookupPath
	if o.VirtualHost {
		lookup = minio.BucketLookupDNS
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds:        credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""),
		Secure:       u.Scheme == "https",
		Transport:    &wire{next: rt},
		Region:       o.Region, // given, it is never asked for
		BucketLookup: lookup,
		MaxRetries:   1, // the retries are ours, which wait as long as the store asks
	})
	if err != nil {
		return nil, fmt.Errorf("%s: s3: endpoint: %w", o.Name, err)
	}
	client.SetS3EnableDualstack(false) // it is another host than the one configured
	t := &Target{
		opt: o, c: *client, st: st, log: log, onEvent: onEvent, slots: make(chan struct{}, parallel),
		part: leastPart, stall: stallTime, pause: func(d time.Duration) time.Duration { return d },
	}
	if o.Prefix != "" {
		t.base = o.Prefix + "/"
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if t.onEvent == nil {
		t.onEvent = func(artifact.Event) {}
	}
	return t, t.checkHost(u)
}

// check holds what the configuration's own check may not have seen.
func (o *Options) check() (*url.URL, error) {
	u, err := url.Parse(o.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("endpoint: want an address, as https://s3.example")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("endpoint: want a host alone, without a user, a path or a query")
	case o.Bucket == "":
		return nil, errors.New("bucket: missing")
	case o.Prefix != "" && (artifact.CheckPath(o.Prefix) != nil || path.Base(o.Prefix) == manifestFolder):
		return nil, fmt.Errorf("prefix %q: want a relative path, as models/llm", o.Prefix)
	case artifact.CheckSource(o.Name) != nil:
		return nil, fmt.Errorf("name %q: want ECOSYSTEM/NAME", o.Name)
	case (o.AccessKey == "") != (o.SecretKey == ""):
		return nil, errors.New("access key and secret key go together")
	case o.Verify != verifyQuick && o.Verify != verifyFull:
		return nil, fmt.Errorf("verify %q: want %s or %s", o.Verify, verifyQuick, verifyFull)
	}
	return u, nil
}

// checkHost refuses an endpoint that the library would put another host in
// place of, as it does with the general names of some stores.
func (t *Target) checkHost(u *url.URL) error {
	if t.opt.AccessKey == "" {
		return nil // such an address is always signed; the allow-list holds all the same
	}
	signed, err := t.c.Presign(context.Background(), http.MethodGet, t.opt.Bucket, "x", time.Hour, nil) // asks nobody
	if err != nil {
		return fmt.Errorf("%s: s3: %w", t.opt.Name, err)
	}
	want := u.Host
	if t.opt.VirtualHost {
		want = t.opt.Bucket + "." + want
	}
	port := map[string]string{"https": ":443", "http": ":80"}[u.Scheme]
	if !strings.EqualFold(strings.TrimSuffix(signed.Host, port), strings.TrimSuffix(want, port)) {
		return fmt.Errorf("%s: s3: endpoint %s: for region %s it is %s", t.opt.Name, u.Host, t.opt.Region, signed.Host)
	}
	return nil
}

// where names the target for people.
func (t *Target) where() string { return "s3://" + t.opt.Bucket + "/" + t.base }

// partSize is the size of a file's parts.
func (t *Target) partSize(size int64) int64 {
	const unit = 1 << 20
	least := (size + maxParts - 1) / maxParts
	return max(t.part, (least+unit-1)/unit*unit)
}

// inParts reports whether a file goes up in parts.
func (t *Target) inParts(size int64) bool { return size > t.partSize(size) }
