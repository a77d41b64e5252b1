// Package pickle judges, without executing anything, what a Python pickle
// would call when it is loaded. An abstract machine runs the stream, opcode
// for opcode, over values that say what would stand on the stack (this
// literal string, that global, the result of calling it, a container), so
// that a name is what the stack holds and not what stands near it in the
// file. What is called is compared with the allowlist of a [Profile].
//
// The opcodes are those of pickle protocols 0 to 5, as Lib/pickle.py of
// CPython executes them; the profile [Torch] follows torch's own
// torch/_weights_only_unpickler.py. The stream is a pickle followed by the
// end of the file, or the older form of torch.save: a magic number, a
// protocol, facts about the system, the object and the storages' keys, each
// a pickle, and then the storages.
//
// Invariants:
//   - A stream is safe only if all of it was read, to its end, and nothing
//     was found. What the machine does not know is refused.
//   - Whatever stands on the stack as unknown was refused before: an unknown
//     value is never the reason that nothing is found.
//   - The values form a graph without cycles: a list, dictionary or set that
//     was fetched a second time may not change any more. So the size it would
//     have written out is known, and bounded.
//   - The same bytes and options give the same report, however they are read.
//
// Limits: see [Limits]. Memory does not grow with the stream: payloads of
// bytes and long texts are passed over, what is kept (short texts, tuples,
// containers, storages) is counted against [Limits.Kept], and the stack and
// the memo have limits of their own. Pickles in containers
// (zip, tar, npy) have to be taken out by the caller. A stream is judged up
// to the first byte that no loader would understand; globals behind it are
// not listed.
package pickle

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Codes of findings. They are stable.
const (
	CodeArgs        = "PICKLE-ARGS"         // an allowed callable with arguments that it is not meant for
	CodeBuffer      = "PICKLE-BUFFER"       // data outside of the stream
	CodeBuild       = "PICKLE-BUILD"        // sets the state of something that is not allowed to have one
	CodeCall        = "PICKLE-CALL"         // calls what must not be called
	CodeExt         = "PICKLE-EXT"          // a global by a number of the loader's registry
	CodeFrame       = "PICKLE-FRAME"        // an opcode crosses the end of a frame, or a frame stands in a frame
	CodeGlobal      = "PICKLE-GLOBAL"       // a global that is not on the allowlist
	CodeInst        = "PICKLE-INST"         // INST or OBJ, which nothing writes today
	CodeLeftover    = "PICKLE-LEFTOVER"     // values or marks left on the stack at the end
	CodeLegacy      = "PICKLE-LEGACY"       // the older form of torch.save is violated
	CodeLimit       = "PICKLE-LIMIT"        // larger than the limits allow
	CodeMalformed   = "PICKLE-MALFORMED"    // an argument that no loader accepts
	CodeMemo        = "PICKLE-MEMO"         // the memo has no such entry
	CodeMutate      = "PICKLE-MUTATE"       // adds to something that is no plain container
	CodeName        = "PICKLE-NAME"         // a global's name with a dot or other odd characters
	CodeNew         = "PICKLE-NEW"          // creates an instance of what must not be instantiated
	CodeOpcode      = "PICKLE-OPCODE"       // not an opcode
	CodePersistent  = "PICKLE-PERSID"       // a persistent id that does not name a storage
	CodeProtocol    = "PICKLE-PROTOCOL"     // unknown, repeated or late protocol, or opcodes of a later one
	CodeShared      = "PICKLE-SHARED"       // a container changes after it was used elsewhere
	CodeStack       = "PICKLE-STACK"        // the stack is empty, or a mark is missing
	CodeStackGlobal = "PICKLE-STACK-GLOBAL" // a global whose name is computed
	CodeStorage     = "PICKLE-STORAGE"      // two storages of one key disagree
	CodeTrailing    = "PICKLE-TRAILING"     // bytes after the end
	CodeTruncated   = "PICKLE-TRUNCATED"    // the stream ends early
	CodeUnhashable  = "PICKLE-UNHASHABLE"   // a key or member that no loader can hash

	// NoteNested is a note, not a finding: bytes or a text that look like a
	// pickle themselves. Loading the stream does not load them.
	NoteNested = "PICKLE-NESTED"
)

// Limits bound what a stream may cost. A limit of zero is the default.
type Limits struct {
	Bytes   int64 // of the pickles of a stream, storages not counted
	Opcodes int64 // of a stream
	Kept    int64 // bytes of texts, tuples and other objects that are kept, about
	Stack   int   // values on the stack
	Memo    int   // the highest index of the memo
	Depth   int   // of containers in containers, and of marks
	String  int64 // bytes of one text
}

// The defaults. The pickle of a model with 30,000 tensors stays below each.
const (
	defaultBytes   = 1 << 30  // the pickle of a checkpoint of 400 GB has 20 MB
	defaultOpcodes = 64 << 20 // some seconds of work
	defaultKept    = 32 << 20 // an export has to stay below 96 MB in total
	defaultStack   = 1 << 18  // picklers write lists in batches of 1,000
	defaultMemo    = 1 << 19  // eight entries a tensor
	defaultDepth   = 500      // picklers give up at Python's recursion limit of 1,000
	defaultString  = 16 << 20 // a tokenizer stored as text
)

const (
	// maxFindings ends a judgement: more would not change it. maxRefusals
	// does, where they are all the same.
	maxFindings = 100
	maxRefusals = 10_000
	// maxGlobals bounds the list of a report. The largest profile has about
	// 150 names.
	maxGlobals = 4096
)

