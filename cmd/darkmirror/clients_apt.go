package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"

	"github.com/darkmirror/darkmirror/apt"
	"github.com/darkmirror/darkmirror/mirror/config"
)

// aptKeyring is the public key as the server offers it.
const aptKeyring = "darkmirror-archive-keyring.asc"

// An aptSource is what is published of one source.
type aptSource struct {
	name   string
	key    string // armored
	suites []aptSuite
}

type aptSuite struct{ archive, name, components string }

// readApt finds the suites in the trees that are served.
func (v *clientsView) readApt(cfg *config.Config, log *slog.Logger) error {
	for i := range cfg.Apt {
		name := cfg.Apt[i].Name
		p, err := apt.NewPublisher(cfg.Apt[i].Publish, "apt/"+name, nil, publishDir(cfg, "apt/"+name), log)
		if err != nil {
			return err
		}
		s := aptSource{name: name}
		if s.key, err = publishedFile(p.Tree(), aptKeyring); err != nil {
			return err
		}
		if s.suites, err = readSuites(p.Tree()); err != nil {
			return err
		}
		if len(s.suites) == 0 || s.key == "" {
			v.warnings = append(v.warnings, "apt/"+name+": nothing is published yet, so its suites are not known: darkmirror import first")
			continue
		}
		v.apt = append(v.apt, s)
	}
	return nil
}

// readSuites lists what has a Release, as ARCHIVE/dists/SUITE, in order.
func readSuites(tree string) (suites []aptSuite, err error) {
	root, err := os.OpenRoot(tree)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	releases, err := fs.Glob(root.FS(), "*/dists/*/Release")
	if err != nil {
		return nil, err
	}
	// A suite may be named with one slash, as buster/updates.
	nested, err := fs.Glob(root.FS(), "*/dists/*/*/Release")
	if err != nil {
		return nil, err
	}
	for _, file := range append(releases, nested...) {
		archive, suite, _ := strings.Cut(path.Dir(file), "/dists/")
		components, err := readComponents(root, file)
		if err != nil {
			return nil, err
		}
		if components != "" {
			suites = append(suites, aptSuite{archive, suite, components})
		}
	}
	return suites, nil
}

// readComponents reads the line of that name; a component has a Release of its
// own without one.
func readComponents(root *os.Root, file string) (components string, err error) {
	f, err := root.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "Components:"); ok {
			return strings.TrimSpace(rest), nil
		}
		if strings.HasPrefix(lines.Text(), "SHA256:") {
			break
		}
	}
	return "", lines.Err()
}

// aptSettings is a file of stanzas and a keyring for each source.
func aptSettings(v *clientsView) []setting {
	list := v.serve.caSetting(v.serve.caFile())
	if v.serve.ca != "" {
		list = append(list, setting{
			File:    "/etc/apt/apt.conf.d/50darkmirror",
			Content: fmt.Sprintf("Acquire::https::%s::CAInfo %q;\n", v.serve.name(), v.serve.caFile()),
		})
	}
	for _, s := range v.apt {
		keyring := "/etc/apt/keyrings/darkmirror-" + s.name + ".asc"
		list = append(list,
			setting{File: keyring, Content: s.key, Note: "The public half of the key that signs apt/" + s.name + " inside."},
			setting{
				File: "/etc/apt/sources.list.d/darkmirror-" + s.name + ".sources", Content: v.stanzas(s, keyring),
				Note: "Remove or disable the other sources of the host: apt asks every one that it has.",
			})
	}
	return list
}

// stanzas has one stanza for the suites of an archive that have the same
// components.
func (v *clientsView) stanzas(s aptSource, keyring string) string {
	type stanza struct {
		archive, components string
		suites              []string
	}
	var all []*stanza
	for _, suite := range s.suites {
		var same *stanza
		for _, st := range all {
			if st.archive == suite.archive && st.components == suite.components {
				same = st
			}
		}
		if same == nil {
			same = &stanza{archive: suite.archive, components: suite.components}
			all = append(all, same)
		}
		same.suites = append(same.suites, suite.name)
	}
	var b strings.Builder
	for i, st := range all {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "Types: deb\nURIs: %s/apt/%s/%s\nSuites: %s\nComponents: %s\nSigned-By: %s\n",
			v.serve.url(), s.name, st.archive, strings.Join(st.suites, " "), st.components, keyring)
	}
	return b.String()
}
