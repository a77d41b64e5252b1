package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Class is how urgent a sending is.
type Class int

// Classes, the most urgent first.
const (
	Urgent Class = iota
	Normal
	Bulk
	classes
)

func (c Class) String() string {
	if c < 0 || c >= classes {
		return fmt.Sprintf("Class(%d)", int(c))
	}
	return [...]string{"urgent", "normal", "bulk"}[c]
}

// ParseClass reads the name of a class; "" is Normal.
func ParseClass(s string) (Class, error) {
	if s == "" {
		return Normal, nil
	}
	for c := range classes {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("priority %q: want urgent, normal or bulk", s)
}

const (
	// look is how often the sender that has the line looks who waits, and who
	// waits looks whether it is free.
	look = 20 * time.Millisecond
	// patience is how long a sender waits before it may have the line for slice,
	// whoever else wants it: a second in eleven for the least urgent. A slice is
	// half of the second in which something urgent shall be on its way.
	patience = 5 * time.Second
	slice    = 500 * time.Millisecond
)

// Bytes of a line's file that are locked: who has the line (one sender), who
// has waited for long, who wants it, and who has begun and was interrupted (any
// number, the last two of each class).
const (
	lockLine     = 0
	lockPatience = 1
	lockClass    = 2
	lockBegun    = lockClass + int64(classes)
)

// A Line is a link that several senders of this host share. One at a time has
// it; two would send twice what it bears. It is a file whose bytes are locked,
// so that a sender that was killed leaves nothing behind. For one goroutine.
type Line struct {
	class Class
	file  *os.File
	log   *slog.Logger

	has     bool
	begun   bool
	patient bool      // holds lockPatience
	until   time.Time // end of a slice; zero: until somebody more urgent comes
	looked  time.Time
}

// OpenLine opens a line by the file that its senders agree on, and makes it if
// it is not there. A sender that opened it is waited for only once it wants the
// line.
func OpenLine(file string, class Class, log *slog.Logger) (*Line, error) {
	if class < 0 || class >= classes {
		return nil, fmt.Errorf("line: %s: want a class from %s to %s", class, Urgent, classes-1)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("line: %w", err)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Line{class: class, file: f, log: log}, nil
}

// lock sets the lock of a byte, without waiting for it; ok is false where
// another sender's stands against it.
func (l *Line) lock(at int64, kind int16) (ok bool, err error) {
	lk := unix.Flock_t{Type: kind, Start: at, Len: 1}
	err = unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &lk)
	if isAny(err, unix.EAGAIN, unix.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", l.file.Name(), err)
	}
	return true, nil
}

// others reports whether another sender has a lock on count bytes from at on.
func (l *Line) others(at, count int64) (bool, error) {
	if count == 0 {
		return false, nil // to the kernel, all bytes
	}
	lk := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: count}
	if err := unix.FcntlFlock(l.file.Fd(), unix.F_OFD_GETLK, &lk); err != nil {
		return false, fmt.Errorf("ask for locks of %s: %w", l.file.Name(), err)
	}
	return lk.Type != unix.F_UNLCK, nil
}

// Take waits until this sender has the line. idle tells that nobody had it.
func (l *Line) Take(ctx context.Context) (idle bool, err error) {
	if l.has {
		return true, nil
	}
	if _, err := l.lock(lockClass+int64(l.class), unix.F_RDLCK); err != nil {
		return false, err
	}
	start := time.Now()
	for first := true; ; first = false {
		if err := l.try(); err != nil {
			return false, err
		}
		if l.has {
			return first, nil
		}
		if first {
			l.log.InfoContext(ctx, "waiting for another sender of this link", slog.String("class", l.class.String()), slog.String("line", l.file.Name()))
		}
		if !l.patient && time.Since(start) >= patience {
			if l.patient, err = l.lock(lockPatience, unix.F_RDLCK); err != nil {
				return false, err
			}
		}
		if err := pause(ctx, look); err != nil {
			return false, errors.Join(err, l.Release())
		}
	}
}

// first reports whether somebody else is to have the line before this sender:
// who is more urgent, who has waited for long, and who of this class has begun
// and gave way to something more urgent.
func (l *Line) first() (bool, error) {
	class := int64(l.class)
	for _, who := range [][2]int64{{lockClass, class}, {lockPatience, 1}, {lockBegun + class, 1}} {
		if who[0] == lockBegun+class && l.begun {
			break
		}
		if other, err := l.others(who[0], who[1]); other || err != nil {
			return other, err
		}
	}
	return false, nil
}

// try takes the line if it is free and this sender's turn.
func (l *Line) try() error {
	if !l.patient {
		if first, err := l.first(); first || err != nil {
			return err
		}
	}
	ok, err := l.lock(lockLine, unix.F_WRLCK)
	if err != nil || !ok {
		return err
	}
	l.has, l.begun, l.until, l.looked = true, true, time.Time{}, time.Now()
	_, err = l.lock(lockBegun+int64(l.class), unix.F_RDLCK)
	if l.patient {
		l.until = l.looked.Add(slice)
		l.patient = false
		_, perr := l.lock(lockPatience, unix.F_UNLCK)
		err = errors.Join(err, perr)
	}
	return err
}

// Yield lets go first whoever is more urgent or has waited for long, and comes
// back with the line. It costs next to nothing where nobody waits, and is called
// often.
func (l *Line) Yield(ctx context.Context) error {
	now := time.Now()
	if !l.has || now.Sub(l.looked) < look || now.Before(l.until) {
		return nil
	}
	l.looked = now
	give, err := l.first() // this one has begun: nobody of its class
	if err != nil {
		return err
	}
	ended := !l.until.IsZero()
	l.until = time.Time{}
	if !give && !ended {
		return nil
	}
	if err := l.drop(); err != nil {
		return err
	}
	// Who waits looks at the line this often.
	if err := pause(ctx, 2*look); err != nil {
		return errors.Join(err, l.Release())
	}
	_, err = l.Take(ctx)
	return err
}

// drop gives up the line and goes on wanting it.
func (l *Line) drop() error {
	l.has = false
	_, err := l.lock(lockLine, unix.F_UNLCK)
	return err
}

// Release gives up the line and wants it no more.
func (l *Line) Release() error {
	l.has, l.begun, l.patient = false, false, false
	if err := unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
		return fmt.Errorf("unlock %s: %w", l.file.Name(), err)
	}
	return nil
}

// Close gives up the line and closes its file, which stays.
func (l *Line) Close() error { return l.file.Close() }

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
