package diode

import "testing"

// TestPassRows: no row is sent again before all that exist were sent.
func TestPassRows(t *testing.T) {
	for _, c := range []struct{ parity, most int }{{20, 56}, {20, 55}, {5, 251}, {64, 64}, {16, 64}, {1, 3}, {300, 56}} {
		sent := make(map[int]bool)
		for pass := 1; len(sent) < c.most; pass++ {
			first, n := passRows(pass, c.parity, c.most)
			if n == 0 || first+n > c.most {
				t.Fatalf("%+v, pass %d: rows %d to %d", c, pass, first, first+n-1)
			}
			for r := first; r < first+n; r++ {
				if sent[r] {
					t.Fatalf("%+v, pass %d: row %d again after %d of %d rows", c, pass, r, len(sent), c.most)
				}
				sent[r] = true
			}
		}
	}
	if first, n := passRows(4, 20, 56); first != 0 || n != 20 {
		t.Errorf("after the last row: %d, %d", first, n)
	}
	for _, none := range [][2]int{{0, 56}, {20, 0}} {
		if first, n := passRows(2, none[0], none[1]); first != 0 || n != 0 {
			t.Errorf("no parity: %d, %d", first, n)
		}
	}
}

// TestTicketRows: what answers a ticket is new to the inside, or all there is.
func TestTicketRows(t *testing.T) {
	for _, c := range [][5]int{{20, 5, 56, 20, 5}, {20, 36, 56, 20, 36}, {20, 37, 56, 0, 56}, {56, 1, 56, 0, 56}, {0, 200, 56, 0, 56}} {
		if first, n := ticketRows(c[0], c[1], c[2]); first != c[3] || n != c[4] {
			t.Errorf("row %d, %d wanted of %d: %d, %d", c[0], c[1], c[2], first, n)
		}
	}
}

// TestTicketOfMany: a ticket of very many gaps is made at once,
// fits, and asks for each of them.
func TestTicketOfMany(t *testing.T) {
	var gaps []gap
	for n := 0; n < 1<<17; n += 2 {
		gaps = append(gaps, gap{generation: n, rows: 1 + n/2%7, all: n%1000 == 0, top: n % 20})
	}
	tk := newTicket(objectID{1, 2, 3}, gaps)
	if len(tk.String()) > MaxTicket {
		t.Fatalf("%d characters: %s", len(tk.String()), tk)
	}
	i := 0
	for _, g := range gaps {
		for i < len(tk.Wanted) && tk.Wanted[i].To < g.generation {
			i++
		}
		if i == len(tk.Wanted) || tk.Wanted[i].From > g.generation || !tk.Wanted[i].All && (g.all || tk.Wanted[i].Rows < g.rows) {
			t.Fatalf("%+v is not asked for: %s", g, tk)
		}
	}
	if len(tk.Wanted) < 2 || tk.Row != 18 {
		t.Errorf("%s", tk)
	}
}
