package weights

import (
	"strconv"
	"strings"
)

// maxQuoted bounds text from outside in a message.
const maxQuoted = 80

// quote makes text from outside fit for a message.
func quote(s string) string {
	tail := ""
	if len(s) > maxQuoted {
		s, tail = s[:maxQuoted], "..."
	}
	return strconv.QuoteToASCII(s) + tail
}

// quoteList names at most maxNamed of a list.
func quoteList(list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i == maxNamed {
			b.WriteString(", and " + strconv.Itoa(len(list)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(s))
	}
	return b.String()
}
