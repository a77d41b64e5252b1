package linkend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/fec"
	"github.com/darkmirror/darkmirror/diode/link"
)

// SendOptions say how to reach the other side and what to guard against.
type SendOptions struct {
	To        netip.AddrPort
	Interface string
	Key       *diode.Key
	Rate      float64 // bits a second on the wire
	MTU       int     // 0: the interface's
	Profile   string  // "" chooses by Outage and Loss
	Outage    time.Duration
	Loss      float64
	Passes    int // at least 1
	Repair    int // passes of parity that follow
	Spool     string
	// Priority is urgent, normal or bulk; "" is normal. Line is a file that all
	// senders of the link on this host agree on, so that one at a time sends and
	// what is urgent goes first; "" is one in Spool that is named for To and the
	// user.
	Priority string
	Line     string
	// Blind goes on where no permanent neighbour entry is known: the switch or
	// the converter may need none.
	Blind      bool
	Log        *slog.Logger
	OnProgress func(sent int64)
}

// Plan computes the parameters of the transfer.
func (o SendOptions) Plan() (fec.Plan, error) {
	if _, err := link.ParseClass(o.Priority); err != nil {
		return fec.Plan{}, fmt.Errorf("%w: %w", diode.ErrConfig, err)
	}
	mtu := o.MTU
	if mtu == 0 {
		var err error
		if mtu, err = link.MTU(o.To.Addr(), o.Interface); err != nil {
			return fec.Plan{}, fmt.Errorf("%w: the path's MTU is not known: %w", diode.ErrConfig, err)
		}
	}
	p, err := fec.Compute(fec.Wish{Rate: o.Rate, MTU: min(mtu, 9000), IPv6: !o.To.Addr().Unmap().Is4(), Outage: o.Outage, Loss: o.Loss, Profile: o.Profile})
	if err != nil {
		return p, fmt.Errorf("%w: %w", diode.ErrConfig, err)
	}
	return p, nil
}

// A NeighbourError says that packets would vanish: without an entry the
// kernel asks who has the address, and on this link nobody can answer.
type NeighbourError struct {
	link.Neighbour
	To netip.Addr
}

func (e *NeighbourError) Error() string {
	return fmt.Sprintf("no permanent neighbour entry for %s on %s: packets would be dropped here without a word", e.NextHop, e.Interface)
}

// Neighbour checks that packets can leave.
func (o SendOptions) Neighbour() error {
	n, err := link.FindNeighbour(o.To.Addr(), o.Interface)
	if err != nil {
		return err
	}
	if n.State == link.NeighbourPermanent || n.State == link.NeighbourNotNeeded {
		return nil
	}
	return &NeighbourError{Neighbour: n, To: o.To.Addr()}
}

// Sent tells what left.
type Sent struct {
	Plan    fec.Plan
	Packets int64
	Bytes   int64 // of datagrams
	Mode    string
	Took    time.Duration // of the files, without warm-up and what follows
}

// line opens what the senders of this host share.
func (o SendOptions) line() (*link.Line, error) {
	class, err := link.ParseClass(o.Priority)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", diode.ErrConfig, err)
	}
	file := o.Line
	if file == "" {
		dir := o.Spool
		if dir == "" {
			dir = os.TempDir()
		}
		to := strings.Map(func(r rune) rune {
			if r == ':' || r == '%' || r == '/' {
				return '_'
			}
			return r
		}, o.To.String())
		file = filepath.Join(dir, fmt.Sprintf(".darkdiode-line-%d-%s", os.Getuid(), to))
	}
	l, err := link.OpenLine(file, class, o.Log)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", diode.ErrConfig, err)
	}
	return l, nil
}

