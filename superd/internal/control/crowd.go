package control

import (
	"slices"
	"sync"
)

// A crowd is the clients of one kind that are connected, so many at most.
// Whoever comes gets in: where there are too many, the one leaves who has been
// there longest without a request that is being answered, and only where all
// have one, the one who has been there longest. So nobody who connects and
// keeps silent, however often, can keep others out.
type crowd struct {
	most int

	mu   sync.Mutex
	here []*connection // the oldest first; guarded by mu
}

func (c *crowd) enter(n *connection) {
	n.crowd = c
	c.mu.Lock()
	c.here = append(c.here, n)
	var out *connection
	if len(c.here) > c.most {
		out = c.here[c.leastMissed()]
	}
	c.mu.Unlock()
	if out != nil {
		out.Close()
	}
}

// leastMissed is whom to send away; never the one who has just come.
func (c *crowd) leastMissed() int {
	silent := slices.IndexFunc(c.here, func(n *connection) bool { return !n.busy.Load() })
	if silent < len(c.here)-1 {
		return max(silent, 0)
	}
	return 0
}

// dismissSilent closes all whose request is not being answered.
func (c *crowd) dismissSilent() {
	c.mu.Lock()
	list := slices.Clone(c.here)
	c.mu.Unlock()
	for _, n := range list {
		if !n.busy.Load() {
			n.Close()
		}
	}
}

func (c *crowd) leave(n *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.here, n); i >= 0 {
		c.here = slices.Delete(c.here, i, i+1)
	}
}
