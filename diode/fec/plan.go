package fec

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// A Profile is a strength of the parity.
type Profile struct {
	Name string
	K, M int // data and parity rows
}

// Profiles lists them from the leanest to the strongest.
func Profiles() []Profile {
	return []Profile{{"lean", 240, 16}, {"default", 200, 20}, {"robust", 224, 32}, {"heavy", 192, 64}}
}

// ProfileNamed finds a profile.
func ProfileNamed(name string) (Profile, error) {
	var names []string
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Profile{}, fmt.Errorf("profile %q: want %s", name, strings.Join(names, ", "))
}

const (
	// packetOverhead is what a datagram carries beside its symbol; ipv4Overhead
	// and ipv6Overhead what IP and UDP add, and frameOverhead what Ethernet does:
	// header and check 18, preamble 8, gap 12.
	packetOverhead = 48
	ipv4Overhead   = 28
	ipv6Overhead   = 48
	frameOverhead  = 38
	// maxMTU is the largest frame that a symbol fills.
	maxMTU = 9000
	// leastResidual is the probability, for each terabyte, that a plan leaves
	// open.
	leastResidual = 1e-12
	terabyte      = 1e12
	// usualGeneration and mostGeneration are bytes. A generation should take
	// seconds, so that an interruption is a small part of it, and one of more
	// than 64 GB is not repaired before it is old.
	usualGeneration = 2e9
	mostGeneration  = 64e9
	// usualSeconds bounds a usual generation's time on a slow line.
	usualSeconds = 20
	// maxColumns is the format's bound.
	maxColumns = 1 << 18
	// defaultSpool bounds the parity of one generation on disk.
	defaultSpool = 1 << 30
)

func ipOverhead(ipv6 bool) int {
	if ipv6 {
		return ipv6Overhead
	}
	return ipv4Overhead
}

// Payload is the longest symbol that fits a path: a multiple of 64.
func Payload(mtu int, ipv6 bool) (int, error) {
	p := (min(mtu, maxMTU) - ipOverhead(ipv6) - packetOverhead) / 64 * 64
	if p < 64 {
		return 0, fmt.Errorf("mtu %d: want at least %d", mtu, 64+ipOverhead(ipv6)+packetOverhead)
	}
	return p, nil
}

// A Wish is what a link is to bear.
type Wish struct {
	Rate   float64 // bits a second on the wire
	MTU    int
	IPv6   bool          // of the receiver's address
	Outage time.Duration // longest interruption; 0: as it comes
	Loss   float64       // share of packets lost at random, beside that
	// Profile fixes the strength; "" takes the leanest that does.
	Profile  string
	MaxSpool int64 // bytes of parity of one generation; 0: 1 GiB
}

// A Plan is how to send.
type Plan struct {
	Profile         Profile
	Payload         int // bytes of a symbol
	Columns         int // of a full generation
	GenerationBytes int64
	Overhead        float64 // parity for each byte of data
	Goodput         float64 // share of the line that is data
	BurstPackets    int     // in one generation, beside Loss
	Outage          time.Duration
	SpoolBytes      int64
	BitmapBytes     int64
	Residual        float64 // probability that a terabyte is not complete
}

// Compute plans. A wish that nothing can grant is refused with what could be.
func Compute(w Wish) (Plan, error) {
	if math.IsNaN(w.Rate) || w.Rate < 1e3 || w.Rate > 1e12 {
		return Plan{}, fmt.Errorf("rate %g: want 1e3 to 1e12 bits a second", w.Rate)
	}
	if math.IsNaN(w.Loss) || w.Loss < 0 || w.Loss >= 1 {
		return Plan{}, fmt.Errorf("loss %g: want a share from 0, below 1", w.Loss)
	}
	if w.Outage < 0 {
		return Plan{}, fmt.Errorf("outage %s: want no less than 0", w.Outage)
	}
	payload, err := Payload(w.MTU, w.IPv6)
	if err != nil {
		return Plan{}, err
	}
	if w.MaxSpool == 0 {
		w.MaxSpool = defaultSpool
	}
	profiles := Profiles()
	if w.Profile != "" {
		p, err := ProfileNamed(w.Profile)
		if err != nil {
			return Plan{}, err
		}
		profiles = []Profile{p}
	} else {
		// Lean has little to spare; who wants it asks for it by name.
		profiles = profiles[1:]
	}
	var refused error
	for _, p := range profiles {
		plan, err := compute(w, p, payload)
		if err == nil {
			return plan, nil
		}
		refused = errors.Join(refused, err)
	}
	return Plan{}, refused
}

