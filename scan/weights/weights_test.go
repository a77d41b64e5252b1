package weights

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

func TestNew(t *testing.T) {
	i := newInspector(t, Config{})
	if diff := cmp.Diff(scan.Engine{Name: "weights", Version: rulesVersion, Settings: "pickle=scan code=high"}, i.Engine()); diff != "" {
		t.Error(diff)
	}
	if i.ByContent() {
		t.Error("findings depend on names")
	}
	if e := newInspector(t, Config{Pickle: PickleRefuse, Code: scan.Low}).Engine(); e.Settings != "pickle=refuse code=low" {
		t.Errorf("settings %q", e.Settings)
	}
	for _, c := range []Config{{Pickle: "allow"}, {Code: "hold"}, {Code: scan.Unknown}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
	var _ scan.Inspector = i
}

// What is no regular file has no bytes, and is the walker's.
func TestNotRegular(t *testing.T) {
	f := walk.NewFile(walk.Data, nil, "model.tar", "model.pt")
	f.Mode = fs.ModeSymlink
	want(t, inspectFile(t, Config{}, f), "")
}

// A context that ends while a file is read is an error, never a verdict.
func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	i := newInspector(t, Config{})
	if _, err := i.Inspect(ctx, walk.NewFile(walk.Pickle, []byte(plainPickle), "a.pkl")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for kind, name := range map[walk.Kind]string{
		walk.Pickle: "a.pkl", walk.NPY: "a.npy", walk.Safetensors: "a.safetensors", walk.GGUF: "a.gguf", walk.HDF5: "a.h5", walk.JSON: "config.json",
		walk.Data: "a.onnx", walk.Text: "a.yaml",
	} {
		v := &visit{ctx: ctx, config: i.config, f: walk.NewFile(kind, []byte(strings.Repeat("{", 100)), name), name: name, claim: claimOf(name)}
		v.content = &content{ctx: ctx, r: v.f.Reader()}
		if err := v.run(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// The same file has the same findings, whichever goroutine asks.
func TestConcurrentUse(t *testing.T) {
	i := newInspector(t, Config{})
	f := walk.NewFile(walk.Pickle, []byte(osPickle), "a.pkl")
	done := make(chan string)
	for range 8 {
		go func() {
			list, err := i.Inspect(t.Context(), f)
			if err != nil {
				done <- err.Error()
				return
			}
			done <- short(list)
		}()
	}
	for range 8 {
		if got := <-done; got != "critical MODEL-PICKLE-DANGER" {
			t.Errorf("got %q", got)
		}
	}
}
