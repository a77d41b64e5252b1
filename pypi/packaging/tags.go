package packaging

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Tag is one compatibility tag of PEP 425.
type Tag struct{ Python, ABI, Platform string }

// String is the tag as filenames hold it.
func (t Tag) String() string { return t.Python + "-" + t.ABI + "-" + t.Platform }

const (
	// minAbi3 is the first minor with a stable ABI (PEP 384).
	minAbi3 = 2
	// leastGlibc is the oldest glibc 2 that manylinux tags know (PEP 600),
	// leastGlibcX86 that of the x86 family (PEP 513).
	leastGlibc    = 17
	leastGlibcX86 = 5
	// lastMac10 is the last release of Mac OS 10 that tags count ("10.16"
	// is how old SDKs saw 11), firstMac10 the first on the x86 family.
	lastMac10  = 16
	firstMac10 = 4
)

var (
	manylinux = regexp.MustCompile(`^manylinux_2_([0-9]{1,2})_([a-z0-9_]+)$`)
	musllinux = regexp.MustCompile(`^musllinux_1_([0-9]{1,2})_([a-z0-9_]+)$`)
	macosx    = regexp.MustCompile(`^macosx_([0-9]{1,2})_([0-9]{1,2})_(x86_64|arm64)$`)
)

// linuxArch knows the architectures that PEP 600 and its followers name.
func linuxArch(s string) bool {
	switch s {
	case "x86_64", "i686", "aarch64", "armv7l", "armv8l", "ppc64", "ppc64le", "s390x", "riscv64", "loongarch64":
		return true
	}
	return false
}

// archs are the architectures whose code one runs: a 64-bit ARM in its 32-bit
// mode runs the older one's.
func archs(arch string) []string {
	if arch == "armv8l" {
		return []string{"armv8l", "armv7l"}
	}
	return []string{arch}
}

// platform fills what markers say of a preset's platform, and lists its
// platform tags, best first. On Linux the plain tag of the machine, which
// promises nothing about its libc, was built there and comes first.
func (e *Environment) platform(s string) ([]string, error) {
	if m := manylinux.FindStringSubmatch(s); m != nil && linuxArch(m[2]) {
		e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "posix", "linux", "Linux", m[2]
		n, err := small(m[1])
		if least := oldestGlibc(archs(m[2])); err != nil || n < least || n > maxLibc {
			return nil, fmt.Errorf("glibc 2.%s: %s starts at 2.%d", m[1], m[2], least)
		}
		return append(linuxPlatforms(archs(m[2])), manylinuxPlatforms(n, archs(m[2]))...), nil
	}
	if m := musllinux.FindStringSubmatch(s); m != nil && linuxArch(m[2]) {
		e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "posix", "linux", "Linux", m[2]
		n, err := small(m[1])
		if err != nil {
			return nil, fmt.Errorf("musl version 1.%s", m[1])
		}
		return append(linuxPlatforms(archs(m[2])), musllinuxPlatforms(n, archs(m[2]))...), nil
	}
	if m := macosx.FindStringSubmatch(s); m != nil {
		e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "posix", "darwin", "Darwin", m[3]
		major, err := small(m[1])
		minor, err2 := small(m[2])
		switch {
		case err != nil || err2 != nil || major < 10:
			return nil, fmt.Errorf("macOS %s.%s", m[1], m[2])
		case major == 10 && (m[3] != "x86_64" || minor < firstMac10 || minor > lastMac10):
			return nil, fmt.Errorf("macOS 10.%d on %s", minor, m[3])
		}
		return macPlatforms(major, minor, m[3]), nil
	}
	machine, ok := map[string]string{"win_amd64": "AMD64", "win_arm64": "ARM64", "win32": "x86"}[s]
	if !ok {
		return nil, fmt.Errorf("unknown platform %q", clip(s))
	}
	e.OSName, e.SysPlatform, e.PlatformSystem, e.PlatformMachine = "nt", "win32", "Windows", machine
	return []string{s}, nil
}

// small reads a number that is written without leading zeros.
func small(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err == nil && s != strconv.Itoa(n) {
		err = fmt.Errorf("%q starts with a zero", s)
	}
	return n, err
}

func linuxPlatforms(archs []string) []string {
	var out []string
	for _, a := range archs {
		out = append(out, "linux_"+a)
	}
	return out
}

func oldestGlibc(archs []string) int {
	if slices.Contains(archs, "x86_64") || slices.Contains(archs, "i686") {
		return leastGlibcX86
	}
	return leastGlibc
}

// manylinuxPlatforms lists manylinux_2_N (PEP 600) downwards, with the older
// names for 2.17, 2.12 and 2.5.
func manylinuxPlatforms(minor int, archs []string) []string {
	var out []string
	for _, arch := range archs {
		for n := minor; n >= oldestGlibc(archs); n-- {
			out = append(out, fmt.Sprintf("manylinux_2_%d_%s", n, arch))
			switch n {
			case 17:
				out = append(out, "manylinux2014_"+arch)
			case 12:
				out = append(out, "manylinux2010_"+arch)
			case 5:
				out = append(out, "manylinux1_"+arch)
			}
		}
	}
	return out
}

