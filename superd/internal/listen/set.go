// Package listen owns the listening sockets: it opens them, waits for
// connections on all of them with one thread, and closes them. It decides
// nothing about a connection; it hands the descriptor over and forgets it.
package listen

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Door is what stands behind a listening socket: one service.
type Door interface {
	// Enter takes a place for one connection, before it is accepted. Where
	// there is none, the socket is left alone, and its connections wait in
	// the kernel's queue until Set.Resume.
	Enter() bool
	// Leave gives the place back: nobody was there after all.
	Leave()
	// Connection takes over an accepted, blocking descriptor that is closed
	// on exec. It must not block.
	Connection(fd int, remote, local netip.AddrPort)
}

// A Set is all listening sockets of superd and the thread that accepts.
type Set struct {
	set, waker int
	above      func(fd int) (int, error) // moves what lives long out of accept's way
	complain   func(error)               // accept is out of something; called once for each such time
	holders    *holders                  // of ports that were taken when Open was to open them; nil where none was

	mu     sync.Mutex
	orders []func() // for Serve to run; guarded by mu
	freed  bool     // the descriptors are no longer the set's; guarded by mu
	woken  atomic.Bool
	done   chan struct{} // closed when Serve has returned

	// What only Serve touches once it runs.
	sockets []*Socket // by number
	doors   map[Door][]*Socket
	delay   time.Duration // of the present shortage; 0 for none
	closing bool
}

// A Socket is one listening socket.
type Socket struct {
	fd       int
	number   int32 // its place in the set's list
	door     Door
	local    netip.AddrPort
	accepted int  // connections so far; touched by Serve only
	any      bool // bound to all addresses: each connection has its own local one
	paused   bool // not waited for; touched by Serve only
}

// Local is the address that the socket is really bound to.
func (s *Socket) Local() netip.AddrPort { return s.local }

// NewSet makes a set without sockets. Above moves a descriptor out of the
// range in which accepted connections land; complain hears, once for each such
// time, that connections cannot be accepted for lack of something.
func NewSet(above func(int) (int, error), complain func(error)) (*Set, error) {
	s := &Set{set: -1, waker: -1, above: above, complain: complain,
		done: make(chan struct{}), doors: map[Door][]*Socket{}}
	low, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if s.set, err = above(low); err != nil {
		return nil, err
	}
	if low, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		s.waker, err = above(low)
	}
	if err == nil {
		err = unix.EpollCtl(s.set, unix.EPOLL_CTL_ADD, s.waker, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakerNumber})
	}
	if err != nil {
		unix.Close(s.set)
		unix.Close(s.waker)
		return nil, err
	}
	return s, nil
}

// wakerNumber stands in an event for the eventfd, where others have a socket's
// number.
const wakerNumber = -1

// settling is how soon Serve looks again whether descriptors that it lent are
// its own again.
const settling = 1 // millisecond

// Serve accepts connections until Close. Settle is called between connections
// and returns how much of what they left behind waits to be cleared away;
// while there is any, Serve sleeps for a millisecond at most.
func (s *Set) Serve(settle func() int) {
	defer close(s.done)
	var events [64]unix.EpollEvent
	for !s.closing {
		for _, e := range events[:s.wait(events[:], settle)] {
			if e.Fd == wakerNumber {
				s.obey()
			} else {
				s.burst(s.sockets[e.Fd])
			}
		}
	}
}

// wait returns the number of sockets with connections, at most all of events.
func (s *Set) wait(events []unix.EpollEvent, settle func() int) int {
	left := settle()
	n, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.set), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), 0, 0, 0)
	if int(n) > 0 { // under load always: Go's scheduler need not hear of it
		return int(n)
	}
	timeout := -1
	if left > 0 {
		timeout = settling
	}
	count, err := unix.EpollWait(s.set, events, timeout)
	if err != nil {
		return 0
	}
	return count
}

// burstLength is how many connections of one socket are accepted before the
// next socket has its turn.
const burstLength = 16

func (s *Set) burst(k *Socket) {
	if k.paused {
		return
	}
	for range burstLength {
		if !k.door.Enter() {
			s.pause(k)
			return
		}
		fd, remote, err := k.acceptOne()
		if err != nil {
			k.door.Leave()
			s.trouble(err)
			return
		}
		s.delay = 0
		k.accepted++
		k.door.Connection(fd, remote, k.localOf(fd))
	}
}

// pause stops waiting for a socket; what comes is queued by the kernel.
func (s *Set) pause(k *Socket) {
	k.paused = true
	unix.EpollCtl(s.set, unix.EPOLL_CTL_MOD, k.fd, &unix.EpollEvent{Events: 0, Fd: k.number})
}

// Resume waits again for the sockets of door, which has room.
func (s *Set) Resume(door Door) {
	s.order(func() {
		for _, k := range s.doors[door] {
			if k.paused {
				k.paused = false
				unix.EpollCtl(s.set, unix.EPOLL_CTL_MOD, k.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: k.number})
			}
		}
	})
}

// Delays between attempts to accept while the system is out of something.
const (
	shortestDelay = 5 * time.Millisecond
	longestDelay  = time.Second
)

// trouble deals with an error of accept. Those of one connection concern
// nobody (accept(2), "Error handling"); when the system is out of something,
// all connections wait in the kernel's queues, and superd tries again with a
// growing delay. An order ends the delay.
func (s *Set) trouble(err error) {
	if !scarce(err) {
		return
	}
	if s.delay == 0 {
		s.complain(err)
	}
	s.delay = min(max(2*s.delay, shortestDelay), longestDelay)
	unix.Poll([]unix.PollFd{{Fd: int32(s.waker), Events: unix.POLLIN}}, int(s.delay.Milliseconds()))
}

func scarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) ||
		errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// Close accepts what the kernel has queued already, as far as there is room
// for it, closes all sockets, and ends Serve, which must be running.
func (s *Set) Close() {
	s.order(func() {
		for _, k := range s.sockets {
			s.takeQueue(k)
		}
		s.closing = true
	})
	<-s.done
	s.free()
}

// free closes all descriptors of a set that nobody serves.
func (s *Set) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed = true
	for _, k := range s.sockets {
		unix.Close(k.fd)
	}
	unix.Close(s.set)
	unix.Close(s.waker)
}

// order has Serve run f. After the set's end it does nothing: connections end
// later than their listening sockets, and make room nobody waits for.
func (s *Set) order(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.freed {
		return
	}
	s.orders = append(s.orders, f)
	if !s.woken.Swap(true) {
		one := [8]byte{0: 1}
		unix.Write(s.waker, one[:])
	}
}

func (s *Set) obey() {
	var count [8]byte
	unix.Read(s.waker, count[:])
	s.woken.Store(false)
	s.mu.Lock()
	orders := s.orders
	s.orders = nil
	s.mu.Unlock()
	for _, f := range orders {
		f()
	}
}
