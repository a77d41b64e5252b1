package fec

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"
)

// TestTable compares with a table that was computed apart from this code, in
// the digits that it gives. Its symbols are those of MTU 1500.
func TestTable(t *testing.T) {
	const payload = 1408
	for _, w := range []struct {
		k, m     int
		overhead string // per cent
		goodput  [2]string
		maxLoss  string // per cent
		residual [3]string
	}{
		{240, 16, "6.7", [2]string{"0.858", "0.923"}, "0.245", [3]string{"3e-19", "4e-03", "1e+00"}},
		{200, 20, "10.0", [2]string{"0.832", "0.895"}, "0.57", [3]string{"3e-28", "6e-08", "2e-02"}},
		{224, 32, "14.3", [2]string{"0.801", "0.861"}, "1.69", [3]string{"1e-51", "1e-19", "1e-10"}},
		{200, 36, "18.0", [2]string{"0.776", "0.834"}, "2.41", [3]string{"7e-62", "1e-25", "2e-15"}},
		{200, 56, "28.0", [2]string{"0.715", "0.769"}, "5.6", [3]string{"2e-107", "3e-51", "5e-35"}},
		{192, 64, "33.3", [2]string{"0.687", "0.738"}, "7.2", [3]string{"2e-127", "3e-63", "2e-44"}},
	} {
		name := fmt.Sprintf("%d+%d", w.k, w.m)
		if got := fmt.Sprintf("%.1f", 100*float64(w.m)/float64(w.k)); got != w.overhead {
			t.Errorf("%s: overhead %s %%, want %s %%", name, got, w.overhead)
		}
		for i, mtu := range []int{1500, 9000} {
			p, err := Payload(mtu, false)
			if err != nil {
				t.Fatal(err)
			}
			// The table counts a frame as full, though its symbol is a few bytes
			// shorter.
			if got := fmt.Sprintf("%.3f", float64(p)/float64(mtu+frameOverhead)*float64(w.k)/float64(w.k+w.m)); got != w.goodput[i] {
				t.Errorf("%s, MTU %d: goodput %s, want %s", name, mtu, got, w.goodput[i])
			}
		}
		digits := len(w.maxLoss) - strings.Index(w.maxLoss, ".") - 1
		if got := fmt.Sprintf("%.*f", digits, 100*maxLoss(Profile{name, w.k, w.m}, payload)); got != w.maxLoss {
			t.Errorf("%s: bears %s %% of loss, want %s %%", name, got, w.maxLoss)
		}
		for i, loss := range []float64{.001, .01, .02} {
			if got := fmt.Sprintf("%.0e", Residual(w.k, w.m, loss, terabyte/float64(w.k*payload))); got != w.residual[i] {
				t.Errorf("%s at %g: residual %s, want %s", name, loss, got, w.residual[i])
			}
		}
	}
}

// TestBursts is the second table: 200+20 with 0.1 % of loss beside the bursts
// keeps 12 rows for that. Times are those of full frames, 1.05 % longer than
// ours.
func TestBursts(t *testing.T) {
	if got := keep(Profile{"x", 200, 20}, .001, 1408); got != 12 {
		t.Errorf("%d rows are kept for 0.1 %% of loss, want 12", got)
	}
	for _, w := range []struct {
		rate       float64
		mtu        int
		loss       float64
		seconds    float64
		generation float64
	}{
		{1e9, 1500, 0, 1.75, 2e9},
		{1e9, 1500, .001, .70, 2e9},
		{1e10, 1500, 0, .175, 2e9},
		{1e10, 1500, .001, .070, 2e9},
	} {
		p, err := Compute(Wish{Rate: w.rate, MTU: w.mtu, Loss: w.loss})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Outage.Seconds(); math.Abs(got-w.seconds) > .015*w.seconds {
			t.Errorf("%g b/s, loss %g: outlasts %.4f s, want %.3f s", w.rate, w.loss, got, w.seconds)
		}
		if got := float64(p.GenerationBytes); got < w.generation || got > 1.001*w.generation {
			t.Errorf("%g b/s: generations of %.0f bytes, want %.0f", w.rate, got, w.generation)
		}
	}
}

