package diode

import "io"

// readRow reads bytes of one row of a generation, from a column on; what lies
// beyond the end of the object is zeros.
func readRow(src io.ReaderAt, g geometry, generation, row, column int, p []byte) error {
	at := int64(generation)*g.generation() + int64(row)*g.row() + int64(column)*int64(g.payload)
	n := min(int64(len(p)), max(0, g.size-at))
	if n > 0 {
		if got, err := src.ReadAt(p[:n], at); int64(got) < n {
			return err
		}
	}
	clear(p[n:])
	return nil
}
