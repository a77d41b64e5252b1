package trivy

import (
	"slices"
	"strings"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"
)

// A prefilter tells for every rule where in a text it could match, in one
// pass over the text. It never misses: what it leaves out cannot match. Trivy
// itself looks for keywords, one after the other, and then applies the whole
// expression to the whole text: with words such as "key" and "password" that
// happens in nearly every text, at a few megabytes a second.
type prefilter struct {
	find  *automaton
	rules []ruleNeeds
	// exact is, by literal, how it must stand, "" for either case.
	exact []string
	// folding are the literals of letters that fold to ASCII letters without
	// being such: with one of them in the text everything is possible.
	folding int
}

// A span is a part of a text.
type span struct{ from, to int }

// ruleNeeds is what a rule needs.
type ruleNeeds struct {
	clauses [][]uint16 // literals, of each of which one must be in the text
	// near, if the length of a match is bounded, are the literals around
	// which it must lie.
	near   map[uint16]bool
	reach  extent
	always bool
	// keywords says that Trivy's keywords are one of the clauses.
	keywords bool
}

// folding are U+017F, U+212A and U+0130, whose lower or upper case is an
// ASCII letter.
var folding = []string{"\u017f", "\u212a", "\u0130"}

// newPrefilter answers nil if the rules do not fit its tables: then nothing is
// left out.
func newPrefilter(rules []secret.Rule) *prefilter {
	p := &prefilter{folding: len(folding)}
	type way struct{ text, exact string }
	ids := make(map[way]uint16)
	var texts []string
	id := func(l literal) uint16 {
		w := way{l.text, l.raw}
		if l.fold || l.raw == l.text && !hasLetter(l.text) {
			w.exact = ""
		}
		n, ok := ids[w]
		if !ok {
			n = uint16(len(texts)) //nolint:gosec // newAutomaton refuses as many
			ids[w] = n
			texts = append(texts, w.text)
			p.exact = append(p.exact, w.exact)
		}
		return n
	}
	for _, f := range folding {
		id(literal{text: f, fold: true})
	}
	for _, r := range rules {
		p.rules = append(p.rules, needsOf(r, id))
	}
	p.find = newAutomaton(texts)
	if p.find == nil {
		return nil
	}
	return p
}

func hasLetter(s string) bool { return strings.ToUpper(s) != s || strings.ToLower(s) != s }

func needsOf(r secret.Rule, id func(literal) uint16) ruleNeeds {
	var n ruleNeeds
	if r.Regex == nil {
		return n
	}
	add := func(c clause) []uint16 {
		var lits []uint16
		for _, l := range c {
			lits = append(lits, id(l))
		}
		n.clauses = append(n.clauses, lits)
		return lits
	}
	if c := keywords(r); c != nil {
		add(c)
		n.keywords = true
	}
	clauses, longest, err := needs(r.Regex.String())
	if err != nil {
		clauses = nil
	}
	for _, c := range clauses {
		add(c)
	}
	if best := bestOf(clauses); best != nil && !longest.endless && longest.bytes <= maxWindow {
		n.reach = longest
		n.near = make(map[uint16]bool)
		for _, l := range best {
			n.near[id(l)] = true
		}
	}
	n.always = len(n.clauses) == 0
	return n
}

// keywords is the clause of a rule's keywords, or nil if it has none that can
// be looked for here.
func keywords(r secret.Rule) clause {
	var c clause
	for _, k := range r.Keywords {
		if k == "" || !isASCII(k) {
			return nil
		}
		c = append(c, literal{text: strings.ToLower(k), fold: true})
	}
	return c
}

// margin is what a window has beyond a match on either side, so that neither
// the window's edge nor a rune cut in two is ever part of a match.
const margin = 8

// spans answers for every rule where it could match, or nil if none could.
func (p *prefilter) spans(text []byte, b *buffers) [][]span {
	b.hits = p.find.find(text, b.hits[:0])
	if b.rule == nil {
		b.rule = make([][]span, len(p.rules))
		b.has = make([]bool, len(p.find.size))
	}
	clear(b.has)
	kept := b.hits[:0]
	for _, h := range b.hits {
		if want := p.exact[h.literal]; want == "" || string(text[int(h.end)-len(want):h.end]) == want {
			b.has[h.literal] = true
			kept = append(kept, h)
		}
	}
	b.hits = kept
	everywhere := []span{{0, len(text)}}
	all := slices.Contains(b.has[:p.folding], true)
	b.folded = all
	some, blanks := false, -1
	for i := range p.rules {
		n := &p.rules[i]
		b.rule[i] = b.rule[i][:0]
		switch {
		case all || n.always:
			b.rule[i] = append(b.rule[i], everywhere...)
		case !n.met(b.has):
			continue
		case n.near == nil:
			b.rule[i] = append(b.rule[i], everywhere...)
		default:
			reach := n.reach.bytes
			if n.reach.blanks > 0 {
				if blanks < 0 {
					blanks = longestBlank(text)
				}
				reach += n.reach.blanks * blanks
			}
			b.rule[i] = p.around(n, reach, len(text), b.hits, b.rule[i])
		}
		some = some || len(b.rule[i]) > 0
	}
	if !some {
		return nil
	}
	return b.rule
}

func (n *ruleNeeds) met(has []bool) bool {
	for _, c := range n.clauses {
		ok := false
		for _, l := range c {
			if has[l] {
				ok = true
				break
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// around is the union of the windows around a rule's literals.
func (p *prefilter) around(n *ruleNeeds, reach, size int, hits []hit, spans []span) []span {
	for _, h := range hits {
		if !n.near[h.literal] {
			continue
		}
		end := int(h.end)
		from, to := max(0, end-p.find.size[h.literal]-reach-margin), min(size, end+reach+margin)
		if last := len(spans) - 1; last >= 0 && from <= spans[last].to {
			// Hits are sorted by their end; one literal may be longer.
			spans[last].to = max(spans[last].to, to)
			for last > 0 && from <= spans[last-1].to {
				spans[last-1].to = max(spans[last-1].to, spans[last].to)
				spans = spans[:last]
				last--
			}
			spans[last].from = min(spans[last].from, from)
			continue
		}
		spans = append(spans, span{from, to})
	}
	return spans
}
