package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror"
	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/pypi"
)

// uvTimeout bounds one question to uv.
const uvTimeout = 10 * time.Minute

// crosscheck asks an installed uv what it would choose, and prints where its
// answers differ. They change nothing: several solutions may be right.
func (a *app) crosscheck(ctx context.Context, cfg *config.Config, sources []mirror.Source) error {
	uv, err := exec.LookPath("uv")
	if err != nil {
		return usagef("--crosscheck uv: uv is not installed on this host")
	}
	out := a.out
	if a.output.machine() {
		out = a.err // the other one holds a document
	}
	for _, s := range sources {
		py, ok := s.(*pypi.Source)
		if !ok {
			continue
		}
		i := slices.IndexFunc(cfg.PyPI, func(c config.PyPI) bool { return "pypi/"+c.Name == py.Name() })
		c := &cfg.PyPI[i]
		answers, err := py.Answers(ctx)
		if err != nil {
			return err
		}
		for k := range answers {
			an := &answers[k]
			line := fmt.Sprintf("%s: %s: %s: ", py.Name(), an.Where, an.Target)
			theirs, err := askUV(ctx, uv, c, an)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(out, line+theirs.beside(an)+"\n"); err != nil {
				return err
			}
		}
	}
	return nil
}

// A uvAnswer is what uv says of one question.
type uvAnswer struct {
	versions map[string]string // nil: it has no solution
	not      string            // why there is no answer: it was not asked, or it failed
}

