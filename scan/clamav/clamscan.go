package clamav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// reap is how long a program that was ended may hold its output open.
const reap = 5 * time.Second

// program makes the command without an environment and without a shell.
func (s *Scanner) program(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.config.Program, args...) //nolint:gosec // the configured program
	cmd.Env = []string{}
	cmd.WaitDelay = reap
	return cmd
}

func (s *Scanner) programVersion(ctx context.Context) (string, error) {
	out := &capped{limit: maxReply}
	cmd := s.program(ctx, "--version", "--database="+s.config.Database)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", s.config.Program, err, quote(out.b.String()))
	}
	line, _, _ := strings.Cut(out.b.String(), "\n")
	return line, nil
}

// run has clamscan look at its standard input, with the limits that
// docs/scan.md asks of clamd.
func (s *Scanner) run(ctx context.Context, r io.Reader) (v verdict, sent int64, err error) {
	args := []string{
		"--stdout", "--no-summary", "--database=" + s.config.Database,
		"--alert-exceeds-max=yes", "--alert-encrypted=yes", "--max-scansize=4000M", "--max-filesize=2000M",
		"--max-files=200000", "--max-scantime=600000",
	}
	if s.config.Scratch != "" {
		args = append(args, "--tempdir="+s.config.Scratch)
	}
	cmd := s.program(ctx, append(args, "-")...)
	in := &counted{r: r}
	cmd.Stdin = in
	out := &capped{limit: maxReply}
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	if ctx.Err() != nil {
		return verdict{}, 0, context.Cause(ctx)
	}
	code := 0
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case exited:
		code = exit.ExitCode()
	case in.err != nil:
		return verdict{}, 0, in.err
	case err != nil:
		return verdict{}, 0, notReady("%s: %w", s.config.Program, err)
	}
	if v, err = parseOutput(out.b.String(), code); err != nil {
		return verdict{}, 0, fmt.Errorf("%s: %w", s.config.Program, err)
	}
	return v, in.n, nil
}

// parseOutput reads what clamscan says of its standard input and how it
// ended: 0 for clean, 1 for found, 2 for an error. Words about a signature
// may stand before the verdict; a verdict that does not fit the end is none.
func parseOutput(out string, code int) (verdict, error) {
	const stdin = "stdin: "
	said := ""
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), stdin); ok {
			if said != "" {
				return verdict{}, fmt.Errorf("clamscan says %s: more than one verdict", quote(out))
			}
			said = rest
		}
	}
	found, is := strings.CutSuffix(said, " FOUND")
	switch {
	case code == 0 && said == "OK":
		return verdict{}, nil
	case code == 1 && is && isName(found):
		return verdict{found: found}, nil
	case strings.HasSuffix(said, " ERROR"):
		return verdict{}, fmt.Errorf("clamscan could not look at it, it says %s", quote(said))
	case said == "" && code != 0 && code != 1:
		// It did not come as far as the file: it has no signatures, or no room.
		return verdict{}, notReady("clamscan ends with %d and says %s", code, quote(out))
	}
	return verdict{}, fmt.Errorf("clamscan ends with %d and says %s, which is no verdict", code, quote(out))
}

// counted counts what is read, and remembers why reading ended.
type counted struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
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
