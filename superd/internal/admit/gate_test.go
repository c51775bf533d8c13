package admit

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"superd/superd/internal/config"
)

// at is a moment with a wall clock that jumps about by days.
func at(since time.Duration) Moment {
	return Moment{since, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(since%7-3) * 24 * time.Hour)}
}

// host is a client of 10.0.0.0/24.
func host(n int) Client { return Client{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})} }

func oneGate(l Limits, r Rules) (*House, *Gate) {
	h := NewHouse(l, nil)
	return h, h.Gate("s", NewPolicy(r), func() {})
}

// asks asks for each client in turn and returns the answers in words.
func asks(g *Gate, now time.Duration, hosts ...int) (answers []string, tickets []Ticket) {
	for _, n := range hosts {
		d := g.Ask(host(n), at(now))
		answers = append(answers, answer(d))
		tickets = append(tickets, d.Ticket)
	}
	return answers, tickets
}

func answer(d Decision) string {
	switch {
	case d.Verdict == Entered:
		return "in"
	case d.Reason == ReasonQueueFull || d.Reason == ReasonQueueTimeout:
		return d.Reason.String() + " " + d.Cause.String()
	case d.Verdict == Waits:
		return "waits " + d.Reason.String()
	}
	return d.Reason.String()
}

// told is what Next has to tell, by host.
func told(t testing.TB, h *House, now time.Duration, names map[Waiter]int) (list []string) {
	t.Helper()
	for {
		w, d, ok := h.Next(at(now))
		if !ok {
			return list
		}
		list = append(list, fmt.Sprint(names[w], " ", answer(d)))
		if w.Abandon() {
			t.Error("a waiter that was told about is abandoned")
		}
	}
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestLimits(t *testing.T) {
	load := func(load float64) func(*House) { return func(h *House) { h.SetLoad(load) } }
	for _, x := range []struct {
		name  string
		house Limits
		rules Rules
		begin func(*House)
		hosts []int
		want  []string
	}{
		{"no rule", Limits{}, Rules{}, nil, []int{1, 1, 1}, []string{"in", "in", "in"}},
		{"all services", Limits{Max: 2}, Rules{Max: 1000}, nil, []int{1, 2, 3}, []string{"in", "in", "total-limit"}},
		{"this service", Limits{Max: 9}, Rules{Max: 2}, nil, []int{1, 2, 3}, []string{"in", "in", "limit"}},
		{"a source", Limits{}, Rules{MaxPerSource: 1}, nil, []int{1, 1, 2}, []string{"in", "source-limit", "in"}},
		{"a wide source", Limits{}, Rules{MaxPerSource: 1, SourcePrefix: Prefixes{31, 64}}, nil, []int{2, 3, 4}, []string{"in", "source-limit", "in"}},
		{"rate", Limits{}, Rules{Rate: newRate(1, time.Second, 2)}, nil, []int{1, 2, 3}, []string{"in", "in", "rate"}},
		{"a source's rate", Limits{}, Rules{RatePerSource: newRate(1, time.Hour, 2)}, nil, []int{1, 1, 1, 2}, []string{"in", "in", "source-rate", "in"}},
		{"load", Limits{}, Rules{MaxLoad: 4}, load(4), []int{1}, []string{"load"}},
		{"less load", Limits{}, Rules{MaxLoad: 4}, load(3.99), []int{1}, []string{"in"}},
		{"load for all", Limits{MaxLoad: 3}, Rules{MaxLoad: 4}, load(3), []int{1}, []string{"load"}},
		{"own load", Limits{MaxLoad: 4}, Rules{MaxLoad: 3}, load(3), []int{1}, []string{"load"}},
		{"the first in their order", Limits{Max: 1}, Rules{Max: 1, MaxPerSource: 1, Rate: newRate(1, time.Hour, 1)}, nil, []int{1, 1}, []string{"in", "total-limit"}},
		{"a rule's own limit", Limits{}, Rules{MaxPerSource: 1, Access: []Rule{{Spec: mustSpec("10.0.0.1"), MaxPerSource: 2}}}, nil,
			[]int{1, 1, 1, 2, 2}, []string{"in", "in", "source-limit", "in", "source-limit"}},
		{"a rule's own rate", Limits{}, Rules{RatePerSource: newRate(1, time.Hour, 1), Access: []Rule{{Spec: mustSpec("10.0.0.1"), RatePerSource: newRate(1, time.Hour, 2)}}}, nil,
			[]int{1, 1, 1, 2, 2}, []string{"in", "in", "source-rate", "in", "source-rate"}},
	} {
		x.rules.Refuse = true
		h, g := oneGate(x.house, x.rules)
		if x.begin != nil {
			x.begin(h)
		}
		got, _ := asks(g, 0, x.hosts...)
		expect(t, x.name, got, x.want)
		check(t, h)
	}
}

func TestSources(t *testing.T) {
	p := UsualPrefixes
	for _, x := range []struct {
		client Client
		want   string
	}{
		{addressClient("192.0.2.1"), "192.0.2.1"},
		{addressClient("::ffff:192.0.2.1"), "192.0.2.1"},
		{addressClient("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64"},
		{Client{Unix: true, UID: 1000, GID: 4}, "uid:1000"},
		{Client{}, "unknown"},
	} {
		c := x.client.plain()
		expect(t, x.want, p.of(&c), x.want)
	}
	for bits := range 129 {
		c := addressClient("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")
		want, _ := c.Addr.Prefix(bits)
		first := Client{Addr: want.Masked().Addr()}
		if got := (Prefixes{32, bits}).of(&c); got.Spec() != config.Network(want) || got != (Prefixes{32, bits}).of(&first) {
			t.Errorf("/%d: %s, want %s", bits, got, want)
		}
	}
	for bits := range 33 {
		c := addressClient("203.255.255.255")
		want, _ := c.Addr.Prefix(bits)
		if got := (Prefixes{bits, 64}).of(&c).Spec(); got != config.Network(want) {
			t.Errorf("/%d: %s, want %s", bits, got, want)
		}
	}
}

func TestTicket(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 1, Refuse: true})
	_, tickets := asks(g, 0, 1)
	first := tickets[0]
	if first.Gate() != g || !first.Release() || first.Release() || first.Gate() != nil {
		t.Error("a ticket is not released exactly once")
	}
	_, tickets = asks(g, 0, 2)
	if first.Release() || g.Live() != 1 || first.Ended(End{Kind: Failed}, at(0)) != NoChange {
		t.Error("an old ticket has taken a place that another has now")
	}
	if !tickets[0].Release() || (Ticket{}).Release() || h.Live() != 0 {
		t.Error("not empty at the end")
	}
	check(t, h)
}

