package gguf

import (
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Reason says which rule a file breaks. It is the error that a refusal
// wraps: errors.Is(err, OutOfFile).
type Reason string

// The reasons.
const (
	// BadMagic: the file does not begin with GGUF.
	BadMagic Reason = "BadMagic"
	// BadVersion: neither version 2 nor 3, or written in big endian.
	BadVersion Reason = "BadVersion"
	// Truncated: the file ends in its header, or a count in it promises more
	// than the file could hold.
	Truncated Reason = "Truncated"
	// TooMany: more, or longer, than the limits of this package.
	TooMany Reason = "TooMany"
	// BadKey: a key is empty, or holds white space or what is no ASCII.
	BadKey Reason = "BadKey"
	// BadValue: a value's type does not exist, or a truth value is neither 0
	// nor 1, or a list holds lists.
	BadValue Reason = "BadValue"
	// DuplicateKey: a key or the name of a tensor stands twice.
	DuplicateKey Reason = "DuplicateKey"
	// BadAlignment: general.alignment is no power of two of 32 bits.
	BadAlignment Reason = "BadAlignment"
	// BadSplit: split.no and split.count contradict each other.
	BadSplit Reason = "BadSplit"
	// BadTensor: a tensor's name or form is none that a loader takes.
	BadTensor Reason = "BadTensor"
	// UnknownType: a tensor's type is none that this package knows. A newer
	// program may.
	UnknownType Reason = "UnknownType"
	// Overflow: a tensor's size is no 64-bit number.
	Overflow Reason = "Overflow"
	// BadOffset: a tensor's data does not begin where that of the one before
	// it ends.
	BadOffset Reason = "BadOffset"
	// OutOfFile: a tensor's data goes beyond the end of the file.
	OutOfFile Reason = "OutOfFile"
)

// Reasons lists all of them.
func Reasons() []Reason {
	return []Reason{
		BadMagic, BadVersion, Truncated, TooMany, BadKey, BadValue, DuplicateKey, BadAlignment, BadSplit, BadTensor, UnknownType, Overflow,
		BadOffset, OutOfFile,
	}
}

func (r Reason) Error() string { return string(r) }

// Code is the code of refusals with this reason: "GGUF-OUT-OF-FILE".
func (r Reason) Code() string {
	var b strings.Builder
	b.WriteString("GGUF")
	for _, c := range string(r) {
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('-')
		}
		b.WriteRune(c)
	}
	return strings.ToUpper(b.String())
}

func refuse(r Reason, where, why, want, got string) error {
	return &artifact.Refusal{Class: artifact.ErrIntegrity, Code: r.Code(), Subject: where, Reason: why, Want: want, Got: got, Err: r}
}

// quote writes outside text for a message, shortened.
func quote(s string) string {
	const most = 120
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
