package repo

import (
	"path"
	"slices"
	"strings"
)

// LicenceOf collects what a repository says of its licence: the words of its
// card, and the paths of the texts that are carried, those in the root and in
// the folders of the root. The second result says what could not be read, and
// what is not said. It never decides what a licence allows.
func LicenceOf(files []File, read Reader) (Licence, []string) {
	var l Licence
	for _, f := range files {
		base := strings.ToLower(path.Base(f.Path))
		switch {
		case strings.Count(f.Path, "/") > 1:
		case isLicenceText(base), strings.EqualFold(f.Path, "README.md"):
			l.Files = append(l.Files, f.Path)
		}
	}
	slices.Sort(l.Files)
	c, notes := findCard(files, read)
	switch {
	case c == nil && len(notes) == 0:
		notes = append(notes, "no README.md: no licence is named")
	case c != nil:
		l.ID, l.Name, l.Link = c.one("license"), c.one("license_name"), c.one("license_link")
		if l.ID == "" && len(notes) == 0 {
			notes = append(notes, c.path+": names no licence")
		}
	}
	return l, notes
}
