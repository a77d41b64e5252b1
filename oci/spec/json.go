package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth bounds nesting. A manifest needs five levels.
const maxDepth = 32

// checkJSON accepts one JSON value in which no object has two keys that are
// equal when letter case is ignored, as encoding/json matches them.
func checkJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := checkValue(dec, "", 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func checkValue(dec *json.Decoder, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('{'):
		return checkObject(dec, at, depth)
	case json.Delim('['):
		for i := 0; dec.More(); i++ {
			if err := checkValue(dec, fmt.Sprintf("%s[%d]", at, i), depth+1); err != nil {
				return err
			}
		}
		_, err := dec.Token()
		return err
	}
	return nil
}

func checkObject(dec *json.Decoder, at string, depth int) error {
	// Annotation keys are data: there, only equal bytes are twice the same.
	data := strings.HasSuffix(at, "annotations")
	seen := make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return errors.New("an object's key is no string")
		}
		name := key
		if !data {
			name = strings.ToLower(key)
		}
		if seen[name] {
			return fmt.Errorf("%s: key %q stands twice", strings.TrimPrefix(at, "."), clip(key))
		}
		seen[name] = true
		if err := checkValue(dec, at+"."+key, depth+1); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}
