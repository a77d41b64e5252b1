package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/oci/harbor"
)

func newHarbor(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "harbor", GroupID: groupManage, Short: "Prepare a Harbor for what is published into it"}
	var name string
	robot := &cobra.Command{
		Use:   "robot [SOURCE]",
		Short: "Print the robot account that a source needs, with the least permissions",
		Long: `Print the robot account that a source needs, with the least permissions that
its configuration asks for, as the body of one request. An administrator sends
it once; Harbor shows the account's secret in the answer, and never again:

  darkmirror harbor robot platform >robot.json
  curl -u admin -H 'Content-Type: application/json' -d @robot.json \
      https://harbor.example/api/v2.0/robots

Nothing is contacted. An account that may make its project is one of the whole
Harbor; with project.create: false one of the project is enough.

` + codesLine(exitOK, exitUsage),
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.harborRobot(args, name) },
	}
	robot.Flags().StringVar(&name, "name", "darkmirror", "`NAME` of the account, without robot$")
	cmd.AddCommand(robot)
	return cmd
}

func (a *app) harborRobot(args []string, name string) error {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	var found *config.OCI
	for i := range cfg.OCI {
		c := &cfg.OCI[i]
		if c.Publish.Harbor == "" || len(args) == 1 && args[0] != c.Name && args[0] != "oci/"+c.Name {
			continue
		}
		if found != nil {
			return usagef("several sources have harbor: set; name one of them")
		}
		found = c
	}
	if found == nil {
		return usagef("no such source has harbor: set in the configuration")
	}
	p := found.Publish
	b, err := harbor.RobotBody(harbor.RobotOptions{
		Name: name, Project: p.HarborProject(), Create: p.Project.Creates(),
		Labels: p.Project.Labels, Scan: p.Project.Scan, Immutable: p.Project.Immutable, Allowlist: p.Project.Allowlist,
	})
	if err != nil {
		return usagef("%w", err)
	}
	_, err = fmt.Fprintf(a.out, "%s", b)
	return err
}
