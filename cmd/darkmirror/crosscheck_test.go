package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/config"
	"github.com/darkmirror/darkmirror/pypi"
)

// TestCrosscheckWords: only what uv itself calls no solution is one; a network
// that is down, or a crash, is no answer.
func TestCrosscheckWords(t *testing.T) {
	solved := pypi.Answer{Target: "cp312-manylinux_2_28_x86_64", Python: "3.12.0", Versions: map[string]string{"a": "1"}}
	unsolved := solved
	unsolved.Versions, unsolved.Err = nil, errors.New("no")
	for name, c := range map[string]struct {
		uv             string
		solved, failed string // what is said where we have a solution, and where not
	}{
		"solution": {"echo a==1", "the same 1 packages as uv", "uv has a solution of 1 packages, and we have none"},
		"none":     {"echo 'error: No solution found when resolving dependencies' >&2; exit 1", "uv has no solution, and we have one of 1 packages", "uv has no solution either"},
		"none, as older ones say it": {
			"echo '  × No solution found when resolving dependencies:' >&2; exit 1",
			"uv has no solution, and we have one of 1 packages", "uv has no solution either",
		},
		"network": {
			"echo 'error: Failed to fetch: http://index.example/simple/a/' >&2; echo '  cause: refused' >&2; exit 2",
			"not compared: uv failed (exit status 2): error: Failed to fetch: http://index.example/simple/a/",
			"we have no solution; not compared: uv failed (exit status 2): error: Failed to fetch: http://index.example/simple/a/",
		},
		"failure of status 1": {
			"echo 'error: Failed to fetch' >&2; exit 1",
			"not compared: uv failed (exit status 1): error: Failed to fetch", "we have no solution; not compared: uv failed (exit status 1): error: Failed to fetch",
		},
		"crash": {"kill -9 $$", "not compared: uv failed (signal: killed)", "we have no solution; not compared: uv failed (signal: killed)"},
	} {
		t.Run(name, func(t *testing.T) {
			uv := filepath.Join(t.TempDir(), "uv")
			if err := os.WriteFile(uv, []byte("#!/bin/sh\n"+c.uv+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			cfg := &config.PyPI{Config: pypi.Config{Index: "https://index.example/simple"}}
			for want, an := range map[string]*pypi.Answer{c.solved: &solved, c.failed: &unsolved} {
				u, err := askUV(t.Context(), uv, cfg, an)
				if err != nil {
					t.Fatal(err)
				}
				if got := u.beside(an); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}
