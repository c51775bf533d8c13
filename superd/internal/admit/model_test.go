package admit

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"superd/superd/internal/config"
)

// The model does what a house does without any of its means: it goes through
// everything each time, and forgets nothing.
type model struct {
	clock   time.Duration
	limits  Limits
	load    float64
	gates   []*modelGate
	arrived int
	told    map[int]string // by waiter: what Next has not told yet
}

type modelGate struct {
	rules    Rules
	draining bool
	full     time.Duration // the service's bucket
	sources  map[string]*modelSource
	lives    map[int]*modelConn // by ticket
	waits    []*modelConn       // in order of arrival
}

type modelSource struct {
	full   time.Duration
	blames []time.Duration
	banned time.Duration // until then
}

type modelConn struct {
	id       int
	addr     netip.Addr
	source   string
	arrival  int
	deadline time.Duration
	cause    Reason
	yields   bool
}

func (g *modelGate) key(a netip.Addr) string {
	bits := g.rules.SourcePrefix.IPv4
	p, _ := a.Prefix(bits)
	return p.String()
}

func (g *modelGate) source(key string) *modelSource {
	if g.sources[key] == nil {
		g.sources[key] = &modelSource{}
	}
	return g.sources[key]
}

// rule is the most specific that is about an address.
func (g *modelGate) rule(a netip.Addr) (best *Rule) {
	for i := range g.rules.Access {
		r := &g.rules.Access[i]
		if !r.Spec.Network.Contains(a) {
			continue
		}
		if best == nil || r.Spec.Network.Bits() > best.Spec.Network.Bits() ||
			r.Spec.Network.Bits() == best.Spec.Network.Bits() && r.Deny && !best.Deny {
			best = r
		}
	}
	return best
}

func (g *modelGate) allowed(a netip.Addr) bool {
	if r := g.rule(a); r != nil {
		return !r.Deny
	}
	return !g.rules.Restricted
}

func (g *modelGate) quota(a netip.Addr) (maximum int, rate config.Rate) {
	maximum, rate = g.rules.MaxPerSource, g.rules.RatePerSource
	if r := g.rule(a); r != nil && r.MaxPerSource > 0 {
		maximum = r.MaxPerSource
	}
	if r := g.rule(a); r != nil && r.RatePerSource.Count > 0 {
		rate = r.RatePerSource
	}
	return maximum, rate
}

func (g *modelGate) live(source string) (n int) {
	for _, c := range g.lives {
		if c.source == source {
			n++
		}
	}
	return n
}

func (g *modelGate) waiting(source string) (n int) {
	for _, c := range g.waits {
		if c.source == source {
			n++
		}
	}
	return n
}

func everyOf(r config.Rate) time.Duration {
	return (r.Per + time.Duration(r.Count) - 1) / time.Duration(r.Count)
}

// missing are the tokens that a bucket lacks, the last one maybe in part.
func (m *model) missing(full time.Duration, r config.Rate) float64 {
	return float64(max(full-m.clock, 0)) / float64(everyOf(r))
}

func (m *model) hasToken(full time.Duration, r config.Rate) bool {
	return r.Count == 0 || m.missing(full, r) <= float64(r.Burst)-1
}

func (m *model) takeToken(full *time.Duration, r config.Rate) {
	if r.Count > 0 {
		*full = max(*full, m.clock) + everyOf(r)
	}
}

func (m *model) fit(full *time.Duration, r config.Rate) {
	if r.Count > 0 && m.missing(*full, r) > float64(r.Burst) {
		*full = m.clock + everyOf(r)*time.Duration(r.Burst)
	}
}

func (m *model) live() (n int) {
	for _, g := range m.gates {
		n += len(g.lives)
	}
	return n
}

