package main

import (
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/config"
)

// A clientIndex is a package index as pip and uv are told it.
type clientIndex struct {
	name string
	path string
	note string
	// apart is asked for nothing that is not said to come from it.
	apart bool
}

// indexesOf are the index of serve.index, where there is one, and then the
// sources that are not in it: asked past it, those would give names that it
// keeps for the site.
func indexesOf(cfg *config.Config) []clientIndex {
	var list []clientIndex
	merged := &cfg.Serve.Index
	if len(merged.Sources) > 0 {
		x := clientIndex{name: "darkmirror", path: "/simple/", note: " It is one index of " + strings.Join(merged.Sources, ", ") + "."}
		if merged.Folder != "" {
			x.note = " It is one index of the site's own packages and " + strings.Join(merged.Sources, ", ") + "."
		}
		list = append(list, x)
	}
	for i := range cfg.PyPI {
		name := cfg.PyPI[i].Name
		if !slices.Contains(merged.Sources, name) {
			list = append(list, clientIndex{name: name, path: "/pypi/" + name + "/simple/", apart: len(merged.Sources) > 0})
		}
	}
	return list
}

// pipSettings is one file an index: pip with two takes the highest version
// from either, so a name could come from the wrong one.
func pipSettings(v *clientsView) []setting {
	list := v.serve.caSetting(v.serve.caFile())
	for i, x := range v.pypi {
		s := setting{File: "/etc/pip.conf", Note: "For every user of the host; one user's is ~/.config/pip/pip.conf." + x.note}
		if i > 0 {
			s.File = "/etc/pip-" + x.name + ".conf"
			s.Note = "In place of the first: PIP_CONFIG_FILE=" + s.File + ". The two are not one file with extra-index-url, because pip then takes a name from whichever has the higher version."
		}
		s.Content = "[global]\nindex-url = " + v.serve.url() + x.path + "\n"
		switch {
		case v.serve.plain():
			s.Content += "trusted-host = " + v.serve.name() + "\n"
		case v.serve.ca != "":
			s.Content += "cert = " + v.serve.caFile() + "\n"
		}
		list = append(list, s)
	}
	return list
}

// uvSettings is one file: uv takes a name from the first index that has it.
// The default index is asked last and stands in place of the public one. Beside
// the index of serve.index no other is asked by itself.
func uvSettings(v *clientsView) []setting {
	list := v.serve.caSetting(v.serve.caFile())
	s := setting{File: "/etc/uv/uv.toml", Note: "For every user of the host. The index with default = true replaces uv's own." + v.pypi[0].note}
	last := len(v.pypi) - 1
	if v.pypi[last].apart {
		last = 0
		s.Note += " One with explicit = true is asked only for what a project's tool.uv.sources gives to it."
	}
	var b strings.Builder
	for i, x := range v.pypi {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString("[[index]]\nname = \"" + x.name + "\"\nurl = \"" + v.serve.url() + x.path + "\"\n")
		switch {
		case i == last:
			b.WriteString("default = true\n")
		case x.apart:
			b.WriteString("explicit = true\n")
		}
	}
	s.Content = b.String()
	if v.serve.ca != "" {
		s.Note += " uv takes a certificate from the environment alone: SSL_CERT_FILE=" + v.serve.caFile() + "."
	}
	return append(list, s)
}
