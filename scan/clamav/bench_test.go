package clamav

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/scan/walk"
)

// sample reads files of a folder, at most so many bytes of them: small and
// larger ones as they come, as a wheel's entries do.
func sample(b *testing.B, dir string, most int64) (files []*walk.File, total int64) {
	b.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || total >= most {
			return err
		}
		body, err := os.ReadFile(path)
		if err == nil && len(body) > 0 {
			files = append(files, walk.NewFile(walk.Data, body, path))
			total += int64(len(body))
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	if len(files) == 0 {
		b.Fatalf("%s holds no files", dir)
	}
	return files, total
}

// BenchmarkClamd sends the files of DARKMIRROR_BENCH_FILES, a folder, to a real
// clamd whose cache is off: by connections, kept open or made anew for each file.
func BenchmarkClamd(b *testing.B) {
	dir := os.Getenv("DARKMIRROR_BENCH_FILES")
	if dir == "" {
		b.Skip("DARKMIRROR_BENCH_FILES names no folder")
	}
	files, total := sample(b, dir, 256<<20)
	c := startClamd(b, "DisableCache yes\n")
	for _, kept := range []bool{true, false} {
		for _, n := range []int{1, 2, 4, 8} {
			how := "kept"
			if !kept {
				how = "one-a-file"
			}
			b.Run(fmt.Sprintf("%s/connections=%d", how, n), func(b *testing.B) {
				s := scanner(b, Config{Socket: c.socket, Database: c.database, Connections: n})
				if err := s.Start(b.Context(), time.Now()); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(total)
				for b.Loop() {
					var g errgroup.Group
					g.SetLimit(n)
					for _, f := range files {
						g.Go(func() error {
							list, err := s.Inspect(b.Context(), f)
							if !kept {
								_ = s.Close() // gives up the connections that wait
							}
							if err == nil && len(list) > 0 {
								err = fmt.Errorf("%s: %+v", f.Name(), list)
							}
							return err
						})
					}
					if err := g.Wait(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(files)), "files")
			})
		}
	}
}
