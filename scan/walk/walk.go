package walk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/darkmirror/darkmirror/internal/strictzip"
)

// errStop ends a walk that has told why.
var errStop = errors.New("stop")

// Walk visits a blob and everything in it, in order: a container before its
// entries, these as they lie in it. It calls visit in one goroutine; the file
// is held during the call and released after it, so a visitor that hands it
// to another goroutine calls [File.Retain] before it returns. The bytes of
// what is held stay readable after Walk has ended, as long as r can be read.
//
// What is wrong with archives, and what was not looked at, is in the result.
// The error is one of reading r, of the scratch folder, of the context, or
// visit's own.
func Walk(ctx context.Context, name string, r io.ReaderAt, size int64, o Options, visit func(*File) error) (*Result, error) {
	w := &walker{
		ctx: ctx, o: o.filled(), visit: visit, size: size, res: &Result{}, told: make(map[told]*tally),
		tools: toolbox.Get().(*tools), // the pool holds nothing else
	}
	defer w.tools.putBack()
	root := &File{Path: []string{name}, Size: size, content: w.watch(r, size)}
	root.holders.Store(1)
	if err := w.file(root, place{tree: o.FileSystem}, checks{}); err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	w.finish()
	return w.res, nil
}

// A walker is one walk. It works in one goroutine.
type walker struct {
	ctx   context.Context // a walker lives as long as one call
	o     Options
	visit func(*File) error
	res   *Result
	told  map[told]*tally
	tools *tools
	disk  fault

	size     int64 // of the blob
	entries  int   // of all containers
	unpacked int64 // bytes that were decompressed
	held     int64 // memory that open archives hold
}

// A place is where a file lies.
type place struct {
	depth int  // containers around it
	tree  bool // it is a file system, whatever it is packed in
	below bool // it lies in a file system
	tar   bool // it is a tree's archive, whatever it is packed in: part of a .deb
}

// in is the place of an ordinary archive's entries.
func (p place) in() place { return place{depth: p.depth + 1, below: p.below || p.tree} }

// within is the place of what a compressed file holds.
func (p place) within() place { p.depth++; return p }

// checks say what is known of a file's bytes.
type checks struct {
	digested bool // the digest is there
	crc      bool // sum is to be compared
	sum      uint32
	of       place // the container's, which says what sum is
}

// An opened container has entries to walk. Either walk or drop is called.
type opened struct {
	walk func() error
	drop func() error // nil if there is nothing to let go
}

// file finishes a file, visits it, and walks its entries. It takes over the
// caller's hold.
func (w *walker) file(f *File, p place, c checks) (err error) {
	defer func() { err = errors.Join(err, f.Release()) }()
	if err := w.ctx.Err(); err != nil {
		return context.Cause(w.ctx)
	}
	var in *opened
	if f.Regular() {
		if err := w.examine(f, p, c); err != nil {
			return err
		}
		if in, err = w.open(f, p); err != nil {
			return err
		}
	}
	f.Opened = in != nil
	w.res.Files++
	w.res.Bytes += f.Size
	if err := w.visit(f); err != nil {
		if in != nil && in.drop != nil {
			err = errors.Join(err, in.drop())
		}
		return err
	}
	if in == nil {
		return nil
	}
	return in.walk()
}

// open opens a container; nil is a file that is none, or that cannot be
// opened, which was told then.
func (w *walker) open(f *File, p place) (*opened, error) {
	zipEnd := false
	if !f.Kind.container() {
		if zipEnd = w.endsAsZip(f); !zipEnd {
			if p.tar {
				w.notScanned(CodeMethod, f.Path, "this part of the package is no archive that can be read")
			}
			return nil, w.disk.get()
		}
	}
	if p.depth >= w.o.Limits.Depth {
		w.notScanned(CodeDepth, f.Path, "more than %d containers in each other; what is in this one was not looked at", w.o.Limits.Depth)
		return nil, nil
	}
	switch {
	case f.Kind == Zip || zipEnd:
		return w.openZip(f, p)
	case f.Kind == Tar:
		return w.openTar(f, p)
	case f.Kind == Ar:
		return w.openAr(f, p)
	case f.Kind == SevenZip:
		return w.openSeven(f, p)
	}
	return w.openStream(f, p)
}

