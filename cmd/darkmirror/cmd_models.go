package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
)

func newModels(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "models", GroupID: groupManage, Short: "List the models that are published, and tell what can load them"}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the models and datasets that are published",
		Long: `List the models and datasets that are published, with their branches, sizes and
licences. A revision without a branch was asked for by commit, or a branch has
left it and it is kept for those that pinned it.

` + codesLine(exitOK, exitOther, exitUsage, exitIntegrity),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.modelsList() },
	}
	cmd.AddCommand(list, newModelsDoctor(a))
	return cmd
}

type modelsListResult struct {
	Schema    string          `json:"schema"`
	Revisions []modelRevision `json:"revisions"`
}

type modelRevision struct {
	Source  string   `json:"source"`
	Repo    string   `json:"repo"`
	Commit  string   `json:"commit"`
	Refs    []string `json:"refs"`
	Profile string   `json:"profile"`
	Files   int      `json:"files"`
	Bytes   int64    `json:"bytes"`
	Licence string   `json:"licence"`
	Bundle  uint64   `json:"bundle"`
}

// A publishedModels is what one source publishes.
type publishedModels struct {
	source string
	at     models.Published
	set    *models.Set
}

// publishedSets reads what is published of every source of models.
func publishedSets(cfg *config.Config) ([]publishedModels, *store.Store, error) {
	if len(cfg.Models) == 0 {
		return nil, nil, usagef("the configuration has no source of models\nadd models, named as outside")
	}
	st, err := store.Open(storeDir(cfg))
	if err != nil {
		return nil, nil, err
	}
	var list []publishedModels
	for i := range cfg.Models {
		source := "models/" + cfg.Models[i].Name
		at, ok, err := models.ReadPublished(publishDir(cfg, source))
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		set, err := at.Load(st)
		if err != nil {
			return nil, nil, err
		}
		list = append(list, publishedModels{source, at, set})
	}
	return list, st, nil
}

func (a *app) modelsList() error {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	all, _, err := publishedSets(cfg)
	if err != nil {
		return err
	}
	res := modelsListResult{Schema: "darkmirror.models-list/v1", Revisions: []modelRevision{}}
	for _, p := range all {
		for i := range p.set.Revisions {
			r := &p.set.Revisions[i]
			res.Revisions = append(res.Revisions, modelRevision{
				Source: p.source, Repo: r.Repo.String(), Commit: r.Commit, Refs: append([]string{}, r.Refs...), Profile: r.Profile,
				Files: len(r.Files), Bytes: r.Size(), Licence: licence(r), Bundle: p.at.Seq,
			})
		}
	}
	return a.result(res, func() error {
		return table(a.out, func(w io.Writer) {
			fmt.Fprintln(w, "REPOSITORY\tREVISION\tBRANCHES\tFILES\tSIZE\tLICENCE")
			for _, r := range res.Revisions {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", clean(r.Repo), r.Commit[:12], clean(orDash(strings.Join(r.Refs, ","))), r.Files, size(r.Bytes), clean(r.Licence))
			}
		})
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// findModel finds "team/model" or "team/model@revision" among what is
// published.
func findModel(all []publishedModels, arg string) (*models.Revision, error) {
	name, revision := hub.SplitRevision(arg)
	repo, err := hub.ParseRepo(name)
	if err != nil {
		return nil, usagef("%w", err)
	}
	if revision == "" {
		revision = "HEAD"
	}
	known := map[string]bool{}
	for _, p := range all {
		if r, ok := p.set.Find(repo, revision); ok {
			return r, nil
		}
		for i := range p.set.Revisions {
			if r := &p.set.Revisions[i]; r.Repo == repo {
				known[orDash(strings.Join(append(append([]string{}, r.Refs...), r.Commit[:12]), ","))] = true
			}
		}
	}
	if len(known) > 0 {
		var names []string
		for k := range known {
			names = append(names, k)
		}
		return nil, usagef("%s is published, but not as %s: there is %s", name, revision, strings.Join(names, "; "))
	}
	return nil, usagef("%s is not published\ndarkmirror models list", name)
}
