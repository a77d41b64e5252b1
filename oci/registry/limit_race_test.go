//go:build race

package registry

// memoryLimit is larger under the race detector, which keeps a shadow of all
// memory; it is still below the layer that the test pushes.
const memoryLimit = 200 << 20
