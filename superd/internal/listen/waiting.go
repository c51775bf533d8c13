package listen

import "golang.org/x/sys/unix"

// A Waiting is who waits in the queues of sockets that are about to be lent, so
// that it can be told, when the program has ended, whether it has accepted
// nobody. One goroutine at a time may use it.
type Waiting struct {
	poll    int // tells of arrivals; nobody sleeps on it
	sockets []*Socket
	counts  []uint32
}

// Waiting notes who waits at sockets of s, in Readable. It is nil where nothing
// could be told for sure: the kernel counts those who wait for TCP alone. The
// caller ends it with Untouched.
func (s *Set) Waiting(sockets []*Socket) *Waiting {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil
	}
	if fd, err = s.above(fd); err != nil {
		return nil
	}
	w := &Waiting{poll: fd}
	if !w.note(sockets) {
		unix.Close(fd)
		return nil
	}
	return w
}

// note begins with the arrivals, so that none is missed that is not counted.
func (w *Waiting) note(sockets []*Socket) bool {
	for _, k := range sockets {
		e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: k.number}
		if unix.EpollCtl(w.poll, unix.EPOLL_CTL_ADD, k.fd, &e) != nil {
			return false
		}
	}
	for range sockets { // of those who are there already
		w.arrived()
	}
	some := uint32(0)
	for _, k := range sockets {
		n, known := queueLength(k.fd)
		if !known {
			return false
		}
		w.sockets, w.counts = append(w.sockets, k), append(w.counts, n)
		some += n
	}
	return some > 0
}

// arrived tells whether somebody has come to one of the sockets since it was
// asked last, and waits.
func (w *Waiting) arrived() bool {
	n, err := unix.EpollWait(w.poll, make([]unix.EpollEvent, 1), 0)
	return n > 0 || err != nil
}

// Untouched tells that surely nobody was accepted since Waiting: nobody has come,
// and as many wait as did then. W is not used afterwards. It may be nil.
func (w *Waiting) Untouched() bool {
	if w == nil {
		return false
	}
	defer unix.Close(w.poll)
	for i, k := range w.sockets {
		if n, known := k.waiting(); !known || n != w.counts[i] {
			return false
		}
	}
	return !w.arrived()
}

// waiting is how many connections wait at k; unknown where no set has it, which
// may close it then.
func (k *Socket) waiting() (n uint32, known bool) {
	k.lease.mu.Lock()
	defer k.lease.mu.Unlock()
	if k.lease.set == nil {
		return 0, false
	}
	return queueLength(k.fd)
}

// queueLength is how many connections wait at a listening socket of TCP: what
// tcp(7) has as tcpi_unacked of others (tcp_get_info in the kernel).
func queueLength(fd int) (n uint32, known bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	const listening = 10 // TCP_LISTEN
	if err != nil || info.State != listening {
		return 0, false
	}
	return info.Unacked, true
}
