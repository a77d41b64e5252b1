package pypi

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/darkmirror/darkmirror/internal/strictzip"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

const (
	// maxRecord bounds RECORD; a line for each of 20,000 files is 4 MiB.
	maxRecord = 64 << 20
	// maxWheelFile bounds the WHEEL file, which has a few lines of tags.
	maxWheelFile = 1 << 20
)

// A Checked is what a check found in an archive.
type Checked struct {
	// Metadata is the METADATA file of a wheel, byte for byte; nil for a
	// source archive, whose metadata may change when it is built.
	Metadata       []byte
	RequiresPython string
	// metadata is METADATA, or the PKG-INFO of a source archive; build is the
	// pyproject.toml of one that has it.
	metadata, build []byte
	// unlike are files of a wheel that RECORD contradicts without their being
	// read.
	unlike []string
}

// CheckFile checks a wheel or a source archive strictly against its
// filename. Every error is an ErrIntegrity refusal, or an error of src.
func CheckFile(filename string, src io.ReaderAt, size int64) (*Checked, error) {
	var c *Checked
	var err error
	r := &watched{ReaderAt: src}
	code := "PYPI-WHEEL"
	if packaging.IsWheel(filename) {
		c, err = CheckWheel(filename, r, size)
	} else {
		code = "PYPI-SDIST"
		c, err = CheckSdist(filename, r, size)
	}
	if r.err != nil {
		return nil, fmt.Errorf("read %s: %w", clip(filename), r.err)
	}
	if err != nil {
		return nil, &artifact.Refusal{Class: artifact.ErrIntegrity, Code: code, Subject: clip(filename), Reason: "not a valid archive of that name", Err: err}
	}
	return c, nil
}

// watched remembers an error of the disk, which says nothing of the archive.
type watched struct {
	io.ReaderAt
	err error
}

// ReadAt passes on.
func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.ReaderAt.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// CheckWheel checks a wheel:
//   - the ZIP archive can be read in one way only (see package strictzip),
//     with safe, unique names and within limits;
//   - there is one *.dist-info folder, of the filename's project and version,
//     with METADATA, WHEEL and RECORD;
//   - METADATA agrees with the filename;
//   - RECORD names nothing outside the wheel, and nothing twice;
//   - the commands of entry_points.txt are filenames.
//
// It unpacks those four files only. Whether the rest is what upstream
// offered, the digest says.
func CheckWheel(filename string, r io.ReaderAt, size int64) (*Checked, error) {
	name, err := packaging.ParseWheelName(filename)
	if err != nil {
		return nil, err
	}
	z, err := strictzip.Open(r, size, strictzip.Options{})
	if err != nil {
		return nil, err
	}
	info, err := distInfo(z, name)
	if err != nil {
		return nil, err
	}
	text, err := readNamed(z, info+"/METADATA", packaging.MaxMetadata)
	if err != nil {
		return nil, err
	}
	m, err := packaging.ParseMetadata(text)
	if err != nil {
		return nil, fmt.Errorf("METADATA: %w", err)
	}
	if m.Name != name.Project || m.Version.Compare(name.Version) != 0 {
		return nil, fmt.Errorf("METADATA is of %s %s", m.Name, m.Version)
	}
	if err := checkWheelFile(z, info); err != nil {
		return nil, fmt.Errorf("WHEEL: %w", err)
	}
	if err := checkScripts(z, info); err != nil {
		return nil, err
	}
	lines, err := readRecord(z, info)
	if err != nil {
		return nil, fmt.Errorf("RECORD: %w", err)
	}
	return &Checked{Metadata: text, RequiresPython: m.RequiresPython, metadata: text, unlike: unlike(z, info, lines)}, nil
}

// distInfo finds the only *.dist-info folder and compares its name.
func distInfo(z *strictzip.Archive, want packaging.WheelName) (string, error) {
	found := ""
	for i := range z.Entries {
		top, _, _ := strings.Cut(z.Entries[i].Name, "/")
		if !strings.HasSuffix(strings.ToLower(top), ".dist-info") || top == found {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("two .dist-info folders, %q and %q", clip(found), clip(top))
		}
		found = top
	}
	if found == "" {
		return "", errors.New("no .dist-info folder")
	}
	name, version, ok := strings.Cut(strings.TrimSuffix(found, ".dist-info"), "-")
	if !ok {
		return "", fmt.Errorf("malformed folder name %q", clip(found))
	}
	project, err := packaging.NormalizeName(name)
	if err != nil {
		return "", fmt.Errorf("folder %q: %w", clip(found), err)
	}
	v, err := packaging.ParseVersion(version)
	if err != nil {
		return "", fmt.Errorf("folder %q: %w", clip(found), err)
	}
	if project != want.Project || v.Compare(want.Version) != 0 {
		return "", fmt.Errorf("%q is of another project or version", clip(found))
	}
	return found, nil
}

func readNamed(z *strictzip.Archive, name string, limit int64) ([]byte, error) {
	e, ok := z.Find(name)
	if !ok {
		return nil, fmt.Errorf("no %q", clip(name))
	}
	return z.ReadAll(e, limit)
}

func checkWheelFile(z *strictzip.Archive, info string) error {
	b, err := readNamed(z, info+"/WHEEL", maxWheelFile)
	if err != nil {
		return err
	}
	version := ""
	err = packaging.EachHeader(b, func(key, value string) error {
		if key != "wheel-version" {
			return nil
		}
		if version != "" {
			return errors.New("Wheel-Version twice")
		}
		version = value
		return nil
	})
	if err != nil {
		return err
	}
	if major, _, _ := strings.Cut(version, "."); major != "1" && major != "0" {
		return fmt.Errorf("Wheel-Version %q is not known", clip(version))
	}
	return nil
}
