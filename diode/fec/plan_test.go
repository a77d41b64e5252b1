package fec

import (
	"math"
	"testing"
	"time"
)

// TestTable compares with figures that were computed apart from this code.
func TestTable(t *testing.T) {
	for _, w := range []struct {
		k, m                     int
		goodput1500, goodput9000 float64
		maxLoss                  float64
		at01, at1, at2           float64 // log10 of the residual at 0.1, 1 and 2 %
	}{
		{240, 16, .858, .923, .00245, -18.5, -2.4, 0},
		{200, 20, .832, .895, .0057, -27.5, -7.2, -1.7},
		{224, 32, .801, .861, .0169, -51, -19, -10},
	} {
		p := Profile{"x", w.k, w.m}
		for mtu, want := range map[int]float64{1500: w.goodput1500, 9000: w.goodput9000} {
			payload, err := Payload(mtu)
			if err != nil {
				t.Fatal(err)
			}
			got := float64(payload) / float64(payload+packetOverhead+ipOverhead+frameOverhead) * float64(w.k) / float64(w.k+w.m)
			if math.Abs(got-want) > .01 {
				t.Errorf("%d+%d, MTU %d: goodput %.4f, want %.3f", w.k, w.m, mtu, got, want)
			}
		}
		if got := maxLoss(p, 1408); math.Abs(got-w.maxLoss) > .03*w.maxLoss {
			t.Errorf("%d+%d: bears %.5f of loss, want %.5f", w.k, w.m, got, w.maxLoss)
		}
		for loss, want := range map[float64]float64{.001: w.at01, .01: w.at1, .02: w.at2} {
			if got := math.Log10(Residual(w.k, w.m, loss, terabyte/float64(w.k*1408))); math.Abs(got-want) > 1 {
				t.Errorf("%d+%d at %g: residual 1e%.1f, want about 1e%.1f", w.k, w.m, loss, got, want)
			}
		}
	}
}

func TestCompute(t *testing.T) {
	p, err := Compute(Wish{Rate: 1e9, MTU: 1500, Loss: .001})
	if err != nil {
		t.Fatal(err)
	}
	// 2 GB at 1 Gb/s: 8 of 20 rows are left for 0.7 s.
	if p.Profile.Name != "default" || p.BurstPackets < 7*p.Columns || p.Outage < 600*time.Millisecond || p.Outage > 800*time.Millisecond {
		t.Errorf("the usual plan: %+v", p)
	}
	for _, w := range []Wish{
		{Rate: 1e9, MTU: 1500, Outage: 2 * time.Second, Loss: .001},
		{Rate: 1e10, MTU: 9000, Outage: 100 * time.Millisecond, Loss: .003},
		{Rate: 1e8, MTU: 1500, Outage: 5 * time.Second},
		{Rate: 1e9, MTU: 1500, Outage: 500 * time.Millisecond, Loss: .012},
	} {
		p, err := Compute(w)
		if err != nil {
			t.Errorf("%+v: %v", w, err)
			continue
		}
		packets := w.Outage.Seconds() * w.Rate / (8 * float64(p.Payload+114))
		if float64(p.BurstPackets) < packets || p.Outage < w.Outage || p.Residual >= leastResidual || p.Columns > maxColumns {
			t.Errorf("%+v: does not grant the wish: %+v", w, p)
		}
	}
	for _, w := range []Wish{
		{Rate: 1e9, MTU: 1500, Outage: time.Hour},
		{Rate: 1e9, MTU: 1500, Loss: .3},
		{Rate: 1e9, MTU: 100},
		{Rate: 0, MTU: 1500},
		{Rate: 1e9, MTU: 1500, Profile: "strong"},
		{Rate: 1e9, MTU: 1500, Loss: math.NaN()},
		{Rate: 1e9, MTU: 1500, MaxSpool: 1},
	} {
		if p, err := Compute(w); err == nil {
			t.Errorf("%+v was granted: %+v", w, p)
		}
	}
}
