package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func parts(t *testing.T, s *Store, b []byte, partSize int64) *Parts {
	t.Helper()
	p, err := s.Parts(artifact.Sum(b), int64(len(b)), partSize)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p
}

// complete writes all that is missing, step bytes at a time, the last part first.
func complete(t *testing.T, p *Parts, b []byte, step int64) {
	t.Helper()
	var taken []int
	for {
		i, ok := p.Take()
		if !ok {
			break
		}
		taken = append(taken, i)
	}
	slices.Reverse(taken)
	for _, i := range taken {
		for next, end := p.Span(i); next < end; next, end = p.Span(i) {
			must(t, p.WritePart(i, b[next:min(end, next+step)]))
		}
		p.Return(i)
	}
}

func TestPartsInEveryOrder(t *testing.T) {
	for _, c := range []struct{ size, part, step int64 }{
		{0, 10, 1},
		{1, 1, 1},
		{10, 10, 3},
		{10, 20, 3},
		{25, 10, 10},
		{30, 10, 7},
		{2*bufferSize + 3, bufferSize, bufferSize},
		{9 * bufferSize, bufferSize / 2, bufferSize},
	} {
		s, b := open(t), noise(int(c.size), 1)
		p := parts(t, s, b, c.part)
		complete(t, p, b, c.step)
		if p.Size() != c.size || p.Missing() != 0 {
			t.Errorf("%+v: %d bytes, %d parts missing", c, p.Size(), p.Missing())
		}
		must(t, p.Commit())
		if diff := cmp.Diff([]string{blobName(artifact.Sum(b))}, files(t, s)); diff != "" {
			t.Errorf("%+v: %s", c, diff)
		}
		must(t, s.Check(t.Context(), func(err error) { t.Error(err) }))
	}
}

