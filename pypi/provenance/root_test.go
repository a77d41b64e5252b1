package provenance

import (
	"strings"
	"testing"
	"time"
)

func TestParseRoot(t *testing.T) {
	f := newForge(t)
	for name, c := range map[string]struct {
		change func(r map[string]any)
		want   time.Time
	}{
		"as the certificates": {func(map[string]any) {}, signedAt.AddDate(25, 0, 0)},
		"as the transparency log": {func(r map[string]any) {
			m, _ := at(t, r, "tlogs.0.publicKey.validFor.start")
			m["end"] = "2030-01-01T00:00:00Z"
		}, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)},
		"as the last certificate log": {func(r map[string]any) {
			m, k := at(t, newForge(t).root(), "ctlogs.0.publicKey")
			other := map[string]any{"baseUrl": "https://ct2.example", "hashAlgorithm": "SHA2_256", "logId": map[string]any{"keyId": []byte("2")}, k: m[k]}
			r["ctlogs"] = append(r["ctlogs"].([]any), other)
			for i, end := range []string{"2028-01-01T00:00:00Z", "2029-01-01T00:00:00Z"} {
				v, _ := at(t, r, "ctlogs."+string(rune('0'+i))+".publicKey.validFor.start")
				v["end"] = end
			}
		}, time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)},
		"as the authority": {func(r map[string]any) {
			m, _ := at(t, r, "certificateAuthorities.0.validFor.start")
			m["end"] = "2027-01-01T00:00:00Z"
		}, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			tree := f.root()
			c.change(tree)
			r, err := ParseRoot(marshal(t, tree))
			if err != nil {
				t.Fatal(err)
			}
			if got := r.ValidUntil(); !got.Equal(c.want) {
				t.Errorf("valid until %v, want %v", got, c.want)
			}
		})
	}
}

// A log or an authority vouches for nothing before or after its time.
func TestRootTimes(t *testing.T) {
	f := newForge(t)
	o := object(t, githubPublisher, f.sign(github()))
	for path, text := range map[string]string{
		"tlogs.0.publicKey.validFor.start":         "not enough verified log entries",
		"ctlogs.0.publicKey.validFor.start":        "signed certificate timestamp",
		"certificateAuthorities.0.validFor.start":  "leaf certificate",
		"certificateAuthorities.0.validFor.start ": "leaf certificate",
		"tlogs.0.publicKey.validFor.start ":        "not enough verified log entries",
		"ctlogs.0.publicKey.validFor.start ":       "signed certificate timestamp",
	} {
		t.Run(path, func(t *testing.T) {
			tree := f.root()
			m, k := at(t, tree, strings.TrimSpace(path))
			if strings.HasSuffix(path, " ") {
				m["end"] = "2025-05-31T00:00:00Z"
			} else {
				m[k] = "2025-06-02T00:00:00Z"
			}
			r, err := ParseRoot(marshal(t, tree))
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Verify(o, forgedSubject)
			wantRefusal(t, err, CodeSignature, text)
		})
	}
}

func TestParseRootRefuses(t *testing.T) {
	f := newForge(t)
	good := string(marshal(t, f.root()))
	without := func(key string) string {
		tree := f.root()
		tree[key] = []any{}
		return string(marshal(t, tree))
	}
	for _, c := range []struct{ name, root, text string }{
		{"empty", "", "not a trusted_root.json"},
		{"an object", "{}", "media type"},
		{"another type", strings.Replace(good, "trustedroot+json;version=0.1", "bundle.v0.3+json", 1), "media type"},
		{"an unknown key", strings.Replace(good, `"mediaType"`, `"x":1,"mediaType"`, 1), "unknown field"},
		{"a key twice", strings.Replace(good, `{"certificateAuthorities"`, `{"tlogs":[],"certificateAuthorities"`, 1), "duplicate"},
		{"no authority", without("certificateAuthorities"), "names no certificate authority"},
		{"no certificate log", without("ctlogs"), "names no certificate log"},
		{"no transparency log", without("tlogs"), "names no transparency log"},
		{"broken certificate", strings.Replace(good, `"rawBytes":"MIIB`, `"rawBytes":"MIIA`, 1), "certificate"},
		{"more behind it", good + "{}", "not a trusted_root.json"},
		{"too large", good + strings.Repeat(" ", maxRoot), "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.root == good {
				t.Fatal("the case changes nothing")
			}
			r, err := ParseRoot([]byte(c.root))
			if r != nil {
				t.Error("a root beside the error")
			}
			wantRefusal(t, err, CodeRoot, c.text)
		})
	}
}
