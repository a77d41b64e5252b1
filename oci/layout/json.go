package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// maxNesting bounds a document. An image's config has five levels.
	maxNesting = 32
	// fieldLevels is how deep the objects lie whose keys are names of fields,
	// in every document that is read here. Below are labels, ports and volumes:
	// data, in which letter case counts.
	fieldLevels = 2
)

// unmarshal reads one JSON value with one meaning: encoding/json takes the last
// of two equal keys and cares for no letter case, others do otherwise. Unknown
// keys pass, as every builder adds its own.
func unmarshal(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := checkValue(dec, 1); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return json.Unmarshal(b, v)
}

func checkValue(dec *json.Decoder, level int) error {
	if level > maxNesting {
		return fmt.Errorf("nested deeper than %d", maxNesting)
	}
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if tok != json.Delim('{') && tok != json.Delim('[') {
		return nil
	}
	seen := make(map[string]bool)
	for dec.More() {
		if tok == json.Delim('{') {
			if err := checkKey(dec, level, seen); err != nil {
				return err
			}
		}
		if err := checkValue(dec, level+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func checkKey(dec *json.Decoder, level int, seen map[string]bool) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	key, ok := tok.(string)
	if !ok {
		return errors.New("an object's key is no string")
	}
	if level <= fieldLevels {
		key = strings.ToLower(key)
	}
	if seen[key] {
		return fmt.Errorf("key %q stands twice", clip(key))
	}
	seen[key] = true
	return nil
}
