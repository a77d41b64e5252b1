package config

import (
	"cmp"
	"encoding"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/bundle"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
)

// What base may be; package mirror has the same words.
const (
	mirrorBaseSealed    = "sealed"
	mirrorBaseSent      = "sent"
	mirrorBaseConfirmed = "confirmed"
)

const (
	// leastExpiry: a bundle that expires sooner could not be carried on foot.
	leastExpiry = Duration(time.Hour)
	// mostConnections at once; more is an attack on an upstream.
	mostConnections = 64
)

// finish fills in defaults, makes paths absolute and adds every problem.
func (f *outsideFile) finish(d *document, dir string) {
	d.defaults(reflect.ValueOf(f).Elem(), "")
	if !d.has("outbox") {
		f.Outbox = filepath.Join(f.Common.StateDir, "outbox")
	}
	paths := []*string{&f.Common.StateDir, &f.Outbox, &f.Link.KeyFile}
	if !strings.HasPrefix(f.SigningKey, "agent:") && !strings.HasPrefix(f.SigningKey, "pkcs11:") {
		paths = append(paths, &f.SigningKey)
	}
	for i := range f.PyPI {
		c := &f.PyPI[i].Config
		paths = append(append(paths, &c.CAFile, &c.PasswordFile), c.Files()...)
	}
	for i := range f.Apt {
		c := &f.Apt[i]
		paths = append(paths, &c.CAFile, &c.PasswordFile)
		for j := range c.Archives {
			paths = append(paths, each(c.Archives[j].SignedBy)...)
		}
	}
	for i := range f.OCI {
		c := &f.OCI[i]
		paths = append(paths, &c.CAFile, &c.PasswordFile, &c.DockerConfig, &c.Layout, &c.Archive)
	}
	for i := range f.Models {
		c := &f.Models[i]
		paths = append(paths, &c.CAFile, &c.TokenFile, &c.Folder, &c.Cache)
	}
	for i := range f.Files {
		c := &f.Files[i]
		paths = append(paths, &c.CAFile, &c.PasswordFile)
		for j := range c.Sets {
			paths = append(paths, &c.Sets[j].Folder)
		}
	}
	paths = append(append(append(paths, f.Scan.Files()...), each(f.Approvers)...), each(f.ReceiptsFrom)...)
	absolute(dir, paths)

	f.Common.validate(d)
	if err := bundle.CheckStream(f.Stream); err != nil {
		d.on("stream", "%v", err)
	}
	if f.VolumeSize < bundle.MinVolumeSize {
		d.on("volume_size", "volume_size: %s is below the least, %s", f.VolumeSize, Size(bundle.MinVolumeSize))
	}
	if f.ExpiresAfter < leastExpiry {
		d.on("expires_after", "expires_after: %s is below the least, %s", f.ExpiresAfter, leastExpiry)
	}
	if d.has("link_rate") && f.LinkRate == 0 {
		d.on("link_rate", "link_rate: must not be zero")
	}
	if f.Base != mirrorBaseSealed && f.Base != mirrorBaseSent && f.Base != mirrorBaseConfirmed {
		d.on("base", "base: want sealed, sent or confirmed, got %q", f.Base)
	}
	if f.FullEvery < 0 {
		d.on("full_every", "full_every: %d, want 0 or more", f.FullEvery)
	}
	f.Link.validate(d)
	if !d.has("link_rate") {
		f.LinkRate = f.Link.Rate
	}
	for _, l := range []struct {
		key string
		n   int
	}{{"limits.per_host", f.Limits.PerHost}, {"limits.total", f.Limits.Total}} {
		if l.n < 1 || l.n > mostConnections {
			d.on(l.key, "%s: %d, want 1 to %d", l.key, l.n, mostConnections)
		}
	}
	d.owned("scan", reflect.TypeOf(f.Scan), f.Scan.Validate())
	names := d.newNames("pypi")
	for i := range f.PyPI {
		at := names.add(i, f.PyPI[i].Name)
		d.owned(at, reflect.TypeOf(f.PyPI[i].Config), f.PyPI[i].Config.Validate())
	}
	names = d.newNames("apt")
	for i := range f.Apt {
		at := names.add(i, f.Apt[i].Name)
		d.owned(at, reflect.TypeOf(f.Apt[i]), f.Apt[i].Validate())
	}
	names = d.newNames("oci")
	for i := range f.OCI {
		at := names.add(i, f.OCI[i].Name)
		d.owned(at, reflect.TypeOf(f.OCI[i]), f.OCI[i].Validate())
	}
	names = d.newNames("models")
	for i := range f.Models {
		at := names.add(i, f.Models[i].Name)
		d.owned(at, reflect.TypeOf(f.Models[i]), f.Models[i].Validate())
	}
	names = d.newNames("files")
	for i := range f.Files {
		at := names.add(i, f.Files[i].Name)
		d.owned(at, reflect.TypeOf(f.Files[i]), f.Files[i].Validate())
	}
}

