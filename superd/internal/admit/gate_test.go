package admit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// doors is a house whose gates note when they are resumed.
type doors struct {
	house   *House
	gates   []*Gate
	resumed []int // how often, by gate
}

func newDoors(houseMax int, max ...int) *doors {
	d := &doors{house: NewHouse(houseMax), resumed: make([]int, len(max))}
	for i, m := range max {
		d.gates = append(d.gates, d.house.Gate(m, func() { d.resumed[i]++ }))
	}
	return d
}

// do plays a script: a letter for each gate, capital to enter, small to leave.
// What the gates answer is + for a place, - for none, and the letters of those
// that are resumed.
func (d *doors) do(script string) string {
	var said strings.Builder
	for _, c := range script {
		before := slices.Clone(d.resumed)
		if i := int(c - 'A'); i >= 0 && i < len(d.gates) {
			said.WriteByte("-+"[number(d.gates[i].Enter())])
		} else {
			d.gates[c-'a'].Leave()
			said.WriteByte('.')
		}
		for i := range d.gates {
			for range d.resumed[i] - before[i] {
				fmt.Fprintf(&said, "%c", 'a'+i)
			}
		}
	}
	return said.String()
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestGate(t *testing.T) {
	for _, c := range []struct {
		name   string
		house  int
		max    []int
		script string
		want   string
	}{
		{"without limits", 0, []int{0}, "AAAAaaaa", "++++...."},
		{"full", 0, []int{2}, "AAAA", "++--"},
		{"a place becomes free", 0, []int{2}, "AAAaA", "++-.a+"},
		{"resumed once for many who found none", 0, []int{1}, "AAAAa", "+---.a"},
		{"not resumed where nobody was turned away", 0, []int{2}, "AAaa", "++.."},
		{"not resumed again", 0, []int{2}, "AAAaa", "++-.a."},
		{"resumed again when turned away again", 0, []int{1}, "AAaAAa", "+-.a+-.a"},
		{"gates are apart", 0, []int{1, 1}, "AABBab", "+-+-.a.b"},
		{"the house is full", 2, []int{0, 0}, "AABBA", "++---"},
		{"a place in the house is for all", 2, []int{0, 0}, "AABAa", "++--.ab"},
		{"one's leaving is the other's place", 1, []int{0, 0}, "ABaBAb", "+-.b+-.a"},
		{"room in the house, none behind the gate", 3, []int{1, 0}, "AABBBbab", "+-++-.b.a."},
		{"room behind the gate, none in the house", 2, []int{2, 2}, "ABABb", "++--.ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := newDoors(c.house, c.max...).do(c.script); got != c.want {
				t.Errorf("%s: got %s, want %s", c.script, got, c.want)
			}
		})
	}
}

func TestLive(t *testing.T) {
	d := newDoors(3, 2, 2)
	d.do("AAABBB")
	if a, b, all := d.gates[0].Live(), d.gates[1].Live(), d.house.Live(); a != 2 || b != 1 || all != 3 {
		t.Errorf("live are %d, %d and %d in all", a, b, all)
	}
}

func TestSources(t *testing.T) {
	g := NewHouse(0).Gate(0, nil)
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for i, c := range []struct {
		source netip.Addr
		want   int
	}{{one, 1}, {one, 2}, {two, 1}, {one, 3}} {
		if got := g.Count(c.source); got != c.want {
			t.Errorf("%d: %s counts %d, want %d", i, c.source, got, c.want)
		}
	}
	for range 3 {
		g.Forget(one)
	}
	if got := g.Count(one); got != 1 {
		t.Errorf("after all have left %s counts %d", one, got)
	}
	g.Forget(one)
	g.Forget(two)
	if len(g.sources) > 0 {
		t.Errorf("%v is kept", g.sources)
	}
}

// A model is what a house should be: numbers, and who is owed a resume.
type model struct {
	house int
	max   []int
	live  []int
	owed  []bool
}

func (m *model) all() (n int) {
	for _, l := range m.live {
		n += l
	}
	return n
}

func (m *model) room(i int) bool {
	return (m.max[i] == 0 || m.live[i] < m.max[i]) && (m.house == 0 || m.all() < m.house)
}

func (m *model) enter(i int) bool {
	if m.room(i) {
		m.live[i]++
		return true
	}
	m.owed[i] = true
	return false
}

// leave returns who is to be resumed: all who are owed it and have room.
func (m *model) leave(i int) (resumed []int) {
	m.live[i]--
	for j := range m.owed {
		if m.owed[j] && m.room(j) {
			m.owed[j] = false
			resumed = append(resumed, j)
		}
	}
	return resumed
}

// Under any order of coming and going no place is lost or doubled, and a gate
// is resumed exactly when that is owed to it.
func TestGateIsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 4)
		m := &model{house: limit.Draw(t, "house"), max: rapid.SliceOfN(limit, 1, 4).Draw(t, "max")}
		m.live, m.owed = make([]int, len(m.max)), make([]bool, len(m.max))
		d := newDoors(m.house, m.max...)
		gate := rapid.IntRange(0, len(m.max)-1)
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				i := gate.Draw(t, "gate")
				if got, want := d.gates[i].Enter(), m.enter(i); got != want {
					t.Fatalf("gate %d: a place is given: %v, should be: %v", i, got, want)
				}
			},
			"leave": func(t *rapid.T) {
				i := gate.Draw(t, "gate")
				if m.live[i] == 0 {
					t.Skip("nobody is there")
				}
				before := slices.Clone(d.resumed)
				want := m.leave(i)
				d.gates[i].Leave()
				for j := range d.gates {
					owed := number(slices.Contains(want, j))
					if got := d.resumed[j] - before[j]; got != owed {
						t.Fatalf("gate %d is resumed %d times, should be: %d", j, got, owed)
					}
				}
			},
			"": func(t *rapid.T) {
				for i, g := range d.gates {
					if g.Live() != m.live[i] {
						t.Fatalf("%d are live behind gate %d, should be: %d", g.Live(), i, m.live[i])
					}
				}
				if d.house.Live() != m.all() {
					t.Fatalf("%d are live, should be: %d", d.house.Live(), m.all())
				}
			},
		})
	})
}

// Whoever waits is resumed, however the goroutines' steps fall.
func TestNobodyWaitsForEver(t *testing.T) {
	const gates, clients = 4, 500
	house := NewHouse(3)
	var all sync.WaitGroup
	var mu sync.Mutex
	live, most := 0, 0
	for i := range gates {
		resumed := make(chan struct{}, clients)
		g := house.Gate(i%3, func() { resumed <- struct{}{} })
		left := make(chan struct{}, clients)
		all.Go(func() {
			for range clients {
				for !g.Enter() {
					<-resumed
				}
				mu.Lock()
				live++
				most = max(most, live)
				mu.Unlock()
				left <- struct{}{}
			}
			close(left)
		})
		all.Go(func() {
			for range left {
				mu.Lock()
				live--
				mu.Unlock()
				g.Leave()
			}
		})
	}
	all.Wait()
	if most > 3 || house.Live() != 0 || len(house.waiting) > 0 {
		t.Errorf("at most %d were live, %d are left, %d wait", most, house.Live(), len(house.waiting))
	}
}
