package bundle

import (
	"bytes"
	"crypto"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

func testReceipt() Receipt {
	return Receipt{
		Stream: "main", Last: 42, ID: artifact.Sum([]byte("b")), State: artifact.Sum([]byte("s")),
		Imported: []Run{{1, 39}, {41, 42}}, Waiting: []Waiting{{Seq: 43, Volumes: []int{3, 5}}}, Time: at("2026-11-22T20:15:00Z"),
	}
}

func TestReceipt(t *testing.T) {
	s, key := testSigner(t, "inside-a")
	keys := map[string]crypto.PublicKey{"inside-a": key.Public}
	data, err := SignReceipt(testReceipt(), s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenReceipt(append(data, '\n'), keys)
	if err != nil {
		t.Fatal(err)
	}
	want := testReceipt()
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !got.Has(39) || got.Has(40) || got.Has(43) {
		t.Error("Has is wrong about 39, 40 or 43")
	}
	// Every byte is signed, or decides nothing.
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := OpenReceipt(bad, keys); err == nil {
			t.Errorf("byte %d may be flipped", i)
		}
	}
	other, _ := testSigner(t, "stranger")
	forged, err := SignReceipt(testReceipt(), other)
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenReceipt(forged, keys)
	wantCode(t, err, CodeKey)
	// A bundle's envelope is no receipt, and the other way round.
	if _, _, err := openEnvelope(data); err == nil {
		t.Error("a receipt passes for a bundle's envelope")
	}
}

// TestReceiptFits: however much there is to say, it fits a QR code, and says
// nothing wrong.
func TestReceiptFits(t *testing.T) {
	s, key := testSigner(t, "inside-a")
	r := testReceipt()
	r.Imported = nil
	for n := uint64(1); n < 200; n += 2 {
		r.Imported = append(r.Imported, Run{n * 1000, n * 1000})
	}
	r.Last = 199000
	for n := range 20 {
		r.Waiting = append(r.Waiting, Waiting{Seq: uint64(200000 + n), Volumes: []int{1, 2, 3, 4, 5, 6, 7, 8, 9}})
	}
	data, err := SignReceipt(r, s)
	if err != nil || len(data) > MaxReceipt {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	got, err := OpenReceipt(data, map[string]crypto.PublicKey{"a": key.Public})
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range got.Imported {
		if !r.Has(run.From) {
			t.Errorf("says that %d was imported", run.From)
		}
	}
	if !got.Has(199000) {
		t.Error("the newest was left out")
	}
}

func FuzzReceipt(f *testing.F) {
	s, key := testSigner(f, "inside-a")
	data, err := SignReceipt(testReceipt(), s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"schema":"darkmirror.receipt/v1"}`))
	keys := map[string]crypto.PublicKey{"a": key.Public}
	f.Fuzz(func(t *testing.T, p []byte) {
		if r, err := OpenReceipt(p, keys); err == nil && r.Last != 42 {
			t.Fatalf("a forged receipt: %+v", r)
		}
		if r, err := parseReceipt(p); err == nil && (len(r.Imported) == 0 || r.Last != r.Imported[len(r.Imported)-1].To) {
			t.Fatalf("against the rules: %+v", r)
		}
	})
}
