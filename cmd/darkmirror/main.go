// Command darkmirror carries packages over an air gap: outside it fetches
// them from their upstreams into signed bundles, inside it verifies bundles,
// publishes them and serves them. See the README and docs/.
//
// This package wires the others, talks to people, and alone knows exit codes,
// hints and command names.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	stop()
	os.Exit(code)
}
