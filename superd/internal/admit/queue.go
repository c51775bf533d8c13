package admit

import "time"

// Those who wait stand in line by source, the first who came in front. A
// source whose first may come in as far as the source is concerned is ready;
// ready sources are ranked by how much they have already and then by how long
// the first has waited. One that lacks a token only is blocked, until a time.
// One that has its maximum is neither until it gives something back. So what
// one source lacks never holds up another.

// waiting is a connection that waits, or one that waited until Next tells what
// became of it.
type waiting struct {
	gate     *Gate
	source   *source
	client   Client
	entry    *entry // the rule that holds for it, nil for none
	quota    *quota
	exempt   bool // never banned
	arrival  int64
	since    time.Duration
	cause    Reason // what it had to wait for
	decided  bool
	decision Decision

	deadline   int32 // spot in the house's heap
	yields     int32 // spot in the gate's
	use        uint64
	prev, next *waiting // in its line, or next among the decided or the free
}

// A Waiter is a connection that waits. Copies are the same waiter, and it can
// be a map's key.
type Waiter struct {
	Host any // the client's

	house *House
	who   *waiting
	use   uint64
}

func (w *waiting) waiter() Waiter { return Waiter{w.client.Host, w.gate.house, w, w.use} }

// Abandon ends the wait of one whose client has gone; if it has got a place
// meanwhile that Next has not told, that is given back. It returns false, and
// does nothing, if Next has told what became of it.
func (w Waiter) Abandon() bool {
	if w.house == nil {
		return false
	}
	h := w.house
	h.mu.Lock()
	defer h.unlock()
	x := w.who
	if x.use != w.use {
		return false
	}
	if x.decided {
		h.decided.remove(x)
		if t := x.decision.Ticket; t.house != nil {
			t.place.gate.vacate(t.place)
		}
	} else {
		x.gate.unline(x)
		x.gate.roomMade()
	}
	h.freeWaiting(x)
	return true
}

// Yield says that the waiter's client may have gone, though its connection is
// there still: when others find the queue full, its place is the first to be
// taken.
func (w Waiter) Yield() {
	if w.house == nil {
		return
	}
	w.house.mu.Lock()
	defer w.house.mu.Unlock()
	if x := w.who; x.use == w.use && !x.decided {
		x.gate.yielding.set(x, rank{first: -x.arrival})
	}
}

// A line is a list of those who wait, or are decided.
type line struct {
	first, last *waiting
	len         int
}

func (l *line) add(w *waiting) {
	w.prev, w.next = l.last, nil
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.len++
}

func (l *line) remove(w *waiting) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next = nil, nil
	l.len--
}

func (h *House) newWaiting() *waiting {
	w := h.spareWaiting
	if w == nil {
		return &waiting{}
	}
	h.spareWaiting, w.next = w.next, nil
	return w
}

// freeWaiting makes every Waiter of w void.
func (h *House) freeWaiting(w *waiting) {
	*w = waiting{use: w.use + 1, next: h.spareWaiting}
	h.spareWaiting = w
}

// park makes a client wait for what it lacks; or it is refused because too
// many wait already.
func (g *Gate) park(a *asking, cause Reason) Decision {
	h, queue := g.house, &a.policy.rules.Queue
	if g.queued >= queue.Length && !g.displace(a.source) {
		return g.refuseFull(a, cause)
	}
	d := g.describe(cause, a)
	w := h.newWaiting()
	w.gate, w.client, w.entry, w.quota, w.exempt = g, a.client, a.entry, a.quota, a.exempt
	w.since, w.cause = h.clock, cause
	h.arrivals++
	w.arrival = h.arrivals
	if queue.Timeout > 0 {
		h.deadlines.set(w, rank{int64(h.clock + queue.Timeout), w.arrival})
	}
	g.lineUp(w, g.know(a.key)) // not a.source: who was displaced may have been the last to know it
	d.Verdict, d.Waiter = Waits, w.waiter()
	return d
}

func (g *Gate) refuseFull(a *asking, cause Reason) Decision {
	d := Decision{
		Verdict: Refused, Reason: ReasonQueueFull, Cause: cause, Change: a.change, Rule: a.rule(),
		Have: g.queued, Limit: a.policy.rules.Queue.Length,
	}
	if d.blames() {
		g.blame(a.key, a.exempt)
	}
	return d
}

// lineUp puts w at the end of its source's line.
func (g *Gate) lineUp(w *waiting, s *source) {
	w.source = s
	s.line.add(w)
	g.queued++
	g.rankSource(s)
	g.rank()
}

// unline takes w out of its line.
func (g *Gate) unline(w *waiting) {
	s := w.source
	g.standUp(w)
	g.rankSource(s)
	g.rank()
	g.leave(s)
}

// standUp takes w out of all lists of those who wait.
func (g *Gate) standUp(w *waiting) {
	w.source.line.remove(w)
	g.queued--
	g.yielding.remove(w)
	g.house.deadlines.remove(w)
}

