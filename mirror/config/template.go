package config

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/apt"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/oci"
	"github.com/darkmirror/darkmirror/pypi"
)

// Host is what init found on a host.
type Host struct {
	Codename     string // of the system, "bookworm"
	Architecture string // Debian's name, "amd64"; may be empty
	PyPI         []pypi.Found
	Apt          []apt.FoundArchive
	Skipped      []apt.Skipped
	OCI          []oci.Found
	Models       []models.Found
}

// Template writes a commented configuration for a role from what a host
// already uses. Every address in it is the host's; where none was found there
// is an example in comments. What it writes can be loaded.
func Template(role string, h Host) []byte {
	t := &template{}
	t.line("# darkmirror, %s; darkmirror config check tells what is wrong, config schema", role)
	t.line("# describes every key. Every host that may be contacted stands in this file.")
	t.line("version: 1")
	t.line("role: %s", role)
	if role == Inside {
		t.inside(h)
	} else {
		t.outside(h)
	}
	return []byte(t.b.String())
}

type template struct{ b strings.Builder }

func (t *template) line(format string, args ...any) {
	fmt.Fprintf(&t.b, format+"\n", args...)
}

// quote writes a value that came from the host.
func quote(s string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	plain := strings.Trim(s, letters+"./:_+~%-") == "" && strings.IndexAny(s, letters+"/") == 0 &&
		!strings.HasSuffix(s, ":") && !strings.EqualFold(s, "null")
	if plain {
		return s
	}
	return fmt.Sprintf("%q", s) // every escape of Go is one of YAML
}

