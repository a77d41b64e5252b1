//go:build !linux

package oneway

import (
	"errors"
	"fmt"
)

const elsewhere = "this system is not Linux, and nobody can be sure here"

// Check reports that nothing is known.
func Check(_ string, o Options) ([]Layer, error) {
	names := []string{layerAddress, layerARP, layerIPv6, layerEgress, layerIngress, layerSocket, layerCounters}
	layers := make([]Layer, len(names))
	for i, n := range names {
		layers[i] = Layer{Name: n, State: Unknown, Detail: elsewhere, Hint: "receive on Linux", Required: o.required(n)}
	}
	return layers, nil
}

// Block does not work here.
func Block(iface string, _ Options) error { return unsupported("block " + iface) }

// Unblock does not work here.
func Unblock(iface string) error { return unsupported("unblock " + iface) }

// Seal does not work here.
func Seal() error { return unsupported("filter system calls") }

// Sealed reports that nothing is known.
func Sealed() (Layer, error) {
	return Layer{Name: layerSeccomp, State: Unknown, Detail: elsewhere, Hint: "receive on Linux", Required: true}, nil
}

// ReadCounters does not work here.
func ReadCounters(iface string) (Counters, error) {
	return Counters{}, unsupported("read counters of " + iface)
}

func unsupported(what string) error {
	return fmt.Errorf("%s: %s: %w", what, elsewhere, errors.ErrUnsupported)
}