// obstacle is the first thing that keeps a client out.
func (m *model) obstacle(g *modelGate, a netip.Addr, source string) (Reason, bool) {
	maximum, rate := g.quota(a)
	limit := g.rules.MaxLoad
	switch s := g.source(source); {
	case m.limits.Max > 0 && m.live() >= m.limits.Max:
		return ReasonTotalLimit, true
	case g.rules.Max > 0 && len(g.lives) >= g.rules.Max:
		return ReasonLimit, true
	case maximum > 0 && g.live(source) >= maximum:
		return ReasonSourceLimit, true
	case !m.hasToken(g.full, g.rules.Rate):
		return ReasonRate, true
	case !m.hasToken(s.full, rate):
		return ReasonSourceRate, true
	case limit > 0 && m.load >= limit:
		return ReasonLoad, true
	}
	return 0, false
}

// settle lets in who can come in, one after the other.
func (m *model) settle() {
	for m.letOneIn() {
	}
	for {
		g, c := m.latest()
		if c == nil {
			return
		}
		m.dismiss(g, c, ReasonQueueTimeout)
		for m.letOneIn() {
		}
	}
}

func (m *model) letOneIn() bool {
	var bestGate *modelGate
	var best *modelConn
	for _, g := range m.gates {
		first := map[string]bool{}
		for _, c := range g.waits {
			if first[c.source] {
				continue
			}
			first[c.source] = true
			if _, is := m.obstacle(g, c.addr, c.source); is {
				continue
			}
			if best == nil || cmp.Or(cmp.Compare(g.live(c.source), bestGate.live(best.source)), cmp.Compare(c.arrival, best.arrival)) < 0 {
				bestGate, best = g, c
			}
		}
	}
	if best == nil {
		return false
	}
	m.drop(bestGate, best)
	m.enter(bestGate, best)
	m.told[best.id] = "in"
	return true
}

func (m *model) enter(g *modelGate, c *modelConn) {
	_, rate := g.quota(c.addr)
	m.takeToken(&g.full, g.rules.Rate)
	m.takeToken(&g.source(c.source).full, rate)
	g.lives[c.id] = c
}

func (m *model) drop(g *modelGate, c *modelConn) {
	g.waits = slices.DeleteFunc(g.waits, func(o *modelConn) bool { return o == c })
}

// latest is who has waited too long, the first to do so first.
func (m *model) latest() (late *modelGate, c *modelConn) {
	for _, g := range m.gates {
		for _, w := range g.waits {
			if w.deadline <= m.clock && (c == nil || cmp.Or(cmp.Compare(w.deadline, c.deadline), cmp.Compare(w.arrival, c.arrival)) < 0) {
				late, c = g, w
			}
		}
	}
	return late, c
}

func (m *model) dismiss(g *modelGate, c *modelConn, r Reason) {
	if _, there := m.told[c.id]; there {
		return
	}
	m.drop(g, c)
	d := Decision{Verdict: Refused, Reason: r, Cause: c.cause}
	m.told[c.id] = answer(d)
	if d.blames() {
		m.blame(g, c.source)
	}
}

func (m *model) blame(g *modelGate, source string) {
	p := g.rules.Ban
	if p.After == 0 {
		return
	}
	s := g.source(source)
	s.blames = append(s.blames, m.clock)
	n := 0
	for _, at := range s.blames {
		if at >= m.clock-p.Within {
			n++
		}
	}
	if n < p.After {
		return
	}
	s.blames, s.banned = nil, m.clock+p.For
	for _, c := range slices.Clone(g.waits) {
		if c.source == source {
			m.dismiss(g, c, ReasonBanned)
		}
	}
}

func (m *model) ask(g *modelGate, id int, a netip.Addr) string {
	m.settle()
	source := g.key(a)
	switch {
	case g.draining:
		return "draining"
	case !g.allowed(a):
		m.blame(g, source)
		return "address"
	case m.banned(g, a):
		return "banned"
	}
	cause, is := m.obstacle(g, a, source)
	if !is {
		for _, c := range g.waits {
			if c.source == source && !is {
				cause, is = c.cause, true
			}
		}
	}
	c := &modelConn{id: id, addr: a, source: source, arrival: m.arrived, cause: cause}
	switch {
	case !is:
		m.enter(g, c)
		return "in"
	case g.rules.Refuse:
		if cause.blames() {
			m.blame(g, source)
		}
		return cause.String()
	}
	return m.park(g, c)
}

