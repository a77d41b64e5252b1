//go:build failpoint

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/apt/apttest"
	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/ledger"
)

// killState describes a folder: each file by mode, size and digest, the
// ledger by its records. A leftover of any kind shows, but for three that are
// harmless: empty folders; empty names in quarantine, where a kill kept
// evidence from getting a name; and the temporary file of plan --save beside
// its FILE, in a folder of the user's where nothing may be swept.
func killState(t testing.TB, dir string) map[string]string {
	t.Helper()
	state := make(map[string]string)
	key := killPrivateKey(t, dir)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if d.Type() == fs.ModeSymlink {
			state[rel], err = os.Readlink(name)
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		base := filepath.Base(rel)
		switch {
		case strings.HasPrefix(rel, durable.TempPrefix):
			return nil
		case base == "verdicts.db":
			return nil // whatever is in it may be gone: it is scanned again
		case strings.Contains(rel, "state/translog/"):
			// Each run has a key of its own, and with it other hashes.
			if base != "entries" {
				return nil
			}
			b = regexp.MustCompile(`"time":"[^"]*"`).ReplaceAll(b, nil)
		case base == "ledger.db":
			state[rel] = killLedger(t, dir)
			return nil
		case strings.HasPrefix(rel, "state/store/quarantine/"):
			if len(b) == 0 {
				return nil
			}
			rel = rel[:strings.LastIndexByte(rel, '-')]
		case strings.HasPrefix(rel, "state/store/blobs/"):
			if got := artifact.Sum(b).Hex(); got != base {
				t.Errorf("%s has digest %s", rel, got)
			}
		case base == "darkmirror.yaml":
			b = killAddress.ReplaceAll(b, nil) // each run has a target of its own
		case base == "plan.json":
			b = regexp.MustCompile(`"made": "[^"]*"`).ReplaceAll(b, nil)
		case strings.Contains(rel, "/.darkmirror/"):
			b = nil // the records of targets name inodes
		case strings.HasPrefix(rel, "state/published/oci/") && base == "current.json", strings.HasPrefix(rel, "state/published/models/"), base == "revocations.jsonl":
			b = killPublishedTime.ReplaceAll(b, nil)
		case strings.HasPrefix(rel, "state/published/apt/"):
			b = killMaskApt(t, dir, rel, b, key)
		}
		state[rel] = fmt.Sprintf("%v %d %s", info.Mode(), len(b), artifact.Sum(b).Hex())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// killAddress is where something listens while a test runs.
var killAddress = regexp.MustCompile(`127\.0\.0\.1:[0-9]+`)

// killPrivateKey is the archive key of the inside, once there is one.
func killPrivateKey(t testing.TB, dir string) openpgp.EntityList {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "state/published/apt/debian/signing-key.asc"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	keys, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	if err != nil || len(keys) != 1 || keys[0].PrivateKey == nil {
		t.Fatalf("signing-key.asc: %d keys: %v", len(keys), err)
	}
	return keys
}

var (
	killReleaseTimes     = regexp.MustCompile(`(?m)^(Date|Valid-Until): .*$`)
	killPublishedTime    = regexp.MustCompile(`"time":"[^"]*"`)
	killPublicationTimes = regexp.MustCompile(`"(at|date)":"[^"]*"`)
)

// killMaskApt takes out of a published file what depends on the time and on the
// key, and checks that the rest belongs to that key.
func killMaskApt(t testing.TB, dir, rel string, b []byte, key openpgp.EntityList) []byte {
	t.Helper()
	switch base := filepath.Base(rel); {
	case base == "signing-key.asc":
		return nil // killPrivateKey has read it
	case strings.HasPrefix(base, "darkmirror-archive-keyring."):
		read := openpgp.ReadKeyRing
		if strings.HasSuffix(base, ".asc") {
			read = openpgp.ReadArmoredKeyRing
		}
		ring, err := read(bytes.NewReader(b))
		if err != nil || len(ring) != 1 || !bytes.Equal(ring[0].PrimaryKey.Fingerprint, key[0].PrimaryKey.Fingerprint) {
			t.Errorf("%s is not the keyring of the signing key: %v", rel, err)
		}
		return nil
	case base == "InRelease":
		return killReleaseTimes.ReplaceAll(killSignedText(t, rel, b, key), nil)
	case base == "Release":
		return killReleaseTimes.ReplaceAll(b, nil)
	case base == "Release.gpg":
		text, err := os.ReadFile(filepath.Join(dir, filepath.Dir(rel), "Release"))
		if err != nil {
			t.Error(err)
		}
		if _, err := openpgp.CheckArmoredDetachedSignature(key, bytes.NewReader(text), bytes.NewReader(b), nil); err != nil {
			t.Errorf("%s: %v", rel, err)
		}
		return nil
	case strings.Contains(rel, "/publications/"):
		return killPublicationTimes.ReplaceAll(b, nil)
	}
	return b
}

func killSignedText(t testing.TB, name string, b []byte, key openpgp.EntityList) []byte {
	t.Helper()
	block, rest := clearsign.Decode(b)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		t.Errorf("%s is not one signed text", name)
		return nil
	}
	if _, err := block.VerifySignature(key, nil); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return block.Plaintext
}

// killLedger prints what the ledger and the status command say, without the
// runs and the times of this run.
func killLedger(t testing.TB, dir string) string {
	t.Helper()
	led, err := ledger.OpenReadOnly(filepath.Join(dir, "state/ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := led.Close(); err != nil {
			t.Error(err)
		}
	}()
	var all []any
	var errs []error
	add := func(v any, err error) {
		all, errs = append(all, v), append(errs, err)
	}
	add(led.Sealed("main"))
	add(led.Published())
	add(led.Floor())
	add(led.Streams())
	last, _, err := led.LastImported("main")
	errs = append(errs, err)
	for seq := range last.Seq {
		rec, ok, err := led.Imported("main", seq+1)
		add(rec, err)
		add(ok, nil)
	}
	carried := make(map[string]uint64)
	blobs, err := filepath.Glob(filepath.Join(dir, "state/store/blobs/sha256/??/*"))
	errs = append(errs, err)
	for _, name := range blobs {
		d, err := artifact.ParseHex(filepath.Base(name))
		if err != nil {
			continue // a leftover, which the caller reports
		}
		seq, ok, err := led.Carried("main", d)
		errs = append(errs, err)
		if ok {
			carried[d.Hex()] = seq
		}
	}
	add(carried, nil)
	runs, err := led.Runs(1)
	errs = append(errs, err)
	for _, r := range runs {
		add([]any{r.Command, r.ExitCode, r.Note}, nil)
	}
	var out, msg bytes.Buffer
	if code := run(t.Context(), []string{"status", "-o", "json", "--config", filepath.Join(dir, "darkmirror.yaml")}, streams{out: &out, err: &msg}); code != 0 {
		t.Errorf("status: exit %d\n%s", code, msg.String())
	}
	var status map[string]any
	errs = append(errs, json.Unmarshal(out.Bytes(), &status))
	delete(status, "runs")
	add(status, nil)
	b, err := json.MarshalIndent(all, "", " ")
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
	times := regexp.MustCompile(`"time": "[^"]*"`)
	return strings.ReplaceAll(string(times.ReplaceAll(b, nil)), dir, "DIR")
}

// killCheckOutbox wants every bundle in the outbox to be, byte for byte, one of
// those in the folder good. Half a bundle has another name.
func killCheckOutbox(good string) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		t.Helper()
		outbox := filepath.Join(dir, "state/outbox")
		entries, err := os.ReadDir(outbox)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), durable.TempPrefix) {
				continue
			}
			want, got := killState(t, filepath.Join(good, e.Name())), killState(t, filepath.Join(outbox, e.Name()))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("bundle %s is not whole:\n%s", e.Name(), diff)
			}
		}
	}
}

