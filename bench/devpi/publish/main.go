// Command publish is what an import does last, and nothing else: it takes a
// snapshot that lies in a store and publishes it, into an index of DevPI too.
//
//	publish -store DIR -snapshot sha256:... -state DIR -index http://127.0.0.1:3141/root/x -user root -password_file FILE
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
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/pypi"
)

// maxSnapshot is far above that of a thousand files.
const maxSnapshot = 64 << 20

type options struct{ store, snapshot, state, index, user, passwordFile string }

func main() {
	log.SetFlags(0)
	var o options
	flag.StringVar(&o.store, "store", "", "folder of the store")
	flag.StringVar(&o.snapshot, "snapshot", "", "digest of the snapshot")
	flag.StringVar(&o.state, "state", "", "folder for the publication")
	flag.StringVar(&o.index, "index", "", "address of the index")
	flag.StringVar(&o.user, "user", "root", "who uploads")
	flag.StringVar(&o.passwordFile, "password_file", "", "file of the password")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, o); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, o options) error {
	st, err := store.Open(o.store)
	if err != nil {
		return err
	}
	d, err := artifact.ParseDigest(o.snapshot)
	if err != nil {
		return err
	}
	b, err := st.ReadAll(d, maxSnapshot)
	if err != nil {
		return err
	}
	snap, err := artifact.DecodeSnapshot(b)
	if err != nil {
		return err
	}
	cfg := pypi.PublishConfig{DevPI: &pypi.DevPIConfig{
		Index: o.index, Access: pypi.Access{User: o.user, PasswordFile: o.passwordFile, AllowHTTP: true}, Create: true,
	}}
	p, err := pypi.NewPublisher(cfg, snap.Source, st, o.state, nil)
	if err != nil {
		return err
	}
	u, err := url.Parse(o.index)
	if err != nil {
		return err
	}
	_, fc := cfg.Target(snap.Source)
	fc.Hosts = []string{u.Host}
	client, err := fetch.New(fetch.NewPool(1, 1), fc)
	if err != nil {
		return err
	}
	if err := p.UseTarget(cfg, client); err != nil {
		return err
	}
	began := time.Now()
	text, err := p.Publish(ctx, snap, 1, began)
	_, werr := fmt.Fprintf(out, "%s\nseconds %.3f\n", text, time.Since(began).Seconds())
	return errors.Join(err, werr)
}
