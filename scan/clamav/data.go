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
	// number and built are of the official signatures of every day, which
	// ClamAV names in its version; zero if they are not there.
	number uint64
	built  time.Time
}

// cvdHeader is the length of the header of .cvd and .cld files: fields with
// colons between them, filled up with spaces.
const cvdHeader = 512

// suffixes are the kinds of files that ClamAV loads, as its library has them,
// whatever the case of their letters; others in the folder, as freshclam's
// own, are no signatures.
var suffixes = []string{
	".cat", ".cbc", ".cdb", ".cfg", ".cld", ".crb", ".cud", ".cvd", ".db", ".fp", ".ftm", ".gdb", ".hdb", ".hdu", ".hsb", ".hsu",
	".idb", ".ign", ".ign2", ".imp", ".info", ".ioc", ".ldb", ".ldu", ".mdb", ".mdu", ".msb", ".msu", ".ndb", ".ndu", ".pdb",
	".pwdb", ".rmd", ".sdb", ".sfp", ".wdb", ".yar", ".yara", ".zmd",
}

// containers are those of them that have a header.
var containers = []string{".cld", ".cud", ".cvd"}

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
		if !slices.Contains(suffixes, strings.ToLower(filepath.Ext(e.Name()))) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		// ClamAV follows links.
		info, err := os.Stat(path)
		if err != nil {
			return data{}, err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		f, err := readSignatures(path)
		if err != nil {
			return data{}, err
		}
		n++
		// A hash does not fail.
		_, _ = fmt.Fprintf(h, "%s  %s\n", hex.EncodeToString(f.sum[:]), e.Name())
		if f.dated.After(d.dated) {
			d.dated = f.dated
		}
		if strings.HasPrefix(e.Name(), "daily.") && f.head.number > d.number {
			d.number, d.built = f.head.number, f.head.built
		}
	}
	if n == 0 {
		return data{}, fmt.Errorf("%s: no signature file is in it: %w", dir, fs.ErrNotExist)
	}
	d.digest = artifact.Digest(h.Sum(nil))
	return d, nil
}

// A signatureFile is one file of a folder.
type signatureFile struct {
	sum   artifact.Digest
	dated time.Time // of its header, or else the file's own
	head  header    // of a container
}

func readSignatures(path string) (s signatureFile, err error) {
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	s.dated = info.ModTime()
	h := sha256.New()
	if slices.Contains(containers, strings.ToLower(filepath.Ext(path))) {
		head := make([]byte, cvdHeader)
		if _, err := io.ReadFull(f, head); err != nil {
			return s, fmt.Errorf("%s: no header: %w", path, err)
		}
		if s.head, err = parseHeader(string(head)); err != nil {
			return s, fmt.Errorf("%s: %w", path, err)
		}
		s.dated = s.head.built
		h.Write(head)
	}
	if _, err := io.Copy(h, f); err != nil {
		return s, err
	}
	s.sum = artifact.Digest(h.Sum(nil))
	return s, nil
}

// A header is what a container says of itself.
type header struct {
	built      time.Time
	number     uint64 // its version
	signatures uint64
}

// parseHeader reads
// ClamAV-VDB:TIME:VERSION:SIGNATURES:LEVEL:MD5:SIGNATURE:BUILDER:SECONDS.
// Whether the signature holds is ClamAV's to say when it loads the file.
func parseHeader(text string) (h header, err error) {
	bad := func(what string) (header, error) {
		return header{}, fmt.Errorf("header %s: %s", quote(text), what)
	}
	fields := strings.Split(strings.TrimRight(text, " "), ":")
	// The oldest have no seconds at the end.
	if len(fields) != 8 && len(fields) != 9 || fields[0] != "ClamAV-VDB" {
		return bad("want ClamAV-VDB and seven or eight fields")
	}
	if h.built, err = time.Parse("02 Jan 2006 15-04 -0700", fields[1]); err != nil {
		return bad("time of building: " + err.Error())
	}
	var numbers [3]uint64
	for i := range numbers {
		if numbers[i], err = strconv.ParseUint(fields[2+i], 10, 32); err != nil {
			return bad("version, count and level: " + err.Error())
		}
	}
	h.number, h.signatures = numbers[0], numbers[1]
	if h.signatures == 0 {
		return bad("it holds no signatures")
	}
	// What is not signed has an X, or no digest.
	if sum := fields[5]; sum != "X" {
		if b, err := hex.DecodeString(sum); err != nil || len(b) != 16 {
			return bad("digest, want 32 hexadecimal digits or X")
		}
	}
	if fields[6] == "" || fields[7] == "" {
		return bad("no signature or no builder")
	}
	if len(fields) == 9 {
		seconds, err := strconv.ParseUint(fields[8], 10, 33)
		if err != nil {
			return bad("seconds: " + err.Error())
		}
		h.built = time.Unix(int64(seconds), 0)
	}
	if h.built.Unix() <= 0 {
		return bad("built before 1970")
	}
	return h, nil
}
