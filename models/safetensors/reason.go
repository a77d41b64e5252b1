package safetensors

import (
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A Reason says which rule a file breaks. It is the error that a refusal
// wraps: errors.Is(err, InvalidOffset).
type Reason string

// The reference library's reasons, by its names.
const (
	// HeaderTooSmall: the file has no room for the header's length.
	HeaderTooSmall Reason = "HeaderTooSmall"
	// HeaderTooLarge: the header is longer than MaxHeader.
	HeaderTooLarge Reason = "HeaderTooLarge"
	// InvalidHeaderLength: the header is longer than the file.
	InvalidHeaderLength Reason = "InvalidHeaderLength"
	// InvalidHeader: the header is not UTF-8.
	InvalidHeader Reason = "InvalidHeader"
	// InvalidHeaderDeserialization: the header is not the JSON of a header.
	InvalidHeaderDeserialization Reason = "InvalidHeaderDeserialization"
	// InvalidOffset: a tensor's data leaves a hole, overlaps, or ends before
	// it begins.
	InvalidOffset Reason = "InvalidOffset"
	// TensorInvalidInfo: a tensor's data has not the size that its type and
	// shape make.
	TensorInvalidInfo Reason = "TensorInvalidInfo"
	// ValidationOverflow: a tensor's size is no 64-bit number.
	ValidationOverflow Reason = "ValidationOverflow"
	// MisalignedSlice: a tensor of small elements does not end with a byte.
	MisalignedSlice Reason = "MisalignedSlice"
	// MetadataIncompleteBuffer: bytes are missing behind the header, or are
	// there that no tensor has.
	MetadataIncompleteBuffer Reason = "MetadataIncompleteBuffer"
)

// Reasons that the library does not have.
const (
	// DuplicateKey: a key stands twice. The library takes the last.
	DuplicateKey Reason = "DuplicateKey"
	// TooMany: more tensors, dimensions or pairs of metadata, or a longer
	// name, than the limits of this package.
	TooMany Reason = "TooMany"
)

// Reasons lists all of them.
func Reasons() []Reason {
	return []Reason{
		HeaderTooSmall, HeaderTooLarge, InvalidHeaderLength, InvalidHeader, InvalidHeaderDeserialization, InvalidOffset, TensorInvalidInfo,
		ValidationOverflow, MisalignedSlice, MetadataIncompleteBuffer, DuplicateKey, TooMany,
	}
}

func (r Reason) Error() string { return string(r) }

// Code is the code of refusals with this reason: "SAFETENSORS-INVALID-OFFSET".
func (r Reason) Code() string {
	var b strings.Builder
	b.WriteString("SAFETENSORS")
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