// beside tells in words how two answers differ.
func (u *uvAnswer) beside(an *pypi.Answer) string {
	switch {
	case u.not != "" && an.Err != nil:
		return "we have no solution; not compared: " + u.not
	case u.not != "":
		return "not compared: " + u.not
	case u.versions == nil && an.Err != nil:
		return "uv has no solution either"
	case u.versions == nil:
		return fmt.Sprintf("uv has no solution, and we have one of %d packages", len(an.Versions))
	case an.Err != nil:
		return fmt.Sprintf("uv has a solution of %d packages, and we have none", len(u.versions))
	}
	var differ []string
	for _, name := range slices.Sorted(maps.Keys(an.Versions)) {
		if theirs := u.versions[name]; theirs != an.Versions[name] {
			differ = append(differ, fmt.Sprintf("%s %s, uv %s", name, an.Versions[name], cmp.Or(theirs, "none")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.versions)) {
		if an.Versions[name] == "" {
			differ = append(differ, fmt.Sprintf("%s none, uv %s", name, u.versions[name]))
		}
	}
	if len(differ) == 0 {
		return fmt.Sprintf("the same %d packages as uv", len(an.Versions))
	}
	return fmt.Sprintf("%d of %d packages differ from uv's: %s", len(differ), len(an.Versions), strings.Join(differ, "; "))
}

var uvLinux = regexp.MustCompile(`^manylinux_(2_[0-9]+)_(x86_64|aarch64)$`)

// uvPlatform is uv's name of a target's platform; empty if it has none.
func uvPlatform(target string) (platform, mac string) {
	tag, rest, _ := strings.Cut(target, "-")
	if !strings.HasPrefix(tag, "cp3") || strings.HasSuffix(tag, "t") {
		return "", "" // an interpreter that is described, or free-threaded
	}
	rest, _, _ = strings.Cut(rest, "@")
	if m := uvLinux.FindStringSubmatch(rest); m != nil {
		return m[2] + "-manylinux_" + m[1], ""
	}
	switch {
	case rest == "win_amd64":
		return "x86_64-pc-windows-msvc", ""
	case rest == "win_arm64":
		return "aarch64-pc-windows-msvc", ""
	case rest == "win32":
		return "i686-pc-windows-msvc", ""
	case strings.HasPrefix(rest, "macosx_"):
		parts := strings.SplitN(rest, "_", 4)
		if len(parts) == 4 {
			return map[string]string{"arm64": "aarch64", "x86_64": "x86_64"}[parts[3]] + "-apple-darwin", parts[1] + "." + parts[2]
		}
	}
	return "", ""
}

// askUV runs uv pip compile. It builds nothing (--only-binary :all:), reads
// no settings of this host and gets the account in its environment.
func askUV(ctx context.Context, uv string, c *config.PyPI, an *pypi.Answer) (_ *uvAnswer, err error) {
	platform, mac := uvPlatform(an.Target)
	switch {
	case platform == "":
		return &uvAnswer{not: "uv has no such target"}, nil
	case len(c.Pinned) > 0:
		return &uvAnswer{not: "uv pip compile cannot pin projects to an index"}, nil
	}
	dir, err := os.MkdirTemp("", "darkmirror-uv-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := []string{
		"pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate", "--only-binary", ":all:",
		"--no-python-downloads", "--cache-dir", filepath.Join(dir, "cache"), "--python-platform", platform, "--python-version", an.Python,
	}
	if !an.Before.IsZero() {
		args = append(args, "--exclude-newer", an.Before.UTC().Format(time.RFC3339))
	}
	for _, p := range []struct {
		name, flag string
		lines      []string
	}{{"constraints.txt", "--constraint", an.Constraints}, {"requirements.txt", "", an.Requirements}} {
		name := filepath.Join(dir, p.name)
		if err := os.WriteFile(name, []byte(strings.Join(p.lines, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
		if p.flag != "" {
			args = append(args, p.flag)
		}
		args = append(args, name)
	}
	env, err := uvEnvironment(c)
	if err != nil {
		return nil, err
	}
	if mac != "" {
		env = append(env, "MACOSX_DEPLOYMENT_TARGET="+mac)
	}
	limited, cancel := context.WithTimeout(ctx, uvTimeout)
	defer cancel()
	cmd := exec.CommandContext(limited, uv, args...) //nolint:gosec // the operator asked for this program
	var out, problems bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = env, dir, &out, &problems
	if err := cmd.Run(); err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case limited.Err() != nil:
			return &uvAnswer{not: fmt.Sprintf("uv gave no answer within %s", uvTimeout)}, nil
		case noSolution(err, problems.String()):
			return &uvAnswer{}, nil
		}
		line, _, _ := strings.Cut(strings.TrimSpace(problems.String()), "\n")
		return &uvAnswer{not: strings.TrimSuffix(fmt.Sprintf("uv failed (%s): %s", err, line), ": ")}, nil
	}
	u := &uvAnswer{versions: make(map[string]string)}
	for line := range strings.Lines(out.String()) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " ")
		if name, version, ok := strings.Cut(line, "=="); ok {
			name, _, _ = strings.Cut(name, "[")
			u.versions[name] = version
		}
	}
	return u, nil
}

// noSolution tells that the requirements cannot be met from uv's failures: a
// network that is down, a file that cannot be parsed, a crash. It has the status
// 1 for the first, and 2 for most of the others; the words decide.
func noSolution(err error, problems string) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() == 1 && strings.Contains(problems, "No solution found")
}

// uvEnvironment is what uv gets to know: the index with its account, the
// certificates, and where programs are.
func uvEnvironment(c *config.PyPI) ([]string, error) {
	u, err := url.Parse(c.Index)
	if err != nil {
		return nil, err
	}
	if c.User != "" {
		secret, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		u.User = url.UserPassword(c.User, strings.TrimSpace(string(secret)))
	}
	env := []string{"UV_DEFAULT_INDEX=" + u.String(), "PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}
	if c.CAFile != "" {
		env = append(env, "SSL_CERT_FILE="+c.CAFile)
	} else if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		env = append(env, "SSL_CERT_FILE="+f)
	}
	for _, proxy := range []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} {
		if v := os.Getenv(proxy); v != "" {
			env = append(env, proxy+"="+v)
		}
	}
	return env, nil
}