func (m *model) park(g *modelGate, c *modelConn) string {
	if len(g.waits) >= g.rules.Queue.Length && !m.displace(g, c) {
		d := Decision{Reason: ReasonQueueFull, Cause: c.cause}
		if d.blames() {
			m.blame(g, c.source)
		}
		return answer(d)
	}
	m.arrived++
	c.arrival = m.arrived
	c.deadline = m.clock + g.rules.Queue.Timeout
	g.waits = append(g.waits, c)
	for m.letOneIn() { // who yielded may have been all that it waits for
	}
	return "waits " + c.cause.String()
}

func (m *model) displace(g *modelGate, c *modelConn) bool {
	for _, w := range slices.Backward(g.waits) {
		if w.yields {
			m.dismiss(g, w, ReasonQueueFull)
			return true
		}
	}
	most, first := 0, 0
	var last *modelConn
	for _, w := range g.waits {
		n := g.waiting(w.source)
		if n < most {
			continue
		}
		begin := slices.IndexFunc(g.waits, func(o *modelConn) bool { return o.source == w.source })
		if n > most || g.waits[begin].arrival >= first { // of equal ones, who began to wait last
			most, first, last = n, g.waits[begin].arrival, w
		}
	}
	if last == nil || most <= g.waiting(c.source)+1 {
		return false
	}
	m.dismiss(g, last, ReasonQueueFull)
	return true
}

// banned goes by the sources of all times: a ban is of the network that a
// source then was.
func (m *model) banned(g *modelGate, a netip.Addr) bool {
	for key, s := range g.sources {
		if p := netip.MustParsePrefix(key); s.banned > m.clock && p.Contains(a) {
			return true
		}
	}
	return false
}

func (m *model) setRules(g *modelGate, r Rules) {
	m.settle()
	before := g.rules.SourcePrefix
	g.rules = r
	for _, c := range slices.Clone(g.waits) {
		if !g.allowed(c.addr) {
			m.dismiss(g, c, ReasonAddress)
		}
	}
	if r.SourcePrefix != before {
		m.countAnew(g)
	}
	m.fit(&g.full, r.Rate)
	for key, s := range g.sources {
		_, rate := g.quota(netip.MustParsePrefix(key).Addr())
		m.fit(&s.full, rate)
	}
}

func (m *model) countAnew(g *modelGate) {
	full := map[string]time.Duration{}
	move := func(c *modelConn) {
		old := g.source(c.source).full
		c.source = g.key(c.addr)
		full[c.source] = max(full[c.source], old)
	}
	for _, c := range g.lives {
		move(c)
	}
	for _, c := range g.waits {
		move(c)
	}
	for key, s := range g.sources {
		s.full = full[key]
	}
	for key := range full {
		g.source(key).full = full[key]
	}
}

// A machine has a house and its model do the same.
type machine struct {
	house   *House
	gates   []*Gate
	model   *model
	since   time.Duration // the model's clock is what the house was told of it
	wall    time.Time
	last    int
	tickets map[int]Ticket // that were told
	waiters map[int]Waiter // whose end was not told
}

// now is told to both.
func (m *machine) now() Moment {
	m.model.clock = m.since
	return Moment{m.since, m.wall}
}

func drawRate(t *rapid.T, name string) config.Rate {
	if rapid.Bool().Draw(t, "no "+name) {
		return config.Rate{}
	}
	return newRate(rapid.IntRange(1, 3).Draw(t, name), time.Second, rapid.IntRange(1, 4).Draw(t, name+" burst"))
}

