package apt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
)

// Pins, as apt: what a NotAutomatic suite offers is taken only where no other
// suite has the name.
const (
	pinUsual        = 500
	pinUpgrades     = 100
	pinNotAutomatic = 1
)

// A suite is one Release and its indices while a source is being resolved.
type suite struct {
	place   int // of the archive in the configuration
	archive *Archive
	keys    *keyring
	name    string
	path    string    // "debian/dists/bookworm", also in Meta
	url     string    // the same upstream
	oldest  time.Time // the Date accepted before; zero: none

	release *Release
	raw     artifact.Digest // of the InRelease or Release that was read
	meta    []artifact.File
	indices []*index
}

// suites lists what the configuration asks for, with keys and the Dates that
// were accepted before.
func (s *Source) suites(prev *artifact.Snapshot) ([]*suite, error) {
	dates, err := releaseDates(s.st, prev)
	if err != nil {
		return nil, err
	}
	var all []*suite
	for i := range s.cfg.Archives {
		a := &s.cfg.Archives[i]
		keys, err := loadKeyring(a.SignedBy)
		if err != nil {
			return nil, fmt.Errorf("%s: archive %s: %w", s.name, a.name(), err)
		}
		for _, name := range a.Suites {
			su := &suite{place: i, archive: a, keys: keys, name: name}
			su.path = path.Join(a.name(), "dists", name)
			su.url = strings.TrimSuffix(a.URL, "/") + "/dists/" + escapePath(name)
			su.oldest = dates[su.path]
			all = append(all, su)
		}
	}
	return all, nil
}

// releaseDates reads the Dates of a snapshot that was accepted before, by
// "ARCHIVE/dists/SUITE". A blob that has been pruned since is passed over.
func releaseDates(st *store.Store, prev *artifact.Snapshot) (map[string]time.Time, error) {
	dates := make(map[string]time.Time)
	if prev == nil {
		return dates, nil
	}
	for _, f := range prev.Meta {
		base := path.Base(f.Path)
		if base != "InRelease" && base != "Release" || !st.Has(f.Digest) {
			continue
		}
		b, err := st.ReadAll(f.Digest, maxRelease)
		if err != nil {
			return nil, err
		}
		r, err := acceptedRelease(b)
		if err != nil {
			return nil, fmt.Errorf("%s of the snapshot before: %w", f.Path, err)
		}
		dates[path.Dir(f.Path)] = r.Date
	}
	return dates, nil
}

func (su *suite) close() error {
	var err error
	for _, ix := range su.indices {
		err = errors.Join(err, ix.close())
	}
	su.indices = nil
	return err
}

// read brings a suite in. An upstream that was changed between its InRelease
// and an index gives one wrong digest; so on an integrity refusal the
// InRelease is fetched once more, and only if it is the same the refusal
// stands.
func (s *Source) read(ctx context.Context, su *suite) error {
	for attempt := 1; ; attempt++ {
		before := su.raw
		if err := s.readRelease(ctx, su); err != nil {
			return err
		}
		if attempt > 1 && su.raw == before {
			// Upstream stands still. What was damaged here is gone by now and
			// is fetched again; what is wrong there stays wrong.
			s.log.LogAttrs(ctx, slog.LevelWarn, "index differs from its release", slog.String("source", s.name), slog.String("suite", su.path))
		}
		err := s.readIndices(ctx, su)
		if err == nil {
			return nil
		}
		if attempt == 2 || !errors.Is(err, artifact.ErrIntegrity) {
			return err
		}
		if cerr := su.close(); cerr != nil {
			return errors.Join(err, cerr)
		}
	}
}

