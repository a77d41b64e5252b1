package trivy

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"

	dblog "github.com/aquasecurity/trivy-db/pkg/log"
	"github.com/aquasecurity/trivy/pkg/log"
)

// Trivy logs to slog's default logger. Its package log, once it is linked
// into a program, makes itself that default before main starts, that of the
// standard library's package log too, and keeps every record of the whole
// program in memory until somebody asks for them. Here that is undone.

// restoreDefault takes slog's default logger away from Trivy, unless the
// program has already set one by itself. Records that Trivy kept are handed
// on, so that none is lost. Other code's records go to own, or to standard
// error if that is nil; Trivy's remarks go to own alone.
//
// The logger that Go itself starts with cannot be had back: it writes through
// package log, whose output leads to slog's default since Trivy set that.
func restoreDefault(own *slog.Logger) {
	// Trivy's package of the database sets this to debug for the whole
	// program, where lines of package log are then lost.
	slog.SetLogLoggerLevel(slog.LevelInfo)
	silence()
	kept, ok := slog.Default().Handler().(*log.DeferredHandler)
	if !ok {
		return
	}
	rest, trivys := slog.Handler(slog.NewTextHandler(os.Stderr, nil)), slog.DiscardHandler
	if own != nil {
		rest, trivys = own.Handler(), own.Handler()
	}
	h := Handler(rest, trivys)
	slog.SetDefault(slog.New(h))
	kept.Flush(h)
}

// silence ends the log of Trivy's package of the database, which it took from
// slog's default before main. That package logs nothing but remarks; what goes
// wrong it returns.
var silence = sync.OnceFunc(func() { dblog.SetLogger(slog.New(slog.DiscardHandler)) })

// Handler sends records that Trivy's code made to trivys, at level debug
// unless they are errors, and all others to rest. A program that sets slog's
// default logger by itself may wrap its handler so, to be spared Trivy's
// remarks on its work.
func Handler(rest, trivys slog.Handler) slog.Handler {
	return &divider{rest: rest, trivys: trivys}
}

// A divider tells records by the function that made them.
type divider struct{ rest, trivys slog.Handler }

func (d *divider) Enabled(ctx context.Context, l slog.Level) bool {
	return d.rest.Enabled(ctx, l) || d.trivys.Enabled(ctx, lowered(l))
}

func lowered(l slog.Level) slog.Level {
	if l < slog.LevelError {
		return slog.LevelDebug
	}
	return l
}

func (d *divider) Handle(ctx context.Context, r slog.Record) error {
	to := d.rest
	if ofTrivy(r.PC) {
		to = d.trivys
		r.Level = lowered(r.Level)
	}
	if !to.Enabled(ctx, r.Level) {
		return nil
	}
	return to.Handle(ctx, r)
}

func (d *divider) WithAttrs(a []slog.Attr) slog.Handler {
	return &divider{rest: d.rest.WithAttrs(a), trivys: d.trivys.WithAttrs(a)}
}

func (d *divider) WithGroup(name string) slog.Handler {
	return &divider{rest: d.rest.WithGroup(name), trivys: d.trivys.WithGroup(name)}
}

// ofTrivy tells whether the record was made by code of Trivy or one of its
// relatives.
func ofTrivy(pc uintptr) bool {
	if pc == 0 {
		return false
	}
	f, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	return strings.HasPrefix(f.Function, "github.com/aquasecurity/")
}
