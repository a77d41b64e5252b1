package clamav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// program makes the command without an environment and without a shell.
func (s *Scanner) program(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.config.Program, args...) //nolint:gosec // the configured program
	cmd.Env = []string{}
	return cmd
}

func (s *Scanner) programVersion(ctx context.Context) (string, error) {
	out, err := s.program(ctx, "--version", "--database="+s.config.Database).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", s.config.Program, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}

// run has clamscan look at its standard input, with the limits that
// docs/scan.md asks of clamd. It ends with 0 for clean, 1 for found and 2 for
// an error.
func (s *Scanner) run(ctx context.Context, r io.Reader) (verdict, error) {
	cmd := s.program(ctx, "--stdout", "--no-summary", "--database="+s.config.Database,
		"--alert-exceeds-max=yes", "--alert-encrypted=yes", "--max-scansize=4000M", "--max-filesize=2000M",
		"--max-files=200000", "--max-scantime=600000", "-")
	cmd.Stdin = r
	out := &capped{limit: maxReply}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if ctx.Err() != nil {
		return verdict{}, context.Cause(ctx)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out.b.String()), "\n")
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		rest, ok := strings.CutPrefix(line, "stdin: ")
		found, is := strings.CutSuffix(rest, " FOUND")
		if !ok || !is || found == "" {
			return verdict{}, fmt.Errorf("clamscan says %s, which is no verdict", quote(line))
		}
		return verdict{found: found}, nil
	}
	if err != nil {
		return verdict{}, notReady("%s: %w: %s", s.config.Program, err, quote(out.b.String()))
	}
	if line != "stdin: OK" {
		return verdict{}, fmt.Errorf("clamscan says %s, which is no verdict", quote(line))
	}
	return verdict{}, nil
}

// capped keeps the start of what is written.
type capped struct {
	b     strings.Builder
	limit int
}

func (c *capped) Write(p []byte) (int, error) {
	c.b.Write(p[:min(len(p), max(0, c.limit-c.b.Len()))])
	return len(p), nil
}
