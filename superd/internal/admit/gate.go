// Package admit decides whether a connection may come in. It touches no
// descriptor and starts nothing: it is asked, and told when a connection has
// ended.
package admit

import (
	"net/netip"
	"sync"
)

// A House is the room that all services share.
type House struct {
	mu      sync.Mutex
	max     int     // 0 for no limit
	live    int     // guarded by mu
	waiting []*Gate // gates that had to turn somebody away; guarded by mu
}

// NewHouse makes room for max connections over all services; 0 is no limit.
func NewHouse(max int) *House { return &House{max: max} }

// A Gate counts the live connections of one service.
type Gate struct {
	house   *House
	max     int    // 0 for no limit of its own
	resume  func() // called without locks when there may be room again
	live    int    // guarded by house.mu
	waiting bool   // resume is owed; guarded by house.mu
	sources map[netip.Addr]int
}

// Gate makes the gate of a service that may have max live connections; 0 is no
// limit of its own. Resume is called, from whoever leaves, when Enter has
// failed and there is room again; it must not block.
func (h *House) Gate(max int, resume func()) *Gate {
	return &Gate{house: h, max: max, resume: resume, sources: map[netip.Addr]int{}}
}

// Enter takes a place for a connection that is about to be accepted, and tells
// whether there was one. Each place is given back by one call of Leave.
func (g *Gate) Enter() bool {
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	if g.full() || g.house.full() {
		g.wait()
		return false
	}
	g.live++
	g.house.live++
	return true
}

func (g *Gate) full() bool  { return g.max > 0 && g.live >= g.max }
func (h *House) full() bool { return h.max > 0 && h.live >= h.max }

func (g *Gate) wait() {
	if !g.waiting {
		g.waiting = true
		g.house.waiting = append(g.house.waiting, g)
	}
}

// Leave gives a place back.
func (g *Gate) Leave() {
	g.house.mu.Lock()
	g.live--
	g.house.live--
	ready := g.house.ready()
	g.house.mu.Unlock()
	for _, g := range ready {
		g.resume()
	}
}

// ready takes from the waiting gates those that have room.
func (h *House) ready() (list []*Gate) {
	if len(h.waiting) == 0 || h.full() {
		return nil
	}
	still := h.waiting[:0]
	for _, g := range h.waiting {
		if g.full() {
			still = append(still, g)
			continue
		}
		g.waiting = false
		list = append(list, g)
	}
	clear(h.waiting[len(still):])
	h.waiting = still
	return list
}

// Live is how many connections have entered and not left.
func (g *Gate) Live() int {
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	return g.live
}

// Live is how many connections of all services have entered and not left.
func (h *House) Live() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live
}

// Count notes a connection of a source and returns how many that source has
// now; Forget takes it back.
func (g *Gate) Count(source netip.Addr) int {
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	g.sources[source]++
	return g.sources[source]
}

// Forget takes back one Count of source.
func (g *Gate) Forget(source netip.Addr) {
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	if g.sources[source]--; g.sources[source] == 0 {
		delete(g.sources, source)
	}
}
