package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
)

var _ PartsPartial = (*store.Parts)(nil)

const hubURL = "https://index.example/team/model/resolve/main/w.safetensors"

// A whole is a parts file in a store of its own.
type whole struct {
	*store.Parts
	store *store.Store
	want  []byte
}

func newWhole(t *testing.T, want []byte, partSize int64) *whole {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Parts(artifact.Sum(want), int64(len(want)), partSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &whole{p, s, want}
}

func (p *whole) check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.store.ReadAll(artifact.Sum(p.want), int64(len(p.want)))
	if err != nil || !bytes.Equal(got, p.want) {
		t.Fatalf("%d bytes arrived: %v", len(got), err)
	}
}

// signed redirects to the files' own server with a query that must not show.
func signed(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "https://files.example/w?X-Signature=SECRET", http.StatusFound)
}

func TestParts(t *testing.T) {
	b := noise(1_000_000)
	file := file(b, `"v1"`)
	lame := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
	wrong := bytes.Clone(b)
	wrong[500_000]++
	span := func(contentRange string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", contentRange)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(b[:100])
		}
	}
	for name, c := range map[string]struct {
		part  int64
		hub   http.HandlerFunc
		cdn   []http.HandlerFunc // the nth request; the last for ever
		hubN  int                // requests to the hub; 0: not counted
		cdnN  int
		code  string // of a refusal
		state int    // of an error
	}{
		"parts":                 {part: 100_000, hub: signed, cdn: []http.HandlerFunc{file}, hubN: 1, cdnN: 10},
		"one part":              {part: 1_000_000, hub: signed, cdn: []http.HandlerFunc{file}, hubN: 1, cdnN: 1},
		"no redirect":           {part: 300_000, hub: file, hubN: 4},
		"cut again and again":   {part: 200_000, hub: signed, cdn: []http.HandlerFunc{cut(b, `"v1"`, 90_000)}},
		"signature expires":     {part: 100_000, hub: signed, cdn: []http.HandlerFunc{file, file, file, status(403), file}},
		"address is gone":       {part: 100_000, hub: signed, cdn: []http.HandlerFunc{file, file, status(410), file}},
		"no ranges":             {part: 100_000, hub: signed, cdn: []http.HandlerFunc{lame}},
		"no Content-Range":      {part: 100_000, hub: signed, cdn: []http.HandlerFunc{span(""), lame}},
		"another range":         {part: 100_000, hub: signed, cdn: []http.HandlerFunc{span("bytes 5-104/1000000"), lame}},
		"busy":                  {part: 100_000, hub: signed, cdn: []http.HandlerFunc{status(503), file, status(503), file}},
		"wrong once":            {part: 1_000_000, hub: signed, cdn: []http.HandlerFunc{fileOf(wrong), file}, hubN: 2, cdnN: 2},
		"wrong for ever":        {part: 100_000, hub: signed, cdn: []http.HandlerFunc{fileOf(wrong)}, hubN: 2, cdnN: 20, code: "STORE-DIGEST"},
		"206 of another size":   {part: 100_000, hub: signed, cdn: []http.HandlerFunc{span("bytes 0-99/2000000")}, code: "FETCH-SIZE"},
		"200 of another size":   {part: 1_000_000, hub: signed, cdn: []http.HandlerFunc{fileOf(b[1:])}, code: "FETCH-SIZE"},
		"too short for a range": {part: 600_000, hub: signed, cdn: []http.HandlerFunc{fileOf(b[:500_000])}, code: "FETCH-SIZE"},
		"hub has it not":        {part: 100_000, hub: status(404), state: 404, hubN: 1},
		"never allowed":         {part: 100_000, hub: signed, cdn: []http.HandlerFunc{status(403)}, state: 403},
		"always busy":           {part: 100_000, hub: status(503), state: 503, hubN: 4},
		"leads to elsewhere": {part: 100_000, hub: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		}, state: -1, hubN: 1},
	} {
		for _, conns := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s %d", name, conns), func(t *testing.T) {
				var hub, cdn journal
				w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": hub.steps(c.hub), "https://files.example": cdn.steps(append(c.cdn, status(418))[:max(1, len(c.cdn))]...)})
				w.pool.SetApart()
				p := newWhole(t, b, c.part)
				err := w.client().DownloadParts(t.Context(), hubURL, p, conns)
				switch {
				case c.code != "":
					refused(t, err, c.code)
				case c.state > 0:
					if e, ok := errors.AsType[*Error](err); !ok || e.Status != c.state {
						t.Fatalf("got %v", err)
					}
				case c.state < 0:
					if !errors.Is(err, ErrHost) {
						t.Fatalf("got %v", err)
					}
				default:
					p.check(t, err)
					if n := w.bytesReported(); n != int64(len(b)) {
						t.Errorf("%d bytes reported", n)
					}
				}
				// Of one connection the requests can be counted on; more of
				// them may be under way when one fails.
				if n := len(hub.all()); c.hubN > 0 && (n != c.hubN && conns == 1 || n < c.hubN) {
					t.Errorf("the hub was asked %d times, want %d", n, c.hubN)
				}
				if n := len(cdn.all()); c.cdnN > 0 && n != c.cdnN {
					t.Errorf("the files' server was asked %d times, want %d", n, c.cdnN)
				}
				if strings.Contains(w.told(err), "SECRET") {
					t.Errorf("told: %s", w.told(err))
				}
			})
		}
	}
}

