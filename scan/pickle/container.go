package pickle

// join makes an object hold items as well: what it would be written out, how
// deep it is, and what is in it.
func (m *machine) join(o *object, items ...value) error {
	for _, v := range items {
		o.weight += v.weight()
		o.depth = max(o.depth, v.depth()+1)
		o.flags |= v.flags() & (flagCallable | flagRefused)
		if v.kind == kindGlobal && v.o.g.entry.callable() {
			o.flags |= flagCallable
		}
	}
	if int(o.depth) > m.limits.Depth {
		return m.fail(CodeLimit, "more than %d containers in each other", m.limits.Depth)
	}
	if o.weight > freeWeight+maxShare*m.opcodes {
		return m.fail(CodeLimit, "written out without sharing, it would be %d values", o.weight)
	}
	return nil
}

// makeTuple makes one of the items, which are copied.
func (m *machine) makeTuple(items []value) (value, error) {
	ints := true
	for _, v := range items {
		ints = ints && (v.kind == kindInt || v.kind == kindMagic)
	}
	if ints {
		// Shapes and strides are nearly all tuples there are.
		return value{kind: kindTuple, n: int64(len(items))}, nil
	}
	o, err := m.object()
	if err != nil {
		return value{}, err
	}
	if err := m.join(o, items...); err != nil {
		return value{}, err
	}
	for _, v := range items {
		if !v.hashable() {
			o.flags |= flagUnhashable
		}
	}
	if len(items) <= maxItems {
		if err := m.keep(valueSize * len(items)); err != nil {
			return value{}, err
		}
		o.items = append(make([]value, 0, len(items)), items...)
	}
	return value{kind: kindTuple, n: int64(len(items)), o: o}, nil
}

func (m *machine) emptyTuple() error { return m.push(value{kind: kindTuple}) }

func (m *machine) tuple() error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	v, err := m.makeTuple(items)
	if err != nil {
		return err
	}
	return m.push(v)
}

func (m *machine) tupleOf(n int) error {
	if err := m.need(n); err != nil {
		return err
	}
	at := len(m.stack) - n
	v, err := m.makeTuple(m.stack[at:])
	if err != nil {
		return err
	}
	m.stack = m.stack[:at]
	return m.push(v)
}

func (m *machine) tuple1() error { return m.tupleOf(1) }
func (m *machine) tuple2() error { return m.tupleOf(2) }
func (m *machine) tuple3() error { return m.tupleOf(3) }

// container makes an empty one that can grow.
func (m *machine) container(k kind) (value, error) {
	o, err := m.object()
	return value{kind: k, o: o}, err
}

func (m *machine) pushContainer(k kind) error {
	v, err := m.container(k)
	if err != nil {
		return err
	}
	return m.push(v)
}

func (m *machine) emptyList() error { return m.pushContainer(kindList) }
func (m *machine) emptyDict() error { return m.pushContainer(kindDict) }
func (m *machine) emptySet() error  { return m.pushContainer(kindSet) }

// fromMark makes a container of what stands above the mark.
func (m *machine) fromMark(k kind, add func(value, []value) error) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	v, err := m.container(k)
	if err != nil {
		return err
	}
	if err := add(v, items); err != nil {
		return err
	}
	return m.push(v)
}

func (m *machine) list() error      { return m.fromMark(kindList, m.addItems) }
func (m *machine) dict() error      { return m.fromMark(kindDict, m.addPairs) }
func (m *machine) frozenSet() error { return m.fromMark(kindFrozenSet, m.addMembers) }

// addItems adds to a list.
func (m *machine) addItems(to value, items []value) error {
	for _, v := range items {
		if !v.hashable() {
			to.o.flags |= flagMembers
		}
	}
	if m.keepList {
		if err := m.keep(valueSize * len(items)); err != nil {
			return err
		}
		to.o.items = append(to.o.items, items...)
	}
	return m.join(to.o, items...)
}

// addPairs adds keys and values to a dictionary.
func (m *machine) addPairs(to value, items []value) error {
	if len(items)%2 != 0 {
		return m.fail(CodeMalformed, "a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		if !items[i].hashable() {
			return m.fail(CodeUnhashable, "%s as a key", items[i])
		}
	}
	return m.join(to.o, items...)
}

// addMembers adds to a set.
func (m *machine) addMembers(to value, items []value) error {
	for _, v := range items {
		if !v.hashable() {
			return m.fail(CodeUnhashable, "%s in a set", v)
		}
	}
	return m.join(to.o, items...)
}

// growth says what may grow by which opcode.
var growth = map[byte][]kind{
	'a': {kindList}, 'e': {kindList},
	's': {kindDict, kindOrdered, kindCounter}, 'u': {kindDict, kindOrdered, kindCounter},
	0x90: {kindSet},
}

// grow adds items to the value on top. Any other object than those of growth
// would have a method called, whose name the stream does not say.
func (m *machine) grow(items []value, add func(value, []value) error) error {
	to, err := m.top()
	if err != nil {
		return err
	}
	if to.kind == kindUnknown {
		return nil
	}
	may := false
	for _, k := range growth[m.code] {
		may = may || k == to.kind
	}
	if !may {
		if err := m.refuse(CodeMutate, "%s adds to %s", m.op.name, *to); err != nil {
			return err
		}
		*to = value{kind: kindUnknown}
		return nil
	}
	if len(items) == 0 {
		return nil
	}
	if to.has(flagShared) {
		// The machine's word about where it stands already would be wrong.
		return m.fail(CodeShared, "%s changes after it was used elsewhere", *to)
	}
	return add(*to, items)
}

func (m *machine) appendOne() error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	return m.grow([]value{v}, m.addItems)
}

func (m *machine) setOne() error {
	if err := m.need(3); err != nil {
		return err
	}
	at := len(m.stack) - 2
	pair := m.stack[at:]
	m.stack = m.stack[:at]
	return m.grow(pair, m.addPairs)
}

func (m *machine) growMany(add func(value, []value) error) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	return m.grow(items, add)
}

func (m *machine) appendMany() error { return m.growMany(m.addItems) }
func (m *machine) setMany() error    { return m.growMany(m.addPairs) }
func (m *machine) addMany() error    { return m.growMany(m.addMembers) }
