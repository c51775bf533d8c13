package admit

// fataler is a test of either kind.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// check looks for contradictions in all that a house knows.
func check(t fataler, h *House) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	live, thirst := 0, 0
	var kept [memories]int
	waiting := 0
	for _, g := range h.gates {
		live += g.live
		waiting += g.queued
		if g.thirsty {
			thirst++
		}
		for m := range memories {
			kept[m] += g.keeps(memory(m))
		}
		checkGate(t, g)
	}
	decided := 0
	for w := h.decided.first; w != nil; w = w.next {
		decided++
	}
	switch {
	case live > h.live || h.live < 0: // those of closed gates are the house's still
		t.Fatalf("the house has %d, its gates %d", h.live, live)
	case thirst != h.thirst || kept != h.kept:
		t.Fatalf("thirst %d, counted %d; kept %v, counted %v", thirst, h.thirst, kept, h.kept)
	case decided != h.decided.len || h.deadlines.len() > waiting:
		t.Fatalf("%d decided, counted %d; %d deadlines of %d who wait", decided, h.decided.len, h.deadlines.len(), waiting)
	case h.eligible.len() > 0 && h.hasRoom():
		t.Fatalf("%d could come in", h.eligible.len())
	}
	for m := range memories {
		if h.kept[m] > h.mostKept[m] {
			t.Fatalf("%d kept of kind %d", h.kept[m], m)
		}
	}
	checkHeap(t, &h.eligible)
	checkHeap(t, &h.timers)
	checkHeap(t, &h.deadlines)
}

func checkGate(t fataler, g *Gate) {
	t.Helper()
	live, queued := 0, 0
	for key, s := range g.sources {
		live += s.live
		queued += s.line.len
		checkSource(t, g, key, s)
	}
	seated := 0
	for p := range g.house.placesOf(g) {
		seated++
		if g.sources[p.source.key] != p.source {
			t.Fatalf("a place of %s, which is not known", p.source.key)
		}
	}
	if live != seated || live > g.live || queued != g.queued {
		t.Fatalf("%d live, %d of sources, %d places; %d wait, %d of sources", g.live, live, seated, g.queued, queued)
	}
	checkHeap(t, &g.ready)
	checkHeap(t, &g.blocked)
	checkHeap(t, &g.crowd)
	checkHeap(t, &g.idle)
	checkHeap(t, &g.yielding)
	for _, r := range g.yielding.list {
		if r.what.gate != g || r.what.decided || r.what.source == nil {
			t.Fatalf("one yields who does not wait: %+v", r.what)
		}
	}
	suspects := 0
	for i := range g.suspects.levels {
		for s := g.suspects.levels[i].next; s != &g.suspects.levels[i]; s = s.next {
			suspects++
		}
	}
	if suspects != len(g.suspects.known) {
		t.Fatalf("%d suspects in lists, %d known", suspects, len(g.suspects.known))
	}
}

func checkSource(t fataler, g *Gate, key Source, s *source) {
	t.Helper()
	now := g.house.clock
	n := 0
	for w := s.line.first; w != nil; w = w.next {
		n++
		if w.source != s || w.decided || w.next != nil && w.next.arrival < w.arrival {
			t.Fatalf("%s: a line out of order", key)
		}
	}
	used := s.live > 0 || n > 0
	switch {
	case s.key != key || s.live < 0 || n != s.line.len:
		t.Fatalf("%s: %+v", key, s)
	case !used && !g.idle.holds(s):
		t.Fatalf("%s is kept for nothing", key)
	case g.crowd.holds(s) != (n > 0) || (g.ready.holds(s) || g.blocked.holds(s)) && n == 0:
		t.Fatalf("%s: wrong heaps for %d who wait", key, n)
	case g.ready.holds(s) && g.blocked.holds(s):
		t.Fatalf("%s is ready and blocked", key)
	}
	if n == 0 {
		return
	}
	q := s.line.first.quota
	full := q.max > 0 && s.live >= q.max
	lacks := s.allows(q.pace) > now
	if g.ready.holds(s) != (!full && !lacks) || g.blocked.holds(s) != (!full && lacks) {
		t.Fatalf("%s: full %v, lacks a token %v, but ready %v, blocked %v", key, full, lacks, g.ready.holds(s), g.blocked.holds(s))
	}
}

func checkHeap[T any](t fataler, h *heap[T]) {
	t.Helper()
	for i, r := range h.list {
		if int(*h.spot(r.what)) != i+1 {
			t.Fatalf("a thing at %d believes to be at %d", i+1, *h.spot(r.what))
		}
		if i > 0 && r.rank.before(h.list[(i-1)/children].rank) {
			t.Fatalf("a heap is out of order at %d", i)
		}
	}
}
