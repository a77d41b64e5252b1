package main

import (
	"fmt"
	"path"
	"strings"
)

// certsDir is the folder that config_path names.
const certsDir = "/etc/containerd/certs.d"

// containerdSettings is a hosts.toml for each registry, one for the mirror's
// own name and one for all others.
//
// containerd asks the hosts of a file in their order and then its server; with
// none named, that is the registry itself. So server is the mirror too: what
// it has not is then not found, and nobody else is asked. override_path makes
// the path of the address the root of the API, so that the registry's name
// stands before the repository's. No file is without a host: containerd 1.6
// cannot read one, and goes to the registry itself.
func containerdSettings(v *clientsView) []setting {
	var list []setting
	for _, e := range v.at {
		list = append(list, e.caSetting(e.caFile())...)
	}
	for _, h := range v.mirrored() {
		list = append(list, setting{
			File: hostsFile(h.name), Content: hostsToml(h.places, pullOnly),
			Note: fmt.Sprintf("Images that are called %s/... come from the mirror, or not at all.", h.name),
		})
	}
	for _, e := range v.at {
		list = append(list, setting{
			File: hostsFile(e.host), Content: hostsToml([]place{{at: e}}, `"pull", "resolve", "push"`),
			Note: "For images that are called by the mirror's own name.",
		})
	}
	list = append(list, setting{
		File: hostsFile("_default"), Content: hostsToml([]place{{at: v.at[0]}}, pullOnly),
		Note: "For every registry without a folder of its own: the mirror does not have it, so nothing is found and nobody else is asked. A registry of your own needs a folder, as " + certsDir + "/own.example, with a hosts.toml that has [host.\"https://own.example\"].",
	})
	return append(list,
		containerdConfig("1.x", 2, "io.containerd.grpc.v1.cri"),
		containerdConfig("2.x", 3, "io.containerd.cri.v1.images"))
}

// pullOnly are the capabilities of a mirror.
const pullOnly = `"pull", "resolve"`

func hostsFile(host string) string { return path.Join(certsDir, host, "hosts.toml") }

// hostsToml is the hosts.toml of a registry whose images lie in places.
func hostsToml(places []place, capabilities string) string {
	var b strings.Builder
	server := places[len(places)-1]
	fmt.Fprintf(&b, "server = %q\n%s", server.api(), server.containerdKeys("", capabilities))
	for _, p := range places {
		fmt.Fprintf(&b, "\n[host.%q]\n%s%s", p.api(), p.containerdKeys("  ", capabilities), p.at.containerdLogin(fmt.Sprintf("host.%q.header", p.api())))
	}
	b.WriteString(server.at.containerdLogin("header"))
	return b.String()
}

func (p place) containerdKeys(indent, capabilities string) string {
	keys := fmt.Sprintf("%scapabilities = [%s]\n%soverride_path = true\n", indent, capabilities, indent)
	if p.at.ca != "" {
		keys += fmt.Sprintf("%sca = %q\n", indent, p.at.caFile())
	}
	return keys
}

// containerdLogin shows where a login goes; it is not known here.
func (e endpoint) containerdLogin(table string) string {
	if e.login == "" {
		return ""
	}
	return fmt.Sprintf("\n# Pulling needs a login: base64 of USER:PASSWORD, this file then mode 0600.\n#[%s]\n#  Authorization = \"Basic BASE64\"\n", table)
}

// containerdConfig is a file beside config.toml: an import of it would, in
// containerd 1.x, replace all other settings of the section.
func containerdConfig(release string, version int, plugin string) setting {
	return setting{
		File:    "/etc/containerd/darkmirror-" + release + ".toml",
		Content: fmt.Sprintf("version = %d\n\n[plugins.%q.registry]\n  config_path = %q\n", version, plugin, certsDir),
		Note:    "What containerd " + release + " needs in /etc/containerd/config.toml, and a restart. Add the lines there; do not import the file, since an import replaces the whole section in 1.x. hosts.toml is read anew at every pull.",
	}
}
