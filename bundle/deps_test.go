package bundle

import (
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/darkmirror/darkmirror"

// B24: what verifies bundles inside makes no request and starts no program.
func TestNoNetwork(t *testing.T) {
	forbidden := []string{"net", "net/http", "crypto/tls", "os/exec", "plugin"}
	mayUse := []string{
		"github.com/klauspost/compress/zstd", "golang.org/x/sync/errgroup", "golang.org/x/sys/unix",
		module + "/bundle", module + "/mirror/artifact", module + "/internal/strictjson", module + "/internal/durable", module + "/internal/failpoint",
	}
	// The files are parsed here, so that go test's cache sees them.
	seen := make(map[string]bool)
	var visit func(pkg string)
	visit = func(pkg string) {
		if seen[pkg] {
			return
		}
		seen[pkg] = true
		files, err := filepath.Glob(filepath.Join("..", strings.TrimPrefix(pkg, module), "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files of %s: %v", pkg, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				imp, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				switch first, _, _ := strings.Cut(imp, "/"); {
				case slices.Contains(forbidden, imp):
					t.Errorf("%s imports %s", name, imp)
				case strings.Contains(first, ".") && !slices.Contains(mayUse, imp):
					t.Errorf("%s imports %s, which is not on the list", name, imp)
				case strings.HasPrefix(imp, module):
					visit(imp)
				}
			}
		}
	}
	visit(module + "/bundle")
	// What those link in turn.
	out, err := exec.CommandContext(t.Context(), "go", "list", "-mod=readonly", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+"/mirror/artifact") {
		t.Fatalf("go list gave %q", out)
	}
	for _, dep := range deps {
		if dep == "net/http" || dep == "crypto/tls" || dep == "os/exec" {
			t.Errorf("bundle links %s", dep)
		}
	}
}