func TestBucketsOutliveConnections(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{RatePerSource: newRate(1, time.Second, 2), Refuse: true})
	for range 2 {
		_, tickets := asks(g, 0, 1)
		tickets[0].Release()
	}
	got, _ := asks(g, 999*time.Millisecond, 1)
	expect(t, "too early", got, []string{"source-rate"})
	got, tickets := asks(g, time.Second, 1)
	expect(t, "a token has come", got, []string{"in"})
	tickets[0].Release()
	check(t, h)
	asks(g, 24*time.Hour, 2)
	_, tickets = asks(g, 24*time.Hour, 3)
	tickets[0].Release()
	if len(g.sources) != 2 {
		t.Errorf("%d sources are known, want those of the last second", len(g.sources))
	}
}

func TestQueueOrder(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 3, Queue: Queue{10, 10 * time.Second}})
	got, tickets := asks(g, 0, 1, 1, 2)
	expect(t, "room", got, []string{"in", "in", "in"})
	names := map[Waiter]int{}
	for _, n := range []int{1, 2, 3, 4, 3} {
		d := g.Ask(host(n), at(0))
		expect(t, "full", answer(d), "waits limit")
		names[d.Waiter] = n
	}
	check(t, h)
	if due, ok := h.Due(); !ok || due != 10*time.Second {
		t.Errorf("Next is due at %v", due)
	}
	expect(t, "nothing yet", told(t, h, time.Second, names), []string{})
	tickets[0].Release() // 1 and 2 have one, 3 and 4 none: 3 was there before 4
	tickets[1].Release() // 1 and 4 have none: 1 was there first
	if due, ok := h.Due(); !ok || due > time.Second {
		t.Errorf("Next is due at %v", due)
	}
	expect(t, "two places", told(t, h, time.Second, names), []string{"3 in", "1 in"})
	tickets[2].Release() // 2 and 4 have none, 3 has one
	expect(t, "a third", told(t, h, time.Second, names), []string{"2 in"})
	check(t, h)
	expect(t, "the end of patience", told(t, h, 10*time.Second, names), []string{"4 queue-timeout limit", "3 queue-timeout limit"})
	check(t, h)
}

