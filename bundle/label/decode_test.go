package label

import (
	"errors"
	"fmt"
)

// decode reads a drawn QR code without its error correction: ISO/IEC 18004,
// versions 1 to 9, level M, byte mode. It is written from the standard and
// shares nothing with the encoder, so that a mistake of the one is not one of
// the other.
func decode(grid [][]bool) (string, error) {
	side := len(grid) - 2*quiet
	version := (side - 17) / 4
	if version < 1 || version > 9 || side != 17+4*version {
		return "", fmt.Errorf("%d modules", side)
	}
	for y := range grid {
		for x := range grid {
			inside := y >= quiet && y < quiet+side && x >= quiet && x < quiet+side
			if !inside && grid[y][x] {
				return "", fmt.Errorf("the margin is dark at %d, %d", x, y)
			}
		}
	}
	at := func(x, y int) bool { return grid[y+quiet][x+quiet] }
	mask, err := format(at)
	if err != nil {
		return "", err
	}
	bits := readBits(at, side, version, mask)
	return readBytes(deinterleave(bits, version))
}

// format reads the first copy of the format information and gives the mask.
func format(at func(x, y int) bool) (int, error) {
	order := [][2]int{{0, 8}, {1, 8}, {2, 8}, {3, 8}, {4, 8}, {5, 8}, {7, 8}, {8, 8}, {8, 7}, {8, 5}, {8, 4}, {8, 3}, {8, 2}, {8, 1}, {8, 0}}
	v := 0
	for _, p := range order {
		v <<= 1
		if at(p[0], p[1]) {
			v |= 1
		}
	}
	v ^= 0x5412
	// BCH (15,5): what is left after division must be nothing.
	rest := v
	for i := 14; i >= 10; i-- {
		if rest&(1<<i) != 0 {
			rest ^= 0x537 << (i - 10)
		}
	}
	if rest != 0 {
		return 0, errors.New("format information is damaged")
	}
	if level := v >> 13; level != 0 {
		return 0, fmt.Errorf("error correction level %d, want M", level)
	}
	return v >> 10 & 7, nil
}

// readBits follows the columns of two, upwards and downwards.
func readBits(at func(x, y int) bool, side, version, mask int) []bool {
	var bits []bool
	up := true
	for right := side - 1; right > 0; right -= 2 {
		if right == 6 {
			right--
		}
		for i := range side {
			y := i
			if up {
				y = side - 1 - i
			}
			for _, x := range []int{right, right - 1} {
				if !function(x, y, side, version) {
					bits = append(bits, at(x, y) != masked(mask, x, y))
				}
			}
		}
		up = !up
	}
	return bits
}

func masked(mask, x, y int) bool {
	switch mask {
	case 0:
		return (x+y)%2 == 0
	case 1:
		return y%2 == 0
	case 2:
		return x%3 == 0
	case 3:
		return (x+y)%3 == 0
	case 4:
		return (y/2+x/3)%2 == 0
	case 5:
		return x*y%2+x*y%3 == 0
	case 6:
		return (x*y%2+x*y%3)%2 == 0
	}
	return ((x+y)%2+x*y%3)%2 == 0
}

// function says which modules hold no data.
func function(x, y, side, version int) bool {
	switch {
	case x < 9 && y < 9, x >= side-8 && y < 9, x < 9 && y >= side-8: // finders, format
		return true
	case x == 6, y == 6: // timing
		return true
	case version >= 7 && (x < 6 && y >= side-11 || y < 6 && x >= side-11): // version
		return true
	}
	// Alignment patterns: rows and columns of their centres.
	centres := map[int][]int{2: {6, 18}, 3: {6, 22}, 4: {6, 26}, 5: {6, 30}, 6: {6, 34}, 7: {6, 22, 38}, 8: {6, 24, 42}, 9: {6, 26, 46}}[version]
	for i, cx := range centres {
		for j, cy := range centres {
			last := len(centres) - 1
			if i == 0 && j == 0 || i == 0 && j == last || i == last && j == 0 {
				continue // a finder is there
			}
			if x >= cx-2 && x <= cx+2 && y >= cy-2 && y <= cy+2 {
				return true
			}
		}
	}
	return false
}

// deinterleave puts the data codewords of the blocks one after the other.
func deinterleave(bits []bool, version int) []byte {
	words := make([]byte, len(bits)/8)
	for i := range words {
		for _, b := range bits[8*i : 8*i+8] {
			words[i] <<= 1
			if b {
				words[i] |= 1
			}
		}
	}
	// Level M: lengths of the blocks' data.
	lens := map[int][]int{
		1: {16}, 2: {28}, 3: {44}, 4: {32, 32}, 5: {43, 43}, 6: {27, 27, 27, 27}, 7: {31, 31, 31, 31},
		8: {38, 38, 39, 39}, 9: {36, 36, 36, 37, 37},
	}[version]
	blocks := make([][]byte, len(lens))
	for i, n := 0, 0; n < len(words) && i < lens[len(lens)-1]; i++ {
		for b := range blocks {
			if i < lens[b] {
				blocks[b] = append(blocks[b], words[n])
				n++
			}
		}
	}
	var data []byte
	for _, b := range blocks {
		data = append(data, b...)
	}
	return data
}

// readBytes reads the segments of the data: numeric, alphanumeric and bytes.
func readBytes(data []byte) (string, error) {
	pos := 0
	take := func(n int) (v int) {
		for range n {
			v <<= 1
			if pos/8 < len(data) && data[pos/8]&(0x80>>(pos%8)) != 0 {
				v |= 1
			}
			pos++
		}
		return v
	}
	out := ""
	for pos+4 <= 8*len(data) {
		switch mode := take(4); mode {
		case 0:
			return out, nil
		case 4:
			n := take(8)
			for range n {
				out += string(rune(take(8)))
			}
		default:
			return "", fmt.Errorf("mode %d", mode)
		}
	}
	return out, nil
}
