package apt

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/mikelolasagasti/xz"
	ulikunitz "github.com/ulikunitz/xz"

	"github.com/darkmirror/darkmirror/apt/apttest"
)

func controlTar(t testing.TB, ext, control string) apttest.Member {
	t.Helper()
	deb, err := apttest.Deb(control)
	if err != nil {
		t.Fatal(err)
	}
	a := &arReader{r: bytes.NewReader(deb), left: int64(len(deb))}
	if err := a.begin(); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := a.next()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(m.name, "control") {
			continue
		}
		z, err := decompress(a.body(), ".xz", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		if _, err := plain.ReadFrom(z); err != nil {
			t.Fatal(err)
		}
		data, err := apttest.Compress(ext, plain.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return apttest.Member{Name: "control.tar" + ext, Data: data}
	}
}

const debControl = "Package: jq\nVersion: 1:1.6\nArchitecture: amd64\n"

func TestReadDeb(t *testing.T) {
	format := apttest.Member{Name: "debian-binary", Data: []byte("2.0\n")}
	data := apttest.Member{Name: "data.tar.zst", Data: []byte("odd")}
	sign := apttest.Member{Name: "_gpgorigin", Data: []byte("sig")}
	for _, ext := range []string{"", ".gz", ".xz", ".zst"} {
		ctl := controlTar(t, ext, debControl)
		for name, deb := range map[string][]byte{
			"plain":  apttest.Ar(format, ctl, data),
			"signed": apttest.Ar(format, ctl, data, sign),
		} {
			for _, whole := range []bool{true, false} {
				info, err := new(debReader).read(bytes.NewReader(deb), int64(len(deb)), whole)
				if err != nil || *info != (debInfo{"jq", "1:1.6", "amd64"}) {
					t.Errorf("%s%s: %v, %v", name, ext, info, err)
				}
			}
		}
	}
	ctl := controlTar(t, ".xz", debControl)
	cut := apttest.Member{Name: ctl.Name, Data: ctl.Data[:len(ctl.Data)-4]}
	good := apttest.Ar(format, ctl, data)
	for name, deb := range map[string][]byte{
		"empty":            {},
		"not ar":           []byte("PK\x03\x04 and so on"),
		"no format":        apttest.Ar(ctl, data),
		"format 3":         apttest.Ar(apttest.Member{Name: "debian-binary", Data: []byte("3.0\n")}, ctl, data),
		"no control":       apttest.Ar(format, data),
		"no data":          apttest.Ar(format, ctl),
		"two controls":     apttest.Ar(format, ctl, ctl, data),
		"order":            apttest.Ar(format, data, ctl),
		"unknown member":   apttest.Ar(format, ctl, data, apttest.Member{Name: "x", Data: nil}),
		"signature first":  apttest.Ar(sign, format, ctl, data),
		"path":             apttest.Ar(format, ctl, apttest.Member{Name: "../data.tar", Data: nil}),
		"data compression": apttest.Ar(format, ctl, apttest.Member{Name: "data.tar.rar", Data: nil}),
		"cut control":      apttest.Ar(format, cut, data),
		"garbage behind":   append(bytes.Clone(good), "surplus"...),
		"cut":              good[:len(good)-3],
	} {
		if info, err := new(debReader).read(bytes.NewReader(deb), int64(len(deb)), true); err == nil || info != nil {
			t.Errorf("%s is accepted: %v", name, info)
		}
	}
	if _, err := new(debReader).read(bytes.NewReader(good), int64(len(good))+9, true); err == nil {
		t.Error("a size beyond the end is accepted")
	}
}

// A control.tar.xz that asks for a large dictionary gets a small one.
func TestShrinkDict(t *testing.T) {
	var plain, packed bytes.Buffer
	plain.WriteString(strings.Repeat("some text of a control file\n", 1000))
	w, err := ulikunitz.WriterConfig{DictCap: 64 << 20}.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := shrinkDict(bytes.NewReader(packed.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	z, err := xz.NewReader(r, smallDict) // refuses a larger dictionary
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(got, plain.Bytes()) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if z, err = xz.NewReader(bytes.NewReader(packed.Bytes()), smallDict); err == nil {
		if _, err = io.ReadAll(z); err == nil {
			t.Fatal("the stream did not ask for much: the test shows nothing")
		}
	}
	for n := range 40 { // a cut header is the decoder's to refuse
		r, err := shrinkDict(bytes.NewReader(packed.Bytes()[:n]))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || len(b) != n {
			t.Fatalf("%d of %d bytes, %v", len(b), n, err)
		}
	}
}

func FuzzReadDeb(f *testing.F) {
	deb, err := apttest.Deb(debControl)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(deb)
	f.Add(deb[:len(deb)/2])
	f.Add([]byte(arMagic))
	f.Add(apttest.Ar(apttest.Member{Name: "debian-binary", Data: []byte("2.0\n")}, apttest.Member{Name: "control.tar", Data: make([]byte, 1024)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := new(debReader).read(bytes.NewReader(b), int64(len(b)), true)
		if (err == nil) != (info != nil) {
			t.Fatalf("%v, %v", info, err)
		}
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, []byte(arMagic+"debian-binary")) {
			t.Error("accepted without its frame")
		}
		if short, err := new(debReader).read(bytes.NewReader(b), int64(len(b)), false); err != nil || *short != *info {
			t.Errorf("read whole %v, read short %v, %v", info, short, err)
		}
	})
}
