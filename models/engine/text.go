package engine

import (
	"fmt"
	"strings"
)

// clip shortens outside text for a message.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// some writes names for a message, the first of many.
func some(names []string) string {
	const most = 4
	shown := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		shown = append(shown, clip(n))
	}
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(shown, ", "), more)
	}
	return strings.Join(shown, ", ")
}

// count writes a large number with its unit: "16.1 GB", "8.03 B".
func count(n int64, units ...string) string {
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v /= 1000
		i++
	}
	if i == 0 {
		return strings.TrimSpace(fmt.Sprintf("%d %s", n, units[0]))
	}
	return fmt.Sprintf("%.3g %s", v, units[i])
}

func bytesOf(n int64) string { return count(n, "bytes", "kB", "MB", "GB", "TB") }

func parametersOf(n int64) string { return count(n, "", "K", "M", "B", "T") + " parameters" }

// shell quotes an argument of a command line where that is needed: a file may
// be called anything.
func shell(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._/@:+=-", c)
	}
	if s != "" && strings.IndexFunc(s, func(c rune) bool { return !plain(c) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
