package admit

import (
	"fmt"
	"testing"
	"time"

	"superd/superd/internal/config"
)

func TestReload(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 1, Queue: Queue{9, time.Minute}})
	_, tickets := asks(g, 0, 1)
	names := map[Waiter]int{}
	for _, n := range []int{2, 2, 3, 4} {
		names[g.Ask(host(n), at(0)).Waiter] = n
	}
	r := Rules{Max: 4, MaxPerSource: 1, Queue: Queue{9, time.Minute}, Access: specs(true, "10.0.0.4")}
	g.SetPolicy(NewPolicy(r), at(0))
	expect(t, "more room, a limit for each, one not allowed any more", told(t, h, 0, names), []string{"4 address", "2 in", "3 in"})
	r.Max = 1
	g.SetPolicy(NewPolicy(r), at(0))
	got, _ := asks(g, 0, 5)
	expect(t, "less room", got, []string{"waits limit"})
	if !tickets[0].Release() || g.Live() != 2 {
		t.Error("a ticket from before is not good any more")
	}
	expect(t, "still no room", told(t, h, 0, names), []string{})
	check(t, h)
}

func TestReloadResumes(t *testing.T) {
	resumed := 0
	h := NewHouse(Limits{}, nil)
	g := h.Gate("s", NewPolicy(Rules{Max: 1}), func() { resumed++ })
	if !g.Enter() || g.Enter() {
		t.Fatal("one place is not one place")
	}
	g.SetPolicy(NewPolicy(Rules{Max: 2}), at(0))
	if resumed != 1 || !g.Enter() {
		t.Errorf("resumed %d times", resumed)
	}
}

// Who waits since before a reload is not forgotten when connections are
// entered after it.
func TestReloadToDirect(t *testing.T) {
	h, g := oneGate(Limits{Max: 2}, Rules{MaxPerSource: 1, Queue: Queue{9, time.Minute}})
	_, tickets := asks(g, 0, 1, 1)
	g.SetPolicy(NewPolicy(Rules{Max: 1, Queue: Queue{9, time.Minute}}), at(0))
	if g.Enter() {
		t.Error("entered a full gate")
	}
	tickets[0].Release()
	expect(t, "who waits", told(t, h, 0, map[Waiter]int{}), []string{"0 in"})
	check(t, h)
}

func TestReloadOfTheRate(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Rate: newRate(1, time.Hour, 1), Queue: Queue{9, time.Hour}})
	asks(g, 0, 1, 2, 3)
	g.SetPolicy(NewPolicy(Rules{Rate: newRate(1, time.Second, 1), Queue: Queue{9, time.Hour}}), at(time.Minute))
	if due, _ := h.Due(); due != time.Minute+time.Second {
		t.Errorf("Next is due at %v", due)
	}
	expect(t, "too early", told(t, h, time.Minute, map[Waiter]int{}), []string{})
	expect(t, "one", told(t, h, time.Minute+time.Second, map[Waiter]int{}), []string{"0 in"})
	expect(t, "and one", told(t, h, time.Minute+2*time.Second, map[Waiter]int{}), []string{"0 in"})
	check(t, h)
}

func TestReloadOfSources(t *testing.T) {
	r := Rules{MaxPerSource: 2, RatePerSource: newRate(1, time.Hour, 4), Queue: Queue{9, time.Minute}}
	h, g := oneGate(Limits{}, r)
	_, tickets := asks(g, 0, 2, 2, 3, 3, 4)
	names := map[Waiter]int{}
	for _, n := range []int{3, 2, 3} {
		names[g.Ask(host(n), at(0)).Waiter] = n
	}
	r.SourcePrefix = Prefixes{31, 64}
	g.SetPolicy(NewPolicy(r), at(0))
	check(t, h)
	for i := range 2 {
		tickets[i].Release()
	}
	expect(t, "2 and 3 are one, and have two still", told(t, h, 0, names), []string{})
	tickets[2].Release()
	expect(t, "one may come", told(t, h, 0, names), []string{"3 in"})
	r.SourcePrefix = Prefixes{32, 64}
	g.SetPolicy(NewPolicy(r), at(0))
	expect(t, "they are two again", told(t, h, 0, names), []string{"2 in"})
	check(t, h)
	for _, x := range tickets {
		x.Release()
	}
	check(t, h)
}

