package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/carry"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/config"
)

// A volumeSize is the flag: a size, or the name of a medium.
type volumeSize int64

func (v *volumeSize) String() string {
	if *v == 0 {
		return ""
	}
	return config.Size(*v).String()
}

func (v *volumeSize) Set(s string) error {
	n, err := carry.ParseVolumeSize(s)
	*v = volumeSize(n)
	return err
}

func (v *volumeSize) Type() string { return "SIZE" }

func newRecut(a *app) *cobra.Command {
	var cut volumeSize
	var to string
	cmd := &cobra.Command{
		Use:     "recut BUNDLE --volume-size SIZE --to DIR",
		GroupID: groupBoth,
		Short:   "Cut a bundle anew for another medium; needs no key",
		Long: `Cut a bundle anew for another medium: into volumes of at most SIZE, which is
fat32, dvd, dvd-dl, bd25, bd50, lto, or a size as 700MiB or 4GiB-1. Id and
signatures stay as they are, and no key is needed.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSpace, exitInterrupted),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cut == 0 || to == "" {
				return usagef("--volume-size and --to are needed")
			}
			return a.recut(cmd.Context(), args[0], int64(cut), to)
		},
	}
	cmd.Flags().Var(&cut, "volume-size", "hard cap of a volume file: fat32, dvd, bd25, lto, 700MiB, 4GiB-1")
	cmd.Flags().StringVar(&to, "to", "", "folder `DIR` in which the new bundle folder appears")
	return cmd
}

type recutResult struct {
	Schema     string          `json:"schema"`
	ID         artifact.Digest `json:"id"`
	Dir        string          `json:"dir"`
	VolumeSize int64           `json:"volume_size"`
	Volumes    int             `json:"volumes"`
	Before     int             `json:"volumes_before"`
	Bytes      int64           `json:"bytes"`
}

// folders finds the media of a bundle by its number or folder.
func (a *app) folders(arg string) (bundle.Candidate, error) {
	var boxes []string
	if cfg, err := a.load(""); err == nil {
		boxes = append(boxes, cfg.Inbox...)
		if cfg.Outbox != "" {
			boxes = append(boxes, cfg.Outbox)
		}
	}
	found, err := candidates([]string{arg}, boxes)
	if err != nil {
		return bundle.Candidate{}, err
	}
	return found[0], nil
}

func (a *app) recut(ctx context.Context, arg string, cut int64, to string) (err error) {
	c, err := a.folders(arg)
	if err != nil {
		return err
	}
	before, err := cutOf(c.Dirs)
	if err != nil {
		return err
	}
	p := startProgress(a.err, a.output, a.quiet)
	out, err := bundle.Recut(ctx, c.Dirs, to, bundle.SealOptions{VolumeSize: cut, OnEvent: p.event})
	p.finish()
	if err != nil {
		return err
	}
	res := recutResult{Schema: "darkmirror.recut/v1", ID: out.ID, Dir: out.Dir, VolumeSize: cut, Volumes: len(out.Volumes), Before: len(before.Volumes)}
	for _, v := range out.Volumes {
		res.Bytes += v.Size
	}
	return a.result(res, func() error {
		_, err := fmt.Fprintf(a.out, "cut  %s from %s into %d of at most %s, %s; id and signatures unchanged\n     %s\n",
			seqName(c.Seq), plural(res.Before, "volume"), res.Volumes, size(cut), size(res.Bytes), out.Dir)
		return err
	})
}

func cutOf(dirs []string) (_ *bundle.Cut, err error) {
	r, err := bundle.Open(dirs...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if _, err := r.Unverified(); err != nil {
		return nil, err
	}
	return r.Cut()
}

func newCarry(a *app) *cobra.Command {
	o := carry.Options{}
	cmd := &cobra.Command{
		Use:     "carry BUNDLE --to DIR... [--volume N]... [--no-verify]",
		GroupID: groupBoth,
		Short:   "Write a bundle onto sticks or discs, and read back what was written",
		Long: `Write a bundle onto media that a person carries, and read back from the medium
what was written. The first medium that has room takes the next volume. Run it
again after a kill, with other media, or with those that were missing: what is
there and right is not written twice. Every medium gets a label to print.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSpace, exitInterrupted),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(o.Media) == 0 {
				return usagef("--to is needed: the mount point of a medium")
			}
			return a.carry(cmd.Context(), args[0], o)
		},
	}
	cmd.Flags().StringArrayVar(&o.Media, "to", nil, "mount point `DIR` of a medium; may be repeated")
	cmd.Flags().IntSliceVar(&o.Only, "volume", nil, "only volume `N`; may be repeated")
	cmd.Flags().BoolVar(&o.NoVerify, "no-verify", false, "do not read back what was written; the inside finds the same damage, a journey later")
	return cmd
}

type carriedResult struct {
	Schema string          `json:"schema"`
	ID     artifact.Digest `json:"id"`
	Folder string          `json:"folder"`
	Media  []carriedMedium `json:"media"`
}

type carriedMedium struct {
	Dir      string   `json:"dir"`
	Volumes  []int    `json:"volumes"`
	Written  []int    `json:"written"`
	Recovery []string `json:"recovery"`
	Bytes    int64    `json:"bytes"`
	Error    string   `json:"error"`
}

func (a *app) carry(ctx context.Context, arg string, o carry.Options) error {
	c, err := a.folders(arg)
	if err != nil {
		return err
	}
	return a.carryDir(ctx, c.Dirs[0], o)
}

func (a *app) carryDir(ctx context.Context, dir string, o carry.Options) error {
	p := startProgress(a.err, a.output, a.quiet)
	o.OnEvent = p.event
	rep, failed := carry.Copy(ctx, dir, o)
	p.finish()
	if rep == nil {
		return failed
	}
	res := carriedResult{Schema: "darkmirror.carried/v1", ID: rep.ID, Folder: rep.Folder, Media: []carriedMedium{}}
	for _, m := range rep.Media {
		one := carriedMedium{Dir: m.Dir, Volumes: append([]int{}, m.Volumes...), Written: append([]int{}, m.Written...), Recovery: append([]string{}, m.Recovery...), Bytes: m.Bytes}
		if m.Err != nil {
			one.Error = m.Err.Error()
		}
		res.Media = append(res.Media, one)
	}
	err := a.result(res, func() error {
		for _, m := range res.Media {
			state := "written and read back"
			switch {
			case m.Error != "":
				state = m.Error
			case len(m.Volumes) == 0:
				state = "not needed"
			case o.NoVerify:
				state = "written, not read back"
			}
			if _, err := fmt.Fprintf(a.out, "%s  %s  %s  %s\n", clean(m.Dir), volumesText(m.Volumes), size(m.Bytes), clean(state)); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(failed, err)
}

// volumesText writes volume numbers for people: 1-3, 5.
func volumesText(list []int) string {
	if len(list) == 0 {
		return "no volumes"
	}
	var parts []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(list[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	word := "volumes "
	if len(list) == 1 {
		word = "volume "
	}
	return word + strings.Join(parts, ", ")
}
