package diode

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// counters count packets by what became of them.
type counters struct {
	packets, symbols, descriptors, heartbeats, filler    atomic.Int64
	notOurs, otherVersion, otherKey, badTag, malformed   atomic.Int64
	duplicate, unneeded, old, early, rejected, spoolFull atomic.Int64
	repaired, generations, objects, failed, stalls, rate atomic.Int64

	// What counts every packet belongs to the packets' thread until [fold]: an
	// atomic addition waits until the bytes copied before it are in the cache.
	newPackets, newSymbols int64
}

// fold makes what the packets' thread has counted known to others.
func (c *counters) fold() {
	c.packets.Add(c.newPackets)
	c.symbols.Add(c.newSymbols)
	c.newPackets, c.newSymbols = 0, 0
}

func (c *counters) refused(v verdict) {
	switch v {
	case notOurs:
		c.notOurs.Add(1)
	case otherVersion:
		c.otherVersion.Add(1)
	case otherKey:
		c.otherKey.Add(1)
	case badTag:
		c.badTag.Add(1)
	default:
		c.malformed.Add(1)
	}
}

// Counts are the receiver's counters since its start, in packets unless their
// names say something else.
type Counts struct {
	Packets      int64 `json:"packets"`
	Symbols      int64 `json:"symbols"` // taken
	Descriptors  int64 `json:"descriptors"`
	Heartbeats   int64 `json:"heartbeats"`
	Filler       int64 `json:"filler"`
	NotOurs      int64 `json:"not_ours"` // length or magic
	OtherVersion int64 `json:"other_version"`
	OtherKey     int64 `json:"other_key"`
	BadTag       int64 `json:"bad_tag"`
	Malformed    int64 `json:"malformed"` // good tag, against the rules
	Duplicate    int64 `json:"duplicate"`
	Unneeded     int64 `json:"unneeded"` // parity that nothing lacked, and what came after the repair
	Old          int64 `json:"old"`      // of transfers that are done with
	Early        int64 `json:"early"`    // before any descriptor, and no room to keep them
	Rejected     int64 `json:"rejected"` // descriptors
	SpoolFull    int64 `json:"spool_full"`
	Repaired     int64 `json:"repaired"` // symbols
	Generations  int64 `json:"generations"`
	Objects      int64 `json:"objects"`
	Failed       int64 `json:"failed_objects"`
	Stalls       int64 `json:"spool_stalls"` // the disk was slower than the link
}

// A Status is what a receiver knows, once a second.
type Status struct {
	Schema  string      `json:"schema"`
	Time    time.Time   `json:"time"`
	Link    string      `json:"link"` // up or down
	Heard   time.Time   `json:"heard"`
	Sender  SenderState `json:"sender"`
	Waiting int         `json:"sender_waiting"` // objects, as it says
	Rate    int64       `json:"sender_rate"`    // bits a second, as it says
	// Missed are heartbeats. Arrived of Sent symbols and fillers came, repaired or
	// not, as far as heartbeats tell.
	Missed  int64 `json:"heartbeats_missed"`
	Sent    int64 `json:"sender_packets"`
	Arrived int64 `json:"arrived_packets"`
	// Ahead is how many seconds this host's clock is before the sender's; nil
	// before the first heartbeat.
	Ahead   *float64       `json:"clock_ahead_seconds"`
	Counts  Counts         `json:"counts"`
	Objects []ObjectStatus `json:"objects"`
}

// An ObjectStatus is an object under way.
type ObjectStatus struct {
	Object      string `json:"object"`
	Name        string `json:"name"`
	Size        int64  `json:"size"`
	Generations int    `json:"generations"`
	Missing     int    `json:"missing_generations"`
	Pass        int    `json:"pass"`
	Passes      int    `json:"passes"`
}

