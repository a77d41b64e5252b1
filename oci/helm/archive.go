package helm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// maxUnpacked bounds what a chart unpacks to. Helm reads no more either.
	maxUnpacked = 100 << 20
	// maxEntries bounds the entries of a chart. Charts of whole platforms,
	// with those they depend on, have a few thousand.
	maxEntries = 20_000
	// maxDocument bounds Chart.yaml and requirements.yaml. Annotations with a
	// change log make the largest: some 100 KiB.
	maxDocument = 1 << 20
)

// An archive holds what is needed of a chart's .tgz.
type archive struct {
	chart        []byte // Chart.yaml
	requirements []byte // requirements.yaml, or nil
}

// readArchive reads a chart whose files lie in the folder of that name.
func readArchive(chart []byte, name string) (*archive, error) {
	zr, err := gzip.NewReader(bytes.NewReader(chart))
	if err != nil {
		return nil, err
	}
	in := &bounded{r: zr, left: maxUnpacked}
	tr := tar.NewReader(in)
	var a archive
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n >= maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		if err := a.entry(h, tr, name); err != nil {
			return nil, err
		}
	}
	// What follows the tar is of no use, but gzip's checksum comes last.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, err
	}
	if a.chart == nil {
		return nil, fmt.Errorf("no %s/%s", clip(name), chartFile)
	}
	return &a, nil
}

// entry looks at one entry.
func (a *archive) entry(h *tar.Header, r io.Reader, name string) error {
	p := h.Name
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // "git archive" writes it; no file
		return nil
	case tar.TypeDir:
		p = strings.TrimSuffix(p, "/")
	case tar.TypeReg:
	default:
		return fmt.Errorf("entry %q: a link or a special file", clip(p))
	}
	if err := artifact.CheckPath(p); err != nil {
		return err
	}
	// Helm takes the first segment off, whatever it is: with two of them two
	// files would be Chart.yaml.
	inside, ok := strings.CutPrefix(p, name+"/")
	if !ok && (p != name || h.Typeflag != tar.TypeDir) {
		return fmt.Errorf("entry %q: outside of folder %s", clip(p), clip(name))
	}
	var into *[]byte
	switch inside {
	case chartFile:
		into = &a.chart
	case requirementsFile:
		into = &a.requirements
	default:
		return nil
	}
	if h.Typeflag != tar.TypeReg || *into != nil {
		return fmt.Errorf("entry %q: a folder, or there twice", clip(p))
	}
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return fmt.Errorf("entry %q: %w", clip(p), err)
	}
	if len(b) > maxDocument {
		return fmt.Errorf("entry %q: more than %d bytes", clip(p), maxDocument)
	}
	*into = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	return nil
}

// bounded reads so many bytes; more are an error, not an end.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, fmt.Errorf("unpacks to more than %d bytes", maxUnpacked)
	}
	return n, err
}
