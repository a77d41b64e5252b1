package apt

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/ulikunitz/xz"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// writerDict is the dictionary of the xz files that we write. A subset's index
// is small, and the writer keeps several times as much.
const writerDict = 1 << 20

// A builtSuite is a suite whose index objects lie in by-hash, ready to become
// the published state.
type builtSuite struct {
	upstream *Release
	arches   []string
	comps    []string
	files    []builtFile // sorted by name
	record   publishedSuite
}

// A builtFile is one index under its canonical name.
type builtFile struct {
	name   string // "main/binary-amd64/Packages.xz"
	digest artifact.Digest
	size   int64
}

// object is the file's place in by-hash.
func (f builtFile) object() string {
	return path.Join(path.Dir(f.name), "by-hash", "SHA256", f.digest.Hex())
}

func mapKeys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// build filters a suite's indices and writes the results into by-hash. No
// client asks for them yet.
func (p *Publisher) build(pr *proof, sel map[string]*selected, proofs []*proof) (*builtSuite, error) {
	b := &builtSuite{upstream: pr.release, arches: archesOf(pr, proofs)}
	dir := p.inTree(pr.path)
	for _, ix := range pr.indices {
		if !slices.Contains(b.comps, ix.name.component) {
			b.comps = append(b.comps, ix.name.component)
		}
	}
	slices.Sort(b.comps)
	for _, comp := range b.comps {
		for _, arch := range b.arches {
			files, err := p.buildIndex(dir, pr, sel, indexName{comp, arch})
			if err != nil {
				return nil, err
			}
			b.files = append(b.files, files...)
		}
	}
	slices.SortFunc(b.files, func(x, y builtFile) int { return strings.Compare(x.name, y.name) })
	for _, f := range b.files {
		b.record.Objects = append(b.record.Objects, f.object())
	}
	b.record.Path = pr.path
	b.record.Body = artifact.Sum(b.releaseText(time.Unix(0, 0), p.cfg.ValidFor))
	return b, nil
}

// archesOf are the architectures that a suite is published for. Packages of
// "all" are merged into each, as upstream's own layout does.
func archesOf(pr *proof, proofs []*proof) []string {
	collect := func(proofs []*proof) (arches []string) {
		for _, q := range proofs {
			for _, ix := range q.indices {
				if ix.name.arch != "all" && !slices.Contains(arches, ix.name.arch) {
					arches = append(arches, ix.name.arch)
				}
			}
		}
		slices.Sort(arches)
		return arches
	}
	if own := collect([]*proof{pr}); len(own) > 0 {
		return own
	}
	return collect(proofs)
}

// buildIndex writes one filtered index in its three forms.
func (p *Publisher) buildIndex(dir string, pr *proof, sel map[string]*selected, n indexName) (_ []builtFile, err error) {
	objects := filepath.Join(dir, filepath.FromSlash(n.dir()), "by-hash", "SHA256")
	if err := os.MkdirAll(objects, 0o755); err != nil { // #nosec G301 -- clients read it
		return nil, err
	}
	for _, d := range []string{dir, filepath.Join(dir, filepath.FromSlash(n.dir())), objects} {
		if err := durable.Sweep(d); err != nil {
			return nil, err
		}
	}
	w, err := newIndexWriter(objects)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.discard()) }()
	written := make(map[string]bool)
	for _, ix := range pr.indices {
		if ix.name.component != n.component || ix.name.arch != n.arch && ix.name.arch != "all" {
			continue
		}
		err := p.match(pr, ix, sel, func(rec *record) error {
			if written[rec.filename] {
				return nil
			}
			written[rec.filename] = true
			return w.add(rec.st.raw)
		})
		if err != nil {
			return nil, err
		}
	}
	return w.finish(n)
}

// An indexWriter writes a Packages text plain, gzipped and as xz at once.
type indexWriter struct {
	dir   string
	forms []*indexForm
	all   io.Writer
}

// An indexForm is one of them: a temporary file and what goes into it.
type indexForm struct {
	ext  string
	file *os.File
	h    hash.Hash
	n    int64
	z    io.WriteCloser // nil for the plain form
}

func (f *indexForm) Write(b []byte) (int, error) {
	n, err := f.file.Write(b)
	f.h.Write(b[:n])
	f.n += int64(n)
	return n, err
}

