package fetch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const fileURL = "https://files.example/p/x.whl"

func TestDownload(t *testing.T) {
	for _, size := range []int{1, 2, 3, 5, 1000, copyBuffer, 3*copyBuffer + 1} {
		b := noise(size)
		var j journal
		w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(file(b, `"v"`))})
		p := newTarget(t, b, nil, "")
		p.check(t, w.client().Download(t.Context(), fileURL, p))
		if n := w.bytesReported(); n != int64(size) {
			t.Errorf("%d bytes: %d reported", size, n)
		}
		r := j.all()[0]
		if len(j.all()) != 1 || r.Header.Get("Accept-Encoding") != "identity" || r.Header.Get("Range") != "" || r.Header.Get("If-Range") != "" {
			t.Errorf("%d bytes: %d requests, %v", size, len(j.all()), r.Header)
		}
		for _, e := range w.events {
			if e.Item != "x.whl" {
				t.Errorf("item %q", e.Item)
			}
		}
	}
}

// TestDownloadOfNothing needs no request: there is one file of no bytes.
func TestDownloadOfNothing(t *testing.T) {
	w := newWorld(t, nil)
	p := newTarget(t, nil, nil, "")
	p.check(t, w.client(func(c *Config) { c.Hosts = []string{"files.example"} }).Download(t.Context(), fileURL, p))
	if len(w.dials) != 0 {
		t.Errorf("dialled %v", w.dials)
	}
}

// TestDownloadOfWhatIsThere: killed before the commit.
func TestDownloadOfWhatIsThere(t *testing.T) {
	w := newWorld(t, nil)
	b := noise(1000)
	p := newTarget(t, b, b, `"v"`)
	p.check(t, w.client(func(c *Config) { c.Hosts = []string{"files.example"} }).Download(t.Context(), fileURL, p))
	if len(w.dials) != 0 || w.bytesReported() != 1000 {
		t.Errorf("dialled %v, reported %d", w.dials, w.bytesReported())
	}
}

const (
	date  = "Sun, 22 Nov 2026 20:00:00 GMT"
	date2 = "Sun, 22 Nov 2026 21:00:00 GMT"
)

