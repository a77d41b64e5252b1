// Package linkend puts together the two ends of the link: a sender with its
// plan, pace and sockets, and a receiver with its socket, its proof that
// nothing can be sent back, and its status files. cmd/darkdiode and the
// send and receive commands of cmd/darkmirror are thin skins over it.
//
// Specification: docs/diode-format.md and docs/no-back-channel.md.
//
// Invariants:
//   - A receiver takes no packet before every required layer of the proof
//     holds, unless it was told to go on without.
//   - A sender sends nothing before it knows that packets can leave without an
//     answer from the other side, unless it was told so too.
package linkend

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/diode"
)

// DefaultPort is where receivers listen unless told otherwise.
const DefaultPort = 7337

// leastProcs is how many threads may run Go code at once, at least. Reading,
// sending and waiting for packets are long system calls, and each keeps its
// place until the runtime's monitor takes it away. As long as it has to, the
// monitor wakes every 20 µs: where there are only two places, that was an eighth
// of a receiver's time. With places to spare it lets them be, and sleeps.
const leastProcs = 4

// sparePlaces sets it for this process, unless somebody else has set it.
func sparePlaces() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < leastProcs {
		runtime.GOMAXPROCS(leastProcs)
	}
}

// ParseRate reads bits a second on the wire: 900m, 1g, 2.5Gbit, 10000000.
func ParseRate(s string) (float64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	text = strings.TrimSuffix(strings.TrimSuffix(text, "/s"), "bit")
	factor := 1.0
	for suffix, f := range map[string]float64{"k": 1e3, "m": 1e6, "g": 1e9} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, factor = rest, f
			break
		}
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || n*factor < 1e3 || n*factor > 1e12 {
		return 0, fmt.Errorf("%w: rate %q: want bits a second from 1k to 1000g, as in 900m or 2.5g", diode.ErrConfig, s)
	}
	return n * factor, nil
}

// ParseShare reads a share of packets: 0.1% or 0.001.
func ParseShare(s string) (float64, error) {
	text, percent := strings.CutSuffix(strings.TrimSpace(s), "%")
	n, err := strconv.ParseFloat(text, 64)
	if percent {
		n /= 100
	}
	if err != nil || math.IsNaN(n) || n < 0 || n >= 1 {
		return 0, fmt.Errorf("%w: loss %q: want a share below one, as in 0.1%% or 0.001", diode.ErrConfig, s)
	}
	return n, nil
}
