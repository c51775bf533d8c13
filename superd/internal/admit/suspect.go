package admit

import (
	"math/bits"
	"slices"
	"time"
)

// A Penalty is what a source has to expect: After that many refusals and
// failed programs Within a time it is banned For a time. The zero Penalty is
// none.
type Penalty struct {
	After       int // 1 to MostCounted
	Within, For time.Duration
}

// MostCounted is the highest number that After may have in Penalty and
// Failures: each time is remembered.
const MostCounted = 1000

// levels is how many lists there are: by the bits of numbers up to MostCounted.
const levels = 11

// A suspect is a source that brought refusals upon itself lately.
type suspect struct {
	key        Source
	times      []time.Duration // of what counts, oldest first
	level      int             // the list it is in
	prev, next *suspect
}

// suspectList has those of one gate: by source, and in lists by how much there
// is against them, the longest unheard of first. A level stands for twice the
// number of the one before.
type suspectList struct {
	known  map[Source]*suspect
	levels [levels]suspect // rings
	cursor int
	free   *suspect
}

func (l *suspectList) init() {
	l.known = map[Source]*suspect{}
	for i := range l.levels {
		ring := &l.levels[i]
		ring.prev, ring.next = ring, ring
	}
}

// accuse counts one thing against a source, and bans it when that is enough.
func (g *Gate) accuse(key Source, p *Penalty) {
	if p.After == 0 || g.closed {
		return
	}
	now := g.house.clock
	g.acquitOld(p, now)
	s := g.suspect(key)
	s.times = append(recent(s.times, now-p.Within), now)
	if len(s.times) >= p.After {
		g.acquit(s)
		g.ban(key, now+p.For)
		return
	}
	g.suspects.move(s)
	g.house.makeRoom(suspects, g)
}

// recent drops times before since from the front.
func recent(times []time.Duration, since time.Duration) []time.Duration {
	old := 0
	for old < len(times) && times[old] < since {
		old++
	}
	return slices.Delete(times, 0, old)
}

func (g *Gate) suspect(key Source) *suspect {
	l := &g.suspects
	s := l.known[key]
	if s != nil {
		return s
	}
	if s = l.free; s != nil {
		l.free, s.next = s.next, nil
	} else {
		s = &suspect{}
	}
	s.key = key
	l.known[key] = s
	g.house.kept[suspects]++
	return s
}

// move puts s at the end of the list for what there is against it.
func (l *suspectList) move(s *suspect) {
	s.unlink()
	s.level = bits.Len(uint(len(s.times)))
	ring := &l.levels[min(s.level, levels-1)]
	s.prev, s.next = ring.prev, ring
	ring.prev.next, ring.prev = s, s
}

func (s *suspect) unlink() {
	if s.next != nil {
		s.prev.next, s.next.prev = s.next, s.prev
		s.prev, s.next = nil, nil
	}
}

// least is the suspect with least against it, and of such the longest unheard
// of.
func (l *suspectList) least() *suspect {
	for i := range l.levels {
		if ring := &l.levels[i]; ring.next != ring {
			return ring.next
		}
	}
	return nil
}

// acquit forgets a suspect.
func (g *Gate) acquit(s *suspect) {
	l := &g.suspects
	s.unlink()
	delete(l.known, s.key)
	*s = suspect{times: s.times[:0], next: l.free}
	l.free = s
	g.house.kept[suspects]--
}

// acquitOld looks at the longest unheard of in one list, another each time.
func (g *Gate) acquitOld(p *Penalty, now time.Duration) {
	l := &g.suspects
	l.cursor = (l.cursor + 1) % levels
	ring := &l.levels[l.cursor]
	for range 2 * levels { // so that more are looked at than can be added meanwhile
		s := ring.next
		if s == ring || s.times[len(s.times)-1] >= now-p.Within {
			return
		}
		g.acquit(s)
	}
}
