// Ocicopy copies one image from a registry to another in one process, through
// a store: what an export and an import do with the bundle between them left
// out. Each blob is fetched and sent by itself, so that one is sent while
// another is fetched. It is for bench/oci, which sets it beside programs that
// do just that.
//
//	ocicopy -store DIR http://127.0.0.1:5000/bench/image:1.0 http://127.0.0.1:5001/bench/image:1.0
//
// As in an export, what is in the store is not fetched again; as in an import,
// each blob of the target is asked for, whatever manifest is there already,
// and the tag comes last.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/remote"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// maxDepth bounds indexes within indexes, as package oci does.
const maxDepth = 8

func main() {
	log.SetFlags(0)
	log.SetPrefix("ocicopy: ")
	dir := flag.String("store", "", "`folder` of the store")
	jobs := flag.Int("jobs", 4, "blobs at once")
	flag.Parse()
	if *dir == "" || flag.NArg() != 2 {
		log.Fatal("want -store DIR and two images")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *dir, *jobs, flag.Arg(0), flag.Arg(1))
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// An end is an image in a registry.
type end struct {
	*remote.Client
	ref spec.Reference
}

func open(name, raw string, pool *fetch.Pool) (end, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return end{}, err
	}
	ref, err := spec.ParseReference(strings.TrimPrefix(u.Path, "/"))
	if err != nil {
		return end{}, fmt.Errorf("%s: %w", raw, err)
	}
	address := u.Scheme + "://" + u.Host
	host, err := fetch.Host(address)
	if err != nil {
		return end{}, err
	}
	client, err := fetch.New(pool, fetch.Config{Name: name, Hosts: []string{host}, AllowHTTP: true})
	if err != nil {
		return end{}, err
	}
	r, err := remote.New(remote.Config{Name: name, Registry: address}, client)
	return end{r, ref}, err
}

// A copier has what one copy needs.
type copier struct {
	st        *store.Store
	src, dst  end
	manifests []remote.Raw // children before their index
	blobs     []spec.Descriptor
	seen      map[spec.Digest]bool
}

func run(ctx context.Context, dir string, jobs int, from, to string) error {
	pool := fetch.NewPool(0, 0)
	src, err := open("source", from, pool)
	if err != nil {
		return err
	}
	dst, err := open("target", to, pool)
	if err != nil {
		return err
	}
	st, err := store.Open(dir)
	if err != nil {
		return err
	}
	c := &copier{st: st, src: src, dst: dst, seen: make(map[spec.Digest]bool)}
	root, err := src.Head(ctx, src.ref.Repository, src.ref.Tag)
	if err != nil {
		return err
	}
	if root == nil {
		return fmt.Errorf("%s has no %s", src.Host(), src.ref)
	}
	if err := c.walk(ctx, *root, 0); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, b := range c.blobs {
		g.Go(func() error { return c.blob(gctx, b) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.publish(ctx)
}

// walk brings a manifest and those below it into the store, and lists what
// they name.
func (c *copier) walk(ctx context.Context, d spec.Descriptor, depth int) error {
	if c.seen[d.Digest] {
		return nil
	}
	c.seen[d.Digest] = true
	if depth > maxDepth {
		return fmt.Errorf("%s: indexes are nested deeper than %d", d.Digest, maxDepth)
	}
	raw, err := c.manifest(ctx, d)
	if err != nil {
		return err
	}
	m, err := spec.ParseManifest(raw.Bytes, raw.MediaType)
	if err != nil {
		return err
	}
	for _, child := range m.Manifests {
		if err := c.walk(ctx, child, depth+1); err != nil {
			return err
		}
	}
	for _, b := range m.Blobs() {
		if !c.seen[b.Digest] {
			c.seen[b.Digest] = true
			c.blobs = append(c.blobs, b)
		}
	}
	c.manifests = append(c.manifests, raw)
	return nil
}

func (c *copier) manifest(ctx context.Context, d spec.Descriptor) (remote.Raw, error) {
	sum, ok := d.Digest.SHA256()
	if ok && c.st.Has(sum) {
		b, err := c.st.ReadAll(sum, spec.MaxManifest)
		return remote.Raw{Bytes: b, MediaType: d.MediaType, Digest: d.Digest}, err
	}
	raw, err := c.src.Manifest(ctx, c.src.ref.Repository, string(d.Digest))
	if err != nil {
		return remote.Raw{}, err
	}
	_, err = c.st.PutBytes(raw.Bytes)
	return *raw, err
}

// blob fetches what the store lacks, and sends what the target lacks.
func (c *copier) blob(ctx context.Context, b spec.Descriptor) (err error) {
	sum, ok := b.Digest.SHA256()
	if !ok {
		return fmt.Errorf("%s: only blobs with a sha256 are copied", b.Digest)
	}
	if !c.st.Has(sum) {
		p, err := c.st.Partial(sum, b.Size)
		if err != nil {
			return err
		}
		err = c.src.Download(ctx, c.src.ref.Repository, b.Digest, p)
		if err = errors.Join(err, p.Close()); err != nil {
			return err
		}
	}
	content := func() (io.ReadSeekCloser, error) {
		f, err := c.st.File(sum)
		return remote.Verified{File: f, Digest: b.Digest}, err
	}
	_, err = c.dst.PushBlob(ctx, c.dst.ref.Repository, b.Digest, b.Size, content)
	return err
}

// publish sends the manifests that the target lacks, and then the tag.
func (c *copier) publish(ctx context.Context) error {
	repo := c.dst.ref.Repository
	for _, raw := range c.manifests[:len(c.manifests)-1] {
		if err := c.put(ctx, repo, string(raw.Digest), raw); err != nil {
			return err
		}
	}
	return c.put(ctx, repo, c.dst.ref.Tag, c.manifests[len(c.manifests)-1])
}

func (c *copier) put(ctx context.Context, repo, ref string, raw remote.Raw) error {
	have, err := c.dst.Head(ctx, repo, ref)
	if err != nil || have != nil && have.Digest == raw.Digest {
		return err
	}
	_, err = c.dst.PushManifest(ctx, repo, ref, raw.Bytes, raw.MediaType)
	return err
}
