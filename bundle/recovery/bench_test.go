package recovery

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// benchSize is the length of four volumes together.
const benchSize = 256 << 20

func benchBundle(b *testing.B) string {
	b.Helper()
	files := map[string]string{"bundle.dsse.json": string(noise(1, 20_000)), "volumes.json": string(noise(2, 9_000))}
	for i := range 4 {
		files[fmt.Sprintf("volumes/volume-%05d.tar", i+1)] = string(noise(byte(3+i), benchSize/4))
	}
	return fake(b, files)
}

// BenchmarkCreate makes 20 % of parity.
func BenchmarkCreate(b *testing.B) {
	dir := benchBundle(b)
	b.SetBytes(benchSize)
	for b.Loop() {
		if _, err := createWith(b.Context(), dir, Options{Percent: 20}, unsynced()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(filepath.Join(dir, recoveryDir)); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkCheck(b *testing.B) {
	dir := benchBundle(b)
	createFake(b, dir, Options{Percent: 20})
	b.SetBytes(benchSize)
	for b.Loop() {
		if st, err := Check(b.Context(), dir); err != nil || !st.Whole {
			b.Fatal(st, err)
		}
	}
}

// BenchmarkRepair brings back a volume, a quarter of the bundle.
func BenchmarkRepair(b *testing.B) {
	dir := benchBundle(b)
	createFake(b, dir, Options{Volumes: 1})
	if err := os.Remove(filepath.Join(dir, "volumes", "volume-00002.tar")); err != nil {
		b.Fatal(err)
	}
	out := b.TempDir()
	b.SetBytes(benchSize)
	for b.Loop() {
		if _, err := repairWith(b.Context(), out, unsynced(), []string{dir}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := os.RemoveAll(filepath.Join(out, filepath.Base(dir))); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
