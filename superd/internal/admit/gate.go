package admit

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// A Gate is one service's way in.
type Gate struct {
	house  *House
	name   string
	resume func()                 // called without locks when there may be room again
	policy atomic.Pointer[Policy] // replaced under house.mu only

	// What follows is guarded by house.mu.
	live     int // connections with a place, named or not
	draining bool
	closed   bool
	bucket   bucket
	sources  map[Source]*source
	idle     heap[*source] // by when their buckets are full, or will be later
	failing  failing
	suspects suspectList
	bans     register
	counts   map[Source]int

	// Those who wait here.
	queued   int
	ready    heap[*source]
	blocked  heap[*source]  // by when they have a token
	crowd    heap[*source]  // of those with lines: the longest line leads
	yielding heap[*waiting] // who may have gone: who came last leads

	// Those who wait in the kernel's queue.
	owed    bool // resume is
	listed  bool // among the house's starving
	thirsty bool // the house was full; it has not entered since

	eligible, timer int32 // spots in the house's heaps
}

// Gate makes the way into a service. Resume is called, from whoever makes the
// room, when Enter has failed and there is room again; it must not block.
func (h *House) Gate(name string, p *Policy, resume func()) *Gate {
	g := &Gate{house: h, name: name, resume: resume, sources: map[Source]*source{}, counts: map[Source]int{}}
	g.ready.spot = func(s *source) *int32 { return &s.ready }
	g.blocked.spot = func(s *source) *int32 { return &s.blocked }
	g.crowd.spot = func(s *source) *int32 { return &s.crowd }
	g.yielding.spot = func(w *waiting) *int32 { return &w.yields }
	g.idle.spot = func(s *source) *int32 { return &s.idle }
	g.suspects.init()
	g.bans.init()
	g.policy.Store(p)
	h.mu.Lock()
	defer h.unlock()
	h.gates = append(h.gates, g)
	return g
}

// Direct tells how to come in, which a reload may change: by Enter and Seat, or
// by Ask.
func (g *Gate) Direct() bool { return g.policy.Load().Direct() }

// Trusts tells whether an address is one of the service's trusted proxies.
func (g *Gate) Trusts(addr netip.Addr) bool { return g.policy.Load().Trusts(addr) }

// Enter takes a place for a connection that is about to be accepted, and tells
// whether there was one. It is given back by Leave, or Seat makes a ticket of
// it. It is for gates that are Direct.
func (g *Gate) Enter() bool {
	h := g.house
	h.mu.Lock()
	defer h.mu.Unlock()
	if g.full() || h.full() || h.overloaded() {
		g.starve()
		return false
	}
	g.live++
	h.live++
	h.served(g)
	if g.queued > 0 { // since before a reload
		g.rank()
	}
	return true
}

// Leave gives back a place that was entered and has no ticket.
func (g *Gate) Leave() {
	g.house.mu.Lock()
	defer g.house.unlock()
	g.uncount()
	g.roomMade()
}

// Seat makes a place that Enter has taken a ticket of the client who turned
// out to be there. Or it refuses the client, for what is not a matter of room,
// and the place is given back.
func (g *Gate) Seat(c Client, now Moment) (d Decision) {
	var a asking
	g.lookUp(&a, &c, now)
	defer g.house.unlock()
	g.uncount() // enter counts the place anew
	if g.turnsAway(&a, &d) {
		g.roomMade()
	} else {
		g.enter(&a, &d)
	}
	return d
}

// Ask decides about a client whose connection has been accepted.
func (g *Gate) Ask(c Client, now Moment) Decision { return g.ask(c, now, true) }

// Try is Ask for who cannot wait: where there is no room, it is refused.
func (g *Gate) Try(c Client, now Moment) Decision { return g.ask(c, now, false) }

func (g *Gate) ask(c Client, now Moment, waits bool) (d Decision) {
	var a asking
	g.lookUp(&a, &c, now)
	defer g.house.unlock()
	if g.turnsAway(&a, &d) {
		return d
	}
	g.house.takeTurns()
	cause, free := g.obstacle(&a)
	switch {
	case free:
		g.house.favoured = true
		g.enter(&a, &d)
	case a.trial: // who waits for a failing service only holds up the trial
		d = g.refuse(&a, ReasonFailing)
	case a.policy.rules.Refuse || !waits:
		d = g.refuse(&a, cause)
	default:
		d = g.park(&a, cause)
	}
	return d
}

// Screen refuses a client that Ask would refuse whatever room there is. So
// nobody need be waited for who cannot come in. Of a decision about others only
// the Change means something.
func (g *Gate) Screen(c Client, now Moment) (d Decision, refused bool) {
	var a asking
	g.lookUp(&a, &c, now)
	defer g.house.unlock()
	if !g.turnsAway(&a, &d) {
		return Decision{Change: a.change}, false
	}
	return d, true
}

