package trivy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// readOSRelease reads os-release(5).
func readOSRelease(_ context.Context, f *walk.File, ev *scan.Evidence) error {
	b, err := whole(f)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"'`)
		if len(value) > maxField {
			return fmt.Errorf("%s has %d bytes", clip(key, 40), len(value))
		}
		switch key {
		case "ID":
			ev.OSFamily = oneLine(strings.ToLower(value))
		case "VERSION_ID":
			ev.OSVersion = oneLine(value)
		}
	}
	if ev.OSFamily == "" {
		// An os-release without ID means "linux".
		ev.OSFamily = "linux"
	}
	return nil
}

// A stanza is one paragraph of deb822(5): fields by their lower-case name.
type stanza map[string]string

// stanzas reads paragraphs as dpkg does: a field, and lines of it that start
// with white space. What is neither is an error.
func stanzas(b []byte) ([]stanza, error) {
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, errors.New("holds a NUL byte")
	}
	var all []stanza
	var cur stanza
	last := ""
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text := strings.TrimRight(string(line), "\r\n")
		switch {
		case strings.TrimSpace(text) == "":
			if cur != nil {
				all, cur = append(all, cur), nil
			}
		case strings.HasPrefix(text, "#"):
		case text[0] == ' ' || text[0] == '\t':
			if cur == nil {
				return nil, fmt.Errorf("line %d: continues nothing", n)
			}
			cur[last] += "\n" + strings.TrimSpace(text)
		default:
			key, value, ok := strings.Cut(text, ":")
			if !ok || key == "" || strings.ContainsAny(key, " \t") {
				return nil, fmt.Errorf("line %d: no field: %q", n, clip(text, 40))
			}
			if cur == nil {
				cur = make(stanza)
			}
			last = strings.ToLower(key)
			if _, twice := cur[last]; twice {
				return nil, fmt.Errorf("line %d: second field %q", n, clip(key, 40))
			}
			cur[last] = strings.TrimSpace(value)
		}
	}
	if cur != nil {
		all = append(all, cur)
	}
	return all, nil
}

// source is the form of the field Source: a name, and in parentheses a
// version that is not the package's own.
var source = regexp.MustCompile(`^(\S+)(?:\s+\(([^()\s]+)\))?$`)

// deb makes a package of the fields of a control file or of dpkg's status.
func (s stanza) deb() (scan.Package, error) {
	p := scan.Package{
		Type: "deb", Name: s["package"], Version: s["version"], Arch: s["architecture"],
		SrcName: s["package"], SrcVer: s["version"], Maintainer: s["maintainer"], Homepage: s["homepage"],
	}
	if p.Name == "" || p.Version == "" {
		return p, fmt.Errorf("package %q has version %q, want both", clip(p.Name, 40), clip(p.Version, 40))
	}
	if src := s["source"]; src != "" {
		m := source.FindStringSubmatch(src)
		if m == nil {
			return p, fmt.Errorf("package %q: source %q", clip(p.Name, 40), clip(src, 40))
		}
		p.SrcName = m[1]
		if m[2] != "" {
			p.SrcVer = m[2]
		}
	}
	// A version that cannot be compared would be compared with nothing.
	for _, v := range []string{p.Version, p.SrcVer} {
		if _, err := splitDeb(v); err != nil {
			return p, fmt.Errorf("package %q: version %q: %w", clip(p.Name, 40), clip(v, 40), err)
		}
	}
	return p, nil
}

// readControl reads a .deb's control file.
func readControl(_ context.Context, f *walk.File, ev *scan.Evidence) error {
	b, err := whole(f)
	if err != nil {
		return err
	}
	list, err := stanzas(b)
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("has %d paragraphs, want 1", len(list))
	}
	p, err := list[0].deb()
	ev.Packages = []scan.Package{p}
	return err
}

// readDpkg reads dpkg's status, or one file of status.d, which distroless
// images have instead.
func readDpkg(_ context.Context, f *walk.File, ev *scan.Evidence) error {
	b, err := whole(f)
	if err != nil {
		return err
	}
	list, err := stanzas(b)
	if err != nil {
		return err
	}
	for _, st := range list {
		if gone(st["status"]) {
			continue
		}
		p, err := st.deb()
		if err != nil {
			return err
		}
		ev.Packages = append(ev.Packages, p)
	}
	return nil
}

// gone tells a package of which nothing is installed. The last word of the
// field is the state: files of "config-files" are configuration only. A
// package that is still to be removed is there all the same.
func gone(status string) bool {
	words := strings.Fields(status)
	if len(words) == 0 {
		return false // status.d has no such field
	}
	last := words[len(words)-1]
	return last == "not-installed" || last == "config-files"
}

// readCopyright reads the licences that a package's copyright file names:
// the fields License of the machine-readable form, else the texts below
// /usr/share/common-licenses that it points to.
func readCopyright(_ context.Context, f *walk.File, ev *scan.Evidence) error {
	b, err := whole(f)
	if err != nil {
		return err
	}
	pkg := scan.Package{Type: "deb", Name: path.Base(path.Dir(clean(f.Name())))}
	text := string(b)
	if strings.HasPrefix(text, "Format") {
		for line := range strings.Lines(text) {
			if value, ok := strings.CutPrefix(line, "License:"); ok && strings.TrimSpace(value) != "" {
				pkg.Licences = append(pkg.Licences, alternatives(value)...)
			}
		}
	}
	if len(pkg.Licences) == 0 {
		for _, m := range common.FindAllStringSubmatch(text, -1) {
			pkg.Licences = append(pkg.Licences, strings.TrimRight(m[1], ".-"))
		}
	}
	if len(pkg.Licences) == 0 {
		return errNothing
	}
	ev.Packages = []scan.Package{pkg}
	return nil
}

var (
	common = regexp.MustCompile(`/usr/share/common-licenses/([0-9A-Za-z_.+-]+)`)
	// joins are the words between the licences of one field.
	joins = regexp.MustCompile(`(?i)\s*(?:,|\bor\b|\band\b)\s*`)
)

func alternatives(field string) []string {
	var out []string
	for _, l := range joins.Split(strings.TrimSpace(field), -1) {
		if l != "" {
			out = append(out, l)
		}
	}
	return out
}

// readApk reads apk's list of installed packages.
func readApk(_ context.Context, f *walk.File, ev *scan.Evidence) error {
	b, err := whole(f)
	if err != nil {
		return err
	}
	var p scan.Package
	flush := func() error {
		if p.Name == "" && p.Version == "" {
			return nil
		}
		if p.Name == "" || p.Version == "" {
			return fmt.Errorf("package %q has version %q, want both", clip(p.Name, 40), clip(p.Version, 40))
		}
		p.Type = "apk"
		if p.SrcName == "" {
			p.SrcName = p.Name
		}
		p.SrcVer = p.Version
		ev.Packages = append(ev.Packages, p)
		p = scan.Package{}
		return nil
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, maxList)
	for sc.Scan() {
		line := sc.Text()
		if len(line) < 2 {
			if err := flush(); err != nil {
				return err
			}
			continue
		}
		if line[1] != ':' {
			return fmt.Errorf("no field: %q", clip(line, 40))
		}
		switch value := line[2:]; line[0] {
		case 'P':
			p.Name = value
		case 'V':
			p.Version = value
		case 'o':
			p.SrcName = value
		case 'A':
			p.Arch = value
		case 'L':
			p.Licences = alternatives(value)
		case 'm':
			p.Maintainer = value
		case 'U':
			p.Homepage = value
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return flush()
}
