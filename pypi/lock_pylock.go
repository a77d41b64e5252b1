package pypi

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// pylock is what is read of PEP 751. Other keys are allowed there and mean
// nothing here.
type pylock struct {
	LockVersion    string   `toml:"lock-version"`
	Environments   []string `toml:"environments"`
	RequiresPython string   `toml:"requires-python"`
	Extras         []string `toml:"extras"`
	// DependencyGroups are the groups that may be chosen, and "default-groups"
	// those that are unless somebody says otherwise.
	DependencyGroups []string        `toml:"dependency-groups"`
	Packages         []pylockPackage `toml:"packages"`
}

type pylockPackage struct {
	Name           string       `toml:"name"`
	Version        string       `toml:"version"`
	Marker         string       `toml:"marker"`
	RequiresPython string       `toml:"requires-python"`
	Wheels         []pylockFile `toml:"wheels"`
	Sdist          *pylockFile  `toml:"sdist"`
	VCS            *present     `toml:"vcs"`
	Directory      *present     `toml:"directory"`
	Archive        *present     `toml:"archive"`
}

// present notes that a table is there.
type present struct{}

type pylockFile struct {
	Name   string       `toml:"name"`
	URL    string       `toml:"url"`
	Path   string       `toml:"path"`
	Size   *int64       `toml:"size"`
	Hashes pylockHashes `toml:"hashes"`
}

type pylockHashes struct {
	SHA256 string `toml:"sha256"`
}

func readPylock(file string) (*Lock, error) {
	b, err := readFile(file)
	if err != nil {
		return nil, err
	}
	return parsePylock(b, filepath.Base(file))
}

// parsePylock reads a pylock.toml of lock-version 1.x. Only the names of its
// files are used, never their URLs.
func parsePylock(b []byte, name string) (*Lock, error) {
	var doc pylock
	if err := unmarshalTOML(b, name, "pylock.toml", &doc); err != nil {
		return nil, err
	}
	l := &Lock{where: name, extras: normalNames(doc.Extras), groups: normalNames(doc.DependencyGroups)}
	major, minor, _ := strings.Cut(doc.LockVersion, ".")
	_, err := strconv.ParseUint(minor, 10, 32)
	switch {
	case major != "1" || err != nil:
		return nil, lockRefusal("-VERSION", name, fmt.Sprintf("lock-version %q: only 1.x is known", clip(doc.LockVersion)), nil)
	case minor != "0":
		l.Notes = append(l.Notes, fmt.Sprintf("%s: lock-version %s is newer than 1.0; what it adds is not read", name, clip(doc.LockVersion)))
	}
	if l.RequiresPython, err = packaging.ParseSpecifiers(doc.RequiresPython); err != nil {
		return nil, lockRefusal("-SYNTAX", name, "requires-python", err)
	}
	for _, e := range doc.Environments {
		m, err := packaging.ParseMarker(e)
		if err != nil {
			return nil, lockRefusal("-SYNTAX", name, "environments", err)
		}
		l.Environments = append(l.Environments, m)
	}
	if len(doc.Packages) > maxPins {
		return nil, lockRefusal("-LIMIT", name, fmt.Sprintf("over %d packages", maxPins), nil)
	}
	lines := headerLines(b, "packages")
	for i := range doc.Packages {
		where := name
		if len(lines) == len(doc.Packages) {
			where = fmt.Sprintf("%s:%d", name, lines[i])
		}
		p, err := doc.Packages[i].pin(where)
		if err != nil {
			return nil, err
		}
		l.Pins = append(l.Pins, *p)
	}
	return l, nil
}

// headerLines finds the line of each [[name]] header.
func headerLines(b []byte, name string) []int {
	var lines []int
	line, offset := 1, 0
	var p unstable.Parser
	p.Reset(b)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.ArrayTable {
			continue
		}
		key := e.Key()
		if !key.Next() || string(key.Node().Data) != name || !key.IsLast() {
			continue
		}
		if at := int(key.Node().Raw.Offset); at >= offset && at <= len(b) {
			line += bytes.Count(b[offset:at], []byte("\n"))
			offset = at
		}
		lines = append(lines, line)
	}
	return lines
}