// finish fills in defaults, makes paths absolute and adds every problem.
func (f *insideFile) finish(d *document, dir string) {
	d.defaults(reflect.ValueOf(f).Elem(), "")
	paths := []*string{&f.Common.StateDir, &f.Serve.Certificate, &f.Serve.KeyFile, &f.Serve.PushTokenFile, &f.Serve.PullTokenFile, &f.Serve.ScannerTokenFile}
	paths = append(append(append(paths, each(f.Inbox)...), each(f.Trust)...), each(f.Identity)...)
	paths = append(append(paths, each(f.Link.KeyFiles)...), &f.Link.Status, &f.Link.Metrics)
	paths = append(append(paths, f.Scan.Files()...), each(f.Approvers)...)
	for i := range f.PyPI {
		paths = append(paths, f.PyPI[i].Publish.Files()...)
	}
	for i := range f.Apt {
		c := &f.Apt[i]
		paths = append(paths, &c.Tree, &c.SigningKey)
		for j := range c.Archives {
			paths = append(paths, each(c.Archives[j].SignedBy)...)
		}
	}
	for i := range f.OCI {
		c := &f.OCI[i]
		paths = append(paths, &c.CAFile, &c.PasswordFile, &c.DockerConfig)
	}
	for i := range f.Models {
		c := &f.Models[i]
		paths = append(paths, &c.Cache.Dir, &c.Folder, &c.Ollama.Dir, &c.S3.AccessKeyFile, &c.S3.SecretKeyFile, &c.S3.CAFile)
		for j := range c.Access {
			for k := range c.Access[j].Tokens {
				paths = append(paths, &c.Access[j].Tokens[k].File)
			}
		}
	}
	for i := range f.Files {
		c := &f.Files[i]
		paths = append(paths, &c.Folder)
		for j := range c.Sets {
			paths = append(paths, &c.Sets[j].Folder)
		}
	}
	absolute(dir, paths)

	f.Common.validate(d)
	if f.Gap != GapRefuse && f.Gap != GapAcceptIfComplete {
		d.on("gap", "gap: want %s or %s, got %q", GapRefuse, GapAcceptIfComplete, f.Gap)
	}
	if f.MaxAge <= 0 {
		d.on("max_age", "max_age: must not be zero")
	}
	if len(f.Approvers) > 0 && !d.has("approvals") {
		f.Approvals = 1
	}
	if f.Approvals < 0 || f.Approvals > len(f.Approvers) {
		d.on("approvals", "approvals: %d, want at most the %d keys of approvers", f.Approvals, len(f.Approvers))
	}
	f.Serve.validate(d)
	f.Link.validate(d)
	d.owned("scan", reflect.TypeOf(f.Scan), f.Scan.Validate())
	names := d.newNames("pypi")
	trees := make(map[string]int)
	for i := range f.PyPI {
		at := names.add(i, f.PyPI[i].Name)
		d.owned(at, reflect.TypeOf(f.PyPI[i].Publish), f.PyPI[i].Publish.Validate())
		if f.PyPI[i].Name == SiteSource {
			d.on(at+".name", "%s.name: %q is the name of the site's own packages (serve.index.folder); take another", at, SiteSource)
		}
		tree := filepath.Clean(f.PyPI[i].Publish.Tree)
		if j, again := trees[tree]; again && tree != "." {
			d.on(at+".tree", "%s.tree: pypi[%d] has the same folder; give every source one of its own", at, j)
		}
		trees[tree] = i
	}
	for i, name := range f.Serve.Index.Sources {
		if !slices.ContainsFunc(f.PyPI, func(p insidePyPI) bool { return p.Name == name }) {
			d.on(fmt.Sprintf("serve.index.sources[%d]", i), "serve.index.sources: %q is none of the pypi sources", name)
		}
	}
	if x := &f.Serve.Index; len(x.Sources) == 0 && (x.Folder != "" || len(x.Reserved) > 0) {
		d.on("serve.index", "serve.index: sources is missing: which pypi sources are served there?")
	}
	names = d.newNames("apt")
	for i := range f.Apt {
		at := names.add(i, f.Apt[i].Name)
		d.owned(at, reflect.TypeOf(f.Apt[i]), f.Apt[i].Validate())
	}
	names = d.newNames("oci")
	for i := range f.OCI {
		at := names.add(i, f.OCI[i].Name)
		d.owned(at, reflect.TypeOf(f.OCI[i]), f.OCI[i].Validate())
	}
	names = d.newNames("models")
	for i := range f.Models {
		at := names.add(i, f.Models[i].Name)
		d.owned(at, reflect.TypeOf(f.Models[i]), f.Models[i].Validate())
	}
	names = d.newNames("files")
	for i := range f.Files {
		at := names.add(i, f.Files[i].Name)
		d.owned(at, reflect.TypeOf(f.Files[i]), f.Files[i].Validate())
	}
	for i := range f.OCI {
		m := f.OCI[i].Models
		if m != "" && !slices.ContainsFunc(f.Models, func(c models.PublishConfig) bool { return c.Name == m }) {
			d.on(fmt.Sprintf("oci[%d].models", i), "oci[%d].models: there is no source models/%s in this configuration", i, clip(m))
		}
	}
}

