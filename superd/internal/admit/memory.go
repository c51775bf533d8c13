package admit

// What strangers can make superd remember is bounded over all services
// together. Each service has an even share of it; what others do not use of
// theirs it may use as well.

// memory is one kind of what is kept.
type memory int

const (
	idleSources memory = iota // sources without connections whose buckets are not full
	suspects                  // sources with refusals that may add up to a ban
	banned                    // sources that are banned

	memories = iota
)

// mostKept is how many of each kind; one takes some 300 bytes at most, but a
// suspect 8 more for each refusal that counts.
var mostKept = [memories]int{idleSources: 1 << 17, suspects: 1 << 15, banned: 1 << 14}

// makeRoom has services drop what is least worth keeping until no more than
// mostKept is left: the one that asks if it has more than its share, and else
// whichever has most.
func (h *House) makeRoom(m memory, asking *Gate) {
	for h.kept[m] > h.mostKept[m] {
		g := asking
		if g.keeps(m) <= h.mostKept[m]/max(len(h.gates), 1) {
			g = h.hoarder(m)
		}
		g.evict(m)
	}
}

func (h *House) hoarder(m memory) (most *Gate) {
	for _, g := range h.gates {
		if most == nil || g.keeps(m) > most.keeps(m) {
			most = g
		}
	}
	return most
}

func (g *Gate) keeps(m memory) int {
	switch m {
	case idleSources:
		return g.idle.len()
	case suspects:
		return len(g.suspects.known)
	default:
		return g.bans.len()
	}
}

// evict drops one, or at least finds out that another is worth less.
func (g *Gate) evict(m memory) {
	switch m {
	case idleSources:
		g.evictSource()
	case suspects:
		g.acquit(g.suspects.least())
	default:
		g.unban(g.bans.soonest())
	}
}
