package bundle

import (
	"errors"
	"fmt"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// check holds the invariants of a manifest, as docs/bundle-format.md gives
// them. Both sides call it: a bundle that the inside would refuse is not
// signed.
func (m *Manifest) check() error {
	for _, f := range []func() error{m.checkHead, m.checkSources, m.checkBlobs, m.checkRequires, m.checkNotes} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) checkHead() error {
	if m.Schema != Schema {
		return fmt.Errorf("schema %q, want %q", clip(m.Schema), Schema)
	}
	if m.MinImporter < 1 || m.MinImporter > FormatLevel {
		return fmt.Errorf("min_importer %d, want 1 to %d", m.MinImporter, FormatLevel)
	}
	if err := CheckStream(m.Stream); err != nil {
		return err
	}
	if m.Seq < 1 || m.Seq > maxInt {
		return fmt.Errorf("seq %d, want 1 to 2^53", m.Seq)
	}
	if m.Epoch != 0 {
		return fmt.Errorf("epoch %d, want 0", m.Epoch)
	}
	if m.Base >= m.Seq {
		return fmt.Errorf("base %d is not below seq %d", m.Base, m.Seq)
	}
	if (m.Seq == 1) != (m.Prev == "") {
		return fmt.Errorf("prev %q with seq %d", clip(m.Prev), m.Seq)
	}
	if m.Prev != "" {
		if _, err := artifact.ParseDigest(m.Prev); err != nil {
			return fmt.Errorf("prev: %w", err)
		}
	}
	for what, t := range map[string]time.Time{"issued": m.Issued, "expires": m.Expires} {
		if y := t.UTC().Year(); y < 2000 || y > 9999 || t.Nanosecond() != 0 {
			return fmt.Errorf("%s: want whole seconds of a year from 2000 to 9999", what)
		}
	}
	if !m.Expires.After(m.Issued) {
		return errors.New("expires is not after issued")
	}
	return nil
}

func (m *Manifest) checkSources() error {
	if n := len(m.Sources); n == 0 || n > maxSources {
		return fmt.Errorf("%d sources, want 1 to %d", n, maxSources)
	}
	for i, s := range m.Sources {
		if err := artifact.CheckSource(s.Name); err != nil {
			return err
		}
		if i > 0 && m.Sources[i-1].Name >= s.Name {
			return fmt.Errorf("sources are not sorted, or twice: %s", s.Name)
		}
		if s.Snapshot.IsZero() {
			return fmt.Errorf("%s: no snapshot", s.Name)
		}
		if s.Artifacts < 0 || s.Artifacts > maxBlobs || s.Files < 0 || s.Files > artifact.MaxFiles || s.Bytes < 0 || s.Bytes > maxInt {
			return fmt.Errorf("%s: counts out of range", s.Name)
		}
	}
	if m.State != m.StateDigest() {
		return errors.New("state is not the digest of the sources")
	}
	return nil
}

func (m *Manifest) checkBlobs() error {
	if m.Blobs == nil || len(m.Blobs) > maxBlobs {
		return fmt.Errorf("%d blobs, want a list of at most %d", len(m.Blobs), maxBlobs)
	}
	snaps := m.snapshots()
	var size, stored int64
	for i := range m.Blobs {
		b := &m.Blobs[i]
		if i > 0 && compareBlobs(snaps, m.Blobs[i-1], *b) >= 0 {
			return fmt.Errorf("blobs are not sorted, or twice: %s", b.Digest)
		}
		if err := b.check(); err != nil {
			return fmt.Errorf("blob %s: %w", b.Digest, err)
		}
		// Each is at most 2^53, so the sums cannot wrap.
		size, stored = size+b.Size, stored+b.StoredSize
		if size > maxInt || stored > maxInt {
			return errors.New("blobs have more than 2^53 bytes")
		}
	}
	return nil
}

func (b *Blob) check() error {
	if b.Digest.IsZero() || b.Size < 0 || b.Size > maxInt || b.StoredSize < 0 || b.StoredSize > maxInt {
		return errors.New("digest missing or size out of range")
	}
	most := int64(MaxSegment)
	switch b.Enc {
	case EncNone:
		if b.StoredSize != b.Size {
			return fmt.Errorf("stored_size %d, want %d", b.StoredSize, b.Size)
		}
		if (b.Size <= MaxSegment) != (len(b.Segments) == 0) {
			return fmt.Errorf("%d segments for %d bytes", len(b.Segments), b.Size)
		}
		if b.Segments == nil {
			return nil
		}
	case EncZstd:
		if b.StoredSize > b.Size+b.Size/128+1024 {
			return fmt.Errorf("stored_size %d for %d bytes", b.StoredSize, b.Size)
		}
		most = MaxZstdSegment
	default:
		return fmt.Errorf("enc %q", clip(b.Enc))
	}
	if b.Dict != "" {
		d, err := artifact.ParseDigest(b.Dict)
		if err != nil || d == b.Digest || b.Enc != EncZstd || b.Size > MaxDict {
			return fmt.Errorf("dict %q of a blob of %d bytes, enc %q", clip(b.Dict), b.Size, b.Enc)
		}
	}
	if len(b.Segments) == 0 {
		return errors.New("no segments")
	}
	var sum int64
	for n, s := range b.Segments {
		if s.Digest.IsZero() || s.Len < 1 || s.Len > most {
			return fmt.Errorf("segment %d: digest missing or length %d, want 1 to %d", n+1, s.Len, most)
		}
		// Lengths are at most 64 MiB and their number is bounded by the
		// manifest's size, so the sum cannot wrap.
		sum += s.Len
	}
	if sum != b.StoredSize {
		return fmt.Errorf("segments have %d bytes, stored_size is %d", sum, b.StoredSize)
	}
	return nil
}

func (m *Manifest) checkRequires() error {
	if m.Requires == nil {
		return errors.New("requires is missing")
	}
	where, required := make(map[artifact.Digest]bool, len(m.Blobs)), make(map[artifact.Digest]bool)
	for i := range m.Blobs {
		where[m.Blobs[i].Digest] = true
	}
	for i, r := range m.Requires {
		if r.Seq < 1 || r.Seq > m.Base {
			return fmt.Errorf("requires blobs of bundle %06d, base is %06d", r.Seq, m.Base)
		}
		if i > 0 && m.Requires[i-1].Seq >= r.Seq {
			return fmt.Errorf("requires is not sorted, or twice: %06d", r.Seq)
		}
		if len(r.Blobs) == 0 || len(r.Blobs) > maxBlobs {
			return fmt.Errorf("requires %d blobs of bundle %06d", len(r.Blobs), r.Seq)
		}
		for j, d := range r.Blobs {
			if d.IsZero() || j > 0 && compareDigests(r.Blobs[j-1], d) >= 0 {
				return fmt.Errorf("requires of bundle %06d is not sorted, or twice: %s", r.Seq, d)
			}
			if where[d] {
				return fmt.Errorf("%s is carried or required twice", d)
			}
			where[d], required[d] = true, true
		}
	}
	for i := range m.Blobs {
		b := &m.Blobs[i]
		if d, err := artifact.ParseDigest(b.Dict); b.Dict != "" && (err != nil || !required[d]) {
			return fmt.Errorf("blob %s: its dict %s is not required", b.Digest, clip(b.Dict))
		}
	}
	for _, s := range m.Sources {
		if !where[s.Snapshot] {
			return fmt.Errorf("%s: snapshot %s is neither carried nor required", s.Name, s.Snapshot)
		}
	}
	return nil
}

// checkNotes looks at what is carried for people.
func (m *Manifest) checkNotes() error {
	if m.Held == nil || m.Missing == nil || m.Scanners == nil || m.Withdraw == nil {
		return errors.New("held, missing, scanners or withdraw is missing")
	}
	text := func(what string, list ...string) error {
		for _, s := range list {
			if err := checkText(what, s); err != nil {
				return err
			}
		}
		return nil
	}
	for what, list := range map[string][]LeftOut{"held": m.Held, "missing": m.Missing} {
		for _, l := range list {
			if err := text(what, l.Source, l.Artifact, l.Version, l.Code, l.Reason); err != nil {
				return err
			}
		}
	}
	for _, s := range m.Scanners {
		if err := text("scanners", s.Name, s.Version, s.DatabaseDate); err != nil {
			return err
		}
		if s.Name == "" {
			return errors.New("scanners: no name")
		}
	}
	for _, w := range m.Withdraw {
		if err := text("withdraw", w.Reason, w.Advisory); err != nil {
			return err
		}
		if w.Digest.IsZero() {
			return errors.New("withdraw: no digest")
		}
	}
	return nil
}
