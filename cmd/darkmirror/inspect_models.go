package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
)

// readModels reads what a bundle's snapshots of models say beside their files.
func (b *opened) readModels(ctx context.Context, st *store.Store) error {
	b.models = make([]*models.Set, len(b.snaps))
	for i, s := range b.snaps {
		if s == nil || !strings.HasPrefix(s.Source, "models/") {
			continue
		}
		f, ok := models.RecordOf(s)
		if !ok {
			continue
		}
		data, ok, err := mirror.ReadMeta(ctx, b.r, b.m, st, f, artifact.MaxSnapshot)
		if err != nil {
			return err
		}
		if !ok {
			continue // an earlier bundle brought it, which is not here
		}
		if b.models[i], err = models.DecodeSet(s, data); err != nil {
			return err
		}
	}
	return nil
}

// printModels prints what is known of revisions: their names, licence and
// needs, and each file that a profile has left behind.
func printModels(w io.Writer, set *models.Set) error {
	if set == nil {
		return nil
	}
	for i := range set.Revisions {
		r := &set.Revisions[i]
		fmt.Fprintf(w, "\n  %s@%s %s\n", clean(r.Repo.String()), r.Commit, clean(strings.Join(r.Refs, ", ")))
		fmt.Fprintf(w, "    profile  %s, from %s\n", clean(r.Profile), clean(r.Origin))
		fmt.Fprintf(w, "    licence  %s\n", clean(licence(r)))
		for _, n := range r.Needs {
			verb := "names"
			if n.Needed {
				verb = "needs"
			}
			state := "carried by no source here"
			if n.Carried {
				state = "carried"
			}
			fmt.Fprintf(w, "    %s    %s (%s), %s\n", verb, clean(n.Repo), clean(n.Where), state)
		}
		if err := table(w, func(w io.Writer) {
			for _, l := range r.Left {
				fmt.Fprintf(w, "    left     %s\t%s\t%s\n", clean(l.Path), size(l.Size), clean(l.Why))
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// licence is the evidence in one line.
func licence(r *models.Revision) string {
	l := r.Licence
	parts := []string{}
	for _, s := range []string{l.ID, l.Name, l.Link} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if len(l.Files) > 0 {
		parts = append(parts, "see "+strings.Join(l.Files, ", "))
	}
	if r.Gated != "" {
		parts = append(parts, "terms were accepted at the hub ("+r.Gated+")")
	}
	if len(parts) == 0 {
		return "none found"
	}
	return strings.Join(parts, "; ")
}