func newIndexWriter(dir string) (_ *indexWriter, err error) {
	w := &indexWriter{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.discard())
		}
	}()
	var outs []io.Writer
	for _, ext := range []string{"", ".gz", ".xz"} {
		file, err := os.CreateTemp(dir, durable.TempPrefix)
		if err != nil {
			return nil, err
		}
		f := &indexForm{ext: ext, file: file, h: sha256.New()}
		w.forms = append(w.forms, f)
		switch ext {
		case ".gz":
			f.z, err = gzip.NewWriterLevel(f, gzip.BestCompression)
		case ".xz":
			f.z, err = xz.WriterConfig{DictCap: writerDict}.NewWriter(f)
		}
		if err != nil {
			return nil, err
		}
		if f.z != nil {
			outs = append(outs, f.z)
		} else {
			outs = append(outs, f)
		}
	}
	failpoint.Here("apt.byhash-temp")
	w.all = io.MultiWriter(outs...)
	return w, nil
}

// add appends a stanza, its bytes unchanged, and an empty line. The last one
// has that line too: debootstrap overlooks a stanza that ends with the file.
func (w *indexWriter) add(raw []byte) error {
	end := "\n"
	if !bytes.HasSuffix(raw, []byte("\n")) { // the last line of upstream's file
		end = "\n\n"
	}
	if _, err := w.all.Write(raw); err != nil {
		return err
	}
	_, err := io.WriteString(w.all, end)
	return err
}

// finish gives each form its name in by-hash.
func (w *indexWriter) finish(n indexName) ([]builtFile, error) {
	var files []builtFile
	for _, f := range w.forms {
		if f.z != nil {
			if err := f.z.Close(); err != nil {
				return nil, err
			}
		}
		b := builtFile{name: n.dir() + "/Packages" + f.ext, size: f.n}
		f.h.Sum(b.digest[:0])
		object := filepath.Join(w.dir, b.digest.Hex())
		if !fileIs(object, b.digest) {
			if err := errors.Join(f.file.Chmod(0o644), f.file.Sync()); err != nil {
				return nil, err
			}
			failpoint.Here("apt.byhash-written")
			if err := os.Rename(f.file.Name(), object); err != nil {
				return nil, err
			}
			failpoint.Here("apt.byhash")
		}
		files = append(files, b)
	}
	return files, durable.SyncDir(w.dir)
}

// discard closes the temporary files and removes those that got no name.
func (w *indexWriter) discard() error {
	var all error
	for _, f := range w.forms {
		all = errors.Join(all, f.file.Close())
		if err := os.Remove(f.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// fileIs reports whether a file holds just these bytes.
func fileIs(name string, d artifact.Digest) bool {
	f, err := os.Open(name) // #nosec G304 -- a name that we made
	if err != nil {
		return false
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	return errors.Join(err, f.Close()) == nil && artifact.Digest(h.Sum(nil)) == d
}

// canonical makes the canonical names refer to the by-hash objects.
func (b *builtSuite) canonical(dir string) error {
	for _, f := range b.files {
		name := filepath.Join(dir, filepath.FromSlash(f.name))
		object := filepath.Join(dir, filepath.FromSlash(f.object()))
		of, err := os.Stat(object)
		if err != nil {
			return err
		}
		if nf, err := os.Stat(name); err == nil && os.SameFile(of, nf) {
			continue
		}
		temp := filepath.Join(filepath.Dir(name), durable.TempPrefix+f.digest.Short())
		if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Link(object, temp); err != nil {
			return err
		}
		failpoint.Here("apt.canonical-linked")
		if err := os.Rename(temp, name); err != nil {
			return err
		}
		failpoint.Here("apt.canonical")
		if err := durable.SyncDir(filepath.Dir(name)); err != nil {
			return err
		}
	}
	return nil
}

// releaseText writes our Release: upstream's identity, our times and files.
// Upstream's Signed-By, Snapshots and Changelogs would send clients to
// upstream, so they are left out or negated.
func (b *builtSuite) releaseText(date time.Time, validFor time.Duration) []byte {
	var out bytes.Buffer
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&out, "%s: %s\n", name, value)
		}
	}
	up := b.upstream
	line("Origin", up.Origin)
	line("Label", up.Label)
	line("Suite", up.Suite)
	line("Version", up.Version)
	line("Codename", up.Codename)
	line("Changelogs", "no")
	line("Date", formatDate(date))
	if validFor > 0 {
		line("Valid-Until", formatDate(date.Add(validFor)))
	}
	if up.NotAutomatic {
		line("NotAutomatic", "yes")
	}
	if up.ButAutomaticUpgrades {
		line("ButAutomaticUpgrades", "yes")
	}
	line("Acquire-By-Hash", "yes")
	line("No-Support-for-Architecture-all", "Packages")
	line("Architectures", strings.Join(append([]string{"all"}, b.arches...), " "))
	line("Components", strings.Join(b.comps, " "))
	out.WriteString("SHA256:\n")
	for _, f := range b.files {
		fmt.Fprintf(&out, " %s %d %s\n", f.digest.Hex(), f.size, f.name)
	}
	return out.Bytes()
}
