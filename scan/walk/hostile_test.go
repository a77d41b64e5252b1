package walk

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
)

// peak runs a walk that must stay flat: the heap is looked at all the time,
// and the garbage collector kept from letting it grow.
func peak(t *testing.T, most uint64, do func()) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	var high atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			high.Store(max(high.Load(), m.HeapInuse))
			time.Sleep(5 * time.Millisecond)
		}
	}()
	start := time.Now()
	do()
	took := time.Since(start)
	cancel()
	<-done
	grew := high.Load() - min(high.Load(), before.HeapInuse)
	t.Logf("%v, heap grew by %d MiB", took.Round(time.Millisecond), grew>>20)
	if grew > most {
		t.Errorf("the heap grew by %d MiB, at most %d are allowed", grew>>20, most>>20)
	}
}

// hostile walks a blob whose entries nobody reads.
func hostile(t *testing.T, r io.ReaderAt, size int64, o Options) *Result {
	t.Helper()
	o.Scratch = t.TempDir()
	res, err := Walk(t.Context(), "x", r, size, o, func(*File) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func codes(res *Result) []string {
	var list []string
	for _, p := range res.Problems {
		if !slices.Contains(list, p.Code) {
			list = append(list, p.Code)
		}
	}
	slices.Sort(list)
	return list
}

func only(t *testing.T, res *Result, want ...string) {
	t.Helper()
	if got := codes(res); !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v: %+v", got, want, res.Problems[:min(3, len(res.Problems))])
	}
}

// gzipZeros is a stream that unpacks to n zeros.
func gzipZeros(t testing.TB, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	must(t, err)
	_, err = io.CopyN(w, zeros{}, n)
	must(t, err, w.Close())
	return b.Bytes()
}

func TestBombs(t *testing.T) {
	const mib = 1 << 20
	gz := gzipZeros(t, 100*mib)
	t.Run("gzip", func(t *testing.T) {
		peak(t, 32*mib, func() {
			res := hostile(t, bytes.NewReader(gz), int64(len(gz)), Options{})
			only(t, res, CodeRatio)
			if res.Files != 1 || !res.Problems[0].NotScanned {
				t.Errorf("%+v", res)
			}
		})
	})
	t.Run("xz", func(t *testing.T) {
		b := bytes.Repeat(pack(t, XZ, make([]byte, 5*mib)), 14)
		peak(t, 96*mib, func() { only(t, hostile(t, bytes.NewReader(b), int64(len(b)), Options{}), CodeRatio) })
	})
	t.Run("zstd", func(t *testing.T) {
		b := pack(t, Zstd, make([]byte, 70*mib))
		peak(t, 96*mib, func() { only(t, hostile(t, bytes.NewReader(b), int64(len(b)), Options{}), CodeRatio) })
	})
	t.Run("zip", func(t *testing.T) {
		b := zipOf(t, one{name: "zeros", body: strings.Repeat("\x00", 70*mib)}, one{name: "fine", body: "fine"})
		peak(t, 32*mib, func() {
			res := hostile(t, bytes.NewReader(b), int64(len(b)), Options{})
			only(t, res, CodeRatio)
			if line(res.Problems[0].Path) != "x/zeros" {
				t.Errorf("%+v", res.Problems)
			}
		})
	})
	t.Run("many small streams", func(t *testing.T) {
		// Each is below the floor of the ratio, all together are not.
		var list []any
		small := string(gzipZeros(t, 20*mib))
		for i := range 20 {
			list = append(list, one{name: strconv.Itoa(i) + ".gz", body: small})
		}
		b := tarOf(t, list...)
		peak(t, 48*mib, func() {
			res := hostile(t, bytes.NewReader(b), int64(len(b)), Options{Limits: Limits{Ratio: 60}})
			only(t, res, CodeRatio)
		})
	})
	t.Run("total", func(t *testing.T) {
		b := zipOf(t, one{name: "a", body: strings.Repeat("abcd", 1000)}, one{name: "b", body: strings.Repeat("abcd", 1000)}, one{name: "c", body: "x"})
		res := hostile(t, bytes.NewReader(b), int64(len(b)), Options{Limits: Limits{Unpacked: 5000}})
		only(t, res, CodeSize)
		if res.Files != 2 { // the archive and a; nothing behind the limit
			t.Errorf("%d files", res.Files)
		}
	})
}

// TestNestedBombs: archives in archives in archives, sixteen in each.
func TestNestedBombs(t *testing.T) {
	b := zipOf(t, one{name: "zeros", body: strings.Repeat("\x00", 10<<20)})
	for range 5 {
		var list []one
		for i := range 16 {
			list = append(list, one{name: strconv.Itoa(i) + ".zip", body: string(b)})
		}
		b = zipOf(t, list...)
	}
	t.Logf("%d bytes", len(b))
	peak(t, 64<<20, func() {
		res := hostile(t, bytes.NewReader(b), int64(len(b)), Options{})
		if got := codes(res); !slices.Contains(got, CodeRatio) && !slices.Contains(got, CodeEntries) {
			t.Errorf("problems %v", got)
		}
	})
}

// TestDepth: a hundred streams in each other, as an archive that unpacks to
// itself has without end.
func TestDepth(t *testing.T) {
	deep := []byte("end")
	for range 100 {
		deep = pack(t, Gzip, deep)
	}
	res := hostile(t, bytes.NewReader(deep), int64(len(deep)), Options{})
	only(t, res, CodeDepth)
	if res.Files != 9 {
		t.Errorf("%d files, want the blob and 8 in it", res.Files)
	}
}

// A made blob is never in memory as a whole.
type made struct {
	at   func(p []byte, off int64) // fills p
	size int64
}

func (m made) ReadAt(p []byte, off int64) (int, error) {
	if off >= m.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), m.size-off))
	m.at(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// repeated is a made blob of records of one length.
func repeated(n, length int64, record func(i int64, b []byte)) made {
	b, have := make([]byte, length), int64(-1)
	return made{size: n * length, at: func(p []byte, off int64) {
		for len(p) > 0 {
			if i := off / length; i != have {
				record(i, b)
				have = i
			}
			m := copy(p, b[off%length:])
			p, off = p[m:], off+int64(m)
		}
	}}
}

const million = 1_000_000

func TestMillionTar(t *testing.T) {
	head := tarOf(t, one{name: "00000000"})[:512]
	sum, _ := octal(head[148:156])
	m := repeated(million, 512, func(i int64, b []byte) {
		copy(b, head)
		n := sum
		for at := 7; i > 0; at, i = at-1, i/10 {
			b[at] += byte(i % 10)
			n += i % 10
		}
		for at := 153; at >= 148; at, n = at-1, n/8 {
			b[at] = '0' + byte(n%8)
		}
	})
	for _, tree := range []bool{false, true} {
		peak(t, 96<<20, func() {
			start := time.Now()
			res := hostile(t, m, m.size, Options{FileSystem: tree})
			only(t, res, CodeEntries)
			if res.Files != 200_001 {
				t.Errorf("%d files", res.Files)
			}
			if took := time.Since(start); took > 60*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// millionZip writes an archive of a million empty entries to a file.
func millionZip(t *testing.T, says int) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	le := binary.LittleEndian
	local, central := make([]byte, 38), make([]byte, 54)
	le.PutUint32(local, 0x04034b50)
	le.PutUint16(local[26:], 8)
	le.PutUint32(central, 0x02014b50)
	le.PutUint16(central[28:], 8)
	at, size := million*len(local), million*len(central)
	b := make([]byte, 0, at+size)
	name := func(to []byte, i int) {
		for k := range 8 {
			to[7-k] = '0' + byte(i%10)
			i /= 10
		}
	}
	for i := range million {
		name(local[30:], i)
		b = append(b, local...)
	}
	for i := range million {
		le.PutUint32(central[42:], uint32(len(local)*i))
		name(central[46:], i)
		b = append(b, central...)
	}
	end64, loc, end := make([]byte, 56), make([]byte, 20), make([]byte, 22)
	le.PutUint32(end64, 0x06064b50)
	le.PutUint64(end64[4:], 44)
	le.PutUint64(end64[24:], uint64(says))
	le.PutUint64(end64[32:], uint64(says))
	le.PutUint64(end64[40:], uint64(size))
	le.PutUint64(end64[48:], uint64(at))
	le.PutUint32(loc, 0x07064b50)
	le.PutUint64(loc[8:], uint64(at+size))
	le.PutUint32(loc[16:], 1)
	le.PutUint32(end, 0x06054b50)
	for i := 8; i < 20; i++ {
		end[i] = 0xff
	}
	for _, p := range [][]byte{b, end64, loc, end} {
		_, err := f.Write(p)
		must(t, err)
	}
	return f
}

func TestMillionZip(t *testing.T) {
	for says, want := range map[int]string{million: CodeEntries, 1000: CodeMalformed} {
		f := millionZip(t, says)
		info, err := f.Stat()
		must(t, err)
		peak(t, 96<<20, func() {
			start := time.Now()
			res := hostile(t, f, info.Size(), Options{})
			if got := codes(res); len(got) != 1 || got[0] != want && got[0] != CodeEntries {
				t.Errorf("says %d: problems %v, want %s", says, got, want)
			}
			if res.Files != 1 {
				t.Errorf("%d files", res.Files)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
		must(t, f.Close())
	}
}

// TestWorstMemory: everything that an archive can make its reader hold, one
// in the other.
func TestWorstMemory(t *testing.T) {
	// A zip archive of as many entries with names as long as are allowed.
	var names []one
	for i := range 5_000 {
		names = append(names, one{name: fmt.Sprintf("%s%06d", strings.Repeat("N", 1000), i), stored: true})
	}
	long := zipOf(t, names...)
	window := windowed(t, 60<<20)
	inner := tarOf(t, one{name: "long.zip", body: string(long)}, one{name: "w.zst", body: string(window)},
		one{name: "w.xz", body: string(bytes.Repeat(pack(t, XZ, make([]byte, 4<<20)), 10))}, tar.Header{Name: "end", Typeflag: tar.TypeReg})
	for range 3 {
		inner = zipOf(t, one{name: "long.zip", body: string(long)}, one{name: "in", body: string(inner)}, one{name: "again.zip", body: string(long)})
	}
	peak(t, 200<<20, func() {
		res := hostile(t, bytes.NewReader(inner), int64(len(inner)), Options{})
		if got := codes(res); slices.Contains(got, CodeMalformed) {
			t.Errorf("problems %+v", res.Problems)
		}
	})
}

// windowed is a zstd stream of zeros with a window of its whole size.
func windowed(t testing.TB, n int) []byte {
	t.Helper()
	b := []byte("\x28\xb5\x2f\xfd\xa0")
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	for n > 0 {
		c := min(n, 128<<10)
		n -= c
		head := uint32(c)<<3 | 1<<1
		if n == 0 {
			head |= 1
		}
		b = append(b, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	return b
}

// TestManyDictionaries: ten thousand streams that each want 64 MiB.
func TestManyDictionaries(t *testing.T) {
	x := pack(t, XZ, []byte("hello"))
	x[16] = 28
	binary.LittleEndian.PutUint32(x[20:], crc32.ChecksumIEEE(x[12:20]))
	z := windowed(t, 1000)
	copy(z, "\x28\xb5\x2f\xfd\x00\x80") // a window of 64 MiB, no size
	z = append(z[:6], z[9:]...)
	var list []any
	for i := range 2000 {
		list = append(list, one{name: fmt.Sprintf("%d.xz", i), body: string(x)}, one{name: fmt.Sprintf("%d.zst", i), body: string(z)})
	}
	b := tarOf(t, list...)
	peak(t, 200<<20, func() {
		start := time.Now()
		res := hostile(t, bytes.NewReader(b), int64(len(b)), Options{})
		only(t, res)
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestProblemsAreBounded: a million defects make a short report, and a grave
// one is not hidden by harmless ones.
func TestProblemsAreBounded(t *testing.T) {
	var list []any
	for i := range 5000 {
		list = append(list, one{name: fmt.Sprintf("../%d", i)})
	}
	list = append(list, tar.Header{Name: "dev", Typeflag: tar.TypeBlock})
	b := tarOf(t, list...)
	res := hostile(t, bytes.NewReader(b), int64(len(b)), Options{})
	only(t, res, CodeDevice, CodePath)
	if len(res.Problems) != maxPerCode+1 {
		t.Errorf("%d problems", len(res.Problems))
	}
	if last := res.Problems[maxPerCode-1]; !strings.HasSuffix(last.Text, "(and 4900 more of this kind)") {
		t.Errorf("the last one says %q", last.Text)
	}
}

// TestCancelled: a walk ends within a long stream.
func TestCancelled(t *testing.T) {
	b := gzipZeros(t, 60<<20)
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("enough"))
	defer cancel()
	_, err := Walk(ctx, "x", bytes.NewReader(b), int64(len(b)), Options{Scratch: t.TempDir()}, func(*File) error { return nil })
	if err == nil || err.Error() != "enough" {
		t.Errorf("got %v", err)
	}
}
