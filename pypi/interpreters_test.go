package pypi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

const jetson = `{"markers": {"implementation_name": "cpython", "implementation_version": "3.10.12", "os_name": "posix", "platform_machine": "aarch64",
"platform_python_implementation": "CPython", "platform_release": "5.10.120-tegra", "platform_system": "Linux", "platform_version": "#1 SMP",
"python_full_version": "3.10.12", "python_version": "3.10", "sys_platform": "linux"}, "tags": ["cp310-cp310-linux_tegra", "py3-none-any"]}`

// TestInterpreters: a target that is described, by its pieces or by what the
// interpreter says of itself, is resolved for like a preset.
func TestInterpreters(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jetson.json")
	if err := os.WriteFile(file, []byte(jetson), 0o600); err != nil {
		t.Fatal(err)
	}
	index := pypitest.New(aged(
		pypitest.Requiring("app-1.0-cp310-cp310-linux_tegra.whl", "", "Requires-Dist: tegra ; platform_release == '5.10.120-tegra'"),
		pypitest.Requiring("app-1.0-cp310-cp310-manylinux_2_35_aarch64.whl", "", "Requires-Dist: tegra ; platform_release == '5.10.120-tegra'"),
		pypitest.Requiring("app-1.0-pp310-pypy310_pp73-manylinux_2_28_x86_64.whl", ""),
		pypitest.Requiring("tegra-1.0-py3-none-any.whl", ""),
	)...)
	for name, tt := range map[string]struct {
		is   InterpreterConfig
		want []string
	}{
		"file": {InterpreterConfig{File: file}, []string{"app-1.0-cp310-cp310-linux_tegra.whl", "tegra-1.0-py3-none-any.whl"}},
		// The release is not known, so the marker counts as true.
		"pieces": {InterpreterConfig{Python: "3.10.12", Platform: "manylinux_2_35_aarch64"}, []string{"app-1.0-cp310-cp310-manylinux_2_35_aarch64.whl", "tegra-1.0-py3-none-any.whl"}},
		"pypy": {
			InterpreterConfig{Implementation: "pp", Python: "3.10.14", ImplementationVersion: "7.3.17", ABI: "pypy310_pp73", Platform: "manylinux_2_28_x86_64"},
			[]string{"app-1.0-pp310-pypy310_pp73-manylinux_2_28_x86_64.whl"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tt.is.Name = "mine"
			_, names, _ := resolving(t, index, []string{"app"}, func(c *Config) { c.Targets, c.Interpreters = []string{"mine"}, []InterpreterConfig{tt.is} }).resolve(t)
			if d := cmp.Diff(tt.want, names); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestInterpretersRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		name := filepath.Join(dir, "x.json")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for name, tt := range map[string]struct {
		is   InterpreterConfig
		want string
	}{
		"preset's name":  {InterpreterConfig{Name: "cp312-mine", Python: "3.12.1", Platform: "win_amd64"}, "and not a preset's cp3"},
		"no name":        {InterpreterConfig{Python: "3.12.1", Platform: "win_amd64"}, "want lower-case letters"},
		"no platform":    {InterpreterConfig{Name: "x", Python: "3.12.1"}, "neither a platform nor tags"},
		"file and more":  {InterpreterConfig{Name: "x", File: "x.json", Python: "3.12.1"}, "leave out the other keys"},
		"PyPy, no ABI":   {InterpreterConfig{Name: "x", Implementation: "pp", Python: "3.10.1", Platform: "win_amd64"}, "PyPy needs an ABI"},
		"implementation": {InterpreterConfig{Name: "x", Implementation: "jython", Python: "3.10.1", Platform: "win_amd64"}, "want cp or pp"},
	} {
		c := Config{Index: "https://index.example/simple/", Targets: []string{"x"}, Interpreters: []InterpreterConfig{tt.is}}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "interpreters[0]: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tt := range map[string]struct{ text, want string }{
		"no tags":      {`{"markers": {"python_full_version": "3.12.1"}}`, "has no tags"},
		"no markers":   {`{"tags": ["py3-none-any"]}`, "version"},
		"other marker": {strings.Replace(jetson, "os_name", "os_nam", 1), "os_nam"},
		"unknown key":  {`{"tag": []}`, "tag"},
		"bad tag":      {strings.Replace(jetson, "py3-none-any", "py3-any", 1), "want PYTHON-ABI-PLATFORM"},
	} {
		c := InterpreterConfig{Name: "x", File: file(tt.text)}
		if _, err := c.target(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := Config{Index: "https://index.example/simple/", Targets: []string{"x", "other"}, Interpreters: []InterpreterConfig{{Name: "x", Python: "3.12.1", Platform: "win_amd64"}, {Name: "x", Python: "3.12.2", Platform: "win_amd64"}}}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), `interpreters[1]: "x" is there twice`) || !strings.Contains(err.Error(), "or describe it in interpreters") {
		t.Error(err)
	}
}