// A service that needs to look at clients from now on knows those who came in
// before.
func TestReloadFromDirect(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{})
	for range 2 {
		g.Enter()
		g.Seat(host(1), at(0))
	}
	g.SetPolicy(NewPolicy(Rules{MaxPerSource: 2, Refuse: true}), at(0))
	got, _ := asks(g, 0, 1, 2)
	expect(t, "one has two", got, []string{"source-limit", "in"})
	check(t, h)
}

func TestClose(t *testing.T) {
	resumed := 0
	h := NewHouse(Limits{Max: 2}, nil)
	g := h.Gate("old", NewPolicy(Rules{Max: 1, MaxPerSource: 1, RatePerSource: newRate(1, time.Hour, 9), Queue: Queue{9, time.Minute}}), func() { resumed++ })
	other := h.Gate("new", NewPolicy(Rules{}), func() { resumed += 10 })
	_, tickets := asks(g, 0, 1, 2)
	other.Enter()
	other.Enter()
	g.Enter()
	g.Close()
	expect(t, "who waits", told(t, h, 0, map[Waiter]int{}), []string{"0 draining"})
	got, _ := asks(g, 0, 1)
	expect(t, "who comes", got, []string{"draining"})
	if h.Live() != 2 {
		t.Errorf("%d live", h.Live())
	}
	tickets[0].Ended(badEnd, at(0))
	tickets[0].Release()
	if h.Live() != 1 || resumed != 10 || len(g.sources) != 0 {
		t.Errorf("%d live, resumed %d, %d sources", h.Live(), resumed, len(g.sources))
	}
	check(t, h)
}

func TestExplain(t *testing.T) {
	day, _ := config.ParseHours("Fri 08:00-18:00", time.UTC)
	h, g := oneGate(Limits{Max: 9}, Rules{
		Access: append(specs(false, "10.0.0.0/8"), specs(true, "10.0.0.9", "11.0.0.0/8")...), Hours: []config.Hours{day},
		Max: 5, MaxPerSource: 1, Rate: newRate(10, time.Second, 20), Queue: Queue{1, time.Minute},
	})
	friday := Moment{0, time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)}
	g.Ask(host(1), friday)
	text := func(n int, now Moment) (list []string) {
		x := g.Explain(host(n), now)
		for _, s := range x.Steps {
			list = append(list, fmt.Sprintf("%s %v: %s", s.Check, s.Passes, s.Text))
		}
		return append(list, fmt.Sprint(x.Verdict, " ", x.Reason, " ", x.Source, " ", len(x.Rules), " ", x.Live))
	}
	g.Count(host(1))
	expect(t, "one who has to wait", text(1, friday), []string{
		"draining true: not draining", "address true: allow 10.0.0.0/8", "hours true: inside Fri 08:00-18:00",
		"banned true: not banned", "failing true: not failing",
		"total-limit true: 1 of 9 places are taken", "limit true: 1 of 5 places are taken", "source-limit false: 1 of 1 places are taken",
		"rate true: 19 of 20 tokens are left", "source-rate true: no limit", "load true: no limit",
		"queue-full true: 0 of 1 wait", "waits source-limit 10.0.0.1 1 1"})
	expect(t, "one who is refused", text(9, Moment{0, friday.Wall.Add(24 * time.Hour)}), []string{
		"draining true: not draining", "address false: deny 10.0.0.9", "hours false: outside Fri 08:00-18:00, open from Fri 2026-01-09 08:00 UTC",
		"banned true: not banned", "failing true: not failing",
		"total-limit true: 1 of 9 places are taken", "limit true: 1 of 5 places are taken", "source-limit true: 0 of 1 places are taken",
		"rate true: 19 of 20 tokens are left", "source-rate true: no limit", "load true: no limit",
		"refused address 10.0.0.9 2 0"})
	check(t, h)
}
