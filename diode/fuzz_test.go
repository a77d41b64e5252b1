package diode

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzPacket gives the parser any bytes, with a right tag where they are long
// enough: behind the tag stands one who holds the key and lies.
func FuzzPacket(f *testing.F) {
	for _, kind := range []byte{0, typeDescriptor, typeSymbol, typeHeartbeat, typeFiller, 9} {
		p := make([]byte, ControlSize)
		testKey.put(p, header{kind: kind, transfer: 7, sequence: 9})
		f.Add(p, true)
		f.Add(p, false)
	}
	d := descriptor{geometry: geometry{k: 20, payload: 128, columns: 16, size: 4096}, parity: 4, pass: 1, passes: 1, name: "a/b"}
	p := make([]byte, ControlSize)
	testKey.put(p, header{kind: typeDescriptor, transfer: 7})
	d.encode(p[headerSize:])
	f.Add(p, true)
	f.Fuzz(func(t *testing.T, p []byte, sign bool) {
		if sign && len(p) >= headerSize+64+tagSize {
			testKey.sign(p)
		}
		before := bytes.Clone(p)
		h, payload, v := testKey.open(p)
		if !bytes.Equal(before, p) {
			t.Fatal("the packet was changed")
		}
		if v != accepted {
			if payload != nil {
				t.Fatal("a payload of a refused packet")
			}
			return
		}
		if !sign && !bytes.Equal(before, p) || len(payload) != len(p)-Overhead {
			t.Fatalf("accepted %d bytes with a payload of %d", len(p), len(payload))
		}
		switch h.kind {
		case typeDescriptor:
			d, err := parseDescriptor(payload)
			if err != nil {
				return
			}
			if err := d.check(); err != nil {
				t.Fatalf("accepted and against the rules: %v", err)
			}
			if strings.Contains(d.name, "..") && CheckName(d.name) != nil || d.name[0] == '/' {
				t.Fatalf("name %q", d.name)
			}
			var again [controlSize]byte
			d.encode(again[:])
			// The clock has a sign bit that is not kept.
			again[60] |= payload[60] & 0x80
			if !bytes.Equal(again[:], payload) {
				t.Fatalf("read and written differ:\n%x\n%x", payload, again)
			}
		case typeHeartbeat:
			if hb, err := parseHeartbeat(payload); err == nil && hb.state > stateLeaving {
				t.Fatalf("state %d", hb.state)
			}
		case typeSymbol, typeFiller:
		default:
			t.Fatalf("type %d was accepted", h.kind)
		}
	})
}

// FuzzState gives the readers of a receiver's files any bytes.
func FuzzState(f *testing.F) {
	d := descriptor{geometry: geometry{k: 20, payload: 128, columns: 16, size: 200_000}, parity: 4, pass: 1, passes: 1, name: "a/b"}
	f.Add(encodeObject(&d))
	p := progress{Boot: "x", Complete: []byte{0b11, 0}[:(d.generations()+7)/8], Hashed: 1, Hash: []byte("state")}
	data, err := p.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	m := make([]byte, mapSize(d.geometry))
	putMapHeader(m, d.object(), 1, d.geometry)
	f.Add(m)
	sum := digestOf(m)
	f.Add(append(m, sum[:]...))
	f.Fuzz(func(t *testing.T, p []byte) {
		// With a right digest too, as a careful forger would have it.
		signed := p
		if len(p) >= 32 {
			sum := digestOf(p[:len(p)-32])
			signed = append(bytes.Clone(p[:len(p)-32]), sum[:]...)
		}
		for _, p := range [][]byte{p, signed} {
			if d, err := parseObject(p); err == nil && d.check() != nil {
				t.Fatalf("object against the rules: %+v", d)
			}
			if pr, err := parseProgress(p, d.geometry); err == nil && (pr.Hashed > d.generations() || len(pr.Complete) != (d.generations()+7)/8) {
				t.Fatalf("progress of another object: %+v", pr)
			}
			for _, saved := range []bool{false, true} {
				if checkMap(p, d.object(), 1, d.geometry, saved) == nil {
					g := newGeneration(&object{descriptor: d}, 1, p[:mapSize(d.geometry)])
					if g.missing < 0 || g.missing > g.symbols || g.short < 0 || g.short > d.columns {
						t.Fatalf("counts of a map: missing %d of %d, short %d of %d", g.missing, g.symbols, g.short, d.columns)
					}
					g.gap()
				}
			}
		}
	})
}

// FuzzTicket reads what a person typed.
func FuzzTicket(f *testing.F) {
	f.Add("DT1 3F7QK2ZD r20 12:5 17-19:2 40:* P4K7")
	f.Add((&Ticket{Object: "3F7QK2ZD", Row: 20, Wanted: []Wanted{{From: 1, To: 3, Rows: 2}, {From: 9, To: 9, All: true}}}).String())
	f.Fuzz(func(t *testing.T, s string) {
		tk, err := ParseTicket(s)
		if err != nil {
			return
		}
		again, err := ParseTicket(tk.String())
		if err != nil || again.String() != tk.String() {
			t.Fatalf("%q is read as %q, and that: %v", s, tk, err)
		}
		last := -1
		for _, w := range tk.Wanted {
			if w.From <= last || w.To < w.From || w.To >= maxGenerations || !w.All && (w.Rows < 1 || w.Rows > 255) {
				t.Fatalf("%q gives %+v", s, w)
			}
			last = w.To
		}
	})
}

func TestTicketText(t *testing.T) {
	var gaps []gap
	for n := range 3000 {
		if n%7 != 0 {
			gaps = append(gaps, gap{generation: n * 3, rows: 1 + n%19, all: n%97 == 0, top: 20})
		}
	}
	tk := newTicket(objectID{1, 2, 3, 4, 5}, gaps)
	text := tk.String()
	if len(text) > MaxTicket {
		t.Fatalf("%d characters: %s", len(text), text)
	}
	back, err := ParseTicket(strings.ReplaceAll(strings.ToLower(text), "0", "o"))
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is asked for less than it needs.
	for _, g := range gaps {
		ok := false
		for _, w := range back.Wanted {
			ok = ok || w.From <= g.generation && g.generation <= w.To && (w.All || !g.all && w.Rows >= g.rows)
		}
		if !ok {
			t.Fatalf("generation %d needs %d rows (all %v), which %s does not ask for", g.generation, g.rows, g.all, text)
		}
	}
	for i := range text {
		for _, c := range "0Z:" {
			bad := text[:i] + string(c) + text[i+1:]
			if bad == text {
				continue
			}
			if got, err := ParseTicket(bad); err == nil && got.String() != text {
				t.Errorf("mistyped %q is read as %q", bad, got)
			}
		}
	}
}
