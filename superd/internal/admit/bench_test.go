package admit

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"superd/superd/internal/config"
)

// measure reports allocations and the time that the thread really had, which
// on a busy machine is the figure to go by.
func measure(b *testing.B) (done func()) {
	b.ReportAllocs()
	runtime.LockOSThread()
	before := threadTime(b)
	return func() {
		b.ReportMetric(float64(threadTime(b)-before)/float64(b.N), "cpu-ns/op")
		runtime.UnlockOSThread()
	}
}

func threadTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	const thread = 1 // RUSAGE_THREAD
	if err := syscall.Getrusage(thread, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// many is how many rules and live sources the benchmarks have.
const many = 100_000

func randomAddr(r *rand.Rand) netip.Addr {
	n := r.Uint32()
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// manyRules allow networks of all lengths, v4 and v6, with a denial in ten.
func manyRules(n int) (rules []Rule) {
	r := rand.New(rand.NewPCG(1, 2))
	rules = append(rules, Rule{Spec: mustSpec("0.0.0.0/0")}, Rule{Spec: mustSpec("::/0")})
	for len(rules) < n {
		p := netip.PrefixFrom(randomAddr(r), 8+r.IntN(25))
		if r.IntN(4) == 0 {
			b := p.Addr().As4()
			p = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, b[0], b[1], b[2], b[3], byte(r.Uint32())}), 32+r.IntN(40))
		}
		rules = append(rules, Rule{Spec: config.Network(p), Deny: r.IntN(10) == 0})
	}
	return rules
}

func BenchmarkAccess(b *testing.B) {
	a := newAccess(true, manyRules(many), quota{})
	r := rand.New(rand.NewPCG(3, 4))
	var clients [4096]Client
	for i := range clients {
		clients[i] = Client{Addr: randomAddr(r)}
	}
	i := 0
	defer measure(b)()
	for b.Loop() {
		a.of(&clients[i%len(clients)], nil)
		i++
	}
}

func BenchmarkEnterLeave(b *testing.B) {
	g := NewHouse(Limits{Max: 10_000}, nil).Gate("a", NewPolicy(Rules{Max: 100}), nil)
	defer measure(b)()
	for b.Loop() {
		g.Enter()
		g.Leave()
	}
}

func BenchmarkEnterSeatRelease(b *testing.B) {
	g := NewHouse(Limits{Max: 10_000}, nil).Gate("a", NewPolicy(Rules{Max: 100}), nil)
	benchAsk(b, 1, 1<<32-1, func(c Client, now Moment) Decision {
		g.Enter()
		return g.Seat(c, now)
	})
}

func BenchmarkAskNoRules(b *testing.B) {
	g := NewHouse(Limits{}, nil).Gate("a", NewPolicy(Rules{}), nil)
	benchAsk(b, 1, 1<<32-1, g.Ask)
}

// everything has all rules on, and lets nearly everybody in.
func everything(rules []Rule) Rules {
	week, _ := config.ParseHours("Mon-Sun", time.UTC)
	return Rules{
		Restricted: true, Access: rules, Hours: []config.Hours{week}, Max: 1 << 30, MaxPerSource: 1000,
		Rate: newRate(1_000_000, time.Second, 1_000_000), RatePerSource: newRate(1000, time.Second, 1000), MaxLoad: 50,
		Queue: Queue{100, 10 * time.Second}, Ban: Penalty{20, time.Minute, time.Minute},
		Failures: Failures{5, time.Second, time.Minute}, Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")},
	}
}

// BenchmarkAskAllRules has 100,000 rules and as many connections: of as many
// sources, each of which comes for the first time, or of 30,000.
func BenchmarkAskAllRules(b *testing.B) {
	p := NewPolicy(everything(manyRules(many)))
	for name, sources := range map[string]uint32{"new": 1<<32 - 1, "known": 30_000} {
		b.Run(name, func(b *testing.B) {
			h := NewHouse(Limits{Max: 1 << 30, MaxLoad: 50}, nil)
			h.Block(config.Network(netip.MustParsePrefix("192.0.2.0/24")), time.Hour, Moment{})
			benchAsk(b, many, sources, h.Gate("a", p, nil).Ask)
		})
	}
}

func BenchmarkAskRefusedAddress(b *testing.B) {
	g := NewHouse(Limits{}, nil).Gate("a", NewPolicy(Rules{Restricted: true, Ban: Penalty{1000, time.Minute, time.Minute}}), nil)
	benchAsk(b, 1, 30_000, g.Ask)
}

// benchAsk asks for clients of some sources, and releases another ticket for
// each that it gets, so that as many are live as are wanted.
func benchAsk(b *testing.B, live int, sources uint32, ask func(Client, Moment) Decision) {
	r := rand.New(rand.NewPCG(5, 6))
	client := func() Client {
		n := r.Uint32N(sources) * 0x9E3779B1 // all over the addresses
		return Client{Addr: netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})}
	}
	now := Moment{Wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	tickets := make([]Ticket, live)
	for i := range tickets {
		now.Since += time.Millisecond
		tickets[i] = ask(client(), now).Ticket
	}
	i := 0
	defer measure(b)()
	for b.Loop() {
		now.Since += 10 * time.Microsecond
		if d := ask(client(), now); d.Verdict == Entered {
			tickets[i].Release()
			tickets[i] = d.Ticket
			i = (i + 1) % len(tickets)
		}
	}
}

// BenchmarkQueue has 10,000 waiters of 5,000 sources, each waiting for another's place.
func BenchmarkQueue(b *testing.B) {
	h := NewHouse(Limits{}, nil)
	g := h.Gate("a", NewPolicy(Rules{Max: 1000, MaxPerSource: 10, RatePerSource: newRate(1_000_000, time.Second, 1_000_000), Queue: Queue{10_000, time.Hour}}), nil)
	var now Moment
	var tickets []Ticket
	client := func(i int) Client {
		return Client{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i % 5000 >> 8), byte(i % 5000)})}
	}
	for i := range 11_000 {
		if d := g.Ask(client(i), now); d.Verdict == Entered {
			tickets = append(tickets, d.Ticket)
		}
	}
	i := 0
	defer measure(b)()
	for b.Loop() {
		now.Since += 10 * time.Microsecond
		tickets[i%len(tickets)].Release()
		_, d, _ := h.Next(now)
		tickets[i%len(tickets)] = d.Ticket
		g.Ask(client(i), now)
		i++
	}
}

// BenchmarkFloodOfSources is an attacker with a new address for each
// connection, each leaving a bucket behind.
func BenchmarkFloodOfSources(b *testing.B) {
	g := NewHouse(Limits{}, nil).Gate("a", NewPolicy(Rules{RatePerSource: newRate(5, time.Hour, 5), Ban: Penalty{20, time.Minute, time.Minute}}), nil)
	r := rand.New(rand.NewPCG(5, 6))
	var now Moment
	defer measure(b)()
	for b.Loop() {
		now.Since += 10 * time.Microsecond
		g.Ask(Client{Addr: randomAddr(r)}, now).Ticket.Release()
	}
}

func mustSpec(text string) config.Spec {
	s, _, err := config.ParseSpec(text)
	if err != nil {
		panic(err)
	}
	return s
}
