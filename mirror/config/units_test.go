package config

import (
	"encoding"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "1048576": 1 << 20, "1MiB": 1 << 20, "700MiB": 700 << 20, "1GiB": 1 << 30, "4GiB-1": 4<<30 - 1,
		"4700MB": 4_700_000_000, "1TiB": 1 << 40, "2TB": 2e12, "3kB": 3000, "3KiB": 3072, "12B": 12, "1GiB-1MiB": 1<<30 - 1<<20,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "-1", "1-2", "+1", "1.5GiB", "1 GiB", "GiB", "1gib", "1GiB-", "1GiB-1-1", "9223372036854775808", "9999999TiB", "1_000", "0x10", "1e3"} {
		if got, err := ParseSize(in); err == nil || got != 0 {
			t.Errorf("ParseSize(%q) = %d, %v, want an error", in, got, err)
		}
	}
	for in, want := range map[Size]string{0: "0", 4<<30 - 1: "4294967295B", 1 << 30: "1GiB", 4_700_000_000: "4700MB", 1000: "1kB"} {
		if got := in.String(); got != want {
			t.Errorf("Size(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"14d": 14 * 24 * time.Hour, "72h": 72 * time.Hour, "1d12h": 36 * time.Hour, "2w": 14 * 24 * time.Hour,
		"90m": 90 * time.Minute, "5s": 5 * time.Second, "0s": 0, "1w1d1h1m1s": 694861 * time.Second,
	} {
		if got, err := ParseDuration(in); err != nil || got.Duration() != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", in, got.Duration(), err, want)
		}
	}
	for _, in := range []string{"", "14", "d", "-1d", "1.5d", "1h1d", "1d1d", "1d ", "1D", "1ms", "300y", "99999999999w", "9223372036854775808s", "106752d", "106751d24h"} {
		if got, err := ParseDuration(in); err == nil || got != 0 {
			t.Errorf("ParseDuration(%q) = %v, %v, want an error", in, got, err)
		}
	}
	for in, want := range map[Duration]string{0: "0s", Duration(36 * time.Hour): "1d12h", Duration(14 * 24 * time.Hour): "14d"} {
		if got := in.String(); got != want {
			t.Errorf("Duration(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]Rate{"200Mbit/s": 200e6, "1Gbit/s": 1e9, "25MB/s": 200e6, "64kbit/s": 64000, "9bit/s": 9, "1MiB/s": 8 << 20} {
		if got, err := ParseRate(in); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "200", "200M", "Mbit/s", "-1Mbit/s", "1.5Gbit/s", "200 Mbit/s", "200mbit/s", "9223372036854775807MB/s"} {
		if got, err := ParseRate(in); err == nil || got != 0 {
			t.Errorf("ParseRate(%q) = %d, %v, want an error", in, got, err)
		}
	}
	if got := Rate(200e6).String(); got != "200Mbit/s" {
		t.Errorf("Rate(200e6) = %q, want 200Mbit/s", got)
	}
}

// fuzzUnit: never panics, never negative, and what is accepted is written in
// a form that gives the same value again.
func fuzzUnit[T ~int64, P interface {
	*T
	encoding.TextUnmarshaler
	encoding.TextMarshaler
}](f *testing.F, seeds ...string) {
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var v, again T
		if err := P(&v).UnmarshalText([]byte(s)); err != nil {
			if v != 0 {
				t.Errorf("%q: %d beside the error %v", s, v, err)
			}
			return
		}
		if v < 0 {
			t.Errorf("%q = %d", s, v)
		}
		text, err := P(&v).MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := P(&again).UnmarshalText(text); err != nil || again != v {
			t.Errorf("%q = %d, written %s, read again %d, %v", s, v, text, again, err)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	fuzzUnit[Size](f, "1GiB", "4GiB-1", "700MiB", "9223372036854775807", "1-", "8388608TiB")
}

func FuzzParseDuration(f *testing.F) {
	fuzzUnit[Duration](f, "14d", "1d12h", "2w", "106751d23h47m16s", "1m1h", "0s")
}

func FuzzParseRate(f *testing.F) {
	fuzzUnit[Rate](f, "200Mbit/s", "25MB/s", "9223372036bit/s", "1GB/s", "0bit/s")
}
