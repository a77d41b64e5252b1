package trivy

import (
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What text must hold so that an expression can match in it. A rule of
// Trivy's costs up to 50 ms a megabyte, and hardly one of a hundred can match
// in a given text; a set of literals is looked for in one pass, see
// [automaton].

const (
	// maxAlternatives bounds a clause: more literals find more by chance.
	maxAlternatives = 64
	// minLiteral is the shortest literal that is worth looking for.
	minLiteral = 2
	// maxWindow bounds the length of a match that is looked for around its
	// literals only.
	maxWindow = 2048
)

// An extent is the greatest length of a match: so many bytes, and so many
// runs of white space.
type extent struct {
	bytes, blanks int
	endless       bool // there is no such length
}

// A literal is text as it must stand in a match.
type literal struct {
	text string // in lower case
	raw  string // as it must stand, unless fold
	fold bool   // in either case
}

// A clause is met by any of its literals.
type clause []literal

// needs derives clauses, of which every match meets all, and the extent
// of a match. Letters beyond ASCII that fold to ASCII letters
// are left to the caller, see [folding].
func needs(expr string) (clauses []clause, longest extent, err error) {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, extent{}, err
	}
	for _, c := range required(re) {
		if useful(c) {
			clauses = append(clauses, c)
		}
	}
	return clauses, extentOf(re), nil
}

func useful(c clause) bool {
	return len(c) > 0 && len(c) <= maxAlternatives &&
		!slices.ContainsFunc(c, func(l literal) bool { return len(l.text) < minLiteral })
}

// required lists clauses of an expression.
func required(re *syntax.Regexp) []clause {
	if c := exact(re); c != nil {
		return []clause{c}
	}
	switch re.Op {
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		return requiredOfConcat(re.Sub)
	case syntax.OpAlternate:
		return requiredOfAlternate(re.Sub)
	}
	return nil
}

// requiredOfConcat joins neighbours that match fixed texts.
func requiredOfConcat(subs []*syntax.Regexp) []clause {
	var all []clause
	run := clause{{}}
	flush := func() {
		all = append(all, run)
		run = clause{{}}
	}
	for _, sub := range subs {
		c := exact(sub)
		if c == nil {
			flush()
			all = append(all, required(sub)...)
			continue
		}
		if joined := product(run, c); joined != nil {
			run = joined
			continue
		}
		flush()
		run = c
	}
	flush()
	return slices.DeleteFunc(all, func(c clause) bool { return !useful(c) })
}

// requiredOfAlternate makes one clause of the best of every branch.
func requiredOfAlternate(subs []*syntax.Regexp) []clause {
	var union clause
	for _, sub := range subs {
		best := bestOf(required(sub))
		if best == nil {
			return nil
		}
		union = append(union, best...)
	}
	return []clause{union}
}

// bestOf is the clause whose shortest literal is the longest.
func bestOf(clauses []clause) clause {
	var best clause
	score := 0
	for _, c := range clauses {
		if !useful(c) {
			continue
		}
		n := len(c[0].text)
		for _, l := range c {
			n = min(n, len(l.text))
		}
		if n > score || n == score && len(c) < len(best) {
			best, score = c, n
		}
	}
	return best
}

// exact lists all the texts that an expression matches, or answers nil if
// they are many or not ASCII.
func exact(re *syntax.Regexp) clause {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText,
		syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return clause{{}}
	case syntax.OpLiteral:
		raw := string(re.Rune)
		if !isASCII(raw) {
			return nil
		}
		return clause{{text: strings.ToLower(raw), raw: raw, fold: re.Flags&syntax.FoldCase != 0}}
	case syntax.OpCharClass:
		return exactClass(re.Rune)
	case syntax.OpCapture:
		return exact(re.Sub[0])
	case syntax.OpQuest:
		c := exact(re.Sub[0])
		if c == nil {
			return nil
		}
		return append(clause{{}}, c...)
	case syntax.OpConcat:
		run := clause{{}}
		for _, sub := range re.Sub {
			c := exact(sub)
			if c == nil {
				return nil
			}
			if run = product(run, c); run == nil {
				return nil
			}
		}
		return run
	case syntax.OpAlternate:
		var union clause
		for _, sub := range re.Sub {
			c := exact(sub)
			if c == nil {
				return nil
			}
			union = append(union, c...)
		}
		return bounded(union)
	}
	return nil
}

// maxClass bounds the characters of a class that are written out.
const maxClass = 8

func exactClass(ranges []rune) clause {
	var c clause
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			switch {
			case r == '\u017f' || r == '\u212a': // fold to s and k, see folding
			case r > unicode.MaxASCII || len(c) == maxClass:
				return nil
			default:
				c = append(c, literal{text: strings.ToLower(string(r)), raw: string(r)})
			}
		}
	}
	return bounded(c)
}

func bounded(c clause) clause {
	if len(c) == 0 || len(c) > maxAlternatives {
		return nil
	}
	return c
}

func product(a, b clause) clause {
	if len(a)*len(b) > maxAlternatives {
		return nil
	}
	var c clause
	for _, x := range a {
		for _, y := range b {
			c = append(c, literal{text: x.text + y.text, raw: x.raw + y.raw, fold: x.fold || y.fold})
		}
	}
	return c
}

func extentOf(re *syntax.Regexp) extent {
	switch re.Op {
	case syntax.OpLiteral:
		return extent{bytes: len(string(re.Rune))}
	case syntax.OpCharClass:
		if len(re.Rune) == 0 {
			return extent{}
		}
		return extent{bytes: max(1, utf8.RuneLen(re.Rune[len(re.Rune)-1]))}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return extent{bytes: utf8.UTFMax}
	case syntax.OpCapture, syntax.OpQuest:
		return extentOf(re.Sub[0])
	case syntax.OpStar, syntax.OpPlus:
		if isBlank(re.Sub[0]) {
			return extent{blanks: 1}
		}
		return extent{endless: true}
	case syntax.OpRepeat:
		e := extentOf(re.Sub[0])
		if re.Max < 0 && isBlank(re.Sub[0]) {
			return extent{blanks: 1}
		}
		return extent{e.bytes * re.Max, e.blanks * re.Max, e.endless || re.Max < 0}
	case syntax.OpConcat:
		var sum extent
		for _, sub := range re.Sub {
			e := extentOf(sub)
			sum = extent{sum.bytes + e.bytes, sum.blanks + e.blanks, sum.endless || e.endless}
		}
		return sum
	case syntax.OpAlternate:
		var most extent
		for _, sub := range re.Sub {
			e := extentOf(sub)
			most = extent{max(most.bytes, e.bytes), max(most.blanks, e.blanks), most.endless || e.endless}
		}
		return most
	}
	return extent{} // matches no text
}

// isBlank tells a class of white space and nothing else, such as \s.
func isBlank(re *syntax.Regexp) bool {
	if re.Op != syntax.OpCharClass {
		return false
	}
	for i := 0; i < len(re.Rune); i += 2 {
		for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
			if r > unicode.MaxASCII || !blank[r] {
				return false
			}
		}
	}
	return true
}

// blank are the bytes of \s.
var blank = [256]bool{' ': true, '\t': true, '\n': true, '\f': true, '\r': true}

// longestBlank is the length of the longest run of white space.
func longestBlank(text []byte) int {
	longest, run := 0, 0
	for _, b := range text {
		if !blank[b] {
			run = 0
			continue
		}
		if run++; run > longest {
			longest = run
		}
	}
	return longest
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}
