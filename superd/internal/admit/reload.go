package admit

import (
	"cmp"
	"slices"
)

// SetPolicy replaces what the file says about a service. It holds at once, for
// those who wait as well; tickets, buckets and bans stay. A service that was
// failing may try again.
func (g *Gate) SetPolicy(p *Policy, now Moment) {
	h := g.house
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	before := g.policy.Load()
	g.policy.Store(p)
	if g.failing.state == paused {
		g.failing.until = min(g.failing.until, h.clock)
	}
	if p.rules.Failures.After == 0 {
		g.failing.recover()
	}
	g.judgeAgain(p)
	if p.sources != before.sources {
		g.countAnew(p.sources)
	}
	g.fitBuckets(p)
	for _, e := range slices.Clone(g.crowd.list) {
		g.rankSource(e.what)
	}
	g.rank()
	g.offer()
}

// judgeAgain looks up those who wait in new rules.
func (g *Gate) judgeAgain(p *Policy) {
	for _, w := range g.waiters() {
		e, quota, allowed := p.access.of(&w.client, &p.usual)
		w.entry, w.quota, w.exempt = e, quota, p.Trusts(w.client.Addr)
		if !allowed {
			g.dismiss(w, Decision{Reason: ReasonAddress})
		}
	}
}

// countAnew counts who is here by other sources. The buckets of those who are
// here stay with them; those of the rest cannot be told apart and are lost.
func (g *Gate) countAnew(prefixes Prefixes) {
	old := g.sources
	waiters := g.waiters()
	slices.SortFunc(waiters, func(a, b *waiting) int { return cmp.Compare(a.arrival, b.arrival) })
	g.sources = map[Source]*source{}
	for p := range g.house.placesOf(g) {
		s := g.inherit(prefixes.of(&Client{Addr: p.addr, Unix: p.unix, UID: p.uid}), p.source)
		s.live++
		p.source = s
	}
	for _, w := range waiters {
		s := g.inherit(prefixes.of(&w.client), w.source)
		w.source.line.remove(w)
		s.line.add(w)
		w.source = s
	}
	for _, s := range old {
		g.drop(s)
	}
	for _, w := range waiters {
		g.rankSource(w.source)
	}
}

func (g *Gate) inherit(key Source, from *source) *source {
	s := g.know(key)
	s.bucket.full = max(s.bucket.full, from.bucket.full)
	return s
}

// fitBuckets lets nobody wait longer than from an empty bucket at the new pace.
func (g *Gate) fitBuckets(p *Policy) {
	g.bucket.fit(p.rate, g.house.clock)
	for _, s := range g.sources {
		c := s.key.client()
		_, quota, _ := p.access.of(&c, &p.usual)
		s.bucket.fit(quota.pace, g.house.clock)
	}
}

// dismissAll refuses all who wait at the gate.
func (g *Gate) dismissAll(r Reason) {
	for _, w := range g.waiters() {
		g.dismiss(w, Decision{Reason: r})
	}
}

// Drain refuses everybody at this gate from now on, or no longer.
func (g *Gate) Drain(on bool) {
	g.house.mu.Lock()
	defer g.house.unlock()
	g.draining = on
	if on {
		g.dismissAll(ReasonDraining)
	}
	g.roomMade()
}

// Close ends the gate of a service that is no more: who waits is refused, and
// what was remembered is forgotten. Its live connections keep their places in
// the house. Resume is not called from now on, unless a call is under way.
func (g *Gate) Close() {
	h := g.house
	h.mu.Lock()
	defer h.unlock()
	if g.closed {
		return
	}
	g.dismissAll(ReasonDraining)
	g.closed, g.draining, g.owed = true, true, false
	g.quench()
	g.rank()
	for m := range memories {
		h.kept[m] -= g.keeps(memory(m))
	}
	g.suspects, g.bans = suspectList{}, register{}
	g.suspects.init()
	g.bans.init()
	g.idle.list = nil
	for _, s := range g.sources {
		s.idle = 0
		g.leave(s)
	}
	h.gates = slices.DeleteFunc(h.gates, func(other *Gate) bool { return other == g })
}
