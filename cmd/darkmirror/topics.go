package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// codesLine lists the exit codes of a command for its help.
func codesLine(classes ...exitClass) string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, c := range classes {
		fmt.Fprintf(&b, "  %-4d %s\n", c.code, c.meaning)
	}
	return strings.TrimRight(b.String(), "\n")
}

// addTopics adds help pages that are no commands.
func addTopics(root *cobra.Command) {
	topic := func(name, short, long string) {
		root.AddCommand(&cobra.Command{Use: name, Short: short, Long: long})
	}
	var codes strings.Builder
	codes.WriteString("Scripts should treat any other code as a failure.\n\n")
	for _, c := range exitTable() {
		fmt.Fprintf(&codes, "  %-4d %-12s %s\n", c.code, c.name, c.meaning)
	}
	codes.WriteString(`
Integrity outranks sequence, sequence outranks policy, policy outranks
partial. What stops a run (2, 8, 9, 130) is what it reports, unless integrity
was refused before. 7 means that the run could do nothing for want of an
upstream or target; where the rest was done, the code is 3.`)
	topic("exit-codes", "What each exit code means", codes.String())
	topic("environment", "Environment variables", `Every flag has an environment name: --volume-size is DARKMIRROR_VOLUME_SIZE,
--config is DARKMIRROR_CONFIG. A flag on the command line wins. Secrets have
neither flag nor variable; they are read from the files that the configuration
names. NO_COLOR is honoured. Proxies of the environment are not used: only the
hosts of the configuration are contacted.`)
	topic("formats", "Machine-readable output", `-o json prints one indented object, -o jsonl the same on one line. Every object
carries its schema and version in "schema". In both modes progress is one JSON
object on standard error every ten seconds, and a failed run ends with one
line there:

  {"schema":"darkmirror.exit/v1","code":5,"class":"integrity","message":"...","errors":["..."],"hint":"...","bundle":"000042"}`)
}
