// Rewrite changes the URLs of a lock: rewrite FILE FROM=TO... It serves the
// scripts that hold the result against real installers.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/darkmirror/darkmirror/pypi"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "rewrite:", err)
		os.Exit(1)
	}
}

func run(file string, pairs []string) error {
	prefixes := make(map[string]string)
	for _, p := range pairs {
		from, to, _ := strings.Cut(p, "=")
		prefixes[from] = to
	}
	in, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	out, changes, err := pypi.RewriteLock(file, in, prefixes)
	if err != nil {
		return err
	}
	fmt.Printf("%d URLs changed\n", len(changes))
	return os.WriteFile(file, out, 0o600)
}
