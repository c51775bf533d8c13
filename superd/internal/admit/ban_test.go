package admit

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"superd/superd/internal/config"
)

func TestBan(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{MaxPerSource: 1, Refuse: true, Ban: Penalty{3, time.Minute, 10 * time.Minute}})
	asks(g, 0, 1)
	got, _ := asks(g, 0, 1)
	expect(t, "the first", got, []string{"source-limit"})
	got, _ = asks(g, 61*time.Second, 1, 1)
	expect(t, "the first is too long ago", got, []string{"source-limit", "source-limit"})
	got, _ = asks(g, 121*time.Second, 1, 1, 2)
	expect(t, "three within a minute, the ends included", got, []string{"source-limit", "banned", "in"})
	d := g.Ask(host(1), at(122*time.Second))
	expect(t, "why", d.Why(), "banned for another 9m59s")
	if list := h.Bans(at(121 * time.Second)); len(list) != 1 || list[0] != (Ban{"s", mustSpec("10.0.0.1"), 10 * time.Minute}) {
		t.Errorf("bans: %v", list)
	}
	check(t, h)
	got, _ = asks(g, 721*time.Second, 1)
	expect(t, "the end", got, []string{"source-limit"})
	if list := h.Bans(at(721 * time.Second)); len(list) != 0 {
		t.Errorf("bans: %v", list)
	}
	check(t, h)
}

func TestNobodyIsBannedForOthers(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 1, Refuse: true, Ban: Penalty{1, time.Minute, time.Minute}})
	asks(g, 0, 1)
	got, _ := asks(g, 0, 2, 2)
	expect(t, "no room", got, []string{"limit", "limit"})
	for r := range Reason(NumReasons) {
		if !r.blames() {
			g.Refused(host(3), r, at(0))
		}
	}
	if list := h.Bans(at(0)); len(list) != 0 {
		t.Errorf("bans: %v", list)
	}
	g.Refused(host(3), ReasonProxy, at(0))
	if list := h.Bans(at(0)); len(list) != 1 {
		t.Errorf("bans: %v", list)
	}
}

func TestBanByPrograms(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{Ban: Penalty{2, time.Minute, time.Minute}})
	_, tickets := asks(g, 0, 1, 1, 1, 1)
	for _, k := range []EndKind{Succeeded, ExecError, Failed, Failed} {
		got, _ := asks(g, 0, 1)
		expect(t, "before", got, []string{"in"})
		tickets[0].Ended(End{k, time.Hour}, at(0))
		tickets = tickets[1:]
	}
	got, _ := asks(g, 0, 1)
	expect(t, "two failed", got, []string{"banned"})
}

func TestBanEndsTheWait(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{MaxPerSource: 1, Queue: Queue{2, time.Minute}, Ban: Penalty{1, time.Minute, time.Minute}})
	asks(g, 0, 1)
	names := map[Waiter]int{}
	for i := range 2 {
		names[g.Ask(host(1), at(0)).Waiter] = i
	}
	g.Ask(host(1), at(0)) // too many wait, all for the limit of their source
	expect(t, "the others", told(t, h, 0, names), []string{"0 banned", "1 banned"})
	check(t, h)
}

