package registry

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/oci/spec"
)

// A real client pushes and pulls. It asks /v2/ and nothing else how to log
// in, which is why reading that is open and pushing that is not need a bearer
// challenge there.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("NOT RUN: skopeo is not installed")
	}
	for name, o := range map[string]Options{
		"open for reading": {PushToken: secret},
		"closed":           {PushToken: secret, PullToken: "pull secret"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, o)
			host := strings.TrimPrefix(w.url, "http://")
			home := t.TempDir()
			run := func(ok bool, args ...string) []byte {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), skopeo, append([]string{"--insecure-policy"}, args...)...)
				cmd.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home, "REGISTRY_AUTH_FILE="+filepath.Join(home, "auth.json"))
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if (err == nil) != ok {
					t.Fatalf("skopeo %v: %v\n%s", args, err, stderr.Bytes())
				}
				return out
			}
			layout, manifest := writeLayout(t)
			to := "docker://" + host + "/platform/team/app:1.0"
			run(false, "copy", "--preserve-digests", "--dest-tls-verify=false", "oci:"+layout, to)
			run(false, "copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds=me:wrong", "oci:"+layout, to)
			run(true, "copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds=me:"+secret, "oci:"+layout, to)
			creds := []string{}
			if o.PullToken != "" {
				run(false, "inspect", "--raw", "--tls-verify=false", to)
				creds = append(creds, "--creds=me:"+o.PullToken)
			}
			got := run(true, append(append([]string{"inspect", "--raw", "--tls-verify=false"}, creds...), to)...)
			if !bytes.Equal(got, manifest) {
				t.Errorf("skopeo reads %s\nwant %s", got, manifest)
			}
			src := append([]string{"copy", "--src-tls-verify=false"}, creds...)
			for i := range src {
				src[i] = strings.Replace(src[i], "--creds", "--src-creds", 1)
			}
			run(true, append(src, to, "dir:"+filepath.Join(home, "pulled"))...)
			got, err := os.ReadFile(filepath.Join(home, "pulled", "manifest.json"))
			if err != nil || !bytes.Equal(got, manifest) {
				t.Errorf("skopeo pulls %s, %v", got, err)
			}
		})
	}
}

// writeLayout makes an image-layout folder of one image.
func writeLayout(t *testing.T) (dir string, manifest []byte) {
	t.Helper()
	dir = t.TempDir()
	keep := func(b []byte) spec.Descriptor {
		d := describe(b)
		name := filepath.Join(dir, "blobs", "sha256", d.Digest.Hex())
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	config := keep([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + string(digestOf(noise(1<<20, 5))) + `"]}}`))
	manifest = encode(t, imageOf(config, keep(noise(1<<20, 5))))
	d := keep(manifest)
	d.MediaType = spec.OCIManifest
	index, err := json.Marshal(indexOf(d))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, manifest
}
