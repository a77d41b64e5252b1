package apt

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// A pkg is one package of the universe: what the search needs often, in
// memory; its relations and file name, in the spool.
type pkg struct {
	name, version, arch string
	digest              artifact.Digest
	size                int64
	at                  int64  // of the spooled text
	length              uint32 // of the spooled text
	id                  int32  // its place in universe.pkgs
	index               *index
	priority            uint8
	multi               multiArch
	essential           bool
}

// An index is one Packages file and where it came from. Its spool is a
// temporary file without a name: all the relation fields of a large archive
// would fill half of the memory that an export may use.
type index struct {
	archive int // place in the configuration
	pin     int // as apt: 500, 100 or 1
	subject string
	spool   *os.File
	pkgs    []*pkg
	provs   []provide
}

// A provide is one name of a Provides field.
type provide struct {
	name, version string // version may be empty
	by            *pkg
}

// The spooled fields, in order.
var spooled = []string{"Pre-Depends", "Depends", "Recommends", "Conflicts", "Breaks"}

const (
	fieldPreDepends = iota
	fieldDepends
	fieldRecommends
	fieldConflicts
	fieldBreaks
	fieldFilename
)

// scanIndex reads a Packages text into memory and spool.
func scanIndex(r io.Reader, ix *index) error {
	w := bufio.NewWriterSize(ix.spool, 64<<10)
	sr := newStanzaReader(r)
	arches := make(map[string]string)
	var at int64
	for {
		st, err := sr.next()
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if _, ok := errors.AsType[*stanzaError](err); ok {
			ref := integrity(codeStanza, ix.subject, "not a readable index")
			ref.Err = err
			return ref
		}
		if err != nil {
			return err
		}
		rec, err := parseRecord(st, ix.subject)
		if err != nil {
			return err
		}
		p := newPkg(&rec, ix, arches)
		p.at = at
		if p.length, err = spool(w, &rec); err != nil {
			return err
		}
		at += int64(p.length)
		ix.pkgs = append(ix.pkgs, p)
		if err := ix.addProvides(p, string(st.get("Provides"))); err != nil {
			return err
		}
	}
}

func newPkg(rec *record, ix *index, arches map[string]string) *pkg {
	// One allocation for both: there are many packages.
	both := string(rec.name) + string(rec.version)
	arch, ok := arches[string(rec.arch)]
	if !ok {
		arch = string(rec.arch)
		arches[arch] = arch
	}
	return &pkg{
		name: both[:len(rec.name)], version: both[len(rec.name):], arch: arch,
		digest: rec.digest, size: rec.size, index: ix,
		priority:  parsePriority(rec.st.get("Priority")),
		multi:     parseMultiArch(rec.st.get("Multi-Arch")),
		essential: yes(rec.st.get("Essential")),
	}
}

// spool writes the texts that are read again for few packages, separated by
// NUL, which no stanza holds.
func spool(w *bufio.Writer, rec *record) (uint32, error) {
	n := 0
	for _, name := range spooled {
		k, err := w.Write(rec.st.get(name))
		if err != nil {
			return 0, err
		}
		if err := w.WriteByte(0); err != nil {
			return 0, err
		}
		n += k + 1
	}
	k, err := w.WriteString(rec.filename)
	return uint32(n + k), err // #nosec G115 -- at most a stanza and a few bytes
}

func (ix *index) addProvides(p *pkg, field string) error {
	groups, err := parseRelations(field, p.arch)
	if err != nil {
		return relationRefusal(p, "Provides", err)
	}
	for _, g := range groups {
		for _, r := range g {
			pr := provide{name: strings.Clone(r.name), by: p}
			if r.op == "=" {
				pr.version = strings.Clone(r.version)
			}
			ix.provs = append(ix.provs, pr)
		}
	}
	return nil
}

func relationRefusal(p *pkg, field string, err error) error {
	ref := integrity(codeRelation, p.index.subject, fmt.Sprintf("package %s %s: %s cannot be read", p.name, p.version, field))
	ref.Err = err
	return ref
}

// close gives the spool back.
func (ix *index) close() error {
	if ix.spool == nil {
		return nil
	}
	return ix.spool.Close()
}

// texts reads a package's spooled texts.
func (p *pkg) texts() ([]string, error) {
	b := make([]byte, p.length)
	if _, err := p.index.spool.ReadAt(b, p.at); err != nil {
		return nil, fmt.Errorf("read spooled index: %w", err)
	}
	t := strings.Split(string(b), "\x00")
	if len(t) != len(spooled)+1 {
		return nil, errors.New("spooled index is damaged")
	}
	return t, nil
}

// relations parses one of a package's relation fields.
func (p *pkg) relations(texts []string, which int, arch string) ([]group, error) {
	g, err := parseRelations(texts[which], arch)
	if err != nil {
		return nil, relationRefusal(p, spooled[which], err)
	}
	return g, nil
}

// A universe is every package of a source's archives, all suites together.
type universe struct {
	pkgs  []*pkg    // by name, then the better candidate first
	provs []provide // by name, then priority and name of the provider
}

