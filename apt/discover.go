package apt

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxSourcesFile bounds a file of apt sources.
	maxSourcesFile = 1 << 20
	// maxSources bounds what one file may list.
	maxSources = 10_000
)

// A FoundArchive is an archive that this host's apt already uses.
type FoundArchive struct {
	Origin        string // the file
	Line          int
	URL           string // without a login
	Suites        []string
	Components    []string
	Architectures []string // empty: the host's own
	// SignedBy are keyring files. Key is an inline key block; it must be
	// written to a file before it can be used.
	SignedBy []string
	Key      string
	// CheckValidUntil is false where the host has switched the check off.
	CheckValidUntil bool
	// Notes say what was not carried over, and why the entry needs a look.
	Notes []string
}

// Skipped is an entry that did not become an archive.
type Skipped struct {
	Origin string
	Line   int
	Text   string // the URI or file, without a login
	Reason string
}

// Discover reads the apt sources of the host below root ("" for the host
// itself): sources.list and sources.list.d, one-line and deb822 form. It
// contacts nothing. Entries that switch checks off, need a login or lack a
// pinned key come with a note; what cannot be used is returned as skipped.
func Discover(root string) ([]FoundArchive, []Skipped) {
	d := &discoverer{root: root}
	d.logins = d.readLogins()
	d.file("/etc/apt/sources.list")
	dir := "/etc/apt/sources.list.d"
	entries, err := os.ReadDir(d.path(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.skip(dir, 0, "", err.Error())
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".list" && ext != ".sources" {
			continue
		}
		if strings.Trim(e.Name(), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			d.skip(dir+"/"+e.Name(), 0, "", "apt ignores files of this name")
			continue
		}
		d.file(dir + "/" + e.Name())
	}
	return d.found, d.skipped
}

type discoverer struct {
	root    string
	logins  []string // hosts with a login in auth.conf
	found   []FoundArchive
	skipped []Skipped
}

func (d *discoverer) path(name string) string { return filepath.Join("/", d.root, name) }

func (d *discoverer) skip(origin string, line int, text, reason string) {
	d.skipped = append(d.skipped, Skipped{origin, line, clip(text), reason})
}

func (d *discoverer) file(name string) {
	b, err := readLimited(d.path(name), maxSourcesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		d.skip(name, 0, "", err.Error())
		return
	}
	parse := parseOneLine
	if strings.HasSuffix(name, ".sources") {
		parse = parseDeb822Sources
	}
	entries, problems := parse(string(b))
	for _, p := range problems {
		d.skip(name, p.line, p.text, p.reason)
	}
	for _, e := range entries {
		d.entry(name, e)
	}
}

// A sourceEntry is one stanza or line. Options have their deb822 names in
// lower case.
type sourceEntry struct {
	line       int
	types      []string
	uris       []string
	suites     []string
	components []string
	options    map[string][]string
	key        string // inline
}

type sourceProblem struct {
	line         int
	text, reason string
}

// entry turns a source into archives, one for each URI.
func (d *discoverer) entry(origin string, e sourceEntry) {
	text := strings.Join(e.uris, " ")
	switch {
	case equalWord(e.options["enabled"], "no"):
		d.skip(origin, e.line, withoutLogin(text), "disabled")
		return
	case !slices.Contains(e.types, "deb"):
		d.skip(origin, e.line, withoutLogin(text), "only binary packages are mirrored")
		return
	}
	for _, uri := range e.uris {
		d.uri(origin, e, uri)
	}
}

func (d *discoverer) uri(origin string, e sourceEntry, uri string) {
	u, err := url.Parse(uri)
	if err != nil {
		d.skip(origin, e.line, "", "not a URI")
		return
	}
	f := FoundArchive{Origin: origin, Line: e.line, CheckValidUntil: true, Architectures: e.options["architectures"], Components: e.components}
	if u.User != nil {
		u.User = nil
		f.note("login in the URI not copied: use user and password_file")
	}
	if slices.Contains(d.logins, u.Host) || slices.Contains(d.logins, u.Hostname()) {
		f.note("login in auth.conf not copied: use user and password_file")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		d.skip(origin, e.line, u.Redacted(), "URI with a query")
		return
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		d.skip(origin, e.line, u.Redacted(), fmt.Sprintf("scheme %q is not mirrored", clip(u.Scheme)))
		return
	}
	f.URL = strings.TrimRight(u.String(), "/")
	for _, s := range e.suites {
		switch {
		case strings.Contains(s, "$("):
			d.skip(origin, e.line, f.URL+" "+s, "suite depends on the architecture")
		case strings.HasSuffix(s, "/"):
			d.skip(origin, e.line, f.URL+" "+s, "flat repositories are not mirrored")
		default:
			f.Suites = append(f.Suites, s)
		}
	}
	if len(f.Suites) == 0 {
		return
	}
	d.keys(&f, e)
	f.carry(e.options)
	d.add(f)
}

func (f *FoundArchive) note(s string) { f.Notes = append(f.Notes, s) }

// keys decides which keyrings pin an archive.
func (d *discoverer) keys(f *FoundArchive, e sourceEntry) {
	if e.key != "" {
		f.Key = e.key
		f.note("inline key: write it to a file and name that in signed_by")
		return
	}
	var prints []string
	for _, w := range e.options["signed-by"] {
		if strings.HasPrefix(w, "/") {
			f.SignedBy = append(f.SignedBy, w)
		} else {
			prints = append(prints, w)
		}
	}
	if len(f.SignedBy) > 0 {
		if len(prints) > 0 {
			f.note("limited to the keys " + clip(strings.Join(prints, ", ")) + ", which is not carried over")
		}
		return
	}
	f.SignedBy = d.trusted()
	if len(prints) > 0 {
		f.note("signed by " + clip(strings.Join(prints, ", ")) + ": export that key to a file of its own; all trusted keyrings are listed instead")
	} else {
		f.note("not pinned: no Signed-By, so every keyring that apt trusts is listed")
	}
}

// trusted lists the keyrings that apt uses without Signed-By.
func (d *discoverer) trusted() []string {
	var all []string
	if fi, err := os.Stat(d.path("/etc/apt/trusted.gpg")); err == nil && fi.Size() > 0 {
		all = append(all, "/etc/apt/trusted.gpg")
	}
	dir := "/etc/apt/trusted.gpg.d"
	entries, err := os.ReadDir(d.path(dir))
	if err != nil {
		return all
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".gpg" || ext == ".asc" {
			all = append(all, dir+"/"+e.Name())
		}
	}
	return all
}

// carry takes over what has a place in our configuration. What weakens a
// check never is; what merely has no place is said.
func (f *FoundArchive) carry(options map[string][]string) {
	if equalWord(options["check-valid-until"], "no") {
		f.CheckValidUntil = false
	}
	for _, name := range []string{"trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure"} {
		if v, ok := options[name]; ok && !equalWord(v, "no") {
			f.note(name + ": not carried over: it switches signature checks off")
		}
	}
	for _, name := range []string{
		"valid-until-min", "valid-until-max", "check-date", "date-max-future", "inrelease-path",
		"architectures-add", "architectures-remove", "snapshot",
	} {
		if _, ok := options[name]; ok {
			f.note(name + ": not carried over")
		}
	}
}

// add merges entries that differ in their suites alone: one-line sources have
// a line for each.
func (d *discoverer) add(f FoundArchive) {
	for i := range d.found {
		o := &d.found[i]
		if o.URL == f.URL && slices.Equal(o.Components, f.Components) && slices.Equal(o.Architectures, f.Architectures) &&
			slices.Equal(o.SignedBy, f.SignedBy) && o.Key == f.Key && o.CheckValidUntil == f.CheckValidUntil && slices.Equal(o.Notes, f.Notes) {
			for _, s := range f.Suites {
				if !slices.Contains(o.Suites, s) {
					o.Suites = append(o.Suites, s)
				}
			}
			return
		}
	}
	d.found = append(d.found, f)
}

// readLogins lists the hosts of auth.conf. Logins themselves are not kept.
func (d *discoverer) readLogins() []string {
	names := []string{"/etc/apt/auth.conf"}
	if entries, err := os.ReadDir(d.path("/etc/apt/auth.conf.d")); err == nil {
		for _, e := range entries {
			names = append(names, "/etc/apt/auth.conf.d/"+e.Name())
		}
	}
	var hosts []string
	for _, name := range names {
		b, err := readLimited(d.path(name), maxSourcesFile)
		if err != nil {
			continue // absent, or not ours to read: then apt as this user has none either
		}
		words := strings.Fields(string(b))
		for i := 0; i+1 < len(words); i++ {
			if words[i] == "machine" {
				host := words[i+1]
				if _, rest, ok := strings.Cut(host, "://"); ok {
					host = rest
				}
				host, _, _ = strings.Cut(host, "/")
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

func equalWord(v []string, want string) bool {
	return len(v) == 1 && strings.EqualFold(v[0], want)
}

// withoutLogin drops what stands before "@" in the words of a text.
func withoutLogin(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if u, err := url.Parse(w); err == nil && u.User != nil {
			u.User = nil
			words[i] = u.String()
		} else if scheme, rest, ok := strings.Cut(w, "://"); ok {
			if at := strings.LastIndexByte(rest, '@'); at >= 0 {
				words[i] = scheme + "://" + rest[at+1:]
			}
		}
	}
	return cmp.Or(strings.Join(words, " "), text)
}
