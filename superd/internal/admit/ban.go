package admit

import (
	"fmt"
	"time"

	"github.com/gaissmai/bart"

	"superd/superd/internal/config"
)

// A Ban is a source that is kept out for a time.
type Ban struct {
	Service string // "" for every service
	Whom    config.Spec
	Left    time.Duration // until it ends; 0 if it does not end by itself
}

// A ban is one entry of a register.
type ban struct {
	whom  config.Spec
	until time.Duration
	spot  int32
}

// A register has bans with their ends. Those that have ended are no longer
// there for anybody.
type register struct {
	networks bart.Table[*ban]
	users    map[uint32]*ban
	ends     heap[*ban]
	strange  *ban // of clients without an address or a user
}

func (r *register) init() {
	r.users = map[uint32]*ban{}
	r.ends.spot = func(b *ban) *int32 { return &b.spot }
}

func (r *register) len() int      { return r.ends.len() }
func (r *register) soonest() *ban { return r.ends.top() }

// get is the ban of exactly that source.
func (r *register) get(whom config.Spec) *ban {
	switch whom.Kind {
	case config.NetworkSpec:
		b, _ := r.networks.Get(whom.Network)
		return b
	case config.UserSpec:
		return r.users[whom.ID]
	}
	return r.strange
}

func (r *register) put(whom config.Spec, b *ban) {
	switch {
	case whom.Kind == config.NetworkSpec && b != nil:
		r.networks.Insert(whom.Network, b)
	case whom.Kind == config.NetworkSpec:
		r.networks.Delete(whom.Network)
	case whom.Kind == config.UserSpec && b != nil:
		r.users[whom.ID] = b
	case whom.Kind == config.UserSpec:
		delete(r.users, whom.ID)
	default:
		r.strange = b
	}
}

// add begins a ban, or gives it another end.
func (r *register) add(whom config.Spec, until time.Duration) {
	b := r.get(whom)
	if b == nil {
		b = &ban{whom: whom}
		r.put(whom, b)
	}
	b.until = until
	r.ends.set(b, rank{first: int64(until)})
}

func (r *register) remove(b *ban) {
	r.put(b.whom, nil)
	r.ends.remove(b)
}

// of is a ban that keeps a plain client out, nil if there is none. All that
// have ended must have been removed.
func (r *register) of(c *Client) *ban {
	if r.len() == 0 {
		return nil
	}
	switch {
	case c.Addr.IsValid():
		b, _ := r.networks.Lookup(c.Addr)
		return b
	case c.Unix:
		return r.users[c.UID]
	}
	return r.strange
}

// ended is a ban that has ended by now, nil if there is none.
func (r *register) ended(now time.Duration) *ban {
	if r.len() == 0 || r.soonest().until > now {
		return nil
	}
	return r.soonest()
}

func (r *register) list(service string, now time.Duration) (list []Ban) {
	for _, e := range r.ends.list {
		if e.what.until > now {
			list = append(list, Ban{service, e.what.whom, timeLeft(e.what.until, now)})
		}
	}
	return list
}

// ban keeps a source out of one service.
func (g *Gate) ban(key Source, until time.Duration) {
	before := g.bans.len()
	g.bans.add(key.Spec(), until)
	g.house.kept[banned] += g.bans.len() - before
	g.house.makeRoom(banned, g)
	if s := g.sources[key]; s != nil {
		for w := s.line.first; w != nil; w = s.line.first {
			g.dismiss(w, Decision{Reason: ReasonBanned, Left: timeLeft(until, g.house.clock)})
		}
	}
}

func (g *Gate) unban(b *ban) {
	g.bans.remove(b)
	g.house.kept[banned]--
}

// bannedBy is what keeps a client out: a ban of this service or a block of all
// of them. A trusted proxy is never kept out, whatever is around its address.
func (g *Gate) bannedBy(c *Client, exempt bool) *ban {
	for b := g.bans.ended(g.house.clock); b != nil; b = g.bans.ended(g.house.clock) {
		g.unban(b)
	}
	for b := g.house.blocks.ended(g.house.clock); b != nil; b = g.house.blocks.ended(g.house.clock) {
		g.house.blocks.remove(b)
	}
	if exempt {
		return nil
	}
	if b := g.house.blocks.of(c); b != nil {
		return b
	}
	return g.bans.of(c)
}

// mostBlocks is how many networks can be blocked at a time.
const mostBlocks = 10_000

// Block keeps a network, or a user, out of all services until a time has passed;
// 0 is until Unblock. Blocked again, it has the new end. A network's trusted
// proxies are not kept out.
func (h *House) Block(whom config.Spec, length time.Duration, now Moment) error {
	if !concrete(whom) {
		return fmt.Errorf("cannot block %s: neither a network nor a user", whom)
	}
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	until := never
	if length > 0 {
		until = h.clock + length
	}
	if h.blocks.get(whom) == nil && h.blocks.len() >= mostBlocks {
		return fmt.Errorf("cannot block %s: %d networks are blocked already", whom, mostBlocks)
	}
	h.blocks.add(whom, until)
	for _, g := range h.gates {
		g.dismissBlocked(whom, until)
	}
	return nil
}

// concrete tells whether whom is a valid network, or a user.
func concrete(whom config.Spec) bool {
	return whom.Kind == config.NetworkSpec && whom.Network.IsValid() || whom.Kind == config.UserSpec
}

func (g *Gate) dismissBlocked(whom config.Spec, until time.Duration) {
	for _, w := range g.waiters() {
		if !w.exempt && matches(whom, &w.client) {
			g.dismiss(w, Decision{Reason: ReasonBanned, Left: timeLeft(until, g.house.clock)})
		}
	}
	g.roomMade()
}

// Unblock lifts all blocks and bans of a user, or of networks inside the one that
// is given, and returns how many there were.
func (h *House) Unblock(whom config.Spec) (lifted int) {
	if !concrete(whom) {
		return 0
	}
	h.mu.Lock()
	defer h.unlock()
	for _, b := range h.blocks.inside(whom) {
		h.blocks.remove(b)
		lifted++
	}
	for _, g := range h.gates {
		for _, b := range g.bans.inside(whom) {
			g.unban(b)
			lifted++
		}
	}
	return lifted
}

func (r *register) inside(whom config.Spec) (list []*ban) {
	if whom.Kind == config.UserSpec {
		if b := r.users[whom.ID]; b != nil {
			list = append(list, b)
		}
		return list
	}
	for _, b := range r.networks.Subnets(whom.Network) {
		list = append(list, b)
	}
	return list
}

// Around finds a block, or a ban of one service, of a network that whom is a part
// of; false where there is none in force.
func (h *House) Around(whom config.Spec, now Moment) (around config.Spec, found bool) {
	h.mu.Lock()
	defer h.unlock()
	h.advance(now.Since)
	registers := []*register{&h.blocks}
	for _, g := range h.gates {
		registers = append(registers, &g.bans)
	}
	for _, r := range registers {
		for _, b := range r.networks.Supernets(whom.Network) {
			if b.until > h.clock {
				return b.whom, true
			}
		}
	}
	return config.Spec{}, false
}

// Bans are all blocks and bans in force.
func (h *House) Bans(now Moment) []Ban {
	h.mu.Lock()
	defer h.unlock()
	list := h.blocks.list("", now.Since)
	for _, g := range h.gates {
		list = append(list, g.bans.list(g.name, now.Since)...)
	}
	return list
}
