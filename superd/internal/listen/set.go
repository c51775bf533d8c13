// Package listen owns the listening sockets: it opens them, waits for
// connections on all of them with one thread, and closes them. It decides
// nothing about a connection; it hands the descriptor over and forgets it.
package listen

import (
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
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
	// on exec; p is valid during the call. It must not block.
	Connection(fd int, p *peer.Peer)
	// Impatient tells that who finds no room is turned away, and does not wait.
	Impatient() bool
	// TurnAway takes over an accepted connection for which there is no
	// descriptor, and closes it before it returns.
	TurnAway(fd int, p *peer.Peer)
	// Porter is who hears of one of the door's sockets at which nobody is
	// accepted; nil where connections are.
	Porter(k *Socket) Porter
}

// A Set is all listening sockets of superd and the thread that accepts.
type Set struct {
	set, waker  int
	reserve     int                       // given up for a moment when there are no descriptors, -1 if lost; touched by Serve only
	above       func(fd int) (int, error) // moves what lives long out of accept's way
	complain    func(error)               // accept is out of something; called once for each such time
	inheritance *Inheritance              // nil for none
	whose       func(pid int) string      // of KnowPrograms; nil for nothing
	holders     *holders                  // of ports that were taken when Open was to open them; nil where none was

	mu     sync.Mutex
	orders []func() // for Serve to run; guarded by mu
	freed  bool     // the descriptors are no longer the set's; guarded by mu
	woken  atomic.Bool
	done   chan struct{} // closed when Serve has returned

	// What only Serve touches once it runs.
	sockets []*Socket // by number; nil where one was forsaken
	watched []func()  // for others, by how far their numbers are below watchedNumber
	doors   map[Door][]*Socket
	peer    peer.Peer // of the connection that was accepted last
	closing bool
	shortage
}

// A Socket is one listening socket.
type Socket struct {
	fd       int
	number   int32 // its place in the set's list
	listener *config.Listener
	door     Door
	self     peer.Peer // with superd's end alone: what the socket is really bound to
	file     file      // of a unix socket; removed with it
	heirloom *heirloom // what it was made of, if superd was started with it
	accepted int       // connections so far; touched by Serve only
	any      bool      // bound to all addresses: each connection has its own local one
	paused   bool      // not waited for; touched by Serve only
	porter   Porter    // of the door; nil where connections are accepted
	lease    lease
}

// Listener is what the file says of the socket, as Open or Reconfigure was given
// it.
func (k *Socket) Listener() *config.Listener { return k.listener }

// Local is the address that a TCP socket is really bound to.
func (k *Socket) Local() netip.AddrPort { return k.self.Local }

// String is the address that the socket is really bound to, as the log has it.
func (k *Socket) String() string { return string(k.self.AppendLocal(nil)) }

// Inherited is what the file can call a socket that superd was started with,
// beside its address: fd:NAME; "" for one that superd has opened.
func (k *Socket) Inherited() string {
	if k.heirloom == nil {
		return ""
	}
	return "fd:" + k.heirloom.name
}

// NewSet makes a set without sockets. Above moves a descriptor out of the
// range in which accepted connections land; complain hears, once for each such
// time, that connections cannot be accepted for lack of something.
func NewSet(above func(int) (int, error), complain func(error)) (*Set, error) {
	s := &Set{set: -1, waker: -1, reserve: -1, above: above, complain: complain,
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
		low, err = unix.FcntlInt(uintptr(s.waker), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err == nil {
		s.reserve, err = above(low)
	}
	if err == nil {
		err = unix.EpollCtl(s.set, unix.EPOLL_CTL_ADD, s.waker, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakerNumber})
	}
	s.others = []unix.PollFd{{Fd: int32(s.waker), Events: unix.POLLIN}}
	if err != nil {
		unix.Close(s.set)
		unix.Close(s.waker)
		unix.Close(s.reserve)
		return nil, err
	}
	return s, nil
}

// Numbers below 0 stand in an event for what is no socket: the eventfd, and
// then what is watched for others.
const (
	wakerNumber   = -1
	watchedNumber = -2
)

// Serve accepts connections until Close. Turn is called between connections
// and returns for how many milliseconds at most Serve may sleep; -1 until
// something happens.
func (s *Set) Serve(turn func() int) {
	defer close(s.done)
	var events [64]unix.EpollEvent
	for !s.closing {
		timeout := turn()
		if s.resting {
			s.rest(timeout)
			continue
		}
		for _, e := range events[:s.wait(events[:], timeout)] {
			switch {
			case e.Fd == wakerNumber:
				s.obey()
			case e.Fd < 0:
				s.watched[watchedNumber-e.Fd]()
			case s.sockets[e.Fd] != nil: // else it was forsaken meanwhile
				s.heed(s.sockets[e.Fd], e.Events)
			}
		}
	}
}

// Watch has Serve call ready whenever fd, the caller's, can be read. Serve must
// not run yet.
func (s *Set) Watch(fd int, ready func()) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(watchedNumber - len(s.watched))}
	if err := unix.EpollCtl(s.set, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.watched = append(s.watched, ready)
	s.others = append(s.others, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	return nil
}

// wait returns the number of events, at most all that there is room for.
func (s *Set) wait(events []unix.EpollEvent, timeout int) int {
	n, _, _ := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(s.set), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), 0, 0, 0)
	if int(n) > 0 { // under load always: Go's scheduler need not hear of it
		return int(n)
	}
	count, err := unix.EpollWait(s.set, events, timeout)
	if err != nil {
		return 0
	}
	return count
}

