package admit

import (
	"encoding/binary"
	"net/netip"
	"time"

	"superd/superd/internal/config"
)

// A Source is whom connections are counted by: a network as long as
// source_prefix says, or a user.
type Source struct{ kind, high, low uint64 }

// Kinds of sources. For networks the length is added.
const (
	strangers uint64 = iota // clients that are neither of the others, all as one
	users
	networks4 = 0x100
	networks6 = 0x200
)

// Prefixes are how much of an address makes a source, in bits.
type Prefixes struct{ IPv4, IPv6 int }

// UsualPrefixes are a host of IPv4, and the least that a customer gets of IPv6.
var UsualPrefixes = Prefixes{IPv4: 32, IPv6: 64}

// of is the source of a plain client.
func (p Prefixes) of(c *Client) Source {
	switch {
	case c.Addr.Is4():
		b := c.Addr.As4()
		return Source{networks4 + uint64(p.IPv4), 0, uint64(binary.BigEndian.Uint32(b[:]) & uint32(mask64(p.IPv4+32)))}
	case c.Addr.IsValid():
		b := c.Addr.As16()
		high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
		return Source{networks6 + uint64(p.IPv6), high & mask64(p.IPv6), low & mask64(p.IPv6-64)}
	case c.Unix:
		return Source{users, 0, uint64(c.UID)}
	}
	return Source{}
}

// mask64 has the first bits of 64 set.
func mask64(bits int) uint64 {
	return ^(^uint64(0) >> min(max(bits, 0), 64))
}

// Spec is what a rule would name the source by. That of strangers is the zero
// Spec.
func (s Source) Spec() config.Spec {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], s.high)
	binary.BigEndian.PutUint64(b[8:], s.low)
	switch {
	case s.kind >= networks6:
		return config.Network(netip.PrefixFrom(netip.AddrFrom16(b), int(s.kind-networks6)))
	case s.kind >= networks4:
		return config.Network(netip.PrefixFrom(netip.AddrFrom4([4]byte(b[12:])), int(s.kind-networks4)))
	case s.kind == users:
		return config.User(uint32(s.low))
	}
	return config.Spec{}
}

// client is one that belongs to the source.
func (s Source) client() Client {
	whom := s.Spec()
	return Client{Addr: whom.Network.Addr(), Unix: whom.Kind == config.UserSpec, UID: whom.ID}
}

// String is the source as a rule would name it.
func (s Source) String() string {
	if s.kind == strangers {
		return "unknown"
	}
	return s.Spec().String()
}

// A source is what a gate knows of one: it lives while it has connections or
// waiters, and after that while its bucket fills.
type source struct {
	key    Source
	live   int
	bucket bucket
	line   line // those who wait, in order of arrival

	ready, blocked, crowd, idle int32 // spots in the gate's heaps
	next                        *source
}

// allows is when the bucket lets the next one in.
func (s *source) allows(p pace) time.Duration {
	if p.every == 0 {
		return 0
	}
	return s.bucket.next(p)
}

// know is the source of that key, made if need be.
func (g *Gate) know(key Source) *source {
	s := g.sources[key]
	if s == nil {
		s = g.house.newSource()
		s.key = key
		g.sources[key] = s
	}
	return s
}

func (h *House) newSource() *source {
	s := h.freeSources
	if s == nil {
		return &source{}
	}
	h.freeSources, s.next = s.next, nil
	return s
}

// leave notes that a source may have nobody here any more. One whose bucket is
// full is forgotten without loss.
func (g *Gate) leave(s *source) {
	switch {
	case s.live > 0 || s.line.len > 0 || g.idle.holds(s):
	case s.bucket.full <= g.house.clock || g.closed:
		g.forget(s)
	default:
		g.remember(s)
	}
}

func (g *Gate) forget(s *source) {
	delete(g.sources, s.key)
	g.drop(s)
}

// drop frees a source that the gate no longer knows.
func (g *Gate) drop(s *source) {
	g.dropIdle(s)
	g.ready.remove(s)
	g.blocked.remove(s)
	g.crowd.remove(s)
	*s = source{next: g.house.freeSources}
	g.house.freeSources = s
}

// remember keeps an idle source for the sake of its bucket. Of what is too
// much, the bucket that is nearest to full is lost first: a source over its
// rate loses its bucket only to others that are as far over theirs.
func (g *Gate) remember(s *source) {
	g.tidy()
	g.tidy()
	g.idle.set(s, rank{first: int64(s.bucket.full)})
	g.house.kept[idleSources]++
	g.house.makeRoom(idleSources, g)
}

// tidy forgets one idle source whose bucket is full. As it is called twice for
// each that becomes idle, none stay for long.
func (g *Gate) tidy() {
	if g.idle.len() > 0 && g.idle.topRank().first <= int64(g.house.clock) {
		g.evictSource()
	}
}

// evictSource looks at the idle source that was nearest to full when it was
// last looked at, and forgets it if it still is so. It may have come to life,
// or have taken tokens, since: then only its rank is mended.
func (g *Gate) evictSource() {
	s := g.idle.top()
	switch full := int64(s.bucket.full); {
	case s.live > 0 || s.line.len > 0:
		g.dropIdle(s)
	case full > g.idle.topRank().first:
		g.idle.set(s, rank{first: full})
	default:
		g.forget(s)
	}
}

func (g *Gate) dropIdle(s *source) {
	if g.idle.holds(s) {
		g.idle.remove(s)
		g.house.kept[idleSources]--
	}
}