func fileOf(b []byte) http.HandlerFunc { return file(b, "") }

// What is there is not asked for again, whatever was cut where.
func TestPartsAskForWhatIsMissing(t *testing.T) {
	b := noise(1_000_000)
	var sent atomic.Int64
	var mu sync.Mutex
	var ranges []string
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		ranges = append(ranges, r.Header.Get("Range"))
		mu.Unlock()
		file(b, "")(&counted{rw, &sent}, r)
	}})
	p := newWhole(t, b, 250_000)
	for i, n := range []int{250_000, 100, 0, 249_999} {
		if err := p.WritePart(i, b[i*250_000:i*250_000+n]); err != nil {
			t.Fatal(err)
		}
	}
	p.check(t, w.client().DownloadParts(t.Context(), hubURL, p, 3))
	if n := sent.Load(); n != 249_900+250_000+1 || len(ranges) != 3 {
		t.Errorf("%d bytes were sent for %v", n, ranges)
	}
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// One who waits for a busy hub does not keep the others asking, and no more
// connections are open than were asked for.
func TestPartsConnections(t *testing.T) {
	b := noise(1_000_000)
	var open, most int
	var mu sync.Mutex
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": signed, "https://files.example": func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		open++
		most = max(most, open)
		mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		file(b, "")(rw, r)
		mu.Lock()
		open--
		mu.Unlock()
	}})
	p := newWhole(t, b, 50_000)
	p.check(t, w.client().DownloadParts(t.Context(), hubURL, p, 5))
	if most < 2 || most > 5 {
		t.Errorf("%d requests at once", most)
	}
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(3, time.Minute, "index.example")
		start := time.Now()
		for i, want := range []time.Duration{0, 0, 0, 60, 60, 60, 120} {
			if err := b.spend(t.Context(), "index.example"); err != nil {
				t.Fatal(err)
			}
			if got := time.Since(start); got != want*time.Second {
				t.Errorf("request %d after %v, want %v", i, got, want*time.Second)
			}
			if err := b.spend(t.Context(), "files.example"); err != nil || time.Since(start) != want*time.Second {
				t.Errorf("another host waited: %v", err)
			}
		}
	})
}

func TestBudgetCountsRequests(t *testing.T) {
	b := noise(1000)
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": signed, "https://files.example": file(b, "")})
	budget := NewBudget(100, time.Hour, "index.example")
	c := w.client(func(c *Config) { c.Budget = budget })
	p := newWhole(t, b, 100)
	p.check(t, c.DownloadParts(t.Context(), hubURL, p, 2))
	if budget.next != 1 {
		t.Errorf("%d requests were booked; one went to the hub", budget.next)
	}
}

func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBandwidth(1 << 20)
		start := time.Now()
		buf := make([]byte, 1<<20)
		total := 0
		for total < 10<<20 {
			p, err := b.wait(t.Context(), buf)
			if err != nil {
				t.Fatal(err)
			}
			b.spent(len(p))
			total += len(p)
		}
		// The first buffer's worth is free, and the last is not waited for.
		if got := time.Since(start); got < 9*time.Second || got > 10*time.Second {
			t.Errorf("10 MiB at 1 MiB/s took %v", got)
		}
	})
	var none *Bandwidth
	if p, err := none.wait(t.Context(), make([]byte, 1<<20)); err != nil || len(p) != 1<<20 {
		t.Errorf("without a bound: %d, %v", len(p), err)
	}
	if NewBandwidth(0) != nil {
		t.Error("0 is no bound")
	}
}

func TestBandwidthBoundsBodies(t *testing.T) {
	b := noise(3 * copyBuffer)
	w := newWorld(t, map[string]http.HandlerFunc{"https://index.example": file(b, "")})
	w.pool.SetBandwidth(NewBandwidth(1 << 30))
	p := newWhole(t, b, copyBuffer)
	p.check(t, w.client().DownloadParts(t.Context(), hubURL, p, 2))
	if tokens := w.pool.rate.l.Tokens(); tokens > copyBuffer {
		t.Errorf("%f tokens are left", tokens)
	}
}

func TestRateLimitHeader(t *testing.T) {
	for v, want := range map[string]time.Duration{
		`"api";r=0;t=55`: 55 * time.Second, `"api";r=3;t=55`: -1, `"a";r=9;t=1, "b"; r=0; t=7`: 7 * time.Second,
		`"api";r=0;t=-1`: -1, `"api";r=0`: -1, "": -1, `"api";r=0;t=99999999999999999999`: time.Minute,
	} {
		resp := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Ratelimit": {v}}}
		c := &Client{now: time.Now}
		got, ok := c.asked(resp, time.Minute)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}
