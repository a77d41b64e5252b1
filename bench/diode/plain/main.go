// Command plain copies a file by UDP without any parity: what a link costs by
// itself, and what is lost without it.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"time"
)

const payload = 1408

func main() {
	var err error
	switch {
	case len(os.Args) == 5 && os.Args[1] == "send":
		err = send(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 4 && os.Args[1] == "receive":
		err = receive(os.Args[2], os.Args[3])
	default:
		err = errors.New("usage: plain send ADDRESS BITS_A_SECOND FILE | plain receive ADDRESS FILE")
	}
	if err != nil {
		log.Fatal(err)
	}
}

func send(to, rate, file string) error {
	bits, err := strconv.ParseFloat(rate, 64)
	if err != nil {
		return err
	}
	data, err := os.Open(file) //nolint:gosec // the user names it
	if err != nil {
		return err
	}
	defer func() { _ = data.Close() }() // only read
	conn, err := net.Dial("udp", to)    //nolint:gosec // the user names it
	if err != nil {
		return err
	}
	p := make([]byte, 8+payload)
	start := time.Now()
	for n := 0; ; n++ {
		got, err := data.Read(p[8:])
		if got == 0 || err != nil {
			break
		}
		binary.BigEndian.PutUint64(p, uint64(n))
		if _, err := conn.Write(p[:8+got]); err != nil {
			continue // refused: nobody listens; that is the point of this line
		}
		due := start.Add(time.Duration(float64(n) * 8 * (payload + 8 + 66) / bits * 1e9))
		if d := time.Until(due); d > time.Millisecond {
			time.Sleep(d)
		}
	}
	fmt.Fprintf(os.Stdout, "%.2f s\n", time.Since(start).Seconds())
	return conn.Close()
}

// receive writes what comes to its place until nothing came for two seconds.
func receive(at, file string) error {
	addr, err := net.ResolveUDPAddr("udp", at)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return err
	}
	if err := conn.SetReadBuffer(64 << 20); err != nil {
		return err
	}
	out, err := os.Create(file) //nolint:gosec // the user names it
	if err != nil {
		return err
	}
	p := make([]byte, 65536)
	packets := 0
	for {
		limit := time.Now().Add(2 * time.Second)
		if packets == 0 {
			limit = time.Now().Add(time.Minute)
		}
		if err := conn.SetReadDeadline(limit); err != nil {
			return err
		}
		n, err := conn.Read(p)
		if err != nil {
			break
		}
		if n > 8 {
			packets++
			if _, err := out.WriteAt(p[8:n], int64(binary.BigEndian.Uint64(p)&(1<<40-1))*payload); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(os.Stdout, "%d packets\n", packets)
	return errors.Join(out.Close(), conn.Close())
}
