package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// dateSkew sets a Release's Date back, for clients whose clock is late:
	// apt stops where it is more than ten seconds ahead.
	dateSkew = 5 * time.Minute
	// Names of the keyring for clients, in the root of the tree.
	keyringBinary = "darkmirror-archive-keyring.gpg"
	keyringText   = "darkmirror-archive-keyring.asc"
)

// Publish writes the snapshot's packages as archives under [Publisher.Tree],
// one folder for each upstream archive, signed with the inside key. The caller
// has called [Publisher.Verify].
//
// Order: pool files, by-hash objects, the record, the canonical indices,
// Release.gpg and Release, InRelease last. Whatever was published within the
// last week stays reachable by its hash, so a client in the middle of an
// update is never stranded. Publishing the same again writes nothing that is
// right already, and keeps the Date.
func (p *Publisher) Publish(ctx context.Context, snap *artifact.Snapshot, seq uint64, now time.Time) (string, error) {
	now = now.UTC().Truncate(time.Second)
	proofs, err := p.proofs(ctx, snap)
	if err != nil {
		return "", err
	}
	for _, dir := range []string{p.dir, publicationsDir(p.dir)} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return "", err
		}
	}
	for _, dir := range []string{p.dir, publicationsDir(p.dir)} {
		if err := durable.Sweep(dir); err != nil {
			return "", err
		}
	}
	past, err := loadPublications(p.dir)
	if err != nil {
		return "", err
	}
	for _, pr := range proofs {
		if err := p.checkIdentity(pr); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(p.Tree(), 0o755); err != nil { // #nosec G301 -- clients read it
		return "", err
	}
	if err := durable.Sweep(p.Tree()); err != nil {
		return "", err
	}
	sg, err := p.signer(now)
	if err != nil {
		return "", err
	}
	sel := selection(snap)
	rec := &publication{Schema: publicationSchema, Seq: seq, At: now, Pool: poolOf(snap)}
	if err := p.linkPool(ctx, rec.Pool); err != nil {
		return "", err
	}
	built := make([]*builtSuite, 0, len(proofs))
	for _, pr := range proofs {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		b, err := p.build(pr, sel, proofs)
		if err != nil {
			return "", err
		}
		built = append(built, b)
	}
	for _, name := range slices.Sorted(mapKeys(sel)) {
		if !sel[name].found {
			return "", notUpstream(p.name+": "+name, sel[name].other)
		}
	}
	if err := p.date(built, past, sg.born(), now); err != nil {
		return "", err
	}
	for _, b := range built {
		rec.Suites = append(rec.Suites, b.record)
	}
	if past, err = p.record(rec, past); err != nil {
		return "", err
	}
	for _, b := range built {
		if err := p.switchSuite(b, sg, now); err != nil {
			return "", err
		}
	}
	if err := p.sweep(past, now); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d debs   %s", len(rec.Pool), p.Tree()), nil
}

// signer loads the key and puts its public half where clients find it.
func (p *Publisher) signer(now time.Time) (*signer, error) {
	file, mayCreate := p.cfg.SigningKey, false
	if file == "" {
		file, mayCreate = filepath.Join(p.dir, "signing-key.asc"), true
	}
	sg, err := loadSigner(file, p.name, mayCreate, now)
	if err != nil {
		return nil, err
	}
	binary, text, err := sg.publicFiles()
	if err != nil {
		return nil, err
	}
	if err := writeIfChanged(filepath.Join(p.Tree(), keyringBinary), binary, 0o644); err != nil {
		return nil, err
	}
	failpoint.Here("apt.keyring")
	return sg, writeIfChanged(filepath.Join(p.Tree(), keyringText), text, 0o644)
}

func poolOf(snap *artifact.Snapshot) []publishedFile {
	var pool []publishedFile
	for _, a := range snap.Artifacts {
		for _, f := range a.Files {
			pool = append(pool, publishedFile{f.Path, f.Digest, f.Size})
		}
	}
	slices.SortFunc(pool, func(a, b publishedFile) int { return strings.Compare(a.Path, b.Path) })
	return slices.Compact(pool)
}

// linkPool gives every package file its name in the tree.
func (p *Publisher) linkPool(ctx context.Context, pool []publishedFile) error {
	for _, f := range pool {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := filepath.Join(p.Tree(), filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { // #nosec G301 -- clients read it
			return err
		}
		failpoint.Here("apt.pool-folder")
		if err := p.linkOne(f.Digest, name); err != nil {
			return err
		}
		failpoint.Here("apt.pool-linked")
	}
	return nil
}

// linkOne links a blob. Where upstream has put other bytes under an old name,
// or a file here is damaged, the name is replaced.
func (p *Publisher) linkOne(d artifact.Digest, name string) error {
	err := p.st.Link(d, name)
	if err == nil {
		return nil
	}
	if _, serr := os.Lstat(name); serr != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(name), durable.TempPrefix+d.Hex())
	if rerr := os.Remove(temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return rerr
	}
	if lerr := p.st.Link(d, temp); lerr != nil {
		return lerr
	}
	failpoint.Here("apt.pool-replaced")
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(name))
}