func (l Limits) withDefaults() Limits {
	set := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	setInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.Bytes, defaultBytes)
	set(&l.Opcodes, defaultOpcodes)
	set(&l.Kept, defaultKept)
	set(&l.String, defaultString)
	setInt(&l.Stack, defaultStack)
	setInt(&l.Memo, defaultMemo)
	setInt(&l.Depth, defaultDepth)
	return l
}

// Options say what a stream may call.
type Options struct {
	Profile Profile
	Limits  Limits
}

// A Global is a name that a stream asks for. All of it is text from outside,
// with odd characters escaped.
type Global struct {
	Module string `json:"module"`
	Name   string `json:"name"`
	Role   string `json:"role"`    // "called", "created", "called+created", or "data" for neither
	Listed bool   `json:"allowed"` // on the profile's list; the role may be refused all the same
	Offset int64  `json:"offset"`  // of the opcode that first asks for it
}

// A Finding is one thing that is held against a stream.
type Finding struct {
	Code   string `json:"code"`
	Offset int64  `json:"offset"` // of the opcode
	Text   string `json:"text"`
}

// A Storage is what a persistent id names: the bytes of a tensor, which stand
// outside of the pickle.
type Storage struct {
	Key    string `json:"key"`
	Type   string `json:"type"` // "FloatStorage"
	Device string `json:"device"`
	Count  int64  `json:"count"` // elements
	Bytes  int64  `json:"bytes"`
}

// A Report is the judgement on a stream.
type Report struct {
	Profile  string    `json:"profile"`
	Safe     bool      `json:"safe"`     // read to the end, and no findings
	Legacy   bool      `json:"legacy"`   // the older form of torch.save
	Protocol int       `json:"protocol"` // the highest that a PROTO opcode declares; 0 without one
	Bytes    int64     `json:"bytes"`    // read and accounted for
	Opcodes  int64     `json:"opcodes"`
	Globals  []Global  `json:"globals"`  // in the order of the stream, each once
	Findings []Finding `json:"findings"` // why it is not safe
	Notes    []Finding `json:"notes"`    // worth knowing; no reason to refuse
	Storages []Storage `json:"storages"` // in the order of the stream, each once
}

// Scan judges the stream that r holds, to its end. The error is one of
// reading or of the options; a hostile or broken stream is no error but a
// report that is not safe.
func Scan(r io.Reader, o Options) (*Report, error) {
	allow, err := o.Profile.names()
	if err != nil {
		return nil, err
	}
	m := newMachine(r, allow, o)
	err = m.stream()
	if h, ok := errors.AsType[*halt](err); ok {
		m.found(h.code, h.off, h.text)
	} else if err != nil {
		return nil, fmt.Errorf("read pickle at byte %d: %w", m.r.off, err)
	}
	rep := m.rep
	rep.Bytes, rep.Opcodes = m.r.off, m.opcodes
	for i, g := range m.order {
		rep.Globals[i].Role = g.role.String()
	}
	rep.Safe = err == nil && len(rep.Findings) == 0
	return rep, nil
}

// stream reads the whole of it: one pickle, or the older form of torch.save.
func (m *machine) stream() error {
	first, err := m.pickle()
	if err != nil {
		return err
	}
	if first.kind == kindMagic {
		return m.legacy()
	}
	return m.end()
}

// end holds that nothing follows.
func (m *machine) end() error {
	more, err := m.r.more()
	if err != nil {
		return err
	}
	if more {
		return m.r.halt(CodeTrailing, "bytes follow the end of the pickle")
	}
	return nil
}

// found adds a finding, unless the same stands there already.
func (m *machine) found(code string, off int64, text string) {
	same := func(f Finding) bool { return f.Code == code && f.Text == text }
	if !slices.ContainsFunc(m.rep.Findings, same) {
		m.rep.Findings = append(m.rep.Findings, Finding{Code: code, Offset: off, Text: text})
	}
}

// refuse notes what is held against the opcode at hand. The machine goes on,
// so that the report names all globals; the error ends it when there is more
// than anyone reads.
func (m *machine) refuse(code, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if m.refusals++; len(m.rep.Findings) >= maxFindings || m.refusals > maxRefusals {
		return &halt{code: code, off: m.at, text: text}
	}
	m.found(code, m.at, text)
	return nil
}

// fail ends the judgement: what follows cannot be understood.
func (m *machine) fail(code, format string, args ...any) error {
	return &halt{code: code, off: m.at, text: m.op.name + ": " + fmt.Sprintf(format, args...)}
}

// note adds what is worth knowing.
func (m *machine) note(code, text string) {
	same := func(f Finding) bool { return f.Code == code && f.Text == text }
	if len(m.rep.Notes) < maxFindings && !slices.ContainsFunc(m.rep.Notes, same) {
		m.rep.Notes = append(m.rep.Notes, Finding{Code: code, Offset: m.at, Text: text})
	}
}

// A halt is the finding that ends a judgement.
type halt struct {
	code string
	off  int64
	text string
}

func (h *halt) Error() string { return fmt.Sprintf("byte %d: %s [%s]", h.off, h.text, h.code) }

// A role is what a stream does with a global.
type role uint8

const (
	roleCalled role = 1 << iota
	roleCreated
)

func (r role) String() string {
	var parts []string
	if r&roleCalled != 0 {
		parts = append(parts, "called")
	}
	if r&roleCreated != 0 {
		parts = append(parts, "created")
	}
	if parts == nil {
		return "data"
	}
	return strings.Join(parts, "+")
}