func TestNobodyIsHeldUpByOthers(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 10, MaxPerSource: 2, RatePerSource: newRate(1, time.Second, 3), Queue: Queue{10, time.Minute}})
	got, tickets := asks(g, 0, 1, 1, 1, 2, 2, 3)
	expect(t, "source 1 is at its limit", got, []string{"in", "in", "waits source-limit", "in", "in", "in"})
	names := map[Waiter]int{}
	tickets[0].Release()
	expect(t, "its own place", len(told(t, h, 0, names)), 1)
	tickets[1].Release()
	got, _ = asks(g, 0, 1, 3, 4)
	expect(t, "source 1 has no token", got, []string{"waits source-rate", "in", "in"})
	if due, _ := h.Due(); due != time.Second {
		t.Errorf("Next is due at %v", due)
	}
	expect(t, "too early", told(t, h, time.Second-1, names), []string{})
	expect(t, "a token", told(t, h, time.Second, names), []string{"0 in"})
	check(t, h)
}

func TestOneSourceKeepsItsOrder(t *testing.T) {
	own := []Rule{{Spec: mustSpec("10.0.0.2"), MaxPerSource: 1}, {Spec: mustSpec("10.0.0.3"), MaxPerSource: 2}}
	h, g := oneGate(Limits{}, Rules{SourcePrefix: Prefixes{31, 64}, Access: own, Queue: Queue{9, time.Minute}})
	got, tickets := asks(g, 0, 2, 2, 3)
	expect(t, "10.0.0.3 may have two, but is behind", got, []string{"in", "waits source-limit", "waits source-limit"})
	tickets[0].Release()
	expect(t, "both", len(told(t, h, 0, map[Waiter]int{})), 2)
	check(t, h)
}

// A waiter that gives up may have been the one who stood in the way.
func TestTimeoutLetsTheNextIn(t *testing.T) {
	own := []Rule{{Spec: mustSpec("10.0.0.2"), MaxPerSource: 1}, {Spec: mustSpec("10.0.0.3"), MaxPerSource: 3}}
	h, g := oneGate(Limits{}, Rules{SourcePrefix: Prefixes{31, 64}, Max: 2, Access: own, Queue: Queue{9, 10 * time.Second}})
	names := map[Waiter]int{}
	asks(g, 0, 2)
	names[g.Ask(host(2), at(0)).Waiter] = 2
	names[g.Ask(host(3), at(time.Second)).Waiter] = 3
	got, _ := asks(g, 10*time.Second, 4)
	expect(t, "another comes when the first gives up", got, []string{"waits limit"})
	expect(t, "the second is in", told(t, h, 10*time.Second, names), []string{"2 queue-timeout source-limit", "3 in"})
	check(t, h)
}