// Refused counts a refusal that was decided elsewhere, as that for a bad PROXY
// header, towards a ban of the client.
func (g *Gate) Refused(c Client, r Reason, now Moment) {
	c = c.plain()
	g.house.mu.Lock()
	defer g.house.unlock()
	g.house.advance(now.Since)
	if p := g.policy.Load(); r.blames() {
		g.blame(p.sources.of(&c), p.Trusts(c.Addr))
	}
}

// asking is what is known of a client while it is decided about.
type asking struct {
	client  Client
	policy  *Policy
	entry   *entry // the rule that holds, nil for none
	quota   *quota
	allowed bool // by rules
	open    bool // by hours
	exempt  bool // never banned
	key     Source

	// What follows is known once the lock is held.
	source *source // nil if nothing is known of it
	trial  bool    // it would be the trial of a failing service
	change Change
}

func (a *asking) rule() *Rule {
	if a.entry == nil {
		return nil
	}
	return &a.entry.Rule
}

// lookUp fills a. What needs no lock comes first, then the lock is taken: the
// caller has to unlock.
func (g *Gate) lookUp(a *asking, c *Client, now Moment) {
	a.client = c.plain()
	for {
		g.policy.Load().lookUp(a, now.Wall)
		g.house.mu.Lock()
		if a.policy == g.policy.Load() {
			break
		}
		g.house.mu.Unlock() // it was replaced meanwhile
	}
	g.house.advance(now.Since)
	a.source = g.sources[a.key]
}

func (p *Policy) lookUp(a *asking, wall time.Time) {
	a.policy = p
	a.entry, a.quota, a.allowed = p.access.of(&a.client, &p.usual)
	a.allowed = a.allowed || a.client.Unseen
	a.open = p.open(wall)
	a.exempt = within(p.rules.Trusted, a.client.Addr)
	a.key = p.sources.of(&a.client)
}

// turnsAway refuses a client for what is not a matter of room.
func (g *Gate) turnsAway(a *asking, d *Decision) bool {
	now := g.house.clock
	if r, refused := g.shutOut(a); refused {
		*d = g.refuse(a, r)
		return true
	}
	if b := g.bannedBy(&a.client, a.exempt); b != nil {
		*d = g.refuse(a, ReasonBanned)
		d.Left = timeLeft(b.until, now)
		return true
	}
	a.change = g.failing.ripen(now)
	ok, trial := g.failing.admits(a.key, now)
	a.trial = trial
	if !ok {
		*d = g.refuse(a, ReasonFailing)
	}
	return !ok
}

// shutOut has the checks that remember nothing of the client.
func (g *Gate) shutOut(a *asking) (Reason, bool) {
	switch {
	case g.draining || g.house.draining:
		return ReasonDraining, true
	case !a.allowed:
		return ReasonAddress, true
	case !a.open:
		return ReasonHours, true
	}
	return 0, false
}

// roomReasons are what a client may wait for, in the order of the checks.
var roomReasons = [...]Reason{ReasonTotalLimit, ReasonLimit, ReasonSourceLimit, ReasonRate, ReasonSourceRate, ReasonLoad}

// obstacle is the first thing that keeps a client from coming in now.
func (g *Gate) obstacle(a *asking) (Reason, bool) {
	for _, r := range roomReasons {
		if !g.allowsBy(r, a, g.house.clock) {
			return r, false
		}
	}
	if a.source != nil && a.source.line.len > 0 { // first come, first served, for one source
		return a.source.line.first.cause, false
	}
	return 0, true
}

// allowsBy is one check.
func (g *Gate) allowsBy(r Reason, a *asking, now time.Duration) bool {
	switch r {
	case ReasonTotalLimit:
		return g.house.hasRoom()
	case ReasonLimit:
		return !g.full()
	case ReasonSourceLimit:
		return a.quota.max == 0 || a.live() < a.quota.max
	case ReasonRate:
		return a.policy.rate.every == 0 || g.bucket.next(a.policy.rate) <= now
	case ReasonSourceRate:
		return a.quota.pace.every == 0 || a.source == nil || a.source.bucket.next(a.quota.pace) <= now
	default:
		return !g.overloaded()
	}
}

func (a *asking) live() int {
	if a.source == nil {
		return 0
	}
	return a.source.live
}

