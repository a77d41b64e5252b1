package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/config"
)

func newKey(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", GroupID: groupManage, Short: "Signing keys and trusted keys",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var name, out string
	generate := &cobra.Command{
		Use:   "generate [--name NAME] [--out FILE]",
		Short: "Make the exporter's signing key, and the public key beside it",
		Long: `Make the exporter's signing key (Ed25519), and the public key beside it with
the ending .pub. An existing file is never overwritten. Carry the public key
inside by hand, compare the fingerprint over another channel, and trust it
there with darkmirror key trust.

` + codesLine(exitOK, exitUsage),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.keyGenerate(name, out) },
	}
	generate.Flags().StringVar(&name, "name", "", "what people call the key (default exporter-HOSTNAME)")
	generate.Flags().StringVar(&out, "out", "", "write the private key to `FILE` (default signing_key of the configuration)")
	show := &cobra.Command{
		Use:   "show [FILE]...",
		Short: "Show names and fingerprints of keys",
		Long:  "Show names and fingerprints of keys: of the files, or of the configured\nsigning key outside and the trusted keys inside.\n\n" + codesLine(exitOK, exitUsage),
		RunE:  func(_ *cobra.Command, args []string) error { return a.keyShow(args) },
	}
	trustCmd := &cobra.Command{
		Use:   "trust FILE",
		Short: "Trust an exporter's public key from now on",
		Long:  "Trust an exporter's public key from now on. The key is copied into the state\nfolder; removing that file ends the trust.\n\n" + codesLine(exitOK, exitUsage),
		Args:  cobra.ExactArgs(1),
		RunE:  func(_ *cobra.Command, args []string) error { return a.keyTrust(args[0]) },
	}
	cmd.AddCommand(generate, show, trustCmd, newKeyRoot(a))
	return cmd
}

type keyResult struct {
	Schema      string `json:"schema"`
	Name        string `json:"name"`
	ID          string `json:"id"`
	Fingerprint string `json:"fingerprint"`
	File        string `json:"file"`
	Private     bool   `json:"private"`
}

func (a *app) printKey(k keyResult) error {
	k.Schema = "darkmirror.key/v1"
	return a.result(k, func() error {
		kind := "public "
		if k.Private {
			kind = "private"
		}
		_, err := fmt.Fprintf(a.out, "%s  %s  %s  %s\n  sha256:%s\n", kind, clean(k.Name), k.Fingerprint, k.File, k.ID)
		return err
	})
}

func (a *app) keyGenerate(name, out string) error {
	if out == "" {
		cfg, err := a.load(config.Outside)
		if err != nil {
			return err
		}
		if out = cfg.SigningKey; out == "" {
			return usagef("signing_key is not set in the configuration; name a file with --out")
		}
	}
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		name = "exporter-" + host
	}
	for _, f := range []string{out, out + ".pub"} {
		if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
			return usagef("%s exists; a key is never overwritten\n--out FILE names another", f)
		}
	}
	private, public, err := bundle.GenerateKey(name)
	if err != nil {
		return &usageError{err}
	}
	_, key, err := bundle.ParsePrivateKey(private)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(out, private, 0o600); err != nil {
		return err
	}
	if err := durable.WriteFile(out+".pub", public, 0o644); err != nil {
		return err
	}
	if err := a.printKey(keyResult{Name: name, ID: bundle.KeyID(key.Public()), Fingerprint: bundle.Fingerprint(key.Public()), File: out, Private: true}); err != nil {
		return err
	}
	if !a.output.machine() {
		fmt.Fprintf(a.out, "public key for the inside: %s.pub\n", out)
	}
	return nil
}