func TestTimeDoesNotGoBack(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{Rate: newRate(1, time.Second, 1), Refuse: true})
	asks(g, 10*time.Second, 1)
	got, _ := asks(g, 0, 1)
	expect(t, "an old time", got, []string{"rate"})
	if g.house.clock != 10*time.Second {
		t.Errorf("it is %v", g.house.clock)
	}
}

func TestQueueIsShared(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 1, Queue: Queue{3, time.Minute}})
	asks(g, 0, 9)
	names := map[Waiter]int{}
	for i, want := range []string{"waits limit", "waits limit", "waits limit", "queue-full limit"} {
		d := g.Ask(host(1), at(0))
		expect(t, fmt.Sprint("source 1, number ", i), answer(d), want)
		names[d.Waiter] = i + 10
	}
	d := g.Ask(host(2), at(0))
	expect(t, "source 2 has none", answer(d), "waits limit")
	expect(t, "the last of source 1 has to go", told(t, h, 0, names), []string{"12 queue-full limit"})
	got, _ := asks(g, 0, 2, 3)
	expect(t, "one more would be as many; one more source", got, []string{"queue-full limit", "waits limit"})
	check(t, h)
}

func TestAbandon(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 1, Queue: Queue{2, time.Minute}})
	_, tickets := asks(g, 0, 1)
	a, b := g.Ask(host(2), at(0)).Waiter, g.Ask(host(3), at(0)).Waiter
	if !a.Abandon() || a.Abandon() || (Waiter{}).Abandon() {
		t.Error("not exactly once")
	}
	c := g.Ask(host(4), at(0)).Waiter // in the place of a
	if a.Abandon() {
		t.Error("an old waiter has abandoned another")
	}
	tickets[0].Release() // b gets it, but before that is told, its client goes away
	if !b.Abandon() {
		t.Error("one who has not been told is not abandoned")
	}
	names := map[Waiter]int{b: 3, c: 4}
	expect(t, "the next", told(t, h, 0, names), []string{"4 in"})
	if g.Live() != 1 {
		t.Errorf("%d live", g.Live())
	}
	check(t, h)
}

func TestFairBetweenServices(t *testing.T) {
	h := NewHouse(Limits{Max: 2}, nil)
	rules := NewPolicy(Rules{MaxPerSource: 100, Queue: Queue{10, time.Minute}})
	a, b := h.Gate("a", rules, nil), h.Gate("b", rules, nil)
	_, tickets := asks(a, 0, 1, 1)
	names := map[Waiter]int{}
	for i, g := range []*Gate{a, a, b} {
		d := g.Ask(host(1), at(0))
		expect(t, "full", answer(d), "waits total-limit")
		names[d.Waiter] = i
	}
	tickets[0].Release()
	expect(t, "who has none there", told(t, h, 0, names), []string{"2 in"})
	tickets[1].Release()
	expect(t, "then the first", told(t, h, 0, names), []string{"0 in"})
}

func TestDrain(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 1, Queue: Queue{2, time.Minute}})
	_, tickets := asks(g, 0, 1, 2)
	g.Drain(true)
	expect(t, "who waits", told(t, h, 0, map[Waiter]int{}), []string{"0 draining"})
	got, _ := asks(g, 0, 3)
	expect(t, "who comes", got, []string{"draining"})
	tickets[0].Release()
	g.Drain(false)
	got, _ = asks(g, 0, 3, 4)
	expect(t, "again", got, []string{"in", "waits limit"})
	h.Drain()
	expect(t, "who waits", told(t, h, 0, map[Waiter]int{}), []string{"0 draining"})
	expect(t, "who was seated", answer(seated(g)), "draining")
	check(t, h)
}

func seated(g *Gate) Decision {
	g.house.mu.Lock()
	g.live, g.house.live = g.live+1, g.house.live+1 // as Enter does where there is room
	g.house.mu.Unlock()
	return g.Seat(host(9), at(0))
}