func TestPayload(t *testing.T) {
	for mtu, want := range map[int]int{140: 64, 203: 64, 204: 128, 1280: 1152, 1500: 1408, 9000: 8896, 65535: 8896} {
		if got, err := Payload(mtu, false); err != nil || got != want {
			t.Errorf("MTU %d: %d, %v; want %d", mtu, got, err, want)
		}
	}
	for mtu, want := range map[int]int{160: 64, 223: 64, 224: 128, 1280: 1152, 1499: 1344, 1500: 1344, 9000: 8896} {
		if got, err := Payload(mtu, true); err != nil || got != want || got+packetOverhead+ipv6Overhead > mtu {
			t.Errorf("MTU %d, IPv6: %d, %v; want %d", mtu, got, err, want)
		}
	}
	for _, mtu := range []int{-1500, 0, 139} {
		if got, err := Payload(mtu, false); err == nil || !strings.Contains(err.Error(), "at least 140") {
			t.Errorf("MTU %d: %d, %v; want an error that names 140", mtu, got, err)
		}
	}
}

// exactResidual sums the same terms with numbers that are long enough for them.
func exactResidual(k, m int, p, columns float64) *big.Float {
	const precision = 512
	number := func(f float64) *big.Float { return new(big.Float).SetPrec(precision).SetFloat64(f) }
	power := func(f *big.Float, n int) *big.Float {
		r := number(1)
		for range n {
			r.Mul(r, f)
		}
		return r
	}
	q := number(1)
	q.Sub(q, number(p))
	sum := number(0)
	for i := m + 1; i <= k+m; i++ {
		term := new(big.Float).SetPrec(precision).SetInt(new(big.Int).Binomial(int64(k+m), int64(i)))
		term.Mul(term, power(number(p), i))
		term.Mul(term, power(q, k+m-i))
		sum.Add(sum, term)
	}
	return sum.Mul(sum, number(columns))
}

func TestResidual(t *testing.T) {
	const columns = 3.5e6
	least := 1.0
	for _, w := range []struct {
		k, m int
		p    float64
	}{
		{200, 20, 1e-3},
		{200, 20, 1e-9},
		{200, 20, 1e-16},
		{240, 16, 1e-19},
		{192, 64, .02},
		{192, 64, 3.5e-6},
		{200, 0, 1e-12},
		{255, 1, 1e-100},
		{1, 255, .065},
		{1, 0, 1e-300},
	} {
		want, _ := exactResidual(w.k, w.m, w.p, columns).Float64()
		got := Residual(w.k, w.m, w.p, columns)
		if math.Abs(got-want) > 1e-9*want {
			t.Errorf("%d+%d at %g: %g, want %g", w.k, w.m, w.p, got, want)
		}
		least = min(least, want)
	}
	if least > 1e-290 || least < 1e-307 {
		t.Errorf("the smallest residual here is %g: want one near 1e-300", least)
	}
	for _, w := range []struct{ p, want float64 }{{0, 0}, {-1, 0}, {1, 1}, {.5, 1}} {
		if got := Residual(200, 20, w.p, columns); got != w.want {
			t.Errorf("200+20 at %g: %g, want %g", w.p, got, w.want)
		}
	}
}

func TestProfiles(t *testing.T) {
	for _, p := range Profiles() {
		if got, err := ProfileNamed(p.Name); err != nil || got != p {
			t.Errorf("%s: %+v, %v; want %+v", p.Name, got, err, p)
		}
		if _, err := New(p.K); err != nil || p.K+p.M > points {
			t.Errorf("%s: %d+%d is no code: %v", p.Name, p.K, p.M, err)
		}
	}
}

