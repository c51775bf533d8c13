package admit

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits hold over all services. Zero is no limit.
type Limits struct {
	Max     int     // live connections
	MaxLoad float64 // of the last minute; at that load nobody comes in
}

// A House is the room that all services share. One lock guards it and all its
// gates: what is done under it is short, and the limits of the house and
// fairness between services need to see all.
type House struct {
	wake func()       // Next has something to tell earlier than it said
	due  atomic.Int64 // what Due returns

	mu       sync.Mutex
	limits   Limits
	load     float64
	clock    time.Duration // the latest time that anybody has told
	live     int
	draining bool
	gates    []*Gate
	blocks   register

	// Those who wait and have been accepted.
	arrivals  int64
	eligible  heap[*Gate]    // somebody there may come in as far as the gate is concerned
	timers    heap[*Gate]    // by when to look at them again
	deadlines heap[*waiting] // by when they have waited too long
	decided   line           // what Next has not told yet
	expected  time.Duration  // when Next will be called, as far as it knows

	// Those who wait in the kernel's queues.
	starved    []*Gate       // owed a resume when there is room
	thirst     int           // gates that are thirsty
	reserved   int           // 1 while a place is kept for them, else 0
	reservedTo time.Duration // until when; 0 until a time was told
	favoured   bool          // it was one of the accepted that got the last place

	kept, mostKept [memories]int

	places       []*[placesAtOnce]place // never freed
	freePlaces   *place
	freeSources  *source
	spareWaiting *waiting
}

// NewHouse makes the room. Wake is called without locks, by whoever brought it
// about, when Next should be called earlier than it said; it must not block,
// and may be nil.
func NewHouse(l Limits, wake func()) *House {
	h := &House{limits: l, wake: wake, expected: never, mostKept: mostKept}
	h.eligible.spot = func(g *Gate) *int32 { return &g.eligible }
	h.timers.spot = func(g *Gate) *int32 { return &g.timer }
	h.deadlines.spot = func(w *waiting) *int32 { return &w.deadline }
	h.blocks.init()
	h.due.Store(int64(never))
	return h
}

// full is what Enter goes by; hasRoom also leaves a place that is kept for it.
func (h *House) full() bool { return h.limits.Max > 0 && h.live >= h.limits.Max }
func (h *House) hasRoom() bool {
	return h.limits.Max == 0 || h.live+h.reserved < h.limits.Max && !h.theirTurn()
}

func (h *House) overloaded() bool { return h.limits.MaxLoad > 0 && h.load >= h.limits.MaxLoad }

// advance brings the house to a time: who waited for it comes in, and who
// waited too long is dismissed.
func (h *House) advance(now time.Duration) {
	h.clock = max(h.clock, now)
	for h.timers.len() > 0 && h.timers.topRank().first <= int64(h.clock) {
		h.timers.top().wakeUp()
	}
	if h.reserved > 0 {
		h.keepReserved()
	}
	h.pump()
	for h.deadlines.len() > 0 && h.deadlines.topRank().first <= int64(h.clock) {
		w := h.deadlines.top()
		w.gate.timeOut(w)
		h.pump()
	}
}

// pump lets in who may come in, the worthiest of all services first.
func (h *House) pump() {
	for h.eligible.len() > 0 {
		h.takeTurns()
		if !h.hasRoom() {
			return
		}
		h.eligible.top().admitFirst()
		h.favoured = true
	}
}

// When the house is full, connections that wait in the kernel's queues and
// those that have been accepted take turns for the places that become free. A
// place is kept for the former that long; then, nobody was there.
const turn = 20 * time.Millisecond

// takeTurns keeps the last place for the others if it is their turn.
func (h *House) takeTurns() {
	if h.theirTurn() {
		h.reserved, h.reservedTo = 1, 0
	}
}

func (h *House) theirTurn() bool {
	return h.favoured && h.thirst > 0 && h.reserved == 0 && h.live+1 == h.limits.Max
}

