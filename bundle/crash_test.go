//go:build failpoint

package bundle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/internal/durable"
)

// crashOutbox tells the test binary, started again as a child, where to seal.
const crashOutbox = "BUNDLE_TEST_OUTBOX"

// crashApprove tells it what to approve.
const crashApprove = "BUNDLE_TEST_APPROVE"

func TestMain(m *testing.M) {
	outbox, approve := os.Getenv(crashOutbox), os.Getenv(crashApprove)
	if outbox == "" && approve == "" {
		os.Exit(m.Run())
	}
	// The child.
	if approve != "" {
		if err := approveSmall(approve); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	c, man := smallContent()
	signer, _ := testSigner(quiet{}, "exporter-a")
	if _, err := seal(context.Background(), outbox, man, c.open, signer, SealOptions{VolumeSize: small.volume}, small); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(t *testing.T, outbox, point, trace string) error {
	t.Helper()
	return childOf(t, crashOutbox+"="+outbox, point, trace)
}

func childOf(t *testing.T, task, point, trace string) error {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), task, "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
	cmd.Stderr = t.Output()
	return cmd.Run()
}

// B1: a kill at any step leaves no half bundle that is found, and a rerun
// gives the same bytes as an undisturbed run.
func TestKillAnywhere(t *testing.T) {
	whole := sealSmall(t, t.TempDir())
	want := tree(t, whole.sealed.Dir)
	trace := filepath.Join(t.TempDir(), "trace")
	if err := child(t, filepath.Join(t.TempDir(), "o"), "", trace); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	passed := make(map[string]int)
	var points []string
	for name := range strings.Lines(string(b)) {
		name = strings.TrimSpace(name)
		passed[name]++
		points = append(points, fmt.Sprintf("%s:%d", name, passed[name]))
	}
	for _, name := range []string{
		"bundle.tmpdir", "bundle.volume-created", "bundle.volume-written", "bundle.volume-flushed", "bundle.volume-synced", "bundle.volumes-synced",
		"bundle.signed", "bundle.document-written", "bundle.volumes-json", "bundle.envelope-written", "bundle.folder-synced", "bundle.renamed", "bundle.outbox-synced",
	} {
		if passed[name] == 0 {
			t.Errorf("%s was not passed", name)
		}
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			outbox := filepath.Join(t.TempDir(), "outbox")
			err := child(t, outbox, point, "")
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			found, err := Find(outbox)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range found {
				if diff := cmp.Diff(want, tree(t, c.Dirs[0])); diff != "" {
					t.Fatalf("a half bundle: %s", diff)
				}
			}
			if err := durable.Sweep(outbox); err != nil {
				t.Fatal(err)
			}
			if err := child(t, outbox, "", ""); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(outbox)
			if err != nil || len(entries) != 1 {
				t.Fatal(entries, err)
			}
			if diff := cmp.Diff(want, tree(t, filepath.Join(outbox, entries[0].Name()))); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// approveSmall approves the bundle of [sealSmall].
func approveSmall(dir string) error {
	_, key := testSigner(quiet{}, "exporter-a")
	signer, _ := testSigner(quiet{}, "approver-a")
	r, err := Open(dir)
	if err != nil {
		return err
	}
	m, err := r.Unverified()
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	_, err = Approve(dir, signer, Trust{Keys: []TrustedKey{key}}, Approval{ID: r.ID(), Now: m.Issued})
	return err
}

// A kill at any step of an approval leaves the envelope before or after, both
// of which verify, and a rerun gives what an undisturbed run gives.
func TestKillApproval(t *testing.T) {
	whole := sealSmall(t, t.TempDir())
	before := tree(t, whole.sealed.Dir)
	trace := filepath.Join(t.TempDir(), "trace")
	if err := childOf(t, crashApprove+"="+whole.sealed.Dir, "", trace); err != nil {
		t.Fatal(err)
	}
	after := tree(t, whole.sealed.Dir)
	if cmp.Equal(before, after) {
		t.Fatal("nothing was approved")
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	points := strings.Fields(string(b))
	want := []string{"bundle.approval-signed", "bundle.approval-swept", "durable.created", "durable.written", "durable.synced", "durable.renamed", "bundle.approval-written"}
	if diff := cmp.Diff(want, points); diff != "" {
		t.Fatal(diff)
	}
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			f := sealSmall(t, t.TempDir())
			err := childOf(t, crashApprove+"="+f.sealed.Dir, point, "")
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			left := tree(t, f.sealed.Dir)
			if e := left[envelopeName]; e != before[envelopeName] && e != after[envelopeName] {
				t.Fatalf("half an envelope: %q", e)
			}
			if err := copyAll(t.Context(), f.openBundle(t), f.content); err != nil {
				t.Fatal(err)
			}
			if err := childOf(t, crashApprove+"="+f.sealed.Dir, "", ""); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(after, tree(t, f.sealed.Dir)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

// quiet stands in for the test that a child does not have.
type quiet struct{ testing.TB }

func (quiet) Helper() {}
