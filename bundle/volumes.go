package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// volumesSchema names volumes.json.
const volumesSchema = "darkmirror.volumes/v1"

// checkKey starts the end of volumes.json: the digest of all bytes before it.
const checkKey = `,"check":"`

// volumeIndex is volumes.json. It is unsigned: it may only make a segment
// fail.
type volumeIndex struct {
	Schema     string          `json:"schema"`
	Bundle     artifact.Digest `json:"bundle"`
	VolumeSize int64           `json:"volume_size"`
	Volumes    []VolumeInfo    `json:"volumes"`
	Extents    [][]extent      `json:"extents"`
	Check      artifact.Digest `json:"check,omitzero"`
}

// A VolumeInfo describes a volume as it was written. The digest tells early
// that a volume is damaged and decides nothing.
type VolumeInfo struct {
	Name   string          `json:"name"`
	Size   int64           `json:"size"`
	SHA256 artifact.Digest `json:"sha256"`
}

// An extent is where a piece of a segment lies. Vol counts from 1, as the
// volumes' names do.
type extent struct {
	Vol int64 `json:"vol"`
	Off int64 `json:"off"`
	Len int64 `json:"len"`
}

func volumeName(n int) string { return fmt.Sprintf("volume-%05d.tar", n) }

// encode appends the check to the document.
func (v *volumeIndex) encode() ([]byte, error) {
	c := *v
	c.Schema, c.Check = volumesSchema, artifact.Digest{}
	b, err := json.Marshal(&c)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", volumesName, err)
	}
	return appendCheck(b[:len(b)-1]), nil
}

func appendCheck(body []byte) []byte {
	sum := artifact.Sum(body)
	return append(body, checkKey+sum.String()+"\"}\n"...)
}

// parseVolumes reads volumes.json and checks it against the manifest. Every
// error is an ERR_VOLUMES refusal.
func parseVolumes(data []byte, id artifact.Digest, m *Manifest) (*volumeIndex, error) {
	refuse := func(err error) (*volumeIndex, error) {
		return nil, refusal(CodeVolumes, m.String(), volumesName+" is not usable", err)
	}
	if len(data) > maxVolumesJSON {
		return refuse(fmt.Errorf("%d bytes, at most %d are read", len(data), maxVolumesJSON))
	}
	at := bytes.LastIndex(data, []byte(checkKey))
	if at < 0 || !bytes.Equal(appendCheck(bytes.Clone(data[:at])), data) {
		return refuse(errors.New("damaged: its own check differs"))
	}
	var v volumeIndex
	if err := strictjson.Unmarshal(data, &v); err != nil {
		return refuse(err)
	}
	if v.Bundle != id {
		return refuse(fmt.Errorf("it belongs to bundle %s, want %s", v.Bundle, id))
	}
	if err := v.check(m); err != nil {
		return refuse(err)
	}
	return &v, nil
}

// check holds the rules of docs/bundle-format.md: names, ranges, sums, and
// extents that ascend, so that they cannot overlap.
func (v *volumeIndex) check(m *Manifest) error {
	if v.Schema != volumesSchema {
		return fmt.Errorf("schema %q, want %q", clip(v.Schema), volumesSchema)
	}
	if v.VolumeSize < 1 || v.Volumes == nil || len(v.Volumes) > maxVolumes || v.Extents == nil {
		return errors.New("volume_size, volumes or extents missing or out of range")
	}
	for i, info := range v.Volumes {
		if want := volumeName(i + 1); info.Name != want {
			return fmt.Errorf("volume %d is named %q, want %s", i+1, clip(info.Name), want)
		}
		if info.Size < 1 || info.Size > maxInt || info.SHA256.IsZero() {
			return fmt.Errorf("%s: size or digest missing or out of range", info.Name)
		}
	}
	if want := m.segmentCount(); len(v.Extents) != want {
		return fmt.Errorf("extents of %d segments, the manifest has %d", len(v.Extents), want)
	}
	var last extent // the end of the extent before
	n := 0
	for s := range m.segments {
		if err := v.checkSegment(v.Extents[n], s.Len, &last); err != nil {
			return fmt.Errorf("segment %d: %w", n+1, err)
		}
		n++
	}
	return nil
}

func (v *volumeIndex) checkSegment(list []extent, want int64, last *extent) error {
	if list == nil {
		return errors.New("no list of extents")
	}
	var sum int64
	for _, e := range list {
		if e.Vol < 1 || e.Vol > int64(len(v.Volumes)) {
			return fmt.Errorf("volume %d of %d", e.Vol, len(v.Volumes))
		}
		size := v.Volumes[e.Vol-1].Size
		// Off is at most size before it is subtracted: nothing wraps.
		if e.Off < 0 || e.Off > size || e.Len < 1 || e.Len > size-e.Off {
			return fmt.Errorf("offset %d, length %d outside volume %d of %d bytes", e.Off, e.Len, e.Vol, size)
		}
		if e.Vol < last.Vol || e.Vol == last.Vol && e.Off < last.Off {
			return fmt.Errorf("offset %d in volume %d overlaps, or is out of order", e.Off, e.Vol)
		}
		*last = extent{Vol: e.Vol, Off: e.Off + e.Len}
		// Lengths are at most 2^53 and so is want: no wrap before this stops.
		if sum += e.Len; sum > want {
			break
		}
	}
	if sum != want {
		return fmt.Errorf("extents of %d bytes, want %d", sum, want)
	}
	return nil
}