func drawRules(t *rapid.T) Rules {
	r := Rules{
		Restricted: rapid.IntRange(0, 3).Draw(t, "restricted") == 0, Max: rapid.IntRange(0, 4).Draw(t, "max"),
		MaxPerSource: rapid.IntRange(0, 2).Draw(t, "max_per_source"), Rate: drawRate(t, "rate"), RatePerSource: drawRate(t, "rate_per_source"),
		MaxLoad: float64(rapid.IntRange(0, 1).Draw(t, "max_load")), Refuse: rapid.IntRange(0, 3).Draw(t, "refuse") == 0,
		Queue:        Queue{rapid.IntRange(0, 6).Draw(t, "length"), time.Duration(rapid.IntRange(1, 4).Draw(t, "timeout")) * time.Second},
		SourcePrefix: Prefixes{rapid.SampledFrom([]int{32, 32, 31, 30}).Draw(t, "source_prefix"), 64},
		Ban:          Penalty{rapid.SampledFrom([]int{0, 0, 2, 4}).Draw(t, "after"), 2 * time.Second, 3 * time.Second},
	}
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		p := netip.PrefixFrom(host(rapid.IntRange(0, 7).Draw(t, "host")).Addr, rapid.IntRange(29, 32).Draw(t, "bits"))
		r.Access = append(r.Access, Rule{Spec: config.Network(p), Deny: rapid.IntRange(0, 2).Draw(t, "deny") == 0,
			MaxPerSource: rapid.IntRange(0, 3).Draw(t, "own max"), RatePerSource: drawRate(t, "own rate")})
	}
	return r
}

// TestModel has them do anything in any order.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Max: rapid.IntRange(0, 6).Draw(t, "limits.max")}
		m := &machine{house: NewHouse(limits, nil), wall: time.Unix(0, 0), tickets: map[int]Ticket{}, waiters: map[int]Waiter{}}
		m.model = &model{limits: limits, told: map[int]string{}}
		for i := range 2 {
			r := drawRules(t)
			m.gates = append(m.gates, m.house.Gate(fmt.Sprint(i), NewPolicy(r), nil))
			m.model.gates = append(m.model.gates, &modelGate{rules: r, sources: map[string]*modelSource{}, lives: map[int]*modelConn{}})
		}
		t.Repeat(map[string]func(*rapid.T){
			"ask": m.ask, "ask again": m.ask, "ask once more": m.ask, "release": m.release, "abandon": m.abandon, "yield": m.yield, "next": m.next,
			"time": m.pass, "rules": m.setRules, "load": m.setLoad, "limits": m.setLimits, "drain": m.drain, "": m.compare,
		})
	})
}

func (m *machine) gate(t *rapid.T) (*Gate, *modelGate) {
	i := rapid.IntRange(0, len(m.gates)-1).Draw(t, "gate")
	return m.gates[i], m.model.gates[i]
}

func (m *machine) ask(t *rapid.T) {
	g, mg := m.gate(t)
	c := host(rapid.IntRange(0, 7).Draw(t, "host"))
	m.last++
	// Explain does not let in first whose time has come: Status does.
	g.Status(m.now())
	x := g.Explain(c, m.now())
	d := g.Ask(c, m.now())
	want := m.model.ask(mg, m.last, c.Addr)
	if got := answer(d); got != want {
		t.Fatalf("%s is told %q, want %q", c.Addr, got, want)
	}
	inKernel := x.Verdict == Waits && NewPolicy(mg.rules).Direct() // Explain expects Enter to be asked there
	if got := answer(Decision{Verdict: x.Verdict, Reason: x.Reason, Cause: x.Cause}); got != want && !inKernel {
		t.Fatalf("%s is explained %q, and told %q", c.Addr, got, want)
	}
	switch d.Verdict {
	case Entered:
		m.tickets[m.last] = d.Ticket
	case Waits:
		m.waiters[m.last] = d.Waiter
	}
}

func drawKey[V any](t *rapid.T, from map[int]V) (int, bool) {
	keys := slices.Sorted(maps.Keys(from))
	if len(keys) == 0 {
		return 0, false
	}
	return rapid.SampledFrom(keys).Draw(t, "which"), true
}

func (m *machine) release(t *rapid.T) {
	id, ok := drawKey(t, m.tickets)
	if !ok {
		return
	}
	if !m.tickets[id].Release() || m.tickets[id].Release() {
		t.Fatalf("ticket %d is not released once", id)
	}
	delete(m.tickets, id)
	m.model.leave(id)
}

