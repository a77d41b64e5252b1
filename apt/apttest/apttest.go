// Package apttest is a fake upstream for apt: it builds .deb files and signed
// archives in memory and serves them over HTTP, sound or with one fault.
//
// It shares no code with package apt, so that reader and writer cannot share a
// mistake. Keys and package bytes are made at run time.
package apttest

import (
	"bytes"
	"crypto"
	"crypto/md5"    //nolint:gosec // old archives list MD5, which must be refused
	_ "crypto/sha1" // for crypto.SHA1 below
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// A Fault is one way in which an upstream is wrong.
type Fault string

// The faults. Those of single stanzas are simply written into the stanzas.
const (
	None         Fault = ""
	Expired      Fault = "expired"       // Valid-Until has passed
	Future       Fault = "future"        // Date is an hour ahead
	OtherKey     Fault = "other-key"     // signed by a key that nobody pinned
	SHA1         Fault = "sha1"          // signed with SHA-1
	Unsigned     Fault = "unsigned"      // InRelease is plain text
	TextBefore   Fault = "text-before"   // unsigned text before the signed block
	TextAfter    Fault = "text-after"    // unsigned text after it
	TextInGPG    Fault = "text-in-gpg"   // text before the signature in Release.gpg
	NoGPG        Fault = "no-gpg"        // Release without Release.gpg
	BadSignature Fault = "bad-signature" // the signed text was changed
	MD5Only      Fault = "md5-only"      // no SHA256 in Release
	OtherSuite   Fault = "other-suite"   // Suite and Codename are another's
	WrongHash    Fault = "wrong-hash"    // an index has other bytes than Release says
	WrongSize    Fault = "wrong-size"    // an index has another size than Release says
	WrongPlain   Fault = "wrong-plain"   // the plain index has another digest
	Bomb         Fault = "bomb"          // the index unpacks to more than Release says
	Truncated    Fault = "truncated"     // the xz index is cut; digest and size are of what is left
	Garbage      Fault = "garbage"       // bytes after the end of the xz index
	NoIndex      Fault = "no-index"      // every index is 404
	NoXZ         Fault = "no-xz"         // the xz index is 404, the others are there
	ChangedDeb   Fault = "changed-deb"   // package files have other bytes than listed
	OtherControl Fault = "other-control" // the control file names another version
	CutDeb       Fault = "cut-deb"       // package files are no .deb; digests are right
)

// A Suite describes one dists folder.
type Suite struct {
	Name      string // the folder; "test" if empty
	Codename  string // Name if empty
	Origin    string
	Component string // "main" if empty
	// Prefix stands before the component in Release alone, as in a security
	// archive: "updates/".
	Prefix        string
	Architectures []string // amd64 if empty
	// OwnAll gives "all" an index of its own.
	OwnAll bool
	// Packages are control stanzas. Filename, Size and SHA256 are added unless
	// they are there.
	Packages string
	Date     time.Time // now if zero
	// ValidFor is added to Date; zero means no Valid-Until.
	ValidFor time.Duration
	// Extra are further lines of the Release.
	Extra string
	// Detached leaves InRelease out.
	Detached bool
	ByHash   bool
	Fault    Fault
}

// An Upstream serves suites. It is safe for concurrent use.
type Upstream struct {
	key   *openpgp.Entity
	other *openpgp.Entity

	mu       sync.Mutex
	files    map[string][]byte
	requests []string
	hook     func(path string)
}

// New makes an upstream with fresh keys and no suite.
func New() (*Upstream, error) {
	u := &Upstream{files: make(map[string][]byte)}
	var err error
	if u.key, err = NewKey("upstream"); err != nil {
		return nil, err
	}
	u.other, err = NewKey("other")
	return u, err
}

// NewKey makes an Ed25519 key that is a day old.
func NewKey(name string) (*openpgp.Entity, error) {
	return openpgp.NewEntity(name, "", "", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA,
		Time:      func() time.Time { return time.Now().Add(-24 * time.Hour) },
	})
}

// Keyring is the upstream's public key, armored.
func (u *Upstream) Keyring() ([]byte, error) { return PublicKey(u.key) }

// PublicKey armors the public half of a key.
func PublicKey(key *openpgp.Entity) ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		return nil, err
	}
	if err := key.Serialize(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// SetKey replaces the signing key.
func (u *Upstream) SetKey(key *openpgp.Entity) { u.key = key }

// Requests lists the paths asked for since the last call.
func (u *Upstream) Requests() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.requests
	u.requests = nil
	return r
}

// OnRequest sets a function that is called before each answer.
func (u *Upstream) OnRequest(f func(path string)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hook = f
}

// ServeHTTP serves the files.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.requests = append(u.requests, r.URL.Path)
	hook := u.hook
	u.mu.Unlock()
	if hook != nil {
		hook(r.URL.Path)
	}
	u.mu.Lock()
	b, ok := u.files[strings.TrimPrefix(r.URL.Path, "/")]
	u.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+sum(b)[:16]+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// File returns what is served under a path.
func (u *Upstream) File(name string) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.files[name]
}