// TestCompute grants wishes, and looks whether the plan does what was wished.
func TestCompute(t *testing.T) {
	for _, w := range []struct {
		Wish
		profile string
	}{
		{Wish{Rate: 1e9, MTU: 1500, Loss: .001}, "default"},
		{Wish{Rate: 1e9, MTU: 1500, Loss: .001, Profile: "lean"}, "lean"},
		{Wish{Rate: 1e9, MTU: 1500, Outage: 2 * time.Second, Loss: .001}, "default"},
		{Wish{Rate: 1e9, MTU: 1500, Outage: 20 * time.Millisecond, MaxSpool: 64 << 20}, "default"},
		{Wish{Rate: 1e10, MTU: 9000, Outage: 100 * time.Millisecond, Loss: .003}, "default"},
		{Wish{Rate: 1e8, MTU: 1500, Outage: 5 * time.Second}, "default"},
		{Wish{Rate: 1e9, MTU: 1500, Outage: 500 * time.Millisecond, Loss: .012}, "robust"},
		{Wish{Rate: 1e9, MTU: 1500, Loss: .05}, "heavy"},
		{Wish{Rate: 1e9, MTU: 1500, Loss: .00569}, "default"}, // takes every row
		{Wish{Rate: 1e3, MTU: 140}, "default"},
		{Wish{Rate: 1e12, MTU: 9000, MaxSpool: 64 << 30}, "default"},
	} {
		p, err := Compute(w.Wish)
		if err != nil {
			t.Errorf("%+v: %v", w.Wish, err)
			continue
		}
		if p.Profile.Name != w.profile {
			t.Errorf("%+v: profile %s, want %s", w.Wish, p.Profile.Name, w.profile)
		}
		checkPlan(t, w.Wish, p)
	}
}

func checkPlan(t *testing.T, w Wish, p Plan) {
	t.Helper()
	frame := float64(p.Payload + 48 + 28 + 38)
	packets := w.Outage.Seconds() * w.Rate / (8 * frame)
	if float64(p.BurstPackets) < packets || p.Outage < w.Outage {
		t.Errorf("%+v: an interruption takes %.0f packets: %+v", w, packets, p)
	}
	if p.BurstPackets%p.Columns != 0 {
		t.Errorf("%+v: %d packets are no whole rows of %d", w, p.BurstPackets, p.Columns)
	}
	// The rows that an interruption takes are no help against loss.
	left := p.Profile.M - p.BurstPackets/p.Columns
	want := Residual(p.Profile.K, left, w.Loss, 1e12/float64(p.Profile.K*p.Payload))
	if p.Residual != want || p.Residual >= 1e-12 {
		t.Errorf("%+v: residual %g, want %g, below 1e-12", w, p.Residual, want)
	}
	row := int64(p.Columns) * int64(p.Payload)
	spool := w.MaxSpool
	if spool == 0 {
		spool = 1 << 30
	}
	if p.GenerationBytes != row*int64(p.Profile.K) || p.GenerationBytes > 64e9 {
		t.Errorf("%+v: generation of %d bytes", w, p.GenerationBytes)
	}
	if p.SpoolBytes != row*int64(p.Profile.M) || p.SpoolBytes > spool {
		t.Errorf("%+v: spool of %d bytes, at most %d", w, p.SpoolBytes, spool)
	}
	if least := int64(p.Columns) * int64(p.Profile.K+p.Profile.M) / 8; p.BitmapBytes < least || p.Columns > maxColumns {
		t.Errorf("%+v: bitmap of %d bytes, at least %d, for %d columns", w, p.BitmapBytes, least, p.Columns)
	}
	n, k := float64(p.Profile.K+p.Profile.M), float64(p.Profile.K)
	if math.Abs(p.Overhead-(n-k)/k) > 1e-12 || math.Abs(p.Goodput-float64(p.Payload)/frame*k/n) > 1e-12 {
		t.Errorf("%+v: overhead %g, goodput %g", w, p.Overhead, p.Goodput)
	}
}