// enter gives a client its place.
func (g *Gate) enter(a *asking, d *Decision) {
	s := a.source
	if s == nil {
		s = g.know(a.key)
	}
	p := g.take(s, a.quota, &a.client, a.exempt)
	d.Verdict, d.Rule, d.Change, d.Ticket = Entered, a.rule(), a.change, p.ticket()
	if a.trial {
		d.Change = g.failing.try(p, g.house.clock)
	}
	if s.line.len > 0 {
		g.rankSource(s)
	}
	if g.queued > 0 {
		g.rank()
	}
}

// take counts a place, with the tokens for it.
func (g *Gate) take(s *source, q *quota, c *Client, exempt bool) *place {
	now := g.house.clock
	g.bucket.take(g.policy.Load().rate, now)
	s.bucket.take(q.pace, now)
	s.live++
	g.live++
	g.house.live++
	p := g.house.newPlace()
	p.gate, p.source, p.exempt = g, s, exempt
	p.addr, p.unix, p.uid = c.Addr, c.Unix, c.UID
	return p
}

// refuse turns a client away, and counts it against it where it is to blame.
func (g *Gate) refuse(a *asking, r Reason) Decision {
	d := g.describe(r, a)
	if r.blames() {
		g.blame(a.key, a.exempt)
	}
	return d
}

func (g *Gate) blame(key Source, exempt bool) {
	if !exempt {
		g.accuse(key, &g.policy.Load().rules.Ban)
	}
}

// describe is a refusal with its numbers.
func (g *Gate) describe(r Reason, a *asking) Decision {
	d := Decision{Verdict: Refused, Reason: r, Rule: a.rule(), Change: a.change}
	d.Have, d.Limit, d.Left = g.numbers(r, a, g.house.clock)
	return d
}

// numbers are how things stand with a check.
func (g *Gate) numbers(r Reason, a *asking, now time.Duration) (have, limit int, left time.Duration) {
	switch r {
	case ReasonTotalLimit:
		return g.house.live, g.house.limits.Max, 0
	case ReasonLimit:
		return g.live, g.max(), 0
	case ReasonSourceLimit:
		return a.live(), a.quota.max, 0
	case ReasonRate:
		return bucketNumbers(g.bucket, a.policy.rate, now)
	case ReasonSourceRate:
		if a.source == nil {
			return bucketNumbers(bucket{}, a.quota.pace, now)
		}
		return bucketNumbers(a.source.bucket, a.quota.pace, now)
	case ReasonLoad:
		return int(g.house.load * 100), int(g.loadLimit() * 100), 0
	case ReasonFailing:
		return 0, 0, timeLeft(g.failing.until, now)
	}
	return 0, 0, 0
}

func bucketNumbers(b bucket, p pace, now time.Duration) (tokens, depth int, left time.Duration) {
	if p.every == 0 {
		return 0, 0, 0
	}
	return b.tokens(p, now), int(p.depth / p.every), timeLeft(b.next(p), now)
}

func (g *Gate) max() int { return g.policy.Load().rules.Max }

func (g *Gate) full() bool {
	limit := g.max()
	return limit > 0 && g.live >= limit
}

// loadLimit is the lower of the limits on the load that there are; 0 for none.
func (g *Gate) loadLimit() float64 {
	own, all := g.policy.Load().rules.MaxLoad, g.house.limits.MaxLoad
	if own > 0 && all > 0 {
		return min(own, all)
	}
	return max(own, all)
}

func (g *Gate) overloaded() bool {
	limit := g.loadLimit()
	return limit > 0 && g.house.load >= limit
}

// uncount gives a place back without telling anybody.
func (g *Gate) uncount() {
	g.live--
	g.house.live--
}

// roomMade notes that somebody may come in now.
func (g *Gate) roomMade() {
	if g.queued > 0 {
		g.rank()
	}
	g.offer()
}

// starve notes that connections of this gate wait in the kernel's queue.
func (g *Gate) starve() {
	g.owed = true
	if g.full() {
		return // room that somebody else makes is no use
	}
	g.house.starving(g)
}

// offer has the house resume a gate that is owed it, when it can.
func (g *Gate) offer() {
	if g.owed && !g.full() && !g.closed {
		g.house.list(g)
	}
}

// single makes every address a source of its own.
var single = Prefixes{IPv4: 32, IPv6: 128}

// Count notes a connection of a client, and returns how many its address, or its
// user, has now; Forget takes it back.
func (g *Gate) Count(c Client) int {
	plain := c.plain()
	key := single.of(&plain)
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	g.counts[key]++
	return g.counts[key]
}

// Forget takes back one Count of c.
func (g *Gate) Forget(c Client) {
	plain := c.plain()
	key := single.of(&plain)
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	if g.counts[key]--; g.counts[key] == 0 {
		delete(g.counts, key)
	}
}

// Live is how many connections have a place.
func (g *Gate) Live() int {
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	return g.live
}
