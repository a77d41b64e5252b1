package walk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"github.com/darkmirror/darkmirror/internal/strictzip"
)

const (
	// entryCost is what the reader of zip archives keeps of an entry beside
	// its name: the entry, two headings in maps, and a [Member].
	entryCost = 256
	// dirCost is what it keeps of a byte of the directory: the name, in its
	// own and in lower case.
	dirCost = 2
)

// defects are the codes of what is wrong with a zip archive.
var defects = map[strictzip.Kind]string{
	strictzip.Malformed: CodeMalformed,
	strictzip.Gap:       CodeMalformed,
	strictzip.Prefix:    CodePrefix,
	strictzip.Trailing:  CodeTrailing,
	strictzip.Path:      CodePath,
	strictzip.Duplicate: CodeDuplicate,
	strictzip.Collision: CodeCollision,
	strictzip.Device:    CodeDevice,
	strictzip.Encrypted: CodeEncrypted,
	strictzip.Method:    CodeMethod,
	strictzip.Checksum:  CodeCRC,
	strictzip.TooMany:   CodeEntries,
	strictzip.TooLarge:  CodeSize,
}

func fromDefect(d *strictzip.Defect) *flaw {
	fl := &flaw{code: defects[d.Kind], text: "zip: " + d.Error()}
	switch d.Kind {
	case strictzip.Encrypted, strictzip.Method, strictzip.TooMany, strictzip.TooLarge:
		fl.notScanned = true
	}
	return fl
}

// openZip opens a zip archive, which may have bytes before it.
func (w *walker) openZip(f *File, p place) (*opened, error) {
	a, err := strictzip.Open(f.content, f.Size, strictzip.Options{
		Descriptors: true, Comment: true, Empty: true,
		Limits: strictzip.Limits{
			// Zero would be the reader's own limit.
			Entries:   max(1, int64(w.o.Limits.Entries-w.entries)),
			Directory: max(1, (maxHeld-w.held)/dirCost),
			Unpacked:  math.MaxInt64, // measured while unpacking
			Ratio:     math.MaxInt64,
		},
		Report: func(d *strictzip.Defect) {
			if d.Kind == strictzip.Link {
				return // looked at with its target
			}
			path, fl := f.Path, fromDefect(d)
			if d.Name != "" {
				path, fl.text = append(slices.Clip(path), d.Name), "zip: "+d.Text
			}
			_ = w.flawed(fl, p, path) // an error of the disk comes again
		},
	})
	if err != nil {
		return nil, w.flawed(asFlaw(err), p, f.Path)
	}
	cost := int64(len(a.Entries)) * entryCost
	f.Members = make([]Member, len(a.Entries))
	for i := range a.Entries {
		e := &a.Entries[i]
		f.Members[i] = Member{e.Name, e.Size, e.Stored}
		cost += dirCost * int64(len(e.Name))
	}
	w.held += cost
	return &opened{walk: func() error {
		defer func() { w.held -= cost }()
		for i := range a.Entries {
			if err := w.count(f); err != nil {
				return err
			}
			if err := w.zipEntry(f, p, a, &a.Entries[i]); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

func (w *walker) zipEntry(f *File, p place, a *strictzip.Archive, e *strictzip.Entry) error {
	if e.Unreadable {
		return nil // which was told
	}
	child := w.entry(f, e.Name, e.Mode)
	switch {
	case e.Folder, e.Mode&fs.ModeDevice != 0:
		return w.file(child, p.in(), checks{})
	case e.Mode&fs.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(a.Open(e), maxLink+1))
		if err != nil {
			if err := w.flawed(asFlaw(err), p, child.Path); err != nil {
				return errors.Join(err, child.Release())
			}
		}
		return w.link(child, p, string(target))
	}
	if off, size, ok := a.Section(e); ok {
		section(child, f, off, size)
		return w.file(child, p.in(), checks{crc: true, sum: e.CRC, of: p})
	}
	if err := w.flawed(w.unpack(child, a.Open(e), e.Size, e.Packed), p, child.Path); err != nil || child.content == nil {
		return errors.Join(err, child.Release())
	}
	return w.file(child, p.in(), checks{digested: true})
}

// link visits a symbolic link of an archive that is no file system.
func (w *walker) link(f *File, p place, target string) error {
	f.Link = target
	name := f.Path[len(f.Path)-1]
	if len(target) > maxLink || leads(name, target) {
		w.problem(CodeLink, p, f.Path, "a link that leads out of the archive, to %s", quote(target))
	}
	return w.file(f, p.in(), checks{})
}

// quote shows outside text in a line.
func quote(s string) string {
	const most = 100
	return fmt.Sprintf("%q", clip(s, most))
}
