// Command index serves a made package index: a closure of 200 projects as real
// ones are, for timing resolvers and fetchers. The same seed gives the same
// bytes.
//
//	index -listen 10.9.0.1:8000 -requirements requirements.txt -files files.txt
//
// It speaks the Simple API in JSON and HTML (PEP 503, 691, 700), core metadata
// (PEP 658), ranges, and of the JSON API what bandersnatch asks for. Each answer
// comes a round trip later than it could, and the first of a connection two.
package main

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"html"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	projects = 200
	versions = 30
	// Sizes of wheels are log-normal about this median, in bytes.
	median  = 60_000
	largest = 12_000_000
)

// A file is one file of a project.
type file struct {
	name, version, sha string
	metadata           []byte
	metadataSHA        string
	body               []byte
	uploaded           string
}

// connected is the key of a connection's mark: whether it has answered before.
type connected struct{}

// delay is what the way costs.
func (x *index) delay(ctx context.Context) {
	d := x.latency
	if before, ok := ctx.Value(connected{}).(*atomic.Bool); ok && !before.Swap(true) {
		d *= 2 // it had to be opened
	}
	time.Sleep(d)
}

type project struct {
	name  string
	files []file
	page  []byte // JSON
	html  []byte
	tag   string
}

type index struct {
	projects map[string]*project
	files    map[string]*file
	base     string
	latency  time.Duration
	requests atomic.Int64
	conns    atomic.Int64
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	requirements := flag.String("requirements", "", "file that gets the requirements")
	files := flag.String("files", "", "file that gets the names and digests of the closure")
	latency := flag.Duration("latency", 30*time.Millisecond, "a round trip")
	flag.Parse()
	if err := run(*listen, *requirements, *files, *latency); err != nil {
		log.Fatal(err)
	}
}

func run(listen, requirements, files string, latency time.Duration) error {
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", listen)
	if err != nil {
		return err
	}
	x := &index{projects: map[string]*project{}, files: map[string]*file{}, base: "http://" + l.Addr().String(), latency: latency}
	if err := x.build(); err != nil {
		return err
	}
	// Ten projects are asked for; the rest follows.
	var want, closure strings.Builder
	for i := range 10 {
		fmt.Fprintf(&want, "%s>=1\n", name(i))
	}
	for i := range projects {
		p := x.projects[name(i)]
		f := p.files[len(p.files)-1]
		fmt.Fprintf(&closure, "%s %s\n", f.sha, f.name)
	}
	if err := os.WriteFile(requirements, []byte(want.String()), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(files, []byte(closure.String()), 0o600); err != nil {
		return err
	}
	srv := &http.Server{Handler: x, ReadHeaderTimeout: 10 * time.Second, ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connected{}, new(atomic.Bool))
	}, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			x.conns.Add(1)
		}
	}}
	return srv.Serve(l)
}

func name(i int) string { return fmt.Sprintf("made-%03d", i) }