// Add builds a suite and serves it in place of the one of that name.
func (u *Upstream) Add(s Suite) error {
	fill(&s)
	stanzas, debs, err := packages(&s)
	if err != nil {
		return err
	}
	dists := "dists/" + s.Name + "/"
	files := maps.Clone(debs)
	var list []listed
	for arch, text := range stanzas {
		got, err := indexFiles(&s, path.Join(s.Component, "binary-"+arch), text)
		if err != nil {
			return err
		}
		for _, l := range got {
			list = append(list, l)
			for _, at := range l.served {
				files[dists+at] = l.data
			}
		}
	}
	slices.SortFunc(list, func(a, b listed) int { return strings.Compare(a.name, b.name) })
	text := release(&s, slices.Sorted(maps.Keys(stanzas)), list)
	if err := u.sign(&s, text, files, dists); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.files, func(name string, _ []byte) bool { return strings.HasPrefix(name, dists) })
	maps.Copy(u.files, files)
	return nil
}

func fill(s *Suite) {
	def := func(to *string, v string) {
		if *to == "" {
			*to = v
		}
	}
	def(&s.Name, "test")
	def(&s.Codename, s.Name)
	def(&s.Origin, "Test")
	def(&s.Component, "main")
	if len(s.Architectures) == 0 {
		s.Architectures = []string{"amd64"}
	}
	if s.Date.IsZero() {
		s.Date = time.Now().Add(-time.Minute)
	}
	switch s.Fault {
	case Expired:
		s.Date, s.ValidFor = time.Now().Add(-48*time.Hour), 24*time.Hour
	case Future:
		s.Date = time.Now().Add(time.Hour)
	case TextInGPG, NoGPG:
		s.Detached = true
	}
}

// packages makes package files and the text of each index.
func packages(s *Suite) (map[string]string, map[string][]byte, error) {
	stanzas := make(map[string]string)
	for _, a := range s.Architectures {
		stanzas[a] = ""
	}
	if s.OwnAll {
		stanzas["all"] = ""
	}
	debs := make(map[string][]byte)
	for stanza := range strings.SplitSeq(strings.TrimSpace(s.Packages), "\n\n") {
		stanza = strings.Trim(stanza, "\n")
		if stanza == "" {
			continue
		}
		control := stanza + "\n"
		if s.Fault == OtherControl {
			control = strings.Replace(control, "Version: ", "Version: 9", 1)
		}
		deb, err := Deb(control)
		if err != nil {
			return nil, nil, err
		}
		if s.Fault == CutDeb {
			deb = deb[:len(deb)/2]
		}
		name, arch := Field(stanza, "Package"), Field(stanza, "Architecture")
		_, version, ok := strings.Cut(Field(stanza, "Version"), ":")
		if !ok {
			version = Field(stanza, "Version")
		}
		file := fmt.Sprintf("pool/%s/%s/%s_%s_%s.deb", s.Component, name, name, version, arch)
		add := func(field, value string) {
			if !strings.Contains("\n"+stanza, "\n"+field+":") {
				stanza += "\n" + field + ": " + value
			}
		}
		add("Filename", file)
		add("Size", fmt.Sprint(len(deb)))
		add("SHA256", sum(deb))
		if s.Fault == ChangedDeb {
			deb = slices.Clone(deb)
			deb[len(deb)-1] ^= 1
		}
		debs[Field(stanza, "Filename")] = deb
		for a := range stanzas {
			if a == arch || arch == "all" && (!s.OwnAll || a == "all") {
				stanzas[a] += stanza + "\n\n"
			}
		}
	}
	return stanzas, debs, nil
}

