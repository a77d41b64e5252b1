package signer

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// maxURI bounds a PKCS#11 URI; one with every attribute has some 300 bytes.
const maxURI = 4 << 10

// A uri is what a PKCS#11 URI (RFC 7512) says of a key. An empty field was not
// given and matches everything.
type uri struct {
	token, serial, model, manufacturer string
	object, id                         string
	modulePath, pinFile                string
}

// parseURI refuses what it does not understand, as RFC 7512, section 2.3, asks
// of path attributes: a key that is named by more than was looked at might be
// another one.
func parseURI(s string) (*uri, error) {
	if len(s) > maxURI {
		return nil, fmt.Errorf("PKCS#11 URI: %d bytes, at most %d are read", len(s), maxURI)
	}
	rest, ok := strings.CutPrefix(s, pkcs11Prefix)
	if !ok {
		return nil, fmt.Errorf("PKCS#11 URI: it does not begin with %q", pkcs11Prefix)
	}
	if strings.Contains(rest, "pin-value") {
		// Wherever it stands; it is not repeated in the message.
		return nil, errors.New("PKCS#11 URI: pin-value is refused: a PIN in a command line or a configuration is read by others; put it into a file and name that by pin-source")
	}
	var u uri
	path, query, _ := strings.Cut(rest, "?")
	typ := ""
	if err := attributes(path, ";", map[string]*string{
		"token": &u.token, "serial": &u.serial, "model": &u.model, "manufacturer": &u.manufacturer,
		"object": &u.object, "id": &u.id, "type": &typ,
	}); err != nil {
		return nil, err
	}
	if err := attributes(query, "&", map[string]*string{"module-path": &u.modulePath, "pin-source": &u.pinFile}); err != nil {
		return nil, err
	}
	switch {
	case typ != "" && typ != "private":
		return nil, fmt.Errorf("PKCS#11 URI: type=%s, want the private key", clip(typ))
	case u.token == "" && u.serial == "":
		return nil, errors.New("PKCS#11 URI: no token is named: want token=LABEL or serial=NUMBER")
	case u.object == "" && u.id == "":
		return nil, errors.New("PKCS#11 URI: no key is named: want object=LABEL or id=%01")
	case !filepath.IsAbs(u.modulePath):
		// A bare name would be looked for wherever the loader looks.
		return nil, fmt.Errorf("PKCS#11 URI: module-path=%s, want the absolute path of the token's library after a '?'", clip(u.modulePath))
	}
	if err := u.checkPINSource(); err != nil {
		return nil, err
	}
	return &u, nil
}

// checkPINSource turns pin-source into a path.
func (u *uri) checkPINSource() error {
	if u.pinFile == "" {
		return nil
	}
	u.pinFile = strings.TrimPrefix(strings.TrimPrefix(u.pinFile, "file:"), "//")
	if !filepath.IsAbs(u.pinFile) {
		return fmt.Errorf("PKCS#11 URI: pin-source=%s, want the absolute path of a file; no program is started", clip(u.pinFile))
	}
	u.pinFile = filepath.Clean(u.pinFile)
	return nil
}

// attributes reads name=value pairs into the fields of those names.
func attributes(text, sep string, fields map[string]*string) error {
	if text == "" {
		return nil
	}
	seen := make(map[string]bool)
	for pair := range strings.SplitSeq(text, sep) {
		name, value, ok := strings.Cut(pair, "=")
		switch field := fields[name]; {
		case !ok || field == nil:
			return fmt.Errorf("PKCS#11 URI: attribute %q is not understood", clip(name))
		case seen[name]:
			return fmt.Errorf("PKCS#11 URI: attribute %q is there twice", name)
		default:
			seen[name] = true
			plain, err := url.PathUnescape(value)
			if err != nil || plain == "" {
				return fmt.Errorf("PKCS#11 URI: value of %q is empty or not percent-encoded", name)
			}
			*field = plain
		}
	}
	return nil
}