// TestResume has one case a thing that a server may do with the rest of a
// file of which 40,000 of 100,000 bytes are there.
func TestResume(t *testing.T) {
	const size, there = 100_000, 40_000
	b, old := noise(size), append([]byte("old"), noise(size)...)[:size]
	rest := func(contentRange, etag string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			if etag != "" {
				w.Header().Set("ETag", etag)
			}
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[there:])
		}
	}
	dated := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Last-Modified", date)
		file(b, "")(w, r)
	}
	right := fmt.Sprintf("bytes %d-%d/%d", there, size-1, size)
	const rangeAsked = "bytes=40000-"
	for name, c := range map[string]struct {
		have      []byte
		validator string
		first     http.HandlerFunc
		asked     []string // Range and If-Range of each request
		code      string   // of a refusal; empty: the file arrives
	}{
		"same ETag":                  {b, `"v1"`, file(b, `"v1"`), []string{rangeAsked, `"v1"`}, ""},
		"same date":                  {b, date, dated, []string{rangeAsked, date}, ""},
		"no validator":               {b, "", file(b, ""), []string{rangeAsked, ""}, ""},
		"another ETag":               {old, `"v0"`, file(b, `"v1"`), []string{rangeAsked, `"v0"`}, ""},
		"another date":               {old, date2, file(b, `"v1"`), []string{rangeAsked, date2}, ""},
		"total not known":            {b, `"v1"`, rest("bytes 40000-99999/*", `"v1"`), []string{rangeAsked, `"v1"`}, ""},
		"unit in capitals":           {b, `"v1"`, rest(strings.ToUpper(right), ""), []string{rangeAsked, `"v1"`}, ""},
		"range ignored":              {old, `"v1"`, text(string(b)), []string{rangeAsked, `"v1"`}, ""},
		"wrong bytes, no validator":  {old, "", file(b, ""), []string{rangeAsked, "", "", ""}, ""},
		"wrong bytes, same ETag":     {old, `"v1"`, file(b, `"v1"`), []string{rangeAsked, `"v1"`, "", ""}, ""},
		"206 of a newer file":        {old, `"v0"`, rest(right, `"v1"`), []string{rangeAsked, `"v0"`, "", ""}, ""},
		"416":                        {old, `"v1"`, status(http.StatusRequestedRangeNotSatisfiable), []string{rangeAsked, `"v1"`, "", ""}, ""},
		"another start":              {b, `"v1"`, rest("bytes 39999-99999/100000", ""), []string{rangeAsked, `"v1"`, "", ""}, ""},
		"from the beginning":         {b, `"v1"`, rest("bytes 0-99999/100000", ""), []string{rangeAsked, `"v1"`, "", ""}, ""},
		"no Content-Range":           {b, `"v1"`, rest("", ""), []string{rangeAsked, `"v1"`, "", ""}, ""},
		"senseless Content-Range":    {b, `"v1"`, rest("bytes 40000-39999/100000", ""), []string{rangeAsked, `"v1"`, "", ""}, ""},
		"multipart":                  {b, `"v1"`, rest("", ""), []string{rangeAsked, `"v1"`, "", ""}, ""},
		"206 of a larger file":       {b, `"v1"`, rest("bytes 40000-99999/100001", ""), []string{rangeAsked, `"v1"`}, "FETCH-SIZE"},
		"200 of a larger file":       {b, `"v1"`, file(append(b[:size:size], 'x'), `"v2"`), []string{rangeAsked, `"v1"`}, "FETCH-SIZE"},
		"200 of a smaller file":      {b, `"v1"`, file(b[:size-1], `"v2"`), []string{rangeAsked, `"v1"`}, "FETCH-SIZE"},
		"200 that is wrong for good": {old, `"v1"`, file(append(b[:size-1:size-1], 'x'), `"v2"`), []string{rangeAsked, `"v1"`}, "STORE-DIGEST"},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(c.first, file(b, `"v1"`))})
			p := newTarget(t, b, c.have[:there], c.validator)
			err := w.client().Download(t.Context(), fileURL, p)
			if c.code != "" {
				refused(t, err, c.code)
				if p.Size() != 0 {
					t.Errorf("%d wrong bytes are kept", p.Size())
				}
			} else {
				p.check(t, err)
				if n := w.bytesReported(); n != size {
					t.Errorf("%d bytes reported", n)
				}
			}
			var asked []string
			for _, r := range j.all() {
				asked = append(asked, r.Header.Get("Range"), r.Header.Get("If-Range"))
			}
			if diff := cmp.Diff(c.asked, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWrongAfterTheCleanRefetch: once is enough.
func TestWrongAfterTheCleanRefetch(t *testing.T) {
	b := noise(1000)
	wrong := append([]byte("x"), b[1:]...)
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(file(wrong, ""))})
	p := newTarget(t, b, wrong[:400], "")
	err := w.client().Download(t.Context(), fileURL+"?sig=s1gned", p)
	refused(t, err, "STORE-DIGEST")
	contains(t, err.Error(), "pypi/main: https://files.example/p/x.whl: ")
	if len(j.all()) != 2 || p.Size() != 0 || strings.Contains(err.Error(), "s1gned") {
		t.Errorf("%d requests, %d bytes kept: %v", len(j.all()), p.Size(), err)
	}
	// Without a resume there is nothing that a second try could mend.
	j = journal{}
	refused(t, w.client().Download(t.Context(), fileURL, newTarget(t, b, nil, "")), "STORE-DIGEST")
	if len(j.all()) != 1 {
		t.Errorf("%d requests", len(j.all()))
	}
}

// TestValidatorKept: what a first reply offers for If-Range later.
func TestValidatorKept(t *testing.T) {
	for name, c := range map[string]struct{ etag, date, want string }{
		"strong":          {`"v1"`, date, `"v1"`},
		"weak":            {`W/"v1"`, "", ""},
		"weak, and date":  {`W/"v1"`, date, date},
		"date":            {"", date, date},
		"unquoted":        {"v1", "", ""},
		"half quoted":     {`"v1`, "", ""},
		"no date at all":  {"", "yesterday", ""},
		"nothing":         {"", "", ""},
		"an endless ETag": {`"` + strings.Repeat("v", 5000) + `"`, "", ""},
	} {
		b := noise(1000)
		var j journal
		head := func(n int) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header()["ETag"] = []string{c.etag}
				w.Header().Set("Last-Modified", c.date)
				cut(b, "", n)(w, r)
			}
		}
		w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(head(400), file(b, ""))})
		p := newTarget(t, b, nil, "")
		p.check(t, w.client().Download(t.Context(), fileURL, p))
		if r := j.all()[1]; r.Header.Get("If-Range") != c.want || r.Header.Get("Range") != "bytes=400-" {
			t.Errorf("%s: Range %q, If-Range %q", name, r.Header.Get("Range"), r.Header.Get("If-Range"))
		}
	}
}

// TestCutAgainAndAgain: progress starts the count of tries anew.
func TestCutAgainAndAgain(t *testing.T) {
	b := noise(10*minProgress + 5)
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(cut(b, `"v"`, minProgress))})
	p := newTarget(t, b, nil, "")
	p.check(t, w.client(func(c *Config) { c.MaxRetries = 1 }).Download(t.Context(), fileURL, p))
	if n := len(j.all()); n != 11 {
		t.Errorf("%d requests", n)
	}
	if w.bytesReported() != int64(len(b)) {
		t.Errorf("%d bytes reported", w.bytesReported())
	}
	contains(t, w.notes()[0], fileURL+": cut after 65536 of 655365 bytes; resuming")
}

