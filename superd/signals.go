package main

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Signals that come while one superd takes the place of another are not to be
// lost, and not to end it: execve(2) gives every signal its default action,
// which for these is to end the process, and Go's start unblocks them before
// anybody can say that he wants them. So they are blocked in all threads, taken
// from the kernel and handed on in the will; what comes from then on is ignored
// until Go's start gives each signal a handler of its own, and noted as soon as
// that is over (spawn.ReleaseSignals). While Go starts nothing can be done: a
// fraction of a millisecond remains in which TERM ends superd.

// heard are the signals that mean something to superd.
var heard = []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}

// holdSignals blocks and ignores those signals, and returns which of them have
// come and were not looked at. Release takes that back.
//
// Where Go cannot reach all threads, which is so in a program with cgo alone, a
// signal can get lost that comes in these microseconds.
func (d *daemon) holdSignals() (waiting []unix.Signal, release func()) {
	set := signalSet(heard)
	mask(unix.SIG_BLOCK, &set)
	settle := make(chan os.Signal, 1)
	signal.Notify(settle, unix.SIGWINCH)
	signal.Stop(settle) // returns when what has arrived is in its channels
	for _, c := range []chan os.Signal{d.stops, d.hangups, d.others} {
		waiting = append(waiting, received(c)...)
	}
	restore := ignore(append([]unix.Signal{unix.SIGPIPE}, heard...))
	waiting = append(waiting, pending(&set)...)
	return waiting, func() {
		restore()
		for _, s := range waiting {
			unix.Kill(os.Getpid(), s)
		}
		mask(unix.SIG_UNBLOCK, &set)
	}
}

func signalSet(list []unix.Signal) (set uint64) {
	for _, s := range list {
		set |= 1 << (s - 1)
	}
	return set
}

// mask changes what all threads have blocked.
func mask(how uintptr, set *uint64) {
	syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, how, uintptr(unsafe.Pointer(set)), 0, unsafe.Sizeof(*set), 0, 0)
}

// received takes what is in a channel.
func received(c chan os.Signal) (list []unix.Signal) {
	for {
		select {
		case s := <-c:
			list = append(list, s.(unix.Signal))
		default:
			return list
		}
	}
}

// pending takes the signals of set, which are blocked, that the kernel has.
func pending(set *uint64) (list []unix.Signal) {
	var now unix.Timespec
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(set)), 0,
			uintptr(unsafe.Pointer(&now)), unsafe.Sizeof(*set), 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return list
		default:
			if s := unix.Signal(n); !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
}

// An action is struct sigaction of the kernel: the handler first.
type action [4]uint64

// ignore has the kernel throw signals away, also across execve; restore gives
// them to Go again.
func ignore(list []unix.Signal) (restore func()) {
	const ignored = 1 // SIG_IGN
	before := make([]action, len(list))
	for i, s := range list {
		setAction(s, &action{ignored}, &before[i])
	}
	return func() {
		for i, s := range list {
			setAction(s, &before[i], nil)
		}
	}
}

func setAction(s unix.Signal, to, before *action) {
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(before)), 8, 0, 0)
}
