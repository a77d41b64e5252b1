package modelpack

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/oci"
)

const (
	// root is the folder in an image where KServe looks for files.
	root = "models"
	// aliasPrefix begins the name under which the store remembers a layer. It
	// changes with the way in which layers are written.
	aliasPrefix = "modelcar-1-"
	// copyBuffer is what one copy holds; see the store's.
	copyBuffer = 256 << 10

	folderMode = 0o755
)

// A layer is some files of a model, sorted by path, as a tar.
type layer []models.File

// alias is the same for layers that are the same.
func (l layer) alias() string {
	h := sha256.New()
	for _, f := range l {
		_, _ = fmt.Fprintf(h, "%s %s\x00", f.Blob, f.Path) // hash.Hash never fails; no path has a NUL
	}
	return aliasPrefix + hex.EncodeToString(h.Sum(nil))
}

// materialise puts a layer into the store, unless it is there. Its bytes are
// made twice, since the store wants to know beforehand what it gets: a run
// that is killed then leaves only what the store sweeps by itself.
func (t *Target) materialise(ctx context.Context, l layer) (oci.MadeBlob, error) {
	alias := l.alias()
	size, err := l.size()
	if err != nil {
		return oci.MadeBlob{}, err
	}
	if d, ok := t.st.Alias(alias); ok {
		if n, err := t.st.Size(d); err == nil && n == size {
			return oci.MadeBlob{Digest: d, Size: size}, nil
		}
	}
	t.log.InfoContext(ctx, "a layer is made", slog.String("source", t.o.Source), slog.String("first", l[0].Path), slog.Int64("bytes", size))
	h := sha256.New()
	if err := l.write(ctx, h, t.st); err != nil {
		return oci.MadeBlob{}, err
	}
	b := oci.MadeBlob{Digest: artifact.Digest(h.Sum(nil)), Size: size}
	if err := l.put(ctx, b, t.st); err != nil {
		return b, err
	}
	failpoint.Here("models.modelpack-layer")
	if err := t.st.SetAlias(alias, b.Digest); err != nil {
		return b, err
	}
	failpoint.Here("models.modelpack-alias")
	return b, nil
}

func (l layer) put(ctx context.Context, b oci.MadeBlob, st *store.Store) error {
	r, w := io.Pipe()
	var g errgroup.Group
	g.Go(func() error { return w.CloseWithError(l.write(ctx, w, st)) })
	err := st.Put(ctx, r, b.Digest, b.Size)
	return errors.Join(err, r.Close(), g.Wait()) // closed, the pipe takes no more
}

// entries calls yield for every entry of the tar, folders before what lies in
// them, with the file if it is one. Owner, time and modes are always the same.
func (l layer) entries(yield func(*tar.Header, *models.File) error) error {
	made := make(map[string]bool)
	for i := range l {
		name := path.Join(root, l[i].Path)
		for _, dir := range folders(name) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := yield(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: folderMode, ModTime: epoch}, nil); err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
		}
		if err := yield(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: fileMode, Size: l[i].Size, ModTime: epoch}, &l[i]); err != nil {
			return fmt.Errorf("%s: %w", l[i].Path, err)
		}
	}
	return nil
}

// size is the length of the tar: files fill whole blocks, and two empty ones
// end it.
func (l layer) size() (int64, error) {
	const block = 512
	var n counter
	err := l.entries(func(h *tar.Header, _ *models.File) error {
		err := tar.NewWriter(&n).WriteHeader(h)
		n += counter((h.Size + block - 1) / block * block)
		return err
	})
	return int64(n) + 2*block, err
}

// write makes the tar.
func (l layer) write(ctx context.Context, w io.Writer, st *store.Store) error {
	tw := tar.NewWriter(w)
	buf := make([]byte, copyBuffer)
	err := l.entries(func(h *tar.Header, f *models.File) error {
		if err := tw.WriteHeader(h); err != nil || f == nil {
			return err
		}
		return copyFile(ctx, tw, f, st, buf)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func copyFile(ctx context.Context, w io.Writer, f *models.File, st *store.Store, buf []byte) error {
	in, err := st.File(f.Blob)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()                       // only read
	_, err = io.CopyBuffer(w, &interruptible{ctx, in}, buf) // neither end knows a way around buf
	return err
}

// An interruptible reader ends with its context.
type interruptible struct {
	ctx context.Context // of one copy
	r   io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// A counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
