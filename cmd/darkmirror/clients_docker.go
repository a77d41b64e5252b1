package main

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

// dockerSettings are few: the daemon has mirrors for Docker Hub alone, at the
// root of a server alone, and it goes on to the registry itself when they do
// not have an image.
func dockerSettings(v *clientsView) []setting {
	var list []setting
	daemon := struct {
		Mirrors  []string `json:"registry-mirrors,omitempty"`
		Insecure []string `json:"insecure-registries,omitempty"`
	}{}
	for _, e := range v.at {
		list = append(list, e.caSetting(path.Join("/etc/docker/certs.d", e.host, "ca.crt"))...)
		if e.plain() {
			daemon.Insecure = append(daemon.Insecure, e.host)
		}
	}
	for _, h := range v.hosts {
		for _, p := range h.places {
			if p.path == "" && !slices.Contains(daemon.Mirrors, p.at.url()) {
				daemon.Mirrors = append(daemon.Mirrors, p.at.url())
			}
		}
	}
	if daemon.Mirrors != nil || daemon.Insecure != nil {
		note := "Add the keys to those that are there, then restart the daemon."
		if daemon.Insecure != nil {
			note += " insecure-registries is needed because the mirror speaks plain http; with serve.certificate it is not."
		}
		if daemon.Mirrors != nil {
			note += " registry-mirrors serves names without a registry, those of Docker Hub, and no others; what the mirror does not have is then asked of Docker Hub."
		}
		b, err := json.MarshalIndent(daemon, "", "  ")
		if err != nil { // two lists of strings: cannot happen
			b = nil
		}
		list = append(list, setting{File: "/etc/docker/daemon.json", Content: string(b) + "\n", Note: note})
	}
	var b strings.Builder
	for _, e := range v.at {
		if e.login != "" {
			fmt.Fprintf(&b, "docker login %s   # %s\n", e.host, e.login)
		}
	}
	images := v.images
	if len(images) == 0 {
		images = []imageRef{v.example()}
	}
	for _, im := range images {
		fmt.Fprintf(&b, "docker pull %s\n", im.inside())
		if im.host.named() {
			fmt.Fprintf(&b, "docker tag %s %s\n", im.inside(), im.original())
		}
	}
	return append(list, setting{Content: b.String(), Note: dockerLimits(daemon.Mirrors != nil)})
}

// dockerLimits says plainly what the daemon cannot do.
func dockerLimits(mirrors bool) string {
	note := "Pull by the mirror's own name, in Dockerfiles and compose files too. docker cannot send registry.example/... to a mirror: registry-mirrors is for Docker Hub alone"
	if !mirrors {
		note += ", and cannot name a path in the mirror, so it is not set here"
	}
	return note + ". docker cannot block a registry either: a name that does not begin with the mirror's is asked of the registry that it names, and only the network stops that. docker tag gives an image its former name, for what is on this host."
}
