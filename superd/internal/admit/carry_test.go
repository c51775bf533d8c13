package admit

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"superd/superd/internal/config"
)

// sorted has what has no order in one.
func sorted(c Carried) Carried {
	for i := range c.Gates {
		g := &c.Gates[i]
		slices.SortFunc(g.Sources, func(a, b CarriedSource) int { return slices.Compare(a.Key[:], b.Key[:]) })
		slices.SortFunc(g.Suspects, func(a, b CarriedSuspect) int { return slices.Compare(a.Key[:], b.Key[:]) })
		slices.SortFunc(g.Bans, func(a, b CarriedBan) int { return cmp.Compare(a.Whom.String(), b.Whom.String()) })
	}
	slices.SortFunc(c.Blocks, func(a, b CarriedBan) int { return cmp.Compare(a.Whom.String(), b.Whom.String()) })
	return c
}

func remembered(h *House) Carried {
	c, release := h.Hold()
	release()
	return sorted(c)
}

// What a house remembers is the same after it was carried, and decides alike.
func TestCarry(t *testing.T) {
	rules := Rules{Max: 3, MaxPerSource: 2, Refuse: true, SourcePrefix: UsualPrefixes,
		Rate: config.Rate{Count: 100, Per: time.Hour, Burst: 100}, RatePerSource: config.Rate{Count: 2, Per: time.Hour, Burst: 4},
		Ban:      Penalty{After: 3, Within: time.Hour, For: time.Hour},
		Failures: Failures{After: 2, Within: time.Hour, Pause: time.Minute}}
	house := func() (*House, *Gate) {
		h := NewHouse(Limits{}, nil)
		return h, h.Gate("a", NewPolicy(rules), func() {})
	}
	at := func(s int) Moment { return Moment{Since: time.Duration(s) * time.Second} }
	client := func(n byte) Client { return Client{Addr: netip.AddrFrom4([4]byte{10, 0, 0, n})} }
	h, g := house()
	one, two := g.Ask(client(1), at(1)), g.Ask(client(1), at(2))
	if one.Verdict != Entered || two.Verdict != Entered {
		t.Fatalf("%+v, %+v", one, two)
	}
	g.Ask(client(1), at(3)) // refused, and a suspect
	for range 3 {
		g.Refused(client(2), ReasonProxy, at(4)) // banned
	}
	for range 2 { // failing
		d := g.Ask(client(3), at(5))
		d.Ticket.Ended(End{Kind: Failed}, at(5))
		d.Ticket.Release()
	}
	if err := h.Block(config.Network(netip.MustParsePrefix("192.0.2.0/24")), 0, at(6)); err != nil {
		t.Fatal(err)
	}
	before := remembered(h)
	heir, gate := house()
	for _, d := range []Decision{one, two} {
		if ticket := gate.Readmit(client(1), d.Ticket.Trial()); !ticket.Release() {
			t.Error("the ticket is none")
		}
		gate.Readmit(client(1), d.Ticket.Trial())
	}
	heir.Resume(before.Blocks, at(7))
	gate.Resume(&before.Gates[0], at(7))
	if after := remembered(heir); !reflect.DeepEqual(before, after) {
		t.Errorf("it was\n%+v\nand is\n%+v", before, after)
	}
	if was, is := g.Status(at(8)), gate.Status(at(8)); was != is || is.Live != 2 {
		t.Errorf("it was %+v, and is %+v", was, is)
	}
	for n := byte(1); n < 5; n++ {
		was, is := g.Ask(client(n), at(9)), gate.Ask(client(n), at(9))
		if was.Verdict != is.Verdict || was.Reason != is.Reason || was.Left != is.Left {
			t.Errorf("client %d was %v %v %v and is %v %v %v", n, was.Verdict, was.Reason, was.Left, is.Verdict, is.Reason, is.Left)
		}
	}
}

// A trial that is under way goes on, and tells what it has to tell.
func TestCarriedTrial(t *testing.T) {
	rules := Rules{SourcePrefix: UsualPrefixes, Failures: Failures{After: 1, Within: time.Hour, Pause: time.Second}}
	at := func(ms int) Moment { return Moment{Since: time.Duration(ms) * time.Millisecond} }
	c := Client{Addr: netip.MustParseAddr("10.0.0.1")}
	for _, test := range []struct {
		trial bool
		kind  EndKind
		want  Change
	}{{true, Succeeded, Recovered}, {true, Failed, PausedAgain}, {false, Succeeded, NoChange}} {
		h := NewHouse(Limits{}, nil)
		g := h.Gate("a", NewPolicy(rules), func() {})
		d := g.Ask(c, at(0))
		d.Ticket.Ended(End{Kind: ExecError}, at(1))
		d.Ticket.Release()
		trial := g.Ask(c, at(2000))
		if !trial.Ticket.Trial() || d.Ticket.Trial() {
			t.Fatal("the trial is another")
		}
		carried := remembered(h)
		heir := NewHouse(Limits{}, nil)
		gate := heir.Gate("a", NewPolicy(rules), func() {})
		ticket := gate.Readmit(c, test.trial)
		gate.Resume(&carried.Gates[0], at(2001))
		if got := ticket.Ended(End{Kind: test.kind}, at(2002)); got != test.want {
			t.Errorf("%+v: the change is %v", test, got)
		}
	}
}

// Who waits again has waited since before.
func TestCarriedWaiter(t *testing.T) {
	rules := Rules{Max: 1, SourcePrefix: UsualPrefixes, Queue: Queue{Length: 3, Timeout: 10 * time.Second}}
	at := func(s int) Moment { return Moment{Since: time.Duration(s) * time.Second} }
	h := NewHouse(Limits{}, nil)
	g := h.Gate("a", NewPolicy(rules), func() {})
	c := Client{Addr: netip.MustParseAddr("10.0.0.1")}
	g.Readmit(c, false)
	d := g.Ask(c, at(8))
	if d.Verdict != Waits {
		t.Fatalf("%+v", d)
	}
	d.Waiter.Since(at(1).Since)
	if due, some := h.Due(); !some || due != at(11).Since {
		t.Errorf("it is over at %v", due)
	}
	if _, told, some := h.Next(at(11)); !some || told.Reason != ReasonQueueTimeout || told.Left != 10*time.Second {
		t.Errorf("it is told %+v", told)
	}
	d.Waiter.Since(at(2).Since) // too late, and nothing happens
}
