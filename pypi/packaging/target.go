package packaging

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Target is one interpreter on one platform: what a lock is read for. It
// follows from its text alone.
type Target struct {
	// Text is the preset: "cp312-manylinux_2_28_x86_64".
	Text string
	Env  Environment
	// Python is python_full_version.
	Python Version
	ranks  map[Tag]int
	tags   []Tag
}

// A Tag is one compatibility tag of PEP 425.
type Tag struct{ Python, ABI, Platform string }

// String is the tag as filenames hold it.
func (t Tag) String() string { return t.Python + "-" + t.ABI + "-" + t.Platform }

const (
	// minMinor is the least CPython 3 minor: before 3.8 the ABI tag had more
	// forms, and those releases ended in 2023.
	minMinor = 8
	// maxMinor and maxLibc keep tag lists short; both leave decades.
	maxMinor = 99
	maxLibc  = 99
	// minAbi3 is the first minor with a stable ABI (PEP 384).
	minAbi3 = 2
	// lastMac10 is the last release of Mac OS 10 that tags count ("10.16"
	// is how old SDKs saw 11).
	lastMac10 = 16
)

var (
	targetRE   = regexp.MustCompile(`^cp3([0-9]{1,2})(t?)-([a-z0-9_]+)(?:@(3\.[0-9]+\.[0-9]+(?:(?:a|b|rc)[0-9]+)?))?$`)
	manylinux  = regexp.MustCompile(`^manylinux_2_([0-9]{1,2})_([a-z0-9_]+)$`)
	musllinux  = regexp.MustCompile(`^musllinux_1_([0-9]{1,2})_([a-z0-9_]+)$`)
	macosx     = regexp.MustCompile(`^macosx_([0-9]{1,2})_([0-9]{1,2})_(x86_64|arm64)$`)
	linuxArchs = map[string]bool{
		"x86_64": true, "i686": true, "aarch64": true, "armv7l": true, "ppc64le": true, "s390x": true, "riscv64": true, "loongarch64": true,
	}
)

// ParseTarget reads a preset: cpXY, with a t behind it for the free-threaded
// build, a dash, and a platform, which is one of manylinux_2_N_ARCH,
// musllinux_1_N_ARCH, macosx_X_Y_ARCH, win_amd64, win_arm64 and win32. The
// interpreter's full version is X.Y.0 unless it follows an "@":
// "cp312-musllinux_1_2_aarch64@3.12.7".
func ParseTarget(s string) (*Target, error) {
	bad := func(why string) (*Target, error) { return nil, fmt.Errorf("target %q: %s", clip(s), why) }
	m := targetRE.FindStringSubmatch(s)
	if m == nil {
		return bad("want cpXY-PLATFORM, such as cp312-manylinux_2_28_x86_64")
	}
	minor, err := strconv.Atoi(m[1])
	if err != nil || minor < minMinor || minor > maxMinor || strings.HasPrefix(m[1], "0") {
		return bad(fmt.Sprintf("Python 3.%d and later are supported", minMinor))
	}
	if m[2] == "t" && minor < 13 {
		return bad("the free-threaded build exists from Python 3.13 on")
	}
	short := fmt.Sprintf("3.%d", minor)
	full := short + ".0"
	if m[4] != "" {
		if full = m[4]; !strings.HasPrefix(full, short+".") {
			return bad("the version after @ is of another Python")
		}
	}
	t := &Target{Text: s, Env: Environment{
		PythonVersion: short, PythonFullVersion: full, ImplementationVersion: full,
		ImplementationName: "cpython", PlatformPythonImpl: "CPython",
	}}
	if t.Python, err = ParseVersion(full); err != nil {
		return nil, err
	}
	platforms, err := t.platforms(m[3])
	if err != nil {
		return bad(err.Error())
	}
	t.tags = tags(minor, m[2] == "t", platforms)
	t.ranks = make(map[Tag]int, len(t.tags))
	for i, tag := range t.tags {
		if _, dup := t.ranks[tag]; !dup {
			t.ranks[tag] = i
		}
	}
	return t, nil
}