func TestEnterAndSeat(t *testing.T) {
	resumed := 0
	h := NewHouse(Limits{}, nil)
	g := h.Gate("s", NewPolicy(Rules{Max: 1}), func() { resumed++ })
	if !g.Direct() || !g.Enter() || g.Enter() || g.Enter() || resumed != 0 {
		t.Fatal("one place is not one place")
	}
	g.Leave() // nobody was there
	if resumed != 1 || !g.Enter() {
		t.Fatalf("resumed %d times", resumed)
	}
	d := g.Seat(host(1), at(0))
	expect(t, "the client", answer(d), "in")
	if g.Live() != 1 || g.Enter() {
		t.Fatal("a seated client has two places or none")
	}
	d.Ticket.Release()
	if resumed != 2 || g.Live() != 0 {
		t.Errorf("resumed %d times, %d live", resumed, g.Live())
	}
	if err := h.Block(config.Network(netip.MustParsePrefix("10.0.0.0/8")), time.Minute, at(0)); err != nil {
		t.Fatal(err)
	}
	g.Enter()
	expect(t, "blocked", answer(g.Seat(host(1), at(0))), "banned")
	if g.Live() != 0 {
		t.Error("a refused client has a place")
	}
	check(t, h)
}

func TestDirect(t *testing.T) {
	for name, r := range map[string]Rules{
		"allow": {Restricted: true}, "deny": {Access: specs(true, "10.0.0.0/8")}, "hours": {Hours: []config.Hours{{}}},
		"max_per_source": {MaxPerSource: 1}, "rate": {Rate: newRate(1, time.Second, 1)}, "rate_per_source": {RatePerSource: newRate(1, time.Second, 1)},
		"max_load": {MaxLoad: 1}, "ban": {Ban: Penalty{1, 1, 1}}, "on_limit: refuse": {Refuse: true}, "queue": {Parks: true},
	} {
		if NewPolicy(r).Direct() {
			t.Errorf("%s: direct", name)
		}
	}
	if !NewPolicy(Rules{Max: 1, Failures: Failures{1, 1, 1}, Queue: Queue{1, 1}}).Direct() {
		t.Error("a service without such rules is not direct")
	}
}

// When the house is full, those who wait in the kernel's queue and those who
// were accepted take turns.
func TestTurns(t *testing.T) {
	h := NewHouse(Limits{Max: 1}, nil)
	resumed := false
	direct := h.Gate("direct", NewPolicy(Rules{}), func() { resumed = true })
	queued := h.Gate("queued", NewPolicy(Rules{MaxPerSource: 100, Queue: Queue{10, time.Hour}}), nil)
	holder := queued.Ask(host(1), at(0)).Ticket
	var now time.Duration
	entered := map[string]int{}
	for range 100 {
		for queued.Status(at(now)).Waiting < 5 {
			queued.Ask(host(2), at(now))
		}
		if direct.Enter() {
			t.Fatal("entered a full house")
		}
		resumed = false
		holder.Release()
		now += time.Millisecond
		if _, d, ok := h.Next(at(now)); ok {
			entered["queued"]++
			holder = d.Ticket
			continue
		}
		if !resumed || !direct.Enter() {
			t.Fatal("a place is free, and nobody may have it")
		}
		entered["direct"]++
		holder = direct.Seat(host(3), at(now)).Ticket
	}
	expect(t, "turns", entered, map[string]int{"queued": 50, "direct": 50})
	check(t, h)
}

