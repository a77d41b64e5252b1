package label

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the margin that the standard asks for, in modules.
const quiet = 4

// A matrix is a QR code with its margin: true is dark.
type matrix struct {
	size  int
	black func(x, y int) bool
}

// encode makes the code of a text. Level M survives a scratch of some 15 per
// cent and stays coarse enough for a small print.
func encode(text string) (matrix, error) {
	c, err := qr.Encode(text, qr.M)
	if err != nil {
		return matrix{}, fmt.Errorf("qr code of %d bytes: %w", len(text), err)
	}
	// Outside the code Black is false, which is the margin.
	return matrix{c.Size + 2*quiet, func(x, y int) bool { return c.Black(x-quiet, y-quiet) }}, nil
}

// path is the dark modules as an SVG path, one rectangle for each run.
func (m matrix) path() string {
	var b strings.Builder
	for y := range m.size {
		for x := 0; x < m.size; x++ {
			n := 0
			for m.black(x+n, y) {
				n++
			}
			if n > 0 {
				fmt.Fprintf(&b, "M%d %dh%dv1h-%dz", x, y, n, n)
				x += n
			}
		}
	}
	return b.String()
}

// blocks draws two rows of modules in a line of text, light on dark: a
// terminal draws its text lighter than the ground.
func (m matrix) blocks() string {
	var b strings.Builder
	light := func(x, y int) bool { return y < m.size && !m.black(x, y) }
	for y := 0; y < m.size; y += 2 {
		for x := range m.size {
			switch up, down := light(x, y), light(x, y+1); {
			case up && down:
				b.WriteRune('█')
			case up:
				b.WriteRune('▀')
			case down:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