// Field returns a single-line field of a stanza.
func Field(stanza, name string) string {
	for line := range strings.Lines(stanza) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// listed is one file as Release lists it, and where it is served.
type listed struct {
	name, sha256, md5 string
	size              int
	served            []string
	data              []byte
}

func indexFiles(s *Suite, dir, text string) ([]listed, error) {
	var all []listed
	for _, ext := range []string{"", ".gz", ".xz"} {
		plain := []byte(text)
		data, err := Compress(ext, plain)
		if err != nil {
			return nil, err
		}
		switch {
		case s.Fault == Truncated && ext == ".xz":
			data = data[:len(data)-8]
		case s.Fault == Garbage && ext == ".xz":
			data = append(data, "surplus"...)
		case s.Fault == Bomb && ext != "":
			if data, err = Compress(ext, []byte(text+strings.Repeat("\n", 1<<20))); err != nil {
				return nil, err
			}
		}
		m := md5.Sum(data) //nolint:gosec // see above
		l := listed{name: dir + "/Packages" + ext, sha256: sum(data), md5: hex.EncodeToString(m[:]), size: len(data), data: data}
		switch {
		case s.Fault == WrongHash:
			l.data = slices.Clone(data)
			l.data[len(l.data)/2] ^= 1
		case s.Fault == WrongSize:
			l.size++
		case s.Fault == WrongPlain && ext == "":
			l.sha256 = sum([]byte("else"))
		}
		if ext != "" && s.Fault != NoIndex && (s.Fault != NoXZ || ext != ".xz") {
			l.served = append(l.served, l.name)
			if s.ByHash {
				l.served = append(l.served, dir+"/by-hash/SHA256/"+l.sha256)
			}
		}
		all = append(all, l)
	}
	return all, nil
}

func release(s *Suite, arches []string, list []listed) string {
	var b strings.Builder
	suite, codename := s.Name, s.Codename
	if s.Fault == OtherSuite {
		suite, codename = "elsewhere", "elsewhere"
	}
	fmt.Fprintf(&b, "Origin: %s\nLabel: %s\nSuite: %s\nCodename: %s\nVersion: 1\nDate: %s\n", s.Origin, s.Origin, suite, codename, httpDate(s.Date))
	if s.ValidFor != 0 {
		fmt.Fprintf(&b, "Valid-Until: %s\n", httpDate(s.Date.Add(s.ValidFor)))
	}
	if s.ByHash {
		b.WriteString("Acquire-By-Hash: yes\n")
	}
	if !s.OwnAll {
		arches = append([]string{"all"}, arches...)
		b.WriteString("No-Support-for-Architecture-all: Packages\n")
	}
	fmt.Fprintf(&b, "Architectures: %s\nComponents: %s%s\nDescription: a test archive\n", strings.Join(arches, " "), s.Prefix, s.Component)
	b.WriteString(s.Extra)
	b.WriteString("MD5Sum:\n")
	for _, l := range list {
		fmt.Fprintf(&b, " %s %8d %s\n", l.md5, l.size, l.name)
	}
	if s.Fault != MD5Only {
		b.WriteString("SHA256:\n")
		for _, l := range list {
			fmt.Fprintf(&b, " %s %8d %s\n", l.sha256, l.size, l.name)
		}
	}
	return b.String()
}

func httpDate(t time.Time) string {
	return t.UTC().Format("Mon, 02 Jan 2006 15:04:05") + " UTC"
}

// sign writes InRelease, or Release and Release.gpg.
func (u *Upstream) sign(s *Suite, text string, files map[string][]byte, dists string) error {
	key := u.key
	if s.Fault == OtherKey {
		key = u.other
	}
	if s.Detached {
		files[dists+"Release"] = []byte(text)
		if s.Fault == NoGPG {
			return nil
		}
		var sig bytes.Buffer
		if err := openpgp.ArmoredDetachSign(&sig, key, strings.NewReader(text), nil); err != nil {
			return err
		}
		files[dists+"Release.gpg"] = sig.Bytes()
		if s.Fault == TextInGPG {
			files[dists+"Release.gpg"] = append([]byte("Location: elsewhere\n\n"), sig.Bytes()...)
		}
		return nil
	}
	var hash crypto.Hash
	if s.Fault == SHA1 {
		hash = crypto.SHA1
	}
	doc, err := Clearsign(key, text, hash)
	if err != nil {
		return err
	}
	switch s.Fault {
	case Unsigned:
		doc = []byte(text)
	case TextBefore:
		doc = append([]byte(text+"\n"), doc...)
	case TextAfter:
		doc = append(doc, "\n"+text...)
	case BadSignature:
		doc = bytes.Replace(doc, []byte("a test archive"), []byte("a TEST archive"), 1)
	}
	files[dists+"InRelease"] = doc
	return nil
}

// Clearsign signs a text inline. A hash other than zero is used whatever it is;
// the library itself no longer signs with SHA-1.
func Clearsign(key *openpgp.Entity, text string, hash crypto.Hash) ([]byte, error) {
	var out bytes.Buffer
	k, ok := key.SigningKey(time.Now())
	if !ok {
		return nil, fmt.Errorf("no signing key")
	}
	w, err := clearsign.Encode(&out, k.PrivateKey, nil)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, strings.TrimSuffix(text, "\n")); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if hash == 0 {
		return append(out.Bytes(), '\n'), nil
	}
	h := hash.New()
	if _, err := openpgp.NewCanonicalTextHash(h).Write([]byte(strings.TrimSuffix(text, "\n"))); err != nil {
		return nil, err
	}
	sig := &packet.Signature{
		Version: 4, SigType: packet.SigTypeText, PubKeyAlgo: k.PrivateKey.PubKeyAlgo, Hash: hash,
		CreationTime: time.Now(), IssuerKeyId: &k.PrivateKey.KeyId, IssuerFingerprint: k.PrivateKey.Fingerprint,
	}
	plain := false // the random notation needs a hash of at least 224 bits
	if err := sig.Sign(h, k.PrivateKey, &packet.Config{NonDeterministicSignaturesViaNotation: &plain}); err != nil {
		return nil, err
	}
	body, _, _ := strings.Cut(out.String(), "-----BEGIN PGP SIGNATURE-----")
	var b bytes.Buffer
	b.WriteString(body)
	a, err := armor.Encode(&b, openpgp.SignatureType, nil)
	if err != nil {
		return nil, err
	}
	if err := sig.Serialize(a); err != nil {
		return nil, err
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	return append(b.Bytes(), '\n'), nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
