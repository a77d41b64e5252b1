// Command headload asks a server for the headers of files over many
// connections at once and prints how long the replies took. Each connection
// sends a request, waits for the reply, and sends the next one when its turn
// comes: with -rate R all connections together send R a second, evenly spread,
// and a reply that is late counts from when its request was due.
//
//	headload -conns 1000 -rate 5000 -for 10s URL...
//
// The requests are written by hand on plain connections, so that what is
// measured is the server and not a client library.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"
)

func main() {
	conns := flag.Int("conns", 1000, "connections at once")
	rate := flag.Float64("rate", 5000, "requests a second, over all connections; 0 sends as fast as replies come")
	span := flag.Duration("for", 10*time.Second, "how long")
	flag.Parse()
	if err := run(os.Stdout, *conns, *rate, *span, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer, conns int, rate float64, span time.Duration, urls []string) error {
	if len(urls) == 0 || conns < 1 {
		return errors.New("want one connection at least, and a URL")
	}
	var every time.Duration
	if rate > 0 {
		every = time.Duration(float64(conns) / rate * float64(time.Second))
	}
	start := make(chan struct{})
	results := make([][]time.Duration, conns)
	errs := make([]error, conns)
	var ready, done sync.WaitGroup
	for i := range conns {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			u, err := url.Parse(urls[i%len(urls)])
			if err != nil {
				errs[i] = err
				ready.Done()
				return
			}
			c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", u.Host)
			ready.Done()
			if err != nil {
				errs[i] = err
				return
			}
			<-start
			first := time.Now().Add(every * time.Duration(i) / time.Duration(conns))
			results[i], errs[i] = one(c, u, first, every, span)
			errs[i] = errors.Join(errs[i], c.Close())
		}()
	}
	ready.Wait()
	close(start)
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	all := slices.Concat(results...)
	slices.Sort(all)
	if len(all) == 0 {
		return errors.New("no reply")
	}
	at := func(p float64) float64 { return all[min(len(all)-1, int(p*float64(len(all))))].Seconds() * 1000 }
	_, err := fmt.Fprintf(out, "replies %d, a second %.0f, ms p50 %.3f p99 %.3f max %.3f\n", len(all), float64(len(all))/span.Seconds(), at(0.5), at(0.99), at(1))
	return err
}

// one uses one connection until the time is over.
func one(c net.Conn, u *url.URL, due time.Time, every, span time.Duration) ([]time.Duration, error) {
	request := []byte("HEAD " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nAccept-Encoding: identity\r\nUser-Agent: headload\r\n\r\n")
	r := bufio.NewReader(c)
	end := due.Add(span)
	var took []time.Duration
	for due.Before(end) {
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		sent := time.Now()
		if every > 0 {
			sent = due
		}
		if _, err := c.Write(request); err != nil {
			return took, err
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodHead})
		if err != nil {
			return took, err
		}
		if err := resp.Body.Close(); err != nil { // it has none
			return took, err
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get("X-Repo-Commit") == "" {
			return took, fmt.Errorf("%s: %s", u, resp.Status)
		}
		took = append(took, time.Since(sent))
		if due = due.Add(every); every == 0 {
			due = time.Now()
		}
	}
	return took, nil
}
