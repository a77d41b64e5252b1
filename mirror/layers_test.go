package mirror_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the path of this module, the parent of every package here.
const module = "github.com/darkmirror/darkmirror"

// mayImport is the architecture: a package imports only the packages of this
// module named beside it, and those of [everywhere]. A package that is not
// listed fails the test, so adding one is a decision.
var mayImport = map[string][]string{
	"internal/durable":    {},
	"internal/failpoint":  {},
	"internal/strictjson": {},
	"internal/strictzip":  {},

	"mirror/artifact":    {},
	"mirror/store":       {"mirror/artifact"},
	"mirror/fetch":       {"mirror/artifact"},
	"mirror/ledger":      {"mirror/artifact"},
	"pypi":               {"mirror/artifact", "mirror/fetch", "mirror/store", "pypi/packaging", "pypi/resolve", "pypi/provenance", "pypi/upload", "pypi/devpi"},
	"pypi/packaging":     {},
	"pypi/resolve":       {"pypi/packaging"},
	"pypi/provenance":    {"mirror/artifact", "pypi/packaging"},
	"pypi/upload":        {"mirror/artifact", "mirror/fetch", "pypi/packaging"},
	"pypi/devpi":         {"mirror/artifact", "mirror/fetch", "pypi/packaging", "pypi/upload"},
	"apt":                {"mirror/artifact", "mirror/fetch", "mirror/store"},
	"oci/spec":           {"mirror/artifact"},
	"oci/remote":         {"mirror/artifact", "mirror/fetch", "oci/spec"},
	"oci/harbor":         {"mirror/artifact", "mirror/fetch"},
	"oci/helm":           {"mirror/artifact", "oci/spec"},
	"oci/layout":         {"mirror/artifact", "oci/spec"},
	"oci":                {"mirror/artifact", "mirror/fetch", "mirror/store", "oci/spec", "oci/remote", "oci/harbor", "oci/helm", "oci/layout"},
	"oci/registry":       {"mirror/artifact", "mirror/store", "oci", "oci/spec"},
	"models/hub":         {"mirror/artifact", "mirror/fetch"},
	"models/repo":        {},
	"models/gguf":        {"mirror/artifact"},
	"models/safetensors": {"mirror/artifact"},
	"models/engine":      {"models/repo", "models/gguf", "models/safetensors"},
	"models":             {"mirror/artifact", "mirror/fetch", "mirror/store", "models/hub", "models/repo"},
	"models/hubserver":   {"mirror/artifact", "mirror/store", "models", "models/hub", "models/repo"},
	"models/place":       {"mirror/artifact", "mirror/store"},
	"models/cachedir":    {"mirror/artifact", "mirror/store", "models", "models/hub", "models/place"},
	"models/plaindir":    {"mirror/artifact", "mirror/store", "models", "models/hub", "models/place"},
	"models/ollama":      {"mirror/artifact", "mirror/store", "models", "models/hub", "models/place", "models/gguf"},
	"models/s3":          {"mirror/artifact", "mirror/fetch", "mirror/store", "models", "models/hub"},
	"models/modelpack":   {"mirror/artifact", "mirror/store", "models", "models/hub", "models/repo", "oci", "oci/spec"},
	"scan/walk":          {"mirror/artifact"},
	"scan":               {"mirror/artifact", "scan/walk", "oci/spec"},
	"scan/pickle":        {"mirror/artifact"},
	"scan/clamav":        {"mirror/artifact", "scan", "scan/walk"},
	"scan/trivy":         {"mirror/artifact", "scan", "scan/walk"},
	"scan/weights":       {"mirror/artifact", "scan", "scan/walk", "scan/pickle", "models/gguf", "models/safetensors"},
	"scan/packages":      {"mirror/artifact", "scan", "scan/walk"},
	"scan/report":        {"mirror/artifact", "scan"},
	"mirror/files":       {"mirror/artifact", "mirror/fetch", "mirror/store"},
	"bundle":             {"mirror/artifact"},
	"bundle/crypt":       {"mirror/artifact", "bundle"},
	"bundle/recovery":    {"mirror/artifact", "bundle", "diode/fec"},
	"bundle/root":        {"mirror/artifact", "bundle"},
	"bundle/signer":      {"mirror/artifact", "bundle"},
	"bundle/carry":       {"mirror/artifact", "bundle", "bundle/label"},
	"bundle/label":       {"mirror/artifact", "bundle"},
	"mirror/translog":    {"mirror/artifact", "bundle"},
	"diode/fec":          {},
	"diode/link":         {},
	"diode/oneway":       {},
	"diode":              {"diode/fec"},
	"diode/linkend":      {"diode", "diode/fec", "diode/link", "diode/oneway"},
	"cmd/darkdiode":      {"diode", "diode/linkend", "diode/fec", "diode/oneway"},
	"mirror":             {"mirror/artifact", "mirror/store", "mirror/ledger", "scan", "bundle"},
	"mirror/config":      {"mirror/artifact", "mirror/fetch", "mirror/files", "pypi", "apt", "oci", "models", "scan", "bundle"},
	"cmd/darkmirror":     {"*"},

	// Fake upstreams stand apart from the package that they test: client and
	// server would share one mistake.
	"pypi/pypitest":          {"mirror/artifact"},
	"apt/apttest":            {"mirror/artifact"},
	"oci/ocitest":            {"mirror/artifact", "oci/spec"},
	"oci/harbortest":         {"oci/ocitest"},
	"models/hubtest":         {"mirror/artifact"},
	"bench/hub":              {"models/hubtest"},
	"bench/headload":         {},
	"bench/scan/models":      {"mirror/artifact", "scan", "scan/walk", "scan/weights"},
	"bench/scan/ours":        {"mirror/artifact", "scan", "scan/trivy", "scan/walk"},
	"bench/scan/whole":       {"mirror/artifact", "mirror/ledger", "scan", "scan/clamav", "scan/packages", "scan/trivy", "scan/weights"},
	"testdata/report/sample": {"scan", "scan/report"},
	"mirror/mirrortest":      {"mirror", "mirror/artifact", "mirror/store"},
	"bench/upstream":         {"apt/apttest"},
	"bench/pypi-serve/serve": {"mirror/store", "pypi"},
	"bench/pypi-serve/load":  {},
	"bench/pypi/index":       {},
	"bench/devpi/bare":       {"mirror/artifact", "pypi/packaging", "pypi/upload"},
	"bench/devpi/publish":    {"mirror/artifact", "mirror/fetch", "mirror/store", "pypi"},
	"diode/diodetest":        {},
	"bench/diode/relay":      {"diode/diodetest"},
	"bench/diode/plain":      {},
	"bench/ocicopy":          {"mirror/artifact", "mirror/fetch", "mirror/store", "oci", "oci/remote", "oci/spec"},
}

