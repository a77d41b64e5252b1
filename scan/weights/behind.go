package weights

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/pickle"
)

const (
	// searchChunk is how much is searched in one piece, searchOverlap what
	// two pieces share: the longest name with its opcode.
	searchChunk   = 1 << 20
	searchOverlap = 256
	// maxModule bounds the names that are looked for.
	maxModule = 64
	// maxHits bounds what is listed of them.
	maxHits = 5
)

// behind looks for dangerous names behind the point where a pickle breaks, as
// the opcodes write them: joblib puts arrays between the opcodes, and what
// broke for the machine of scan/pickle may go on for another loader. It can
// only make a verdict worse.
func (v *visit) behind(rep *pickle.Report, at int64) error {
	from := at + rep.Bytes
	if rep.Safe || from >= v.f.Size {
		return nil
	}
	hits, err := searchNames(io.NewSectionReader(v.content, from, v.f.Size-from))
	if err != nil {
		return fmt.Errorf("search %s: %w", v.f.Name(), err)
	}
	if len(hits) > 0 {
		v.add(scan.Critical, "MODEL-PICKLE-DANGER", "the pickle cannot be read beyond byte %d, and behind it opcodes name the modules %s", from, quoteList(hits))
	}
	return nil
}

// searchNames lists dangerous modules that r names as GLOBAL and INST do, in a
// line, or as a counted text that STACK_GLOBAL would take.
func searchNames(r io.Reader) ([]string, error) {
	var hits []string
	seen := map[string]bool{}
	hit := func(module []byte) {
		if m := string(module); len(hits) < maxHits && !seen[m] {
			seen[m] = true
			hits = append(hits, m)
		}
	}
	buf := make([]byte, searchChunk)
	n := 0
	for {
		got, err := io.ReadFull(r, buf[n:])
		n += got
		searchLines(buf[:n], hit)
		searchCounted(buf[:n], hit)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return hits, nil
		}
		if err != nil {
			return nil, err
		}
		n = copy(buf, buf[n-searchOverlap:n])
	}
}

// searchLines finds c or i, a module, a newline, a name and a newline.
func searchLines(b []byte, hit func([]byte)) {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return
		}
		end := at + i
		at = end + 1
		next := bytes.IndexByte(b[at:min(len(b), at+searchOverlap)], '\n')
		if next <= 0 || !dottedName(b[at:at+next]) {
			continue
		}
		start := end
		for start > 0 && end-start <= maxModule && (nameByte(b[start-1]) || b[start-1] == '.') {
			start--
		}
		for s := start; s < end; s++ {
			if (b[s] == 'c' || b[s] == 'i') && dangerousGlobal(string(b[s+1:end]), string(b[at:at+next])) {
				hit(b[s+1 : end])
			}
		}
	}
}

// searchCounted finds two counted texts and STACK_GLOBAL, as picklers write a
// global. Texts alone are vocabulary.
func searchCounted(b []byte, hit func([]byte)) {
	for i, c := range b {
		if c != 0x8c && c != 'X' {
			continue
		}
		module, at := countedName(b, i)
		name, at := countedName(b, at)
		if name != nil && at < len(b) && b[at] == 0x93 && dangerousGlobal(string(module), string(name)) {
			hit(module)
		}
	}
}

// countedName is the name that SHORT_BINUNICODE or BINUNICODE pushes at a
// place, and where the opcode behind it stands, memo entries passed over; nil
// if there is none.
func countedName(b []byte, at int) ([]byte, int) {
	var n int
	switch {
	case at < 0 || at >= len(b):
		return nil, -1
	case b[at] == 0x8c && at+2 <= len(b):
		n, at = int(b[at+1]), at+2
	case b[at] == 'X' && at+5 <= len(b) && b[at+2] == 0 && b[at+3] == 0 && b[at+4] == 0:
		n, at = int(b[at+1]), at+5
	default:
		return nil, -1
	}
	if n > maxModule || at+n > len(b) || !dottedName(b[at:at+n]) {
		return nil, -1
	}
	name := b[at : at+n]
	if at += n; at < len(b) {
		switch b[at] {
		case 0x94: // MEMOIZE
			at++
		case 'q': // BINPUT
			at += 2
		case 'r': // LONG_BINPUT
			at += 5
		}
	}
	return name, at
}

func nameByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= '0' && c <= '9'
}

func dottedName(b []byte) bool {
	for _, c := range b {
		if !nameByte(c) && c != '.' {
			return false
		}
	}
	return len(b) > 0
}