func (a *app) keyShow(files []string) error {
	if len(files) == 0 {
		cfg, err := a.load("")
		if err != nil {
			return err
		}
		if cfg.Role == config.Outside {
			files = []string{cfg.SigningKey}
		} else {
			stored, err := filepath.Glob(filepath.Join(trustedDir(cfg), "*.pub"))
			if err != nil {
				return err
			}
			files = append(append(files, cfg.Trust...), stored...)
		}
		if len(files) == 0 {
			return usagef("no key is trusted yet\ndarkmirror key trust FILE adds one")
		}
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return &usageError{err}
		}
		if name, key, err := bundle.ParsePrivateKey(b); err == nil {
			if err := a.printKey(keyResult{Name: name, ID: bundle.KeyID(key.Public()), Fingerprint: bundle.Fingerprint(key.Public()), File: f, Private: true}); err != nil {
				return err
			}
			continue
		}
		name, pub, err := bundle.ParsePublicKey(b)
		if err != nil {
			return usagef("%s: %w", f, err)
		}
		if err := a.printKey(keyResult{Name: name, ID: bundle.KeyID(pub), Fingerprint: bundle.Fingerprint(pub), File: f}); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) keyTrust(file string) error {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return &usageError{err}
	}
	name, pub, err := bundle.ParsePublicKey(b)
	if err != nil {
		return usagef("%s: %w", file, err)
	}
	if err := os.MkdirAll(trustedDir(cfg), 0o750); err != nil {
		return err
	}
	id := bundle.KeyID(pub)
	to := filepath.Join(trustedDir(cfg), id[:16]+".pub")
	if err := durable.WriteFile(to, b, 0o644); err != nil {
		return err
	}
	return a.printKey(keyResult{Name: name, ID: id, Fingerprint: bundle.Fingerprint(pub), File: to})
}

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", GroupID: groupManage, Short: "Check, show and describe the configuration",
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "check", Short: "Report every problem of the configuration at once, with its place",
			Long: "Report every problem of the configuration at once, with its place.\n\n" + codesLine(exitOK, exitUsage),
			Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				cfg, err := a.load("")
				if err != nil {
					return err
				}
				n := len(cfg.PyPI) + len(cfg.Apt) + len(cfg.OCI) + len(cfg.Models) + len(cfg.Files)
				return a.result(map[string]any{"schema": "darkmirror.config-check/v1", "role": cfg.Role, "sources": n}, func() error {
					_, err := fmt.Fprintf(a.out, "ok: role %s, %s\n", cfg.Role, plural(n, "source"))
					return err
				})
			},
		},
		&cobra.Command{
			Use: "show", Short: "Print the effective values and where each comes from",
			Long: "Print the effective values and where each comes from. No host comes from a\ndefault.\n\n" + codesLine(exitOK, exitUsage),
			Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				cfg, err := a.load("")
				if err != nil {
					return err
				}
				settings := config.Show(cfg)
				return a.result(map[string]any{"schema": "darkmirror.config/v1", "settings": settings}, func() error {
					for _, s := range settings {
						if _, err := fmt.Fprintf(a.out, "%s: %s  # %s\n", s.Key, clean(s.Value), s.Origin); err != nil {
							return err
						}
					}
					return nil
				})
			},
		},
		&cobra.Command{
			Use: "schema", Short: "Print the JSON Schema, for editors",
			Long: "Print the JSON Schema of the configuration, for editors.\n\n" + codesLine(exitOK),
			Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				_, err := a.out.Write(config.Schema())
				return err
			},
		},
	)
	return cmd
}

// version is the module's version as the Go toolchain recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "devel"
	}
	return strings.Trim(info.Main.Version, "()")
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", GroupID: groupManage, Short: "Print the version, and the formats that are understood",
		Long: "Print the version, and the formats that are understood.\n\n" + codesLine(exitOK),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Schema  string `json:"schema"`
				Version string `json:"version"`
				Go      string `json:"go"`
				Target  string `json:"target"`
				Bundle  string `json:"bundle"`
			}{"darkmirror.version/v1", version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, bundle.Schema}
			return a.result(v, func() error {
				_, err := fmt.Fprintf(a.out, "darkmirror %s (%s, %s), reads and writes %s\n", v.Version, v.Go, v.Target, v.Bundle)
				return err
			})
		},
	}
}

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "completion {bash | zsh | fish}", GroupID: groupManage, Short: "Print the completion script of a shell",
		Long:      "Print the completion script of a shell: source <(darkmirror completion bash)\n\n" + codesLine(exitOK, exitUsage),
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.out)
			default:
				return cmd.Root().GenFishCompletion(a.out, true)
			}
		},
	}
}
