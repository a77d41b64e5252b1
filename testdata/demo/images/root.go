package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// An entry is one file as list prints it.
type entry struct {
	kind     byte // as ls has it
	mode     int64
	uid, gid int
	size     int64
	content  string // the digest of a file, the target of a link
}

// list prints what is in a root, one line a file, sorted: of a folder, or of
// tars laid over each other.
func list(args []string, out io.Writer) error {
	files := make(map[string]entry)
	for _, name := range args {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = listDir(name, files)
		} else {
			err = listTar(name, files)
		}
		if err != nil {
			return err
		}
	}
	buf := bufio.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		e := files[name]
		fmt.Fprintf(buf, "%c %04o %d:%d %d %s %q\n", e.kind, e.mode, e.uid, e.gid, e.size, e.content, name)
	}
	return buf.Flush()
}

func listTar(name string, files map[string]entry) error {
	return eachEntry(name, func(h *tar.Header, r io.Reader) error {
		e := entry{mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid}
		switch h.Typeflag {
		case tar.TypeReg:
			sum := sha256.New()
			if _, err := io.Copy(sum, r); err != nil {
				return err
			}
			e.kind, e.size, e.content = '-', h.Size, hex.EncodeToString(sum.Sum(nil))
		case tar.TypeDir:
			e.kind = 'd'
		case tar.TypeSymlink:
			e.kind, e.mode, e.content = 'l', 0o777, h.Linkname
		case tar.TypeLink:
			var ok bool
			if e, ok = files[path.Clean(h.Linkname)]; !ok {
				return fmt.Errorf("%s: %s is a link to %s, which is not there", name, h.Name, h.Linkname)
			}
		default:
			return fmt.Errorf("%s: %s has the type %c", name, h.Name, h.Typeflag)
		}
		files[path.Clean(h.Name)] = e
		return nil
	})
}

func listDir(dir string, files map[string]entry) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: the system tells no owner", name)
		}
		e := entry{mode: int64(st.Mode & 0o7777), uid: int(st.Uid), gid: int(st.Gid)}
		switch info.Mode().Type() {
		case 0:
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			e.kind, e.size, e.content = '-', info.Size(), hex.EncodeToString(sum[:])
		case fs.ModeDir:
			e.kind = 'd'
		case fs.ModeSymlink:
			e.kind, e.mode = 'l', 0o777
			if e.content, err = os.Readlink(name); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s has the type %s", name, info.Mode().Type())
		}
		rel, err := filepath.Rel(dir, name)
		files[rel] = e
		return err
	})
}

// eachEntry reads a tar, compressed or not.
func eachEntry(name string, do func(*tar.Header, io.Reader) error) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := bufio.NewReaderSize(f, 1<<20)
	var r io.Reader = buf
	if magic, _ := buf.Peek(2); string(magic) == "\x1f\x8b" {
		zip, err := gzip.NewReader(buf)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r = zip
	}
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = do(h, in)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

// join makes one root of the contents of packages: "dpkg-deb --fsys-tarfile"
// gives them. It is for hosts on which mmdebstrap cannot work. A file of the
// name status is dpkg's list of what is installed.
func join(args []string, out io.Writer) error {
	w := tar.NewWriter(out)
	seen := make(map[string]bool)
	for _, name := range args {
		if path.Base(name) == "status" {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			h := &tar.Header{Name: "./var/lib/dpkg/status", Mode: 0o644, Size: int64(len(b)), ModTime: epoch(), Typeflag: tar.TypeReg}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if _, err := w.Write(b); err != nil {
				return err
			}
			continue
		}
		err := eachEntry(name, func(h *tar.Header, r io.Reader) error {
			if seen[h.Name] {
				return nil // a folder of several packages
			}
			seen[h.Name] = true
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(w, r)
			return err
		})
		if err != nil {
			return err
		}
	}
	return w.Close()
}

// layers prints the files of one platform's layers in an OCI layout, in order.
func layers(dir, wanted string, out io.Writer) error {
	read := func(name string) (m manifest, err error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return m, err
		}
		return m, json.Unmarshal(b, &m)
	}
	blob := func(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
	top, err := read("index.json")
	if err != nil {
		return err
	}
	if len(top.Manifests) != 1 {
		return fmt.Errorf("%s: %d images, want 1", dir, len(top.Manifests))
	}
	index, err := read(blob(top.Manifests[0]))
	if err != nil {
		return err
	}
	for _, d := range index.Manifests {
		if d.Platform == nil || d.Platform.OS+"/"+d.Platform.Architecture != wanted {
			continue
		}
		m, err := read(blob(d))
		if err != nil {
			return err
		}
		for _, l := range m.Layers {
			fmt.Fprintln(out, filepath.Join(dir, blob(l)))
		}
		return nil
	}
	return fmt.Errorf("%s: no image for %s", dir, wanted)
}