// everywhere lists the packages without a place in the layers: they know
// nothing of darkmirror and import nothing of it but each other.
var everywhere = []string{"internal/durable", "internal/failpoint", "internal/strictjson", "internal/strictzip"}

// mayUseInternal narrows [everywhere]: mirror/artifact does no I/O, so it may
// import strictjson alone.
var mayUseInternal = map[string][]string{
	"mirror/artifact": {"internal/strictjson"},
}

// onlyIn names, for an import path prefix, the packages that may use it.
var onlyIn = map[string][]string{
	"github.com/ProtonMail/go-crypto/":        {"apt", "apt/apttest"},
	"github.com/aquasecurity/":                {"scan/trivy"},
	"github.com/bodgit/sevenzip":              {"scan/walk"},
	"github.com/openvex/":                     {"scan/trivy"},
	"github.com/pierrec/lz4/":                 {"scan/walk"},
	"github.com/google/go-containerregistry/": {"oci", "oci/remote"},
	"github.com/Masterminds/semver/":          {"oci", "oci/helm"},
	"github.com/hashicorp/go-retryablehttp":   {"mirror/fetch"},
	"github.com/minio/minio-go/":              {"models/s3"},
	"github.com/pelletier/go-toml/":           {"pypi"},
	"github.com/elastic/go-seccomp-bpf":       {"diode/oneway"},
	"github.com/google/nftables":              {"diode/oneway"},
	"github.com/klauspost/reedsolomon":        {"diode/fec"},
	"github.com/miekg/pkcs11":                 {"bundle/signer"},
	"filippo.io/age":                          {"bundle/crypt"},
	"golang.org/x/crypto/ssh":                 {"bundle/signer"},
	"golang.org/x/mod/":                       {"mirror/translog"},
	"github.com/sigstore/":                    {"pypi/provenance"},
	"rsc.io/qr":                               {"bundle/label"},
	"github.com/spf13/":                       {"cmd/darkmirror"},
	"github.com/vbauerster/mpb/":              {"cmd/darkmirror"},
	"go.etcd.io/bbolt":                        {"mirror/ledger", "scan/trivy"}, // Trivy's database is one
	"go.yaml.in/yaml/":                        {"mirror/config", "models/repo", "oci/helm"},
}

