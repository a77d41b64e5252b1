package mirror

import (
	"errors"
	"fmt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/ledger"
)

// What a delta may build on: the bundles that count as being inside, or on
// their way there.
const (
	// BaseSealed: every bundle that was sealed and is not marked as lost.
	BaseSealed = "sealed"
	// BaseSent: those that were sent.
	BaseSent = "sent"
	// BaseConfirmed: those that a receipt of the inside confirms.
	BaseConfirmed = "confirmed"
)

// A Base says what the next bundle may build on.
type Base struct {
	Policy string // one of the above; empty is BaseSealed
	// Seq, if not zero, is the last bundle that counts, whatever the policy.
	Seq uint64
	// Full builds on nothing. Every does so with every so many bundles; 0:
	// never.
	Full  bool
	Every int
}

// errBase says that the bundle to build on does not exist.
var errBase = errors.New("no such bundle to build on")

// base decides, once a run, which bundles count. The greatest is what a delta
// names as its base; 0: the bundle stands alone.
func (e *Exporter) base() (uint64, error) {
	if e.counted != nil {
		return e.newest, nil
	}
	all, err := e.Ledger.Sealed(e.Stream)
	if err != nil {
		return 0, err
	}
	counted := make(map[uint64]bool, len(all))
	newest, sinceFull := uint64(0), 0
	for _, b := range all {
		sinceFull++
		if b.Base == 0 {
			sinceFull = 0
		}
		if e.Base.counts(b) {
			counted[b.Seq] = true
			newest = b.Seq
		}
	}
	if n := e.Base.Seq; n > uint64(len(all)) {
		return 0, fmt.Errorf("%w: %06d; the last one is %06d", errBase, n, len(all))
	}
	if e.Base.Full || e.Base.Every > 0 && sinceFull+1 >= e.Base.Every {
		clear(counted)
		newest = 0
	}
	e.counted, e.newest = counted, newest
	return newest, nil
}

func (b Base) counts(s ledger.Sealed) bool {
	switch {
	case s.State == ledger.StateLost:
		return false
	case b.Seq > 0:
		return s.Seq <= b.Seq
	case b.Policy == BaseConfirmed:
		return s.State == ledger.StateConfirmed
	case b.Policy == BaseSent:
		return s.State == ledger.StateSent || s.State == ledger.StateConfirmed
	}
	return true
}

// carried tells which of the bundles that count brought a blob first.
func (e *Exporter) carried(d artifact.Digest) (seq uint64, ok bool, err error) {
	if _, err := e.base(); err != nil {
		return 0, false, err
	}
	return e.Ledger.CarriedBy(e.Stream, d, func(seq uint64) bool { return e.counted[seq] })
}