func (h *House) keepReserved() {
	switch {
	case h.reservedTo == 0:
		h.reservedTo = h.clock + turn
	case h.clock >= h.reservedTo:
		for _, g := range h.gates {
			g.quench()
		}
		h.reserved = 0
	}
}

// served notes that a gate has entered.
func (h *House) served(g *Gate) {
	g.quench()
	h.favoured = false
	h.reserved = 0
}

func (g *Gate) quench() {
	if g.thirsty {
		g.thirsty = false
		g.house.thirst--
	}
}

// starving notes that a gate waits for room in the house.
func (h *House) starving(g *Gate) {
	if h.full() && !g.thirsty {
		g.thirsty = true
		h.thirst++
	}
	h.list(g)
}

func (h *House) list(g *Gate) {
	if !g.listed {
		g.listed = true
		h.starved = append(h.starved, g)
	}
}

// resumable takes a gate that there is room for from those that starve.
func (h *House) resumable() *Gate {
	for len(h.starved) > 0 && !h.full() && !h.overloaded() {
		g := h.starved[0]
		h.starved = slices.Delete(h.starved, 0, 1)
		g.listed = false
		if g.owed && !g.full() {
			g.owed = false
			return g
		}
	}
	return nil
}

// decide has Next tell what became of w.
func (h *House) decide(w *waiting, d Decision) {
	w.decided, w.decision = true, d
	h.decided.add(w)
}

// unlock lets in whom what happened makes room for and gives the lock back;
// then it calls whom it concerns.
func (h *House) unlock() {
	for {
		h.pump()
		due := h.nextDue()
		wake := due < h.expected && h.wake != nil
		if due != time.Duration(h.due.Load()) {
			h.due.Store(int64(due))
		}
		h.expected = min(h.expected, due)
		g := h.resumable()
		h.mu.Unlock()
		if wake {
			h.wake()
		}
		if g == nil {
			return
		}
		g.resume()
		h.mu.Lock()
	}
}

func (h *House) nextDue() time.Duration {
	next := never
	if h.timers.len() > 0 {
		next = time.Duration(h.timers.topRank().first)
	}
	if h.deadlines.len() > 0 {
		next = min(next, time.Duration(h.deadlines.topRank().first))
	}
	switch {
	case h.decided.len > 0:
		return h.clock
	case h.reserved > 0 && h.reservedTo == 0:
		return h.clock
	case h.reserved > 0:
		return min(next, h.reservedTo)
	}
	return next
}

// Next tells what became of one connection that waited: it has entered or is
// refused. It returns false when there is nothing to tell until Due.
func (h *House) Next(now Moment) (Waiter, Decision, bool) {
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	w := h.decided.first
	if w == nil {
		h.expected = h.nextDue()
		return Waiter{}, Decision{}, false
	}
	h.decided.remove(w)
	told, d := w.waiter(), w.decision
	h.freeWaiting(w)
	return told, d, true
}

// Due is the time, as in Moment.Since, from which Next may have something to
// tell; false if nobody waits for any time. It takes no lock.
func (h *House) Due() (time.Duration, bool) {
	due := time.Duration(h.due.Load())
	return due, due < never
}

// SetLimits replaces the limits of the house. Live connections stay.
func (h *House) SetLimits(l Limits, now Moment) {
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	h.limits = l
	h.everybody()
}

// SetLoad tells the load average of the last minute.
func (h *House) SetLoad(load float64) {
	h.mu.Lock()
	defer h.unlock()
	h.load = load
	h.everybody()
}

// everybody lets in all whom a change concerns.
func (h *House) everybody() {
	for _, g := range h.gates {
		g.rank()
		g.offer()
	}
}

// Drain refuses everybody from now on, also those who wait. Live connections
// stay, and what waits in the kernel's queues can still be entered and seated:
// it is refused then.
func (h *House) Drain() {
	h.mu.Lock()
	defer h.unlock()
	h.draining = true
	for _, g := range h.gates {
		g.dismissAll(ReasonDraining)
	}
}

// Live is how many connections of all services have a place.
func (h *House) Live() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live
}