// readRelease fetches and judges InRelease or, only where there is none,
// Release with Release.gpg.
func (s *Source) readRelease(ctx context.Context, su *suite) error {
	su.meta = nil
	now := s.now()
	subject := s.name + ": " + su.path
	var v *verification
	doc, err := s.client.Get(ctx, su.url+"/InRelease", fetch.GetOptions{Limit: maxRelease})
	switch {
	case err == nil:
		v, err = su.keys.verifyInline(doc.Body, now)
		if err := su.keys.accepted(subject+"/InRelease", v, err); err != nil {
			return err
		}
		if su.raw, err = s.keep(su, "InRelease", doc.Body); err != nil {
			return err
		}
	case fetch.IsNotFound(err):
		if v, err = s.readDetached(ctx, su, subject, now); err != nil {
			return err
		}
	default:
		return err
	}
	s.log.LogAttrs(ctx, slog.LevelInfo, "release verified", slog.String("source", s.name), slog.String("suite", su.path),
		slog.Any("signers", v.signers), slog.Any("good", v.good))
	su.release, err = parseRelease(v.text)
	if err != nil {
		ref := integrity(codeRelease, subject, "release cannot be read")
		ref.Err = err
		return ref
	}
	return su.judge(subject, now)
}

func (s *Source) readDetached(ctx context.Context, su *suite, subject string, now time.Time) (*verification, error) {
	doc, err := s.client.Get(ctx, su.url+"/Release", fetch.GetOptions{Limit: maxRelease})
	if fetch.IsNotFound(err) {
		ref := unavailable(codeRelease, subject, "neither InRelease nor Release is there")
		ref.Err = err
		return nil, ref
	}
	if err != nil {
		return nil, err
	}
	sig, err := s.client.Get(ctx, su.url+"/Release.gpg", fetch.GetOptions{Limit: maxSignatureFile})
	if fetch.IsNotFound(err) {
		ref := integrity(codeSignature, subject+"/Release", "release is not signed")
		ref.Want = strings.Join(su.keys.fingerprints(), " or ")
		ref.Err = err
		return nil, ref
	}
	if err != nil {
		return nil, err
	}
	v, err := su.keys.verifyDetached(doc.Body, sig.Body, now)
	if err := su.keys.accepted(subject+"/Release.gpg", v, err); err != nil {
		return nil, err
	}
	if su.raw, err = s.keep(su, "Release", doc.Body); err != nil {
		return nil, err
	}
	_, err = s.keep(su, "Release.gpg", sig.Body)
	return v, err
}

// keep puts a document into the store and lists it.
func (s *Source) keep(su *suite, name string, b []byte) (artifact.Digest, error) {
	d, err := s.st.PutBytes(b)
	if err != nil {
		return d, err
	}
	su.meta = append(su.meta, artifact.File{Path: su.path + "/" + name, Digest: d, Size: int64(len(b)), URL: su.url + "/" + name})
	return d, nil
}

// judge holds R3: the right suite, and neither too old nor too new.
func (su *suite) judge(subject string, now time.Time) error {
	if !su.release.isSuite(su.name) {
		ref := integrity(codeSuite, subject, "release of another suite")
		ref.Want, ref.Got = su.name, fmt.Sprintf("suite %q, codename %q", clip(su.release.Suite), clip(su.release.Codename))
		return ref
	}
	if err := su.release.checkTimes(subject, now, su.archive.checksValidUntil()); err != nil {
		return err
	}
	return checkRollback(subject, su.release.Date, su.oldest)
}

func checkRollback(subject string, date, oldest time.Time) error {
	if !date.Before(oldest) {
		return nil
	}
	ref := sequence(codeRollback, subject, "release is older than the one accepted before")
	ref.Want, ref.Got = "at least "+formatDate(oldest), formatDate(date)
	return ref
}

// readIndices brings in the Packages index of each component and
// architecture.
func (s *Source) readIndices(ctx context.Context, su *suite) error {
	if su.release.weak {
		ref := integrity(codeWeakHash, s.name+": "+su.path, "release lists no SHA-256")
		ref.Want = "a SHA256 list"
		return ref
	}
	arches := su.release.wanted(s.cfg.Architectures)
	for _, component := range su.archive.Components {
		found := false
		for _, arch := range arches {
			n, ok := su.release.index(component, arch)
			if !ok {
				continue
			}
			found = true
			if err := s.readIndex(ctx, su, n); err != nil {
				return err
			}
		}
		if !found {
			ref := unavailable(codeNoIndex, s.name+": "+su.path, "no index of component "+component)
			ref.Want = strings.Join(s.cfg.Architectures, " or ")
			ref.Got = "components " + clip(strings.Join(su.release.Components, " ")) + ", architectures " + clip(strings.Join(su.release.Architectures, " "))
			return ref
		}
	}
	return nil
}

