package store

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/failpoint"
	"github.com/darkmirror/darkmirror/internal/strictjson"
)

const (
	// stateExt names the file beside an upload that holds its hash state.
	stateExt = ".state"
	// maxState bounds it: SHA-256's state has 108 bytes.
	maxState = 1 << 10
	// bootFile changes with every start of the kernel.
	bootFile = "/proc/sys/kernel/random/boot_id"
)

// An uploadState is how far an upload was hashed. It is never fsynced, and
// neither are the bytes that it speaks of: it counts only while the kernel
// runs that held both. After a restart of the machine everything is hashed
// anew, since a file may then be shorter or hold zeros.
type uploadState struct {
	Boot   string `json:"boot"`
	Dev    string `json:"dev"` // text: strictjson takes no number above 2^53
	Ino    string `json:"ino"`
	Size   int64  `json:"size"`
	SHA256 []byte `json:"sha256"`
}

// newState describes u's file as it is.
func (u *Upload) newState() (uploadState, error) {
	boot, err := os.ReadFile(bootFile)
	if err != nil || len(boot) == 0 {
		return uploadState{}, errors.Join(fmt.Errorf("%s cannot be read", bootFile), err)
	}
	id, err := identify(u.f)
	if err != nil {
		return uploadState{}, err
	}
	return uploadState{
		Boot: string(bytes.TrimSpace(boot)), Dev: fmt.Sprint(id.dev), Ino: fmt.Sprint(id.ino), Size: id.size,
	}, nil
}

// saveState keeps the hash state. Without a kernel that tells its starts
// apart nothing is kept, and the next opener hashes again.
func (u *Upload) saveState() error {
	st, err := u.newState()
	if err != nil {
		return removeIfThere(u.name() + stateExt)
	}
	if st.Size != u.n {
		return fmt.Errorf("upload %s: %d bytes in the file, %d written", u.id, st.Size, u.n)
	}
	m, ok := u.h.(encoding.BinaryMarshaler)
	if !ok {
		return fmt.Errorf("upload %s: the hash has no state", u.id)
	}
	if st.SHA256, err = m.MarshalBinary(); err != nil {
		return fmt.Errorf("upload %s: %w", u.id, err)
	}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("upload %s: %w", u.id, err)
	}
	temp := filepath.Join(u.s.dir, uploadDir, durable.TempPrefix+u.id)
	if err := os.WriteFile(temp, b, 0o600); err != nil {
		return fmt.Errorf("upload %s: %w", u.id, u.s.spaced(err, int64(len(b))))
	}
	failpoint.Here("store.upload-state-written")
	if err := os.Rename(temp, u.name()+stateExt); err != nil {
		return fmt.Errorf("upload %s: %w", u.id, err)
	}
	failpoint.Here("store.upload-state-renamed")
	return nil
}

// loadState puts the kept state into u.h and returns how many bytes of the
// file it covers; 0 if there is none that can be trusted.
func (u *Upload) loadState() int64 {
	kept, err := readState(u.name() + stateExt)
	if err != nil {
		return 0
	}
	now, err := u.newState()
	if err != nil || kept.Boot != now.Boot || kept.Dev != now.Dev || kept.Ino != now.Ino || kept.Size > now.Size {
		return 0
	}
	// The state ends with the number of bytes that went into it.
	if n := len(kept.SHA256); n < 8 || binary.BigEndian.Uint64(kept.SHA256[n-8:]) != uint64(max(kept.Size, 0)) {
		return 0
	}
	m, ok := u.h.(encoding.BinaryUnmarshaler)
	if !ok || m.UnmarshalBinary(kept.SHA256) != nil {
		u.h.Reset()
		return 0
	}
	return kept.Size
}

func readState(name string) (st uploadState, err error) {
	f, err := os.Open(name)
	if err != nil {
		return uploadState{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return uploadState{}, err
	}
	if len(b) > maxState {
		return uploadState{}, fmt.Errorf("%s: more than %d bytes", name, maxState)
	}
	err = strictjson.Unmarshal(b, &st)
	return st, err
}