func TestTrustedProxiesAreNeverBanned(t *testing.T) {
	r := Rules{Restricted: true, Trusted: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/128")}, Ban: Penalty{1, time.Minute, time.Minute}}
	h, g := oneGate(Limits{}, r)
	proxy, neighbour := addressClient("2001:db8::1"), addressClient("2001:db8::2")
	for _, want := range []string{"address", "address"} {
		expect(t, "the proxy", answer(g.Ask(proxy, at(0))), want)
	}
	g.Refused(proxy, ReasonProxy, at(0))
	r.Restricted = false
	g.SetPolicy(NewPolicy(r), at(0))
	g.Ask(proxy, at(0)).Ticket.Ended(badEnd, at(0))
	r.Restricted = true
	g.SetPolicy(NewPolicy(r), at(0))
	if len(h.Bans(at(0))) != 0 {
		t.Error("a proxy is banned")
	}
	g.Ask(neighbour, at(0)) // bans their /64
	r.Restricted = false
	g.SetPolicy(NewPolicy(r), at(0))
	expect(t, "the neighbour", answer(g.Ask(neighbour, at(0))), "banned")
	expect(t, "the proxy", answer(g.Ask(proxy, at(0))), "in")
	if err := h.Block(config.Network(netip.MustParsePrefix("2001:db8::/32")), time.Minute, at(0)); err != nil {
		t.Fatal(err)
	}
	expect(t, "the proxy in a block", answer(g.Ask(proxy, at(0))), "in")
	r.Max, r.Queue = 1, Queue{1, time.Minute}
	g.SetPolicy(NewPolicy(r), at(0))
	expect(t, "the proxy", answer(g.Ask(proxy, at(0))), "waits limit")
	if err := h.Block(config.Network(netip.MustParsePrefix("::/0")), time.Minute, at(0)); err != nil {
		t.Fatal(err)
	}
	expect(t, "the proxy in another block", told(t, h, 0, map[Waiter]int{}), []string{})
	if !g.Trusts(proxy.Addr) || g.Trusts(neighbour.Addr) {
		t.Error("wrong trust")
	}
}

func TestBlock(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 2, Queue: Queue{5, time.Hour}})
	block := func(p string, length, now time.Duration) {
		t.Helper()
		if err := h.Block(config.Network(netip.MustParsePrefix(p)), length, at(now)); err != nil {
			t.Fatal(err)
		}
	}
	asks(g, 0, 1, 200, 2, 201)
	block("10.0.0.128/25", time.Hour, 0)
	expect(t, "who waits", told(t, h, 0, map[Waiter]int{}), []string{"0 banned"})
	got, _ := asks(g, 0, 200, 3)
	expect(t, "who comes", got, []string{"banned", "waits limit"})
	block("::ffff:10.0.0.0/120", 0, 0)
	block("10.0.0.3/32", time.Minute, 0)
	block("10.0.0.128/25", 2*time.Hour, 0)
	got, _ = asks(g, time.Hour, 200, 3)
	expect(t, "an inner block has ended, the outer one never does", got, []string{"banned", "banned"})
	if list := h.Bans(at(time.Hour)); len(list) != 2 || list[0].Left+list[1].Left != time.Hour {
		t.Errorf("blocks: %v", list)
	}
	for p, want := range map[string]string{"10.0.0.200/32": "10.0.0.128/25", "10.0.0.3/32": "10.0.0.0/24", "10.0.0.0/24": "10.0.0.0/24",
		"10.0.1.3/32": "nobody", "10.0.0.0/8": "nobody"} {
		if around, found := h.Around(config.Network(netip.MustParsePrefix(p)), at(time.Hour)); around.String() != want || found != (want != "nobody") {
			t.Errorf("around %s there is a block of %s", p, around)
		}
	}
	if n := h.Unblock(config.Network(netip.MustParsePrefix("10.0.0.0/8"))); n != 2 || len(h.Bans(at(0))) != 0 {
		t.Errorf("%d lifted", n)
	}
	if n := h.Unblock(config.Spec{}); n != 0 {
		t.Errorf("%d lifted", n)
	}
	if err := h.Block(config.Spec{}, 0, at(0)); err == nil {
		t.Error("blocked nobody")
	}
	for i := range mostBlocks {
		block(netip.PrefixFrom(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 32).String(), time.Minute, 2*time.Hour)
	}
	err := h.Block(config.Network(netip.MustParsePrefix("12.0.0.0/8")), time.Minute, at(2*time.Hour))
	if err == nil || !strings.Contains(err.Error(), "10000 networks are blocked already") {
		t.Errorf("one too many: %v", err)
	}
	check(t, h)
}

func TestUnblockLiftsBans(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Restricted: true, Ban: Penalty{1, time.Minute, time.Hour}})
	asks(g, 0, 1, 2)
	if around, found := h.Around(config.Network(netip.MustParsePrefix("10.0.0.2/32")), at(0)); !found || around.String() != "10.0.0.2" {
		t.Errorf("there is a ban of %s", around)
	}
	if n := h.Unblock(config.Network(netip.MustParsePrefix("10.0.0.1/32"))); n != 1 || len(h.Bans(at(0))) != 1 {
		t.Errorf("%d lifted", n)
	}
	check(t, h)
}

