package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/engine"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/models/repo"
)

func newModelsDoctor(a *app) *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "doctor [--engine NAME] MODEL",
		Short: "Tell which engine can load a published model, and why another cannot",
		Long: `Tell which engine can load a published model, and why another cannot.

MODEL is ORGANISATION/NAME, with @REVISION for another than the main branch. Its
configuration, its index and the headers of its weights are read; nothing of
it is run. What the profile outside has left behind, and repositories that it
needs and that are not published, are named.

With --engine the exit code tells: 0 it loads, 1 it does not or is not known.

` + codesLine(exitOK, exitOther, exitUsage, exitIntegrity),
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.modelsDoctor(args[0], only) },
	}
	cmd.Flags().StringVar(&only, "engine", "", "judge for this engine alone, as vllm")
	return cmd
}

type modelsDoctorResult struct {
	Schema   string           `json:"schema"`
	Repo     string           `json:"repo"`
	Commit   string           `json:"commit"`
	Refs     []string         `json:"refs"`
	Engines  []engine.Verdict `json:"engines"`
	Left     []repo.Left      `json:"left"`
	Needs    []models.Need    `json:"needs"`
	Warnings []string         `json:"warnings"`
}

func (a *app) modelsDoctor(arg, only string) error {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	all, st, err := publishedSets(cfg)
	if err != nil {
		return err
	}
	r, err := findModel(all, arg)
	if err != nil {
		return err
	}
	verdicts := engine.Judge(repository(r, st))
	if only != "" {
		names := []string{}
		for _, v := range verdicts {
			names = append(names, v.Engine)
		}
		verdicts = slices.DeleteFunc(verdicts, func(v engine.Verdict) bool { return v.Engine != only })
		if len(verdicts) == 0 {
			return usagef("no engine %q: want one of %s", only, strings.Join(names, ", "))
		}
	}
	res := modelsDoctorResult{
		Schema: "darkmirror.models-doctor/v1", Repo: r.Repo.String(), Commit: r.Commit, Refs: append([]string{}, r.Refs...),
		Engines: verdicts, Left: append([]repo.Left{}, r.Left...), Needs: append([]models.Need{}, r.Needs...), Warnings: modelWarnings(r, all),
	}
	if err := a.result(res, func() error { return printDoctor(a.out, &res) }); err != nil {
		return err
	}
	if only != "" && verdicts[0].State != engine.Loads {
		return fmt.Errorf("%s: %s %s", r.Repo, only, verdicts[0].State)
	}
	return nil
}

// repository is a revision as the judge reads it.
func repository(r *models.Revision, st *store.Store) engine.Repository {
	files := make([]repo.File, len(r.Files))
	for i, f := range r.Files {
		files[i] = repo.File{Path: f.Path, Size: f.Size, ID: f.ETag()}
	}
	find := func(path string) (*models.File, error) {
		f, ok := r.File(path)
		if !ok {
			return nil, fmt.Errorf("%s is not there", path)
		}
		return f, nil
	}
	return engine.Repository{
		Name: r.Repo.String(), Files: files,
		Read: func(path string, limit int64) ([]byte, error) {
			f, err := find(path)
			if err != nil {
				return nil, err
			}
			return st.ReadAll(f.Blob, limit)
		},
		Open: func(path string) (io.ReaderAt, int64, func() error, error) {
			f, err := find(path)
			if err != nil {
				return nil, 0, nil, err
			}
			b, err := st.File(f.Blob)
			if err != nil {
				return nil, 0, nil, err
			}
			return b, f.Size, b.Close, nil
		},
	}
}

// modelWarnings names what is missing besides the repository's own files, and
// files that clients cannot download.
func modelWarnings(r *models.Revision, all []publishedModels) []string {
	list := []string{}
	for _, n := range r.Needs {
		name, err := hub.ParseRepo(n.Repo)
		if err != nil || !n.Needed {
			continue
		}
		here := slices.ContainsFunc(all, func(p publishedModels) bool {
			return slices.ContainsFunc(p.set.Revisions, func(o models.Revision) bool { return o.Repo == name })
		})
		if !here {
			list = append(list, fmt.Sprintf("loading asks for %s (%s), which is not published here", n.Repo, n.Where))
		}
	}
	for _, f := range r.Files {
		if f.Size > hub.HTTPLimit {
			list = append(list, fmt.Sprintf("%s has over 50 GB: no client downloads it from a hub; use a folder, a cache folder, an object store or a registry", f.Path))
		}
	}
	return list
}

func printDoctor(w io.Writer, res *modelsDoctorResult) error {
	fmt.Fprintf(w, "%s at %s %s\n\n", clean(res.Repo), res.Commit[:12], clean(strings.Join(res.Refs, ", ")))
	for _, v := range res.Engines {
		fmt.Fprintf(w, "%-22s %s\n", clean(v.Engine), v.State)
		for _, s := range v.Why {
			fmt.Fprintf(w, "%22s   %s\n", "", clean(s))
		}
		for _, s := range v.Needs {
			fmt.Fprintf(w, "%22s   needs %s\n", "", clean(s))
		}
		if v.How != "" {
			fmt.Fprintf(w, "%22s   $ %s\n", "", clean(v.How))
		}
	}
	if len(res.Left) > 0 {
		var bytes int64
		for _, l := range res.Left {
			bytes += l.Size
		}
		fmt.Fprintf(w, "\nleft outside by the profile: %s, %s; darkmirror inspect --all names them\n", plural(len(res.Left), "file"), size(bytes))
	}
	for _, s := range res.Warnings {
		fmt.Fprintf(w, "warn  %s\n", clean(s))
	}
	return nil
}
