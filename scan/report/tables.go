package report

import (
	"cmp"
	"fmt"
	"slices"
)

// A tableMaker fills a table source by source and stops at the bounds of the
// page.
type tableMaker struct {
	t            table
	open, folded int // rows of one block
	shown        int
	total        int
}

func newTable(open, folded int) *tableMaker { return &tableMaker{open: open, folded: folded} }

// block begins the rows of another source.
func (m *tableMaker) block(title string) {
	if n := len(m.t.Blocks); n == 0 || m.t.Blocks[n-1].Title != title {
		m.t.Blocks = append(m.t.Blocks, block{Title: title})
	}
}

// add puts a row into the last block, or counts it where there is no room.
func (m *tableMaker) add(r row) {
	b := &m.t.Blocks[len(m.t.Blocks)-1]
	m.total++
	switch {
	case m.shown >= maxRows || len(b.Open)+len(b.Folded) >= m.open+m.folded:
		b.More++
		return
	case len(b.Open) < m.open:
		b.Open = append(b.Open, r)
	default:
		b.Folded = append(b.Folded, r)
	}
	m.shown++
}

func (m *tableMaker) done() *table {
	m.t.Count = number(m.total)
	for i := range m.t.Blocks {
		b := &m.t.Blocks[i]
		b.Count = cmp.Or(b.Count, number(len(b.Open)+len(b.Folded)+b.More))
	}
	return &m.t
}

func (d *Document) changeTable(kinds ...string) *table {
	m := newTable(openRows, maxChanges)
	for i := range d.Changes {
		c := &d.Changes[i]
		if !slices.Contains(kinds, c.Kind) {
			continue
		}
		m.block(c.Source)
		r := row{Name: c.Name, Version: c.Version, From: c.From, Why: c.Why, Tag: c.Kind}
		if c.Size > 0 {
			r.Size = size(c.Size)
		}
		m.add(r)
	}
	return m.done()
}

func (d *Document) missingTable() *table {
	m := newTable(openRows, maxChanges)
	for i := range d.Missing {
		x := &d.Missing[i]
		m.block(x.Source)
		m.add(row{Name: cmp.Or(x.Name, "the whole source"), Version: x.Version, Why: x.Reason, Tag: x.Code})
	}
	return m.done()
}

func (d *Document) withdrawnTable() *table {
	m := newTable(openRows, maxChanges)
	for i := range d.Withdrawn {
		w := &d.Withdrawn[i]
		m.block(w.Source)
		m.add(row{Name: w.Name, Version: w.Version, From: w.Digest, Why: w.Reason, Tag: w.Advisory})
	}
	return m.done()
}

// everything lists the state after the bundle, folded for each source. A
// source that lists nothing is shown all the same.
func (d *Document) everything() *table {
	m := newTable(0, maxItems)
	items := make(map[string][]Item)
	for _, it := range d.Everything {
		items[it.Source] = append(items[it.Source], it)
	}
	seen := make(map[string]bool)
	for i := range d.Sources {
		s := &d.Sources[i]
		seen[s.Name] = true
		m.block(s.Name)
		m.t.Blocks[len(m.t.Blocks)-1].Count = fmt.Sprintf("%s, %s, %s", count(s.Artifacts, "artifact"), count(s.Files, "file"), size(s.Bytes))
		m.addItems(items[s.Name])
	}
	// Items of a source that is not listed must not disappear.
	for i := range d.Everything {
		if name := d.Everything[i].Source; !seen[name] {
			seen[name] = true
			m.block(name)
			m.addItems(items[name])
		}
	}
	return m.done()
}

func (m *tableMaker) addItems(items []Item) {
	for i := range items {
		it := &items[i]
		r := row{Name: it.Name, Version: it.Version, Why: it.Why, Size: size(it.Size), Files: number(it.Files), Verdict: it.Verdict, Flagged: it.Findings > 0}
		if it.Findings > 0 {
			r.Verdict += ", " + count(it.Findings, "finding")
		}
		m.add(r)
	}
}