func (k Kind) container() bool {
	switch k {
	case Zip, Tar, Ar, SevenZip, Gzip, Bzip2, XZ, Zstd, LZ4:
		return true
	}
	return false
}

// count counts one entry of f. At the limit it tells and ends the walk: no
// other container may have entries either.
func (w *walker) count(f *File) error {
	if w.entries++; w.entries <= w.o.Limits.Entries {
		return nil
	}
	w.notScanned(CodeEntries, f.Path, "more than %d entries; the rest of the blob was not looked at", w.o.Limits.Entries)
	return errStop
}

// entry is a file that lies in parent, without bytes yet.
func (w *walker) entry(parent *File, name string, mode fs.FileMode) *File {
	f := &File{Path: append(slices.Clip(parent.Path), name), Mode: mode}
	f.holders.Store(1)
	return f
}

// section gives f bytes of its parent.
func section(f, parent *File, off, size int64) {
	r, base := parent.content, int64(0)
	if s, ok := r.(*io.SectionReader); ok {
		r, base, _ = s.Outer()
	}
	parent.Retain()
	f.parent, f.content, f.Size = parent, io.NewSectionReader(r, base+off, size), size
}

// told is what problems are counted by.
type told struct {
	code       string
	severity   string
	notScanned bool
}

// A tally is how often something was told, and where the last of it stands.
type tally struct{ n, last int }

// problem tells of a defect of an archive.
func (w *walker) problem(code string, p place, path []string, format string, args ...any) {
	severity := severityHigh
	if p.below {
		severity = severityLow
	}
	w.tell(Problem{Code: code, Path: path, Severity: severity}, format, args...)
}

// notScanned tells of something that was not looked at.
func (w *walker) notScanned(code string, path []string, format string, args ...any) {
	w.tell(Problem{Code: code, Path: path, Severity: severityHigh, NotScanned: true}, format, args...)
}

func (w *walker) tell(pr Problem, format string, args ...any) {
	key := told{pr.Code, pr.Severity, pr.NotScanned}
	t := w.told[key]
	if t == nil {
		t = &tally{}
		w.told[key] = t
	}
	if t.n++; t.n > maxPerCode {
		return
	}
	pr.Text = clip(fmt.Sprintf(format, args...), maxProblemText)
	pr.Path = slices.Clone(pr.Path)
	for i := range pr.Path {
		pr.Path[i] = clip(pr.Path[i], maxName)
	}
	t.last = len(w.res.Problems)
	w.res.Problems = append(w.res.Problems, pr)
}

// finish says how many problems were not told one by one.
func (w *walker) finish() {
	for _, t := range w.told {
		if t.n > maxPerCode {
			w.res.Problems[t.last].Text += fmt.Sprintf(" (and %d more of this kind)", t.n-maxPerCode)
		}
	}
}

// clip shortens outside text.
func clip(s string, most int) string {
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// A flaw is why an archive or a stream cannot be read as it should.
type flaw struct {
	code       string
	text       string
	notScanned bool
	stop       bool // nothing more may be unpacked at all
}

func (f *flaw) Error() string { return f.text }

func malformed(format string, args ...any) *flaw {
	return &flaw{code: CodeMalformed, text: fmt.Sprintf(format, args...)}
}

// asFlaw makes a flaw of an error of a library that reads an archive.
func asFlaw(err error) *flaw {
	if fl, ok := errors.AsType[*flaw](err); ok {
		return fl
	}
	if d, ok := errors.AsType[*strictzip.Defect](err); ok {
		return fromDefect(d)
	}
	return malformed("%v", err)
}

// flawed tells a flaw and returns any other error. path is of the container,
// or of the entry.
func (w *walker) flawed(err error, p place, path []string) error {
	if h, ok := errors.AsType[*hostError](err); ok {
		return h.error
	}
	fl, ok := errors.AsType[*flaw](err)
	if !ok {
		return err
	}
	if derr := w.disk.get(); derr != nil {
		return derr // no verdict on the archive
	}
	if fl.notScanned {
		w.notScanned(fl.code, path, "%s", fl.text)
	} else {
		w.problem(fl.code, p, path, "%s", fl.text)
	}
	if fl.stop {
		return errStop
	}
	return nil
}
