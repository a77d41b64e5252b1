package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stallTime ends a request whose body stands still: whoever is behind it
	// is gone, and its upload must be free to be taken up again.
	stallTime = 60 * time.Second
	// moveEvery is how often the deadline is moved while bytes arrive.
	moveEvery = time.Second
	// handover is how long a request waits for the one before it to let go
	// of the upload. It lets go at once, unless the disk hangs.
	handover = 10 * time.Second
	// bindLen is the number of bytes that bind an upload to its repository.
	bindLen = 8
)

// errHandedOver ends a request whose upload another one has taken up.
var errHandedOver = errors.New("the upload was taken up by another request")

// sessions are the uploads that are being written to by this process. A
// client whose line broke comes back before the server has noticed; its new
// request ends the old one.
type sessions struct {
	mu   sync.Mutex
	open map[string]*session
}

// A session is one request's hold of an upload.
type session struct {
	stopped atomic.Bool
	control *http.ResponseController
	done    chan struct{}
}

// enter takes an upload for a request; leave gives it back.
func (s *sessions) enter(ctx context.Context, id string, w http.ResponseWriter) (_ *session, leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	mine := &session{control: http.NewResponseController(w), done: make(chan struct{})}
	for {
		s.mu.Lock()
		other := s.open[id]
		if other == nil {
			s.open[id] = mine
		}
		s.mu.Unlock()
		if other == nil {
			return mine, func() {
				s.mu.Lock()
				delete(s.open, id)
				s.mu.Unlock()
				close(mine.done)
			}, nil
		}
		other.stop()
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, nil, faultf(http.StatusConflict, codeUploadInvalid, "the upload is in use by another request")
		}
	}
}

// stop makes the request's next read of its body fail, also one that waits.
func (s *session) stop() {
	s.stopped.Store(true)
	_ = s.control.SetReadDeadline(time.Now()) // not every server can; then it ends by itself
}

// A meter reads a request's body and notes why it ended.
type meter struct {
	body    io.Reader
	session *session
	next    time.Time // when the deadline is moved
	err     error     // of the body, other than io.EOF
}

func (m *meter) Read(p []byte) (int, error) {
	if now := time.Now(); now.After(m.next) {
		m.next = now.Add(moveEvery)
		_ = m.session.control.SetReadDeadline(now.Add(stallTime)) // as above
	}
	// After the deadline was moved: stop may have set it before.
	if m.session.stopped.Load() {
		m.err = errHandedOver
		return 0, m.err
	}
	n, err := m.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}

// end takes the deadline away: the server watches the line while the rest of
// the request is done.
func (m *meter) end() { _ = m.session.control.SetReadDeadline(time.Time{}) } // as above

// sessionID is what a client sees of an upload: its name in the store, and
// what only it and this repository make. An upload is so bound to its
// repository without a record of it.
func sessionID(id, name string) string { return id + binding(id, name) }

func binding(id, name string) string {
	sum := sha256.Sum256([]byte(id + " " + name))
	return hex.EncodeToString(sum[:bindLen])
}

// uploadOf is the inverse of sessionID.
func uploadOf(ref, name string) (id string, ok bool) {
	if len(ref) < 2*bindLen {
		return "", false
	}
	id = ref[:len(ref)-2*bindLen]
	return id, ref == sessionID(id, name)
}
