package diode

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
)

// MaxTicket is the length of a ticket that a person can read out.
const MaxTicket = 100

// A Ticket says what would complete an object. docs/diode-format.md describes
// its text.
type Ticket struct {
	// Object is the first 40 bits of the object's number, as in the text.
	Object string
	// Row is the first parity row that the inside has seen nothing of.
	Row    int
	Wanted []Wanted
}

// Wanted is what a run of generations needs: Rows more parity rows, or
// everything.
type Wanted struct {
	From, To int
	Rows     int
	All      bool
}

// gaps lists what the generations of an object need.
func (r *Receiver) gaps(o *object) (list []gap, err error) {
	for n := range o.total {
		if bitSet(o.done, n) {
			continue
		}
		g := slices.IndexFunc(o.open, func(g *generation) bool { return g.n == n })
		if g >= 0 {
			if !o.open[g].busy {
				list = append(list, o.open[g].gap())
			}
			continue
		}
		p, err := readSmall(o.files.root, liveName(n), int64(mapSize(o.geometry)))
		if err != nil || checkMap(p, o.id, n, o.geometry, false) != nil {
			list = append(list, gap{generation: n, all: true})
			continue
		}
		list = append(list, newGeneration(o, n, p).gap())
	}
	return list, nil
}

// newTicket asks for what the gaps need, in at most [MaxTicket] characters:
// what does not fit is joined with its neighbours, so that more is asked for
// and never less.
func newTicket(id objectID, gaps []gap) *Ticket {
	t := &Ticket{Object: id.short()}
	for _, g := range gaps {
		t.Row = max(t.Row, g.top)
		w := Wanted{From: g.generation, To: g.generation, Rows: g.rows, All: g.all}
		if n := len(t.Wanted); n > 0 && t.Wanted[n-1].To+1 == w.From && t.Wanted[n-1].Rows == w.Rows && t.Wanted[n-1].All == w.All {
			t.Wanted[n-1].To = w.To
			continue
		}
		t.Wanted = append(t.Wanted, w)
	}
	t.coarsen()
	for len(t.String()) > MaxTicket && len(t.Wanted) > 1 {
		t.joinNearest()
	}
	return t
}

// mostWanted is far more than a ticket's text holds.
const mostWanted = 256

// coarsen joins what a ticket cannot tell apart anyway, at once: an object of
// 100,000 generations may lack every other one. The places where joining costs
// most stay apart.
func (t *Ticket) coarsen() {
	if len(t.Wanted) <= mostWanted {
		return
	}
	type seam struct {
		at   int // between Wanted[at-1] and Wanted[at]
		cost int64
	}
	seams := make([]seam, 0, len(t.Wanted))
	for i := 1; i < len(t.Wanted); i++ {
		a, b := t.Wanted[i-1], t.Wanted[i]
		seams = append(seams, seam{i, join(a, b).cost() - a.cost() - b.cost()})
	}
	slices.SortStableFunc(seams, func(a, b seam) int { return cmp.Compare(b.cost, a.cost) })
	apart := make(map[int]bool, mostWanted)
	for _, s := range seams[:mostWanted-1] {
		apart[s.at] = true
	}
	joined := t.Wanted[:1]
	for i, w := range t.Wanted[1:] {
		if last := len(joined) - 1; !apart[i+1] {
			joined[last] = join(joined[last], w)
		} else {
			joined = append(joined, w)
		}
	}
	t.Wanted = joined
}

// joinNearest joins the two neighbours that cost least when they are one.
func (t *Ticket) joinNearest() {
	best, least := 0, int64(-1)
	for i := range len(t.Wanted) - 1 {
		a, b := t.Wanted[i], t.Wanted[i+1]
		j := join(a, b)
		cost := j.cost() - a.cost() - b.cost()
		if least < 0 || cost < least {
			best, least = i, cost
		}
	}
	t.Wanted[best] = join(t.Wanted[best], t.Wanted[best+1])
	t.Wanted = slices.Delete(t.Wanted, best+1, best+2)
}

