package walk

import (
	"bytes"
	"encoding/binary"
)

// isPickle tells a pickle by its protocol and a second opcode, or, for
// protocols 0 and 1, which have no beginning of their own, by reading opcodes:
// what is no pickle hardly gets far. A pickle that is not told here is Data or
// Text, and a matter of who knows what the name promises.
func isPickle(head []byte) bool {
	if len(head) >= 3 && head[0] == 0x80 && head[1] <= 5 {
		return arguments(head[2]) != argNone
	}
	// What protocols 0 and 1 start with: a container, a mark, a global, a
	// number or text.
	if len(head) < 2 || bytes.IndexByte([]byte("(]})[cKMJGIFLSVUXTN"), head[0]) < 0 {
		return false
	}
	return plausible(head)
}

// An argument is what follows an opcode.
type argument int

const (
	argNone  argument = iota // not an opcode
	argZero                  // nothing
	argLine                  // a line of text
	argLines                 // two
	argOne                   // so many bytes
	argTwo
	argFour
	argEight
	argCount1 // a count and so many bytes
	argCount4
	argCount8
)

// arguments of the opcodes of all protocols.
func arguments(op byte) argument {
	switch op {
	case '(', '.', '0', '1', '2', 'N', 'R', 'Q', 'a', 'b', 'd', '}', 'e', 'l', ']', 'o', 's', 't', ')', 'u',
		0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8f, 0x90, 0x91, 0x92, 0x93, 0x94, 0x97, 0x98:
		return argZero
	case 'F', 'I', 'L', 'S', 'V', 'P', 'g', 'p':
		return argLine
	case 'c', 'i':
		return argLines
	case 'K', 'h', 'q', 0x80, 0x82:
		return argOne
	case 'M', 0x83:
		return argTwo
	case 'J', 'j', 'r', 0x84:
		return argFour
	case 'G', 0x95:
		return argEight
	case 'U', 'C', 0x8a, 0x8c:
		return argCount1
	case 'T', 'X', 'B', 0x8b:
		return argCount4
	case 0x8d, 0x8e, 0x96:
		return argCount8
	}
	return argNone
}

// plausible reads opcodes until STOP or the end of the head and follows how
// many values and marks there are.
func plausible(b []byte) bool {
	const enough = 3 // opcodes before STOP: not "N." alone
	values, marks, telling := 0, []int{}, false
	for n := 0; ; n++ {
		if len(b) == 0 {
			return telling && n > enough
		}
		op := b[0]
		size, ok := argumentSize(b)
		if !ok || op >= 0x80 {
			return false // no opcode of protocols 0 and 1
		}
		if size > len(b) {
			return telling && n > enough // goes on behind the head
		}
		if op == 'c' || op == 'i' {
			if !isGlobal(b[1:size]) {
				return false
			}
			telling = true
		}
		b = b[size:]
		pop, push := 0, 0
		switch op {
		case '.':
			return values == 1 && len(marks) == 0 && telling && n >= enough
		case '(':
			marks = append(marks, values)
			continue
		case 'd', 'e', 'l', 't', 'u', 'o', 'i', '1': // down to the mark
			if len(marks) == 0 || values < marks[len(marks)-1] {
				return false
			}
			values, marks = marks[len(marks)-1], marks[:len(marks)-1]
			telling = true
			switch op {
			case 'e', 'u':
				pop, push = 1, 1
			case '1':
			default:
				push = 1
			}
		case 'a', 'R', 'b':
			pop, push = 2, 1
			telling = true
		case 's':
			pop, push = 3, 1
			telling = true
		case 'p', 'q', 'r', 'Q':
			pop, push = 1, 1
		case '0':
			pop = 1
		case '2':
			pop, push = 1, 2
		default:
			push = 1
			telling = telling || op == ']' || op == '}'
		}
		if values < pop {
			return false
		}
		values += push - pop
	}
}

// argumentSize is the length of an opcode with its argument, more than there
// is if that goes on behind the head.
func argumentSize(b []byte) (int, bool) {
	rest := b[1:]
	line := func(b []byte) int {
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			return i + 1
		}
		return len(b) + 1
	}
	count := func(n uint64) int { return int(min(n, headSize)) } // bounded
	switch arguments(b[0]) {
	case argZero:
		return 1, true
	case argLine:
		n := line(rest)
		return 1 + n, n <= len(rest) || len(rest) > 100
	case argLines:
		n := line(rest)
		if n > len(rest) {
			return 1 + n, true
		}
		return 1 + n + line(rest[n:]), true
	case argOne:
		return 2, true
	case argTwo:
		return 3, true
	case argFour:
		return 5, true
	case argEight:
		return 9, true
	case argCount1:
		if len(rest) < 1 {
			return 2, true
		}
		return 2 + int(rest[0]), true
	case argCount4:
		if len(rest) < 4 {
			return 5, true
		}
		return 5 + count(uint64(binary.LittleEndian.Uint32(rest))), true
	}
	return 0, false
}

// isGlobal tells two lines that name a module and something in it.
func isGlobal(b []byte) bool {
	module, name, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return false
	}
	for _, part := range [][]byte{module, bytes.TrimSuffix(name, []byte("\n"))} {
		if len(part) == 0 || part[0] >= '0' && part[0] <= '9' {
			return false
		}
		for _, c := range part {
			if c != '_' && c != '.' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c < 0x80 {
				return false
			}
		}
	}
	return true
}
