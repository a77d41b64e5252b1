package strictzip

import (
	"errors"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// checkEntry holds the rules for a single entry and fills in its mode.
func (a *Archive) checkEntry(e *Entry, mode uint32) error {
	allowed := uint16(flagsAllowed)
	if a.o.Descriptors {
		allowed |= flagDescriptor
	}
	if e.flags&^allowed != 0 {
		k := Malformed
		if e.flags&flagsEncrypted != 0 {
			k = Encrypted
		}
		d := defect(k, "flags %#x: encrypted, patched or with a data descriptor", e.flags)
		if k != Encrypted || e.flags&^(allowed|flagsEncrypted) != 0 {
			return d
		}
		if err := a.tolerate(of(e.Name, d).(*Defect)); err != nil { //nolint:errorlint // of gives back what it got
			return err
		}
		e.Unreadable = true
	}
	switch {
	case e.method != methodStored && e.method != methodDeflated && !e.Unreadable:
		d := defect(Method, "compression method %d; only stored and deflated are allowed", e.method)
		if err := a.tolerate(of(e.Name, d).(*Defect)); err != nil { //nolint:errorlint // of gives back what it got
			return err
		}
		e.Unreadable = true
	case e.Stored && e.Packed != e.Size && !e.Unreadable:
		return defect(Malformed, "stored with two sizes")
	case e.Folder && (e.Size != 0 || e.Stored && e.Packed != 0):
		return defect(Malformed, "a folder with content")
	}
	if mode == 0xffff && a.o.Report != nil {
		mode = 0 // what old build tools write for -1: not known
	}
	for _, d := range []*Defect{e.setMode(mode), e.nameDefect()} {
		if d == nil {
			continue
		}
		d.Name = clip(e.Name)
		if d.Kind == Malformed {
			return d
		}
		if err := a.tolerate(d); err != nil {
			return err
		}
	}
	return nil
}

func (e *Entry) nameDefect() *Defect {
	if e.flags&flagUTF8 == 0 && !ascii(e.Name) {
		return defect(Path, "name in an unknown encoding")
	}
	if err := CheckName(strings.TrimSuffix(e.Name, "/")); err != nil {
		return defect(Path, "%v", err)
	}
	return nil
}

// setMode reads the mode of a Unix system from the external attributes.
func (e *Entry) setMode(mode uint32) *Defect {
	const (
		typeMask   = 0o170000
		typeFile   = 0o100000
		typeFolder = 0o040000
		typeLink   = 0o120000
		setUser    = 0o4000
		setGroup   = 0o2000
	)
	e.Mode = fs.FileMode(mode & 0o777)
	if mode&setUser != 0 {
		e.Mode |= fs.ModeSetuid
	}
	if mode&setGroup != 0 {
		e.Mode |= fs.ModeSetgid
	}
	if e.Folder {
		e.Mode |= fs.ModeDir
	}
	switch mode & typeMask {
	case 0:
	case typeFile:
		if e.Folder {
			return defect(Malformed, "a folder marked as a file")
		}
	case typeFolder:
		if !e.Folder {
			return defect(Malformed, "a file marked as a folder")
		}
	case typeLink:
		e.Mode |= fs.ModeSymlink
		return defect(Link, "a link or a special file")
	default:
		e.Mode |= fs.ModeDevice
		return defect(Device, "a link or a special file")
	}
	return nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// CheckName refuses names that could leave the folder an archive is unpacked
// into.
func CheckName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return errors.New("name is not UTF-8")
	case strings.HasPrefix(name, "/"):
		return errors.New("absolute name")
	case len(name) > 1 && name[1] == ':':
		return errors.New("name with a drive letter")
	}
	for seg := range strings.SplitSeq(name, "/") {
		if seg == "" || seg == "." || seg == ".." {
			return errors.New("name with an empty, . or .. part")
		}
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '\\' {
			return errors.New("name with a control character or a backslash")
		}
	}
	return nil
}

// A known name is that of an entry, and whether it is a file.
type known struct {
	name string
	file bool
}

// checkNames refuses two entries of one name, also if only the case of
// letters tells them apart, and a file that another entry takes for a folder.
func (a *Archive) checkNames() error {
	seen := make(map[string]known, len(a.Entries))
	for i := range a.Entries {
		e := &a.Entries[i]
		name := strings.TrimSuffix(e.Name, "/")
		key := strings.ToLower(name)
		if before, dup := seen[key]; dup {
			k := Duplicate
			if before.name != name {
				k = Collision
			}
			d := defect(k, "%q is there twice, perhaps in other letter case", clip(e.Name))
			if err := a.tolerate(d); err != nil {
				return err
			}
			continue
		}
		seen[key] = known{name, !e.Folder}
	}
	// In the order of the entries, so that the report is the same each time.
	told := make(map[string]bool)
	for i := range a.Entries {
		key := strings.ToLower(strings.TrimSuffix(a.Entries[i].Name, "/"))
		for i := strings.LastIndexByte(key, '/'); i > 0; i = strings.LastIndexByte(key[:i], '/') {
			parent := key[:i]
			if !seen[parent].file || told[parent] {
				continue
			}
			told[parent] = true
			if err := a.tolerate(defect(Duplicate, "%q is a file and a folder", clip(parent))); err != nil {
				return err
			}
		}
	}
	return nil
}
