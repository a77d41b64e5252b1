package clamav

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// data is what a folder of signature files says of itself.
type data struct {
	digest artifact.Digest // over the files' names and digests
	dated  time.Time       // of the newest file
}

// cvdHeader is the length of the header of .cvd and .cld files: fields with
// colons between them, filled up with spaces.
const cvdHeader = 512

// suffixes are the kinds of files that ClamAV loads; others in the folder, as
// freshclam's own, are not signatures.
var suffixes = []string{
	".cvd", ".cld", ".cud", ".hdb", ".hsb", ".hdu", ".hsu", ".mdb", ".msb", ".mdu", ".msu", ".ndb", ".ndu", ".ldb", ".ldu",
	".yar", ".yara", ".db", ".fp", ".sfp", ".ign", ".ign2", ".cdb", ".cbc", ".pdb", ".gdb", ".wdb", ".crb", ".idb", ".ftm", ".cfg", ".info",
}

// readData digests and dates a folder; none is empty data.
func readData(dir string) (data, error) {
	if dir == "" {
		return data{}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return data{}, err
	}
	var d data
	h := sha256.New()
	n := 0
	for _, e := range entries { // sorted by name
		if !e.Type().IsRegular() || !slices.Contains(suffixes, filepath.Ext(e.Name())) {
			continue
		}
		sum, dated, err := readSignatures(filepath.Join(dir, e.Name()))
		if err != nil {
			return data{}, err
		}
		n++
		// A hash does not fail.
		_, _ = fmt.Fprintf(h, "%s  %s\n", hex.EncodeToString(sum[:]), e.Name())
		if dated.After(d.dated) {
			d.dated = dated
		}
	}
	if n == 0 {
		return data{}, fmt.Errorf("%s: no signature file is in it: %w", dir, fs.ErrNotExist)
	}
	d.digest = artifact.Digest(h.Sum(nil))
	return d, nil
}

// readSignatures digests a file; its date is that of its header, or the
// file's own.
func readSignatures(name string) (sum artifact.Digest, dated time.Time, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, dated, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return sum, dated, err
	}
	dated = info.ModTime()
	h := sha256.New()
	if ext := filepath.Ext(name); ext == ".cvd" || ext == ".cld" {
		head := make([]byte, cvdHeader)
		if _, err := io.ReadFull(f, head); err != nil {
			return sum, dated, fmt.Errorf("%s: no header: %w", name, err)
		}
		if dated, err = parseHeader(string(head)); err != nil {
			return sum, dated, fmt.Errorf("%s: %w", name, err)
		}
		h.Write(head)
	}
	if _, err := io.Copy(h, f); err != nil {
		return sum, dated, err
	}
	return artifact.Digest(h.Sum(nil)), dated, nil
}

// parseHeader reads
// ClamAV-VDB:TIME:VERSION:SIGNATURES:LEVEL:MD5:SIGNATURE:BUILDER:SECONDS.
func parseHeader(head string) (time.Time, error) {
	fields := strings.Split(strings.TrimRight(head, " \x00"), ":")
	if len(fields) < 8 || fields[0] != "ClamAV-VDB" {
		return time.Time{}, fmt.Errorf("header %s, want one of ClamAV-VDB", quote(head))
	}
	last := fields[len(fields)-1]
	if seconds, err := strconv.ParseInt(last, 10, 64); err == nil && seconds > 0 && len(fields) >= 9 {
		return time.Unix(seconds, 0), nil
	}
	// Older ones have the text alone: "07 Nov 2026 08-25 -0400".
	return time.Parse("02 Jan 2006 15-04 -0700", fields[1])
}