func TestTurnIsNotKeptForNobody(t *testing.T) {
	h := NewHouse(Limits{Max: 1}, nil)
	direct := h.Gate("direct", NewPolicy(Rules{}), func() {})
	queued := h.Gate("queued", NewPolicy(Rules{MaxPerSource: 100, Queue: Queue{10, time.Hour}}), nil)
	holder := queued.Ask(host(1), at(0)).Ticket
	direct.Enter()
	queued.Ask(host(2), at(0))
	holder.Release() // direct's turn; but its client has gone
	if _, _, ok := h.Next(at(time.Second)); ok {
		t.Fatal("it was direct's turn")
	}
	due, ok := h.Due()
	if !ok || due != time.Second+turn {
		t.Fatalf("Next is due at %v", due)
	}
	if _, d, _ := h.Next(at(due)); d.Verdict != Entered {
		t.Error("the place is still kept")
	}
	check(t, h)
}

// A service at its own limit has no part in what others leave of the house.
func TestNoTurnForTheFull(t *testing.T) {
	resumed := 0
	h := NewHouse(Limits{Max: 2}, nil)
	full := h.Gate("full", NewPolicy(Rules{Max: 1}), func() { resumed++ })
	queued := h.Gate("queued", NewPolicy(Rules{MaxPerSource: 100, Queue: Queue{10, time.Hour}}), nil)
	full.Enter()
	holder := queued.Ask(host(1), at(0)).Ticket
	full.Enter()
	queued.Ask(host(2), at(0))
	holder.Release()
	if _, d, _ := h.Next(at(0)); d.Verdict != Entered || resumed != 0 {
		t.Errorf("%v, resumed %d times", d.Verdict, resumed)
	}
	check(t, h)
}

func TestWake(t *testing.T) {
	woken := 0
	h := NewHouse(Limits{}, func() { woken++ })
	g := h.Gate("s", NewPolicy(Rules{Max: 1, MaxPerSource: 5, Queue: Queue{9, time.Minute}}), nil)
	_, tickets := asks(g, 0, 1, 2, 3)
	if woken != 1 { // for the first deadline; the second is no earlier
		t.Errorf("woken %d times by those who wait", woken)
	}
	names := map[Waiter]int{}
	told(t, h, 0, names)
	tickets[0].Release()
	if woken != 2 {
		t.Errorf("woken %d times", woken)
	}
	if told(t, h, 0, names); woken != 2 {
		t.Error("Next has woken its caller")
	}
	g.SetPolicy(NewPolicy(Rules{Max: 2, MaxPerSource: 5, Queue: Queue{9, time.Minute}}), at(0))
	if woken != 3 {
		t.Errorf("woken %d times", woken)
	}
}

func TestLoadAndLimitsFollowAtOnce(t *testing.T) {
	resumed := 0
	h := NewHouse(Limits{Max: 1, MaxLoad: 2}, nil)
	g := h.Gate("s", NewPolicy(Rules{MaxPerSource: 9, Queue: Queue{9, time.Minute}}), nil)
	direct := h.Gate("d", NewPolicy(Rules{}), func() { resumed++ })
	asks(g, 0, 1, 2)
	direct.Enter()
	h.SetLoad(2)
	h.SetLimits(Limits{Max: 5, MaxLoad: 2}, at(0))
	expect(t, "too much load", told(t, h, 0, map[Waiter]int{}), []string{})
	if resumed != 0 {
		t.Error("resumed under load")
	}
	h.SetLoad(1)
	expect(t, "less load", told(t, h, 0, map[Waiter]int{}), []string{"0 in"})
	if resumed != 1 || !direct.Enter() {
		t.Error("not resumed")
	}
	check(t, h)
}

func TestCount(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{})
	for _, c := range []Client{
		{Addr: netip.MustParseAddr("10.0.0.1")}, {Addr: netip.MustParseAddr("10.0.0.2")},
		{Addr: netip.MustParseAddr("2001:db8::1")}, {Addr: netip.MustParseAddr("2001:db8::2")},
		{Unix: true, UID: 0}, {Unix: true, UID: 7}, {},
	} {
		same := c
		same.GID, same.Groups = 4, []uint32{5}
		if g.Count(c) != 1 || g.Count(same) != 2 {
			t.Errorf("wrong counts of %v", c)
		}
		g.Forget(same)
		if g.Count(c) != 2 {
			t.Errorf("wrong counts of %v", c)
		}
		g.Forget(c)
	}
	if len(g.counts) != 7 {
		t.Errorf("remembered are %v", g.counts)
	}
	for key, n := range g.counts {
		if n != 1 {
			t.Errorf("%v has %d connections", key, n)
		}
	}
	g.Forget(Client{})
	if len(g.counts) != 6 {
		t.Error("who has no connections is remembered")
	}
}

