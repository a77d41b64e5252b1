package weights

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/pickle"
)

// maxNamed bounds the globals that one finding names.
const maxNamed = 8

// pickle judges the file, from the byte at on, as a pickle.
func (v *visit) pickle(at int64) error {
	rep, err := v.scanPickle(at)
	if err != nil {
		return err
	}
	v.judge(rep, "")
	return v.behind(rep, at)
}

func (v *visit) scanPickle(at int64) (*pickle.Report, error) {
	return pickle.Scan(io.NewSectionReader(v.content, at, v.f.Size-at), pickle.Options{Profile: pickle.Numpy})
}

// judge turns a report into findings. What is held against the stream is
// grouped, so that a waiver names a reason and not a byte. where says in what
// the pickle stands, if not in the file as it is.
func (v *visit) judge(rep *pickle.Report, where string) {
	if v.config.Pickle == PickleRefuse {
		v.grave("MODEL-PICKLE", "a pickle%s, and no pickle may pass; weights in safetensors run nothing", where)
	}
	dangerous, unlisted := sortGlobals(rep.Globals)
	if len(dangerous) > 0 {
		v.add(scan.Critical, "MODEL-PICKLE-DANGER", "loading it%s runs code: it %s", where, named(dangerous))
	}
	if len(unlisted) > 0 {
		v.grave("MODEL-PICKLE-GLOBAL", "the pickle%s %s, not on the allowlist of torch and numpy", where, named(unlisted))
	}
	v.reasons(rep, where, len(dangerous)+len(unlisted) > 0)
	for _, n := range rep.Notes {
		v.add(scan.Low, "MODEL-"+n.Code, "%s at byte %d%s; loading the file does not load them", n.Text, n.Offset, where)
	}
}

// reasons groups the findings of a report by their code.
func (v *visit) reasons(rep *pickle.Report, where string, globals bool) {
	counts := map[string]int{}
	for _, f := range rep.Findings {
		counts[f.Code]++
	}
	seen := map[string]bool{}
	for _, f := range rep.Findings {
		if seen[f.Code] || f.Code == pickle.CodeGlobal || globals && (f.Code == pickle.CodeCall || f.Code == pickle.CodeNew) {
			continue // the finding about globals says so
		}
		seen[f.Code] = true
		more := ""
		if n := counts[f.Code] - 1; n > 0 {
			more = fmt.Sprintf(" (and %d more)", n)
		}
		// In a package it is the package's test data, as gensim's with lines of
		// a megabyte: a warning, as a malformed pickle is there.
		if f.Code == pickle.CodeLimit && v.place != library {
			v.unseen("MODEL-"+f.Code, "the pickle%s exceeds a limit at byte %d: %s", where, f.Offset, f.Text)
			continue
		}
		v.grave("MODEL-"+f.Code, "the pickle%s at byte %d: %s%s", where, f.Offset, f.Text, more)
	}
	if !rep.Safe && len(rep.Findings) == 0 {
		v.unseen("MODEL-PICKLE-LIMIT", "the pickle%s was not judged to its end", where)
	}
}

// sortGlobals tells apart what a stream asks for and the profile does not
// list.
func sortGlobals(list []pickle.Global) (dangerous, unlisted []pickle.Global) {
	for _, g := range list {
		switch {
		case g.Listed:
		case dangerousGlobal(g.Module, g.Name):
			dangerous = append(dangerous, g)
		default:
			unlisted = append(unlisted, g)
		}
	}
	return dangerous, unlisted
}

// named lists globals by what is done with them, for a message.
func named(list []pickle.Global) string {
	does := map[string]string{"called": "calls", "created": "creates", "called+created": "calls", "data": "imports"}
	var parts []string
	last := ""
	for i, g := range list {
		if i == maxNamed {
			parts = append(parts, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		name := g.Module + "." + g.Name
		if verb := does[g.Role]; verb != last {
			last = verb
			name = verb + " " + name
		}
		parts = append(parts, name)
	}
	return strings.Join(parts, ", ")
}

// broken are the reasons for which a report ends before its stream does.
var broken = []string{
	pickle.CodeTruncated, pickle.CodeOpcode, pickle.CodeMalformed, pickle.CodeStack, pickle.CodeMemo, pickle.CodeFrame, pickle.CodeLimit,
	pickle.CodeProtocol, pickle.CodeUnhashable, pickle.CodeShared,
}

func isBroken(rep *pickle.Report) bool {
	return found(rep, broken...)
}

// acts says that a loader of the stream would do more than make plain values.
func acts(rep *pickle.Report) bool {
	return calls(rep) || found(rep, pickle.CodeExt, pickle.CodeStackGlobal)
}

// calls says that a loader would call something before the stream ends or
// breaks: something that the stream imports, or takes from a registry. Of files of random bytes one in fifteen starts with an opcode that
// takes something from a registry, and breaks; none was seen that calls.
func calls(rep *pickle.Report) bool {
	return slices.ContainsFunc(rep.Globals, func(g pickle.Global) bool { return g.Role != "data" }) ||
		found(rep, pickle.CodeExt) && found(rep, pickle.CodeCall, pickle.CodeNew)
}

func found(rep *pickle.Report, codes ...string) bool {
	return slices.ContainsFunc(rep.Findings, func(f pickle.Finding) bool { return slices.Contains(codes, f.Code) })
}

// tryPickle finds pickles that nothing says are any: of protocol 0 or 1, or
// in files that are something else as well.
func (v *visit) tryPickle(as *form) error {
	if as.pickle {
		return nil
	}
	rep, err := v.scanPickle(0)
	if err != nil {
		return err
	}
	says := v.saysPickle()
	switch {
	case rep.Safe && (says || as.name == ""):
		// Nothing is called. A text of one opcode is no pickle to mention.
		if as.name == "" && says {
			as.name, as.pickle = "a pickle", true
			v.judge(rep, "")
		}
		return nil
	case rep.Safe:
		return nil
	case calls(rep), says && (acts(rep) || imports(rep)), !isBroken(rep) && (acts(rep) || len(rep.Globals) > 0):
	default:
		return nil
	}
	if as.name != "" {
		v.grave("MODEL-POLYGLOT", "a file of two kinds: %s, and a pickle", as.name)
	}
	as.pickle = true
	if as.name == "" {
		as.name = "a pickle"
	}
	v.judge(rep, "")
	return v.behind(rep, 0)
}

// saysPickle says that the file's name is one that loaders of pickles take.
func (v *visit) saysPickle() bool {
	return v.claim == claimPickle || v.claim == claimTorch || v.claim == claimRaw || v.claim == claimNPY
}

// imports says that a stream imports something before it breaks: a name that
// is no text ends it first.
func imports(rep *pickle.Report) bool {
	return slices.ContainsFunc(rep.Globals, func(g pickle.Global) bool {
		return !strings.Contains(g.Module+g.Name, `\`)
	})
}
