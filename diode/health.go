package diode

import (
	"math"
	"time"
)

// maxSessions bounds the senders that are known at once: the one that beats
// while nothing is sent, those that send, and some that were killed.
const maxSessions = 8

// silence is after how long without a packet a link counts as down: three
// heartbeats.
const silence = 3 * heartbeatEvery

// A session is one run of a sender, as its heartbeats tell.
type session struct {
	sequence uint32
	heartbeat
	heard time.Time
}

// health is what heartbeats tell of the link. The packets' thread has it.
type health struct {
	sessions map[uint64]*session
	gone     bool          // the last sender said that it leaves
	known    bool          // ahead is
	ahead    time.Duration // of this host's clock before the sender's
	missed   int64         // heartbeats
	// sent and arrived count symbols and filler from the first heartbeat of each
	// session on.
	sent, arrived int64
	carried       int64 // symbols and filler that came since the last heartbeat
}

// beat takes a heartbeat; false: it is no newer than another of its session,
// or says nothing of it.
func (h *health) beat(id uint64, sequence uint32, hb *heartbeat, now time.Time) bool {
	s := h.sessions[id]
	if s != nil && sequence <= s.sequence {
		return false
	}
	h.ahead, h.known = now.Sub(hb.clock), true
	if s == nil {
		s = h.open(id, now)
	} else {
		// The sender's clock does not know of packets that wait in a ring, and
		// this host's does not know of a sender whose clock was set.
		gap := min(hb.clock.Sub(s.clock), now.Sub(s.heard))
		h.missed += max(0, int64(math.Round(gap.Seconds()/heartbeatEvery.Seconds()))-1)
		h.sent += max(0, int64(hb.sent-s.sent)) // what is absurd counts as nothing
		h.arrived += h.carried
	}
	h.carried = 0
	s.sequence, s.heartbeat, s.heard = sequence, *hb, now
	// One that left is kept, so that its last word, heard twice, is not news.
	h.gone = false
	h.gone = hb.state == stateLeaving && h.state(now) == SenderSilent
	return true
}

// open takes note of a session, in the place of the one that has been silent
// for longest. What others have sent since their last heartbeat they will tell.
func (h *health) open(id uint64, now time.Time) *session {
	if len(h.sessions) >= maxSessions {
		oldest := id
		for other, s := range h.sessions {
			if oldest == id || s.heard.Before(h.sessions[oldest].heard) {
				oldest = other
			}
		}
		delete(h.sessions, oldest)
	}
	if state := h.state(now); state == SenderSending || state == SenderIdle {
		h.arrived += h.carried
	}
	s := &session{}
	h.sessions[id] = s
	return s
}

// A SenderState is what the inside knows of the other side.
type SenderState string

// States of a sender.
const (
	SenderUnknown SenderState = "unknown" // no heartbeat came since the start
	SenderSending SenderState = "sending"
	SenderIdle    SenderState = "idle"
	SenderLeft    SenderState = "gone"   // it said so
	SenderSilent  SenderState = "silent" // it did not
)

// state is that of the busiest sender that is heard.
func (h *health) state(now time.Time) SenderState {
	state := SenderSilent
	switch {
	case h.gone:
		state = SenderLeft
	case !h.known:
		state = SenderUnknown
	}
	for _, s := range h.sessions {
		switch {
		case now.Sub(s.heard) > silence, s.state == stateLeaving:
		case s.state == stateSending:
			return SenderSending
		default:
			state = SenderIdle
		}
	}
	return state
}

// waiting is how many objects the senders that are heard have not sent.
func (h *health) waiting(now time.Time) (n int) {
	for _, s := range h.sessions {
		if now.Sub(s.heard) <= silence {
			n += s.waiting
		}
	}
	return n
}
