package config

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// A Problem is one thing that is wrong with a configuration file.
type Problem struct {
	File   string // as the file was named to Load
	Line   int    // from 1; 0 where no position is known
	Column int    // from 1, in characters
	Text   string // lower case, no full stop
	Source string // the line, secrets masked
}

// String shows the problem as a compiler would: position and text, then the
// line with a caret below the place.
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Text
	}
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Text)
	if strings.TrimSpace(p.Source) == "" {
		return s
	}
	// What stands before the caret keeps its tabs, so that it lines up.
	indent := []rune(p.Source)
	indent = indent[:min(max(p.Column-1, 0), len(indent))]
	for i, r := range indent {
		if r != '\t' {
			indent[i] = ' '
		}
	}
	return fmt.Sprintf("%s\n%5d | %s\n      | %s^", s, p.Line, p.Source, string(indent))
}

// Problems is the error of a configuration that cannot be used: all that is
// wrong with it, by position.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// What a person may have written in the wrong place must not reach a
// terminal's scrollback or a log.
var (
	urlSecret = regexp.MustCompile(`://[^/\s@]*@`)
	keySecret = regexp.MustCompile(`(?i)\b(` + secretKeys + `)(["']?\s*:\s*)\S.*`)
)

// secretKeys are names under which people write secrets.
const secretKeys = `password|passwd|passphrase|secret|token|api_key|apikey|private_key`

// mask hides secrets in a line of the file or in text made of it, and makes
// it printable.
func mask(s string) string {
	s = urlSecret.ReplaceAllString(s, "://***@")
	s = keySecret.ReplaceAllString(s, "${1}${2}***")
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// closest is the candidate that s is most likely a misspelling of, or "".
func closest(s string, candidates []string) string {
	best, most := "", max(1, min(len(s), 40)/3)+1
	for _, c := range candidates {
		if d := distance(s, c); d < most {
			best, most = c, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func distance(a, b string) int {
	// Three rows of the usual table: two back, the one before, this one.
	var older []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			row[j+1] = min(last[j+1], row[j]) + 1
			if a[i] == b[j] {
				row[j+1] = min(row[j+1], last[j])
			} else {
				row[j+1] = min(row[j+1], last[j]+1)
			}
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
		older, last = last, row
	}
	return last[len(b)]
}
