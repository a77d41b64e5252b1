package weights

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
)

const (
	// maxYAML bounds what is read of a configuration; those of trainers have
	// some 100 KiB.
	maxYAML = 16 << 20
	// maxYAMLLine bounds a line that is looked at as a whole.
	maxYAMLLine = 1 << 20
)

var (
	// yamlPython matches the tags with which yaml.load creates any object.
	yamlPython = regexp.MustCompile(`!!python/(object|name|module)[^\s]*|!<?tag:yaml\.org,2002:python/(object|name|module)[^\s]*|tag:yaml\.org,2002:python/`)
	// yamlTarget matches what hydra and NeMo create.
	yamlTarget = regexp.MustCompile(`["']?_target_["']?\s*:\s*["']?([A-Za-z_][A-Za-z0-9_.]*)`)
)

// dangerousPath reports whether module.name is dangerous.
func dangerousPath(s string) bool {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return dangerousGlobal("builtins", s)
	}
	return dangerousGlobal(s[:i], s[i+1:])
}

// yaml judges a configuration line by line, without parsing it: tags that
// create Python objects, targets that run code, and templates.
func (v *visit) yaml() error {
	if v.f.Size > maxYAML {
		v.unseen("MODEL-YAML-LIMIT", "a configuration of %d bytes, at most %d are read", v.f.Size, maxYAML)
		return nil
	}
	var tags, targets []string
	r := bufio.NewReaderSize(v.reader(), maxYAMLLine)
	chat := false
	for {
		line, err := r.ReadSlice('\n')
		tags = appendMatches(tags, yamlPython.FindAllString(string(line), maxListed))
		for _, m := range yamlTarget.FindAllStringSubmatch(string(line), maxListed) {
			if dangerousPath(m[1]) {
				targets = appendMatches(targets, m[1:2])
			}
		}
		chat = chat || strings.Contains(string(line), "template")
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", v.f.Name(), err)
		}
	}
	if len(tags) > 0 {
		v.grave("MODEL-YAML", "tags that make an unsafe reader create Python objects: %s", quoteList(tags))
	}
	if len(targets) > 0 {
		v.add(scan.Critical, "MODEL-TARGET", "a configuration that creates what runs code: %s", quoteList(targets))
	}
	if !chat {
		return nil
	}
	return v.yamlTemplates()
}

func appendMatches(list, more []string) []string {
	return append(list, more[:min(len(more), max(0, maxListed-len(list)))]...)
}

// yamlTemplates judges the tags of templates where they stand in YAML: its own
// quotes are no part of them, so only what is said for certain is kept.
func (v *visit) yamlTemplates() error {
	b, err := v.f.Bytes(maxYAML)
	if err != nil {
		return err
	}
	if !isTemplate(string(b)) {
		return nil
	}
	before := len(v.findings)
	v.template(strings.ReplaceAll(string(b), "''", "'"), "the file", false)
	kept := v.findings[:before]
	for _, f := range v.findings[before:] {
		if f.Severity == scan.Critical || f.Kind == scan.KindNotScanned {
			kept = append(kept, f)
		}
	}
	v.findings = kept
	return nil
}
