package main

import (
	"fmt"
	"strings"
)

// helmSettings are commands: helm has no mirrors.
func helmSettings(v *clientsView) []setting {
	var list []setting
	charts := v.charts
	if len(charts) == 0 {
		im := v.example()
		im.repo, im.tag = "CHART", "VERSION"
		charts = []imageRef{im}
	}
	for _, e := range v.at {
		list = append(list, e.caSetting(e.caFile())...)
	}
	var b strings.Builder
	for _, e := range v.at {
		if e.login != "" {
			fmt.Fprintf(&b, "helm registry login %s%s   # %s\n", e.host, e.helmFlags(), e.login)
		}
	}
	for _, c := range charts {
		// The + of a version is no letter of a tag; _ stands for it there.
		fmt.Fprintf(&b, "helm pull oci://%s --version %s%s\n", c.at.ref(c.repo), strings.ReplaceAll(c.tag, "_", "+"), c.at.at.helmFlags())
	}
	note := "helm has no mirrors: name the mirror, with install, upgrade and template as with pull. A chart that was published in a classic repository is an OCI artifact here. The images that a chart names are the nodes' business."
	if len(list) > 0 {
		note += " --ca-file is not needed where the system trusts the CA."
	}
	return append(list, setting{Content: b.String(), Note: note})
}

func (e endpoint) helmFlags() string {
	switch {
	case e.plain():
		return " --plain-http"
	case e.ca != "":
		return " --ca-file " + e.caFile()
	}
	return ""
}
