package admit

import (
	"iter"
	"net/netip"
	"time"
)

// A place is what a live connection holds. It is a line of cache: with many
// connections, each is looked at for the first time in a while.
type place struct {
	gate   *Gate
	source *source
	addr   netip.Addr // of the client, for a reload that counts sources otherwise
	use    uint64     // counts the tickets that had it
	next   *place     // the next free one
	uid    uint32
	unix   bool
	exempt bool // never banned
}

// A Ticket is the right to one place. Copies are the same ticket. The zero
// Ticket is none.
type Ticket struct {
	house *House
	place *place
	use   uint64
}

// Release gives the place back. It returns false, and does nothing, if that
// has been done already.
func (t Ticket) Release() bool {
	if t.house == nil {
		return false
	}
	t.house.mu.Lock()
	defer t.house.unlock()
	if t.place.use != t.use {
		return false
	}
	t.place.gate.vacate(t.place)
	return true
}

// Ended tells how the ticket's program ended, before Release. It counts for
// the service's failures, and for a ban of the client.
func (t Ticket) Ended(e End, now Moment) Change {
	if t.house == nil {
		return NoChange
	}
	t.house.mu.Lock()
	defer t.house.unlock()
	t.house.advance(now.Since)
	if t.place.use != t.use {
		return NoChange
	}
	return t.place.gate.ended(t.place, e)
}

// Gate is where the ticket was given; nil if it has been released.
func (t Ticket) Gate() *Gate {
	if t.house == nil {
		return nil
	}
	t.house.mu.Lock()
	defer t.house.mu.Unlock()
	if t.place.use != t.use {
		return nil
	}
	return t.place.gate
}

func (p *place) ticket() Ticket { return Ticket{p.gate.house, p, p.use} }

// placesAtOnce is how many places are made at a time.
const placesAtOnce = 64

func (h *House) newPlace() *place {
	if h.freePlaces == nil {
		more := new([placesAtOnce]place)
		h.places = append(h.places, more)
		for i := range more {
			more[i].next, h.freePlaces = h.freePlaces, &more[i]
		}
	}
	p := h.freePlaces
	h.freePlaces, p.next = p.next, nil
	return p
}

// free makes all tickets of p void.
func (h *House) free(p *place) {
	*p = place{use: p.use + 1, next: h.freePlaces}
	h.freePlaces = p
}

// placesOf are the taken places of a gate.
func (h *House) placesOf(g *Gate) iter.Seq[*place] {
	return func(yield func(*place) bool) {
		for _, several := range h.places {
			for i := range several {
				if p := &several[i]; p.gate == g && !yield(p) {
					return
				}
			}
		}
	}
}

// vacate gives p back.
func (g *Gate) vacate(p *place) {
	h, s := g.house, p.source
	g.failing.gone(p, h.clock)
	h.free(p)
	s.live--
	g.uncount()
	if s.line.len > 0 {
		g.rankSource(s)
	} else {
		g.leave(s)
	}
	g.roomMade()
}

// ended counts the end of p's program.
func (g *Gate) ended(p *place, e End) Change {
	policy := g.policy.Load()
	if e.Kind == Failed && !p.exempt {
		g.accuse(p.source.key, &policy.rules.Ban)
	}
	change := g.failing.ended(p, e, policy.rules.Failures, g.house.clock)
	if change == Paused {
		g.dismissFailing()
	}
	return change
}

// timeLeft is how long it is until t; 0 if it is past or never comes.
func timeLeft(t, now time.Duration) time.Duration {
	if t == never {
		return 0
	}
	return max(t-now, 0)
}
