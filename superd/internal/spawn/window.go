package spawn

import (
	"golang.org/x/sys/unix"

	"superd/superd/internal/spawn/origin"
)

// A window is the low end of the descriptor table, where connections land and
// what a spawn needs is handed over. A child copies only what lies below the
// highest number in use there, so all that lives longer is kept above it: with
// 15,000 descriptors open, copying them all would cost 19 spawns of 20.
type window int

// widest is the size of the window where the limit of open files allows it.
const widest = 64

// newWindow fits the window to the limit of open files: a small limit needs
// most of its numbers for what lives long.
func newWindow() window {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur >= 4*widest {
		return widest
	}
	return window(limit.Cur / 4)
}

// above moves fd out of the window and closes the low number, whether or not
// that worked. The new descriptor is closed on exec.
func (w window) above(fd int) (int, error) {
	high, err := w.dupAbove(fd)
	unix.Close(fd)
	return high, err
}

// dupAbove duplicates fd to a number above the window, closed on exec.
func (w window) dupAbove(fd int) (int, error) {
	return dupFrom(fd, int(w))
}

// dupFrom duplicates fd to the lowest free number that is at least lowest.
func dupFrom(fd, lowest int) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, uintptr(lowest))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// changedOpenFileLimit is the limit that superd was started with, when Go's
// start or superd has changed it since; else nil.
func changedOpenFileLimit() *origin.Limit {
	var now unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &now) == nil && now.Cur == origin.NoFile.Soft && now.Max == origin.NoFile.Hard {
		return nil
	}
	limit := origin.NoFile
	return &limit
}
