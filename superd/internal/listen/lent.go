package listen

import (
	"sync"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// A Porter is who hears that something has come to a socket at which nobody is
// accepted, and lends it to a program, or reads.
type Porter interface {
	// Readable tells that something waits at k. It is told again until that
	// has been read, or until k is lent or paused.
	Readable(k *Socket)
}

// A Keeper is a porter whose sockets can stay open after their time, for those
// who are still answered from them.
type Keeper interface {
	Porter
	// Keeps reads what has come to k before its end, and tells whether k must
	// stay open. It is the keeper's then to have it finished again.
	Keeps(k *Socket) bool
}

// kept tells whether k must stay open after its time.
func (k *Socket) kept() bool {
	keeper, is := k.porter.(Keeper)
	return is && keeper.Keeps(k)
}

// A lease is what a socket knows of the program that has it, and of the set
// that is to wait for it again when the program has ended: a reload may have
// given it to another one meanwhile.
type lease struct {
	mu   sync.Mutex
	lent bool // guarded by mu
	set  *Set // nil where no set has the socket; guarded by mu
}

// enter tells whether the socket, which s is about to have, is lent.
func (l *lease) enter(s *Set) (lent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set = s
	return l.lent
}

func (l *lease) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set = nil
}

// of tells whether s has the socket.
func (l *lease) of(s *Set) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set == s
}

// events are what a set waits for. The kernel tells of errors, and of an end,
// in any case, also of those that are a program's: once, not for as long as that
// leaves them there.
func (k *Socket) events() uint32 {
	if k.paused {
		return unix.EPOLLET
	}
	return unix.EPOLLIN
}

// Lent tells whether a program has k.
func (k *Socket) Lent() bool {
	k.lease.mu.Lock()
	defer k.lease.mu.Unlock()
	return k.lease.lent
}

// Lend stops waiting for k, which a program is about to get, until Return. The
// socket is made blocking, as programs expect: the flag belongs to the open
// file, and the program before may have set it. It is for Readable.
func (s *Set) Lend(k *Socket) {
	s.pause(k)
	k.lease.mu.Lock()
	defer k.lease.mu.Unlock()
	k.lease.lent = true
	unix.SetNonblock(k.fd, false)
}

// Return tells that the program that had k has ended. Whichever set has k waits
// for it, and for what else its door has paused. Any goroutine may call it.
func (k *Socket) Return() {
	k.lease.mu.Lock()
	k.lease.lent = false
	s := k.lease.set
	k.lease.mu.Unlock()
	if s != nil {
		s.Order(func() { s.regain(k) })
	}
}

// regain waits for a socket that was returned, unless it has been forsaken
// meanwhile: who adopts it waits for it.
func (s *Set) regain(k *Socket) {
	if !k.lease.of(s) {
		return
	}
	if k.porter == nil { // it is accepted from now, which must not wait
		unix.SetNonblock(k.fd, true)
	}
	s.resume(k.door)
}

// Leave stops waiting for k until Resume. It is for Readable.
func (s *Set) Leave(k *Socket) { s.pause(k) }

// Sockets are those of a door, in the order in which they were opened or
// adopted. It is for Readable, and valid until the next order.
func (s *Set) Sockets(door Door) []*Socket { return s.doors[door] }

// FD is the socket's descriptor, which stays the set's.
func (k *Socket) FD() int { return k.fd }

// Self is what is known of the socket's own end.
func (k *Socket) Self() peer.Peer {
	p := k.self
	p.Listening = true
	return p
}