func join(a, b Wanted) Wanted {
	j := Wanted{From: a.From, To: b.To, Rows: max(a.Rows, b.Rows), All: a.All || b.All}
	if j.All {
		j.Rows = 0
	}
	return j
}

// cost is about how many rows are sent.
func (w Wanted) cost() int64 {
	rows := w.Rows
	if w.All {
		rows = allRows
	}
	return int64(w.To-w.From+1) * int64(rows)
}

// String is the ticket's text.
func (t *Ticket) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "DT1 %s r%d", t.Object, t.Row)
	for _, w := range t.Wanted {
		fmt.Fprintf(&b, " %d", w.From)
		if w.To != w.From {
			fmt.Fprintf(&b, "-%d", w.To)
		}
		if w.All {
			b.WriteString(":*")
		} else {
			fmt.Fprintf(&b, ":%d", w.Rows)
		}
	}
	body := b.String()
	return body + " " + ticketSum(body)
}

// ticketSum is 20 bits of CRC-32 in four letters.
func ticketSum(body string) string {
	const letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	sum := crc32.ChecksumIEEE([]byte(body))
	var p [4]byte
	for i := range p {
		p[i] = letters[sum>>(27-5*i)&31]
	}
	return string(p[:])
}

// ParseTicket reads a ticket as a person may type it: any case, any spaces, O
// for 0, I and L for 1.
func ParseTicket(s string) (*Ticket, error) {
	fields := strings.Fields(strings.ToUpper(s))
	if len(fields) < 4 || len(fields) > MaxTicket || fields[0] != "DT1" {
		return nil, fmt.Errorf("%w: ticket: want DT1, the object, a row, what is wanted, and a checksum", ErrConfig)
	}
	fold := strings.NewReplacer("O", "0", "I", "1", "L", "1")
	for i := range fields[1:] {
		// The R of the row stays.
		fields[i+1] = fold.Replace(fields[i+1])
	}
	n := len(fields) - 1
	fields[2] = strings.ToLower(fields[2])
	body := strings.Join(fields[:n], " ")
	if sum := ticketSum(body); sum != fields[n] {
		return nil, fmt.Errorf("%w: ticket: the checksum is %s and belongs to another text; it was misread or mistyped", ErrConfig, clipText(fields[n]))
	}
	t := &Ticket{Object: fields[1]}
	if len(t.Object) != 8 {
		return nil, fmt.Errorf("%w: ticket: object %q: want 8 letters and digits", ErrConfig, clipText(t.Object))
	}
	row, err := strconv.ParseUint(strings.TrimPrefix(fields[2], "r"), 10, 8)
	if err != nil || fields[2][0] != 'r' {
		return nil, fmt.Errorf("%w: ticket: row %q: want r and a number below 256", ErrConfig, clipText(fields[2]))
	}
	t.Row = int(row)
	last := -1
	for _, f := range fields[3:n] {
		w, err := parseWanted(f)
		if err != nil {
			return nil, err
		}
		if w.From <= last {
			return nil, fmt.Errorf("%w: ticket: %q: generations must ascend", ErrConfig, clipText(f))
		}
		last = w.To
		t.Wanted = append(t.Wanted, w)
	}
	return t, nil
}

func parseWanted(f string) (w Wanted, err error) {
	bad := fmt.Errorf("%w: ticket: %q: want generation:rows, first-last:rows or generation:*", ErrConfig, clipText(f))
	gens, rows, ok := strings.Cut(f, ":")
	if !ok {
		return w, bad
	}
	from, to, isRange := strings.Cut(gens, "-")
	if !isRange {
		to = from
	}
	a, err1 := strconv.ParseUint(from, 10, 31)
	b, err2 := strconv.ParseUint(to, 10, 31)
	if cmp.Or(err1, err2) != nil || b < a || b >= maxGenerations {
		return w, bad
	}
	w = Wanted{From: int(a), To: int(b), All: rows == "*"}
	if !w.All {
		n, err := strconv.ParseUint(rows, 10, 8)
		if err != nil || n == 0 {
			return w, bad
		}
		w.Rows = int(n)
	}
	return w, nil
}

func clipText(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
