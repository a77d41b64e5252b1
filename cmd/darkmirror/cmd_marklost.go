package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/ledger"
)

func newMarkLost(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "mark-lost BUNDLE",
		GroupID: groupOutside,
		Short:   "Say that a bundle will never arrive, so that the next one carries its blobs again",
		Long: `Say that a bundle will never arrive, so that the next one carries its blobs
again: those that no other bundle has carried, and nothing more. Run
darkmirror export afterwards, and inside darkmirror import --accept-gap.

` + codesLine(exitOK, exitUsage, exitLocked),
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.markLost(args[0]) },
	}
}

func (a *app) markLost(arg string) (err error) {
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	seq, err := strconv.ParseUint(strings.TrimLeft(arg, "0"), 10, 64)
	if err != nil {
		return usagef("%q is not the number of a bundle, as in 000042", arg)
	}
	_, led, err := openState(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	if err := led.MarkLost(cfg.Stream, seq); errors.Is(err, ledger.ErrUnknownBundle) {
		return usagef("stream %s has no bundle %s", cfg.Stream, seqName(seq))
	} else if err != nil {
		return err
	}
	if err := keepLog(cfg, led); err != nil {
		return err
	}
	res := map[string]any{"schema": "darkmirror.mark-lost/v1", "stream": cfg.Stream, "seq": seqName(seq)}
	return a.result(res, func() error {
		_, err := fmt.Fprintf(a.out, "%s of stream %s counts as lost; the next export carries its blobs again\n", seqName(seq), cfg.Stream)
		return err
	})
}
