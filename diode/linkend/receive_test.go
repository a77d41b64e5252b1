package linkend

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestWatch ends a run when nothing comes any more, and not while something is
// being done, or before anything came.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		w := &watch{idle: 3 * time.Second, cancel: func() { ended = true }}
		step := func(what string, seconds int, packets int64, busy, want bool) {
			t.Helper()
			for range seconds {
				time.Sleep(time.Second)
				w.tick(packets, busy)
			}
			if ended != want {
				t.Errorf("%s: ended %v, want %v", what, ended, want)
			}
		}
		step("nothing came", 60, 0, false, false)
		step("packets", 3, 10, false, false)
		step("hashing", 60, 10, true, false)
		step("just done", 2, 10, false, false)
		step("more packets", 1, 11, false, false)
		step("silence", 2, 11, false, false)
		step("silence", 1, 11, false, true)
		ended = false
		w.idle = 0
		step("never", 60, 11, false, false)
	})
}
