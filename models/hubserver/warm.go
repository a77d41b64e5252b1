package hubserver

import (
	"context"
	"log/slog"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
)

// warmEvery is how often Warm looks for a new publication.
const warmEvery = time.Second

// Warm verifies what is published before anybody asks for it, one blob after
// another, and again what each import brings, until ctx ends. The first
// download of a file that no process has verified yet waits until all of it
// was hashed, and clients do not wait for ever: huggingface_hub gives up
// after ten seconds.
func (h *Handler) Warm(ctx context.Context) {
	var last *view
	for {
		if v := h.current(); v != last {
			last = v
			h.warm(ctx, v)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(warmEvery):
		}
	}
}

func (h *Handler) warm(ctx context.Context, v *view) {
	began := time.Now()
	var bytes int64
	seen := make(map[artifact.Digest]bool)
	for f := range v.files {
		if seen[f.Blob] {
			continue
		}
		seen[f.Blob] = true
		if ctx.Err() != nil {
			return
		}
		b, err := h.store.File(f.Blob)
		if err != nil {
			h.log.ErrorContext(ctx, "published file cannot be served", slog.String("path", f.Path), slog.Any("error", err))
			continue
		}
		_ = b.Close() // opened for reading; nothing can be lost
		bytes += f.Size
	}
	h.log.InfoContext(ctx, "all that is published was verified", slog.Int("blobs", len(seen)), slog.Int64("bytes", bytes), slog.Duration("took", time.Since(began)))
}

// files calls yield for each file, those that branches stand for first.
func (v *view) files(yield func(*models.File) bool) {
	for _, branches := range []bool{true, false} {
		for _, name := range v.names {
			for _, s := range v.repos[name] {
				for _, r := range s.revisions {
					if branches != (len(r.Refs) > 0) {
						continue
					}
					for i := range r.Files {
						if !yield(&r.Files[i]) {
							return
						}
					}
				}
			}
		}
	}
}
