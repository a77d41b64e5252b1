package packaging

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Target is one interpreter on one platform: what a lock is read for. It
// follows from its text or its [Description] alone.
type Target struct {
	// Text is the preset, "cp312-manylinux_2_28_x86_64", or the name of a
	// description.
	Text string
	Env  Environment
	// Python is python_full_version.
	Python Version
	ranks  map[Tag]int
	tags   []Tag
}

const (
	// minMinor is the least CPython 3 minor: before 3.8 the ABI tag had more
	// forms, and those releases ended in 2023.
	minMinor = 8
	// maxMinor and maxLibc keep tag lists short; both leave decades.
	maxMinor = 99
	maxLibc  = 99
	// minThreaded is the first minor with a free-threaded build (PEP 703).
	minThreaded = 13
	// maxTags bounds the tags of a description; presets have up to 9,000.
	maxTags = 100_000
	// maxPlatforms bounds the platforms of a description.
	maxPlatforms = 1_000
	// maxMarkerValue bounds a marker variable's value; platform_version has
	// about 100 bytes.
	maxMarkerValue = 1_024
)

var targetRE = regexp.MustCompile(`^cp(3)([0-9]{1,2})(t?)-([a-z0-9_]+)(?:@(3\.[0-9]+\.[0-9]+(?:(?:a|b|rc)[0-9]+)?))?$`)

// ParseTarget reads a preset: cpXY, with a t behind it for the free-threaded
// build, a dash, and a platform, which is one of manylinux_2_N_ARCH,
// musllinux_1_N_ARCH, macosx_X_Y_ARCH, win_amd64, win_arm64 and win32. The
// interpreter's full version is X.Y.0 unless it follows an "@":
// "cp312-musllinux_1_2_aarch64@3.12.7".
func ParseTarget(s string) (*Target, error) {
	m := targetRE.FindStringSubmatch(s)
	if m == nil {
		return nil, fmt.Errorf("target %q: want cpXY-PLATFORM, such as cp312-manylinux_2_28_x86_64", clip(s))
	}
	short := m[1] + "." + m[2]
	d := Description{Name: s, Python: short + ".0", FreeThreaded: m[3] != "", Platform: m[4]}
	if m[5] != "" {
		if d.Python = m[5]; !strings.HasPrefix(d.Python, short+".") {
			return nil, fmt.Errorf("target %q: the version after @ is of another Python", clip(s))
		}
	}
	return d.Target()
}

// A Description says in full what a target is, where no preset does. Either
// the pieces are given, and all follows from them, or what the interpreter
// itself says: its marker variables and its tags.
type Description struct {
	Name string // for messages
	// Implementation is "cp", which is also meant by "", or "pp" for PyPy.
	Implementation string
	// Python is the full version, "3.12.4".
	Python string
	// ImplementationVersion is Python's for CPython; PyPy has its own.
	ImplementationVersion string
	// ABI follows for CPython; for PyPy it is "pypy310_pp73" or the like.
	ABI          string
	FreeThreaded bool
	// Platform is that of a preset: it stands for the architecture and the
	// version of glibc, musl or macOS.
	Platform string
	// Platforms are the platform tags, best first, where they do not follow
	// from Platform.
	Platforms []string
	// Markers are the values of marker variables. They win over the others.
	Markers map[string]string
	// Tags are "PYTHON-ABI-PLATFORM", best first. If there are any, they are
	// all, and none is computed.
	Tags []string
}

// Target computes what follows from the description.
func (d Description) Target() (*Target, error) {
	t := &Target{Text: d.Name}
	if err := d.fill(t); err != nil {
		return nil, fmt.Errorf("target %q: %w", clip(d.Name), err)
	}
	t.ranks = make(map[Tag]int, len(t.tags))
	for i, tag := range t.tags {
		if _, dup := t.ranks[tag]; !dup {
			t.ranks[tag] = i
		}
	}
	return t, nil
}

func (d *Description) fill(t *Target) error {
	python := d.Python
	if full := d.Markers["python_full_version"]; python == "" {
		python = full
	} else if full != "" && full != python {
		return fmt.Errorf("python_full_version is %q, but Python is %q", clip(full), clip(python))
	}
	var err error
	if t.Python, err = ParseVersion(python); err != nil {
		return err
	}
	if len(t.Python.release) != 3 || t.Python.release[0] != "3" || len(t.Python.release[1]) > 2 {
		return fmt.Errorf("python %q: want 3.Y.Z", clip(python))
	}
	minor, err := strconv.Atoi(t.Python.release[1])
	if err != nil || minor < minMinor || minor > maxMinor || t.Python.release[1] != strings.Split(python, ".")[1] {
		return fmt.Errorf("python %q: Python 3.%d and later are supported", clip(python), minMinor)
	}
	t.Env.PythonVersion, t.Env.PythonFullVersion = "3."+t.Python.release[1], python
	platforms, err := d.platforms(&t.Env)
	if err != nil {
		return err
	}
	if err := d.implementation(t, minor, platforms); err != nil {
		return err
	}
	return d.markers(&t.Env)
}

