package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/pypi"
)

func newLock(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "lock", GroupID: groupManage, Short: "Make a lock from outside work inside"}
	var prefixes []string
	var to string
	rewrite := &cobra.Command{
		Use:   "rewrite FILE --map OUTSIDE=INSIDE... [--to FILE]",
		Short: "Change the addresses in a uv.lock, pylock.toml or requirements file",
		Long: `Change the addresses in a uv.lock, pylock.toml or requirements file, so that
what was locked outside installs from the index inside. Everything else stays
as it is, byte for byte, the hashes above all.

  darkmirror lock rewrite uv.lock \
      --map https://index.example/simple=https://inside.example/pypi/main/simple \
      --map https://files.example=https://inside.example/pypi/main

Where several --map fit, the longest OUTSIDE counts, in whatever order they are
given; one ends where a part of the path ends. An address that none fits is
refused; run again, it changes nothing. The result goes to standard output, or
to --to, which may be FILE itself.

` + codesLine(exitOK, exitUsage),
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.lockRewrite(args[0], to, prefixes) },
	}
	rewrite.Flags().StringArrayVar(&prefixes, "map", nil, "addresses that begin with OUTSIDE begin with INSIDE: `OUTSIDE=INSIDE`; may be repeated")
	rewrite.Flags().StringVar(&to, "to", "", "write to `FILE`")
	cmd.AddCommand(rewrite)
	return cmd
}

func (a *app) lockRewrite(file, to string, pairs []string) error {
	if len(pairs) == 0 {
		return usagef("--map is missing: which addresses become which?")
	}
	prefixes := make(map[string]string, len(pairs))
	for _, p := range pairs {
		from, into, ok := strings.Cut(p, "=")
		if !ok {
			return usagef("--map %s: want OUTSIDE=INSIDE", p)
		}
		from = strings.TrimRight(from, "/")
		if other, twice := prefixes[from]; twice {
			return usagef("--map %s: is there twice, as %s and as %s\nan address can begin in one way only inside", from, other, into)
		}
		prefixes[from] = into
	}
	in, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return &usageError{err}
	}
	out, changes, err := pypi.RewriteLock(filepath.Base(file), in, prefixes)
	if err != nil {
		return err
	}
	if to == "" {
		_, err = a.out.Write(out)
		return err
	}
	if err := durable.WriteFile(to, out, 0o644); err != nil {
		return err
	}
	if !a.quiet {
		fmt.Fprintf(a.err, "%d addresses changed, %s written\n", len(changes), to)
	}
	return nil
}
