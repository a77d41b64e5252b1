//go:build !race

package registry

// memoryLimit is what a server may occupy at most, whatever a layer's size.
const memoryLimit = 40 << 20
