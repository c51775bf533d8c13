package spawn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel gives to process 1, and what it does not: processes whose
// parents have ended become children of its first thread, while those that
// superd starts are children of the thread that started them (waitid(2),
// __WNOTHREAD). So they can be told apart as long as that thread starts none.

// Orphan returns the number of a process that has ended, of those that are
// children of the calling thread, which must be the first one; 0 if there is
// none. The process is not reaped.
func Orphan() int {
	var info siginfo
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WNOTHREAD, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(info.pid)
}

// Bury reaps what Orphan has returned.
func Bury(pid int) {
	unix.Syscall6(unix.SYS_WAITID, unix.P_PID, uintptr(pid), 0, unix.WEXITED|unix.WNOHANG|unix.WNOTHREAD, 0, 0)
}
