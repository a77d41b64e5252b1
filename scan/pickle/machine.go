package pickle

import (
	"io"
)

// A machine runs the pickles of one stream. Its budgets span them all; the
// stack and the memo are those of the pickle at hand.
type machine struct {
	r      *reader
	rep    *Report
	allow  map[string]*entry
	limits Limits

	op       *opcode // at hand
	code     byte    // its byte
	at       int64   // its offset
	opcodes  int64
	kept     int64
	refusals int

	globals  map[string]*object
	order    []*known // as in the report
	storages map[string]int

	pidItems int64 // of a persistent id: 5, and 6 in the older form of torch.save
	plain    bool  // the pickle may hold plain data only
	keepList bool  // the items of lists are wanted

	head [maxText]byte // the beginning of the text at hand

	stack  []value
	marks  []int
	memo   []value
	filled int // entries of the memo
	proto  int // as PROTO says, 1 without it
	first  int64
	result value
	done   bool
}

func newMachine(r io.Reader, allow map[string]*entry, o Options) *machine {
	limits := o.Limits.withDefaults()
	return &machine{
		r: newReader(r, limits.Bytes), allow: allow, limits: limits,
		rep: &Report{
			Profile: o.Profile.String(), Globals: []Global{}, Findings: []Finding{}, Notes: []Finding{}, Storages: []Storage{},
		},
		globals: map[string]*object{}, storages: map[string]int{}, pidItems: 5,
	}
}

// pickle runs one pickle to its STOP and returns what it makes.
func (m *machine) pickle() (value, error) {
	m.stack, m.marks = m.stack[:0], m.marks[:0]
	clear(m.memo)
	m.memo, m.filled = m.memo[:0], 0
	m.proto, m.first, m.done = 1, m.r.off, false
	for !m.done {
		if err := m.step(); err != nil {
			return value{}, err
		}
	}
	return m.result, nil
}

func (m *machine) step() error {
	m.at = m.r.off
	b, err := m.r.opcode()
	if err != nil {
		return err
	}
	op := &ops[b]
	m.op, m.code = op, b
	if op.run == nil {
		return &halt{code: CodeOpcode, off: m.at, text: "byte " + hex(b) + " is no opcode"}
	}
	if m.opcodes++; m.opcodes > m.limits.Opcodes {
		return m.fail(CodeLimit, "more than %d opcodes", m.limits.Opcodes)
	}
	if op.proto > m.proto && op.name != "PROTO" {
		err = m.refuse(CodeProtocol, "%s is of protocol %d; the pickle declares %d", op.name, op.proto, m.proto)
		if err != nil {
			return err
		}
	}
	return op.run(m)
}

func hex(b byte) string {
	const digits = "0123456789abcdef"
	return "0x" + string(digits[b>>4]) + string(digits[b&15])
}

// fence is where the values above the last mark begin: no opcode but those
// that take a mark reaches below.
func (m *machine) fence() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

// need holds that n values stand above the last mark.
func (m *machine) need(n int) error {
	if have := len(m.stack) - m.fence(); have < n {
		return m.fail(CodeStack, "needs %d values, has %d", n, have)
	}
	return nil
}

func (m *machine) push(v value) error {
	if len(m.stack) >= m.limits.Stack {
		return m.fail(CodeLimit, "more than %d values on the stack", m.limits.Stack)
	}
	m.stack = append(m.stack, v)
	return nil
}

