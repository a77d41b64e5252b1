package pypi

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// A name that is reserved as internal is asked for by nobody, whether it comes
// from requirements or from a lock.
func TestInternalInLock(t *testing.T) {
	f := pypitest.Wheel("acme_core-1.0-py3-none-any.whl", "")
	x := pypitest.New(f)
	o := newOutside(t, x, map[string]string{"a.txt": pypitest.Pin(f) + "\n"}, func(c *Config) { c.Internal = []string{"acme-*"} })
	_, _, err := o.Resolve(t.Context(), nil)
	wantRefusal(t, err, ErrLock, "PYPI-INTERNAL", "acme-core")
	if asked := x.Requests(); len(asked) != 0 {
		t.Errorf("asked outside: %q", asked)
	}
}

// A server claims a wheel of 4 EiB with more entries than memory holds. No room
// is made for them.
func TestRangedZipClaims(t *testing.T) {
	for _, entries := range []uint64{1 << 49, 1 << 33, 1 << 22} {
		const size = int64(1) << 62
		le := binary.LittleEndian
		e64 := make([]byte, 56)
		le.PutUint32(e64, 0x06064b50)
		le.PutUint64(e64[4:], 44)
		le.PutUint64(e64[24:], entries)
		le.PutUint64(e64[32:], entries)
		le.PutUint64(e64[40:], 46)
		le.PutUint64(e64[48:], uint64(size-98-46))
		locator := make([]byte, 20)
		le.PutUint32(locator, 0x07064b50)
		le.PutUint64(locator[8:], uint64(size-98))
		le.PutUint32(locator[16:], 1)
		end := make([]byte, 22)
		le.PutUint32(end, 0x06054b50)
		le.PutUint16(end[8:], 0xffff)
		le.PutUint16(end[10:], 0xffff)
		le.PutUint32(end[12:], 0xffffffff)
		le.PutUint32(end[16:], 0xffffffff)
		body := make([]byte, 64<<10)
		copy(body[len(body)-98:], strings.Join([]string{string(e64), string(locator), string(end)}, ""))
		index := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/simple/") {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprint(w, `<a href="/files/a-1.0-py3-none-any.whl#sha256=`+strings.Repeat("ab", 32)+`">a-1.0-py3-none-any.whl</a>`)
				return
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", size-int64(len(body)), size-1, size))
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(body) // whoever reads it notices
		})
		o := newOutside(t, index, nil, func(c *Config) { c.Packages, c.AssumeOld = []string{"a"}, true })
		_, _, err := o.Resolve(t.Context(), nil)
		if err == nil {
			t.Errorf("%d entries: the wheel was taken", entries)
		}
		if err := boundDirectory(claim{size, body}, size); err == nil || !strings.Contains(err.Error(), "claims") {
			t.Errorf("%d entries: %v", entries, err)
		}
	}
}

// A claim is a file of that size that ends with these bytes.
type claim struct {
	size int64
	end  []byte
}

func (c claim) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if at := off - (c.size - int64(len(c.end))); at >= 0 {
		copy(p, c.end[at:])
	} else if -at < int64(len(p)) {
		copy(p[-at:], c.end)
	}
	return len(p), nil
}