// wanted adds "all" where a Release has indices of its own for it.
func (r *Release) wanted(arches []string) []string {
	if slices.Contains(r.Architectures, "all") && !r.NoSupportAll {
		return append(slices.Clone(arches), "all")
	}
	return arches
}

// readIndex chooses a compression, fetches what the store lacks and scans it.
func (s *Source) readIndex(ctx context.Context, su *suite, n indexName) error {
	f, ext, err := s.obtain(ctx, su, n)
	if err != nil {
		return err
	}
	su.meta = append(su.meta, f)
	sp, err := spoolFile()
	if err != nil {
		return err
	}
	ix := &index{archive: su.place, pin: su.release.pin(), subject: s.name + ": " + f.Path, spool: sp}
	su.indices = append(su.indices, ix)
	return readPackages(s.st, f, ext, su.release.files[n.dir()+"/Packages"], ix.subject, func(r io.Reader) error { return scanIndex(r, ix) })
}

func (r *Release) pin() int {
	switch {
	case r.NotAutomatic && r.ButAutomaticUpgrades:
		return pinUpgrades
	case r.NotAutomatic:
		return pinNotAutomatic
	}
	return pinUsual
}

// obtain holds R5: only what Release lists, the best compression first, by
// its digest first where that is offered, the next one where it is missing.
func (s *Source) obtain(ctx context.Context, su *suite, n indexName) (artifact.File, string, error) {
	var missing error
	for _, c := range compressions {
		name := n.dir() + "/Packages" + c.ext
		e, ok := su.release.files[name]
		if !ok {
			continue
		}
		f := artifact.File{Path: su.path + "/" + name, Digest: e.digest, Size: e.size}
		urls := []string{su.url + "/" + escapePath(name)}
		if su.release.AcquireByHash {
			urls = slices.Insert(urls, 0, su.url+"/"+escapePath(n.dir())+"/by-hash/SHA256/"+e.digest.Hex())
		}
		f.URL = urls[0]
		err := s.download(ctx, e.digest, e.size, urls)
		if err == nil {
			return f, c.ext, nil
		}
		if !fetch.IsNotFound(err) {
			return f, "", fmt.Errorf("%s: %s: %w", s.name, f.Path, err)
		}
		missing = errors.Join(missing, err)
	}
	ref := unavailable(codeNoIndex, s.name+": "+su.path, "no listed form of "+n.dir()+"/Packages is there")
	ref.Err = missing
	return artifact.File{}, "", ref
}

// spoolFile makes a temporary file that has no name any more.
func spoolFile() (*os.File, error) {
	f, err := os.CreateTemp("", "darkmirror-apt-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readPackages streams a Packages file from the store through scan, and then
// holds its plain text against what Release says of it. plain is the zero
// entry where Release says nothing.
func readPackages(st *store.Store, f artifact.File, ext string, plain entry, subject string, scan func(io.Reader) error) (err error) {
	blob, err := st.Open(f.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	refuse := func(err error) error {
		if _, ok := errors.AsType[*artifact.Refusal](err); ok {
			return err
		}
		ref := integrity(codeIndex, subject, "index cannot be read")
		ref.Err = err
		return ref
	}
	limit := min(maxOutput, maxRatio*f.Size+firstBuffer)
	if !plain.digest.IsZero() {
		limit = plain.size
	}
	z, err := decompress(blob, ext, limit)
	if err != nil {
		return refuse(err)
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	h := &hashing{r: z, h: sha256.New()}
	if err := scan(h); err != nil {
		return refuse(err)
	}
	if got := h.sum(); !plain.digest.IsZero() && (got != plain.digest || h.n != plain.size) {
		ref := integrity(codeIndex, subject, "plain text of the index differs from its release")
		ref.Want = fmt.Sprintf("%v, %d bytes", plain.digest, plain.size)
		ref.Got = fmt.Sprintf("%v, %d bytes", got, h.n)
		return ref
	}
	return nil
}

// hashing counts and hashes what is read.
type hashing struct {
	r io.Reader
	h hash.Hash
	n int64
}

func (r *hashing) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	r.h.Write(p[:n])
	return n, err
}

func (r *hashing) sum() (d artifact.Digest) {
	r.h.Sum(d[:0])
	return d
}