// musllinuxPlatforms lists musllinux_1_N (PEP 656) downwards.
func musllinuxPlatforms(minor int, archs []string) []string {
	var out []string
	for _, arch := range archs {
		for n := minor; n >= 0; n-- {
			out = append(out, fmt.Sprintf("musllinux_1_%d_%s", n, arch))
		}
	}
	return out
}

// macPlatforms lists macosx tags: 10.N counts minors, from 11 on majors.
func macPlatforms(major, minor int, arch string) []string {
	var out []string
	each := func(major, minor int, formats []string) {
		for _, f := range formats {
			out = append(out, fmt.Sprintf("macosx_%d_%d_%s", major, minor, f))
		}
	}
	if major == 10 {
		for n := minor; n >= 0; n-- {
			each(10, n, macFormats(n, arch))
		}
		return out
	}
	for n := major; n >= 11; n-- {
		each(n, 0, macFormats(lastMac10, arch))
	}
	formats := macFormats(lastMac10, arch)
	if arch != "x86_64" {
		formats = []string{"universal2"} // its x86_64 half is older than the machine
	}
	for n := lastMac10; n >= firstMac10; n-- {
		each(10, n, formats)
	}
	return out
}

// macFormats lists what binaries an architecture runs on Mac OS 10.minor.
func macFormats(minor int, arch string) []string {
	switch {
	case arch == "x86_64" && minor < firstMac10:
		return nil
	case arch == "x86_64":
		return []string{"x86_64", "intel", "fat64", "fat3", "universal2", "universal"}
	}
	return []string{arch, "universal2"}
}

// nodot is a Python version as tags write it, 312.
func nodot(python []int) string {
	s := ""
	for _, n := range python {
		s += strconv.Itoa(n)
	}
	return s
}

// cpythonTags lists the tags of CPython alone: its ABIs, the stable ABI, none,
// and the stable ABI of older minors. The free-threaded builds have a stable
// ABI of their own (PEP 803).
func cpythonTags(python []int, abis, platforms []string) []Tag {
	var out []Tag
	each := func(interpreter, abi string) {
		for _, p := range platforms {
			out = append(out, Tag{interpreter, abi, p})
		}
	}
	interpreter := "cp" + nodot(python[:min(2, len(python))])
	stable := "abi3"
	if len(abis) > 0 && threadedABI(abis[0]) {
		stable = "abi3t"
	}
	for i, abi := range abis {
		explicit := abi == "none" || abi == "abi3" || abi == "abi3t" && stable == "abi3t"
		if explicit && slices.Index(abis, abi) == i {
			continue // has its place below
		}
		each(interpreter, abi)
	}
	old := len(python) > 1 && (python[0] > 3 || python[0] == 3 && python[1] >= minAbi3)
	if old {
		each(interpreter, stable)
	}
	each(interpreter, "none")
	if old {
		for n := python[1] - 1; n >= minAbi3; n-- {
			each("cp"+nodot([]int{python[0], n}), stable)
		}
	}
	return out
}

// threadedABI tells the ABI of a free-threaded build, cp313t.
func threadedABI(abi string) bool {
	rest, ok := strings.CutPrefix(abi, "cp")
	flags := strings.TrimLeft(rest, "0123456789")
	return ok && flags != rest && strings.Contains(flags, "t")
}

// genericTags lists the tags of an interpreter without rules of its own.
func genericTags(interpreter string, abis, platforms []string) []Tag {
	if !slices.Contains(abis, "none") {
		abis = append(slices.Clip(abis), "none")
	}
	var out []Tag
	for _, abi := range abis {
		for _, p := range platforms {
			out = append(out, Tag{interpreter, abi, p})
		}
	}
	return out
}

// compatibleTags lists the tags of what is written in Python alone.
func compatibleTags(python []int, interpreter string, platforms []string) []Tag {
	var out []Tag
	versions := pythonTags(python)
	for _, v := range versions {
		for _, p := range platforms {
			out = append(out, Tag{v, "none", p})
		}
	}
	if interpreter != "" {
		out = append(out, Tag{interpreter, "none", "any"})
	}
	for _, v := range versions {
		out = append(out, Tag{v, "none", "any"})
	}
	return out
}

// pythonTags is py312, py3, py311 and so on down to py30.
func pythonTags(python []int) []string {
	major := strconv.Itoa(python[0])
	if len(python) == 1 {
		return []string{"py" + major}
	}
	out := []string{"py" + nodot(python[:2]), "py" + major}
	for n := python[1] - 1; n >= 0; n-- {
		out = append(out, "py"+nodot([]int{python[0], n}))
	}
	return out
}
