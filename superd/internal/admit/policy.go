package admit

import (
	"net/netip"
	"slices"
	"time"

	"superd/superd/internal/config"
)

// Rules are what the file says about one service's admission. Zero values are
// no rule, so that the zero Rules let everybody in and have everybody wait who
// finds no room in the queue that it does not have.
type Rules struct {
	Restricted    bool           // an allow list is there, if an empty one
	Access        []Rule         // allow and deny, in the order of the file
	Hours         []config.Hours // open in any of them; none is always
	Max           int            // live connections
	MaxPerSource  int
	Rate          config.Rate
	RatePerSource config.Rate
	MaxLoad       float64  // of the last minute; at that load nobody comes in
	SourcePrefix  Prefixes // the zero Prefixes are UsualPrefixes
	Refuse        bool     // on_limit: refuse; else those wait who find no room
	Queue         Queue
	Parks         bool // who waits is accepted for it, also where the kernel's queue would do
	Ban           Penalty
	Failures      Failures
	Trusted       []netip.Prefix // proxies: never banned
}

// A Queue bounds those who wait for one service.
type Queue struct {
	Length  int           // at most so many
	Timeout time.Duration // at most so long; 0 for no end
}

// A Policy is Rules compiled. It never changes, and may be one gate's after
// another's.
type Policy struct {
	rules   Rules
	access  *access
	usual   quota // of whom no rule names
	rate    pace
	hours   []timetable
	sources Prefixes
	direct  bool
}

// NewPolicy compiles rules, which are not kept.
func NewPolicy(r Rules) *Policy {
	p := &Policy{rules: r, sources: r.SourcePrefix, rate: paceOf(r.Rate)}
	if p.sources == (Prefixes{}) {
		p.sources = UsualPrefixes
	}
	for i := range r.Hours {
		p.hours = append(p.hours, newTimetable(&r.Hours[i]))
	}
	p.rules.Hours = nil
	p.rules.Trusted = nil
	for _, t := range r.Trusted {
		p.rules.Trusted = append(p.rules.Trusted, config.Network(t).Network)
	}
	p.usual = quota{r.MaxPerSource, paceOf(r.RatePerSource)}
	p.access = newAccess(r.Restricted, r.Access, p.usual)
	p.rules.Access = nil
	p.direct = p.looksAtNobody()
	return p
}

// looksAtNobody tells whether only the numbers of places count: then whoever
// finds none can wait where waiting is cheapest, in the kernel's queue.
func (p *Policy) looksAtNobody() bool {
	r := &p.rules
	return !r.Restricted && len(p.access.rules) == 0 && len(p.hours) == 0 &&
		p.usual == quota{} && p.rate == pace{} && r.MaxLoad == 0 && r.Ban.After == 0 && !r.Refuse && !r.Parks
}

// Direct tells whether places are taken by Gate.Enter, before a connection is
// accepted, or else by Gate.Ask after.
func (p *Policy) Direct() bool { return p.direct }

// Trusts tells whether an address is one of a trusted proxy.
func (p *Policy) Trusts(addr netip.Addr) bool {
	return within(p.rules.Trusted, addr.Unmap().WithZone(""))
}

// open tells whether t is in the hours.
func (p *Policy) open(t time.Time) bool {
	return len(p.hours) == 0 || slices.ContainsFunc(p.hours, func(h timetable) bool { return h.open(t) })
}
