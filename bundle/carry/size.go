package carry

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/darkmirror/darkmirror/bundle"
)

const (
	// discRoom is what a disc needs beside the volume: the structures of UDF,
	// some 2 MiB, and the documents and the label of a bundle.
	discRoom = 16 << 20
	// bluraySpare is what burning programs set aside for defects of a
	// Blu-ray disc unless they are told not to: the inner spare area of the
	// first layer.
	bluraySpare = 256 << 20
)

// presets are the volume sizes with a name, each for one volume a medium but
// for sticks and tapes.
var presets = map[string]int64{
	// Its length field has 32 bits.
	"fat32": 4<<30 - 1,
	// 2,295,104 sectors of 2,048 bytes: DVD+R, the smaller of the two.
	"dvd": 4_700_372_992 - discRoom,
	// 4,171,712 sectors: DVD-R DL, the smaller of the two.
	"dvd-dl": 8_543_666_176 - discRoom,
	"bd25":   25_025_314_816 - discRoom - bluraySpare,
	"bd50":   50_050_629_632 - discRoom - bluraySpare,
	// A drive streams such a volume for minutes without a stop, and a bad
	// one costs minutes to write again, not the tape.
	"lto": 64 << 30,
}

// units from the longest name, since the last letter is the same.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"B", 1},
}

// ParseVolumeSize reads the volume size of a medium: fat32, dvd, dvd-dl, bd25,
// bd50 or lto, or a size as the configuration has them: 700MiB, 4GiB-1.
func ParseVolumeSize(s string) (int64, error) {
	if n, ok := presets[s]; ok {
		return n, nil
	}
	n, err := parseSize(s)
	if err == nil && n < bundle.MinVolumeSize {
		err = fmt.Errorf("want at least %d bytes", bundle.MinVolumeSize)
	}
	if err != nil {
		const most = 60
		if len(s) > most {
			s = s[:most] + "..."
		}
		return 0, fmt.Errorf("volume size %q: %w (write fat32, dvd, dvd-dl, bd25, bd50, lto, or a size as 700MiB or 4GiB-1)", s, err)
	}
	return n, nil
}

func parseSize(s string) (int64, error) {
	big, less, minus := strings.Cut(s, "-")
	n, err := parseBytes(big)
	if err != nil || !minus {
		return n, err
	}
	m, err := parseBytes(less)
	if err == nil && m > n {
		err = errors.New("below zero")
	}
	return n - m, err
}

func parseBytes(s string) (int64, error) {
	unit := int64(1)
	for _, u := range units {
		if digits, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = digits, u.bytes
			break
		}
	}
	// Digits alone: no sign, point or space.
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errors.New("not a number with a unit")
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return 0, errors.New("too large")
	}
	return n * unit, nil
}
