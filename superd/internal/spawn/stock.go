package spawn

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// A stock is the cells that are ready for one plan.
type stock struct {
	plan   *Plan
	making sync.Mutex // held while a cell is made of what the plan owns

	// Guarded by the keeper's mu.
	cells []*cell
	poor  bool // the last attempt has failed; tried again with the next connection
}

// stockSize is how many cells are kept ready for each plan: enough for those
// connections that come while the keeper is on its way. A cell takes 7 KB of
// the kernel's memory and two descriptors.
const stockSize = 8

// mostUsed bounds the namespaces that wait to be taken apart. Where that is
// slower than connections come, children make their cells themselves.
const mostUsed = 64

// open gives p a stock, which drop ends.
func (k *keeper) open(p *Plan) *stock {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &stock{plan: p}
	k.stocks = append(k.stocks, s)
	k.ring()
	return s
}

// drop takes the cells of s apart. When it returns nothing uses what the plan
// owns any more.
func (k *keeper) drop(s *stock) {
	k.mu.Lock()
	k.stocks = slices.DeleteFunc(k.stocks, func(other *stock) bool { return other == s })
	for _, c := range s.cells {
		k.discard(c)
	}
	s.cells = nil
	k.mu.Unlock()
	s.making.Lock()
	defer s.making.Unlock()
}

// take returns a cell of s for one child; nil where none is ready. From then
// on it is that child's until Release.
func (k *keeper) take(s *stock) *cell {
	if s == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s.poor = false
	for len(s.cells) > 0 && len(k.used) < mostUsed {
		last := len(s.cells) - 1
		c := s.cells[last]
		s.cells = s.cells[:last]
		if s.plan.walls.rules.current(c) {
			return c
		}
		k.discard(c)
	}
	return nil
}

// replenish has the keeper make cells where half of s's are gone. Before that
// it is left asleep: it wakes with the program's end anyway.
func (k *keeper) replenish(s *stock) {
	if s == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(s.cells) < stockSize/2 {
		k.ring()
	}
}

// giveBack ends a cell that a child has had.
func (k *keeper) giveBack(c *cell) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.discard(c)
}

// discard is giveBack for a caller that has the lock.
func (k *keeper) discard(c *cell) {
	if c.rules >= 0 {
		unix.Close(c.rules)
	}
	if k.bell == 0 {
		unix.Close(c.namespace)
		return
	}
	k.used = append(k.used, c.namespace)
	k.ring()
}

// put adds c to s. What kept it from being made will keep a child from it too,
// and that one says so.
func (k *keeper) put(s *stock, c *cell, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err != nil:
		s.poor = true
	case !slices.Contains(k.stocks, s): // dropped meanwhile
		k.discard(c)
	default:
		s.cells = append(s.cells, c)
	}
}