// platforms lists the platform tags, best first, and fills what markers say of
// the platform.
func (d *Description) platforms(e *Environment) (tags []string, err error) {
	if d.Platform != "" {
		if tags, err = e.platform(d.Platform); err != nil {
			return nil, err
		}
	}
	if len(d.Platforms) > maxPlatforms {
		return nil, fmt.Errorf("over %d platforms", maxPlatforms)
	}
	for _, p := range d.Platforms {
		if !tagRE.MatchString(p) || p != strings.ToLower(p) {
			return nil, fmt.Errorf("platform %q: want a tag such as linux_x86_64", clip(p))
		}
	}
	if len(d.Platforms) > 0 {
		tags = d.Platforms
	}
	if len(tags) == 0 && len(d.Tags) == 0 {
		return nil, errors.New("neither a platform nor tags")
	}
	return tags, nil
}

// implementation lists the tags, and fills what markers say of the
// interpreter.
func (d *Description) implementation(t *Target, minor int, platforms []string) (err error) {
	e, python := &t.Env, []int{3, minor}
	e.ImplementationVersion = d.ImplementationVersion
	var own []Tag
	var universal string
	switch d.Implementation {
	case "", "cp":
		e.ImplementationName, e.PlatformPythonImpl = "cpython", "CPython"
		if e.ImplementationVersion == "" {
			e.ImplementationVersion = e.PythonFullVersion
		}
		if d.FreeThreaded && minor < minThreaded {
			return fmt.Errorf("the free-threaded build exists from Python 3.%d on", minThreaded)
		}
		universal = "cp" + nodot(python)
		abi := d.ABI
		if abi == "" {
			abi = universal
			if d.FreeThreaded {
				abi += "t"
			}
		}
		own = cpythonTags(python, []string{abi}, platforms)
	case "pp":
		e.ImplementationName, e.PlatformPythonImpl = "pypy", "PyPy"
		if len(d.Tags) == 0 && (d.ABI == "" || d.FreeThreaded) {
			return fmt.Errorf("PyPy needs an ABI, such as pypy3%d_pp73", minor)
		}
		own, universal = genericTags("pp"+nodot(python), []string{d.ABI}, platforms), "pp3"
	default:
		return fmt.Errorf("implementation %q: want cp or pp", clip(d.Implementation))
	}
	if d.ABI != "" && !tagRE.MatchString(d.ABI) {
		return fmt.Errorf("ABI %q: want a tag such as cp312", clip(d.ABI))
	}
	if len(d.Tags) == 0 {
		t.tags = append(own, compatibleTags(python, universal, platforms)...)
		return nil
	}
	t.tags, err = parseTags(d.Tags)
	return err
}

// markers puts in what was given, and looks for what is missing.
func (d *Description) markers(e *Environment) error {
	for name, value := range d.Markers {
		to := e.field(name)
		switch {
		case to == nil:
			return fmt.Errorf("unknown marker variable %q", clip(name))
		case len(value) > maxMarkerValue || strings.ContainsFunc(value, func(r rune) bool { return r < 0x20 || r == 0x7f }):
			return fmt.Errorf("%s %q: a control character, or over %d bytes", name, clip(value), maxMarkerValue)
		case name == "python_version" && value != e.PythonVersion:
			return fmt.Errorf("python_version is %q, but Python is %q", clip(value), e.PythonFullVersion)
		}
		*to = value
	}
	for _, name := range []string{"implementation_name", "implementation_version", "os_name", "platform_machine", "platform_python_implementation", "platform_system", "sys_platform"} {
		if *e.field(name) == "" {
			return fmt.Errorf("%s is missing, and does not follow from what is given", name)
		}
	}
	return nil
}

// Tags lists the target's tags, best first.
func (t *Target) Tags() []Tag { return t.tags }

// Rank gives the place of the best tag that the wheel and the target share;
// less is better. ok is false if they share none.
func (t *Target) Rank(w WheelName) (rank int, ok bool) {
	for _, py := range w.Pythons {
		for _, abi := range w.ABIs {
			for _, plat := range w.Platforms {
				if r, hit := t.ranks[Tag{py, abi, plat}]; hit && (!ok || r < rank) {
					rank, ok = r, true
				}
			}
		}
	}
	return rank, ok
}

// parseTags reads tags, each written out.
func parseTags(texts []string) ([]Tag, error) {
	if len(texts) > maxTags {
		return nil, fmt.Errorf("over %d tags", maxTags)
	}
	out := make([]Tag, 0, len(texts))
	for _, s := range texts {
		parts := strings.Split(s, "-")
		if len(parts) != 3 || slices.ContainsFunc(parts, func(p string) bool { return !tagRE.MatchString(p) || p != strings.ToLower(p) }) {
			return nil, fmt.Errorf("tag %q: want PYTHON-ABI-PLATFORM", clip(s))
		}
		out = append(out, Tag{parts[0], parts[1], parts[2]})
	}
	return out, nil
}