func (p *pylockPackage) pin(where string) (*Pin, error) {
	name, err := packaging.NormalizeName(p.Name)
	if err != nil {
		return nil, lockRefusal("-SYNTAX", where, "package name", err)
	}
	switch {
	case name != p.Name:
		return nil, lockRefusal("-SYNTAX", where, fmt.Sprintf("package name %q is not in its normal form %q", clip(p.Name), name), nil)
	case p.VCS != nil, p.Directory != nil, p.Archive != nil:
		return nil, lockRefusal("-URL", where, name+" comes from a repository, a folder or a URL; only packages of the configured index can be carried", nil)
	case p.Version == "":
		return nil, lockRefusal("-UNPINNED", where, name+" has no version", nil)
	}
	pin := &Pin{Name: name, Where: where}
	if pin.Version, err = packaging.ParseVersion(p.Version); err != nil {
		return nil, lockRefusal("-SYNTAX", where, name, err)
	}
	if p.Marker != "" {
		if pin.Marker, err = packaging.ParseMarker(p.Marker); err != nil {
			return nil, lockRefusal("-SYNTAX", where, name, err)
		}
	}
	if pin.RequiresPython, err = packaging.ParseSpecifiers(p.RequiresPython); err != nil {
		return nil, lockRefusal("-SYNTAX", where, name+": requires-python", err)
	}
	files := p.Wheels
	if p.Sdist != nil {
		files = append(files, *p.Sdist)
	}
	if len(files) == 0 || len(files) > maxHashes {
		return nil, lockRefusal("-SYNTAX", where, fmt.Sprintf("%s: %d files, want 1 to %d", name, len(files), maxHashes), nil)
	}
	pin.Files = make([]LockedFile, 0, len(files)) // never nil, which would be any file
	for i := range files {
		f, err := files[i].locked()
		if err != nil {
			return nil, lockRefusal("-FILE", where, name, err)
		}
		if f.Digest.IsZero() {
			return nil, lockRefusal("-UNHASHED", where, fmt.Sprintf("%s: %s has no sha256", name, f.Name), nil)
		}
		project, version, err := packaging.ParseDistName(f.Name)
		if err != nil {
			continue // safe, but no shape that anything installs
		}
		if project != name || version.Compare(pin.Version) != 0 {
			return nil, lockRefusal("-FILE", where, fmt.Sprintf("%s is not a file of %s %s", f.Name, name, pin.Version), nil)
		}
		pin.Files = append(pin.Files, f)
	}
	return pin, nil
}

// locked takes the file's name from name, or from the last part of the URL or
// the path, percent-decoded once.
func (f *pylockFile) locked() (LockedFile, error) {
	out := LockedFile{Name: f.Name, Size: -1}
	if f.URL != "" {
		base, err := urlBase(f.URL)
		if err != nil {
			return out, err
		}
		if out.Name != "" && out.Name != base {
			return out, fmt.Errorf("name %q and URL name %q differ", clip(f.Name), clip(base))
		}
		out.Name = base
	} else if out.Name == "" {
		out.Name = path.Base(filepath.ToSlash(f.Path))
	}
	if err := packaging.CheckFilename(out.Name); err != nil {
		return out, err
	}
	if f.Size != nil {
		if *f.Size < 0 {
			return out, fmt.Errorf("%s: size %d", out.Name, *f.Size)
		}
		out.Size = *f.Size
	}
	if f.Hashes.SHA256 == "" {
		return out, nil
	}
	d, err := artifact.ParseHex(strings.ToLower(f.Hashes.SHA256))
	out.Digest = d
	return out, err
}

// urlBase is the last part of a URL's path, percent-decoded once.
func urlBase(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", errors.New("malformed URL") // its text may hold credentials
	}
	escaped := u.EscapedPath()
	base, err := url.PathUnescape(escaped[strings.LastIndexByte(escaped, '/')+1:])
	if err != nil {
		return "", errors.New("malformed URL")
	}
	return base, nil
}
