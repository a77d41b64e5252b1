package main

import (
	"fmt"
	"strings"
)

// pullSecret is the name of the secret in the examples.
const pullSecret = "darkmirror-pull"

// kubernetesSettings are examples: what sends images to the mirror is the
// nodes' runtime.
func kubernetesSettings(v *clientsView) []setting {
	var list []setting
	im := v.example()
	secret := ""
	if im.at.at.login != "" {
		secret = "  imagePullSecrets:\n  - name: " + pullSecret + "\n"
		list = append(list, setting{
			File: "kubernetes/darkmirror-pull.yaml", Content: secretManifest(im.at.at.host, "default"),
			Note: "Needed in each namespace: pulling needs " + im.at.at.login + ". Replace USER and PASSWORD, and keep the file secret then. It serves pods that name the mirror; for other names the login goes into hosts.toml of the nodes.",
		})
	}
	note := "Pods need no change where the nodes send " + im.host.name + "/... to the mirror: darkmirror clients containerd, or crio, on every node. A node without that has to be given the mirror's own name, as here."
	if im.at.at.ca != "" || im.at.at.plain() {
		note += " Even then the node's runtime has to know the mirror: a CA, or plain http, is set there and not in a pod."
	}
	return append(list, setting{
		File:    "kubernetes/darkmirror-pod.yaml",
		Content: "apiVersion: v1\nkind: Pod\nmetadata:\n  name: darkmirror-example\nspec:\n" + secret + "  containers:\n  - name: main\n    image: " + im.inside() + "\n",
		Note:    note,
	})
}

func secretManifest(host, namespace string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Secret
metadata:
  name: %s
  namespace: %s
type: kubernetes.io/dockerconfigjson
stringData:
  .dockerconfigjson: |
    {"auths": {%q: {"username": "USER", "password": "PASSWORD"}}}
`, pullSecret, namespace, host)
}

// unverified stands on what no test has tried.
const unverified = "Unverified: made from the documentation, not tried on a cluster. "

// openshiftSettings send images by digest and by tag to the mirror; the two
// need an object each.
func openshiftSettings(v *clientsView) []setting {
	var list []setting
	hosts := v.mirrored()
	for _, set := range []struct{ kind, list, file, what string }{
		{"ImageDigestMirrorSet", "imageDigestMirrors", "openshift/darkmirror-idms.yaml", "digest"},
		{"ImageTagMirrorSet", "imageTagMirrors", "openshift/darkmirror-itms.yaml", "tag"},
	} {
		if len(hosts) == 0 {
			break
		}
		var b strings.Builder
		fmt.Fprintf(&b, "apiVersion: config.openshift.io/v1\nkind: %s\nmetadata:\n  name: darkmirror\nspec:\n  %s:\n", set.kind, set.list)
		for _, h := range hosts {
			fmt.Fprintf(&b, "  - source: %s\n    mirrors:\n", h.name)
			for _, p := range h.places {
				fmt.Fprintf(&b, "    - %s\n", p.ref(""))
			}
			b.WriteString("    mirrorSourcePolicy: NeverContactSource\n")
		}
		list = append(list, setting{
			File: set.file, Content: b.String(),
			Note: unverified + "oc apply -f; for images that are named by " + set.what + ". The nodes restart one after the other.",
		})
	}
	return append(list, openshiftTrust(v.at)...)
}

// openshiftTrust is what the cluster needs to know about the servers.
func openshiftTrust(at []endpoint) (list []setting) {
	var cas, insecure strings.Builder
	for _, e := range at {
		if e.ca != "" {
			// A key of a ConfigMap has no colon.
			fmt.Fprintf(&cas, "  %s: |\n    %s\n", strings.ReplaceAll(e.host, ":", ".."), strings.ReplaceAll(strings.TrimRight(e.ca, "\n"), "\n", "\n    "))
		}
		if e.plain() {
			fmt.Fprintf(&insecure, "      - %s\n", e.host)
		}
	}
	if cas.Len() > 0 {
		list = append(list, setting{
			File:    "openshift/darkmirror-ca.yaml",
			Content: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: darkmirror-ca\n  namespace: openshift-config\ndata:\n" + cas.String(),
			Note:    unverified + "The CA, named by additionalTrustedCA of the object image.config.openshift.io/cluster: {\"name\": \"darkmirror-ca\"}.",
		})
	}
	if insecure.Len() > 0 {
		list = append(list, setting{
			File:    "openshift/darkmirror-image.yaml",
			Content: "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata:\n  name: cluster\nspec:\n  registrySources:\n    insecureRegistries:\n" + strings.ReplaceAll(insecure.String(), "      - ", "    - "),
			Note:    unverified + "The mirror speaks plain http. Merge this into the object that is there.",
		})
	}
	for _, e := range at {
		if e.login != "" {
			list = append(list, setting{Note: unverified + "Pulling from " + e.host + " needs " + e.login + ": add it to the cluster's pull secret.", Content: "oc get secret/pull-secret -n openshift-config -o jsonpath='{.data.\\.dockerconfigjson}' | base64 -d >pull.json\n# add to auths: \"" + e.host + "\": {\"auth\": \"BASE64 of USER:PASSWORD\"}\noc set data secret/pull-secret -n openshift-config --from-file=.dockerconfigjson=pull.json\n"})
		}
	}
	return list
}