func (m *machine) pop() (value, error) {
	if err := m.need(1); err != nil {
		return value{}, err
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

// top is the value that an opcode changes in place.
func (m *machine) top() (*value, error) {
	if err := m.need(1); err != nil {
		return nil, err
	}
	return &m.stack[len(m.stack)-1], nil
}

// popMark takes the values above the last mark, and the mark. They are good
// until the next push.
func (m *machine) popMark() ([]value, error) {
	if len(m.marks) == 0 {
		return nil, m.fail(CodeStack, "there is no mark")
	}
	at := m.fence()
	items := m.stack[at:]
	m.stack, m.marks = m.stack[:at], m.marks[:len(m.marks)-1]
	return items, nil
}

// keep counts what the machine holds on to.
func (m *machine) keep(bytes int) error {
	if m.kept += int64(bytes); m.kept > m.limits.Kept {
		return m.fail(CodeLimit, "names, tuples and containers take more than %d bytes", m.limits.Kept)
	}
	return nil
}

// object makes one of a container without anything in it.
func (m *machine) object() (*object, error) {
	return &object{weight: 1, depth: 1}, m.keep(objectSize)
}

func (m *machine) mark() error {
	if len(m.marks) >= m.limits.Depth {
		return m.fail(CodeLimit, "more than %d marks", m.limits.Depth)
	}
	m.marks = append(m.marks, len(m.stack))
	return nil
}

func (m *machine) stop() error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	if len(m.stack) > 0 || len(m.marks) > 0 {
		err = m.refuse(CodeLeftover, "%d values and %d marks are left on the stack", len(m.stack), len(m.marks))
		if err != nil {
			return err
		}
	}
	if m.r.frame != noFrame && m.r.frame != m.r.off {
		return m.fail(CodeFrame, "the frame goes on to byte %d", m.r.frame)
	}
	m.r.frame = noFrame
	m.result, m.done = v, true
	return nil
}

// popOp drops a value, or a mark where nothing stands above it.
func (m *machine) popOp() error {
	if len(m.marks) > 0 && len(m.stack) == m.fence() {
		_, err := m.popMark()
		return err
	}
	_, err := m.pop()
	return err
}

func (m *machine) popMarkOp() error {
	_, err := m.popMark()
	return err
}

func (m *machine) dup() error {
	v, err := m.top()
	if err != nil {
		return err
	}
	return m.push(share(*v))
}

// share marks what stands in a second place.
func share(v value) value {
	if v.kind.changes() {
		v.o.flags |= flagShared
	}
	return v
}

func (m *machine) get(i uint64) error {
	if i >= uint64(len(m.memo)) || m.memo[i].kind == kindNothing {
		return m.fail(CodeMemo, "the memo has no entry %d", i)
	}
	return m.push(share(m.memo[i]))
}

func (m *machine) put(i uint64) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	if i >= uint64(m.limits.Memo) { // #nosec G115 -- a limit is positive
		return m.fail(CodeLimit, "memo entry %d is above the limit of %d", i, m.limits.Memo)
	}
	for uint64(len(m.memo)) <= i {
		m.memo = append(m.memo, value{})
	}
	if m.memo[i].kind == kindNothing {
		m.filled++
	}
	m.memo[i] = *v
	return nil
}

// memoize puts under the number of entries, which need not be free.
func (m *machine) memoize() error {
	return m.put(uint64(m.filled)) // #nosec G115 -- not negative
}

func (m *machine) getLine() error { return m.indexLine(m.get) }
func (m *machine) putLine() error { return m.indexLine(m.put) }

func (m *machine) indexed(n int, do func(uint64) error) error {
	i, err := m.r.number(n)
	if err != nil {
		return err
	}
	return do(i)
}

func (m *machine) binGet() error     { return m.indexed(1, m.get) }
func (m *machine) longBinGet() error { return m.indexed(4, m.get) }
func (m *machine) binPut() error     { return m.indexed(1, m.put) }
func (m *machine) longBinPut() error { return m.indexed(4, m.put) }

// protocol comes first in a pickle of protocol 2 or later, and once.
func (m *machine) protocol() error {
	p, err := m.r.number(1)
	if err != nil {
		return err
	}
	if m.at != m.first {
		return m.fail(CodeProtocol, "stands behind other opcodes")
	}
	if p < 2 || p > latest {
		return m.fail(CodeProtocol, "unknown protocol %d", p)
	}
	m.proto = int(p) // #nosec G115 -- 2 to 5
	m.rep.Protocol = max(m.rep.Protocol, m.proto)
	return nil
}

func (m *machine) frame() error {
	inside := m.r.frame != noFrame
	n, err := m.r.number(8)
	if err != nil {
		return err
	}
	if inside {
		return m.fail(CodeFrame, "stands in another frame")
	}
	if err := m.r.claim(n); err != nil {
		return err
	}
	m.r.frame = m.r.off + int64(n) // #nosec G115 -- claim bounds it
	return nil
}
