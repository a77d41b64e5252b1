package artifact

import (
	"errors"
	"strings"
)

// Classes of refusal. A program asks with errors.Is; each class has one exit
// code, which only cmd/darkmirror knows.
var (
	// ErrIntegrity: what was read is not what was promised or signed.
	ErrIntegrity = errors.New("integrity refused")
	// ErrSequence: too old, expired, replayed, forked, or something before it
	// is missing.
	ErrSequence = errors.New("sequence refused")
	// ErrUnavailable: an upstream or a target cannot give or take it.
	ErrUnavailable = errors.New("unavailable")
)

// A Refusal says no: what was refused, where, what was expected and what was
// found. Its Code is stable and documented, so that a script or an alert rule
// may match on it. All text from outside in it is printed with escapes by the
// caller's terminal code, never raw.
type Refusal struct {
	Class   error  // one of the classes above
	Code    string // stable, upper case: "APT-EXPIRED", "ERR_SIG"
	Subject string // the thing and the place: "pypi/main: numpy-2.1.0-....whl"
	Reason  string // lower case, no full stop: "digest differs from the index"
	Want    string // optional
	Got     string // optional
	Err     error  // optional cause
}

func (r *Refusal) Error() string {
	var b strings.Builder
	if r.Subject != "" {
		b.WriteString(r.Subject + ": ")
	}
	b.WriteString(r.Reason)
	switch {
	case r.Want != "" && r.Got != "":
		b.WriteString(" (want " + r.Want + ", got " + r.Got + ")")
	case r.Want != "":
		b.WriteString(" (want " + r.Want + ")")
	case r.Got != "":
		b.WriteString(" (got " + r.Got + ")")
	}
	if r.Err != nil {
		b.WriteString(": " + r.Err.Error())
	}
	return b.String() + " [" + r.Code + "]"
}

// Is makes errors.Is(err, ErrIntegrity) and its like match.
func (r *Refusal) Is(target error) bool { return r.Class != nil && target == r.Class }

// Unwrap gives the cause.
func (r *Refusal) Unwrap() error { return r.Err }
