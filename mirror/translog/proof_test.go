package translog

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// RFC 6962, section 2.1, word for word and slowly.

func leafHash(d []byte) []byte {
	h := sha256.Sum256(append([]byte{0}, d...))
	return h[:]
}

func nodeHash(l, r []byte) []byte {
	h := sha256.Sum256(slices.Concat([]byte{1}, l, r))
	return h[:]
}

// split is the largest power of two smaller than n.
func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

// mth is MTH(D[n]).
func mth(d [][]byte) []byte {
	switch len(d) {
	case 0:
		h := sha256.Sum256(nil)
		return h[:]
	case 1:
		return leafHash(d[0])
	}
	k := split(len(d))
	return nodeHash(mth(d[:k]), mth(d[k:]))
}

// auditPath is PATH(m, D[n]).
func auditPath(m int, d [][]byte) [][]byte {
	if len(d) == 1 {
		return nil
	}
	k := split(len(d))
	if m < k {
		return append(auditPath(m, d[:k]), mth(d[k:]))
	}
	return append(auditPath(m-k, d[k:]), mth(d[:k]))
}

// leaves are the lines of a log as they lie in its file.
func leaves(t testing.TB, l *Log) [][]byte {
	t.Helper()
	text := tree(t, l.dir)[entriesName]
	var list [][]byte
	for line := range strings.Lines(text) {
		list = append(list, []byte(strings.TrimSuffix(line, "\n")))
	}
	return list
}

func slowRoot(t testing.TB, l *Log, n int) []byte {
	t.Helper()
	return mth(leaves(t, l)[:n])
}

// Sizes 1 to 200: each root, each proof of each entry, and each older
// checkpoint against each size, beside an independent computation.
func TestProofs(t *testing.T) {
	const most = 200
	s := edSigner("exporter-a")
	l := mustOpen(t, t.TempDir(), s)
	var checkpoints [][]byte
	for n := 1; n <= most; n++ {
		mustAppend(t, l, entry(uint64(n)))
		checkpoints = append(checkpoints, l.Checkpoint())
	}
	all := leaves(t, l)
	l = mustOpen(t, t.TempDir(), s)
	for n := 1; n <= most; n++ {
		mustAppend(t, l, entry(uint64(n)))
		if !bytes.Equal(l.Checkpoint(), checkpoints[n-1]) {
			t.Fatalf("size %d: the same entries give another checkpoint", n)
		}
		root := mth(all[:n])
		if got := l.checkpoint.tree.Hash; !bytes.Equal(got[:], root) {
			t.Fatalf("size %d: root %x, want %x", n, got, root)
		}
		// All pairs are 20,000 and each reads a file: the ends of each size,
		// and whole sizes around powers of two.
		for m := range n {
			if m > 2 && m < n-2 && m != n/2 && n&(n-1) != 0 && n&(n+1) != 0 && n != most {
				continue
			}
			p, err := l.Prove(int64(m))
			if err != nil {
				t.Fatal(err)
			}
			want := auditPath(m, all[:n])
			if len(p.hashes) != len(want) {
				t.Fatalf("size %d, entry %d: path of %d hashes, want %d", n, m, len(p.hashes), len(want))
			}
			for i, h := range p.hashes {
				if !bytes.Equal(h[:], want[i]) {
					t.Fatalf("size %d, entry %d: hash %d differs", n, m, i)
				}
			}
			if err := p.Verify(s.Public(), entry(uint64(m+1))); err != nil {
				t.Fatal(err)
			}
			wantRefused(t, p.Verify(s.Public(), entry(uint64(m+2))), fmt.Sprintf("proof of entry %d", m))
			if err := l.Consistency(checkpoints[m]); err != nil {
				t.Fatalf("size %d against %d: %v", n, m+1, err)
			}
		}
		if n < most {
			wantRefused(t, l.Consistency(checkpoints[n]), "the log has fewer")
		}
	}
}

// Each older root that is not the right one is refused, whatever its size.
func TestConsistencyFork(t *testing.T) {
	s := edSigner("exporter-a")
	l, fork := mustOpen(t, t.TempDir(), s), mustOpen(t, t.TempDir(), s)
	for n := range uint64(40) {
		mustAppend(t, l, entry(n+1))
		e := entry(n + 1)
		if n == 3 {
			e.Detail = "changed"
		}
		mustAppend(t, fork, e)
		if err := l.Consistency(fork.Checkpoint()); n < 3 && err != nil {
			t.Fatal(err)
		} else if n >= 3 {
			wantRefused(t, err, "not of a beginning")
		}
	}
}