func TestPartsConcurrent(t *testing.T) {
	s, b := open(t), noise(40*bufferSize+17, 1)
	p := parts(t, s, b, 3*bufferSize+1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				i, ok := p.Take()
				if !ok {
					return
				}
				for next, end := p.Span(i); next < end; next, end = p.Span(i) {
					if err := p.WritePart(i, b[next:min(end, next+bufferSize/3)]); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	must(t, p.Commit())
	if got, err := s.ReadAll(artifact.Sum(b), 1<<30); err != nil || !bytes.Equal(got, b) {
		t.Fatal(err)
	}
}

// What was received stays, whoever opens it next asks for the rest, and a
// part size that has changed meanwhile changes nothing.
func TestPartsResume(t *testing.T) {
	s, b := open(t), noise(10_000, 1)
	p := parts(t, s, b, 1000)
	for i, n := range map[int]int{0: 1000, 1: 1, 4: 999, 9: 1000} {
		must(t, p.WritePart(i, b[i*1000:i*1000+n]))
	}
	must(t, p.Close())
	p = parts(t, reopen(t, s.dir), b, 4000)
	if p.Size() != 3000 || p.Missing() != 8 {
		t.Fatalf("%d bytes, %d parts missing", p.Size(), p.Missing())
	}
	if next, end := p.Span(4); next != 4999 || end != 5000 {
		t.Errorf("part 4 lacks %d to %d", next, end)
	}
	if i, ok := p.Take(); !ok || i != 1 {
		t.Errorf("took %d %v", i, ok)
	}
	p.Return(1)
	complete(t, p, b, 300)
	must(t, p.Commit())
}

// Bytes that the record speaks of and the disk has lost, or changed, cost the
// part that they are in and no other.
func TestPartsHeal(t *testing.T) {
	b := noise(5000, 1)
	for name, spoil := range map[string]func(t *testing.T, p *Parts){
		"changed":   func(t *testing.T, p *Parts) { flip(t, p.name(), 2500) },
		"cut":       func(t *testing.T, p *Parts) { must(t, os.Truncate(p.name(), 4500)) },
		"no record": func(t *testing.T, p *Parts) { must(t, os.Remove(p.name()+partsExt)) },
		"half a record": func(t *testing.T, p *Parts) {
			must(t, os.Truncate(p.name()+partsExt, int64(partsHeader)+partRecord))
		},
		"foreign record": func(t *testing.T, p *Parts) { must(t, os.WriteFile(p.name()+partsExt, []byte("{}"), 0o600)) },
		"empty record":   func(t *testing.T, p *Parts) { must(t, os.Truncate(p.name()+partsExt, 0)) },
		"record of more": func(t *testing.T, p *Parts) {
			f, err := os.OpenFile(p.name()+partsExt, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{0x7f}, int64(partsHeader))
			must(t, errors.Join(err, f.Close()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			p := parts(t, s, b, 1000)
			complete(t, p, b, 400)
			must(t, p.Close())
			spoil(t, p)
			q := parts(t, s, b, 1000)
			want := int64(0)
			if name == "changed" || name == "cut" {
				want = 4000
			}
			if q.Size() != want {
				t.Errorf("%d bytes were kept, want %d", q.Size(), want)
			}
			complete(t, q, b, 400)
			must(t, q.Commit())
			must(t, s.Check(t.Context(), func(err error) { t.Error(err) }))
		})
	}
}

func TestPartsRefuse(t *testing.T) {
	s, b := open(t), noise(100, 1)
	p := parts(t, s, b, 40)
	refused(t, p.WritePart(2, b[:21]), "STORE-SIZE")
	if _, err := s.Parts(p.want, 100, 40); !errors.Is(err, ErrBusy) {
		t.Errorf("second opener: %v", err)
	}
	refused(t, p.Commit(), "STORE-DIGEST")
	complete(t, p, noise(100, 2), 7)
	refused(t, p.Commit(), "STORE-DIGEST")
	if p.Size() != 0 || s.Has(p.want) {
		t.Fatalf("kept %d bytes", p.Size())
	}
	complete(t, p, b, 7)
	must(t, p.Commit())
	for _, c := range []struct{ size, part int64 }{{-1, 1}, {1, 0}, {maxParts * 10, 1}} {
		if _, err := s.Parts(p.want, c.size, c.part); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

// A sequential download must not take gaps for bytes, nor the other way
// round.
func TestPartsAndPartial(t *testing.T) {
	s, b := open(t), noise(5000, 1)
	p := parts(t, s, b, 1000)
	must(t, p.WritePart(4, b[4000:]))
	must(t, p.Close())
	q := partial(t, s, b)
	if q.Size() != 0 {
		t.Fatalf("%d bytes with gaps were taken over", q.Size())
	}
	write(t, q, b[:3000])
	must(t, q.Close())
	p = parts(t, s, b, 1000)
	if p.Size() != 0 {
		t.Errorf("%d bytes without a record were taken over", p.Size())
	}
	complete(t, p, b, 1000)
	must(t, p.Commit())
}

func TestPartsLeaveNothing(t *testing.T) {
	s, b := open(t), noise(5000, 1)
	must(t, parts(t, s, b, 1000).Close())
	if diff := cmp.Diff([]string(nil), files(t, s)); diff != "" {
		t.Error(diff)
	}
	p := parts(t, s, b, 1000)
	must(t, p.WritePart(3, b[3000:3100]))
	must(t, p.Close())
	must(t, s.Sweep(func(artifact.Digest) bool { return true }))
	if got := files(t, s); len(got) != 2 {
		t.Errorf("wanted, and swept: %v", got)
	}
	must(t, os.Remove(filepath.Join(s.partial, p.want.Hex())))
	must(t, s.Sweep(func(artifact.Digest) bool { return true }))
	if got := files(t, s); len(got) != 0 {
		t.Errorf("a record alone stays: %v", got)
	}
	p = parts(t, s, b, 1000)
	must(t, p.WritePart(3, b[3000:3100]))
	must(t, p.Close())
	must(t, s.Sweep(nil))
	if got := files(t, s); len(got) != 0 {
		t.Errorf("unwanted, and kept: %v", got)
	}
}

func FuzzPartsRecord(f *testing.F) {
	b := noise(100, 1)
	d := artifact.Sum(b)
	seed := func(partSize int64, n int) []byte {
		s, err := Open(f.TempDir())
		if err != nil {
			f.Fatal(err)
		}
		p, err := s.Parts(d, int64(len(b)), partSize)
		if err != nil {
			f.Fatal(err)
		}
		if err := errors.Join(p.WritePart(0, b[:n]), p.Close()); err != nil {
			f.Fatal(err)
		}
		rec, err := os.ReadFile(p.name() + partsExt)
		if err != nil || len(rec) == 0 {
			f.Fatal(err)
		}
		return rec
	}
	f.Add(seed(30, 30), b)
	f.Add(seed(7, 3), b[:3])
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, rec, data []byte) {
		s := open(t)
		name := s.partialName(d)
		must(t, os.WriteFile(name, data, 0o600))
		must(t, os.WriteFile(name+partsExt, rec, 0o600))
		p := parts(t, s, b, 30)
		complete(t, p, b, 50)
		if err := p.Commit(); err != nil { // a record with a right sum over wrong bytes
			refused(t, err, "STORE-DIGEST")
			complete(t, p, b, 50)
			must(t, p.Commit())
		}
		must(t, s.Check(t.Context(), func(err error) { t.Error(err) }))
	})
}
