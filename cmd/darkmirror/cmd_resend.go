package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/bundle/crypt"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/config"
)

func newResend(a *app) *cobra.Command {
	var noSend bool
	cmd := &cobra.Command{
		Use:     "resend BUNDLE [--no-send]",
		GroupID: groupOutside,
		Short:   "Make a bundle again from the store, byte for byte, and send it",
		Long: `Make a bundle again from the store, byte for byte, where its folder is gone, and
send it over the link if one is configured. No key is needed: what comes out is
what was signed, or it is refused.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitUnreachable, exitLocked, exitSpace, exitInterrupted),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.resend(cmd.Context(), args[0], noSend) },
	}
	cmd.Flags().BoolVar(&noSend, "no-send", false, "only make it again, in the outbox")
	return cmd
}

// keptDir holds the documents of sealed bundles: what they were signed as.
func keptDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "sealed") }

func keptFile(cfg *config.Config, seq uint64) string {
	return filepath.Join(keptDir(cfg), cfg.Stream+"-"+seqName(seq)+".json")
}

// keepDocuments keeps what resend needs of a bundle. The outbox may be emptied
// then.
func keepDocuments(cfg *config.Config, seq uint64, dir string) error {
	d, err := bundle.ReadDocuments(dir)
	if err != nil {
		return err
	}
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(keptDir(cfg), 0o750); err != nil {
		return err
	}
	return durable.WriteFile(keptFile(cfg, seq), data, 0o640)
}

func (a *app) resend(ctx context.Context, arg string, noSend bool) (err error) {
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	seq, err := parseSeq(arg)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(keptFile(cfg, seq))
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("nothing is kept of bundle %s of stream %s\ndarkmirror mark-lost %s makes the next export carry it again", seqName(seq), cfg.Stream, seqName(seq))
	}
	if err != nil {
		return err
	}
	var d bundle.Documents
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("%s: %w", keptFile(cfg, seq), err)
	}
	out, err := a.restore(ctx, cfg, d)
	if err != nil {
		return err
	}
	if !a.output.machine() {
		if _, err := fmt.Fprintf(a.out, "made    %s again: %s, %s\n        %s\n", seqName(seq), plural(len(out.Volumes), "volume"), size(out.Bytes), out.Dir); err != nil {
			return err
		}
	}
	if noSend || cfg.Send.To == "" {
		if a.output.machine() {
			return writeJSON(a.out, a.output, map[string]any{"schema": "darkmirror.resend/v1", "seq": seqName(seq), "id": out.ID, "dir": out.Dir})
		}
		return nil
	}
	return a.send(ctx, []string{seqName(seq)}, &sendOptions{})
}

// restore holds the run lock for as long as the outbox is written to.
func (a *app) restore(ctx context.Context, cfg *config.Config, d bundle.Documents) (_ *bundle.Sealed, err error) {
	st, led, err := openState(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, led.Close()) }()
	p := startProgress(a.err, a.output, a.quiet)
	defer p.finish()
	return bundle.Restore(ctx, cfg.Outbox, d, st.Open, p.event)
}

func newEncrypt(a *app) *cobra.Command {
	var to, recipients string
	cmd := &cobra.Command{
		Use:     "encrypt BUNDLE --recipients FILE --to DIR",
		GroupID: groupOutside,
		Short:   "Encrypt a bundle to age recipients, for a path that may be read",
		Long: `Encrypt a bundle to age recipients, classical or post-quantum, and sign the list
of its files, so that what is carried can be checked without any identity. The
inside names its identities in the configuration. Cut a bundle for its medium
before it is encrypted.

` + codesLine(exitOK, exitUsage, exitIntegrity, exitSpace, exitInterrupted),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" || recipients == "" {
				return usagef("--recipients and --to are needed")
			}
			return a.encrypt(cmd.Context(), args[0], recipients, to)
		},
	}
	cmd.Flags().StringVar(&recipients, "recipients", "", "age recipients `FILE`")
	cmd.Flags().StringVar(&to, "to", "", "folder `DIR` in which the encrypted bundle appears")
	return cmd
}

func (a *app) encrypt(ctx context.Context, arg, recipients, to string) error {
	cfg, err := a.load(config.Outside)
	if err != nil {
		return err
	}
	key, err := signer(cfg)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(recipients)
	if err != nil {
		return &usageError{err}
	}
	list, err := crypt.ParseRecipients(raw)
	if err != nil {
		return usagef("%s: %w", recipients, err)
	}
	enc, err := crypt.NewEncrypter(list)
	if err != nil {
		return &usageError{err}
	}
	c, err := a.folders(arg)
	if err != nil {
		return err
	}
	p := startProgress(a.err, a.output, a.quiet)
	out, err := bundle.Encrypt(ctx, c.Dirs, to, enc, key, p.event)
	p.finish()
	if err != nil {
		return err
	}
	res := map[string]any{"schema": "darkmirror.encrypted/v1", "id": out.ID, "dir": out.Dir, "recipients": enc.Recipients(), "bytes": out.Bytes}
	return a.result(res, func() error {
		_, err := fmt.Fprintf(a.out, "encrypted  %s to %s, %s\n           %s\n", seqName(c.Seq), plural(len(enc.Recipients()), "recipient"), size(out.Bytes), out.Dir)
		return err
	})
}