// A service's memory goes with its last connection, apart from what has to be
// remembered.
func TestForgets(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 50, MaxPerSource: 2, Queue: Queue{50, time.Second}})
	var tickets []Ticket
	for i := range 100 {
		if d := g.Ask(host(i), at(0)); d.Verdict == Entered {
			tickets = append(tickets, d.Ticket)
		}
	}
	told(t, h, time.Second, map[Waiter]int{})
	for _, x := range tickets {
		x.Release()
	}
	if len(g.sources) != 0 || g.crowd.len()+g.ready.len()+h.deadlines.len()+h.timers.len()+h.eligible.len() != 0 {
		t.Errorf("%d sources are left", len(g.sources))
	}
	check(t, h)
}

func TestEverythingHasItsWords(t *testing.T) {
	h, g := oneGate(Limits{Max: 1}, Rules{Refuse: true})
	asks(g, 0, 1)
	d := g.Ask(host(2), at(0))
	expect(t, "why", d.Why(), "1 of 1 places are taken")
	h.SetLimits(Limits{}, at(0))
	g.SetPolicy(NewPolicy(Rules{Refuse: true, Access: []Rule{{Spec: mustSpec("10.0.0.0/8"), Deny: true, Text: "10/8"}}}), at(0))
	d = g.Ask(host(2), at(0))
	expect(t, "why", d.Why(), "deny 10/8")
	g.SetPolicy(NewPolicy(Rules{Refuse: true, Restricted: true}), at(0))
	d = g.Ask(host(2), at(0))
	expect(t, "why", d.Why(), "no rule allows this client")
	g.SetPolicy(NewPolicy(Rules{Refuse: true, Rate: newRate(2, time.Second, 1)}), at(0))
	asks(g, 0, 3)
	d = g.Ask(host(2), at(0))
	expect(t, "why", d.Why(), "0 of 1 tokens are left, the next try in 500ms")
	words := map[string]bool{}
	for r := range Reason(NumReasons) {
		words[r.String()] = true
	}
	if len(words) != NumReasons || Reason(NumReasons).String() != "unknown" {
		t.Errorf("%d words for %d reasons", len(words), NumReasons)
	}
	if !slices.Equal([]string{Refused.String(), Entered.String(), Waits.String(), Recovered.String()}, []string{"refused", "entered", "waits", "recovered"}) {
		t.Error("wrong words")
	}
}

// TestWhoCannotWait is refused for what others wait for, and takes nobody's
// place in the queue.
func TestWhoCannotWait(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{Max: 1, Queue: Queue{Length: 2}})
	answers, _ := asks(g, 0, 1, 2, 2)
	expect(t, "who can wait", answers, []string{"in", "waits limit", "waits limit"})
	d := g.Try(host(3), at(0))
	expect(t, "who cannot", answer(d)+", "+d.Why(), "limit, 1 of 1 places are taken")
	expect(t, "waiting", g.Status(at(0)).Waiting, 2)
}

// TestUnseenClient: rules about clients do not keep out whom nobody has seen,
// and all else does.
func TestUnseenClient(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{Restricted: true, Max: 1})
	expect(t, "seen", answer(g.Try(host(1), at(0))), "address")
	d := g.Try(Client{Unseen: true}, at(0))
	expect(t, "unseen", answer(d), "in")
	expect(t, "another", answer(g.Try(Client{Unseen: true}, at(0))), "limit")
}
