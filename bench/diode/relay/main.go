// Command relay is a bad line between a sender and a receiver, for the figures
// of bench/diode: it passes UDP packets on and prints what it did to them.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/darkmirror/darkmirror/diode/diodetest"
)

func main() {
	var i diodetest.Impairment
	listen := flag.String("listen", "127.0.0.1:7337", "take packets here")
	to := flag.String("to", "", "pass them on to this address")
	flag.Uint64Var(&i.Seed, "seed", 1, "")
	flag.Float64Var(&i.Loss, "loss", 0, "share lost")
	flag.IntVar(&i.BurstLen, "burst", 0, "packets of a burst")
	flag.IntVar(&i.BurstAt, "burst-at", 10000, "first packet of the first burst")
	flag.IntVar(&i.BurstEvery, "burst-each", 0, "packets from burst to burst")
	flag.Float64Var(&i.Duplicate, "duplicate", 0, "share doubled")
	flag.IntVar(&i.ReorderEvery, "reorder-each", 0, "every so many, one packet comes late")
	flag.IntVar(&i.ReorderBy, "reorder-by", 1000, "by so many packets")
	flag.IntVar(&i.FlipEvery, "flip-each", 0, "every so many, a damaged copy")
	flag.IntVar(&i.TruncateEvery, "truncate-each", 0, "every so many, a short copy")
	flag.IntVar(&i.GarbageEvery, "garbage-each", 0, "every so many, a random packet")
	flag.IntVar(&i.ReplayEvery, "replay-each", 0, "every so many, an old packet")
	flag.Parse()
	if err := run(i, *listen, *to); err != nil {
		log.Fatal(err)
	}
}

func run(i diodetest.Impairment, listen, to string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	in, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return err
	}
	f := diodetest.New(i)
	if err := diodetest.Relay(ctx, in, dst, f); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(f.Counts())
}
