package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/darkmirror/darkmirror/mirror/config"
)

// app is what every command shares.
type app struct {
	streams
	configFile string
	output     format
	quiet      bool
	verbose    bool
	noColor    bool

	// aftermath is what an integrity error did not harm; commands set it.
	aftermath string
	// bundle is the sequence that a failed run was about, for JSON.
	bundle string
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, s streams) int {
	out := &resultWriter{w: s.out}
	s.out = out
	a := &app{streams: s, output: formatTable}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	if out.err != nil {
		err = errors.Join(err, fmt.Errorf("write the result: %w", out.err))
	}
	if ctx.Err() != nil && err != nil {
		err = errors.Join(err, context.Canceled)
	}
	class := classify(err)
	if err == nil || class.code == exitChanges.code {
		return class.code
	}
	if a.output.machine() {
		a.reportJSON(err, class)
		return class.code
	}
	printError(s.err, err, a.aftermath)
	return class.code
}

// reportJSON ends a failed run with one line on standard error.
func (a *app) reportJSON(err error, class exitClass) {
	line := struct {
		Schema  string   `json:"schema"`
		Code    int      `json:"code"`
		Class   string   `json:"class"`
		Message string   `json:"message"`
		Errors  []string `json:"errors"`
		Hint    string   `json:"hint,omitempty"`
		Bundle  string   `json:"bundle,omitempty"`
	}{Schema: "darkmirror.exit/v1", Code: class.code, Class: class.name, Message: err.Error(), Bundle: a.bundle, Errors: []string{}}
	for _, e := range leaves(err) {
		line.Errors = append(line.Errors, once(e.Error()))
		if line.Hint == "" {
			line.Hint = hint(e)
		}
	}
	b, merr := json.Marshal(line)
	if merr != nil {
		b = []byte(err.Error())
	}
	fmt.Fprintf(a.err, "%s\n", b)
}

const (
	groupOutside = "outside"
	groupInside  = "inside"
	groupBoth    = "both"
	groupManage  = "manage"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "darkmirror",
		Short: "Carry packages, images and models over an air gap, verified on both sides",
		Long: `Carry packages, images and models over an air gap, verified on both sides.

Outside, darkmirror fetches what the configuration asks for, checks it against
upstream's own proof and seals it into signed bundles. Inside, it verifies the
bundles, publishes them and serves them to pip, uv, apt, containerd, docker,
vLLM, transformers and the like.

It contacts the hosts that the configuration names, and no other.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) },
		Args:              cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.AddGroup(
		&cobra.Group{ID: groupOutside, Title: "Outside:"},
		&cobra.Group{ID: groupInside, Title: "Inside:"},
		&cobra.Group{ID: groupBoth, Title: "Both sides:"},
		&cobra.Group{ID: groupManage, Title: "Manage:"},
	)
	f := root.PersistentFlags()
	f.StringVar(&a.configFile, "config", "", "configuration `FILE` (default darkmirror.yaml here, then /etc/darkmirror/darkmirror.yaml)")
	f.VarP(&a.output, "output", "o", "print results as table, json or jsonl")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "log what is done, step by step")
	f.BoolVar(&a.noColor, "no-color", false, "no colour (also: NO_COLOR in the environment)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\n%s --help shows the flags", err, cmd.CommandPath())
	})
	root.AddCommand(
		newInit(a), newPlan(a), newExport(a), newFetch(a), newScan(a), newSeal(a), newSend(a), newResend(a), newRecut(a), newCarry(a), newEncrypt(a), newMarkLost(a), newApprove(a),
		newReceive(a), newReceipt(a),
		newVerify(a), newImport(a), newServe(a), newClients(a), newHarbor(a), newLock(a), newProtect(a), newRepair(a), newModels(a), newStatus(a), newDoctor(a), newInspect(a), newDiff(a), newReport(a), newLog(a),
		newKey(a), newConfig(a), newVersion(a), newCompletion(a),
	)
	addTopics(root)
	checkArgs(root)
	return root
}

// checkArgs makes wrong arguments usage errors, and an unknown subcommand too.
func checkArgs(cmd *cobra.Command) {
	if inner := cmd.Args; inner != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := inner(cmd, args); err != nil {
				return usagef("%w\n%s --help shows what it takes", err, cmd.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		checkArgs(sub)
	}
}

// fromEnvironment sets every flag that is not on the command line from its
// DARKMIRROR_ name, as --volume-size from DARKMIRROR_VOLUME_SIZE. No flag is
// a secret.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "DARKMIRROR_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok && !f.Changed && f.Name != "help" {
			if err := flags.Set(f.Name, v); err != nil {
				errs = append(errs, usagef("%s in the environment: %w", name, err))
			}
		}
	})
	return errors.Join(errs...)
}

// logger writes to standard error when asked to.
func (a *app) logger() *slog.Logger {
	if !a.verbose {
		return slog.New(slog.DiscardHandler)
	}
	if a.output.machine() {
		return slog.New(slog.NewJSONHandler(a.err, nil))
	}
	return slog.New(slog.NewTextHandler(a.err, nil))
}

// serverLogger tells what went wrong without being asked: an answer of the
// server says that its log has the reason.
func (a *app) serverLogger() *slog.Logger {
	if a.verbose {
		return a.logger()
	}
	o := &slog.HandlerOptions{Level: slog.LevelError}
	if a.output.machine() {
		return slog.New(slog.NewJSONHandler(a.err, o))
	}
	return slog.New(slog.NewTextHandler(a.err, o))
}

// load reads the configuration and checks its role; role "" takes either.
func (a *app) load(role string) (*config.Config, error) {
	name := a.configFile
	if name == "" {
		name = "darkmirror.yaml"
		if _, err := os.Stat(name); err != nil {
			name = "/etc/darkmirror/darkmirror.yaml"
		}
		if _, err := os.Stat(name); err != nil {
			return nil, usagef("no configuration: neither ./darkmirror.yaml nor %s is there\ndarkmirror init writes one; --config names another", name)
		}
	}
	cfg, err := config.Load(name)
	if err != nil {
		if _, ok := errors.AsType[config.Problems](err); ok {
			return nil, err
		}
		return nil, &usageError{err}
	}
	if role != "" && cfg.Role != role {
		return nil, usagef("%s has role: %s; this command works %s\n--config FILE names another configuration", name, cfg.Role, role)
	}
	return cfg, nil
}

// warn prints a warning line.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.err, "warning: %s\n", clean(fmt.Sprintf(format, args...)))
}

// result prints a JSON object for machines and calls text for people.
func (a *app) result(v any, text func() error) error {
	if a.output.machine() {
		return writeJSON(a.out, a.output, v)
	}
	return text()
}
