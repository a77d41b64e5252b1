package pypi

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustPyproject(t *testing.T, text string) *Requirements {
	t.Helper()
	r, err := ReadRequirements(filepath.Join(folder(t, map[string]string{"pyproject.toml": text}), "pyproject.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// told is a line for each want: what it belongs to and what it is.
func told(r *Requirements) []string {
	var out []string
	for _, w := range r.Wants {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s/%s %s%s", w.Extra, w.Group, w.Requirement.Name, w.Requirement.Specifiers)))
	}
	return out
}

const pyprojectText = `
[project]
name = "My.App"
requires-python = ">=3.10"
dynamic = ["version"]
dependencies = ["a>=1", "b ; sys_platform == 'win32'"]
[project.optional-dependencies]
GPU = ["torch>=2"]
all = ["my-app[gpu]", "my_app[all]", "c"]
[dependency-groups]
dev = ["pytest", {include-group = "Lint"}, {include-group = "lint"}, "my-app[gpu]"]
lint = ["ruff<1"]
empty = []
[build-system]
requires = ["hatchling"]
[tool.uv.sources]
torch = { index = "cuda" }
`

func TestPyproject(t *testing.T) {
	r := mustPyproject(t, pyprojectText)
	want := []string{"/ a>=1", "/ b", "all/ torch>=2", "all/ c", "gpu/ torch>=2", "/dev pytest", "/dev ruff<1", "/dev torch>=2", "/lint ruff<1"}
	if d := cmp.Diff(want, told(r)); d != "" {
		t.Error(d)
	}
	if got := r.Wants[2].Where; got != "pyproject.toml: project.optional-dependencies.GPU[0]" {
		t.Errorf("place %q", got)
	}
	if len(r.RequiresPython) != 1 || r.Pinned() {
		t.Errorf("%+v", r)
	}
	notes := strings.Join(r.Notes, "\n")
	if !strings.Contains(notes, "the 1 requirements of [build-system] are not carried") || !strings.Contains(notes, "source of torch in [tool.uv.sources]") {
		t.Errorf("notes: %s", notes)
	}
}

func TestChooseOfPyproject(t *testing.T) {
	for name, c := range map[string]struct {
		choice Choice
		want   []string
	}{
		"neither": {Choice{Extras: []string{}, Groups: []string{}}, []string{"/ a>=1", "/ b"}},
		"some":    {Choice{Extras: []string{"Gpu"}, Groups: []string{"empty", "lint"}}, []string{"/ a>=1", "/ b", "gpu/ torch>=2", "/lint ruff<1"}},
		"groups":  {Choice{Extras: []string{}}, []string{"/ a>=1", "/ b", "/dev pytest", "/dev ruff<1", "/dev torch>=2", "/lint ruff<1"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustPyproject(t, pyprojectText)
			if err := r.Choose(c.choice); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, told(r)); d != "" {
				t.Error(d)
			}
		})
	}
	err := mustPyproject(t, pyprojectText).Choose(Choice{Groups: []string{"docs"}})
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-CHOICE", "pyproject.toml")
}

func TestPyprojectRefused(t *testing.T) {
	head := "[project]\nname = \"x\"\n"
	var deep, many strings.Builder
	for i := range maxIncludeDepth + 3 {
		fmt.Fprintf(&deep, "g%d = [{include-group = \"g%d\"}]\n", i, i+1)
	}
	for i := range maxParts + 1 {
		fmt.Fprintf(&many, "g%d = []\n", i)
	}
	for name, c := range map[string]struct{ text, code string }{
		"not toml":          {"[project", "-SYNTAX"},
		"nothing to read":   {"[tool.poetry.dependencies]\na = \"*\"", "-SYNTAX"},
		"no name":           {"[project]\ndependencies = []", "-SYNTAX"},
		"name":              {"[project]\nname = \"-x\"", "-SYNTAX"},
		"dynamic":           {head + "dynamic = [\"dependencies\"]", "-DYNAMIC"},
		"dynamic extras":    {head + "dynamic = [\"optional-dependencies\"]", "-DYNAMIC"},
		"requirement":       {head + "dependencies = [\"a >\"]", "-SYNTAX"},
		"option":            {head + "dependencies = [\"-r x\"]", "-SYNTAX"},
		"url":               {head + "dependencies = [\"a @ https://user:secret@files.example/a.zip\"]", "-URL"},
		"bad url":           {head + "dependencies = [\"https://user:secret@files.example/a.zip\"]", "-SYNTAX"},
		"requires-python":   {head + "requires-python = \"3\"", "-SYNTAX"},
		"extra twice":       {head + "[project.optional-dependencies]\na-b = []\nA_b = []", "-SYNTAX"},
		"extra name":        {head + "[project.optional-dependencies]\n\"\" = []", "-SYNTAX"},
		"own extra unknown": {head + "dependencies = [\"x[y]\"]", "-SYNTAX"},
		"group twice":       {"[dependency-groups]\na-b = []\nA_b = []", "-SYNTAX"},
		"group itself":      {"[dependency-groups]\na = [{include-group = \"a\"}]", "-INCLUDE"},
		"group ring":        {"[dependency-groups]\na = [{include-group = \"b\"}]\nb = [{include-group = \"a\"}]", "-INCLUDE"},
		"group unknown":     {"[dependency-groups]\na = [{include-group = \"b\"}]", "-SYNTAX"},
		"group entry":       {"[dependency-groups]\na = [1]", "-SYNTAX"},
		"group table":       {"[dependency-groups]\na = [{include-group = \"a\", x = 1}]", "-SYNTAX"},
		"group of a table":  {"[dependency-groups]\na = {}", "-SYNTAX"},
		"groups deep":       {"[dependency-groups]\n" + deep.String(), "-INCLUDE"},
		"groups many":       {"[dependency-groups]\n" + many.String(), "-LIMIT"},
		"arrays deep":       {"[dependency-groups]\na = " + strings.Repeat("[", 1<<20), "-SYNTAX"},
		"many":              {head + "dependencies = [" + strings.Repeat("\"a\",", maxPins+1) + "]", "-LIMIT"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parsePyproject([]byte(c.text), "pyproject.toml")
			wantRefusal(t, err, ErrLock, "PYPI-LOCK"+c.code, "pyproject.toml")
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("a password is told: %v", err)
			}
		})
	}
}

// A project that multiplies itself through its extras must not cost what it
// suggests.
func TestPyprojectMultiplied(t *testing.T) {
	var b strings.Builder
	b.WriteString("[project]\nname = \"x\"\n[project.optional-dependencies]\n")
	for i := range maxParts {
		fmt.Fprintf(&b, "e%d = [\"x[e%d,e%d]\", \"a\"]\n", i, (i+1)%maxParts, (i+7)%maxParts)
	}
	_, err := parsePyproject([]byte(b.String()), "pyproject.toml")
	wantRefusal(t, err, ErrLock, "PYPI-LOCK-LIMIT", "pyproject.toml")
}