// needs are the projects that i needs: those of the next layer, so that the
// closure is eight deep, as that of a web framework or of an inference server.
func needs(i int) []int {
	if i >= projects {
		return nil
	}
	var list []int
	r := rand.New(rand.NewPCG(uint64(i), 1)) //nolint:gosec // the same every time is what is wanted
	// Every project but the first ten has one parent that is sure to want it.
	for j := range projects {
		if j >= 10 && (j-10)*10/13 == i && j > i {
			list = append(list, j)
		}
	}
	for range r.IntN(3) {
		if j := i + 1 + r.IntN(40); j < projects {
			list = append(list, j)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (x *index) build() error {
	for i := range projects {
		p := &project{name: name(i)}
		r := rand.New(rand.NewPCG(uint64(i), 2)) //nolint:gosec // as above
		for v := range versions {
			size := 200
			if v == versions-1 {
				size = int(min(largest, max(2000, math.Exp(math.Log(median)+1.6*r.NormFloat64()))))
			}
			f, err := wheel(i, v, size)
			if err != nil {
				return err
			}
			p.files = append(p.files, f)
		}
		for k := range p.files {
			x.files[p.files[k].name] = &p.files[k]
		}
		if err := x.render(p); err != nil {
			return err
		}
		x.projects[p.name] = p
	}
	return nil
}

func sum(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// wheel makes one; its payload does not compress.
func wheel(i, v, size int) (file, error) {
	version := fmt.Sprintf("1.%d.0", v)
	stem := strings.ReplaceAll(name(i), "-", "_") + "-" + version
	f := file{name: stem + "-py3-none-any.whl", version: version, uploaded: time.Date(2023, 1, 1+v*20, 0, 0, 0, 0, time.UTC).Format(time.RFC3339)}
	var m strings.Builder
	fmt.Fprintf(&m, "Metadata-Version: 2.1\nName: %s\nVersion: %s\nSummary: made for a benchmark\nRequires-Python: >=3.9\nProvides-Extra: extra\n", name(i), version)
	for _, j := range needs(i) {
		fmt.Fprintf(&m, "Requires-Dist: %s>=1.%d,<2\n", name(j), v/2)
	}
	fmt.Fprintf(&m, "Requires-Dist: %s>=1; extra == \"extra\"\nRequires-Dist: %s>=1; sys_platform == \"win32\"\n\n", name((i+1)%projects), name((i+7)%projects))
	m.WriteString(strings.Repeat("A description as long as most. ", 150) + "\n")
	f.metadata = []byte(m.String())
	f.metadataSHA = sum(f.metadata)
	payload := make([]byte, size)
	r := rand.NewChaCha8(sha256.Sum256([]byte(stem)))
	_, _ = r.Read(payload) // never fails
	info := stem + ".dist-info/"
	entries := []struct {
		name string
		body []byte
	}{
		{strings.ReplaceAll(name(i), "-", "_") + "/data.bin", payload},
		{info + "METADATA", f.metadata},
		{info + "WHEEL", []byte("Wheel-Version: 1.0\nGenerator: made\nRoot-Is-Purelib: true\nTag: py3-none-any\n")},
	}
	var record strings.Builder
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	add := func(name string, body []byte) error {
		// With its sizes before it, as Python writes one.
		var packed bytes.Buffer
		c, err := flate.NewWriter(&packed, flate.DefaultCompression)
		if err != nil {
			return err
		}
		if _, err := c.Write(body); err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
		w, err := z.CreateRaw(&zip.FileHeader{
			Name: name, Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(body),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(body)), //nolint:gosec // lengths
		})
		if err == nil {
			_, err = w.Write(packed.Bytes())
		}
		return err
	}
	for _, e := range entries {
		d := sha256.Sum256(e.body)
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", e.name, base64.RawURLEncoding.EncodeToString(d[:]), len(e.body))
		if err := add(e.name, e.body); err != nil {
			return f, err
		}
	}
	fmt.Fprintf(&record, "%sRECORD,,\n", info)
	if err := add(info+"RECORD", []byte(record.String())); err != nil {
		return f, err
	}
	if err := z.Close(); err != nil {
		return f, err
	}
	f.body = b.Bytes()
	f.sha = sum(f.body)
	return f, nil
}

func (x *index) url(f *file) string { return x.base + "/packages/" + f.name }

func (x *index) render(p *project) error {
	list := []map[string]any{}
	var h strings.Builder
	fmt.Fprintf(&h, "<!DOCTYPE html><html><head><meta name=\"pypi:repository-version\" content=\"1.1\"><title>Links for %s</title></head><body>", p.name)
	for k := range p.files {
		f := &p.files[k]
		list = append(list, map[string]any{
			"filename": f.name, "url": x.url(f), "hashes": map[string]string{"sha256": f.sha}, "size": len(f.body), "requires-python": ">=3.9",
			"yanked": false, "upload-time": f.uploaded, "core-metadata": map[string]string{"sha256": f.metadataSHA},
		})
		fmt.Fprintf(&h, `<a href="%s#sha256=%s" data-requires-python="&gt;=3.9" data-core-metadata="sha256=%s">%s</a><br>`, html.EscapeString(x.url(f)), f.sha, f.metadataSHA, f.name)
	}
	var all []string
	for _, f := range p.files {
		all = append(all, f.version)
	}
	h.WriteString("</body></html>")
	p.html = []byte(h.String())
	var err error
	p.page, err = json.Marshal(map[string]any{"meta": map[string]any{"api-version": "1.1", "_last-serial": 1}, "name": p.name, "versions": all, "files": list})
	p.tag = `"` + sum(p.page)[:32] + `"`
	return err
}

func (x *index) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/-/counters" {
		fmt.Fprintf(w, `{"requests":%d,"connections":%d}`, x.requests.Swap(0), x.conns.Swap(0))
		return
	}
	x.requests.Add(1)
	x.delay(r.Context())
	path := strings.Trim(r.URL.Path, "/")
	kind, rest, _ := strings.Cut(path, "/")
	switch kind {
	case "simple":
		x.simple(w, r, rest)
	case "pypi":
		x.legacy(w, r, strings.TrimSuffix(rest, "/json"))
	case "packages":
		if n, ok := strings.CutSuffix(rest, ".metadata"); ok && x.files[n] != nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(x.files[n].metadata) // the client may have gone
			return
		}
		f := x.files[rest]
		if f == nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"`+f.sha[:32]+`"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
	default:
		http.NotFound(w, r)
	}
}

func (x *index) simple(w http.ResponseWriter, r *http.Request, name string) {
	p := x.projects[name]
	if p == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", p.tag)
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Cache-Control", "max-age=600, public")
	if r.Header.Get("If-None-Match") == p.tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "application/vnd.pypi.simple.v1+json") {
		w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
		_, _ = w.Write(p.page)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write(p.html)
}

// legacy is the JSON API, for bandersnatch.
func (x *index) legacy(w http.ResponseWriter, r *http.Request, name string) {
	p := x.projects[name]
	if p == nil {
		http.NotFound(w, r)
		return
	}
	releases := map[string]any{}
	for k := range p.files {
		f := &p.files[k]
		releases[f.version] = []map[string]any{{
			"filename": f.name, "url": x.url(f), "digests": map[string]string{"sha256": f.sha}, "size": len(f.body), "packagetype": "bdist_wheel",
			"python_version": "py3", "requires_python": ">=3.9", "yanked": false, "yanked_reason": nil, "upload_time_iso_8601": f.uploaded,
		}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-PyPI-Last-Serial", "1")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may have gone
		"info": map[string]any{"name": p.name, "version": p.files[len(p.files)-1].version, "requires_python": ">=3.9", "classifiers": []string{}}, "last_serial": 1, "releases": releases, "urls": []any{},
	})
}
