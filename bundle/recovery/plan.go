package recovery

import (
	"encoding/json"
	"fmt"
)

// fineBlocks is how many blocks a bundle is cut into at least, where they are
// not the largest: more make the index longer, and damage smaller than a block
// of the medium is rare.
const fineBlocks = 1 << 14

// tileSize is how much of the data is read before it is encoded, in rows of
// several columns, so that small blocks do not mean small reads.
const tileSize = 16 << 20

// plan chooses the code for some files.
func plan(name string, files []entry, o Options) (*index, error) {
	ix := &index{Schema: schema, Bundle: name, Files: files, Block: minBlock}
	if err := checkFiles(files); err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	for {
		err := ix.number()
		if err == nil && ix.blocks() <= fineBlocks {
			break
		}
		if ix.Block == maxBlock {
			if err != nil {
				return nil, err
			}
			break
		}
		ix.Block *= 2
	}
	if ix.blocks() == 0 {
		return nil, fmt.Errorf("recovery files for %s: it holds no bytes", name)
	}
	ix.chooseRows(o)
	if err := ix.spread(o.MaxFile); err != nil {
		return nil, err
	}
	if err := ix.check(); err != nil {
		return nil, err
	}
	ix.sums = make([]byte, ix.digestsLen())
	return ix, nil
}

// largest is the number of blocks of the largest file.
func (ix *index) largest() int64 {
	var most int64
	for i := range ix.Files {
		most = max(most, ix.first[i+1]-ix.first[i])
	}
	return most
}

// chooseRows takes as many rows of data as leave room for the parity asked
// for. One row of each always does.
func (ix *index) chooseRows(o Options) {
	n := ix.blocks()
	for k := min(maxData, n); k >= 1; k-- {
		ix.Columns = (n + k - 1) / k
		ix.Data = int((n + ix.Columns - 1) / ix.Columns)
		percent := (ix.Data*o.Percent + 99) / 100
		// More rows than those of data repair no more than as many do.
		lost := min((ix.largest()+ix.Columns-1)/ix.Columns, int64(ix.Data))
		ix.Parity = min(max(percent, int(lost)*min(o.Volumes, ix.Data)), ix.Data)
		if ix.Data+ix.Parity <= maxRows {
			return
		}
	}
}

// spread gives the rows of parity to as few files as their size allows.
func (ix *index) spread(maxFile int64) error {
	ix.Rows = []int{}
	head, err := ix.head()
	if err != nil {
		return err
	}
	row := ix.Columns * ix.Block
	var size int64
	for n := 1; n <= ix.Parity; n++ {
		rows := make([]int, n)
		for i := range rows {
			rows[i] = ix.Parity / n
			if i < ix.Parity%n {
				rows[i]++
			}
		}
		list, err := json.Marshal(rows)
		if err != nil {
			return err
		}
		indexLen := int64(len(head)+len(list)-len("[]")) + ix.digestsLen()
		size = 2*(frameSize+indexLen) + int64(rows[0])*row
		if maxFile == 0 || size <= maxFile {
			ix.Rows = rows
			return nil
		}
	}
	return fmt.Errorf("recovery files for %s: one of a single row has %d bytes, and the medium takes at most %d; use another medium for them", ix.Bundle, size, maxFile)
}

// survives says in plain words what may be lost.
func (ix *index) survives() string {
	text := fmt.Sprintf("any %d of each %d blocks, or any one stretch of %d bytes", ix.Parity, ix.Data+ix.Parity, (int64(ix.Parity)*ix.Columns-1)*ix.Block+1)
	each := (ix.largest() + ix.Columns - 1) / ix.Columns
	switch n := int64(ix.Parity) / each; {
	case ix.Parity == ix.Data:
		return "all files of the bundle, or " + text
	case n == 1:
		return "any 1 volume, or " + text
	case n > 1:
		return fmt.Sprintf("any %d volumes, or %s", n, text)
	}
	return text
}