// newUniverse merges indices. The order of the result depends on their
// content and the configuration alone. A package belongs to the universe that
// was made last: one has to be done with before the next is made.
func newUniverse(indices []*index) *universe {
	u := &universe{}
	n, m := 0, 0
	for _, ix := range indices {
		n += len(ix.pkgs)
		m += len(ix.provs)
	}
	u.pkgs = make([]*pkg, 0, n)
	u.provs = make([]provide, 0, m)
	for _, ix := range indices {
		u.pkgs = append(u.pkgs, ix.pkgs...)
		u.provs = append(u.provs, ix.provs...)
	}
	for _, p := range u.pkgs {
		p.id = 0
	}
	slices.SortStableFunc(u.pkgs, better)
	// Suites and architectures repeat packages ("all" stands in each index).
	u.pkgs = slices.CompactFunc(u.pkgs, func(a, b *pkg) bool {
		if a.name != b.name || a.version != b.version || a.arch != b.arch || a.digest != b.digest {
			return false
		}
		b.id = -1
		return true
	})
	for i, p := range u.pkgs {
		p.id = int32(i) // #nosec G115 -- below artifact.MaxFiles
	}
	u.provs = slices.DeleteFunc(u.provs, func(p provide) bool { return p.by.id < 0 })
	slices.SortStableFunc(u.provs, func(a, b provide) int {
		return cmp.Or(
			strings.Compare(a.name, b.name),
			cmp.Compare(a.by.priority, b.by.priority),
			better(a.by, b.by),
		)
	})
	return u
}

// better orders by name, then by what apt would rather install. A pin comes
// before the version: a package from a NotAutomatic suite is no candidate
// where another suite has one.
func better(a, b *pkg) int {
	return cmp.Or(
		strings.Compare(a.name, b.name),
		-cmp.Compare(a.index.pin, b.index.pin),
		-CompareVersions(a.version, b.version),
		strings.Compare(a.version, b.version), // 1.0 and 1.00 are equal to dpkg
		cmp.Compare(a.index.archive, b.index.archive),
		strings.Compare(a.arch, b.arch),
		slices.Compare(a.digest[:], b.digest[:]),
	)
}

// named returns all packages of a name, the candidate first.
func (u *universe) named(name string) []*pkg {
	i, ok := slices.BinarySearchFunc(u.pkgs, name, func(p *pkg, n string) int { return strings.Compare(p.name, n) })
	if !ok {
		return nil
	}
	j := i
	for j < len(u.pkgs) && u.pkgs[j].name == name {
		j++
	}
	return u.pkgs[i:j]
}

// providers returns the provides of a name.
func (u *universe) providers(name string) []provide {
	i, ok := slices.BinarySearchFunc(u.provs, name, func(p provide, n string) int { return strings.Compare(p.name, n) })
	if !ok {
		return nil
	}
	j := i
	for j < len(u.provs) && u.provs[j].name == name {
		j++
	}
	return u.provs[i:j]
}

// fits reports whether a package can be installed on a host of arch.
func (p *pkg) fits(arch string) bool { return p.arch == arch || p.arch == "all" }

// candidate is the version of a name that apt would install.
func (u *universe) candidate(name, arch string) *pkg {
	for _, p := range u.named(name) {
		if p.fits(arch) {
			return p
		}
	}
	return nil
}

// candidates are the packages that may satisfy a dependency on a host of arch,
// the preferred first: the candidate version of the name itself, older ones
// for an exact version only, then providers. A Provides without version never
// satisfies a relation with one.
func (u *universe) candidates(r relation, arch string) []*pkg {
	var found []*pkg
	add := func(p *pkg) {
		if !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	for _, p := range u.named(r.name) {
		if !p.fits(arch) {
			continue
		}
		if r.accepts(p.version) && qualifies(p, r.qualifier, arch) {
			add(p)
		}
		if r.op != "=" {
			break
		}
		// Another content of the same version is never a second choice; which
		// of the two is meant, is asked when one of them is selected.
		if len(found) > 0 {
			break
		}
	}
	if r.qualifier != "" && r.qualifier != arch {
		return found
	}
	for _, pr := range u.providers(r.name) {
		if pr.by.fits(arch) && provideAccepts(r, pr) && u.candidate(pr.by.name, arch) == pr.by {
			add(pr.by)
		}
	}
	return found
}

func provideAccepts(r relation, pr provide) bool {
	if r.op == "" {
		return true
	}
	return pr.version != "" && r.accepts(pr.version)
}

// qualifies evaluates the part behind the colon.
func qualifies(p *pkg, qualifier, arch string) bool {
	switch qualifier {
	case "":
		return true
	case "any":
		return p.multi == multiAllowed
	default:
		return qualifier == arch
	}
}

// hit is every package, of any version, that a Conflicts or Breaks relation of
// p forbids beside it.
func (u *universe) hit(p *pkg, r relation, arch string) []*pkg {
	var found []*pkg
	for _, q := range u.named(r.name) {
		if q.fits(arch) && q.name != p.name && r.accepts(q.version) {
			found = append(found, q)
		}
	}
	for _, pr := range u.providers(r.name) {
		if pr.by.fits(arch) && pr.by.name != p.name && provideAccepts(r, pr) {
			found = append(found, pr.by)
		}
	}
	return found
}

// rival finds another content of the same name, version and architecture.
func (u *universe) rival(p *pkg) *pkg {
	for _, q := range u.named(p.name) {
		if q != p && q.version == p.version && q.arch == p.arch && q.digest != p.digest {
			return q
		}
	}
	return nil
}
