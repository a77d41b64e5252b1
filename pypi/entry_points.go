package pypi

import (
	"fmt"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictzip"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// checkScripts reads the entry_points.txt of a wheel, if it has one, as the
// specification of entry points has it, and refuses the name of a command that
// is no filename: an installer writes a program of that name into its folder of
// programs, and several have followed "../" out of it.
func checkScripts(z *strictzip.Archive, info string) error {
	name := info + "/entry_points.txt"
	if _, ok := z.Find(name); !ok {
		return nil
	}
	b, err := readNamed(z, name, maxWheelFile)
	if err != nil {
		return err
	}
	scripts := false
	for line := range strings.FieldsFuncSeq(string(b), endsLine) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "\ufeff"))
		if strings.HasPrefix(line, "[") {
			section := strings.ToLower(strings.TrimSpace(strings.Trim(line, "[]")))
			scripts = section == "console_scripts" || section == "gui_scripts"
			continue
		}
		if !scripts || line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		// Some readers take a colon for the equals sign. Where there is no
		// equals sign, it may be the value of the line before, and holds one.
		command, _, assigned := strings.Cut(line, "=")
		if !assigned {
			command, _, assigned = strings.Cut(line, ":")
		}
		if !assigned {
			continue
		}
		if err := packaging.CheckFilename(strings.TrimSpace(command)); err != nil {
			return fmt.Errorf("a command of entry_points.txt: %w", err)
		}
	}
	return nil
}

// endsLine: what Python's splitlines breaks a line at, which is how pip reads
// the file.
func endsLine(r rune) bool {
	switch r {
	case '\n', '\r', '\v', '\f', 0x1c, 0x1d, 0x1e, 0x85, 0x2028, 0x2029:
		return true
	}
	return false
}