// Counts reads the counters.
func (r *Receiver) Counts() Counts {
	c := &r.counts
	return Counts{
		Packets: c.packets.Load(), Symbols: c.symbols.Load(), Descriptors: c.descriptors.Load(), Heartbeats: c.heartbeats.Load(),
		Filler: c.filler.Load(), NotOurs: c.notOurs.Load(), OtherVersion: c.otherVersion.Load(), OtherKey: c.otherKey.Load(),
		BadTag: c.badTag.Load(), Malformed: c.malformed.Load(), Duplicate: c.duplicate.Load(), Unneeded: c.unneeded.Load(),
		Old: c.old.Load(), Early: c.early.Load(), Rejected: c.rejected.Load(), SpoolFull: c.spoolFull.Load(), Repaired: c.repaired.Load(),
		Generations: c.generations.Load(), Objects: c.objects.Load(), Failed: c.failed.Load(), Stalls: c.stalls.Load(),
	}
}

// Status is at most a second old; nil before the first.
func (r *Receiver) Status() *Status { return r.snapshot.Load() }

// publish makes a new status.
func (r *Receiver) publish() {
	now, h := time.Now(), &r.health
	s := &Status{
		Schema: "darkdiode.receiver/v1", Time: now.UTC(), Link: "down", Heard: r.heard.UTC(), Sender: h.state(now), Waiting: h.waiting(now),
		Rate: r.counts.rate.Load(), Missed: h.missed, Sent: h.sent, Arrived: h.arrived, Counts: r.Counts(), Objects: []ObjectStatus{},
	}
	if h.known {
		ahead := h.ahead.Seconds()
		s.Ahead = &ahead
	}
	if r.up {
		s.Link = "up"
	}
	for _, o := range r.objects {
		s.Objects = append(s.Objects, ObjectStatus{
			Object: o.id.String(), Name: o.name, Size: o.size, Generations: o.total, Missing: o.left, Pass: o.pass, Passes: o.passes,
		})
	}
	slices.SortFunc(s.Objects, func(a, b ObjectStatus) int { return strings.Compare(a.Object, b.Object) })
	r.snapshot.Store(s)
}

// Metrics is the status in the text format of Prometheus.
func (s *Status) Metrics() []byte {
	var b bytes.Buffer
	up := 0
	if s.Link == "up" {
		up = 1
	}
	missing := 0
	for _, o := range s.Objects {
		missing += o.Missing
	}
	fmt.Fprintf(&b, "darkdiode_link_up %d\ndarkdiode_heard_timestamp_seconds %d\n", up, s.Heard.Unix())
	for _, state := range []SenderState{SenderUnknown, SenderSending, SenderIdle, SenderLeft, SenderSilent} {
		is := 0
		if s.Sender == state {
			is = 1
		}
		fmt.Fprintf(&b, "darkdiode_sender{state=%q} %d\n", state, is)
	}
	fmt.Fprintf(&b, "darkdiode_heartbeats_missed_total %d\ndarkdiode_sender_packets_total %d\ndarkdiode_arrived_packets_total %d\n", s.Missed, s.Sent, s.Arrived)
	if s.Ahead != nil {
		fmt.Fprintf(&b, "darkdiode_clock_ahead_seconds %.3f\n", *s.Ahead)
	}
	fmt.Fprintf(&b, "darkdiode_objects_under_way %d\ndarkdiode_generations_missing %d\n", len(s.Objects), missing)
	c := s.Counts
	for _, m := range []struct {
		kind string
		n    int64
	}{
		{"symbol", c.Symbols},
		{"descriptor", c.Descriptors},
		{"heartbeat", c.Heartbeats},
		{"filler", c.Filler},
		{"not_ours", c.NotOurs},
		{"other_version", c.OtherVersion},
		{"other_key", c.OtherKey},
		{"bad_tag", c.BadTag},
		{"malformed", c.Malformed},
		{"duplicate", c.Duplicate},
		{"unneeded", c.Unneeded},
		{"old", c.Old},
		{"early", c.Early},
		{"rejected", c.Rejected},
		{"spool_full", c.SpoolFull},
	} {
		fmt.Fprintf(&b, "darkdiode_packets_total{kind=%q} %d\n", m.kind, m.n)
	}
	fmt.Fprintf(&b, "darkdiode_symbols_repaired_total %d\ndarkdiode_objects_total{result=\"complete\"} %d\n", c.Repaired, c.Objects)
	fmt.Fprintf(&b, "darkdiode_objects_total{result=\"failed\"} %d\ndarkdiode_spool_stalls_total %d\n", c.Failed, c.Stalls)
	return b.Bytes()
}