func quoteAll(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// comment makes host text fit for a comment line.
func comment(s string) string { return mask(strings.Join(strings.Fields(s), " ")) }

func (t *template) outside(h Host) {
	t.line("stream: main                # the line of bundles that this exporter makes")
	t.line("state_dir: state            # store, ledger, outbox; relative to this file")
	t.line("signing_key: signing.key    # darkmirror key generate makes it")
	t.line("volume_size: 1GiB           # 4GiB-1 for FAT32 sticks")
	t.line("expires_after: 30d          # the inside refuses bundles that are older")
	t.line("")
	t.pypiOutside(h.PyPI)
	t.line("")
	t.aptOutside(h)
	t.line("")
	t.ociOutside(h.OCI)
	t.line("")
	t.modelsOutside(h.Models)
}

func (t *template) modelsOutside(found []models.Found) {
	usable := slices.DeleteFunc(slices.Clone(found), func(f models.Found) bool {
		c := models.Config{Name: "host", Hub: f.Hub, AllowHTTP: true}
		return c.Validate() != nil || !written(f.Hub)
	})
	if len(usable) == 0 {
		t.line("# models: no hub was found on this host. An example:")
		t.line("# models:")
		t.line("#   - name: llm")
		t.line("#     hub: https://hub.example")
		t.line("#     allow_hosts: [cdn.example]   # where it keeps the large files")
		t.line("#     profile: vllm")
		t.line("#     repositories: [team/model]")
		return
	}
	f := usable[0]
	t.line("models:")
	t.line("  # from %s", comment(f.Origin))
	if f.Note != "" {
		t.line("  # note: %s", comment(f.Note))
	}
	t.line("  - name: llm")
	t.line("    hub: %s", quote(f.Hub))
	if strings.HasPrefix(f.Hub, "http:") {
		t.line("    allow_http: true")
	}
	t.line("    allow_hosts: []    # where it keeps the large files, such as cdn.example")
	t.line("    repositories: []   # such as team/model or team/model@v1.0")
}

func (t *template) ociOutside(found []oci.Found) {
	usable := slices.DeleteFunc(slices.Clone(found), func(f oci.Found) bool {
		c := oci.Config{Name: "host", Registry: f.Registry, AllowHTTP: true}
		return c.Validate() != nil || !written(f.Registry)
	})
	if len(usable) == 0 {
		t.line("# oci: no registry was found on this host. An example:")
		t.line("# oci:")
		t.line("#   - name: platform")
		t.line("#     registry: https://registry.example")
		t.line("#     images: [\"library/nginx:1.27\"]")
		return
	}
	t.line("oci:")
	for i, f := range usable {
		name := "platform"
		lead, rest := "  - ", "    "
		if i > 0 {
			name = fmt.Sprintf("registry%d", i+1)
			lead, rest = "#   - ", "#     "
		}
		t.line("%s# from %s", strings.Replace(rest, "    ", "  ", 1), comment(f.Origin))
		t.line("%sname: %s", lead, name)
		t.line("%sregistry: %s", rest, quote(f.Registry))
		if strings.HasPrefix(f.Registry, "http:") {
			t.line("%sallow_http: true", rest)
		}
		t.line("%simages: []   # such as \"library/nginx:1.27\"; what signs or describes them comes with them", rest)
	}
}

func (t *template) pypiOutside(found []pypi.Found) {
	usable := slices.DeleteFunc(slices.Clone(found), func(f pypi.Found) bool {
		// What would not pass the check has no place in the file.
		c := pypi.Config{Index: f.Index, AllowHosts: f.AllowHosts, AllowHTTP: true}
		return c.Validate() != nil || !written(slices.Concat(f.AllowHosts, []string{f.Index, f.CAFile})...)
	})
	if len(usable) == 0 {
		t.line("# pypi: no index was found on this host. An example:")
		t.line("# pypi:")
		t.line("#   - name: main")
		t.line("#     index: https://index.example/simple/")
		t.line("#     allow_hosts: [files.example]")
		t.line("#     targets: [cp312-manylinux_2_28_x86_64]")
		t.line("#     locks:")
		t.line("#       - file: requirements.txt")
		return
	}
	t.line("pypi:")
	for i, f := range usable {
		name := "main"
		lead, rest := "  - ", "    "
		if i > 0 { // one index is enough to begin with
			name = fmt.Sprintf("index%d", i+1)
			lead, rest = "#   - ", "#     "
		}
		t.line("%s# from %s", strings.Replace(rest, "    ", "  ", 1), comment(f.Origin))
		if f.Note != "" {
			t.line("%s# note: %s", strings.Replace(rest, "    ", "  ", 1), comment(f.Note))
		}
		t.line("%sname: %s", lead, name)
		t.line("%sindex: %s", rest, quote(f.Index))
		if len(f.AllowHosts) > 0 {
			t.line("%sallow_hosts: %s", rest, quoteAll(f.AllowHosts))
		}
		if strings.HasPrefix(f.Index, "http:") {
			t.line("%sallow_http: true", rest)
		}
		if f.CAFile != "" {
			t.line("%sca_file: %s", rest, quote(f.CAFile))
		}
		t.line("%stargets: []   # such as cp312-manylinux_2_28_x86_64", rest)
		t.line("%slocks: []     # such as {file: requirements.txt}, with hashes; or a pylock.toml", rest)
	}
}

// group sorts the found archives into those of the host's own release, which
// make one source, and the others.
func group(h Host) (own, others []apt.FoundArchive) {
	for _, a := range h.Apt {
		release := h.Codename != "" && loadable(a)
		for _, s := range a.Suites {
			release = release && (s == h.Codename || strings.HasPrefix(s, h.Codename+"-") || strings.HasPrefix(s, h.Codename+"/"))
		}
		if release {
			own = append(own, a)
		} else {
			others = append(others, a)
		}
	}
	return own, others
}

// loadable reports whether an archive would pass the check.
func loadable(a apt.FoundArchive) bool {
	c := apt.Config{
		Name: "host", Architectures: []string{"amd64"}, AllowHTTP: true,
		Archives: []apt.Archive{{Name: "archive", URL: a.URL, Suites: a.Suites, Components: a.Components, SignedBy: a.SignedBy}},
	}
	return c.Validate() == nil && written(slices.Concat(a.Suites, a.Components, a.SignedBy, []string{a.URL})...)
}

// written reports whether YAML can hold the texts as they are.
func written(texts ...string) bool {
	return !slices.ContainsFunc(texts, func(s string) bool { return !utf8.ValidString(s) })
}

// word makes a source's or an archive's name of text from the host.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
	s = strings.Trim(s[:min(len(s), 48)], ".-_")
	if s == "" {
		return "host"
	}
	return s
}

// archiveNames gives each archive a name of its own.
func archiveNames(list []apt.FoundArchive) []string {
	names := make([]string, len(list))
	for i, a := range list {
		base := word(path.Base(strings.TrimRight(a.URL, "/")))
		name := base
		for n := 2; slices.Contains(names[:i], name); n++ {
			name = fmt.Sprintf("%s-%d", base, n)
		}
		names[i] = name
	}
	return names
}

