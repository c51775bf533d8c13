package spawn

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A keeper makes cells ahead of the connections that will need them, and takes
// them apart when their program has ended, on a thread of its own. Both would
// otherwise be a part of each connection: a child takes longer to make its cell
// than for all its other steps, and the last process in a mount namespace ends
// only when the kernel's RCU has passed a grace period, which is a millisecond
// while all processors are busy.
//
// Where no cell is ready, a child makes its own, and nobody waits.
type keeper struct {
	mu     sync.Mutex
	stocks []*stock // of the plans that are open; guarded by mu, like all that follows
	used   []int    // namespaces to take apart
	bell   int      // an eventfd above the window, on which the thread waits; 0 while there is no thread
	rung   bool     // and not heard yet
	ends   bool
	done   chan struct{} // closed when the thread has ended
}

// KeepsCells tells whether a limit of so many open files leaves room for cells:
// CellDescriptors, and one for each connection that has one.
func KeepsCells(limit uint64) bool { return limit >= 1024 }

// CellDescriptors is how many descriptors at most are held for cells that no
// connection has, with n services whose programs have a /tmp of their own.
func CellDescriptors(n int) int { return n*2*stockSize + mostUsed }

// KeepCells starts to prepare the private /tmp of programs ahead, for all plans
// of e that need it; the first are ready when it returns. It does nothing where
// no plan does, where it has been called already, and where the limit of open
// files is small. An error says that children go on to do it themselves.
// StopKeeping ends it.
func (e *Engine) KeepCells() error {
	k := &e.keeper
	begun, err := k.begin(e)
	if !begun || err != nil {
		return err
	}
	ready := make(chan error)
	go func() {
		defer close(k.done)
		OnThreadOfItsOwn(func() { k.work(e, ready) })
	}()
	if err = <-ready; err != nil {
		e.StopKeeping()
	}
	return err
}

// begin makes the bell of a keeper that there is work for.
func (k *keeper) begin(e *Engine) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if k.bell != 0 || len(k.stocks) == 0 || !KeepsCells(limit.Cur) {
		return false, nil
	}
	low, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return false, err
	}
	bell, err := e.Above(low)
	if err != nil {
		return false, err
	}
	k.bell, k.rung, k.ends, k.done = bell, false, false, make(chan struct{})
	return true, nil
}

// StopKeeping ends what KeepCells has started, and waits for it. Cells that
// are ready go with their plan.
func (e *Engine) StopKeeping() {
	k := &e.keeper
	k.mu.Lock()
	if k.bell == 0 {
		k.mu.Unlock()
		return
	}
	k.ends = true
	k.ring()
	k.mu.Unlock()
	<-k.done
	k.mu.Lock()
	defer k.mu.Unlock()
	unix.Close(k.bell)
	k.bell = 0
	closeAll(k.used)
	k.used = nil
}

// ring wakes the thread. The caller has the lock.
func (k *keeper) ring() {
	if k.bell == 0 || k.rung {
		return
	}
	k.rung = true
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(k.bell), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
}

// work makes cells and takes them apart until the keeper is stopped. The
// calling thread is its own and ends with it.
func (k *keeper) work(e *Engine, ready chan<- error) {
	home, own, err := placeOfThread(e)
	if err != nil {
		ready <- err
		return
	}
	defer unix.Close(home)
	defer unix.Close(own)
	k.doAll(home, own)
	ready <- nil
	for k.wait() {
		k.doAll(home, own)
	}
}

// doAll does what there is to do, and has the thread return to the namespace
// home, so that no cell lives on because the thread is in it.
func (k *keeper) doAll(home, own int) {
	for k.doNext(own) {
	}
	unix.Setns(home, unix.CLONE_NEWNS)
}

// placeOfThread prepares the calling thread to change its mount namespace,
// which takes a root and a working directory of its own, and returns
// descriptors of the namespace that it is in and of its directory of
// namespaces, for the caller to close.
func placeOfThread(e *Engine) (home, own int, err error) {
	runtime.LockOSThread()
	if err = unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, -1, err
	}
	if home, err = e.openNamespace(unix.CLONE_NEWNS); err != nil {
		return -1, -1, err
	}
	if own, err = e.openAbove("/proc/thread-self/ns", unix.O_PATH|unix.O_DIRECTORY); err != nil {
		unix.Close(home)
	}
	return home, own, err
}

// wait sleeps until there is work; false is the end.
func (k *keeper) wait() bool {
	var count [8]byte
	for {
		if _, err := unix.Read(k.bell, count[:]); err != unix.EINTR {
			break
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rung = false
	return !k.ends
}

// doNext does one piece of work; false says that there was none.
func (k *keeper) doNext(own int) bool {
	s, used := k.next()
	switch {
	case s != nil:
		c, err := s.plan.newCell(own)
		s.making.Unlock()
		k.put(s, c, err)
	case used >= 0:
		unix.Close(used)
	}
	return s != nil || used >= 0
}

// next is a stock that lacks a cell, locked for making one, or else a namespace
// to take apart, or else -1.
func (k *keeper) next() (s *stock, used int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.stocks {
		if len(s.cells) < stockSize && !s.poor && !k.ends {
			s.making.Lock()
			return s, -1
		}
	}
	if len(k.used) == 0 {
		return nil, -1
	}
	used, k.used = k.used[0], k.used[1:]
	return nil, used
}
