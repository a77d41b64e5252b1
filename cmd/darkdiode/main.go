// Command darkdiode is the small end of the link: it sends files one way, or
// receives them. It links nothing of darkmirror but package diode, reads no
// configuration file, and takes its settings from flags and from DARKDIODE_...
// variables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/linkend"
	"github.com/darkmirror/darkmirror/diode/oneway"
)

const usage = `darkdiode sends files over a link that never answers, or receives them.

  darkdiode send --to ADDRESS:PORT --key FILE --rate RATE [flags] FILE|FOLDER...
  darkdiode send --to ADDRESS:PORT --key FILE --beat
  darkdiode receive --inbox FOLDER --key FILE --interface NAME [flags]
  darkdiode send --check --to ADDRESS:PORT [--rate RATE]
  darkdiode receive --check --interface NAME [--status FILE]
  darkdiode version

darkdiode send --help and darkdiode receive --help list the flags. Every flag
has a variable: --repair-passes is DARKDIODE_REPAIR_PASSES.

exit codes: 0 done, 1 other failure, 2 usage or configuration, 3 some files
incomplete, 5 integrity refused, 7 the link cannot be reached, 8 another
receiver has the inbox, 9 not enough space, 130 interrupted
`

// Exit codes are those of darkmirror.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitPartial     = 3
	exitIntegrity   = 5
	exitUnreachable = 7
	exitLocked      = 8
	exitSpace       = 9
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// A partialError says that files did not become whole.
type partialError struct{ text string }

func (e *partialError) Error() string { return e.text }

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(errs, usage)
		return exitUsage
	}
	var err error
	switch args[0] {
	case "send":
		err = send(ctx, args[1:], out, errs)
	case "receive":
		err = receive(ctx, args[1:], out, errs)
	case "version", "--version":
		version := "devel"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
			version = strings.Trim(info.Main.Version, "()")
		}
		_, err = fmt.Fprintf(out, "darkdiode %s, link format 1\n", version)
	case "help", "-h", "-help", "--help":
		_, err = fmt.Fprint(out, usage)
	default:
		err = fmt.Errorf("%w: %q: want send, receive or version", diode.ErrConfig, args[0])
	}
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	code := classify(ctx, err)
	if err != nil {
		fmt.Fprintf(errs, "error: %s\n", oneLine(err))
		if h := hint(err); h != "" {
			fmt.Fprintf(errs, "hint: %s\n", h)
		}
	}
	return code
}

func classify(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*partialError](err); ok {
		return exitPartial
	}
	if _, ok := errors.AsType[*linkend.NeighbourError](err); ok {
		return exitUnreachable
	}
	if _, ok := errors.AsType[*oneway.NotSealedError](err); ok {
		return exitUsage
	}
	switch {
	case errors.Is(err, diode.ErrDigest):
		return exitIntegrity
	case errors.Is(err, diode.ErrLocked):
		return exitLocked
	case errors.Is(err, diode.ErrSpace), errors.Is(err, syscall.ENOSPC):
		return exitSpace
	case errors.Is(err, diode.ErrConfig):
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}

func hint(err error) string {
	if e, ok := errors.AsType[*linkend.NeighbourError](err); ok {
		return e.Hint + "\n      or --blind, where the link needs no neighbour entry"
	}
	if _, ok := errors.AsType[*oneway.NotSealedError](err); ok {
		return "--block sets what can be set, as root; --unproven goes on without the proof"
	}
	if errors.Is(err, diode.ErrConfig) {
		return "darkdiode send --help, darkdiode receive --help"
	}
	return ""
}

// oneLine shortens what was joined twice.
func oneLine(err error) string {
	return strings.TrimPrefix(err.Error(), diode.ErrConfig.Error()+": ")
}

// parse reads flags, with the environment as their defaults.
func parse(fs *flag.FlagSet, args []string, errs io.Writer, head string) error {
	fs.SetOutput(errs)
	fs.Usage = func() {
		fmt.Fprintf(errs, "%s\n\n", head)
		fs.PrintDefaults()
	}
	var err error
	fs.VisitAll(func(f *flag.Flag) {
		if v, ok := os.LookupEnv("DARKDIODE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))); ok {
			if serr := f.Value.Set(v); serr != nil {
				err = errors.Join(err, fmt.Errorf("%w: variable for --%s: %w", diode.ErrConfig, f.Name, serr))
			}
		}
	})
	if err != nil {
		return err
	}
	err = fs.Parse(args)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		err = fmt.Errorf("%w: %w", diode.ErrConfig, err)
	}
	return err
}

func readKey(file string) (*diode.Key, error) {
	if file == "" {
		return nil, fmt.Errorf("%w: --key is missing: a file of 32 hexadecimal digits, the same on both sides (openssl rand -hex 16)", diode.ErrConfig)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", diode.ErrConfig, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%w: %s: everybody may read the link key; want mode 0640 or less", diode.ErrConfig, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", diode.ErrConfig, err)
	}
	k, err := diode.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}
