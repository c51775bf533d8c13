package spawn

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Supported tells, in words for an administrator, why superd cannot work on
// this kernel; nil where it can. It needs Linux 5.14, and a system call filter
// (of a container, say) that allows clone3 and close_range.
func Supported() error {
	// clone3 with no arguments does nothing: EINVAL means that it is there.
	if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno != unix.EINVAL {
		return missing("clone3", errno)
	}
	// An empty range far above any open descriptor: closes nothing.
	const far = 1<<31 - 1
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE_RANGE, far, far, unix.CLOSE_RANGE_CLOEXEC); errno != 0 {
		return missing("close_range", errno)
	}
	return nil
}

func missing(call string, errno unix.Errno) error {
	return fmt.Errorf("this kernel (%s) refuses %s: %s; superd needs Linux 5.14 or newer, and a container's system call filter that allows it",
		release(), call, unix.ErrnoName(errno))
}

// release is the kernel's version as uname(2) tells it.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Conceal keeps other users from tracing or dumping superd where it is
// privileged: a child that has changed its user shares superd's memory until
// its execve (prctl(2), PR_SET_DUMPABLE).
func Conceal() error {
	return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
