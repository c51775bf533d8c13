package admit

import (
	"time"

	"superd/superd/internal/config"
)

// What admission remembers, as plain data for another superd that takes this
// one's place in the same process. All times are on the clock of Moment.Since.
// Who is in and who waits is not here: each of them is readmitted, or asks
// again, by itself.

// A Carried is what a house remembers.
type Carried struct {
	Blocks []CarriedBan
	Gates  []CarriedGate
}

// CarriedBan is a source that is kept out until a time.
type CarriedBan struct {
	Whom  config.Spec
	Until time.Duration
}

// CarriedGate is what a gate remembers.
type CarriedGate struct {
	Name     string
	Draining bool
	Full     time.Duration // its bucket
	Sources  []CarriedSource
	Suspects []CarriedSuspect
	Bans     []CarriedBan
	Failing  CarriedFailing
}

// CarriedSource is a source with the time at which its bucket is full.
type CarriedSource struct {
	Key  CarriedKey
	Full time.Duration
}

// CarriedSuspect is a source with the times of what there is against it.
type CarriedSuspect struct {
	Key   CarriedKey
	Times []time.Duration
}

// CarriedKey is a Source.
type CarriedKey [3]uint64

func keyOf(s Source) CarriedKey { return CarriedKey{s.kind, s.high, s.low} }

func (k CarriedKey) source() Source { return Source{k[0], k[1], k[2]} }

// CarriedFailing is how things stand with a service's failures.
type CarriedFailing struct {
	State    uint8
	Until    time.Duration
	Culprit  CarriedKey
	Narrow   bool
	Tried    time.Duration
	Execs    []time.Duration
	Undone   []time.Duration
	Failures []CarriedFailure
	Ends     Ends
}

// CarriedFailure is one quick failure.
type CarriedFailure struct {
	At   time.Duration
	From CarriedKey
}

// Hold tells what the house remembers, and lets nobody ask or tell it anything
// until release is called.
func (h *House) Hold() (c Carried, release func()) {
	h.mu.Lock()
	c.Blocks = h.blocks.carry()
	for _, g := range h.gates {
		c.Gates = append(c.Gates, g.carry())
	}
	return c, h.unlock
}

func (r *register) carry() (list []CarriedBan) {
	for _, e := range r.ends.list {
		list = append(list, CarriedBan{e.what.whom, e.what.until})
	}
	return list
}

func (g *Gate) carry() CarriedGate {
	c := CarriedGate{Name: g.name, Draining: g.draining, Full: g.bucket.full, Bans: g.bans.carry(), Failing: g.failing.carry()}
	for key, s := range g.sources {
		if s.bucket.full > g.house.clock {
			c.Sources = append(c.Sources, CarriedSource{keyOf(key), s.bucket.full})
		}
	}
	for key, s := range g.suspects.known {
		c.Suspects = append(c.Suspects, CarriedSuspect{keyOf(key), s.times})
	}
	return c
}

func (f *failing) carry() CarriedFailing {
	c := CarriedFailing{State: uint8(f.state), Until: f.until, Culprit: keyOf(f.culprit), Narrow: f.narrow, Tried: f.tried, Execs: f.execs, Undone: f.undone, Ends: f.ends}
	for _, x := range f.failures {
		c.Failures = append(c.Failures, CarriedFailure{x.at, keyOf(x.from)})
	}
	return c
}

// Resume has the house block whom another one has blocked.
func (h *House) Resume(blocks []CarriedBan, now Moment) {
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	for _, b := range blocks {
		h.blocks.add(b.Whom, b.Until)
	}
}

// Resume has the gate remember what another one did. Those who are in must have
// been readmitted. What is known of sources is lost where the file has come to
// count them otherwise.
func (g *Gate) Resume(c *CarriedGate, now Moment) {
	h := g.house
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	p := g.policy.Load()
	g.bucket.full = c.Full
	for _, s := range c.Sources {
		if key := s.Key.source(); p.counts(key) {
			x := g.know(key)
			x.bucket.full = s.Full
			g.leave(x)
		}
	}
	for _, s := range c.Suspects {
		if key := s.Key.source(); p.counts(key) && p.rules.Ban.After > 0 && len(s.Times) > 0 {
			x := g.suspect(key)
			x.times = s.Times
			g.suspects.move(x)
		}
	}
	for _, b := range c.Bans {
		before := g.bans.len()
		g.bans.add(b.Whom, b.Until)
		h.kept[banned] += g.bans.len() - before
	}
	for m := range memories {
		h.makeRoom(memory(m), g)
	}
	if p.rules.Failures.After > 0 {
		g.failing.resume(&c.Failing)
	}
	g.fitBuckets(p)
	g.rank()
}

// counts tells whether a key is one that p counts clients by.
func (p *Policy) counts(key Source) bool {
	c := key.client()
	return p.sources.of(&c) == key
}

// resume keeps the trial, which was readmitted before.
func (f *failing) resume(c *CarriedFailing) {
	trial := f.trial
	*f = failing{state: failingState(min(c.State, uint8(trying))), until: c.Until, culprit: c.Culprit.source(), narrow: c.Narrow,
		trial: trial, tried: c.Tried, execs: c.Execs, undone: c.Undone, ends: c.Ends}
	for _, x := range c.Failures {
		f.failures = append(f.failures, failure{x.At, x.From.source()})
	}
	if f.state == trying && trial == nil { // what it would have told is lost: it is the next one's turn
		f.state = paused
	}
}

// Trial tells whether the ticket's program is the one that a failing service
// tries again with.
func (t Ticket) Trial() bool {
	if t.house == nil {
		return false
	}
	t.house.mu.Lock()
	defer t.house.mu.Unlock()
	return t.place.use == t.use && t.place.gate.failing.trial == t.place
}

// Readmit gives a client a place that it has had already, whatever the limits
// are now, and takes no token for it.
func (g *Gate) Readmit(c Client, trial bool) Ticket {
	h := g.house
	h.mu.Lock()
	defer h.unlock()
	p := g.policy.Load()
	c = c.plain()
	s := g.know(p.sources.of(&c))
	s.live++
	g.live++
	h.live++
	x := h.newPlace()
	x.gate, x.source, x.exempt = g, s, p.Trusts(c.Addr)
	x.addr, x.unix, x.uid = c.Addr, c.Unix, c.UID
	if trial {
		g.failing.trial = x
	}
	return x.ticket()
}

// Since has the waiter have waited since a time in the past.
func (w Waiter) Since(since time.Duration) {
	if w.house == nil {
		return
	}
	h := w.house
	h.mu.Lock()
	defer h.unlock()
	x := w.who
	if x.use != w.use || x.decided {
		return
	}
	x.since = since
	if timeout := x.gate.policy.Load().rules.Queue.Timeout; timeout > 0 {
		h.deadlines.set(x, rank{int64(since + timeout), x.arrival})
	}
}