func TestProofText(t *testing.T) {
	_, l := newLog(t, 5)
	pub := edSigner("exporter-a").Public()
	p, err := l.Prove(2)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if lines[0] != "c2sp.org/tlog-proof@v1" || lines[1] != "index 2" || len(lines) != 2+3+1+3+1+1+1 || lines[5] != "" || !strings.HasSuffix(string(text), string(l.Checkpoint())) {
		t.Fatalf("%s", text)
	}
	again, err := ParseProof(text)
	if err != nil || again.Index() != 2 {
		t.Fatal(err)
	}
	if err := again.Verify(pub, entry(3)); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, again.Verify(edSigner("stranger").Public(), entry(3)), "this log's key has not signed it")
	if err := again.Verify("no key", entry(3)); err == nil {
		t.Error("verified without a key")
	}
	if err := again.Verify(pub, Entry{}); err == nil {
		t.Error("verified an entry that is none")
	}
	// Any changed byte: refused when it is read or when it is verified.
	for at := range text {
		spoilt := slices.Clone(text)
		spoilt[at] ^= 1
		p, err := ParseProof(spoilt)
		if err == nil {
			err = p.Verify(pub, entry(3))
		}
		wantRefused(t, err)
	}
	for name, bad := range map[string]string{
		"empty":           "",
		"no checkpoint":   "c2sp.org/tlog-proof@v1\nindex 0\n",
		"other version":   strings.Replace(string(text), "@v1", "@v2", 1),
		"extra":           strings.Replace(string(text), "index", "extra AAAA\nindex", 1),
		"leading zero":    strings.Replace(string(text), "index 2", "index 02", 1),
		"plus":            strings.Replace(string(text), "index 2", "index +2", 1),
		"negative":        strings.Replace(string(text), "index 2", "index -2", 1),
		"far":             strings.Replace(string(text), "index 2", "index 1048576", 1),
		"no index":        strings.Replace(string(text), "index 2\n", "", 1),
		"carriage return": strings.Replace(string(text), "\n", "\r\n", 1),
		"short hash":      strings.Replace(string(text), lines[2], "AAAA", 1),
		"65 hashes":       strings.Replace(string(text), lines[2], strings.Repeat(lines[2]+"\n", 64)+lines[2], 1),
		"large":           string(text) + strings.Repeat("x", maxProof),
	} {
		p, err := ParseProof([]byte(bad))
		if p != nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		wantRefused(t, err, "proof: malformed")
	}
	// Another index with the same hashes.
	moved, err := ParseProof([]byte(strings.Replace(string(text), "index 2", "index 1", 1)))
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, moved.Verify(pub, entry(3)), "proof of entry 1")
}

// A proof is read in one way only, and reading never panics.
func FuzzParseProof(f *testing.F) {
	l, err := Open(f.TempDir(), edSigner("exporter-a"))
	if err != nil {
		f.Fatal(err)
	}
	for n := range uint64(3) {
		if _, err := l.Append(entry(n + 1)); err != nil {
			f.Fatal(err)
		}
		p, err := l.Prove(int64(n))
		if err != nil {
			f.Fatal(err)
		}
		text, err := p.MarshalText()
		if err != nil || len(text) == 0 {
			f.Fatal(err)
		}
		f.Add(text)
	}
	pub := edSigner("exporter-a").Public()
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParseProof(text)
		if err != nil {
			return
		}
		if again, err := p.MarshalText(); err != nil || !bytes.Equal(again, text) {
			t.Fatalf("%q becomes %q", text, again)
		}
		if p.Verify(pub, entry(99)) == nil {
			t.Fatal("an entry that was never logged")
		}
	})
}

// What a key verifies, it signed: nothing that was made up is accepted.
func FuzzCheckpoint(f *testing.F) {
	l, err := Open(f.TempDir(), edSigner("exporter-a"))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := l.Append(entry(1)); err != nil {
		f.Fatal(err)
	}
	good := l.Checkpoint()
	if len(good) == 0 {
		f.Fatal("no seed")
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("\n1\n"), []byte("\n01\n"), 1))
	text, _, _ := bytes.Cut(good, []byte("\n\n"))
	pub := edSigner("exporter-a").Public()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := openCheckpoint(raw, nil); err != nil {
			if _, err := VerifyCheckpoint(raw, pub); err == nil {
				t.Fatal("verified and not read")
			}
			return
		}
		if _, err := VerifyCheckpoint(raw, pub); err == nil && !bytes.HasPrefix(raw, append(text, "\n\n"...)) {
			t.Fatalf("%q", raw)
		}
	})
}
