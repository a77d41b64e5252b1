package pickle

import (
	"strings"
)

// global is the opcode that names a global in two lines.
func (m *machine) global() error {
	v, err := m.globalLines()
	if err != nil {
		return err
	}
	return m.push(v)
}

func (m *machine) globalLines() (value, error) {
	b, err := m.r.line()
	if err != nil {
		return value{}, err
	}
	if len(b) > maxText {
		return value{}, m.fail(CodeLimit, "a module's name of %d bytes", len(b))
	}
	module := string(b)
	b, err = m.r.line()
	if err != nil {
		return value{}, err
	}
	if len(b) > maxText {
		return value{}, m.fail(CodeLimit, "a name of %d bytes", len(b))
	}
	return m.find(module, string(b))
}

// stackGlobal takes module and name from the stack: texts that stand in the
// stream as they are, if through the memo. What an opcode computed, or may be
// bytes to another loader, is no name.
func (m *machine) stackGlobal() error {
	if err := m.need(2); err != nil {
		return err
	}
	at := len(m.stack) - 2
	module, name := m.stack[at], m.stack[at+1]
	m.stack = m.stack[:at]
	mod, ok1 := module.text()
	nam, ok2 := name.text()
	if !ok1 || !ok2 || module.kind != kindStr || name.kind != kindStr {
		if err := m.refuse(CodeStackGlobal, "the name of a global is not literal text: %s, %s", module, name); err != nil {
			return err
		}
		return m.push(value{kind: kindUnknown})
	}
	v, err := m.find(mod, nam)
	if err != nil {
		return err
	}
	return m.push(v)
}

// find is a global by its name. One that is not on the list is refused here,
// whatever happens with it.
func (m *machine) find(module, name string) (value, error) {
	if m.proto < 3 && module == "__builtin__" {
		module = "builtins" // as fix_imports does; no other name on the lists moved
	}
	if m.plain {
		if err := m.refuse(CodeLegacy, "a global where torch.save writes plain data only"); err != nil {
			return value{}, err
		}
	}
	key := module + "\n" + name
	if o := m.globals[key]; o != nil {
		return value{kind: kindGlobal, o: o}, nil
	}
	if len(m.globals) >= maxGlobals {
		return value{}, m.fail(CodeLimit, "more than %d globals", maxGlobals)
	}
	if err := m.keep(objectSize + storageSize + 2*len(key)); err != nil {
		return value{}, err
	}
	g := &known{module: shown(module), name: shown(name)}
	if !plainName(module, true) || !plainName(name, false) {
		if err := m.refuse(CodeName, "%s is no plain name of a global", g); err != nil {
			return value{}, err
		}
	} else {
		g.entry = m.allow[module+"."+name]
	}
	m.rep.Globals = append(m.rep.Globals, Global{Module: g.module, Name: g.name, Listed: g.entry != nil, Offset: m.at})
	m.order = append(m.order, g)
	if g.entry == nil {
		if err := m.refuse(CodeGlobal, "%s is not on the allowlist of profile %s", g, m.rep.Profile); err != nil {
			return value{}, err
		}
	}
	o := &object{weight: 1, g: g}
	m.globals[key] = o
	return value{kind: kindGlobal, o: o}, nil
}

