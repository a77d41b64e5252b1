package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryCodeHasAHint reads the sources for the codes that they refuse
// with: each says what to do, and the documentation names it.
func TestEveryCodeHasAHint(t *testing.T) {
	code := regexp.MustCompile(`"(PYPI-[A-Z0-9-]*[A-Z0-9]|ERR_[A-Z_]*[A-Z])"`)
	seen := make(map[string]bool)
	for _, folder := range []string{"pypi", "bundle", "mirror"} {
		err := filepath.WalkDir(filepath.Join("..", "..", folder), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			b, err := os.ReadFile(name)
			for _, m := range code.FindAllStringSubmatch(string(b), -1) {
				seen[m[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) < 60 {
		t.Fatalf("%d codes found: is the pattern still right?", len(seen))
	}
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	var docs strings.Builder
	for _, name := range pages {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		docs.Write(b)
	}
	for c := range seen {
		// A family, PYPI-LOCK-..., or its table in short: `PYPI-DEVPI-YANKED`, `-SIZE`.
		family := c[:strings.LastIndexAny(c, "-_")]
		if !strings.Contains(docs.String(), c) && !strings.Contains(docs.String(), "`"+family+"-...`") {
			t.Errorf("%s: no page of docs names it", c)
		}
		if _, ok := codeHint(c); !ok && c != "PYPI-DEVPI" && c != "PYPI-TARGET" {
			t.Errorf("%s: no hint", c)
		}
	}
}