func (c *common) validate(d *document) {
	switch {
	case !d.has("version"):
		d.on("version", "version: missing: want version: %d", version)
	case c.Version > version:
		d.on("version", "version: %d is newer than this program, which reads %d", c.Version, version)
	case c.Version != version:
		d.on("version", "version: want %d, got %d", version, c.Version)
	}
}

func (s *Serve) validate(d *document) {
	_, port, err := net.SplitHostPort(s.Listen)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
		d.on("serve.listen", "serve.listen: %q is not an address and a port, as in 127.0.0.1:8080", clip(s.Listen))
	}
	if (s.Certificate == "") != (s.KeyFile == "") {
		d.on("serve", "serve: certificate and key_file go together")
	}
	if strings.ContainsAny(s.Name, "/: \t") {
		d.on("serve.name", "serve.name: %q is not a host name", clip(s.Name))
	}
}

// names holds that the sources of one ecosystem have different names.
type names struct {
	d    *document
	eco  string
	seen map[string]string
}

func (d *document) newNames(eco string) *names { return &names{d, eco, make(map[string]string)} }

// add checks a source's name and returns the source's path.
func (n *names) add(i int, name string) string {
	at := fmt.Sprintf("%s[%d]", n.eco, i)
	switch other := n.seen[name]; {
	case name == "":
		n.d.on(at+".name", "%s.name: missing", at)
		return at
	case artifact.CheckSource(n.eco+"/"+name) != nil:
		n.d.on(at+".name", "%s.name: %q: want lower-case letters, digits, '.', '_' and '-'", at, clip(name))
	case other != "":
		n.d.on(at+".name", "%s.name: %q is already the name of %s", at, name, other)
	default:
		n.seen[name] = at
	}
	return at
}

// fieldText splits a problem of a package's Validate into field and text.
var fieldText = regexp.MustCompile(`(?s)^([a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*): (.*)$`)

// owned adds the problems that the owner of a part has with it, each on the
// field that it names.
func (d *document) owned(at string, t reflect.Type, err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			d.owned(at, t, e)
		}
		return
	}
	m := fieldText.FindStringSubmatch(err.Error())
	if m == nil || typeAt(t, m[1]) == nil {
		d.on(at, "%s: %v", at, err)
		return
	}
	said := func(p Problem) bool { return strings.HasPrefix(p.Text, at+".name: ") }
	if m[1] != "name" || !slices.ContainsFunc(d.problems, said) { // names.add may have said so
		d.on(at+"."+m[1], "%s.%s: %s", at, m[1], m[2])
	}
}

// defaults sets what the file does not, from the fields' default tags.
func (d *document) defaults(v reflect.Value, path string) {
	for _, f := range fieldsOf(v.Type()) {
		fv, at := v.FieldByIndex(f.Index), join(path, f.key)
		text, ok := f.Tag.Lookup("default")
		switch {
		case ok && !d.has(at):
			setText(fv, text)
		case fv.Kind() == reflect.Struct && !isText(f.Type):
			d.defaults(fv, at)
		}
	}
}

// setText gives a field the value of its default tag. A tag that does not fit
// leaves zero, which the tests of this package show at once.
func setText(v reflect.Value, text string) {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			v.SetZero()
		}
		return
	}
	switch {
	case v.Type() == durationType:
		if n, err := time.ParseDuration(text); err == nil {
			v.SetInt(int64(n))
		}
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.CanInt():
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			v.SetInt(n)
		}
	}
}

// absolute makes paths relative to dir absolute. An empty one stays empty.
func absolute(dir string, paths []*string) {
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

func each(list []string) []*string {
	var ps []*string
	for i := range list {
		ps = append(ps, &list[i])
	}
	return ps
}

// sorted is what the document's problems are, by position.
func (d *document) sorted() Problems {
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Text, b.Text))
	})
	return d.problems
}
