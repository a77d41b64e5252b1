package pypi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// maxInterpreter bounds the file of an interpreter; one with 2,000 tags has
// 100 KB.
const maxInterpreter = 8 << 20

// InterpreterConfig describes a target that no preset names.
type InterpreterConfig struct {
	// Name stands in targets, "jetson". It does not begin with "cp3", as
	// presets do.
	Name string `yaml:"name"`
	// File holds what the interpreter says of itself, {"markers": {...},
	// "tags": [...]}, as JSON. It stands for all that follows.
	File string `yaml:"file,omitempty"`
	// Python is the full version, "3.10.12".
	Python string `yaml:"python,omitempty"`
	// Platform is that of a preset: "manylinux_2_35_aarch64".
	Platform string `yaml:"platform,omitempty"`
	// Platforms are the platform tags, best first, where they do not follow
	// from Platform.
	Platforms []string `yaml:"platforms,omitempty"`
	// Implementation is "cp", which is also meant by "", or "pp" for PyPy.
	Implementation string `yaml:"implementation,omitempty"`
	// ImplementationVersion is Python's for CPython; PyPy has its own.
	ImplementationVersion string `yaml:"implementation_version,omitempty"`
	// ABI follows for CPython; for PyPy it is "pypy310_pp73" or the like.
	ABI string `yaml:"abi,omitempty"`
	// FreeThreaded is a build without the lock.
	FreeThreaded bool `yaml:"free_threaded,omitempty"`
}

// saidByInterpreter is the file of an interpreter: its marker variables as PEP 508
// names them, all of which a real one has, and its tags.
type saidByInterpreter struct {
	Markers struct {
		ImplementationName           string `json:"implementation_name"`
		ImplementationVersion        string `json:"implementation_version"`
		OSName                       string `json:"os_name"`
		PlatformMachine              string `json:"platform_machine"`
		PlatformPythonImplementation string `json:"platform_python_implementation"`
		PlatformRelease              string `json:"platform_release"`
		PlatformSystem               string `json:"platform_system"`
		PlatformVersion              string `json:"platform_version"`
		PythonFullVersion            string `json:"python_full_version"`
		PythonVersion                string `json:"python_version"`
		SysPlatform                  string `json:"sys_platform"`
	} `json:"markers"`
	Tags []string `json:"tags"`
}

var interpreterRE = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,63}$`)

// description is what is configured, but not what a file says.
func (c *InterpreterConfig) description() packaging.Description {
	return packaging.Description{
		Name: c.Name, Implementation: c.Implementation, Python: c.Python, ImplementationVersion: c.ImplementationVersion,
		ABI: c.ABI, FreeThreaded: c.FreeThreaded, Platform: c.Platform, Platforms: c.Platforms,
	}
}

func (c *InterpreterConfig) validate() error {
	if !interpreterRE.MatchString(c.Name) || strings.HasPrefix(c.Name, "cp3") {
		return fmt.Errorf("name %q: want lower-case letters, digits, '.', '_' and '-', and not a preset's cp3", clip(c.Name))
	}
	if c.File == "" {
		_, err := c.description().Target()
		return err
	}
	if d := c.description(); len(c.Platforms) > 0 || d.Python+d.Platform+d.Implementation+d.ImplementationVersion+d.ABI != "" || c.FreeThreaded {
		return fmt.Errorf("file %s stands for everything else: leave out the other keys", clip(c.File))
	}
	return nil
}

// target computes the target, and reads the file where there is one.
func (c *InterpreterConfig) target() (_ *packaging.Target, err error) {
	d := c.description()
	if c.File == "" {
		return d.Target()
	}
	f, err := os.Open(filepath.Clean(c.File))
	if err != nil {
		return nil, fmt.Errorf("interpreter %s: %w", c.Name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxInterpreter+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxInterpreter {
		return nil, fmt.Errorf("interpreter %s: %s has over %d bytes", c.Name, c.File, maxInterpreter)
	}
	var said saidByInterpreter
	if err := strictjson.Unmarshal(b, &said); err != nil {
		return nil, fmt.Errorf("interpreter %s: %s: %w", c.Name, c.File, err)
	}
	if len(said.Tags) == 0 {
		return nil, fmt.Errorf("interpreter %s: %s has no tags", c.Name, c.File)
	}
	m := &said.Markers
	d.Tags, d.Markers = said.Tags, map[string]string{
		"implementation_name": m.ImplementationName, "implementation_version": m.ImplementationVersion, "os_name": m.OSName,
		"platform_machine": m.PlatformMachine, "platform_python_implementation": m.PlatformPythonImplementation, "platform_release": m.PlatformRelease,
		"platform_system": m.PlatformSystem, "platform_version": m.PlatformVersion, "python_full_version": m.PythonFullVersion,
		"python_version": m.PythonVersion, "sys_platform": m.SysPlatform,
	}
	if m.ImplementationName == "pypy" {
		d.Implementation = "pp"
	}
	return d.Target()
}

// target is an interpreter that is described, or a preset.
func (c *Config) target(text string) (*packaging.Target, error) {
	for i := range c.Interpreters {
		if c.Interpreters[i].Name == text {
			return c.Interpreters[i].target()
		}
	}
	return packaging.ParseTarget(text)
}

func (c *Config) validateInterpreters(add func(string, string, ...any)) {
	seen := make(map[string]bool)
	for i := range c.Interpreters {
		at := fmt.Sprintf("interpreters[%d]", i)
		if err := c.Interpreters[i].validate(); err != nil {
			add(at, "%w", err)
		} else if name := c.Interpreters[i].Name; seen[name] {
			add(at, "%q is there twice", name)
		}
		seen[c.Interpreters[i].Name] = true
	}
}

func (c *Config) checkTargets(targets []string, field string, add func(string, string, ...any)) {
	seen := make(map[string]bool)
	for i, t := range targets {
		at := fmt.Sprintf("%s[%d]", field, i)
		if seen[t] {
			add(at, "%q is there twice", t)
		} else if !c.describes(t) {
			if _, err := packaging.ParseTarget(t); err != nil {
				add(at, "%w; or describe it in interpreters", err)
			}
		}
		seen[t] = true
	}
}

func (c *Config) describes(target string) bool {
	for i := range c.Interpreters {
		if c.Interpreters[i].Name == target {
			return true
		}
	}
	return false
}
