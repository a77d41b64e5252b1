package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/apt/apttest"
)

const (
	suite = "bench"
	index = "main/binary-amd64/Packages"
)

// serveArchive makes one suite of all packages, signed with a fresh key.
func serveArchive(mux *http.ServeMux, seed string, debs specs, other int, out string) error {
	var packages strings.Builder
	for _, s := range debs {
		for i := range s.Count {
			control := stanza(debName(s, i), needs(s, i))
			deb, err := newDeb(seed, debName(s, i), control, s.Size)
			if err != nil {
				return err
			}
			file := "pool/main/" + debName(s, i) + "_1.0_amd64.deb"
			fmt.Fprintf(&packages, "%sFilename: %s\nSize: %d\nSHA256: %s\n\n", control, file, deb.size, deb.sha256)
			mux.Handle("/debian/"+file, deb)
		}
		if err := writeFile(out, "packages-"+s.Name+".txt", debName(s, 0)+"\n"); err != nil {
			return err
		}
	}
	for i := range other {
		name := fmt.Sprintf("other-%05d", i)
		sum := sha256.Sum256([]byte(seed + name))
		fmt.Fprintf(&packages, "%sFilename: pool/main/%s_1.0_amd64.deb\nSize: %d\nSHA256: %s\n\n",
			stanza(name, fmt.Sprintf("other-%05d", i/2)), name, 1000+i, hex.EncodeToString(sum[:]))
	}
	return serveSuite(mux, packages.String(), out)
}

func debName(s spec, i int) string { return fmt.Sprintf("%s-%05d", s.Name, i) }

// needs makes a tree: package i depends on 2i+1 and 2i+2.
func needs(s spec, i int) string {
	var list []string
	for _, n := range []int{2*i + 1, 2*i + 2} {
		if n < s.Count {
			list = append(list, debName(s, n)+" (>= 1.0)")
		}
	}
	return strings.Join(list, ", ")
}

func stanza(name, depends string) string {
	s := "Package: " + name + "\nVersion: 1.0\nArchitecture: amd64\nMaintainer: Bench <bench@mirror.example>\nInstalled-Size: 1\nSection: misc\nPriority: optional\n"
	if depends != "" {
		s += "Depends: " + depends + "\n"
	}
	return s + "Description: made for a measurement\n"
}

// newDeb makes a package with one file of size bytes of noise, stored.
func newDeb(seed, name, control string, size int64) (*blob, error) {
	var ctl bytes.Buffer
	t := tar.NewWriter(&ctl)
	if err := t.WriteHeader(&tar.Header{Name: "./control", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(control))}); err != nil {
		return nil, err
	}
	if _, err := t.Write([]byte(control)); err != nil {
		return nil, err
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	packed, err := apttest.Compress(".gz", ctl.Bytes())
	if err != nil {
		return nil, err
	}
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "./usr/share/" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size}); err != nil {
		return nil, err
	}
	// The end of a tar file: the last block filled up, and two empty ones.
	tail := make([]byte, (512-size%512)%512+1024)
	b := newBuilder()
	frame := apttest.Ar(
		apttest.Member{Name: "debian-binary", Data: []byte("2.0\n")},
		apttest.Member{Name: "control.tar.gz", Data: packed},
	)
	frame = fmt.Appendf(frame, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", "data.tar", 0, 0, 0, "100644", int64(head.Len())+size+int64(len(tail)))
	if _, err := b.Write(append(frame, head.Bytes()...)); err != nil {
		return nil, err
	}
	p := noise(seed, name, size)
	b.begin(p)
	err = p.copyTo(b)
	b.end()
	if err != nil {
		return nil, err
	}
	_, err = b.Write(tail)
	return b.done(), err
}

// serveSuite serves the indexes and their signature.
func serveSuite(mux *http.ServeMux, packages, out string) error {
	var list strings.Builder
	for _, ext := range []string{"", ".gz", ".xz"} {
		data, err := apttest.Compress(ext, []byte(packages))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		fmt.Fprintf(&list, " %s %d %s\n", hex.EncodeToString(sum[:]), len(data), index+ext)
		mux.Handle("/debian/dists/"+suite+"/"+index+ext, text("application/octet-stream", data))
	}
	const layout = "Mon, 02 Jan 2006 15:04:05 UTC"
	now := time.Now().UTC().Add(-time.Minute)
	release := fmt.Sprintf("Origin: Bench\nLabel: Bench\nSuite: %s\nCodename: %s\nDate: %s\nValid-Until: %s\nArchitectures: amd64\nComponents: main\nDescription: made for a measurement\nSHA256:\n%s",
		suite, suite, now.Format(layout), now.Add(7*24*time.Hour).Format(layout), list.String())
	key, err := apttest.NewKey("bench")
	if err != nil {
		return err
	}
	signed, err := apttest.Clearsign(key, release, 0)
	if err != nil {
		return err
	}
	mux.Handle("/debian/dists/"+suite+"/InRelease", text("text/plain", signed))
	ring, err := apttest.PublicKey(key)
	if err != nil {
		return err
	}
	return writeFile(out, "keyring.asc", string(ring))
}
