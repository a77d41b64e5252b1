package artifact

import "strings"

// An Incomplete is an error beside a usable result: a source, or a target,
// had the rest. It unwraps to its items, so a caller that asks for a class
// sees theirs.
type Incomplete struct {
	Items []Lost
}

// A Lost is one artifact that could not be had, or not be published, and why.
type Lost struct {
	Name    string
	Version string
	Err     error
}

func (e *Incomplete) Error() string {
	var b strings.Builder
	for i, it := range e.Items {
		if i > 0 {
			b.WriteString("\n")
		}
		if name := strings.TrimSpace(it.Name + " " + it.Version); name != "" { // none: the whole source
			b.WriteString(name + ": ")
		}
		b.WriteString(it.Err.Error())
	}
	return b.String()
}

// Unwrap gives the causes.
func (e *Incomplete) Unwrap() []error {
	errs := make([]error, len(e.Items))
	for i, it := range e.Items {
		errs[i] = it.Err
	}
	return errs
}
