package carry

import (
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/bundle"
)

func TestParseVolumeSize(t *testing.T) {
	for s, want := range map[string]int64{
		"fat32": 4294967295, "dvd": 4683595776, "dvd-dl": 8526888960, "bd25": 24740102144, "bd50": 49765416960, "lto": 64 << 30,
		"4GiB-1": 4294967295, "700MiB": 700 << 20, "1MiB": 1 << 20, "1048576": 1 << 20, "1048577B": 1<<20 + 1, "4700MB": 4_700_000_000,
		"2TiB": 2 << 40, "1TB": 1e12, "2048KiB": 2 << 20, "2000kB": 2_000_000, "5GB-1MB": 4_999_000_000,
	} {
		if got, err := ParseVolumeSize(s); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", s, got, err, want)
		}
	}
	for s, say := range map[string]string{
		"": "not a number", "FAT32": "not a number", "dvd ": "not a number", "-1": "not a number", "+1GiB": "not a number", "1.5GiB": "not a number",
		"1 GiB": "not a number", "1GiB-": "not a number", "1GiB-2GiB": "below zero", "1GiB-1-1": "not a number", "1MiB-1": "at least 1048576", "0": "at least",
		"9223372036854775808": "too large", "9999999TiB": "too large", "1e9": "not a number", strings.Repeat("9", 1000): "too large",
	} {
		got, err := ParseVolumeSize(s)
		if err == nil || got != 0 || !strings.Contains(err.Error(), say) || len(err.Error()) > 300 {
			t.Errorf("%q: %d %v, want %q", s, got, err, say)
		}
	}
}

func FuzzParseVolumeSize(f *testing.F) {
	seeds := []string{"fat32", "dvd", "4GiB-1", "700MiB", "1048576", "9999999TiB", "1GiB-1GiB", "5GB-1MB", "-", "B"}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseVolumeSize(s)
		if err != nil && n != 0 || err == nil && n < bundle.MinVolumeSize {
			t.Fatalf("%q: %d, %v", s, n, err)
		}
	})
}
