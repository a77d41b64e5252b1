package mirror

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A SpaceError says, before the first byte is written, that a folder's file
// system has too little room.
type SpaceError struct {
	Dir          string
	Needed, Free int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s: %d bytes needed, %d free", e.Dir, e.Needed, e.Free)
}

// reserve stays free beside what a run needs: the ledger, manifests, reports.
const reserve = 16 << 20

// room compares needs (folder to bytes) with what their file systems have
// free; folders on one file system are added up. It returns the figures of
// the tightest file system, and an error where one is too small.
func room(needs map[string]int64) (SpaceError, error) {
	type fsys struct {
		SpaceError
	}
	byDev := make(map[uint64]*fsys)
	for dir, n := range needs {
		dir = existing(dir)
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return SpaceError{}, fmt.Errorf("stat %s: %w", dir, err)
		}
		f := byDev[st.Dev]
		if f == nil {
			var vfs unix.Statfs_t
			if err := unix.Statfs(dir, &vfs); err != nil {
				return SpaceError{}, fmt.Errorf("statfs %s: %w", dir, err)
			}
			f = &fsys{SpaceError{Dir: dir, Free: int64(min(vfs.Bavail, 1<<40)) * vfs.Bsize}}
			byDev[st.Dev] = f
		}
		f.Needed += n
	}
	var worst SpaceError
	for _, f := range byDev {
		if worst.Dir == "" || f.Free-f.Needed < worst.Free-worst.Needed {
			worst = f.SpaceError
		}
	}
	if worst.Needed > 0 && worst.Needed+reserve > worst.Free {
		worst.Needed += reserve
		return worst, &worst
	}
	return worst, nil
}

// existing is dir or its nearest parent that exists.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return dir
		}
		dir = parent
	}
}

// Is makes errors.Is(err, syscall.ENOSPC) match, as for an error of the
// system itself.
func (e *SpaceError) Is(target error) bool { return target == error(syscall.ENOSPC) }