func compute(w Wish, p Profile, payload int) (Plan, error) {
	kept := keep(p, w.Loss, payload)
	if kept < 0 {
		return Plan{}, fmt.Errorf("loss %.3g %%: profile %s (%d+%d) bears at most %g %%", 100*w.Loss, p.Name, p.K, p.M, math.Floor(1e5*maxLoss(p, payload))/1e3)
	}
	burstRows := p.M - kept
	if w.Outage > 0 && burstRows == 0 {
		return Plan{}, fmt.Errorf("loss %.3g %%: profile %s has no rows left for an interruption", 100*w.Loss, p.Name)
	}
	wire := 8 * float64(payload+packetOverhead+ipOverhead(w.IPv6)+frameOverhead)
	perSecond := w.Rate / wire // packets
	row := float64(p.K * payload)
	most := min(maxColumns, math.Floor(mostGeneration/row), math.Floor(float64(w.MaxSpool)/float64(p.M*payload)))
	if most < 1 {
		return Plan{}, fmt.Errorf("spool %d bytes: want at least %d", w.MaxSpool, p.M*payload)
	}
	// The usual generation has to fit the spool; what an interruption needs
	// comes on top, and is refused where it does not fit.
	columns := min(most, math.Ceil(min(usualGeneration, usualSeconds*w.Rate/8)/row))
	if w.Outage > 0 {
		// One packet more: an interruption has two ends.
		columns = max(columns, math.Ceil((w.Outage.Seconds()*perSecond+1)/float64(burstRows)))
	}
	if columns > most {
		longest := time.Duration((most*float64(burstRows) - 1) / perSecond * float64(time.Second))
		return Plan{}, fmt.Errorf("outage %s: profile %s outlasts at most %s at this rate, beside %.3g %% of loss", w.Outage, p.Name, longest.Truncate(time.Microsecond), 100*w.Loss)
	}
	d := int(max(1, columns))
	return Plan{
		Profile: p, Payload: payload, Columns: d, GenerationBytes: int64(d) * int64(row),
		Overhead: float64(p.M) / float64(p.K),
		Goodput:  float64(payload) / (wire / 8) * float64(p.K) / float64(p.K+p.M),
		// The rest of the rows is for what is lost at random.
		BurstPackets: burstRows * d, Outage: time.Duration(float64(burstRows*d) / perSecond * float64(time.Second)),
		SpoolBytes: int64(d) * int64(p.M*payload), BitmapBytes: int64(d) * 32,
		Residual: Residual(p.K, kept, w.Loss, terabyte/row),
	}, nil
}

// keep is how many parity rows random loss takes, so that the rest may go in
// an interruption; -1: there are not enough.
func keep(p Profile, loss float64, payload int) int {
	for m := range p.M + 1 {
		if Residual(p.K, m, loss, terabyte/float64(p.K*payload)) < leastResidual {
			return m
		}
	}
	return -1
}

// maxLoss is the greatest random loss that a profile bears without any
// interruption.
func maxLoss(p Profile, payload int) float64 {
	low, high := 0.0, 1.0
	for range 60 {
		mid := (low + high) / 2
		if Residual(p.K, p.M, mid, terabyte/float64(p.K*payload)) < leastResidual {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// Residual is the probability that at least one of so many columns of k data
// and m parity symbols loses more than m of them, each lost with probability
// p. It is an upper bound, at most 1.
func Residual(k, m int, p, columns float64) float64 {
	if p <= 0 {
		return 0
	}
	if p >= 1 {
		return 1
	}
	n := k + m
	// Terms are summed from their logarithms: they fall below 1e-300.
	sum := 0.0
	top := math.Inf(-1)
	for i := m + 1; i <= n; i++ {
		l := choose(n, i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p)
		if l > top {
			sum = sum*math.Exp(top-l) + 1
			top = l
		} else {
			sum += math.Exp(l - top)
		}
	}
	if sum == 0 {
		return 0
	}
	return math.Min(1, math.Exp(top+math.Log(sum)+math.Log(columns)))
}

// choose is the logarithm of n over i.
func choose(n, i int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(i + 1))
	c, _ := math.Lgamma(float64(n - i + 1))
	return a - b - c
}
