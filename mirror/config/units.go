package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes.
type Size int64

// sizeUnits from the largest, so that String finds the shortest form.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"TB", 1e12},
	{"GiB", 1 << 30},
	{"GB", 1e9},
	{"MiB", 1 << 20},
	{"MB", 1e6},
	{"KiB", 1 << 10},
	{"kB", 1e3},
	{"B", 1},
}

// ParseSize reads "700MiB", "4700MB", "1048576" or, for a file system whose
// files end one byte before a power of two, "4GiB-1".
func ParseSize(s string) (Size, error) {
	big, less, minus := strings.Cut(s, "-")
	n, err := parseBytes(big)
	if err == nil && minus {
		var m int64
		if m, err = parseBytes(less); err == nil && m > n {
			err = errors.New("below zero")
		}
		n -= m
	}
	if err != nil {
		return 0, fmt.Errorf("size %q: %w (write 700MiB, 1GiB or 4GiB-1)", clip(s), err)
	}
	return Size(n), nil
}

func parseBytes(s string) (int64, error) {
	unit := int64(1)
	for _, u := range sizeUnits {
		if digits, ok := strings.CutSuffix(s, u.name); ok {
			s, unit = digits, u.bytes
			break
		}
	}
	n, err := parseCount(s)
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt64/unit {
		return 0, errors.New("too large")
	}
	return n * unit, nil
}

// parseCount reads digits and nothing else: no sign, point or space.
func parseCount(s string) (int64, error) {
	if s == "" {
		return 0, errors.New("a number is missing")
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, errors.New("not a number with a unit")
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errors.New("too large")
	}
	return n, nil
}

// String writes the form that ParseSize reads.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s > 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Bytes is the size as a number.
func (s Size) Bytes() int64 { return int64(s) }

// Set reads a size from a flag.
func (s *Size) Set(text string) error { return s.UnmarshalText([]byte(text)) }

// Type names the kind of a flag's value in help texts.
func (s *Size) Type() string { return "SIZE" }

// MarshalText writes the form that UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size as ParseSize does.
func (s *Size) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSize(string(b))
	return err
}

// A Duration is a length of time, of which a day has 24 hours.
type Duration time.Duration

const (
	day  = 24 * time.Hour
	week = 7 * day
)

var durationUnits = []struct {
	name string
	len  time.Duration
}{{"w", week}, {"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}

// ParseDuration reads "14d", "72h", "1d12h" or "90m": whole numbers with the
// units w, d, h, m and s, from the largest to the smallest.
func ParseDuration(s string) (Duration, error) {
	var sum time.Duration
	rest := s
	for _, u := range durationUnits {
		digits, after, ok := strings.Cut(rest, u.name)
		if !ok || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		n, err := parseCount(digits)
		if err == nil && n > int64((math.MaxInt64-sum)/u.len) {
			err = errors.New("too long")
		}
		if err != nil {
			return 0, fmt.Errorf("duration %q: %w", clip(s), err)
		}
		sum += time.Duration(n) * u.len
		rest = after
	}
	if rest != "" || s == "" {
		return 0, fmt.Errorf("duration %q: want whole numbers with units from w, d, h, m and s (write 14d, 72h or 1d12h)", clip(s))
	}
	return Duration(sum), nil
}

// Duration is the duration as the standard library has it.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// String writes the form that ParseDuration reads, in days and below: "14d".
func (d Duration) String() string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	rest := time.Duration(d)
	for _, u := range durationUnits[1:] {
		if n := rest / u.len; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			rest -= n * u.len
		}
	}
	return b.String()
}

// Set reads a duration from a flag.
func (d *Duration) Set(text string) error { return d.UnmarshalText([]byte(text)) }

// Type names the kind of a flag's value in help texts.
func (d *Duration) Type() string { return "TIME" }

// MarshalText writes the form that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration as ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDuration(string(b))
	return err
}

// A Rate is a number of bits a second.
type Rate int64

var rateUnits = []struct {
	name string
	bits int64
}{
	{"Gbit/s", 1e9},
	{"Mbit/s", 1e6},
	{"kbit/s", 1e3},
	{"bit/s", 1},
	{"MiB/s", 8 << 20},
	{"MB/s", 8e6},
}

// ParseRate reads "200Mbit/s", "1Gbit/s" or "25MB/s".
func ParseRate(s string) (Rate, error) {
	for _, u := range rateUnits {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := parseCount(digits)
		if err == nil && n > math.MaxInt64/u.bits {
			err = errors.New("too large")
		}
		if err != nil {
			return 0, fmt.Errorf("rate %q: %w", clip(s), err)
		}
		return Rate(n * u.bits), nil
	}
	return 0, fmt.Errorf("rate %q: unit missing (write 200Mbit/s, 1Gbit/s or 25MB/s)", clip(s))
}

// String writes the form that ParseRate reads.
func (r Rate) String() string {
	for _, u := range rateUnits {
		if r > 0 && int64(r)%u.bits == 0 {
			return strconv.FormatInt(int64(r)/u.bits, 10) + u.name
		}
	}
	return "0bit/s"
}

// BitsPerSecond is the rate as a number.
func (r Rate) BitsPerSecond() int64 { return int64(r) }

// MarshalText writes the form that UnmarshalText reads.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a rate as ParseRate does.
func (r *Rate) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRate(string(b))
	return err
}

// clip shortens text of the file for a message.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
