package bundle

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// smallIndex is a real volumes.json with its manifest.
func smallIndex(t testing.TB) (*volumeIndex, []byte, *fixture) {
	t.Helper()
	f := sealSmall(t, t.TempDir())
	data, err := os.ReadFile(filepath.Join(f.sealed.Dir, volumesName))
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseVolumes(data, f.sealed.ID, f.m)
	if err != nil {
		t.Fatal(err)
	}
	return v, data, f
}

func TestVolumesRoundTrip(t *testing.T) {
	v, data, _ := smallIndex(t)
	again, err := v.encode()
	if err != nil || !bytes.Equal(again, data) {
		t.Fatalf("%v\n%s\n%s", err, data, again)
	}
}

func TestVolumesRules(t *testing.T) {
	// cut gives the index of the first segment of several extents.
	cut := func(v *volumeIndex) []extent {
		for _, list := range v.Extents {
			if len(list) > 1 {
				return list
			}
		}
		t.Fatal("no segment is cut")
		return nil
	}
	for name, spoil := range map[string]func(*volumeIndex){
		"other bundle":       func(v *volumeIndex) { v.Bundle[0] ^= 1 },
		"volume size":        func(v *volumeIndex) { v.VolumeSize = 0 },
		"volume name":        func(v *volumeIndex) { v.Volumes[1].Name = "../volume-00002.tar" },
		"volumes swapped":    func(v *volumeIndex) { v.Volumes[0], v.Volumes[1] = v.Volumes[1], v.Volumes[0] },
		"size negative":      func(v *volumeIndex) { v.Volumes[0].Size = -1 },
		"digest missing":     func(v *volumeIndex) { v.Volumes[0].SHA256 = artifact.Digest{} },
		"no volumes":         func(v *volumeIndex) { v.Volumes = []VolumeInfo{} },
		"a segment less":     func(v *volumeIndex) { v.Extents = v.Extents[1:] },
		"a segment more":     func(v *volumeIndex) { v.Extents = append(v.Extents, []extent{}) },
		"volume 0":           func(v *volumeIndex) { v.Extents[0][0].Vol = 0 },
		"volume too large":   func(v *volumeIndex) { v.Extents[0][0].Vol = int64(len(v.Volumes) + 1) },
		"offset negative":    func(v *volumeIndex) { v.Extents[0][0].Off = -1 },
		"offset beyond":      func(v *volumeIndex) { v.Extents[0][0].Off = v.Volumes[0].Size },
		"offset overflow":    func(v *volumeIndex) { v.Extents[0][0].Off = math.MaxInt64 - 5 },
		"length overflow":    func(v *volumeIndex) { v.Extents[0][0].Len = maxInt },
		"length 0":           func(v *volumeIndex) { v.Extents[0][0].Len = 0 },
		"length short":       func(v *volumeIndex) { v.Extents[0][0].Len-- },
		"length long":        func(v *volumeIndex) { v.Extents[0][0].Len++ },
		"overlap":            func(v *volumeIndex) { v.Extents[1][0].Off = v.Extents[0][0].Off + 1 },
		"out of order":       func(v *volumeIndex) { v.Extents[0], v.Extents[1] = v.Extents[1], v.Extents[0] },
		"parts out of order": func(v *volumeIndex) { l := cut(v); l[0], l[1] = l[1], l[0] },
		"extents missing":    func(v *volumeIndex) { v.Extents[2] = nil },
		"no extents":         func(v *volumeIndex) { v.Extents[0] = []extent{} },
	} {
		t.Run(name, func(t *testing.T) {
			v, _, f := smallIndex(t)
			spoil(v)
			data, err := v.encode()
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseVolumes(data, f.sealed.ID, f.m)
			wantCode(t, err, CodeVolumes)
		})
	}
	_, data, f := smallIndex(t)
	body, _, _ := strings.Cut(string(data), checkKey)
	for name, in := range map[string][]byte{
		"empty":        {},
		"no check":     []byte(body + "}\n"),
		"check twice":  appendCheck(bytes.Clone(data[:len(data)-2])),
		"schema":       appendCheck([]byte(strings.Replace(body, "volumes/v1", "volumes/v2", 1))),
		"duplicate":    appendCheck([]byte(strings.Replace(body, "{", `{"volume_size":1,`, 1))),
		"case variant": appendCheck([]byte(strings.Replace(body, `"off"`, `"Off"`, 1))),
		"unknown":      appendCheck([]byte(strings.Replace(body, "{", `{"x":1,`, 1))),
		"float":        appendCheck([]byte(strings.Replace(body, `"off":512`, `"off":512.0`, 1))),
		"no line feed": data[:len(data)-1],
		"trailing":     append(bytes.Clone(data), '\n'),
		"too large":    make([]byte, maxVolumesJSON+1),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseVolumes(in, f.sealed.ID, f.m)
			wantCode(t, err, CodeVolumes)
		})
	}
}

// FuzzVolumes: never panics; what is accepted stays within its volumes, does
// not overlap, and is read back the same. The check is added to the input, so
// that the fuzzer gets past it.
func FuzzVolumes(f *testing.F) {
	_, data, fx := smallIndex(f)
	body, _, ok := bytes.Cut(data, []byte(checkKey))
	if !ok {
		f.Fatal("no seed")
	}
	f.Add(body)
	f.Add(bytes.Replace(body, []byte(`"off":512`), []byte(`"off":9007199254740992`), 1))
	f.Add(bytes.Replace(body, []byte(`"vol":1`), []byte(`"vol":2`), 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		v, err := parseVolumes(appendCheck(bytes.Clone(body)), fx.sealed.ID, fx.m)
		if err != nil {
			return
		}
		used := make(map[int64]int64) // end of what is used of each volume
		for _, list := range v.Extents {
			for _, e := range list {
				if e.Off < used[e.Vol] || e.Off+e.Len > v.Volumes[e.Vol-1].Size {
					t.Fatalf("extent %+v is not within bounds", e)
				}
				used[e.Vol] = e.Off + e.Len
			}
		}
		one, err := v.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseVolumes(one, fx.sealed.ID, fx.m)
		if err != nil {
			t.Fatal(err)
		}
		again.Check = v.Check
		if diff := cmp.Diff(v, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzEnvelope: never panics; what is accepted is encoded in one way only and
// verifies against its key alone.
func FuzzEnvelope(f *testing.F) {
	fx := sealSmall(f, f.TempDir())
	data, err := os.ReadFile(filepath.Join(fx.sealed.Dir, envelopeName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(bytes.Replace(data, []byte(`"keyid"`), []byte(`"keyId"`), 1))
	f.Add([]byte(`{"payloadType":"` + PayloadType + `","payload":"e30=","signatures":[{"keyid":"","sig":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, payload, err := openEnvelope(data)
		if err != nil {
			wantCode(t, err, CodeFormat)
			return
		}
		if again, err := decodeBase64(e.Payload); err != nil || !bytes.Equal(again, payload) {
			t.Fatal("payload changed", err)
		}
		rep, err := e.verify(payload, fx.trust)
		if err == nil && rep.ID != fx.sealed.ID {
			t.Fatalf("a payload that nobody signed verifies: %s", payload)
		}
	})
}
