package main

import "strings"

// indexURL is a source of packages as pip and uv are told it.
func (v *clientsView) indexURL(source string) string {
	return v.serve.url() + "/pypi/" + source + "/simple/"
}

// pipSettings is one file an index: pip with two takes the highest version
// from either, so a name could come from the wrong one.
func pipSettings(v *clientsView) []setting {
	list := v.serve.caSetting(v.serve.caFile())
	for i, source := range v.pypi {
		s := setting{File: "/etc/pip.conf", Note: "For every user of the host; one user's is ~/.config/pip/pip.conf."}
		if i > 0 {
			s.File = "/etc/pip-" + source + ".conf"
			s.Note = "In place of the first: PIP_CONFIG_FILE=" + s.File + ". The two are not one file with extra-index-url, because pip then takes a name from whichever has the higher version."
		}
		s.Content = "[global]\nindex-url = " + v.indexURL(source) + "\n"
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
// The default index is asked last and stands in place of the public one.
func uvSettings(v *clientsView) []setting {
	list := v.serve.caSetting(v.serve.caFile())
	s := setting{File: "/etc/uv/uv.toml", Note: "For every user of the host. The index with default = true replaces uv's own."}
	var b strings.Builder
	for i, source := range v.pypi {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString("[[index]]\nname = \"" + source + "\"\nurl = \"" + v.indexURL(source) + "\"\n")
		if i == len(v.pypi)-1 {
			b.WriteString("default = true\n")
		}
	}
	s.Content = b.String()
	if v.serve.ca != "" {
		s.Note += " uv takes a certificate from the environment alone: SSL_CERT_FILE=" + v.serve.caFile() + "."
	}
	return append(list, s)
}