// TestNoProgress: servers that would keep us busy for ever are given up, and
// what they gave is kept.
func TestNoProgress(t *testing.T) {
	b := noise(10 * minProgress)
	ignorant := func(n int) http.HandlerFunc { // knows no ranges
		return func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			cut(b, "", n)(w, r)
		}
	}
	short := func(w http.ResponseWriter, r *http.Request) { // ends in order, but early
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		_ = http.NewResponseController(w).Flush() // hence without a length
		_, _ = w.Write(b[:5*minProgress])
	}
	for name, c := range map[string]struct {
		h           http.HandlerFunc
		most, least int   // requests
		kept        int64 // bytes
	}{
		"nothing":          {cut(b, "", 0), 4, 4, 0},
		"a byte at a time": {cut(b, "", 1), 4, 4, 4},
		"no ranges":        {ignorant(5 * minProgress), 9, 4, 5 * minProgress},
		"clean early end":  {short, 9, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(c.h)})
			p := newTarget(t, b, nil, "")
			err := w.client().Download(t.Context(), fileURL, p)
			if e := unavailable(t, err, 0); !e.Temporary() || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v", err)
			}
			if n := len(j.all()); n > c.most || n < c.least || p.Size() != c.kept {
				t.Errorf("%d requests, %d bytes kept", n, p.Size())
			}
		})
	}
}

// TestStalledBody: a body without a byte for a time is given up and resumed;
// one that is merely slow is not.
func TestStalledBody(t *testing.T) {
	b := noise(1000)
	stall := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(b[:300])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	slow := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 300-999/1000")
		w.WriteHeader(http.StatusPartialContent)
		for i := 300; i < 1000; i += 100 {
			_, _ = w.Write(b[i : i+100])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(80 * time.Millisecond)
		}
	}
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(stall, slow)})
	p := newTarget(t, b, nil, "")
	p.check(t, w.client(func(c *Config) { c.IdleTimeout = 300 * time.Millisecond }).Download(t.Context(), fileURL, p))
	if len(j.all()) != 2 || j.all()[1].Header.Get("Range") != "bytes=300-" {
		t.Errorf("%d requests", len(j.all()))
	}
	contains(t, w.told(nil), "cut after 300 of 1000 bytes; resuming")
}

// TestWrongSize: a size that the server announces is believed at once, one
// that it does not announce is counted, and never is more written than the
// index says.
func TestWrongSize(t *testing.T) {
	b := noise(1000)
	chunked := func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(append(b[:1000:1000], 'x'))
	}
	for name, c := range map[string]struct {
		h         http.HandlerFunc
		want, got string
	}{
		"more":            {text(string(b) + "x"), "1000", "1001"},
		"fewer":           {text(string(b[:999])), "1000", "999"},
		"none":            {text(""), "1000", "0"},
		"more, by chunks": {chunked, "1000", "more"},
	} {
		t.Run(name, func(t *testing.T) {
			var j journal
			w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(c.h)})
			p := newTarget(t, b, nil, "")
			err := w.client().Download(t.Context(), fileURL, p)
			refused(t, err, "FETCH-SIZE")
			r, _ := errors.AsType[*artifact.Refusal](err)
			if r.Want != c.want || r.Got != c.got || r.Subject != "pypi/main: "+fileURL || len(j.all()) != 1 || p.Size() != 0 {
				t.Errorf("%+v after %d requests, %d bytes kept", r, len(j.all()), p.Size())
			}
		})
	}
}

// fullDisk is a partial that cannot be written.
type fullDisk struct{ *target }

func (fullDisk) Write([]byte) (int, error) { return 0, fmt.Errorf("write: %w", syscall.ENOSPC) }

// TestLocalTrouble is ours: it is not tried again and not upstream's fault.
func TestLocalTrouble(t *testing.T) {
	var j journal
	b := noise(1000)
	w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(file(b, ""))})
	err := w.client().Download(t.Context(), fileURL, fullDisk{newTarget(t, b, nil, "")})
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, artifact.ErrUnavailable) || len(j.all()) != 1 {
		t.Errorf("%d requests: %v", len(j.all()), err)
	}
}