// Beat sends a heartbeat a second until ctx ends, while others send or nobody
// does: the receiver's status tells an idle link from one that is cut.
func Beat(ctx context.Context, o SendOptions) (err error) {
	if !o.Blind {
		if err := o.Neighbour(); err != nil {
			return err
		}
	}
	control, err := link.Dial(link.SenderConfig{To: o.To, Interface: o.Interface, Size: diode.ControlSize, Log: o.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	return diode.Beat(ctx, o.Key, control, o.Rate)
}

// Send sends objects. Nil means that every packet has left.
func Send(ctx context.Context, o SendOptions, objects []diode.Object) (_ *Sent, err error) {
	plan, err := o.Plan()
	if err != nil {
		return nil, err
	}
	if !o.Blind {
		if err := o.Neighbour(); err != nil {
			return nil, err
		}
	}
	sparePlaces()
	dial := func(size int, rate float64) (*link.Sender, error) {
		return link.Dial(link.SenderConfig{To: o.To, Interface: o.Interface, Rate: rate, Size: size, Log: o.Log})
	}
	symbols, err := dial(diode.SymbolSize(plan.Payload), o.Rate)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, symbols.Close()) }()
	control, err := dial(diode.ControlSize, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	line, err := o.line()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, line.Close()) }()
	s, err := diode.NewSender(diode.SenderConfig{
		Key: o.Key, K: plan.Profile.K, Parity: plan.Profile.M, Payload: plan.Payload, Columns: plan.Columns,
		Passes: max(1, o.Passes), RepairPasses: o.Repair, Outage: o.Outage, Rate: o.Rate, Spool: o.Spool,
		Symbols: symbols, Control: control, Line: line, OnProgress: o.OnProgress,
	})
	if err != nil {
		return nil, err
	}
	if err := s.Send(ctx, objects); err != nil {
		return nil, err
	}
	st := symbols.Stats()
	if all := st.Packets + st.Lost; st.Lost*lostOf > all {
		return nil, fmt.Errorf("%w: %d of %d packets could not leave this host: look at the interface, its route and its packet filter", diode.ErrIncomplete, st.Lost, all)
	}
	return &Sent{Plan: plan, Packets: st.Packets, Bytes: st.Bytes, Mode: symbols.Mode(), Took: s.Took()}, nil
}

// lostOf is the part of the packets that this host may fail to send, one in so
// many: what every profile's parity makes up for.
const lostOf = 50

// IsAbout reports whether a ticket is about an object that is sent with these
// options. It reads the file.
func IsAbout(o SendOptions, t *diode.Ticket, ob diode.Object) (bool, error) {
	plan, err := o.Plan()
	if err != nil {
		return false, err
	}
	short, err := diode.Number(ob, plan.Profile.K, plan.Payload, plan.Columns)
	return short == t.Object, err
}

// Objects lists what arguments name: a file by its own name, a folder as all
// regular files below it by their paths from the folder's own name on, in
// order. Hidden files are left out, and anything but files is refused.
func Objects(args []string) ([]diode.Object, error) {
	var all []diode.Object
	for _, arg := range args {
		arg, err := filepath.Abs(arg)
		if err != nil {
			return nil, err
		}
		base := filepath.Dir(arg)
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return fmt.Errorf("%w: %w", diode.ErrConfig, err)
			}
			if path != arg && strings.HasPrefix(d.Name(), ".") {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
			if d.IsDir() {
				return nil
			}
			if !d.Type().IsRegular() {
				return fmt.Errorf("%w: %s: only regular files are sent", diode.ErrConfig, path)
			}
			name, err := filepath.Rel(base, path)
			if err != nil {
				return err
			}
			name = filepath.ToSlash(name)
			if err := diode.CheckName(name); err != nil {
				return err
			}
			all = append(all, diode.Object{Name: name, Path: path})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{}
	for _, o := range all {
		if seen[o.Name] {
			return nil, fmt.Errorf("%w: two files would be called %s inside", diode.ErrConfig, o.Name)
		}
		seen[o.Name] = true
	}
	// What is small goes first: it says what the rest is.
	slices.SortStableFunc(all, func(a, b diode.Object) int { return strings.Count(a.Name, "/") - strings.Count(b.Name, "/") })
	return all, nil
}
