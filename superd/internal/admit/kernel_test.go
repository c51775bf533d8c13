package admit

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Two services whose connections wait in the kernel's queue, and one whose
// connections are accepted: whatever happens, nobody waits while there is room
// for him, and nobody comes in where there is none.
func TestKernelQueues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var now time.Duration
		limit := rapid.IntRange(1, 4).Draw(t, "limits.max")
		h := NewHouse(Limits{Max: limit}, nil)
		queued := h.Gate("queued", NewPolicy(Rules{Max: 3, MaxPerSource: 2, Queue: Queue{4, 3 * time.Second}}), nil)
		var direct [2]*Gate
		var blocked [2]bool // since Enter has failed, until resumed
		for i := range direct {
			direct[i] = h.Gate("direct", NewPolicy(Rules{Max: rapid.IntRange(0, 2).Draw(t, "max")}), func() { blocked[i] = false })
		}
		var tickets []Ticket
		entered := [2]int{}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(t, "gate")
				if direct[i].Enter() {
					entered[i]++
					blocked[i] = false
				} else {
					blocked[i] = true
				}
			},
			"leave": func(t *rapid.T) {
				if i := rapid.IntRange(0, 1).Draw(t, "gate"); entered[i] > 0 {
					entered[i]--
					direct[i].Leave()
				}
			},
			"seat": func(t *rapid.T) {
				if i := rapid.IntRange(0, 1).Draw(t, "gate"); entered[i] > 0 {
					entered[i]--
					tickets = append(tickets, direct[i].Seat(host(i), at(now)).Ticket)
				}
			},
			"ask": func(t *rapid.T) {
				if d := queued.Ask(host(rapid.IntRange(0, 3).Draw(t, "host")), at(now)); d.Verdict == Entered {
					tickets = append(tickets, d.Ticket)
				}
			},
			"release": func(t *rapid.T) {
				if len(tickets) > 0 {
					i := rapid.IntRange(0, len(tickets)-1).Draw(t, "ticket")
					tickets[i].Release()
					tickets = append(tickets[:i], tickets[i+1:]...)
				}
			},
			"limit": func(t *rapid.T) {
				limit = rapid.IntRange(1, 4).Draw(t, "limits.max")
				h.SetLimits(Limits{Max: limit}, at(now))
			},
			"time": func(t *rapid.T) {
				now += rapid.SampledFrom([]time.Duration{time.Millisecond, turn, time.Second}).Draw(t, "time")
				for {
					_, d, ok := h.Next(at(now))
					if !ok {
						break
					}
					if d.Verdict == Entered {
						tickets = append(tickets, d.Ticket)
					}
				}
				if due, ok := h.Due(); ok && due <= now {
					t.Fatalf("Next is due at %v, at %v", due, now)
				}
			},
			"": func(t *rapid.T) {
				check(t, h)
				if n := len(tickets) + entered[0] + entered[1]; h.Live() != n+untold(h) {
					t.Fatalf("%d live, want %d", h.Live(), n+untold(h))
				}
				for i, g := range direct {
					if blocked[i] && !h.full() && !g.full() {
						t.Fatalf("service %d is not resumed", i)
					}
				}
			},
		})
		now += time.Second // whoever a place was kept for has not come
		h.Next(at(now))
		now += turn
		h.Next(at(now))
		if h.reserved > 0 || !h.full() && h.eligible.len() > 0 {
			t.Fatalf("a place is kept for ever")
		}
	})
}

// untold are those who have a place that Next has not told.
func untold(h *House) (n int) {
	for w := h.decided.first; w != nil; w = w.next {
		if w.decision.Verdict == Entered {
			n++
		}
	}
	return n
}

// TestParallel is for the race detector.
func TestParallel(t *testing.T) {
	h := NewHouse(Limits{Max: 40}, func() {})
	rules := Rules{MaxPerSource: 3, Max: 20, RatePerSource: newRate(1000, time.Second, 50), Queue: Queue{20, time.Second}, Ban: Penalty{5, time.Second, time.Second}}
	gates := []*Gate{h.Gate("a", NewPolicy(rules), func() {}), h.Gate("b", NewPolicy(Rules{Max: 20}), func() {})}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			var tickets []Ticket
			for n := range 2000 {
				now := at(time.Duration(n) * time.Millisecond)
				if d := gates[0].Ask(host(r.IntN(20)), now); d.Verdict == Entered {
					tickets = append(tickets, d.Ticket)
				} else if r.IntN(3) == 0 {
					d.Waiter.Abandon()
				}
				if gates[1].Enter() {
					tickets = append(tickets, gates[1].Seat(host(r.IntN(20)), now).Ticket)
				}
				if _, d, _ := h.Next(now); d.Verdict == Entered {
					tickets = append(tickets, d.Ticket)
				}
				for len(tickets) > 3 {
					tickets[0].Ended(goodEnd, now)
					tickets[0].Release()
					tickets = tickets[1:]
				}
				switch n % 500 {
				case 100:
					gates[0].SetPolicy(NewPolicy(rules), now)
				case 200:
					h.SetLoad(1)
					gates[1].Status(now)
				case 300:
					gates[0].Explain(host(1), now)
					h.Bans(now)
					h.Due()
				}
			}
			for _, x := range tickets {
				x.Release()
			}
		})
	}
	all.Wait()
	for {
		w, d, ok := h.Next(at(time.Hour))
		if !ok {
			break
		}
		if w.Abandon() {
			t.Fatal("told twice")
		}
		d.Ticket.Release()
	}
	check(t, h)
	if h.Live() != 0 || h.deadlines.len() != 0 {
		t.Errorf("%d live, %d wait at the end", h.Live(), h.deadlines.len())
	}
}
