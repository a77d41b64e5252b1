//go:build cgo && pkcs11

package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/darkmirror/darkmirror/bundle"
)

// maxPIN bounds a PIN file; tokens take up to 255 bytes.
const maxPIN = 1 << 10

// openToken logs in to the token and finds the key. The function that it
// returns ends the session.
func openToken(ctx context.Context, u *uri) (bundle.Signer, func() error, error) {
	wrap := func(err error) (bundle.Signer, func() error, error) {
		return bundle.Signer{}, nil, fmt.Errorf("PKCS#11 %s: %w", u.modulePath, err)
	}
	if err := ctx.Err(); err != nil {
		return wrap(err)
	}
	pin, err := u.pin()
	if err != nil {
		return wrap(err)
	}
	if _, err := os.Stat(u.modulePath); err != nil {
		return wrap(err)
	}
	lib := pkcs11.New(u.modulePath)
	if lib == nil {
		return wrap(errors.New("it cannot be loaded as a PKCS#11 library of this machine's kind"))
	}
	if err := lib.Initialize(); err != nil {
		// Where another signer of this process uses it, finalizing it would
		// end both.
		lib.Destroy()
		return wrap(fmt.Errorf("initialize: %w", err))
	}
	t := &token{lib: lib, pin: pin}
	s, err := t.open(u)
	if err != nil {
		return wrap(errors.Join(err, t.close()))
	}
	return s, t.close, nil
}

// pin reads the PIN; empty is none.
func (u *uri) pin() (_ string, err error) {
	if u.pinFile == "" {
		return "", nil
	}
	f, err := os.Open(u.pinFile)
	if err != nil {
		return "", fmt.Errorf("PIN: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxPIN+1))
	if err != nil {
		return "", fmt.Errorf("PIN: %w", err)
	}
	pin := bytes.TrimRight(data, "\r\n")
	if len(pin) == 0 || len(data) > maxPIN || bytes.ContainsAny(pin, "\r\n\x00") {
		return "", fmt.Errorf("PIN: %s: want one line of at most %d bytes", u.pinFile, maxPIN)
	}
	return string(pin), nil
}

// A token is a library in use and a session with the token in one slot.
type token struct {
	mu      sync.Mutex // a session does one thing at a time
	lib     *pkcs11.Ctx
	pin     string
	session *pkcs11.SessionHandle
}

func (t *token) open(u *uri) (bundle.Signer, error) {
	slot, info, err := t.find(u)
	if err != nil {
		return bundle.Signer{}, err
	}
	where := fmt.Sprintf("token %q", info.Label)
	h, err := t.lib.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return bundle.Signer{}, fmt.Errorf("%s: open session: %w", where, err)
	}
	t.session = &h
	switch {
	case t.pin != "":
		if err := t.lib.Login(h, pkcs11.CKU_USER, t.pin); err != nil {
			return bundle.Signer{}, fmt.Errorf("%s: log in with the PIN of %s: %w", where, u.pinFile, err)
		}
	case info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0:
		return bundle.Signer{}, fmt.Errorf("%s: it wants a PIN: put it into a file and add pin-source=PATH to the URI", where)
	}
	k, err := t.key(u)
	if err != nil {
		return bundle.Signer{}, fmt.Errorf("%s: %w", where, err)
	}
	return bundle.Signer{Name: nameOf(k.label, bundle.KeyID(k.pub)), Signer: k}, nil
}

// find looks for the one token that the URI names.
func (t *token) find(u *uri) (slot uint, info pkcs11.TokenInfo, err error) {
	slots, err := t.lib.GetSlotList(true)
	if err != nil {
		return 0, info, fmt.Errorf("list slots: %w", err)
	}
	hits := 0
	var have []string
	for _, s := range slots {
		i, err := t.lib.GetTokenInfo(s)
		if err != nil {
			have = append(have, fmt.Sprintf("slot %d: %v", s, err))
			continue
		}
		have = append(have, fmt.Sprintf("%q serial %q", i.Label, i.SerialNumber))
		if is(u.token, i.Label) && is(u.serial, i.SerialNumber) && is(u.model, i.Model) && is(u.manufacturer, i.ManufacturerID) {
			slot, info = s, i
			hits++
		}
	}
	what := fmt.Sprintf("token=%q serial=%q model=%q manufacturer=%q", u.token, u.serial, u.model, u.manufacturer)
	switch {
	case hits == 0:
		return 0, info, fmt.Errorf("no token with %s, there are: %s", what, list(have))
	case hits > 1:
		return 0, info, fmt.Errorf("%d tokens with %s, name one by its serial: %s", hits, what, list(have))
	}
	return slot, info, nil
}

// is compares an attribute that may not have been given.
func is(want, got string) bool { return want == "" || want == got }

// close ends the session, which logs out, and unloads the library.
func (t *token) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lib == nil {
		return nil
	}
	var err error
	if t.session != nil {
		err = t.lib.CloseSession(*t.session)
	}
	err = errors.Join(err, t.lib.Finalize())
	t.lib.Destroy()
	t.lib, t.session, t.pin = nil, nil, ""
	if err != nil {
		return fmt.Errorf("PKCS#11: close: %w", err)
	}
	return nil
}
