package main

import (
	"fmt"
	"path"
	"strings"
)

// podmanSettings is a drop-in of registries.conf. A registry that is blocked
// and has a mirror is pulled from the mirror and never contacted itself; by
// tag as well as by digest.
func podmanSettings(v *clientsView) []setting {
	var list []setting
	for _, e := range v.at {
		list = append(list, e.caSetting(path.Join("/etc/containers/certs.d", e.host, "ca.crt"))...)
	}
	var b strings.Builder
	gap := func() {
		if b.Len() > 0 {
			b.WriteString("\n")
		}
	}
	for _, h := range v.mirrored() {
		gap()
		fmt.Fprintf(&b, "[[registry]]\nprefix = %q\nlocation = %q\nblocked = true\nmirror-by-digest-only = false\n", h.name, h.name)
		for _, p := range h.places {
			fmt.Fprintf(&b, "\n[[registry.mirror]]\nlocation = %q\ninsecure = %t\n", p.ref(""), p.at.plain())
		}
	}
	for _, e := range v.at {
		if e.plain() {
			gap()
			fmt.Fprintf(&b, "[[registry]]\nlocation = %q\ninsecure = true\n", e.host)
		}
	}
	note := "For podman, CRI-O, buildah and skopeo. A registry that is not named here is asked itself; to forbid that, reject by default in /etc/containers/policy.json."
	for _, e := range v.at {
		if e.login != "" {
			note += "\nPulling needs a login: podman login " + e.host + " (" + e.login + "). CRI-O reads it from global_auth_file."
		}
	}
	if b.Len() == 0 {
		return list
	}
	return append(list, setting{File: "/etc/containers/registries.conf.d/50-darkmirror.conf", Content: b.String(), Note: note})
}