// plainName holds that s is an identifier; a module may have dots between
// several.
func plainName(s string, dots bool) bool {
	if dots {
		for part := range strings.SplitSeq(s, ".") {
			if !plainName(part, false) {
				return false
			}
		}
		return true
	}
	for i, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && c != '_' && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func (m *machine) reduce() error { return m.invoke(roleCalled) }
func (m *machine) newObj() error { return m.invoke(roleCreated) }

// invoke calls what stands below the arguments, or creates an instance of it.
func (m *machine) invoke(r role) error {
	if err := m.need(2); err != nil {
		return err
	}
	at := len(m.stack) - 2
	fn, args := m.stack[at], m.stack[at+1]
	m.stack = m.stack[:at]
	v, err := m.call(fn, args, r)
	if err != nil {
		return err
	}
	return m.push(v)
}

// call is what comes of calling fn.
func (m *machine) call(fn, args value, r role) (value, error) {
	code, does := CodeCall, "calls"
	if r == roleCreated {
		code, does = CodeNew, "creates an instance of"
	}
	unknown := value{kind: kindUnknown}
	if fn.kind == kindUnknown {
		return unknown, nil
	}
	if fn.kind != kindGlobal {
		return unknown, m.refuse(code, "%s %s, which is no global", does, fn)
	}
	g := fn.o.g
	g.role |= r
	signatures := g.entry.signatures(r)
	if len(signatures) == 0 {
		return unknown, m.refuse(code, "%s %s", does, g)
	}
	if args.kind == kindUnknown || args.has(flagRefused) {
		return unknown, nil
	}
	result := g.entry.result
	switch {
	case g.entry.wraps:
		result = m.wrapped(args)
	case !matchesAny(signatures, args):
		result = kindUnknown
	}
	if result == kindUnknown {
		return unknown, m.refuse(CodeArgs, "%s %s with arguments that it is not meant for", does, g)
	}
	return m.made(result, args)
}

// made is a value that a call returned. What came in with the arguments
// counts for it.
func (m *machine) made(k kind, args value) (value, error) {
	if !k.changes() && light(args) {
		return value{kind: k}, nil
	}
	v, err := m.container(k)
	if err != nil || args.n == 0 {
		return v, err
	}
	return v, m.join(v.o, args)
}

// light says that arguments hold nothing but plain values and shapes, as those
// of a tensor do: its value needs no object then.
func light(args value) bool {
	for i := range args.n {
		v, ok := args.item(i)
		if !ok || v.o != nil && v.weight() > 1 {
			return false
		}
	}
	return true
}

// wrapped is the result of _rebuild_from_type_v2(func, type, args, state),
// which calls its first argument: that must be a function that rebuilds a
// tensor, with the arguments it is meant for.
func (m *machine) wrapped(args value) kind {
	if !matches("fTxa", args) {
		return kindUnknown
	}
	fn, _ := args.item(0)
	typ, _ := args.item(1)
	inner, _ := args.item(2)
	fn.o.g.role |= roleCalled
	if inner.kind != kindTuple || !matchesAny(fn.o.g.entry.calls, inner) {
		return kindUnknown
	}
	return typ.o.g.entry.result
}

// newObjEx passes keyword arguments, which no allowed class takes.
func (m *machine) newObjEx() error {
	if err := m.need(3); err != nil {
		return err
	}
	at := len(m.stack) - 3
	cls := m.stack[at]
	m.stack = m.stack[:at]
	if cls.kind == kindGlobal {
		cls.o.g.role |= roleCreated
	}
	if err := m.refuse(CodeNew, "creates an instance of %s with keyword arguments", cls); err != nil {
		return err
	}
	return m.push(value{kind: kindUnknown})
}

// build sets the state of the value on top.
func (m *machine) build() error {
	if err := m.need(2); err != nil {
		return err
	}
	state, err := m.pop()
	if err != nil {
		return err
	}
	inst, err := m.top()
	if err != nil {
		return err
	}
	if inst.kind == kindUnknown || state.kind == kindUnknown || state.has(flagRefused) {
		*inst = value{kind: kindUnknown}
		return nil
	}
	forms := states[inst.kind]
	switch {
	case forms == nil:
		err = m.refuse(CodeBuild, "sets the state of %s", *inst)
	case !stateFits(forms, state):
		err = m.refuse(CodeBuild, "sets the state of %s to %s that it is not meant for", *inst, state)
	case inst.has(flagShared):
		return m.fail(CodeShared, "%s changes after it was used elsewhere", *inst)
	case inst.kind.changes():
		return m.join(inst.o, state)
	default:
		return nil
	}
	*inst = value{kind: kindUnknown}
	return err
}

// inst is GLOBAL, a call, and a mark in one. Nothing writes it today.
func (m *machine) inst() error {
	v, err := m.globalLines()
	if err != nil {
		return err
	}
	if _, err := m.popMark(); err != nil {
		return err
	}
	return m.oldCall(v)
}

// obj calls the class above the mark with what follows it.
func (m *machine) obj() error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return m.fail(CodeStack, "no class above the mark")
	}
	return m.oldCall(items[0])
}

func (m *machine) oldCall(cls value) error {
	if cls.kind == kindGlobal {
		cls.o.g.role |= roleCalled
	}
	if err := m.refuse(CodeInst, "%s calls %s", m.op.name, cls); err != nil {
		return err
	}
	return m.push(value{kind: kindUnknown})
}

func (m *machine) ext(size int) error {
	n, err := m.r.number(size)
	if err != nil {
		return err
	}
	if err := m.refuse(CodeExt, "global number %d of the loader's registry", n); err != nil {
		return err
	}
	return m.push(value{kind: kindUnknown})
}

func (m *machine) ext1() error { return m.ext(1) }
func (m *machine) ext2() error { return m.ext(2) }
func (m *machine) ext4() error { return m.ext(4) }

func (m *machine) nextBuffer() error {
	if err := m.refuse(CodeBuffer, "data outside of the stream"); err != nil {
		return err
	}
	return m.push(value{kind: kindUnknown})
}

func (m *machine) readonlyBuffer() error {
	if _, err := m.top(); err != nil {
		return err
	}
	return m.refuse(CodeBuffer, "a view of data outside of the stream")
}
