package helm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// partSize is how much of an index is read at once. A tree takes some 25
	// times the memory of its text.
	partSize = 256 << 10
	// maxWhole bounds what is read in one piece: a version of a chart, or an
	// index that is laid out otherwise than Helm does.
	maxWhole = 8 << 20
)

// A part is a piece of the entries: whole versions, each below its chart's key.
type part struct {
	text      []byte
	line      int  // where it begins in the index
	continues bool // its first chart is the last one of the part before
}

// split takes an index in block style, as Helm writes it, apart: the text
// around the entries, and the lines below "entries:".
func split(b []byte) (around, entries []byte, first int, err error) {
	begin, end, at, line := -1, len(b), 0, 0
	for l := range bytes.Lines(b) {
		line++
		switch {
		case begin < 0 && strings.TrimRight(string(l[:min(len(l), 80)]), " \t\r\n") == "entries:":
			begin, first = at+len(l), line+1
			around = b[:at]
		case begin >= 0 && !strings.ContainsRune(" #\r\n", rune(l[0])):
			end = at
		}
		if end < len(b) {
			break
		}
		at += len(l)
	}
	if begin < 0 {
		return nil, nil, 0, errors.New("no line \"entries:\"")
	}
	return slices.Concat(around, b[end:]), b[begin:end], first, nil
}

// A cutter finds where the entries may be cut: before a chart's key, and before
// an item of its list. In block style all that belongs to an item is indented
// deeper than the item. Only text in quotes and in brackets may not be, by the
// laxity of the library; cut there, what comes before the cut does not end, and
// is no YAML.
type cutter struct {
	chart, item int    // how deep; item is -1 where it is not known yet, -2 where there is none
	key         []byte // the line of the last chart
}

// cuts calls f for each part.
func cuts(entries []byte, line int, f func(part) error) error {
	c := cutter{chart: -1}
	next := part{line: line}
	var key []byte // of the chart that next continues
	start, at := 0, 0
	flush := func(continues bool) error {
		next.text = entries[start:at]
		if next.continues {
			next.text = slices.Concat(key, next.text)
			next.line--
		}
		if len(next.text) > maxWhole {
			return fmt.Errorf("line %d: one piece of %d bytes, at most %d are taken", next.line, len(next.text), maxWhole)
		}
		if err := f(next); err != nil {
			return fmt.Errorf("from line %d on: %w", next.line, err)
		}
		start, key, next = at, c.key, part{line: line, continues: continues}
		return nil
	}
	for l := range bytes.Lines(entries) {
		chart, item, err := c.line(l)
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if (chart || item) && at-start >= partSize {
			if err := flush(item); err != nil {
				return err
			}
		}
		if chart {
			c.key = l
		}
		at += len(l)
		line++
	}
	return flush(false)
}

// line reports whether a chart or an item begins with a line.
func (c *cutter) line(l []byte) (chart, item bool, err error) {
	text := bytes.TrimLeft(l, " ")
	deep := len(l) - len(text)
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 || text[0] == '#' {
		return false, false, nil
	}
	dash := text[0] == '-' && (len(text) == 1 || text[1] == ' ')
	switch {
	case c.chart < 0 && (dash || deep == 0), deep < c.chart:
		return false, false, errors.New("want a chart's name")
	case c.chart < 0, deep == c.chart && !dash:
		c.chart, c.item = deep, -1
		return true, false, nil
	case c.item == -1 && dash:
		c.item = deep
	case c.item == -1:
		c.item = -2
	}
	return false, dash && deep == c.item, nil
}
