package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle/recovery"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func newProtect(a *app) *cobra.Command {
	var o recovery.Options
	var most volumeSize
	cmd := &cobra.Command{
		Use:     "protect BUNDLE (--percent N | --volumes N) [--max-file SIZE]",
		GroupID: groupBoth,
		Short:   "Add recovery files to a bundle, for scratched discs and lost sticks",
		Long: `Add recovery files to a bundle, for scratched discs and lost sticks: parity
that brings back damaged places, and whole volumes. They belong to the volumes
as they are cut now, need no key and prove nothing; darkmirror repair uses them,
and what it repairs is verified like everything else. darkmirror carry takes them
along.

  darkmirror protect 000042 --percent 10 --volumes 1 --max-file fat32

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSpace, exitInterrupted),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Percent == 0 && o.Volumes == 0 {
				return usagef("--percent or --volumes is needed")
			}
			if o.Percent < 0 || o.Percent > 100 || o.Volumes < 0 {
				return usagef("--percent %d --volumes %d: want 1 to 100 and 0 or more", o.Percent, o.Volumes)
			}
			o.MaxFile = int64(most)
			return a.protect(cmd.Context(), args[0], o)
		},
	}
	cmd.Flags().IntVar(&o.Percent, "percent", 0, "so much parity for what is there, in `PERCENT`: 1 to 100")
	cmd.Flags().IntVar(&o.Volumes, "volumes", 0, "so many whole volumes, of the largest size, may be missing")
	cmd.Flags().Var(&most, "max-file", "size of the largest file that the medium takes: fat32, 4GiB-1")
	return cmd
}

type protectResult struct {
	Schema string `json:"schema"`
	Dir    string `json:"dir"`
	*recovery.Made
}

func (a *app) protect(ctx context.Context, arg string, o recovery.Options) error {
	c, err := a.folders(arg)
	if err != nil {
		return err
	}
	if len(c.Dirs) != 1 {
		return usagef("%s lies on %d media: protect it in one folder, before it is carried", arg, len(c.Dirs))
	}
	p := startProgress(a.err, a.output, a.quiet)
	o.OnEvent = p.event
	made, err := recovery.Create(ctx, c.Dirs[0], o)
	p.finish()
	if err != nil {
		return err
	}
	return a.result(protectResult{"darkmirror.protect/v1", c.Dirs[0], made}, func() error {
		_, err := fmt.Fprintf(a.out, "protected %s  %s, %s; outlasts %s\n          %s\n",
			seqName(c.Seq), plural(made.Files, "recovery file"), size(made.Bytes), made.Survives, c.Dirs[0])
		return err
	})
}

func newRepair(a *app) *cobra.Command {
	var to string
	var look bool
	cmd := &cobra.Command{
		Use:     "repair MEDIUM... (--to DIR | --check)",
		GroupID: groupBoth,
		Short:   "Bring back what is damaged or missing, with the recovery files",
		Long: `Bring back what is damaged or missing on the media of one bundle, with the
recovery files that lie on them. Media are only read; whole copies of the files
that are damaged or missing go into DIR, which then is a further medium, named before
the others:

  darkmirror repair /media/stick-a /media/stick-b --to /srv/repaired
  darkmirror import --from /srv/repaired --from /media/stick-a --from /media/stick-b

--check only tells what is damaged, and whether it can be brought back.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSpace, exitInterrupted),
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if look == (to != "") {
				return usagef("--to or --check is needed")
			}
			return a.repair(cmd.Context(), args, to)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "folder `DIR` for the whole copies")
	cmd.Flags().BoolVar(&look, "check", false, "write nothing")
	return cmd
}

type repairResult struct {
	Schema string `json:"schema"`
	To     string `json:"to,omitempty"`
	*recovery.State
}

// repair repairs into a folder, or only looks where to is empty.
func (a *app) repair(ctx context.Context, media []string, to string) error {
	var st *recovery.State
	var err error
	if to == "" {
		st, err = recovery.Check(ctx, media...)
	} else {
		st, err = recovery.Repair(ctx, to, media...)
	}
	if st == nil {
		return err
	}
	show := func() error {
		for _, list := range [][]recovery.Damage{st.Damaged, st.Recovery} {
			for _, d := range list {
				what := "repaired"
				switch {
				case !d.Repairable:
					what = "lost"
				case to == "" || err != nil:
					what = "damaged"
				}
				if _, err := fmt.Fprintf(a.out, "%-9s %s\n", what, d); err != nil {
					return err
				}
			}
		}
		line := "whole     " + st.Name + "\n"
		switch {
		case st.Whole:
		case !st.Repairable:
			return nil
		case to == "":
			line = "repairable\n"
		default:
			line = "written   " + to + "\n"
		}
		_, err := io.WriteString(a.out, line)
		return err
	}
	if shown := a.result(repairResult{"darkmirror.repair/v1", to, st}, show); shown != nil {
		return shown
	}
	if err == nil && !st.Repairable {
		// A check tells, and refuses nothing.
		return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: recovery.CodeRecovery, Subject: st.Name, Reason: "more is damaged than there is parity for"}
	}
	return err
}
