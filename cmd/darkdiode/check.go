package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/linkend"
)

// printFindings tells what was found, and fails if something does not work.
func printFindings(out io.Writer, all []linkend.Finding, jsonOut bool) error {
	failures := 0
	for _, f := range all {
		if f.Failed() {
			failures++
		}
	}
	if jsonOut {
		if err := json.NewEncoder(out).Encode(map[string]any{"schema": "darkdiode.findings/v1", "findings": all}); err != nil {
			return err
		}
	} else {
		for _, f := range all {
			if _, err := fmt.Fprintf(out, "%-8s %-12s %s\n", f.State, f.Name, f.Detail); err != nil {
				return err
			}
			if f.Mend == "" {
				continue
			}
			if _, err := fmt.Fprintf(out, "%21s mend: %s\n", "", f.Mend); err != nil {
				return err
			}
		}
	}
	if failures > 0 {
		return fmt.Errorf("%w: %d things have to be mended before the link works", diode.ErrConfig, failures)
	}
	return nil
}
