//go:build !cgo || !pkcs11

package signer

import (
	"context"
	"errors"

	"github.com/darkmirror/darkmirror/bundle"
)

// openToken says that this build cannot: a module is a C library.
func openToken(context.Context, *uri) (bundle.Signer, func() error, error) {
	return bundle.Signer{}, nil, errors.New("PKCS#11: this program was built without cgo and the build tag pkcs11, which loading a token's library needs; an ssh-agent holds a token's keys without them (ssh-add -s LIBRARY, then agent:<comment or fingerprint>)")
}
