package bundle

import (
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// wrapCarried makes an envelope of any payload without looking at it.
func wrapCarried(t testing.TB, typ string, payload []byte, names ...string) []byte {
	t.Helper()
	e := envelope{PayloadType: typ, Payload: base64.StdEncoding.EncodeToString(payload), Signatures: []signature{}}
	for _, name := range names {
		s, _ := testSigner(t, name)
		sig, err := sign(s, PAE(typ, payload))
		if err != nil {
			t.Fatal(err)
		}
		e.Signatures = append(e.Signatures, signature{KeyID(s.Public()), base64.StdEncoding.EncodeToString(sig)})
	}
	data, err := json.Marshal(&e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sampleCarried is a list of two volumes and two root files.
func sampleCarried() *Carried {
	file := func(name string, size int64) CarriedFile {
		f := CarriedFile{Name: name, Size: size, Head: digest("head of " + name), SHA256: digest(name)}
		if size <= headSize {
			f.Head = f.SHA256
		}
		return f
	}
	return &Carried{
		Schema: carriedSchema, Bundle: digest("bundle"), Stream: "main", Seq: 42, Envelope: digest("envelope"), Recipients: []string{"age1qqqqqqqqqqqq..aaaaaaaa"},
		Files: []CarriedFile{
			file("bundle.dsse.json.age", 1000), file("volumes.json.age", 1000), file("volumes/volume-00001.tar.age", 1<<30), file("volumes/volume-00002.tar.age", 5),
			file("root/9.root.json", 7), file("root/10.root.json", 8),
		},
	}
}

func TestCarriedRules(t *testing.T) {
	_, key := testSigner(t, "exporter-a")
	trust := Trust{Keys: []TrustedKey{key}}
	verify := func(c *Carried) error {
		payload, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		l, err := openCarried(wrapCarried(t, CarriedType, payload, "exporter-a"))
		if err != nil {
			return err
		}
		if _, err = l.verify(trust); err != nil {
			if l.Carried != nil {
				t.Error("a list was kept that was refused")
			}
			return err
		}
		if diff := cmp.Diff(c, l.Carried); diff != "" || len(l.volumes) != 2 || len(l.heads) != 2 || len(l.root) != 2 {
			t.Fatal(diff, l.volumes, l.heads, l.root)
		}
		return nil
	}
	if err := verify(sampleCarried()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Carried){
		"schema":              func(c *Carried) { c.Schema = "darkmirror.carried/v2" },
		"no bundle":           func(c *Carried) { c.Bundle = artifact.Digest{} },
		"no envelope":         func(c *Carried) { c.Envelope = artifact.Digest{} },
		"seq 0":               func(c *Carried) { c.Seq = 0 },
		"seq large":           func(c *Carried) { c.Seq = maxInt + 1 },
		"stream":              func(c *Carried) { c.Stream = "../main" },
		"no recipients":       func(c *Carried) { c.Recipients = nil },
		"many recipients":     func(c *Carried) { c.Recipients = slices.Repeat(c.Recipients, 65) },
		"empty recipient":     func(c *Carried) { c.Recipients = []string{""} },
		"odd recipient":       func(c *Carried) { c.Recipients = []string{"a\x1b[2J"} },
		"long recipient":      func(c *Carried) { c.Recipients = []string{strings.Repeat("a", 65)} },
		"no files":            func(c *Carried) { c.Files = []CarriedFile{} },
		"one file":            func(c *Carried) { c.Files = c.Files[:1] },
		"order of documents":  func(c *Carried) { c.Files[0], c.Files[1] = c.Files[1], c.Files[0] },
		"order of volumes":    func(c *Carried) { c.Files[2], c.Files[3] = c.Files[3], c.Files[2] },
		"a volume twice":      func(c *Carried) { c.Files[3] = c.Files[2] },
		"a volume too far":    func(c *Carried) { c.Files[3].Name = "volumes/volume-00003.tar.age" },
		"a plain volume":      func(c *Carried) { c.Files[2].Name = "volumes/volume-00001.tar" },
		"volume elsewhere":    func(c *Carried) { c.Files[2].Name = "volumes/../volume-00001.tar.age" },
		"order of root files": func(c *Carried) { c.Files[4], c.Files[5] = c.Files[5], c.Files[4] },
		"a root file twice":   func(c *Carried) { c.Files[5] = c.Files[4] },
		"root before volumes": func(c *Carried) { c.Files[2], c.Files[4] = c.Files[4], c.Files[2] },
		"root file's name":    func(c *Carried) { c.Files[4].Name = "root/09.root.json" },
		"root file elsewhere": func(c *Carried) { c.Files[4].Name = "9.root.json" },
		"encrypted root file": func(c *Carried) { c.Files[4].Name = "root/9.root.json.age" },
		"large root file":     func(c *Carried) { c.Files[4].Size, c.Files[4].Head = maxRootFile+1, digest("x") },
		"empty file":          func(c *Carried) { c.Files[3].Size = 0 },
		"size negative":       func(c *Carried) { c.Files[2].Size = -1 },
		"size large":          func(c *Carried) { c.Files[2].Size = maxInt + 1 },
		"envelope large":      func(c *Carried) { c.Files[0].Size, c.Files[0].Head = encryptedSize(maxEnvelope)+1, digest("x") },
		"index large":         func(c *Carried) { c.Files[1].Size, c.Files[1].Head = encryptedSize(maxVolumesJSON)+1, digest("x") },
		"no digest":           func(c *Carried) { c.Files[2].SHA256 = artifact.Digest{} },
		"no head":             func(c *Carried) { c.Files[2].Head = artifact.Digest{} },
		"two digests":         func(c *Carried) { c.Files[3].Head = digest("x") },
	} {
		t.Run(name, func(t *testing.T) {
			c := sampleCarried()
			spoil(c)
			wantCode(t, verify(c), CodeFormat)
		})
	}
}

func TestCarriedEnvelope(t *testing.T) {
	_, a := testSigner(t, "exporter-a")
	_, b := testSigner(t, "exporter-b")
	_, c := testSigner(t, "approver-a")
	c.Role = RoleApprover
	trust := Trust{Keys: []TrustedKey{a, b, c}, Exporters: 2, Approvals: 1}
	payload, err := json.Marshal(sampleCarried())
	if err != nil {
		t.Fatal(err)
	}
	good := wrapCarried(t, CarriedType, payload, "exporter-a")
	for name, tc := range map[string]struct {
		data []byte
		code string
	}{
		"one exporter is enough":   {good, ""},
		"and a stranger":           {wrapCarried(t, CarriedType, payload, "stranger", "exporter-b"), ""},
		"a stranger":               {wrapCarried(t, CarriedType, payload, "stranger"), CodeKey},
		"an approver":              {wrapCarried(t, CarriedType, payload, "approver-a"), CodeKey},
		"twice":                    {wrapCarried(t, CarriedType, payload, "exporter-a", "exporter-a"), CodeKey},
		"nobody":                   {wrapCarried(t, CarriedType, payload), CodeFormat},
		"a bundle's envelope":      {wrapCarried(t, PayloadType, payload, "exporter-a"), CodeFormat},
		"another type's signature": {[]byte(strings.Replace(string(wrapCarried(t, PayloadType, payload, "exporter-a")), PayloadType, CarriedType, 1)), CodeSignature},
		"unknown field":            {[]byte(strings.Replace(string(good), `{"payloadType"`, `{"x":1,"payloadType"`, 1)), CodeFormat},
		"something after":          {append(slices.Clone(good), '1'), CodeFormat},
		"other letter case":        {wrapCarried(t, CarriedType, []byte(strings.Replace(string(payload), `"seq"`, `"Seq"`, 1)), "exporter-a"), CodeFormat},
		"duplicate key":            {wrapCarried(t, CarriedType, []byte(strings.Replace(string(payload), `"seq":42`, `"seq":42,"seq":43`, 1)), "exporter-a"), CodeFormat},
		"empty":                    {wrapCarried(t, CarriedType, nil, "exporter-a"), CodeFormat},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := openCarried(tc.data)
			if err == nil {
				_, err = l.verify(trust)
			}
			if tc.code == "" {
				if err != nil || l.Seq != 42 {
					t.Fatal(err)
				}
				return
			}
			wantCode(t, err, tc.code)
			if !strings.Contains(err.Error(), carriedName) {
				t.Errorf("%v does not name %s", err, carriedName)
			}
		})
	}
}

// FuzzCarried: never panics; what is accepted holds every rule, and is read
// the same way when it is written again.
func FuzzCarried(f *testing.F) {
	payload, err := json.Marshal(sampleCarried())
	if err != nil {
		f.Fatal(err)
	}
	small := readFile(f, filepath.Join(encryptSmall(f, newToy(1, "recip-aa")).out.Dir, carriedName))
	l, err := openCarried(small)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{payload, l.payload, []byte(`{}`), []byte(strings.Replace(string(payload), "00002", "00001", 1))} {
		if len(seed) == 0 {
			f.Fatal("an empty seed")
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		l := &carriedList{payload: payload}
		if err := l.parse(); err != nil {
			wantCode(t, err, CodeFormat)
			return
		}
		if len(l.volumes)+len(l.root)+2 != len(l.Files) || len(l.heads) != len(l.volumes) {
			t.Fatalf("%d volumes, %d root files of %d", len(l.volumes), len(l.root), len(l.Files))
		}
		for i, v := range l.volumes {
			if v.Name != volumeName(i+1)+encryptedExt || v.Size < 1 {
				t.Fatalf("%+v", v)
			}
		}
		again, err := json.Marshal(l.Carried)
		if err != nil {
			t.Fatal(err)
		}
		second := &carriedList{payload: again}
		if err := second.parse(); err != nil || !cmp.Equal(l.Carried, second.Carried) {
			t.Fatal(err)
		}
	})
}
