package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRange(t *testing.T) {
	file := []byte(strings.Repeat("0123456789", 100))
	mux := http.NewServeMux()
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(file))
	})
	mux.HandleFunc("/whole", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(file) })
	mux.HandleFunc("/other", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 5-14/1000")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(file[5:15])
	})
	mux.HandleFunc("/unknown", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/*")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(file[:10])
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/1000")
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(file[:4])
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	c, err := New(NewPool(2, 2), Config{Name: "pypi/main", Hosts: []string{strings.TrimPrefix(srv.URL, "http://")}, AllowHTTP: true, MaxRetries: -1})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path           string
		offset, length int64
		want           []byte
		start          int64
		err            string
	}{
		{"/file", 0, 10, file[:10], 0, ""},
		{"/file", 995, 10, file[995:], 995, ""},
		{"/file", -30, 30, file[970:], 970, ""},
		{"/file", -4000, 4000, file, 0, ""},
		{"/file", 2000, 10, nil, 0, ErrNoRanges.Error()},
		{"/file", -30, 20, nil, 0, "range of 20 bytes from -30"},
		{"/file", 0, 0, nil, 0, "range of 0 bytes"},
		{"/whole", 0, 10, nil, 0, ErrNoRanges.Error()},
		{"/other", 0, 10, nil, 0, ErrNoRanges.Error()},
		{"/unknown", 0, 10, nil, 0, ErrNoRanges.Error()},
		{"/cut", 0, 10, nil, 0, "cut short"},
		{"/none", 0, 10, nil, 0, "404"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %d+%d", tt.path, tt.offset, tt.length), func(t *testing.T) {
			got, start, total, err := c.Range(t.Context(), srv.URL+tt.path, tt.offset, tt.length)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				if tt.err == ErrNoRanges.Error() && !errors.Is(err, ErrNoRanges) {
					t.Fatalf("%v is not ErrNoRanges", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, tt.want) || start != tt.start || total != int64(len(file)) {
				t.Fatalf("got %q from %d of %d, %v", got, start, total, err)
			}
		})
	}
}