// killCheckServed wants all that clients are offered to be whole: every
// project of the package index, and every archive from its InRelease down to
// the last package.
func killCheckServed(t testing.TB, dir string) {
	t.Helper()
	published := filepath.Join(dir, "state/published")
	if b, err := os.ReadFile(filepath.Join(published, "pypi/main/current.json")); err == nil {
		killCheckIndex(t, dir, b)
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	key := killPrivateKey(t, dir)
	suites, err := filepath.Glob(filepath.Join(published, "apt/debian/tree/debian/dists/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range suites {
		b, err := os.ReadFile(filepath.Join(suite, "InRelease"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		killCheckSuite(t, suite, string(killSignedText(t, suite, b, key)))
	}
}

func killCheckIndex(t testing.TB, dir string, b []byte) {
	t.Helper()
	var doc struct {
		Projects []struct {
			Files []struct {
				File struct {
					SHA256 artifact.Digest `json:"sha256"`
					Size   int64           `json:"size"`
				} `json:"file"`
				Metadata     string `json:"metadata"`
				MetadataSize int64  `json:"metadata_size"`
			} `json:"files"`
		} `json:"projects"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || len(doc.Projects) == 0 {
		t.Errorf("current.json: %d projects: %v", len(doc.Projects), err)
	}
	for _, p := range doc.Projects {
		for _, f := range p.Files {
			killCheckFile(t, killBlob(dir, f.File.SHA256.Hex()), f.File.SHA256.Hex(), f.File.Size)
			meta := strings.TrimPrefix(f.Metadata, "sha256:")
			killCheckFile(t, killBlob(dir, meta), meta, f.MetadataSize)
		}
	}
}

func killBlob(dir, hex string) string {
	return filepath.Join(dir, "state/store/blobs/sha256", hex[:2], hex)
}

func killCheckFile(t testing.TB, name, sha256 string, size int64) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil || int64(len(b)) != size || artifact.Sum(b).Hex() != sha256 {
		t.Errorf("%s: %d bytes, digest %s, want %d, %s: %v", name, len(b), artifact.Sum(b).Hex(), size, sha256, err)
	}
	return b
}

// killCheckSuite follows a Release as apt does: indices by their hash, packages
// by their Filename.
func killCheckSuite(t testing.TB, suite, release string) {
	t.Helper()
	_, list, _ := strings.Cut(release, "\nSHA256:")
	files := 0
	for line := range strings.Lines(strings.TrimSpace(list)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			t.Errorf("%s: line %q", suite, line)
			continue
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			t.Error(err)
		}
		b := killCheckFile(t, filepath.Join(suite, path.Dir(f[2]), "by-hash/SHA256", f[0]), f[0], size)
		files++
		if path.Base(f[2]) != "Packages" {
			continue
		}
		for st := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
			size, err := strconv.ParseInt(apttest.Field(st, "Size"), 10, 64)
			if err != nil {
				t.Error(err)
			}
			killCheckFile(t, filepath.Join(suite, "../..", apttest.Field(st, "Filename")), apttest.Field(st, "SHA256"), size)
		}
	}
	if files == 0 {
		t.Errorf("%s lists no file", suite)
	}
}
