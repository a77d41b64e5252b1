package diode

import (
	"context"
	"os"
	"testing"
)

const benchSize = 64 << 20

// nowhere counts what is sent and keeps nothing.
type nowhere struct{ bytes int64 }

func (n *nowhere) Send(p []byte) error {
	n.bytes += int64(len(p))
	return nil
}

func benchSender(b *testing.B, symbols Datagrams) (*Sender, *sending, *os.File) {
	b.Helper()
	bed := &bed{t: b, outbox: b.TempDir()}
	s, err := NewSender(SenderConfig{
		Key: testKey, K: 200, Parity: 20, Payload: 1408, Columns: 7000, Passes: 1, Symbols: symbols, Control: &nowhere{},
	})
	if err != nil {
		b.Fatal(err)
	}
	o, err := s.prepare(b.Context(), bed.file("a", benchSize, 1))
	if err != nil {
		b.Fatal(err)
	}
	spool, err := os.Create(b.TempDir() + "/spool")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = o.file.Close(), spool.Close() })
	return s, o, spool
}

// BenchmarkSend reads, encodes and signs a generation; nothing is sent.
func BenchmarkSend(b *testing.B) {
	out := &nowhere{}
	s, o, spool := benchSender(b, out)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.pass(b.Context(), o, 1, spool); err != nil {
			b.Fatal(err)
		}
	}
	if out.bytes < benchSize {
		b.Fatalf("sent %d bytes", out.bytes)
	}
}

// kept keeps all packets.
type kept struct{ packets []byte }

func (k *kept) Send(p []byte) error {
	k.packets = append(k.packets, p...)
	return nil
}

// replay is a socket that has everything at once.
type replay struct {
	first   []byte
	packets []byte
	size    int
	whole   *bool
}

func (s replay) Run(ctx context.Context, packet func([]byte), idle func()) error {
	packet(s.first)
	for n := 0; n*s.size < len(s.packets); n++ {
		packet(s.packets[n*s.size : (n+1)*s.size])
		if n%64 == 63 {
			idle()
		}
	}
	for !*s.whole && ctx.Err() == nil {
		idle()
	}
	return nil
}

// BenchmarkReceive takes a generation without loss, from the tag's check to the
// digest and the rename. The folder is the system's for temporary files.
func BenchmarkReceive(b *testing.B) {
	in := &kept{packets: make([]byte, 0, benchSize*5/4)}
	s, o, spool := benchSender(b, in)
	if err := s.pass(b.Context(), o, 1, spool); err != nil {
		b.Fatal(err)
	}
	first := make([]byte, ControlSize)
	testKey.put(first, header{kind: typeDescriptor, transfer: o.transfer.id, sequence: 1 << 30})
	o.desc.encode(first[headerSize:])
	testKey.sign(first)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		whole := false
		r, err := NewReceiver(ReceiverConfig{Inbox: b.TempDir(), Keys: []*Key{testKey}, OnEvent: func(e Event) { whole = whole || e.Kind == Completed }})
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Run(b.Context(), replay{first, in.packets, SymbolSize(1408), &whole}); err != nil {
			b.Fatal(err)
		}
		if !whole || r.Counts().Symbols != benchSize/1408+1 {
			b.Fatalf("%+v", r.Counts())
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPacket checks the tag of one packet.
func BenchmarkPacket(b *testing.B) {
	for name, payload := range map[string]int{"1408": 1408, "8896": 8896} {
		p := make([]byte, SymbolSize(payload))
		testKey.put(p, header{kind: typeSymbol, transfer: 1})
		testKey.sign(p)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(payload))
			for b.Loop() {
				if _, _, v := testKey.open(p); v != accepted {
					b.Fatal(v)
				}
			}
		})
	}
}
