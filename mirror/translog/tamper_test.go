package translog

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
)

// Every byte of a small log, changed, is found and named.
func TestTamperEveryByte(t *testing.T) {
	dir, l := newLog(t, 5)
	s := edSigner("exporter-a")
	good := tree(t, dir)
	if diff := cmp.Diff([]string{checkpointName, entriesName, hashesName}, slices.Sorted(maps.Keys(good))); diff != "" {
		t.Fatal(diff)
	}
	lineOf := func(at int) string {
		return fmt.Sprintf("line %d", strings.Count(good[entriesName][:at], "\n")+1)
	}
	for name, data := range good {
		for at := range len(data) {
			for _, flip := range []byte{1, 0x80} {
				spoilt := []byte(data)
				spoilt[at] ^= flip
				if err := os.WriteFile(filepath.Join(dir, name), spoilt, 0o600); err != nil {
					t.Fatal(err)
				}
				want := name
				if name == entriesName {
					want = lineOf(at)
				}
				wantRefused(t, l.Check(t.Context()), want)
				_, err := Open(dir, s)
				wantRefused(t, err, want)
				if diff := cmp.Diff(string(spoilt), tree(t, dir)[name]); diff != "" {
					t.Fatalf("%s, byte %d: a refused log was written to", name, at)
				}
			}
			if name == entriesName {
				// What is read one by one is compared as well.
				i := int64(strings.Count(data[:at], "\n"))
				if data[at] != '\n' {
					_, err := l.Entry(i)
					wantRefused(t, err, lineOf(at))
					_, err = l.Prove(i)
					wantRefused(t, err, lineOf(at))
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTamperLines(t *testing.T) {
	dir, l := newLog(t, 9)
	s := edSigner("exporter-a")
	good := tree(t, dir)
	lines := strings.SplitAfter(good[entriesName], "\n")
	other := strings.Replace(lines[3], `"seq":4`, `"seq":5`, 1)
	_, eight := newLog(t, 8)
	older := tree(t, eight.dir)
	_, six := newLog(t, 6)
	forged := edSigner("stranger")
	alien := mustOpen(t, t.TempDir(), forged)
	for i := range uint64(9) {
		mustAppend(t, alien, entry(i+1))
	}
	stretch := func(n int) string { return good[entriesName] + strings.Repeat(lines[0], n) }
	for name, tc := range map[string]struct {
		change map[string]string
		check  []string // what Check says; Open with the key too unless heals
		heals  bool
	}{
		"line removed":         {map[string]string{entriesName: strings.Join(slices.Delete(slices.Clone(lines), 3, 4), "")}, []string{"entries, line 4: it was changed"}, false},
		"last line removed":    {map[string]string{entriesName: strings.Join(lines[:8], "")}, []string{"entries, line 9: it is missing", "want 9 lines, got 8"}, false},
		"lines exchanged":      {map[string]string{entriesName: strings.Join([]string{lines[1], lines[0], strings.Join(lines[2:], "")}, "")}, []string{"entries, line 1: it was changed"}, false},
		"line twice":           {map[string]string{entriesName: lines[0] + good[entriesName]}, []string{"entries, line 2: it was changed"}, false},
		"line rewritten":       {map[string]string{entriesName: strings.Replace(good[entriesName], lines[3], other, 1)}, []string{"entries, line 4: it was changed"}, false},
		"long line":            {map[string]string{entriesName: strings.Repeat("x", maxLine+1) + "\n"}, []string{"entries, line 1: it is longer"}, false},
		"entries empty":        {map[string]string{entriesName: ""}, []string{"entries, line 1: it is missing"}, false},
		"hashes short":         {map[string]string{hashesName: good[hashesName][:100]}, []string{"hashes: it ends among the hashes of entry 2"}, false},
		"line and its hash":    {map[string]string{entriesName: strings.Replace(good[entriesName], lines[3], other, 1), hashesName: rehash(t, good[hashesName], 3, other)}, []string{"hashes: hash 5 is not that of the lines 3 to 4"}, false},
		"checkpoint empty":     {map[string]string{checkpointName: ""}, []string{"checkpoint"}, false},
		"checkpoint large":     {map[string]string{checkpointName: strings.Repeat("x", maxCheckpoint+1)}, []string{"more than"}, false},
		"checkpoint of others": {map[string]string{checkpointName: string(alien.Checkpoint())}, []string{"this log's key has not signed it"}, false},
		"one beyond":           {map[string]string{entriesName: stretch(1)}, []string{"entries: there is more in it"}, true},
		"half a line beyond":   {map[string]string{entriesName: good[entriesName] + "{"}, []string{"entries: there is more in it"}, true},
		"hashes beyond":        {map[string]string{hashesName: good[hashesName] + "x"}, []string{"hashes: there is more in it"}, true},
		"two beyond":           {map[string]string{entriesName: stretch(2)}, []string{"entries: there is more in it"}, false},
		"much beyond":          {map[string]string{entriesName: good[entriesName] + strings.Repeat("x", maxLine+2)}, []string{"entries: there is more in it"}, false},
		"many hashes beyond":   {map[string]string{hashesName: good[hashesName] + strings.Repeat("x", 65*32)}, []string{"hashes: there is more in it"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			changed := maps.Clone(good)
			maps.Copy(changed, tc.change)
			writeTree(t, dir, changed)
			wantRefused(t, l.Check(t.Context()), tc.check...)
			again, err := Open(dir, s)
			if !tc.heals {
				wantRefused(t, err, tc.check[0])
				if diff := cmp.Diff(changed, tree(t, dir)); diff != "" {
					t.Fatalf("a refused log was written to: %s", diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(good, tree(t, dir)); diff != "" || again.Check(t.Context()) != nil {
				t.Fatal(diff)
			}
		})
	}
	// An older checkpoint, put back to hide what came after.
	for n, old := range map[int]map[string]string{8: older, 6: tree(t, six.dir)} {
		changed := maps.Clone(good)
		changed[checkpointName] = old[checkpointName]
		writeTree(t, dir, changed)
		wantRefused(t, l.Check(t.Context()), "it is another one than when the log was opened")
		again, err := Open(dir, s)
		if n == 6 {
			wantRefused(t, err, "more in it than one entry beyond the 6 of the checkpoint")
			continue
		}
		// One entry back cannot be told from a killed run; whoever has kept
		// a checkpoint can tell.
		if err != nil {
			t.Fatal(err)
		}
		wantRefused(t, again.Consistency(l.Checkpoint()), "the log has fewer: it was cut back or replaced")
	}
	for _, name := range []string{entriesName, hashesName} {
		changed := maps.Clone(good)
		delete(changed, name)
		writeTree(t, dir, changed)
		wantRefused(t, l.Check(t.Context()), name+": it is missing beside a checkpoint")
		_, err := Open(dir, s)
		wantRefused(t, err, name+": it is missing")
	}
	changed := maps.Clone(good)
	delete(changed, checkpointName)
	writeTree(t, dir, changed)
	_, err := Open(dir, s)
	wantRefused(t, err, "more in it than one entry beyond the 0")
	if diff := cmp.Diff(changed, tree(t, dir)); diff != "" {
		t.Fatalf("a log without its checkpoint was cut: %s", diff)
	}
}

// rehash puts the leaf hash of a line in the place of the ith.
func rehash(t testing.TB, hashes string, i int64, line string) string {
	t.Helper()
	h := tlog.RecordHash([]byte(strings.TrimSuffix(line, "\n")))
	at := tlog.StoredHashIndex(0, i) * tlog.HashSize
	return hashes[:at] + string(h[:]) + hashes[at+tlog.HashSize:]
}