func (m *model) leave(id int) {
	for _, g := range m.gates {
		delete(g.lives, id)
	}
	for m.letOneIn() {
	}
}

func (m *machine) abandon(t *rapid.T) {
	id, ok := drawKey(t, m.waiters)
	if !ok {
		return
	}
	if !m.waiters[id].Abandon() || m.waiters[id].Abandon() {
		t.Fatalf("waiter %d is not abandoned once", id)
	}
	delete(m.waiters, id)
	delete(m.model.told, id)
	for _, g := range m.model.gates {
		g.waits = slices.DeleteFunc(g.waits, func(c *modelConn) bool { return c.id == id })
	}
	m.model.leave(id)
}

func (m *machine) yield(t *rapid.T) {
	id, ok := drawKey(t, m.waiters)
	if !ok {
		return
	}
	m.waiters[id].Yield()
	for _, g := range m.model.gates {
		for _, c := range g.waits {
			c.yields = c.yields || c.id == id
		}
	}
}

// next also looks whether Due has promised what there is.
func (m *machine) next(t *rapid.T) {
	m.now()
	m.model.settle()
	due, is := m.house.Due()
	if len(m.model.told) > 0 && (!is || due > m.model.clock) {
		t.Fatalf("Next has to tell %v, but says %v, %v", m.model.told, due, is)
	}
	ids := map[Waiter]int{}
	for id, w := range m.waiters {
		ids[w] = id
	}
	got := map[int]string{}
	for {
		w, d, ok := m.house.Next(m.now())
		if !ok {
			break
		}
		id, known := ids[w]
		if !known || w.Abandon() {
			t.Fatalf("who is told about waits no more, or still")
		}
		delete(m.waiters, id)
		got[id] = answer(d)
		if d.Verdict == Entered {
			m.tickets[id] = d.Ticket
		}
	}
	if !maps.Equal(got, m.model.told) {
		t.Fatalf("Next tells %v, want %v", got, m.model.told)
	}
	clear(m.model.told)
}

// pass has the clock on the wall jump about.
func (m *machine) pass(t *rapid.T) {
	m.since += time.Duration(rapid.IntRange(0, 12).Draw(t, "quarters")) * time.Second / 4
	m.wall = m.wall.Add(time.Duration(rapid.IntRange(-48, 48).Draw(t, "hours")) * time.Hour)
	if rapid.Bool().Draw(t, "look") {
		m.next(t)
	}
}

func (m *machine) setRules(t *rapid.T) {
	g, mg := m.gate(t)
	r := drawRules(t)
	g.SetPolicy(NewPolicy(r), m.now())
	m.model.setRules(mg, r)
	for m.model.letOneIn() {
	}
}

func (m *machine) setLoad(t *rapid.T) {
	m.model.load = float64(rapid.IntRange(0, 1).Draw(t, "load"))
	m.house.SetLoad(m.model.load)
	for m.model.letOneIn() {
	}
}

func (m *machine) setLimits(t *rapid.T) {
	now := m.now()
	m.model.settle()
	m.model.limits.Max = rapid.IntRange(0, 6).Draw(t, "limits.max")
	m.house.SetLimits(m.model.limits, now)
	for m.model.letOneIn() {
	}
}

func (m *machine) drain(t *rapid.T) {
	g, mg := m.gate(t)
	mg.draining = !mg.draining && rapid.IntRange(0, 3).Draw(t, "drain") == 0
	g.Drain(mg.draining)
	for _, c := range slices.Clone(mg.waits) {
		if mg.draining {
			m.model.dismiss(mg, c, ReasonDraining)
		}
	}
	for m.model.letOneIn() {
	}
}

func (m *machine) compare(t *rapid.T) {
	check(t, m.house)
	if m.house.Live() != m.model.live() {
		t.Fatalf("%d live, want %d", m.house.Live(), m.model.live())
	}
	for i, g := range m.model.gates {
		if n := m.gates[i].Live(); n != len(g.lives) {
			t.Fatalf("gate %d has %d, want %d", i, n, len(g.lives))
		}
	}
}
