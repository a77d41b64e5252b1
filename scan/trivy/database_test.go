package trivy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func rewrite(t *testing.T, dir, name string, change func([]byte) []byte) {
	t.Helper()
	p := filepath.Join(dir, name)
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Trivy itself takes all of these for a clean bill, or dies (traps 1 and 2).
func TestDatabaseGate(t *testing.T) {
	good := fixtureDigest(t)
	for name, c := range map[string]struct {
		spoil  func(t *testing.T, dir string)
		config func(*Config)
		now    time.Time
		want   string // "" if it must open
	}{
		"good":            {},
		"good and pinned": {config: func(c *Config) { c.Digest = good }},
		"no age limit":    {config: func(c *Config) { c.MaxAge = 0 }, now: noon.AddDate(10, 0, 0)},
		"missing database": {
			spoil: func(t *testing.T, dir string) { remove(t, dir, dbFile) }, want: "no such file",
		},
		"missing metadata": {
			spoil: func(t *testing.T, dir string) { remove(t, dir, metaFile) }, want: "no such file",
		},
		"empty database": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, dbFile, func([]byte) []byte { return nil })
			}, want: "is empty",
		},
		"database without a bucket": {
			spoil: func(t *testing.T, dir string) {
				remove(t, dir, dbFile)
				b, err := bolt.Open(filepath.Join(dir, dbFile), 0o600, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
			}, want: `has no bucket "data-source"`,
		},
		"no database at all": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, dbFile, func(b []byte) []byte { return bytes.Repeat([]byte("text"), len(b)/4) })
			}, want: "trivy.db",
		},
		"truncated": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, dbFile, func(b []byte) []byte { return b[:len(b)/2] })
			}, want: "trivy.db",
		},
		"cut to its headers": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, dbFile, func(b []byte) []byte { return b[:8192] })
			}, want: "trivy.db",
		},
		"a bit flipped": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, dbFile, func(b []byte) []byte {
					b[bytes.Index(b, []byte("CVE-2019-20916"))] ^= 1
					return b
				})
			},
			config: func(c *Config) { c.Digest = good }, want: "as pinned",
		},
		"another digest pinned": {config: func(c *Config) { c.Digest = artifact.Sum([]byte("x")) }, want: "want sha256:"},
		"pages swapped, nothing pinned": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, dbFile, func(b []byte) []byte {
					page := os.Getpagesize()
					for i := 2 * page; i+16 < len(b); i += page {
						copy(b[i:i+8], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0})
					}
					return b
				})
			}, want: "damaged",
		},
		"old schema": {
			spoil: func(t *testing.T, dir string) {
				if err := writeMetadata(dir, 1, noon); err != nil {
					t.Fatal(err)
				}
			}, want: "schema 1, want 2",
		},
		"newer schema": {
			spoil: func(t *testing.T, dir string) {
				if err := writeMetadata(dir, 3, noon); err != nil {
					t.Fatal(err)
				}
			}, want: "schema 3, want 2",
		},
		"stale":              {now: noon.Add(72 * time.Hour), want: "73h0m0s old, at most 72h0m0s is allowed"},
		"on the last moment": {now: noon.Add(71 * time.Hour)},
		"from the future":    {now: noon.AddDate(0, 0, -2), want: "ahead of the clock"},
		"no date": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, metaFile, func([]byte) []byte { return []byte(`{"Version":2}`) })
			}, want: "UpdatedAt is missing",
		},
		"malformed metadata": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, metaFile, func(b []byte) []byte { return b[1:] })
			}, want: "metadata.json",
		},
		"huge metadata": {
			spoil: func(t *testing.T, dir string) {
				rewrite(t, dir, metaFile, func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), maxMetadataJSON)...) })
			}, want: "more than 65536 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Database: databaseCopy(t), MaxAge: 72 * time.Hour, Scratch: t.TempDir()}
			if c.spoil != nil {
				c.spoil(t, cfg.Database)
			}
			if c.config != nil {
				c.config(&cfg)
			}
			now := c.now
			if now.IsZero() {
				now = noon
			}
			s, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			sub, inv := wheel(t, s, "pip", "18.1")
			err = s.Start(t.Context(), now)
			if left, lerr := os.ReadDir(cfg.Scratch); lerr != nil || len(left) != 0 {
				t.Errorf("the scratch folder holds %v (%v), want nothing", left, lerr)
			}
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := ids(judge(t, s, sub, inv)); !slices.Equal(got, []string{"vulnerability CVE-2019-20916"}) {
					t.Errorf("findings %v", got)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			} else if !errors.Is(err, scan.ErrEngine) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), cfg.Database) {
				t.Fatalf("Start = %v, want ErrEngine with %q and the folder", err, c.want)
			}
			if list, err := s.Judge(t.Context(), sub, inv); !errors.Is(err, scan.ErrEngine) || list != nil {
				t.Errorf("without a database Judge = %v, %v, want ErrEngine", list, err)
			}
			if e := s.Engine(); !e.Database.IsZero() {
				t.Errorf("engine %+v names a database", e)
			}
		})
	}
}