// TestToQuarter: writes end exactly at each quarter of a file, of any size.
func TestToQuarter(t *testing.T) {
	for _, total := range []int{1, 2, 3, 4, 5, 7, 8, 1000, 1003} {
		b := noise(total)
		w := newWorld(t, nil)
		p := newTarget(t, b, nil, "")
		d := &download{c: w.client(), p: p}
		var stops []int64
		for p.Size() < p.Total() {
			n := d.toQuarter()
			if n < 1 {
				t.Fatalf("%d of %d: %d", p.Size(), total, n)
			}
			if _, err := p.Write(b[p.Size() : p.Size()+n]); err != nil {
				t.Fatal(err)
			}
			d.advance()
			stops = append(stops, p.Size())
		}
		if d.passed != 3 || len(stops) > 4 || total == 1000 && cmp.Diff([]int64{250, 500, 750, 1000}, stops) != "" {
			t.Errorf("%d: stops %v, %d fail points", total, stops, d.passed)
		}
	}
}

func TestContentRange(t *testing.T) {
	for in, want := range map[string][2]int64{
		"bytes 5-9/10": {5, 10}, "bytes 0-0/1": {0, 1}, "bytes 5-9/*": {5, -1}, "Bytes 5-9/10": {5, 10}, " bytes 5-9/10 ": {5, 10},
	} {
		if start, total, ok := contentRange(in); !ok || start != want[0] || total != want[1] {
			t.Errorf("%q: %d, %d, %v", in, start, total, ok)
		}
	}
	for _, in := range []string{
		"", "bytes", "bytes */10", "bytes 5-9", "bytes 9-5/10", "bytes 5-10/10", "bytes -5-9/10", "bytes +5-9/10", "bytes 5 - 9/10", "items 5-9/10",
		"bytes 5-9/-1", "bytes 5-9/1e3", "bytes 5-/10", "bytes 5-99999999999999999999/99999999999999999999", "bytes=5-9/10", "bytes 0x5-9/10",
	} {
		if start, total, ok := contentRange(in); ok {
			t.Errorf("%q: %d, %d", in, start, total)
		}
	}
}

// FuzzContentRange: never panics, and what is accepted makes sense and is read
// again as what it means.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes 5-99999999999999999999/*", "items 1-2/3", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		start, total, ok := contentRange(s)
		if !ok {
			return
		}
		if start < 0 || total < -1 || total >= 0 && start >= total {
			t.Fatalf("%q: %d of %d", s, start, total)
		}
		again := fmt.Sprintf("bytes %d-%d/*", start, start)
		if total >= 0 {
			again = fmt.Sprintf("bytes %d-%d/%d", start, total-1, total)
		}
		if start2, total2, ok := contentRange(again); !ok || start2 != start || total2 != total {
			t.Fatalf("%q, then %q: %d of %d", s, again, start2, total2)
		}
	})
}

// TestReplacedMeanwhile: the file is another one, of the same size, after a
// cut, and the server offers nothing to notice that by.
func TestReplacedMeanwhile(t *testing.T) {
	b := noise(1000)
	old := append([]byte("old"), b[3:]...)
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(cut(old, "", 400), file(b, ""))})
	p := newTarget(t, b, nil, "")
	p.check(t, w.client().Download(t.Context(), fileURL, p))
	if n := len(j.all()); n != 3 || j.all()[1].Header.Get("Range") == "" || j.all()[2].Header.Get("Range") != "" {
		t.Errorf("%d requests", n)
	}
	contains(t, w.told(nil), "the resumed file is wrong; fetching it whole")
}

// TestBadEndAfterTheLastByte does not matter: the digest knows.
func TestBadEndAfterTheLastByte(t *testing.T) {
	b := noise(1000)
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"https://files.example": j.steps(func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush() // hence chunks, of which the last is missing
		_, _ = w.Write(b)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})})
	p := newTarget(t, b, nil, "")
	p.check(t, w.client().Download(t.Context(), fileURL, p))
	if n := len(j.all()); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// slowDisk takes longer for a write than a server may take for a byte.
type slowDisk struct {
	*target
	pause time.Duration
}

func (s slowDisk) Write(b []byte) (int, error) {
	time.Sleep(s.pause)
	return s.target.Write(b)
}

// TestSlowDiskIsNoStall: the time limit is the server's, not ours.
func TestSlowDiskIsNoStall(t *testing.T) {
	b := noise(8 << 20) // more than the sockets hold, so that reads go on afterwards
	var j journal
	w := newWorld(t, map[string]http.HandlerFunc{"http://files.example": j.steps(file(b, ""))})
	p := newTarget(t, b, nil, "")
	c := w.client(func(c *Config) { c.IdleTimeout = 25 * time.Millisecond })
	p.check(t, c.Download(t.Context(), "http://files.example/p/x.whl", slowDisk{p, 30 * time.Millisecond}))
	if n := len(j.all()); n != 1 {
		t.Errorf("%d requests: %q", n, w.notes())
	}
}
