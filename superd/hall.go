package main

import (
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/listen"
	"superd/superd/internal/lobby"
	"superd/superd/internal/proxy"
)

// A hall is where the guests of one accepting thread wait. All of it but the
// spare guests belongs to that thread.
type hall struct {
	daemon *daemon
	set    *listen.Set
	lobby  *lobby.Lobby

	most     int                   // how many may be silent, and how many may wait for a place
	silent   party                 // who have not said who they are, or anything
	starting party                 // whose programs could not be started yet
	short    atomic.Bool           // there are such, or were; any goroutine may look
	leaving  party                 // who were turned away and have not closed
	waiting  int                   // for a place
	crowd    map[netip.Prefix]int  // the silent ones by where they are from
	buffer   [proxy.MostBytes]byte // what a guest has sent, while it is looked at
	left     []chan struct{}       // closed once nobody is leaving

	mail   *listen.Mailbox // the datagram that has come last; nil before there is a socket for any
	wards  map[*listen.Socket]*ward
	fading map[*listen.Socket]bool // that are open only for the sessions that they have

	mu    sync.Mutex
	spare *guest // guarded by mu
}

// newHall makes the hall of a set that is not served yet.
func newHall(d *daemon, set *listen.Set) (*hall, error) {
	l, err := lobby.New(d.engine.Above)
	if err != nil {
		return nil, err
	}
	return &hall{daemon: d, set: set, lobby: l, most: mostInHall(), crowd: map[netip.Prefix]int{}}, set.Watch(l.FD(), l.Greet)
}

// readMail makes the memory that datagrams are read into.
func (h *hall) readMail() {
	if h.mail == nil {
		h.mail, h.wards, h.fading = &listen.Mailbox{}, map[*listen.Socket]*ward{}, map[*listen.Socket]bool{}
	}
}

// How many guests can wait in one hall to be heard, how many for a place, and
// how many of those who were turned away for their own end.
const (
	mostInAHall = 4096
	mostLeaving = 256
)

// mostInHall is less where the limit of open files is low.
func mostInHall() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return mostInAHall
	}
	return int(min(max(limit.Cur/64, 2), mostInAHall))
}

// mostGuests is how many descriptors the guests of all halls can have.
// One that waits for a place can have two, as the peer of datagrams.
func mostGuests() int { return len(daemon{}.halls) * (3*mostInHall() + min(mostInHall(), mostLeaving)) }

// processFree has those try again, in their order, who wait for a process: one
// has ended. Whoever comes later would take it otherwise. Any goroutine may call
// it.
func (h *hall) processFree() {
	if h.short.Load() {
		h.set.Order(func() {
			g := h.starting.first
			if g == nil {
				h.short.Store(false)
				return
			}
			g.tries = max(g.tries-1, 0) // as long as others end, its time goes on
			g.launchAgain()
		})
	}
}

// turn is what the accepting thread does between connections; it returns for
// how many milliseconds the thread may sleep.
func (h *hall) turn() int {
	sleep := -1
	if h.lobby.Len() > 0 {
		if left := h.lobby.Dismiss(h.daemon.now().Since); left < lobby.Forever {
			sleep = int(min((left+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
		}
	}
	if h.leaving.first == nil {
		h.announceLeft()
	}
	if h.daemon.engine.Settle() > 0 {
		return settling
	}
	return sleep
}

// settling is how soon, in milliseconds, it is looked again whether descriptors
// that children were lent are superd's own again.
const settling = 1

// guest returns a guest of s that nobody is yet.
func (h *hall) guest(s *service) *guest {
	h.mu.Lock()
	g := h.spare
	if g != nil {
		h.spare = g.next
	}
	h.mu.Unlock()
	if g == nil {
		g = &guest{hall: h}
		g.visitor.Host = g
	}
	g.next, g.service, g.stage, g.welcome, g.owed = nil, s, arrived, false, false
	g.visitor.Taken, g.visitor.Relay, g.session = 0, nil, nil
	s.guests.Add(1)
	return g
}

// take has g back once it is over. Any goroutine may call it.
func (h *hall) take(g *guest) {
	g.service.gone()
	g.ticket, g.waiter, g.decision = admit.Ticket{}, admit.Waiter{}, admit.Decision{}
	g.stage = nobody
	h.mu.Lock()
	defer h.mu.Unlock()
	g.next, h.spare = h.spare, g
}

// close frees the hall when its thread has ended. Who is still being told why
// it was turned away has to do without.
func (h *hall) close() {
	for g := h.leaving.first; g != nil; g = g.next {
		unix.Close(g.fd)
	}
	h.lobby.Close()
}

// dismiss leaves nobody in the hall but those who are leaving: who has not said
// enough is turned away, and who has its place gets its program now or not at
// all. It returns when that is done. The hall's thread must be running.
func (h *hall) dismiss() {
	done := make(chan struct{})
	h.set.Order(func() {
		for h.silent.first != nil {
			h.silent.first.refuse(admit.ReasonDraining, nil)
		}
		for h.starting.first != nil {
			h.starting.first.launchNow()
		}
		close(done)
	})
	<-done
}

// empty returns a channel that is closed once nobody is left who was turned
// away, which is soon.
func (h *hall) empty() <-chan struct{} {
	c := make(chan struct{})
	h.set.Order(func() { h.left = append(h.left, c) })
	return c
}

func (h *hall) announceLeft() {
	for _, c := range h.left {
		close(c)
	}
	h.left = nil
}

// considered is how many of those who have been silent longest are compared
// when one of them has to go.
const considered = 8

// makeRoom has one of the silent ones go when they are too many: of those who
// have been there longest, one from where most are from. So nobody who floods
// superd takes the time of others.
func (h *hall) makeRoom() {
	if h.silent.len < h.most {
		return
	}
	worst := h.silent.first
	for g, n := worst.next, 1; g != nil && n < considered; g, n = g.next, n+1 {
		if h.crowd[g.origin()] > h.crowd[worst.origin()] {
			worst = g
		}
	}
	worst.giveWay()
}

// A party is a list of guests, who has come first being the first.
type party struct {
	first, last *guest
	len         int
}

func (p *party) add(g *guest) {
	g.party, g.prev, g.next = p, p.last, nil
	if p.last != nil {
		p.last.next = g
	} else {
		p.first = g
	}
	p.last = g
	p.len++
}

// leave takes g out of the party that it is in, if any.
func (g *guest) leave() {
	p := g.party
	if p == nil {
		return
	}
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		p.first = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	} else {
		p.last = g.prev
	}
	p.len--
	g.party, g.prev, g.next = nil, nil, nil
}