// displace makes room in a full queue for a source, nil if it is a new one: who
// may have gone loses its place, and else the last of a source that has more
// waiting than this one would have. So nobody fills the queue for others.
func (g *Gate) displace(s *source) bool {
	if !g.displaces(s) {
		return false
	}
	d := Decision{Reason: ReasonQueueFull, Have: g.queued, Limit: g.policy.Load().rules.Queue.Length}
	w := g.crowd.top().line.last
	if g.yielding.len() > 0 {
		w = g.yielding.top()
	}
	g.dismiss(w, d)
	return true
}

// displaces tells whether displace would.
func (g *Gate) displaces(s *source) bool {
	if g.yielding.len() > 0 {
		return true
	}
	mine := 0
	if s != nil {
		mine = s.line.len
	}
	return g.crowd.len() > 0 && g.crowd.top().line.len > mine+1
}

// dismiss ends a wait without a place.
func (g *Gate) dismiss(w *waiting, d Decision) {
	if w.decided { // a ban can dismiss several at once
		return
	}
	d.Verdict, d.Cause = Refused, w.cause
	if w.entry != nil {
		d.Rule = &w.entry.Rule
	}
	key := w.source.key
	g.unline(w)
	g.house.decide(w, d)
	if d.blames() {
		g.blame(key, w.exempt)
	}
}

// blames tells whether a client brought a refusal upon itself.
func (d *Decision) blames() bool {
	if d.Reason == ReasonQueueFull || d.Reason == ReasonQueueTimeout {
		return d.Cause.blames()
	}
	return d.Reason.blames()
}

// timeOut ends a wait that took too long.
func (g *Gate) timeOut(w *waiting) {
	g.dismiss(w, Decision{Reason: ReasonQueueTimeout, Left: g.house.clock - w.since})
}

// rankSource brings everything up to date that depends on a source's line, its
// live connections or its bucket.
func (g *Gate) rankSource(s *source) {
	first := s.line.first
	if first == nil {
		g.ready.remove(s)
		g.blocked.remove(s)
		g.crowd.remove(s)
		return
	}
	g.crowd.set(s, rank{-int64(s.line.len), -first.arrival})
	next := s.allows(first.quota.pace)
	switch {
	case first.quota.max > 0 && s.live >= first.quota.max:
		g.ready.remove(s)
		g.blocked.remove(s)
	case next > g.house.clock:
		g.ready.remove(s)
		g.blocked.set(s, rank{first: int64(next)})
	default:
		g.blocked.remove(s)
		g.ready.set(s, rank{int64(s.live), first.arrival})
	}
}

// rank brings up to date when somebody of this gate may come in: now, as far
// as only the house can hinder it, or at a time.
func (g *Gate) rank() {
	h := g.house
	next := never
	if g.blocked.len() > 0 {
		next = time.Duration(g.blocked.topRank().first)
	}
	eligible := g.ready.len() > 0 && !g.full() && !g.overloaded() && !g.draining
	if eligible {
		if at := g.allows(); at > h.clock {
			next, eligible = min(next, at), false
		}
	}
	if eligible {
		h.eligible.set(g, g.ready.topRank())
	} else {
		h.eligible.remove(g)
	}
	if next < never {
		h.timers.set(g, rank{first: int64(next)})
	} else {
		h.timers.remove(g)
	}
}

// allows is when the service's bucket lets the next one in.
func (g *Gate) allows() time.Duration {
	p := g.policy.Load().rate
	if p.every == 0 {
		return 0
	}
	return g.bucket.next(p)
}

// wakeUp does what the time has come for.
func (g *Gate) wakeUp() {
	now := int64(g.house.clock)
	for g.blocked.len() > 0 && g.blocked.topRank().first <= now {
		g.rankSource(g.blocked.top())
	}
	g.rank()
}

// admitFirst lets the first of the foremost source in.
func (g *Gate) admitFirst() {
	s := g.ready.top()
	w := s.line.first
	g.standUp(w)
	p := g.take(s, w.quota, &w.client, w.exempt)
	d := Decision{Verdict: Entered, Ticket: p.ticket()}
	if w.entry != nil {
		d.Rule = &w.entry.Rule
	}
	g.rankSource(s)
	g.rank()
	g.house.decide(w, d)
}

// waiters are all who wait at the gate.
func (g *Gate) waiters() (list []*waiting) {
	for _, e := range g.crowd.list {
		for w := e.what.line.first; w != nil; w = w.next {
			list = append(list, w)
		}
	}
	return list
}

// dismissFailing refuses those who wait for a service that has begun to fail.
func (g *Gate) dismissFailing() {
	for _, w := range g.waiters() {
		if g.failing.concerns(w.source.key) {
			g.dismiss(w, Decision{Reason: ReasonFailing, Left: timeLeft(g.failing.until, g.house.clock)})
		}
	}
}