func TestBanOfUsersAndStrangers(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Restricted: true, Ban: Penalty{1, time.Minute, time.Hour}})
	g.Ask(Client{Unix: true, UID: 7}, at(0))
	g.Ask(Client{}, at(0))
	g.SetPolicy(NewPolicy(Rules{Ban: Penalty{1, time.Minute, time.Hour}}), at(0))
	expect(t, "the user", answer(g.Ask(Client{Unix: true, UID: 7}, at(0))), "banned")
	expect(t, "another", answer(g.Ask(Client{Unix: true, UID: 8}, at(0))), "in")
	expect(t, "a stranger", answer(g.Ask(Client{}, at(0))), "banned")
	expect(t, "the end", answer(g.Ask(Client{Unix: true, UID: 7}, at(time.Hour))), "in")
	expect(t, "the end", answer(g.Ask(Client{}, at(time.Hour))), "in")
	check(t, h)
}

// Whatever an attacker with any number of addresses does, memory is bounded,
// and who is over his rate, or has much against him, stays so.
func TestFloodOfSources(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{RatePerSource: newRate(3, time.Hour, 3), Refuse: true, Ban: Penalty{4, time.Hour, time.Hour}})
	h.Gate("other", NewPolicy(Rules{}), nil)
	h.mostKept = [memories]int{idleSources: 100, suspects: 50, banned: 10}
	over, suspected := host(1), host(2)
	for _, c := range []Client{over, over, over, suspected} {
		g.Ask(c, at(0)).Ticket.Release()
	}
	for range 3 {
		g.Refused(suspected, ReasonProxy, at(0))
	}
	for i := range 10_000 {
		c := Client{Addr: netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})}
		now := at(time.Duration(i) * time.Millisecond)
		g.Ask(c, now).Ticket.Release()
		g.Refused(c, ReasonProxy, now)
		if i%1000 == 0 {
			check(t, h)
		}
	}
	if len(g.sources) > 101 {
		t.Errorf("%d sources are known", len(g.sources))
	}
	expect(t, "who is over his rate", answer(g.Ask(over, at(20*time.Second))), "source-rate")
	g.Refused(suspected, ReasonProxy, at(20*time.Second))
	expect(t, "who had three refusals of four", answer(g.Ask(suspected, at(20*time.Second))), "banned")
	for i := range 1000 {
		c := Client{Addr: netip.AddrFrom4([4]byte{12, 0, byte(i >> 8), byte(i)})}
		for range 4 {
			g.Refused(c, ReasonProxy, at(21*time.Second+time.Duration(i)))
		}
	}
	check(t, h)
	if n := len(h.Bans(at(22 * time.Second))); n != 10 {
		t.Errorf("%d bans", n)
	}
}

// One service under attack leaves the others their share.
func TestMemoryIsShared(t *testing.T) {
	h := NewHouse(Limits{}, nil)
	p := NewPolicy(Rules{RatePerSource: newRate(1, time.Hour, 1), Refuse: true})
	quiet, attacked := h.Gate("quiet", p, nil), h.Gate("attacked", p, nil)
	h.mostKept[idleSources] = 100
	for i := range 100 {
		quiet.Ask(host(i), at(0)).Ticket.Release()
	}
	for i := range 1000 {
		attacked.Ask(Client{Addr: netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})}, at(0)).Ticket.Release()
	}
	if n := quiet.keeps(idleSources); n < 50 {
		t.Errorf("the other service keeps %d", n)
	}
	check(t, h)
	attacked.Close()
	attacked.Close()
	if h.kept[idleSources] != quiet.keeps(idleSources) {
		t.Error("a closed gate keeps something")
	}
	check(t, h)
}

func TestSuspectsAreForgotten(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Restricted: true, Ban: Penalty{3, time.Second, time.Second}})
	for i := range 5000 {
		g.Ask(Client{Addr: netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})}, at(time.Duration(i)*10*time.Millisecond))
	}
	if n := len(g.suspects.known); n > 100+2*levels {
		t.Errorf("%d suspects are known, of 100 in a second", n)
	}
	check(t, h)
}
