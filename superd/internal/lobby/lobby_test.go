package lobby

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// A caller is a guest with its host, and the other end of its connection.
type caller struct {
	Guest
	name       string
	own, other int
	heard      *[]string // what hosts were told, in order
	onReady    func()
	onLate     func()
}

func (c *caller) Ready(events uint32) {
	*c.heard = append(*c.heard, fmt.Sprintf("%s %#x", c.name, events))
	if c.onReady != nil {
		c.onReady()
	}
}

func (c *caller) Late() {
	*c.heard = append(*c.heard, c.name+" late")
	if c.onLate != nil {
		c.onLate()
	}
}

// A fixture is a lobby, and what its hosts were told.
type fixture struct {
	*Lobby
	testing.TB
	heard []string
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	l, err := New(func(fd int) (int, error) { return fd, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return &fixture{Lobby: l, TB: t}
}

// caller makes one that does not wait yet.
func (f *fixture) caller(name string) *caller {
	f.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		f.Fatal(err)
	}
	c := &caller{name: name, own: ends[0], other: ends[1], heard: &f.heard}
	f.Cleanup(func() {
		unix.Close(c.own)
		unix.Close(c.other)
	})
	return c
}

func (c *caller) says(f *fixture, text string) {
	f.Helper()
	if _, err := unix.Write(c.other, []byte(text)); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) awaits(c *caller, events uint32, due time.Duration) {
	f.Helper()
	if err := f.Await(&c.Guest, c.own, c, events, due); err != nil {
		f.Fatal(err)
	}
}

// expect wants hosts to have been told these things, and no others, since it
// was asked last.
func (f *fixture) expect(want ...string) {
	f.Helper()
	if !slices.Equal(f.heard, want) {
		f.Errorf("the hosts were told %q, not %q", f.heard, want)
	}
	f.heard = nil
}

const edge = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

func TestReady(t *testing.T) {
	f := newFixture(t)
	a, b := f.caller("a"), f.caller("b")
	f.awaits(a, edge, Forever)
	f.awaits(b, unix.EPOLLRDHUP|unix.EPOLLET, Forever)
	f.Greet()
	f.expect()
	a.says(f, "1")
	b.says(f, "1") // which b does not wait for
	f.Greet()
	f.expect("a 0x1")
	f.Greet() // what is there is told once
	f.expect()
	a.says(f, "2")
	f.Greet()
	f.expect("a 0x1")
	unix.Shutdown(b.other, unix.SHUT_WR)
	f.Greet()
	f.expect("b 0x2000")
	unix.Close(a.other)
	f.Greet()
	f.expect("a 0x2011")
	a.other = -1
}

// Each turn has a bounded part of the events; none is lost.
func TestMoreThanAtOnce(t *testing.T) {
	f := newFixture(t)
	n := 2*len(f.events) + 1
	for i := range n {
		c := f.caller(fmt.Sprint(i))
		f.awaits(c, edge, Forever)
		c.says(f, "x")
	}
	f.Greet()
	if len(f.heard) != len(f.events) {
		t.Errorf("%d are told at once", len(f.heard))
	}
	f.Greet()
	f.Greet()
	if slices.Sort(f.heard); len(slices.Compact(f.heard)) != n {
		t.Errorf("of %d, %d are told", n, len(slices.Compact(f.heard)))
	}
}

// What is heard of a guest that was taken out meanwhile is told to nobody, also
// where its place, or its very number, is another's by now.
func TestStaleEvents(t *testing.T) {
	f := newFixture(t)
	list := []*caller{f.caller("a"), f.caller("b"), f.caller("c")}
	late := f.caller("late")
	for _, c := range list {
		f.awaits(c, edge, Forever)
		c.says(f, "x")
		c.onReady = func() { // whoever is told first has the others go
			for _, other := range list {
				if other == c {
					continue
				}
				f.Remove(&other.Guest)
				if late.in {
					continue
				}
				// Its number is another connection's.
				if err := unix.Dup3(late.own, other.own, unix.O_CLOEXEC); err != nil {
					t.Error(err)
				}
				late.own, other.own = other.own, late.own
				f.awaits(late, edge, Forever)
			}
		}
	}
	f.Greet()
	if len(f.heard) != 1 {
		t.Errorf("the hosts were told %q", f.heard)
	}
	f.heard = nil
	late.says(f, "x")
	f.Greet()
	f.expect("late 0x1")
	if f.Len() != 2 {
		t.Errorf("%d are inside", f.Len())
	}
}

// A guest that goes and comes again in one turn is told nothing of before.
func TestAgainInOneTurn(t *testing.T) {
	f := newFixture(t)
	a, b := f.caller("a"), f.caller("b")
	again := func(other *caller) func() {
		return func() {
			f.Remove(&other.Guest)
			f.awaits(other, unix.EPOLLRDHUP|unix.EPOLLET, Forever)
		}
	}
	a.onReady, b.onReady = again(b), again(a)
	for _, c := range []*caller{a, b} {
		f.awaits(c, edge, Forever)
		c.says(f, "x")
	}
	f.Greet()
	if len(f.heard) != 1 {
		t.Errorf("the hosts were told %q", f.heard)
	}
}

// Who waits already waits for something else instead, until another time; what
// is there already is told again.
func TestAwaitAgain(t *testing.T) {
	f := newFixture(t)
	a := f.caller("a")
	a.says(f, "x")
	f.awaits(a, unix.EPOLLRDHUP|unix.EPOLLET, 10)
	f.awaits(a, edge, 20)
	if n := f.Len(); n != 1 {
		t.Errorf("%d are inside", n)
	}
	f.Greet()
	f.expect("a 0x1")
	if left := f.Dismiss(10); left != 10 {
		t.Errorf("there are %d left", left)
	}
	f.expect()
	f.awaits(a, edge, Forever)
	f.Greet()
	f.expect("a 0x1")
	if left := f.Dismiss(1000); left != Forever {
		t.Errorf("there are %d left", left)
	}
	f.expect()
}

func TestDeadlines(t *testing.T) {
	f := newFixture(t)
	due := map[string]time.Duration{"a": 30, "b": 10, "c": Forever, "d": 20, "e": 10}
	callers := map[string]*caller{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		callers[name] = f.caller(name)
		f.awaits(callers[name], edge, due[name])
	}
	f.Remove(&callers["e"].Guest)
	if left := f.Dismiss(9); left != 1 {
		t.Errorf("it is %d until the first", left)
	}
	f.expect()
	callers["b"].onLate = func() { f.awaits(callers["b"], edge, 25) } // who may wait on
	callers["d"].onLate = func() { f.Remove(&callers["a"].Guest) }    // who has another go
	callers["c"].onLate = func() { t.Error("who may wait for ever is late") }
	if left := f.Dismiss(20); left != 5 {
		t.Errorf("it is %d until the next", left)
	}
	f.expect("b late", "d late")
	if n := f.Len(); n != 3 { // who is late is inside until somebody takes it out
		t.Errorf("%d are inside", n)
	}
	callers["b"].onLate = nil
	if left := f.Dismiss(1 << 60); left != Forever {
		t.Errorf("it is %d until nothing", left)
	}
	f.expect("b late")
}

// Who cannot wait is not inside.
func TestAwaitFails(t *testing.T) {
	f := newFixture(t)
	a := f.caller("a")
	if err := f.Await(&a.Guest, -1, a, edge, 10); err == nil || f.Len() != 0 {
		t.Errorf("a closed descriptor is waited for: %v, %d are inside", err, f.Len())
	}
	f.awaits(a, edge, 10)
	b := f.caller("b")
	if err := f.Await(&b.Guest, a.own, b, edge, 10); err == nil {
		t.Error("one descriptor waits for two")
	}
	f.Remove(&b.Guest)
	f.Remove(&b.Guest)
	if f.Len() != 1 || f.Dismiss(10) != Forever {
		t.Errorf("%d are inside", f.Len())
	}
	f.expect("a late")
	a.says(f, "x")
	f.Greet()
	f.expect("a 0x1")
}

// In any order of everything, each guest hears in time and of itself alone.
func TestAnyOrder(t *testing.T) {
	f := newFixture(t)
	var all []*caller
	for i := range 4 {
		all = append(all, f.caller(fmt.Sprint(i)))
	}
	rapid.Check(t, func(r *rapid.T) {
		for _, c := range all {
			f.Remove(&c.Guest)
		}
		due, now := map[*caller]time.Duration{}, time.Duration(0)
		draw := func(r *rapid.T) *caller { return rapid.SampledFrom(all).Draw(r, "who") }
		r.Repeat(map[string]func(*rapid.T){
			"await": func(r *rapid.T) {
				c := draw(r)
				due[c] = rapid.SampledFrom([]time.Duration{now, now + 1, now + 5, Forever}).Draw(r, "due")
				f.awaits(c, edge, due[c])
			},
			"remove": func(r *rapid.T) {
				c := draw(r)
				f.Remove(&c.Guest)
				delete(due, c)
			},
			"time": func(r *rapid.T) {
				now += time.Duration(rapid.IntRange(0, 6).Draw(r, "time"))
				var late []string
				next := Forever
				for _, c := range slices.SortedFunc(maps.Keys(due), func(a, b *caller) int { return cmp.Compare(due[a], due[b]) }) {
					if due[c] <= now {
						late = append(late, c.name+" late")
						due[c] = Forever
					} else if due[c] < Forever {
						next = min(next, due[c]-now)
					}
				}
				f.heard = nil
				if left := f.Dismiss(now); left != next {
					r.Fatalf("it is %d until the next, not %d", left, next)
				}
				slices.Sort(late)
				slices.Sort(f.heard)
				if !slices.Equal(f.heard, late) {
					r.Fatalf("the hosts were told %q, not %q", f.heard, late)
				}
			},
			"": func(r *rapid.T) {
				if f.Len() != len(due) {
					r.Fatalf("%d are inside, not %d", f.Len(), len(due))
				}
			},
		})
	})
}