// heed does what there is to do for the events of a socket.
func (s *Set) heed(k *Socket, events uint32) {
	if events&unix.EPOLLERR != 0 {
		k.dropErrors()
	}
	before := k.accepted
	s.burst(k)
	if events&unix.EPOLLHUP != 0 && k.porter == nil && k.accepted == before && !k.paused && !s.resting {
		s.pause(k) // nobody can come any more
		s.remark(errShut)
	}
}

// burstLength is how many connections of one socket are accepted before the
// next socket has its turn.
const burstLength = 16

func (s *Set) burst(k *Socket) {
	if k.paused || s.resting && !k.door.Impatient() {
		return
	}
	if k.porter != nil {
		k.porter.Readable(k)
		return
	}
	for range burstLength {
		if !k.door.Enter() {
			s.pause(k)
			return
		}
		fd, err := k.acceptOne(&s.peer)
		if err != nil {
			k.door.Leave()
			s.trouble(k, err)
			return
		}
		s.delay = 0
		s.restock()
		k.accepted++
		k.door.Connection(fd, &s.peer)
	}
}

// pause stops waiting for a socket; what comes is queued by the kernel.
func (s *Set) pause(k *Socket) {
	k.paused = true
	unix.EpollCtl(s.set, unix.EPOLL_CTL_MOD, k.fd, &unix.EpollEvent{Events: k.events(), Fd: k.number})
}

// Resume waits again for the sockets of door, which has room.
func (s *Set) Resume(door Door) {
	s.Order(func() { s.resume(door) })
}

func (s *Set) resume(door Door) {
	for _, k := range s.doors[door] {
		if k.paused && !k.Lent() {
			k.paused = false
			unix.EpollCtl(s.set, unix.EPOLL_CTL_MOD, k.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: k.number})
		}
	}
}

// ShutAll accepts what the kernel has queued already, as far as there is room
// for it, and closes all sockets. Serve, which must be running, goes on for those
// who were let in.
func (s *Set) ShutAll() {
	shut := make(chan struct{})
	s.Order(func() {
		for _, k := range s.sockets {
			s.takeQueue(k)
		}
		for _, k := range s.sockets {
			if k != nil && !k.kept() {
				s.closeSocket(k)
			}
		}
		close(shut)
	})
	<-shut
}

// Adopt has s wait for a socket that another set has forsaken, for door. It is
// for Order, or a set that is not served yet. Where it fails the socket is
// closed.
func (s *Set) Adopt(k *Socket, door Door) error {
	k.door = door
	if err := s.add(k); err != nil {
		k.close()
		return err
	}
	return nil
}

// Forsake has s no longer wait for a socket of its own, which stays open: what
// comes is queued by the kernel. It is for Order, or a set that is not served.
func (s *Set) Forsake(k *Socket) {
	unix.EpollCtl(s.set, unix.EPOLL_CTL_DEL, k.fd, nil)
	k.lease.leave()
	s.sockets[k.number] = nil
	s.doors[k.door] = slices.DeleteFunc(s.doors[k.door], func(other *Socket) bool { return other == k })
	if len(s.doors[k.door]) == 0 {
		delete(s.doors, k.door)
	}
}

// Finish accepts what the kernel has queued for a socket of s already, as far
// as there is room for it, and closes the socket, unless a Keeper keeps it. It is
// for Order.
func (s *Set) Finish(k *Socket) {
	s.takeQueue(k)
	if !k.kept() {
		s.closeSocket(k)
	}
}

// Close closes all sockets, runs what was ordered, and ends Serve, which must
// be running.
func (s *Set) Close() {
	s.Order(func() { s.closing = true })
	<-s.done
	s.free()
}

// closeSocket leaves no socket that an event could speak of.
func (s *Set) closeSocket(k *Socket) {
	s.Forsake(k)
	k.close()
}

// free closes all descriptors of a set that nobody serves.
func (s *Set) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freed = true
	for _, k := range s.sockets {
		if k != nil {
			s.closeSocket(k)
		}
	}
	unix.Close(s.set)
	unix.Close(s.waker)
	if s.reserve >= 0 {
		unix.Close(s.reserve)
	}
}

// Order has Serve run f, between connections. After the set's end it does
// nothing: connections end later than their listening sockets, and make room
// nobody waits for.
func (s *Set) Order(f func()) {
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
	s.resting = false // it may be that there is room now
	s.mu.Lock()
	orders := s.orders
	s.orders = nil
	s.mu.Unlock()
	for _, f := range orders {
		f()
	}
}
