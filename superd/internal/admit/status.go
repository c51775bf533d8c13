package admit

import "time"

// Status is how things stand with one gate.
type Status struct {
	Name    string
	Live    int // connections with a place
	Max     int // 0 for no limit
	Waiting int // accepted, without a place yet
	Sources int // that are known: live, waiting, or with a bucket that fills
	Bans    int
	State   string        // ready, draining, failing or trying
	Left    time.Duration // of the pause of a failing service
	Culprit string        // the one source that a failing service is failing for; "" for all
	Ends    Ends
}

// Status is how things stand now.
func (g *Gate) Status(now Moment) Status {
	h := g.house
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	s := Status{
		Name: g.name, Live: g.live, Max: g.max(), Waiting: g.queued,
		Sources: len(g.sources), Bans: g.bans.len(), State: g.state(), Ends: g.failing.ends,
	}
	if g.failing.state == paused {
		s.Left = timeLeft(g.failing.until, h.clock)
	}
	if g.failing.state != healthy && g.failing.narrow {
		s.Culprit = g.failing.culprit.String()
	}
	return s
}

func (g *Gate) state() string {
	switch {
	case g.draining || g.house.draining:
		return "draining"
	case g.failing.state == paused:
		return "failing"
	case g.failing.state == trying:
		return "trying"
	}
	return "ready"
}
