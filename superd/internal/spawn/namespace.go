package spawn

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// errNeedsRoot: superd makes no user namespaces, with which an ordinary user
// could have the others.
var errNeedsRoot = errors.New("it takes root: CAP_SYS_ADMIN")

// newNamespace makes a namespace of kind, CLONE_NEWNET or CLONE_NEWNS, has
// furnish work inside it, and returns a descriptor of it above the window.
// The descriptor is all that keeps it (namespaces(7)); children enter it with
// setns(2).
func (e *Engine) newNamespace(kind int, furnish func() error) (fd int, err error) {
	OnThreadOfItsOwn(func() {
		if err = unshare(kind); err != nil {
			return
		}
		if fd, err = e.openNamespace(kind); err != nil { // before furnish, which may unmount /proc
			return
		}
		if err = furnish(); err != nil {
			unix.Close(fd)
		}
	})
	return fd, err
}

// unshare gives the calling thread a namespace of its own.
func unshare(kind int) error {
	switch err := unix.Unshare(kind); err {
	case nil:
		return nil
	case unix.EPERM:
		return errNeedsRoot
	default:
		return fmt.Errorf("cannot unshare it: %w", err)
	}
}

// openNamespace opens the calling thread's namespace of kind.
func (e *Engine) openNamespace(kind int) (int, error) {
	file := map[int]string{unix.CLONE_NEWNET: "net", unix.CLONE_NEWNS: "mnt"}[kind]
	path := "/proc/thread-self/ns/" + file
	low, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return e.window.above(low)
}

// OnThreadOfItsOwn runs f on a thread that serves no other goroutine and ends
// with f, so that f may change what belongs to a thread: the runtime ends a
// thread whose goroutine returns without unlocking it.
//
// The main thread is not used, since it cannot end: it would stay in what f has
// entered, and that is what /proc/PID shows.
func OnThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			OnThreadOfItsOwn(f) // meanwhile this goroutine occupies the main thread
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