// platforms fills the marker environment and lists the platform tags, best
// first.
func (t *Target) platforms(s string) ([]string, error) {
	e := &t.Env
	if m := manylinux.FindStringSubmatch(s); m != nil && linuxArchs[m[2]] {
		e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "posix", "linux", "Linux", m[2]
		return manylinuxTags(m[1], m[2])
	}
	if m := musllinux.FindStringSubmatch(s); m != nil && linuxArchs[m[2]] {
		e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "posix", "linux", "Linux", m[2]
		n, err := strconv.Atoi(m[1])
		if err != nil || m[1] != strconv.Itoa(n) {
			return nil, fmt.Errorf("musl version 1.%s", m[1])
		}
		var out []string
		for ; n >= 0; n-- {
			out = append(out, fmt.Sprintf("musllinux_1_%d_%s", n, m[2]))
		}
		return append(out, "linux_"+m[2]), nil
	}
	if m := macosx.FindStringSubmatch(s); m != nil {
		e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "posix", "darwin", "Darwin", m[3]
		return macTags(m[1], m[2], m[3])
	}
	machine, ok := map[string]string{"win_amd64": "AMD64", "win_arm64": "ARM64", "win32": "x86"}[s]
	if !ok {
		return nil, fmt.Errorf("unknown platform %q", s)
	}
	e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "nt", "win32", "Windows", machine
	return []string{s}, nil
}

// manylinuxTags lists manylinux_2_N (PEP 600) downwards with the older names
// for 2.17, 2.12 and 2.5. A bare linux tag promises nothing about libc and
// comes last.
func manylinuxTags(minor, arch string) ([]string, error) {
	least := 17
	if arch == "x86_64" || arch == "i686" {
		least = 5
	}
	n, err := strconv.Atoi(minor)
	if err != nil || n < least || n > maxLibc || minor != strconv.Itoa(n) {
		return nil, fmt.Errorf("glibc 2.%s: %s starts at 2.%d", minor, arch, least)
	}
	var out []string
	for ; n >= least; n-- {
		out = append(out, fmt.Sprintf("manylinux_2_%d_%s", n, arch))
		if old, ok := map[int]string{17: "manylinux2014_", 12: "manylinux2010_", 5: "manylinux1_"}[n]; ok {
			out = append(out, old+arch)
		}
	}
	return append(out, "linux_"+arch), nil
}

// macTags lists macosx tags: 10.N counts minors, from 11 on majors.
func macTags(majorText, minorText, arch string) ([]string, error) {
	major, err := strconv.Atoi(majorText)
	if err != nil || major < 10 || majorText != strconv.Itoa(major) {
		return nil, fmt.Errorf("macOS %s", majorText)
	}
	minor, err := strconv.Atoi(minorText)
	if err != nil || minorText != strconv.Itoa(minor) {
		return nil, fmt.Errorf("macOS %s.%s", majorText, minorText)
	}
	if major == 10 && (arch != "x86_64" || minor < 4 || minor > lastMac10) {
		return nil, fmt.Errorf("macOS 10.%d on %s", minor, arch)
	}
	formats := []string{"arm64", "universal2"}
	if arch == "x86_64" {
		formats = []string{"x86_64", "intel", "fat64", "fat3", "universal2", "universal"}
	}
	var out []string
	for n := major; n >= 11; n-- {
		for _, f := range formats {
			out = append(out, fmt.Sprintf("macosx_%d_0_%s", n, f))
		}
	}
	top := lastMac10
	if major == 10 {
		top = minor
	}
	if arch == "arm64" {
		formats = []string{"universal2"} // Python for 10 never ran on it natively
	}
	for n := top; n >= 4; n-- {
		for _, f := range formats {
			out = append(out, fmt.Sprintf("macosx_10_%d_%s", n, f))
		}
	}
	return out, nil
}

// tags lists every tag that CPython 3.minor accepts, best first, in the order
// of packaging.tags.
func tags(minor int, threaded bool, platforms []string) []Tag {
	var out []Tag
	each := func(python, abi string) {
		for _, p := range platforms {
			out = append(out, Tag{python, abi, p})
		}
	}
	cp := fmt.Sprintf("cp3%d", minor)
	abi, stable := cp, "abi3"
	if threaded {
		abi, stable = cp+"t", "abi3t"
	}
	each(cp, abi)
	each(cp, stable)
	each(cp, "none")
	for n := minor - 1; n >= minAbi3; n-- {
		each(fmt.Sprintf("cp3%d", n), stable)
	}
	py := []string{fmt.Sprintf("py3%d", minor), "py3"}
	for n := minor - 1; n >= 0; n-- {
		py = append(py, fmt.Sprintf("py3%d", n))
	}
	for _, p := range py {
		each(p, "none")
	}
	out = append(out, Tag{cp, "none", "any"})
	for _, p := range py {
		out = append(out, Tag{p, "none", "any"})
	}
	return out
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
