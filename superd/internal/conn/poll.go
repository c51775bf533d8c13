package conn

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/spawn"
)

// kind is what an event of the epoll set says.
type kind uint32

const (
	processEnded    kind = iota // a pidfd
	stderrReadable              // a pipe of descriptor 2
	connectionMoved             // a connection that is heeded, or drained
	ordered                     // the eventfd: orders or an earlier deadline
)

// key is what an event carries: which record, in which of its uses.
type key struct {
	slot, use uint32
	kind      kind
}

// useMask is what of a record's use fits beside the kind.
const useMask = 1<<30 - 1

func (k key) event(events uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(k.slot), Pad: int32(uint32(k.kind)<<30 | k.use&useMask)}
}

func keyOf(e *unix.EpollEvent) key {
	return key{slot: uint32(e.Fd), use: uint32(e.Pad) & useMask, kind: kind(uint32(e.Pad) >> 30)}
}

// A poller is the epoll set that Watch waits for.
type poller struct {
	set, waker int
	woken      atomic.Bool // a wake-up is under way: another would change nothing
	events     [256]unix.EpollEvent
}

func newPoller(e *spawn.Engine) (*poller, error) {
	p := &poller{set: -1, waker: -1}
	low, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if p.set, err = e.Above(low); err != nil {
		return nil, err
	}
	if low, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		p.waker, err = e.Above(low)
	}
	if err == nil {
		err = p.add(p.waker, key{kind: ordered})
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) add(fd int, k key) error { return p.addFor(unix.EPOLLIN, fd, k) }

func (p *poller) addFor(events uint32, fd int, k key) error {
	e := k.event(events)
	return unix.EpollCtl(p.set, unix.EPOLL_CTL_ADD, fd, &e)
}

// closeFD closes fd after it has been taken out of the set: another process
// can hold the same file a moment longer, and the set would go on reporting
// it.
func (p *poller) closeFD(fd int) {
	p.remove(fd)
	unix.Close(fd)
}

func (p *poller) remove(fd int) {
	unix.EpollCtl(p.set, unix.EPOLL_CTL_DEL, fd, nil)
}

// wait returns what has happened within timeout milliseconds, -1 being for
// ever. The result is valid until the next call.
func (p *poller) wait(timeout int) []unix.EpollEvent {
	if n := p.look(); n > 0 || timeout == 0 {
		return p.events[:n]
	}
	n, err := unix.EpollWait(p.set, p.events[:], timeout)
	if err != nil { // EINTR: nothing else can go wrong with a set of our own
		return nil
	}
	return p.events[:n]
}

// look returns how many events are there already. Under load there are always
// some, and Go's scheduler need not hear of a call that does not wait.
func (p *poller) look() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.set), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// wake ends the current or the next wait.
func (p *poller) wake() {
	if !p.woken.Swap(true) {
		one := [8]byte{0: 1}
		unix.Write(p.waker, one[:])
	}
}

// hear takes note of a wake-up, before what it announces is looked at.
func (p *poller) hear() {
	var count [8]byte
	unix.Read(p.waker, count[:])
	p.woken.Store(false)
}

func (p *poller) close() {
	unix.Close(p.set)
	unix.Close(p.waker)
}
