package clamav

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	// maxReply bounds a reply: a name and a word.
	maxReply = 64 << 10
	// maxName bounds the name of a signature; those of ClamAV have less.
	maxName = 250
	// tooLong is the answer to more than StreamMaxLength, after which clamd
	// hangs up.
	tooLong = "INSTREAM size limit exceeded. ERROR"
	// timedOut is what clamd says to a connection that waited too long before
	// it hangs up. Depending on its version it ends with a line feed.
	timedOut = "COMMAND READ TIMED OUT"
)

// A replyError is a reply that is no verdict.
type replyError struct{ text string }

func (e *replyError) Error() string {
	if strings.HasSuffix(e.text, " ERROR") {
		return "clamd could not look at it, it says " + quote(e.text)
	}
	return "clamd answers " + quote(e.text) + ", which is no verdict"
}

// readReply reads up to the zero byte that ends a reply.
func readReply(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for b.Len() <= maxReply {
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) && b.Len() > 0 {
			err = fmt.Errorf("reply %s breaks off: %w", quote(b.String()), io.ErrUnexpectedEOF)
		}
		if err != nil {
			return "", err
		}
		if c == 0 {
			return b.String(), nil
		}
		b.WriteByte(c)
	}
	return "", &replyError{b.String()}
}

// parseReply reads "1: stream: OK", "1: stream: NAME FOUND" or an error. The
// number is that of the command; one of another command would be a verdict on
// another file.
func parseReply(text string, number int) (verdict, error) {
	bad := &replyError{text}
	rest, ok := strings.CutPrefix(text, strconv.Itoa(number)+": ")
	if text == tooLong {
		rest, ok = text, true // some versions do not number it
	}
	if !ok {
		return verdict{}, bad
	}
	if rest == tooLong {
		return verdict{refused: true}, nil
	}
	what, ok := strings.CutPrefix(rest, "stream: ")
	if !ok {
		return verdict{}, bad
	}
	if what == "OK" {
		return verdict{}, nil
	}
	found, ok := strings.CutSuffix(what, " FOUND")
	if !ok || !isName(found) {
		return verdict{}, bad // an ERROR of clamd's own too: it did not look
	}
	return verdict{found: found}, nil
}

// isName reports whether s can be the name of a signature: it enters reports,
// and waivers name it.
func isName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
