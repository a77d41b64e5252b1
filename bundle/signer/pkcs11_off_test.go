//go:build !cgo || !pkcs11

package signer

import "testing"

func TestNoPKCS11(t *testing.T) {
	_, closeKey, err := Open(t.Context(), goodURI)
	wantError(t, err, "cgo and the build tag pkcs11", "ssh-agent", "ssh-add -s")
	if closeKey != nil {
		t.Error("a function beside an error")
	}
	// What is wrong with the URI is said first.
	_, _, err = Open(t.Context(), goodURI+"&pin-value=1")
	wantError(t, err, "pin-value is refused")
}