func (t *template) aptOutside(h Host) {
	own, others := group(h)
	if len(own) == 0 {
		t.line("# apt: no archive of this host's release was found. An example:")
		t.line("# apt:")
		t.line("#   - name: bookworm")
		t.line("#     architectures: [amd64]")
		t.line("#     packages: [jq]")
		t.line("#     archives:")
		t.line("#       - name: debian")
		t.line("#         url: https://mirror.example/debian")
		t.line("#         suites: [bookworm, bookworm-updates]")
		t.line("#         components: [main]")
		t.line("#         signed_by: [/usr/share/keyrings/debian-archive-keyring.gpg]")
	} else {
		arch := h.Architecture
		if arch == "" {
			arch = "amd64"
		}
		t.line("apt:")
		t.line("  - name: %s", quote(word(h.Codename)))
		t.line("    architectures: [%s]", quote(arch))
		t.line("    packages: []   # such as jq, \"tini (>= 0.19)\"; what they depend on comes with them")
		if slices.ContainsFunc(own, func(a apt.FoundArchive) bool { return strings.HasPrefix(a.URL, "http:") }) {
			t.line("    allow_http: true   # as this host does; the archives' signatures protect the content")
		}
		t.line("    archives:")
		names := archiveNames(own)
		for i, a := range own {
			t.archive(a, names[i], "      ")
		}
	}
	for _, a := range others {
		t.line("")
		t.line("  # not taken over: %s:%d, %s", comment(a.Origin), a.Line, comment(a.URL))
		for _, n := range a.Notes {
			t.line("  #   %s", comment(n))
		}
	}
	for _, s := range h.Skipped {
		t.line("  # not usable: %s:%d: %s", comment(s.Origin), s.Line, comment(s.Reason))
	}
}

func (t *template) archive(a apt.FoundArchive, name, indent string) {
	t.line("%s# from %s:%d", indent, comment(a.Origin), a.Line)
	for _, n := range a.Notes {
		t.line("%s# note: %s", indent, comment(n))
	}
	t.line("%s- name: %s", indent, quote(name))
	t.line("%s  url: %s", indent, quote(a.URL))
	t.line("%s  suites: %s", indent, quoteAll(a.Suites))
	t.line("%s  components: %s", indent, quoteAll(a.Components))
	t.line("%s  signed_by: %s", indent, quoteAll(a.SignedBy))
	if !a.CheckValidUntil {
		t.line("%s  check_valid_until: false", indent)
	}
}

func (t *template) inside(h Host) {
	t.line("state_dir: state     # store, ledger, what is published; relative to this file")
	t.line("inbox: [inbox]       # where bundles arrive; only read, may be a read-only mount")
	t.line("gap: refuse          # or accept-if-complete")
	t.line("max_age: 8d          # status is an alarm when the newest bundle is older")
	t.line("")
	t.line("pypi:")
	t.line("  - name: main       # as outside")
	t.line("")
	own, _ := group(h)
	if len(own) == 0 {
		t.line("# apt:                 # upstream's keys are pinned here too")
		t.line("#   - name: bookworm")
		t.line("#     archives:")
		t.line("#       - name: debian")
		t.line("#         signed_by: [/usr/share/keyrings/debian-archive-keyring.gpg]")
	} else {
		t.line("apt:                   # upstream's keys are pinned here too")
		t.line("  - name: %s", quote(word(h.Codename)))
		t.line("    archives:")
		names := archiveNames(own)
		for i, a := range own {
			t.line("      - name: %s", quote(names[i]))
			t.line("        signed_by: %s", quoteAll(a.SignedBy))
		}
	}
	t.line("")
	t.line("# models:")
	t.line("#   - name: llm             # as outside")
	t.line("#     folder: /srv/models   # or cache:, ollama:, s3:; darkmirror serve is a hub anyway")
	t.line("")
	t.line("# oci:")
	t.line("#   - name: platform   # as outside")
	t.line("#     harbor: https://harbor.example/platform   # or registry:, or neither: serve has the images anyway")
	t.line("")
	t.line("serve:")
	t.line("  listen: 127.0.0.1:8080")
	t.line("  # certificate: /etc/darkmirror/tls.crt")
	t.line("  # key_file: /etc/darkmirror/tls.key")
}
