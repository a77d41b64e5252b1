//go:build race

package crypt_test

// underRace: the race detector makes every attempt some eight times slower.
const underRace = true
