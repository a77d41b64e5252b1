package pickle

import (
	"bytes"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// FuzzScan holds that no stream makes the machine panic or take more memory
// than its limits, that a report does not depend on how the bytes come, and
// that safe means read to the end without a finding.
func FuzzScan(f *testing.F) {
	seeds := []string{
		stateDict, tensor + ".", oldMagic + oldVersion + oldSystem + oldObject + oldKeys + oldData,
		proto(2) + glob("os", "system") + uni("id") + "\x85R.",
		proto(4) + framed(sglob("os", "system")+short("id")+"\x94\x85\x94R\x94."),
		"(S'id'\nios\nsystem\n.", "(cos\nsystem\nS'id'\no.", "L" + magicText + "L\n.M\xe9\x03.}.(l.(l.",
		"(Va\\u00e9\nF1.5\nI01\nI-7\nL5L\np0\ng0\nldP1\n0.", proto(5) + "\x96" + le(1, 8) + "a\x97\x98\x82\x01.",
		proto(4) + "\x8f(N\x90(N\x91\x86" + glob("torch", "Tensor") + ")}\x92.", bomb(30), proto(2) + ")" + stringsOf("2\x86", 40) + ".",
		proto(3) + glob("numpy.core.multiarray", "_reconstruct") + glob("numpy", "ndarray") + "K\x00\x85C\x01b\x87R(K\x01K\x02\x85" +
			glob("numpy", "dtype") + uni("f4") + "\x89\x88\x87R\x89C\x0801234567tb.",
		"]q\x00h\x00a.", "}(K\x01]u(1.", "N.\x00", "",
	}
	if len(seeds) < 10 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	small := Limits{Bytes: 1 << 16, Opcodes: 1 << 14, Kept: 1 << 14, Stack: 200, Memo: 300, Depth: 50, String: 1 << 12}
	f.Fuzz(func(t *testing.T, in []byte, numpy bool) {
		o := Options{Limits: small}
		if numpy {
			o.Profile = Numpy
		}
		rep, err := Scan(bytes.NewReader(in), o)
		if err != nil {
			t.Fatalf("an error without one of reading: %v", err)
		}
		again, err := Scan(iotest.OneByteReader(bytes.NewReader(in)), o)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rep, again); diff != "" {
			t.Error(diff)
		}
		if rep.Safe != (len(rep.Findings) == 0) || rep.Safe && rep.Bytes != int64(len(in)) {
			t.Errorf("safe is %v after %d of %d bytes, with %d findings", rep.Safe, rep.Bytes, len(in), len(rep.Findings))
		}
		for _, g := range rep.Globals {
			if rep.Safe && !g.Listed {
				t.Errorf("safe, with %s.%s", g.Module, g.Name)
			}
		}
		checkBudget(t, in, o)
	})
}

// checkBudget runs the first pickle and compares what the machine holds with
// what it counted.
func checkBudget(t *testing.T, in []byte, o Options) {
	allow, err := o.Profile.names()
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine(bytes.NewReader(in), allow, o)
	v, err := m.pickle()
	switch {
	case len(m.stack) > o.Limits.Stack, len(m.memo) > o.Limits.Memo, len(m.marks) > o.Limits.Depth:
		t.Errorf("%d values, %d memo entries, %d marks", len(m.stack), len(m.memo), len(m.marks))
	case m.kept > o.Limits.Kept && err == nil:
		t.Errorf("%d bytes are kept", m.kept)
	case err == nil && v.kind == kindUnknown && len(m.rep.Findings) == 0:
		t.Error("an unknown value that was not refused")
	case err == nil && v.weight() > freeWeight+maxShare*m.opcodes:
		t.Errorf("weight %d", v.weight())
	}
	for _, v := range m.memo {
		if (v.kind == kindUnknown || v.has(flagRefused)) && len(m.rep.Findings) == 0 && err == nil {
			t.Error("an unknown value in the memo that was not refused")
		}
	}
}

func stringsOf(s string, n int) string { return string(bytes.Repeat([]byte(s), n)) }
