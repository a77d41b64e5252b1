package repo

import "strings"

// matchPattern compares a path with a pattern in the manner of Python's
// fnmatch, which the hub's clients use: "*" matches any text, slashes included,
// "?" one character, "[ab]" and "[!ab]" one of a set. A pattern that ends in a
// slash stands for all that is below it.
func matchPattern(pattern, name string) bool {
	if strings.HasSuffix(pattern, "/") {
		pattern += "*"
	}
	p, s := []rune(pattern), []rune(name)
	i, j := 0, 0
	star, mark := -1, 0 // where to go on when the text behind a star does not fit
	for j < len(s) {
		if i < len(p) && p[i] == '*' {
			star, mark = i, j
			i++
			continue
		}
		if n, ok := matchOne(p[i:], s[j]); ok {
			i += n
			j++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		i, j = star+1, mark
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// matchOne compares one character with the beginning of a pattern and says how
// much of the pattern that is.
func matchOne(p []rune, c rune) (int, bool) {
	if len(p) == 0 {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '[':
		if n := setEnd(p); n > 0 {
			return n, inSet(p[1:n-1], c)
		}
	}
	return 1, p[0] == c
}

// setEnd is the length of a set at the beginning of p, 0 where it has no end:
// then '[' is a character as any other.
func setEnd(p []rune) int {
	i := 1
	if i < len(p) && p[i] == '!' {
		i++
	}
	if i < len(p) && p[i] == ']' { // the first one is a member
		i++
	}
	for ; i < len(p); i++ {
		if p[i] == ']' {
			return i + 1
		}
	}
	return 0
}

func inSet(set []rune, c rune) bool {
	not := len(set) > 0 && set[0] == '!'
	if not {
		set = set[1:]
	}
	in := false
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			in = in || set[i] <= c && c <= set[i+2]
			i += 2
			continue
		}
		in = in || set[i] == c
	}
	return in != not
}