// checkIdentity compares with what clients know already.
func (p *Publisher) checkIdentity(pr *proof) error {
	if p.cfg.AllowIdentityChange {
		return nil
	}
	b, err := readLimited(p.inTree(pr.path, "InRelease"), maxRelease)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := acceptedRelease(b)
	if err != nil {
		return nil //nolint:nilerr // damaged: it is written anew
	}
	for _, f := range []struct{ field, was, is string }{
		{"Origin", old.Origin, pr.release.Origin},
		{"Label", old.Label, pr.release.Label},
		{"Codename", old.Codename, pr.release.Codename},
	} {
		if err := sameIdentity(pr.subject, f.field, f.was, f.is, true); err != nil {
			return err
		}
	}
	return nil
}

func (p *Publisher) inTree(parts ...string) string {
	return filepath.Join(p.Tree(), filepath.FromSlash(path.Join(parts...)))
}

// date gives each suite its Date: the one it has if nothing changed, else one
// that is later than every Date that a client may have seen.
func (p *Publisher) date(built []*builtSuite, past []*publication, born, now time.Time) error {
	for _, b := range built {
		if len(past) > 0 {
			if old := past[0].suite(b.record.Path); old != nil && old.Body == b.record.Body {
				b.record.Date = old.Date
				continue
			}
		}
		date := now.Add(-dateSkew)
		if date.Before(born) {
			date = born.UTC().Truncate(time.Second)
		}
		last := p.lastDate(b.record.Path, past)
		if !date.After(last) {
			date = last.Add(time.Second)
		}
		if date.After(now) {
			ref := sequence(codeClock, p.name+": "+b.record.Path, "the clock stands before the last publication")
			ref.Want, ref.Got = "after "+formatDate(last), formatDate(now)
			return ref
		}
		b.record.Date = date
	}
	return nil
}

// lastDate is the latest Date of a suite that was ever recorded or that lies
// in the tree.
func (p *Publisher) lastDate(suite string, past []*publication) time.Time {
	var last time.Time
	for _, pub := range past {
		if s := pub.suite(suite); s != nil && s.Date.After(last) {
			last = s.Date
		}
	}
	for _, name := range []string{"InRelease", "Release"} {
		if b, err := readLimited(p.inTree(suite, name), maxRelease); err == nil {
			if r, err := acceptedRelease(b); err == nil && r.Date.After(last) {
				last = r.Date
			}
		}
	}
	return last
}

// record writes what is about to be published, unless the latest record says
// just that.
func (p *Publisher) record(rec *publication, past []*publication) ([]*publication, error) {
	if len(past) > 0 && past[0].same(rec) {
		return past, nil
	}
	rec.number = 1
	if len(past) > 0 {
		rec.number = past[0].number + 1
	}
	failpoint.Here("apt.before-record")
	if err := rec.save(p.dir); err != nil {
		return nil, err
	}
	failpoint.Here("apt.recorded")
	return slices.Insert(past, 0, rec), nil
}

// switchSuite makes a suite's new state the one that clients get.
func (p *Publisher) switchSuite(b *builtSuite, sg *signer, now time.Time) error {
	dir := p.inTree(b.record.Path)
	text := b.releaseText(b.record.Date, p.cfg.ValidFor)
	var onDisk [3][]byte
	for i, name := range []string{"InRelease", "Release", "Release.gpg"} {
		if old, err := readLimited(filepath.Join(dir, name), maxRelease); err == nil {
			onDisk[i] = old
		}
	}
	if err := b.canonical(dir); err != nil {
		return err
	}
	failpoint.Here("apt.packages")
	if sg.verifies(text, onDisk[0], onDisk[1], onDisk[2], now) {
		return nil
	}
	inline, err := sg.inline(text, b.record.Date)
	if err != nil {
		return err
	}
	detached, err := sg.detached(text, b.record.Date)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"Release.gpg", detached}, {"Release", text}, {"InRelease", inline}} {
		if err := writeDated(filepath.Join(dir, f.name), f.data, b.record.Date); err != nil {
			return err
		}
		switch f.name {
		case "Release.gpg":
			failpoint.Here("apt.releasegpg")
		case "Release":
			failpoint.Here("apt.release")
		default:
			failpoint.Here("apt.inrelease")
		}
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	failpoint.Here("apt.synced")
	return nil
}

// writeDated writes a file whose modification time is the Release's Date.
// Dates rise by a second at least, so Last-Modified always tells two
// publications apart, which the time of writing might not.
func writeDated(name string, data []byte, date time.Time) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), durable.TempPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	failpoint.Here("apt.temp-made")
	_, err = bytes.NewReader(data).WriteTo(f)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Chtimes(f.Name(), date, date); err != nil {
		return err
	}
	failpoint.Here("apt.temp-written")
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(name))
}
