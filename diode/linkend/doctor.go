package linkend

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/link"
)

// A Finding is what was found about one thing of this host that the link
// needs, with what mends it.
type Finding = link.Finding

// maxStatus bounds a status file: a hundred objects have 20 kB.
const maxStatus = 1 << 20

// earliest has passed: there was no link format before.
func earliest() time.Time { return time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) }

// Diagnose looks at the card and the clock of the host that sends. It changes
// and sends nothing.
func (o SendOptions) Diagnose() []Finding {
	n, err := link.FindNeighbour(o.To.Addr(), o.Interface)
	if err != nil {
		return []Finding{broken("card", err, "ip route add "+o.To.Addr().String()+" dev INTERFACE")}
	}
	c, err := link.ReadCard(n.Interface)
	if err != nil {
		return []Finding{broken("card", err, "name the interface that the link is on")}
	}
	return append(link.CheckSenderCard(c, o.Rate, o.MTU), link.CheckOwnClock(time.Now(), earliest()))
}

func broken(name string, err error, mend string) Finding {
	return Finding{State: link.FindingFail, Name: name, Detail: err.Error(), Mend: mend}
}

// Diagnose looks at the card, the ring, the kernel and the clock of the host
// that receives, and at what a receiver that runs now has written in its status
// file. It changes and sends nothing.
func (o ReceiveOptions) Diagnose() []Finding {
	var all []Finding
	if o.Interface == "" {
		all = append(all, broken("card", errors.New("no interface is named, so nothing about it can be known"), "name the interface that the link is on"))
	} else if c, err := link.ReadCard(o.Interface); err != nil {
		all = append(all, broken("card", err, "name the interface that the link is on"))
	} else {
		all = append(all, link.CheckReceiverCard(c)...)
	}
	ring := o.Ring
	if ring == 0 {
		ring = link.DefaultRing
	}
	now := time.Now()
	st, err := readStatus(o.Status)
	if err != nil {
		all = append(all, broken("status", err, "is the receiver running, and does it write this file?"))
	}
	rate := 0.0
	if st != nil {
		rate = float64(st.Rate)
	}
	k, err := link.ReadKernel()
	if err != nil {
		all = append(all, broken("kernel", err, "run it where /proc is whole"))
	} else {
		free := k.Available
		if st != nil && now.Sub(st.Time) < time.Minute {
			free = 0 // it has its ring
		}
		all = append(all, link.CheckRing(ring, rate, free))
		all = append(all, link.CheckKernel(k, ring, o.Backend == "udp")...)
	}
	return append(all, checkStatus(st, now)...)
}

// readStatus reads what a receiver writes every second; nil: there is none.
func readStatus(name string) (_ *status, err error) {
	if name == "" {
		return nil, nil //nolint:nilnil // none is written
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no receiver runs
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxStatus+1))
	if err != nil {
		return nil, err
	}
	st := &status{Status: &diode.Status{}}
	if len(data) > maxStatus {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxStatus)
	}
	if err := json.Unmarshal(data, st); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if want := "darkdiode.receiver/v1"; st.Schema != want {
		return nil, fmt.Errorf("%s: schema %q, want %q", name, st.Schema, want)
	}
	return st, nil
}

// checkStatus looks at what a receiver has seen of the link.
func checkStatus(st *status, now time.Time) []Finding {
	if st == nil {
		return []Finding{
			{State: link.FindingUnknown, Name: "heard", Detail: "no receiver has written its status, so nothing is known of the sender"},
			link.CheckClock(now, earliest(), nil, 0),
		}
	}
	age := now.Sub(st.Heard).Round(time.Second)
	heard := Finding{State: link.FindingOK, Name: "heard", Detail: fmt.Sprintf("the sender is %s; heard %s ago, %d heartbeats missed", st.Sender, max(0, age), st.Missed)}
	switch {
	case now.Sub(st.Time) > time.Minute:
		heard.State, heard.Mend = link.FindingWarn, "start the receiver"
		heard.Detail = fmt.Sprintf("the receiver's status is %s old: it does not run", now.Sub(st.Time).Round(time.Second))
	case st.Sender == diode.SenderSilent:
		heard.State, heard.Mend = link.FindingFail, "look at the sender, the fibre and both cards"
		heard.Detail = fmt.Sprintf("nothing was heard of the sender for %s, and it did not say that it leaves", age)
	case st.Sender == diode.SenderUnknown:
		heard.State, heard.Mend = link.FindingUnknown, "a sender that beats while nothing is sent"
		heard.Detail = "nothing was heard of a sender since the receiver started: the link is idle or dead"
	}
	var ahead *time.Duration
	if st.Ahead != nil {
		d := time.Duration(*st.Ahead * float64(time.Second))
		ahead = &d
	}
	return []Finding{heard, checkLoss(st), link.CheckClock(now, earliest(), ahead, age)}
}

// checkLoss names the place where packets were lost, the last one first: what
// this host drops looks like loss of the link.
func checkLoss(st *status) Finding {
	const name, much = "loss", 0.001 // what a plan is made for, unless told otherwise
	f := Finding{State: link.FindingWarn, Name: name}
	lost := max(0, st.Sent-st.Arrived)
	switch {
	case st.Socket.KernelDrops > 0:
		f.Detail = fmt.Sprintf("the ring was full: %d packets were dropped, and %d times the disk was slower than the link", st.Socket.KernelDrops, st.Counts.Stalls)
		f.Mend = "a lower rate at the sender, a larger ring, or a faster disk"
	case float64(lost) > much*float64(st.Sent):
		f.Detail = fmt.Sprintf("%d of %d packets did not arrive, and none was dropped by this host's ring", lost, st.Sent)
		f.Mend = "a lower rate at the sender; then more parity (loss, profile)"
	case st.Sent == 0:
		f.State, f.Detail = link.FindingUnknown, "no heartbeat has told of packets yet"
	default:
		f.State, f.Detail = link.FindingOK, fmt.Sprintf("%d of %d packets did not arrive", lost, st.Sent)
	}
	return f
}