// Damage below what Start looks at: nothing is clean that was not compared.
func TestDamageIsFoundWhileJudging(t *testing.T) {
	dir := databaseCopy(t)
	rewrite(t, dir, dbFile, func(b []byte) []byte {
		at := bytes.Index(b, []byte(`{"FixedVersion":"1.20.1-2+deb12u4"`))
		if at < 0 {
			at = bytes.Index(b, []byte(`"1.20.1-2+deb12u4"`)) - 1
		}
		b[at] = '#'
		return b
	})
	s := newScanner(t, func(c *Config) { c.Database = dir })
	sub, inv := image(gather(t, s, osRelease, "l", "etc/os-release"), gather(t, s, krb5, "l", "var/lib/dpkg/status"))
	if list, err := s.Judge(t.Context(), sub, inv); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("Judge = %v, %v, want ErrEngine", list, err)
	}
}

func TestPanicsAndFaultsAreErrors(t *testing.T) {
	err := safely(func() error { panic("page 7: invalid") })
	if err == nil || !strings.Contains(err.Error(), "page 7") {
		t.Errorf("a panic: %v", err)
	}
	if err := safely(func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestEngineTellsWhatItComparesWith(t *testing.T) {
	s := newScanner(t)
	want := scan.Engine{Name: "trivy", Version: "0.74.0", Database: fixtureDigest(t), Dated: noon.Add(-time.Hour), Settings: settings}
	if diff := cmp.Diff(want, s.Engine()); diff != "" {
		t.Errorf("engine (-want +got):\n%s", diff)
	}
}

// The database stays as it was opened, whatever becomes of the folder.
func TestOpenDatabaseIsPrivate(t *testing.T) {
	dir := databaseCopy(t)
	s := newScanner(t, func(c *Config) { c.Database = dir })
	rewrite(t, dir, dbFile, func(b []byte) []byte { return bytes.Repeat([]byte{0}, len(b)) })
	sub, inv := wheel(t, s, "pip", "18.1")
	if got := ids(judge(t, s, sub, inv)); !slices.Equal(got, []string{"vulnerability CVE-2019-20916"}) {
		t.Errorf("findings %v", got)
	}
}

func TestOnlyTheLastStartedJudges(t *testing.T) {
	first := newScanner(t)
	second := newScanner(t)
	sub, inv := wheel(t, first, "pip", "18.1")
	if _, err := first.Judge(t.Context(), sub, inv); !errors.Is(err, scan.ErrEngine) {
		t.Errorf("the first: %v, want ErrEngine", err)
	}
	if got := len(judge(t, second, sub, inv)); got != 1 {
		t.Errorf("the second found %d, want 1", got)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if got := len(judge(t, second, sub, inv)); got != 1 {
		t.Errorf("after the first was closed: %d, want 1", got)
	}
}

// S19: sixty artifacts at once, and the database swapped under them.
func TestParallelJudgesAndSwap(t *testing.T) {
	s := newScanner(t)
	sub, inv := wheel(t, s, "pip", "18.1")
	isub, iinv := image(gather(t, s, osRelease, "l", "etc/os-release"), gather(t, s, krb5, "l", "var/lib/dpkg/status"))
	want, iwant := judge(t, s, sub, inv), judge(t, s, isub, iinv)
	if len(want) != 1 || len(iwant) != 2 {
		t.Fatalf("findings %v and %v", want, iwant)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 200)
	for i := range 60 {
		wg.Go(func() {
			for range 3 {
				sub, inv, want := sub, inv, want
				if i%2 == 0 {
					sub, inv, want = isub, iinv, iwant
				}
				got, err := s.Judge(t.Context(), sub, inv)
				if err == nil && !cmp.Equal(want, got) {
					err = fmt.Errorf("findings differ: %s", cmp.Diff(want, got))
				}
				if err != nil {
					errs <- err
				}
			}
		})
	}
	for i := range 5 {
		wg.Go(func() {
			if err := s.Start(t.Context(), noon.Add(time.Duration(i+1)*time.Second)); err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	s, err := New(Config{Database: fixture, Scratch: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Start(ctx, noon); !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want context.Canceled", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"relative folder":        {Database: "db", Scratch: "/tmp"},
		"relative scratch":       {Database: "/db"},
		"digest of nothing":      {Digest: artifact.Sum(nil)},
		"negative age":           {MaxAge: -1},
		"a VEX document missing": {VEX: []string{filepath.Join(t.TempDir(), "none.json")}},
	} {
		if s, err := New(c); err == nil {
			t.Errorf("%s: %+v, want an error", name, s)
		}
	}
}
