//go:build failpoint

package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/internal/durable"
)

// crashEncrypt tells the test, started again as a child, what to do where: a
// line each, the folder to read, or nothing for sealing, and the outbox.
const crashEncrypt = "BUNDLE_TEST_ENCRYPT"

// encryptChild encrypts a sealed bundle, or seals one with root files.
func encryptChild(from, to string) error {
	signer, _ := testSigner(quiet{}, "exporter-a")
	if from != "" {
		_, err := Encrypt(context.Background(), []string{from}, to, newToy(1, "recip-aa"), signer, nil)
		return err
	}
	c, m := smallContent()
	_, err := seal(context.Background(), to, m, c.open, signer, SealOptions{VolumeSize: small.volume, Root: testRoot()}, small)
	return err
}

// A kill at any step leaves no half bundle that is found and nothing
// unencrypted in the outbox of an encryption, and a rerun heals.
func TestKillEncrypt(t *testing.T) {
	if from, to, child := strings.Cut(os.Getenv(crashEncrypt), "\n"); child {
		if err := encryptChild(from, to); err != nil {
			t.Fatal(err)
		}
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := encryptSmall(t, newToy(1, "recip-aa"))
	source := tree(t, f.sealed.Dir)
	for name, tc := range map[string]struct {
		from  string
		want  map[string]string
		steps []string
	}{
		"seal with root files": {"", source, []string{"bundle.root-created", "bundle.root-synced", "bundle.document-written", "bundle.renamed"}},
		"encrypt": {f.sealed.Dir, tree(t, f.out.Dir), []string{
			"bundle.encrypt-tmpdir", "bundle.volume-created", "bundle.volume-written", "bundle.volume-flushed", "bundle.volume-synced", "bundle.encrypt-volumes-synced",
			"bundle.signed", "bundle.root-created", "bundle.document-written", "bundle.envelope-written", "bundle.volumes-json", "bundle.carried-written",
			"bundle.root-synced", "bundle.folder-synced", "bundle.renamed", "bundle.outbox-synced",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(t *testing.T, to, point, trace string) error {
				cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestKillEncrypt$")
				cmd.Env = append(os.Environ(), crashEncrypt+"="+tc.from+"\n"+to, "DARKMIRROR_FAILPOINT="+point, "DARKMIRROR_FAILPOINT_TRACE="+trace)
				cmd.Stderr = t.Output()
				return cmd.Run()
			}
			trace := filepath.Join(t.TempDir(), "trace")
			if err := run(t, filepath.Join(t.TempDir(), "o"), "", trace); err != nil {
				t.Fatal(err)
			}
			passed := make(map[string]int)
			var points []string
			for _, name := range strings.Fields(string(readFile(t, trace))) {
				passed[name]++
				points = append(points, fmt.Sprintf("%s:%d", name, passed[name]))
			}
			for _, name := range tc.steps {
				if passed[name] == 0 {
					t.Errorf("%s was not passed", name)
				}
			}
			for _, point := range points {
				t.Run(point, func(t *testing.T) {
					outbox := filepath.Join(t.TempDir(), "outbox")
					err := run(t, outbox, point, "")
					exit, ok := errors.AsType[*exec.ExitError](err)
					if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
						t.Fatalf("the child was not killed: %v", err)
					}
					if tc.from != "" {
						onlyEncrypted(t, outbox, f.content)
					}
					found, err := Find(outbox)
					if err != nil {
						t.Fatal(err)
					}
					for _, c := range found {
						if diff := cmp.Diff(tc.want, tree(t, c.Dirs[0])); diff != "" {
							t.Fatalf("a half bundle: %s", diff)
						}
					}
					if err := durable.Sweep(outbox); err != nil {
						t.Fatal(err)
					}
					if err := run(t, outbox, "", ""); err != nil {
						t.Fatal(err)
					}
					entries, err := os.ReadDir(outbox)
					if err != nil || len(entries) != 1 {
						t.Fatal(entries, err)
					}
					if diff := cmp.Diff(tc.want, tree(t, filepath.Join(outbox, entries[0].Name()))); diff != "" {
						t.Fatal(diff)
					}
					if diff := cmp.Diff(source, tree(t, f.sealed.Dir)); diff != "" {
						t.Fatalf("the source changed: %s", diff)
					}
				})
			}
		})
	}
}

// onlyEncrypted wants no file of a plain bundle, and no piece of a blob.
func onlyEncrypted(t *testing.T, dir string, c content) {
	t.Helper()
	for name, data := range tree(t, dir) {
		base := filepath.Base(name)
		if base != carriedName && !strings.HasSuffix(base, encryptedExt) && !strings.HasSuffix(base, rootExt) {
			t.Errorf("%s lies there", name)
		}
		for _, blob := range slices.Collect(maps.Values(c)) {
			if len(blob) > 16 && strings.Contains(data, string(blob[:16])) {
				t.Errorf("%s holds a blob", name)
			}
		}
	}
}
