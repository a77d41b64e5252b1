package remote

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/oci/spec"
)

const (
	sessionSchema = "darkmirror.upload/v1"
	// maxSession bounds a session's file: a URL and the state of a hash.
	maxSession = 32 << 10
	// sessionLife is when a session that nobody went on with is forgotten;
	// registries drop theirs after a week.
	sessionLife = 8 * 24 * time.Hour
)

// A session is an upload as far as the registry has confirmed it. It is kept
// as a small file, so that another process can go on.
type session struct {
	Schema     string `json:"schema"`
	Registry   string `json:"registry"` // with scheme
	Repository string `json:"repository"`
	Digest     string `json:"digest"`
	Size       int64  `json:"size"`
	URL        string `json:"url"`
	Offset     int64  `json:"offset"`
	// Hash is the state of the hash over the bytes before Offset, so that
	// they need not be read again; empty where the content was proven.
	Hash     []byte `json:"hash"`
	MinChunk int64  `json:"min_chunk"`

	url      *url.URL
	hash     hash.Hash
	unhashed bool // hash knows nothing of the bytes before Offset
}

// sessionFile is where the session of a blob is kept; empty: nowhere.
func (c *Client) sessionFile(repo string, d spec.Digest) string {
	if c.c.StateDir == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(c.base.String() + "\n" + repo + "\n" + string(d)))
	return filepath.Join(c.c.StateDir, "upload-"+hex.EncodeToString(sum[:])+".json")
}

// save keeps the session. The hash's state is that of Offset.
func (s *session) save(file string) error {
	if file == "" {
		return nil
	}
	state, ok := s.hash.(encoding.BinaryMarshaler)
	if !ok {
		return errors.New("the hash cannot be kept") // both of ours can
	}
	var err error
	if s.Hash = []byte{}; !s.unhashed {
		if s.Hash, err = state.MarshalBinary(); err != nil {
			return err
		}
	}
	s.URL = s.url.String()
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	failpoint.Here("remote.session-save")
	if err := durable.WriteFile(file, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep upload session: %w", err)
	}
	failpoint.Here("remote.session-saved")
	return nil
}

// forget removes the session's file.
func forget(file string) error {
	if file == "" {
		return nil
	}
	failpoint.Here("remote.session-forget")
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget upload session: %w", err)
	}
	// Not synced: a session that comes back with a power loss is found to be
	// gone at the registry, or to be of a blob that is there.
	failpoint.Here("remote.session-forgotten")
	return nil
}

// resume reads the session of a blob, nil where there is none that fits. What
// cannot be read is thrown away: the blob then starts anew.
func (c *Client) resume(file, repo string, d spec.Digest, size int64) (*session, error) {
	if file == "" {
		return nil, nil
	}
	b, err := readSession(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: upload session: %w", c.c.Name, err)
	}
	s, err := c.parseSession(b, repo, d, size)
	if err != nil {
		c.log.Warn("an upload session cannot be used", slog.String("source", c.c.Name), slog.String("digest", string(d)), slog.String("reason", err.Error()))
		return nil, forget(file)
	}
	return s, nil
}

func readSession(file string) (b []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, maxSession+1))
}

// parseSession reads a session's file and holds it to the blob and to the
// allow-list.
func (c *Client) parseSession(b []byte, repo string, d spec.Digest, size int64) (*session, error) {
	if len(b) > maxSession {
		return nil, fmt.Errorf("more than %d bytes", maxSession)
	}
	s := new(session)
	if err := strictjson.Unmarshal(b, s); err != nil {
		return nil, err
	}
	if s.Schema != sessionSchema || s.Registry != c.base.String() || s.Repository != repo || s.Digest != string(d) || s.Size != size {
		return nil, errors.New("it is of another blob")
	}
	if s.Offset < 0 || s.Offset > size || s.MinChunk < 0 {
		return nil, errors.New("its offset is impossible")
	}
	var err error
	if s.url, err = c.location(c.base, s.URL); err != nil {
		return nil, errors.New("its address is not allowed")
	}
	s.hash = d.New()
	if len(s.Hash) == 0 {
		s.unhashed = true
		return s, nil
	}
	state, ok := s.hash.(encoding.BinaryUnmarshaler)
	if !ok || state.UnmarshalBinary(s.Hash) != nil {
		return nil, errors.New("the state of its hash cannot be read")
	}
	return s, nil
}

// newSession starts one at the address that the registry gave.
func (c *Client) newSession(repo string, d spec.Digest, size int64, at *url.URL, minChunk int64) *session {
	return &session{
		Schema: sessionSchema, Registry: c.base.String(), Repository: repo, Digest: string(d), Size: size,
		url: at, hash: d.New(), MinChunk: minChunk,
	}
}

// sweepSessions removes what nobody went on with, temporary files of killed
// runs included. Files are told by age, since other clients may be writing.
func sweepSessions(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		ours := strings.HasPrefix(e.Name(), "upload-") && strings.HasSuffix(e.Name(), ".json")
		if !ours && !strings.HasPrefix(e.Name(), durable.TempPrefix) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if now.Sub(info.ModTime()) < sessionLife {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
