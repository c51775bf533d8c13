// Package lobby keeps connections that have been accepted and have no program
// yet: until the client has said who it is, or anything at all, or until there
// is a place for it; and those that were turned away, until they have read why.
// It waits for many with one descriptor and decides nothing. A Lobby and its
// guests belong to one thread.
package lobby

import (
	"container/heap"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Host is whoever brought a guest, and hears of it. Either call may have the
// guest wait on, or take it out.
type Host interface {
	// Ready tells that one of the events that the guest waits for is there, or
	// EPOLLHUP or EPOLLERR.
	Ready(events uint32)
	// Late tells that the guest's time is over. It has no deadline now.
	Late()
}

// A Guest is one descriptor that waits, or one that waits for its time alone.
// The zero Guest waits for nothing.
type Guest struct {
	fd   int
	host Host
	slot uint32        // its place among the lobby's guests
	in   bool          // it has one
	due  time.Duration // by the lobby's clock
	heap int           // its place among the deadlines, -1 for none
}

// A Lobby is all guests of one thread.
type Lobby struct {
	set    int
	guests []seat
	free   []uint32
	inside int
	due    deadlines
	events [64]unix.EpollEvent
}

// A seat is what an event finds a guest by.
type seat struct {
	guest *Guest
	use   uint32 // counts the guests that had it
}

// New makes an empty lobby. Above moves a descriptor out of the range in which
// accepted connections land.
func New(above func(int) (int, error)) (*Lobby, error) {
	low, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	set, err := above(low)
	if err != nil {
		return nil, err
	}
	return &Lobby{set: set}, nil
}

// Close frees the lobby. Guests that are inside keep their descriptors, which
// were never the lobby's.
func (l *Lobby) Close() { unix.Close(l.set) }

// FD can be read when Greet has something to tell.
func (l *Lobby) FD() int { return l.set }

// Len is how many guests are inside.
func (l *Lobby) Len() int { return l.inside }

// Forever is the deadline of a guest that may wait as long as it likes.
const Forever time.Duration = math.MaxInt64

// Await has g wait for events of fd (epoll_ctl(2)) until due. Whoever is inside
// already waits for these instead. The descriptor stays the caller's, who takes
// the guest out before closing it.
func (l *Lobby) Await(g *Guest, fd int, host Host, events uint32, due time.Duration) error {
	action := unix.EPOLL_CTL_MOD
	if !g.in {
		action = unix.EPOLL_CTL_ADD
		l.seat(g)
	}
	g.fd, g.host = fd, host
	e := unix.EpollEvent{Events: events, Fd: int32(g.slot), Pad: int32(l.guests[g.slot].use)}
	if err := unix.EpollCtl(l.set, action, fd, &e); err != nil {
		l.unseat(g)
		return os.NewSyscallError("epoll_ctl", err)
	}
	l.due.set(g, due)
	return nil
}

// Rest has g, which must be outside, wait for due and for nothing else.
func (l *Lobby) Rest(g *Guest, host Host, due time.Duration) {
	l.seat(g)
	g.fd, g.host = -1, host
	l.due.set(g, due)
}

// Waiting tells whether g is inside.
func (g *Guest) Waiting() bool { return g.in }

// Remove takes g out, if it is inside.
func (l *Lobby) Remove(g *Guest) {
	if g.in {
		unix.EpollCtl(l.set, unix.EPOLL_CTL_DEL, g.fd, nil)
		l.unseat(g)
	}
}

func (l *Lobby) seat(g *Guest) {
	if n := len(l.free); n > 0 {
		g.slot, l.free = l.free[n-1], l.free[:n-1]
	} else {
		g.slot = uint32(len(l.guests))
		l.guests = append(l.guests, seat{})
	}
	l.guests[g.slot].guest = g
	l.inside++
	g.in, g.heap = true, -1
}

func (l *Lobby) unseat(g *Guest) {
	l.due.remove(g)
	s := &l.guests[g.slot]
	s.guest = nil
	s.use++
	l.free = append(l.free, g.slot)
	l.inside--
	g.in, g.host = false, nil
}

// Greet tells hosts what has happened to their guests.
func (l *Lobby) Greet() {
	n, err := unix.EpollWait(l.set, l.events[:], 0)
	if err != nil {
		return
	}
	for i := range l.events[:n] {
		e := &l.events[i]
		s := &l.guests[uint32(e.Fd)]
		if s.guest != nil && s.use == uint32(e.Pad) { // else it was taken out meanwhile
			s.guest.host.Ready(e.Events)
		}
	}
}

// Dismiss tells the hosts of guests whose time is over at now, and returns how
// long it is until the next is late; Forever if none will be.
func (l *Lobby) Dismiss(now time.Duration) time.Duration {
	for len(l.due) > 0 {
		g := l.due[0]
		if g.due > now {
			return g.due - now
		}
		l.due.remove(g)
		g.host.Late()
	}
	return Forever
}

// deadlines is a heap of the guests that have one, the earliest first.
type deadlines []*Guest

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].due < d[j].due }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].heap, d[j].heap = i, j
}

func (d *deadlines) Push(x any) {
	g := x.(*Guest)
	g.heap = len(*d)
	*d = append(*d, g)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	g := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	g.heap = -1
	return g
}

func (d *deadlines) set(g *Guest, due time.Duration) {
	g.due = due
	switch {
	case due == Forever:
		d.remove(g)
	case g.heap >= 0:
		heap.Fix(d, g.heap)
	default:
		heap.Push(d, g)
	}
}

func (d *deadlines) remove(g *Guest) {
	if g.heap >= 0 {
		heap.Remove(d, g.heap)
	}
}
