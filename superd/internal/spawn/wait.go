package spawn

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An End is how a process ended and what it used, the processes that it
// waited for included.
type End struct {
	Signaled     bool
	Status       int         // exit status; 0 where Signaled
	Signal       unix.Signal // where Signaled
	User, System time.Duration
	MaxRSS       int64 // kilobytes
}

// siginfo is the part of siginfo_t that waitid(2) fills, on 64-bit Linux.
type siginfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

// cldExited is CLD_EXITED of siginfo_t's si_code: an exit, not a signal.
const cldExited = 1

// Wait reaps the process of pidfd, waiting for its end. The pidfd stays open.
func Wait(pidfd int) (End, error) { return wait(pidfd, unix.WEXITED) }

// Reap is Wait for a process that should have ended: EAGAIN says that it has
// not, or that a debugger must see it first.
func Reap(pidfd int) (End, error) { return wait(pidfd, unix.WEXITED|unix.WNOHANG) }

func wait(pidfd int, options uintptr) (End, error) {
	var info siginfo
	var usage unix.Rusage
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd),
			uintptr(unsafe.Pointer(&info)), options, uintptr(unsafe.Pointer(&usage)), 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return End{}, errno
		case info.pid == 0:
			return End{}, unix.EAGAIN
		}
		return info.end(&usage), nil
	}
}

func (i *siginfo) end(usage *unix.Rusage) End {
	e := End{
		User:   time.Duration(usage.Utime.Nano()),
		System: time.Duration(usage.Stime.Nano()),
		MaxRSS: usage.Maxrss,
	}
	if i.code == cldExited {
		e.Status = int(i.status)
	} else {
		e.Signaled, e.Signal = true, unix.Signal(i.status)
	}
	return e
}