func TestLayers(t *testing.T) {
	// The files are parsed here: a child `go list` would be invisible to go
	// test's cache, and a violation would be reported as "ok (cached)".
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == "testdata" || name != ".." && strings.HasPrefix(name, ".")) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := violation(pkg, imp); why != "" {
				t.Errorf("%s: %s", path, why)
			}
		}
		if _, ok := mayImport[pkg]; !ok {
			t.Errorf("%s: %s is not in the layer table", path, pkg)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Fatal("no Go file was found: the test looks in the wrong folder")
	}
}

// violation says why pkg must not import imp, or nothing.
func violation(pkg, imp string) string {
	for prefix, users := range onlyIn {
		if strings.HasPrefix(imp, prefix) && !slices.Contains(users, pkg) {
			return "only " + strings.Join(users, ", ") + " may import " + imp
		}
	}
	rest, ours := strings.CutPrefix(imp, module+"/")
	if !ours {
		return ""
	}
	allowed := mayImport[pkg]
	if internal, ok := mayUseInternal[pkg]; ok {
		allowed = append(slices.Clone(allowed), internal...)
	} else {
		allowed = append(slices.Clone(allowed), everywhere...)
	}
	if slices.Contains(allowed, rest) || slices.Contains(allowed, "*") {
		return ""
	}
	return pkg + " must not import " + rest
}

// The table itself: nothing of it may be a mistake that allows everything.
func TestLayerTable(t *testing.T) {
	for pkg, imports := range mayImport {
		for _, imp := range imports {
			if _, ok := mayImport[imp]; !ok && imp != "*" {
				t.Errorf("%s may import %s, which is not listed itself", pkg, imp)
			}
			if imp == "*" && !strings.HasPrefix(pkg, "cmd/") {
				t.Errorf("%s may import everything", pkg)
			}
		}
	}
	for _, c := range []struct {
		pkg, imp string
		ok       bool
	}{
		{"mirror", module + "/bundle", true},
		{"mirror", module + "/pypi", false},
		{"bundle", module + "/internal/durable", true},
		{"bundle", module + "/mirror/store", false},
		{"pypi", module + "/pypi/pypitest", false},
		{"internal/durable", module + "/internal/failpoint", true},
		{"internal/durable", module + "/mirror/artifact", false},
		{"mirror/artifact", module + "/internal/strictjson", true},
		{"mirror/artifact", module + "/internal/durable", false},
		{"mirror/ledger", "go.etcd.io/bbolt", true},
		{"mirror/store", "go.etcd.io/bbolt", false},
		{"cmd/darkmirror", "go.yaml.in/yaml/v4", false},
		{"cmd/darkmirror", module + "/apt", true},
		{"apt/apttest", "github.com/ProtonMail/go-crypto/openpgp", true},
		{"bundle", "github.com/ProtonMail/go-crypto/openpgp", false},
		{"not/listed", module + "/pypi", false},
		{"not/listed", "net/http", true},
	} {
		if why := violation(c.pkg, c.imp); (why == "") != c.ok {
			t.Errorf("%s importing %s: %q, want allowed: %v", c.pkg, c.imp, why, c.ok)
		}
	}
}