func TestComputeRefuses(t *testing.T) {
	for _, w := range []struct {
		Wish
		want []string // of the error: field, wish, range
	}{
		{Wish{Rate: 0, MTU: 1500}, []string{"rate 0", "1e3 to 1e12"}},
		{Wish{Rate: -1e9, MTU: 1500}, []string{"rate -1e+09", "1e3 to 1e12"}},
		{Wish{Rate: math.NaN(), MTU: 1500}, []string{"rate NaN", "1e3 to 1e12"}},
		{Wish{Rate: math.Inf(1), MTU: 1500}, []string{"rate +Inf", "1e3 to 1e12"}},
		{Wish{Rate: 1e9, MTU: 100}, []string{"mtu 100", "at least 140"}},
		{Wish{Rate: 1e9, MTU: 1500, Loss: math.NaN()}, []string{"loss NaN", "from 0, below 1"}},
		{Wish{Rate: 1e9, MTU: 1500, Loss: 1}, []string{"loss 1", "from 0, below 1"}},
		{Wish{Rate: 1e9, MTU: 1500, Loss: -.1}, []string{"loss -0.1", "from 0, below 1"}},
		{Wish{Rate: 1e9, MTU: 1500, Loss: .3}, []string{"loss 30 %", "heavy (192+64) bears at most 7.214 %"}},
		{Wish{Rate: 1e9, MTU: 1500, Loss: .005, Profile: "lean"}, []string{"loss 0.5 %", "lean (240+16) bears at most 0.245 %"}},
		{Wish{Rate: 1e9, MTU: 1500, Loss: .00569, Outage: 1, Profile: "default"}, []string{"loss 0.569 %", "no rows left for an interruption"}},
		{Wish{Rate: 1e9, MTU: 1500, Outage: -1}, []string{"outage -1ns", "no less than 0"}},
		{Wish{Rate: 1e9, MTU: 1500, Outage: time.Hour}, []string{"outage 1h0m0s", "default outlasts at most 9.", "heavy outlasts at most 9."}},
		{Wish{Rate: 1e9, MTU: 1500, Outage: math.MaxInt64}, []string{"outage 2562047h", "at most"}},
		{Wish{Rate: 1e9, MTU: 1500, Profile: "strong"}, []string{`profile "strong"`, "lean, default, robust, heavy"}},
		{Wish{Rate: 1e9, MTU: 1500, MaxSpool: 1}, []string{"spool 1 bytes", "at least 28160"}},
		{Wish{Rate: 1e9, MTU: 1500, MaxSpool: -1}, []string{"spool -1 bytes", "at least 28160"}},
	} {
		p, err := Compute(w.Wish)
		if err == nil {
			t.Errorf("%+v was granted: %+v", w.Wish, p)
			continue
		}
		if p != (Plan{}) {
			t.Errorf("%+v: a plan beside the error: %+v", w.Wish, p)
		}
		for _, part := range w.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%+v: error %q does not say %q", w.Wish, err, part)
			}
		}
	}
}

// TestInterruptionHasTwoEnds: one that lasts as long as n packets can hit n+1.
func TestInterruptionHasTwoEnds(t *testing.T) {
	w := Wish{Rate: 1e9, MTU: 1500, Outage: 2 * time.Second, Profile: "default"}
	p, err := Compute(w)
	if err != nil {
		t.Fatal(err)
	}
	w.Outage = time.Duration(float64(p.BurstPackets) * float64(p.Payload+114) * 8 / w.Rate * float64(time.Second))
	more, err := Compute(w)
	if err != nil {
		t.Fatal(err)
	}
	if more.BurstPackets <= p.BurstPackets {
		t.Errorf("an interruption of %s: %d packets, want more than %d", w.Outage, more.BurstPackets, p.BurstPackets)
	}
	checkPlan(t, w, more)
}

// TestRangeIsGranted: what a refusal names as possible is, and no more.
func TestRangeIsGranted(t *testing.T) {
	w := Wish{Rate: 1e9, MTU: 1500, Loss: .001, Outage: time.Hour, Profile: "default", MaxSpool: 50 << 20}
	_, err := Compute(w)
	if err == nil {
		t.Fatal("an hour was granted")
	}
	_, rest, _ := strings.Cut(err.Error(), "at most ")
	longest, err := time.ParseDuration(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	w.Outage = longest
	p, err := Compute(w)
	if err != nil {
		t.Fatalf("the longest interruption, %s: %v", longest, err)
	}
	checkPlan(t, w, p)
	w.Outage += time.Millisecond
	if p, err := Compute(w); err == nil {
		t.Errorf("%s was granted, at most %s is possible: %+v", w.Outage, longest, p)
	}
}
