package admit

import (
	"testing"
	"time"
)

var failures = Failures{After: 3, Within: 10 * time.Second, Pause: 30 * time.Second}

// run lets a program for a host start and end at once.
func run(g *Gate, n int, e End, now time.Duration) (got string, changes []Change) {
	d := g.Ask(host(n), at(now))
	if d.Change != NoChange {
		changes = append(changes, d.Change)
	}
	if c := d.Ticket.Ended(e, at(now)); c != NoChange {
		changes = append(changes, c)
	}
	d.Ticket.Release()
	return answer(d), changes
}

var (
	execError = End{Kind: ExecError}
	undone    = End{Undone, time.Millisecond}
	badEnd    = End{Failed, time.Millisecond}
	goodEnd   = End{Succeeded, time.Millisecond}
)

// A step is a program that starts and ends, and what is said then.
type step struct {
	at   time.Duration
	host int
	end  End
	want string
}

func TestFailing(t *testing.T) {
	const s = time.Second
	for _, x := range []struct {
		name  string
		steps []step
	}{
		{"errors of exec", []step{
			{0, 1, execError, "in []"}, {1 * s, 1, execError, "in []"}, {2 * s, 2, execError, "in [paused]"},
			{3 * s, 3, execError, "failing []"}, {31 * s, 3, goodEnd, "failing []"},
			{32 * s, 3, execError, "in [trying paused again]"}, {61 * s, 3, goodEnd, "failing []"},
			{62 * s, 3, goodEnd, "in [trying recovered]"}, {63 * s, 3, execError, "in []"}, {63 * s, 3, execError, "in []"},
		}},
		{"not within the time", []step{{0, 1, execError, "in []"}, {1 * s, 1, execError, "in []"}, {11 * s, 1, execError, "in []"}, {11 * s, 1, goodEnd, "in []"}}},
		{"quick failures of several", []step{{0, 1, badEnd, "in []"}, {0, 2, badEnd, "in []"}, {0, 1, badEnd, "in [paused]"}, {0, 3, goodEnd, "failing []"}}},
		{"not in a row", []step{{0, 1, badEnd, "in []"}, {0, 2, badEnd, "in []"}, {0, 3, goodEnd, "in []"}, {0, 1, badEnd, "in []"}, {0, 3, badEnd, "in []"}}},
		{"not quick", []step{{0, 1, badEnd, "in []"}, {0, 2, badEnd, "in []"}, {0, 3, End{Failed, quick}, "in []"}, {0, 1, badEnd, "in []"}, {0, 3, badEnd, "in []"}}},
		{"quick successes", []step{{0, 1, goodEnd, "in []"}, {0, 1, goodEnd, "in []"}, {0, 1, goodEnd, "in []"}, {0, 1, goodEnd, "in []"}}},
		{"work undone", []step{
			{0, 1, undone, "in []"}, {0, 1, undone, "in []"}, {0, 1, undone, "in [paused]"}, {1 * s, 2, goodEnd, "failing []"},
			{30 * s, 1, undone, "in [trying paused again]"}, {60 * s, 1, goodEnd, "in [trying recovered]"},
		}},
		{"some work done", []step{{0, 1, undone, "in []"}, {0, 1, undone, "in []"}, {0, 1, goodEnd, "in []"}, {0, 1, undone, "in []"}, {0, 1, undone, "in []"}}},
		{"work undone, not quickly", []step{{0, 1, undone, "in []"}, {0, 1, undone, "in []"}, {0, 1, End{Undone, quick}, "in []"}, {0, 1, undone, "in []"}, {0, 1, undone, "in []"}}},
		{"undone or failed", []step{{0, 1, undone, "in []"}, {0, 1, badEnd, "in []"}, {0, 1, undone, "in []"}, {0, 1, badEnd, "in []"}, {0, 1, undone, "in [paused]"}}},
		{"the kinds are counted apart", []step{{0, 1, execError, "in []"}, {0, 1, execError, "in []"}, {0, 1, badEnd, "in []"}, {0, 1, badEnd, "in []"}, {0, 1, execError, "in []"}}},
		{"one source makes it fail for itself only", []step{
			{0, 1, badEnd, "in []"}, {0, 1, badEnd, "in []"}, {0, 1, badEnd, "in [paused]"},
			{0, 1, badEnd, "failing []"}, {0, 2, goodEnd, "in []"}, {0, 2, badEnd, "in []"},
			{29 * s, 1, badEnd, "failing []"}, {30 * s, 1, badEnd, "in [trying paused again]"}, {30 * s, 2, goodEnd, "in []"},
			{60 * s, 1, goodEnd, "in [trying recovered]"},
		}},
		{"until it fails for others as often", []step{
			{0, 1, badEnd, "in []"}, {0, 1, badEnd, "in []"}, {0, 1, badEnd, "in [paused]"},
			{5 * s, 2, badEnd, "in []"}, {5 * s, 2, badEnd, "in []"}, {5 * s, 2, badEnd, "in [paused]"},
			{6 * s, 3, badEnd, "failing []"}, {35 * s, 3, goodEnd, "in [trying recovered]"}, {35 * s, 1, goodEnd, "in []"},
		}},
		{"or cannot be executed", []step{
			{0, 1, badEnd, "in []"}, {0, 1, badEnd, "in []"}, {0, 1, badEnd, "in [paused]"},
			{5 * s, 2, execError, "in []"}, {5 * s, 2, execError, "in []"}, {5 * s, 2, execError, "in [paused]"}, {6 * s, 3, goodEnd, "failing []"},
		}},
	} {
		h, g := oneGate(Limits{}, Rules{Failures: failures})
		for i, step := range x.steps {
			got, changes := run(g, step.host, step.end, step.at)
			if text := got + " " + textOf(changes); text != step.want {
				t.Errorf("%s, step %d: %s, want %s", x.name, i, text, step.want)
			}
		}
		check(t, h)
	}
}

func textOf(changes []Change) string {
	text := "["
	for i, c := range changes {
		if i > 0 {
			text += " "
		}
		text += c.String()
	}
	return text + "]"
}

func fail(g *Gate, now time.Duration) {
	for range failures.After {
		run(g, 1, execError, now)
	}
}

func TestOneTrial(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Failures: failures, Queue: Queue{5, time.Minute}})
	fail(g, 0)
	if s := g.Status(at(10 * time.Second)); s.State != "failing" || s.Left != 20*time.Second || s.Ends.ExecErrors != 3 {
		t.Errorf("status: %+v", s)
	}
	got, trial := asks(g, 30*time.Second, 1, 2)
	expect(t, "one at a time", got, []string{"in", "failing"})
	expect(t, "status", g.Status(at(30*time.Second)).State, "trying")
	trial[0].Release() // without an end: it told nothing
	got, trial = asks(g, 30*time.Second, 3, 4)
	expect(t, "the next", got, []string{"in", "failing"})
	d := g.Ask(host(5), at(31*time.Second))
	if answer(d) != "in" || d.Change != Recovered {
		t.Errorf("a trial that lives: %s, %v", answer(d), d.Change)
	}
	if c := trial[0].Ended(badEnd, at(32*time.Second)); c != NoChange {
		t.Errorf("the trial is over, and then: %v", c)
	}
	check(t, h)
}

func TestTrialNeedsRoom(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{Max: 1, Failures: failures, Queue: Queue{5, time.Minute}})
	_, tickets := asks(g, 0, 1)
	for range failures.After {
		tickets[0].Ended(execError, at(0))
	}
	if x := g.Explain(host(2), at(30*time.Second)); x.Verdict != Refused || x.Reason != ReasonFailing {
		t.Errorf("explained: %v, %v", x.Verdict, x.Reason)
	}
	got, _ := asks(g, 30*time.Second, 2)
	expect(t, "no room for a trial", got, []string{"failing"})
	tickets[0].Release()
	got, _ = asks(g, 30*time.Second, 2)
	expect(t, "room", got, []string{"in"})
}

func TestFailingEndsTheWait(t *testing.T) {
	h, g := oneGate(Limits{}, Rules{Max: 3, Failures: failures, Queue: Queue{5, time.Minute}})
	_, tickets := asks(g, 0, 1, 2, 3, 4)
	for _, x := range tickets[:3] {
		x.Ended(badEnd, at(0))
	}
	tickets[0].Release()
	expect(t, "who waits", told(t, h, 0, map[Waiter]int{}), []string{"0 failing"})
	check(t, h)
}

func TestReloadTriesAgain(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{Failures: failures})
	fail(g, 0)
	g.SetPolicy(NewPolicy(Rules{Failures: failures}), at(1))
	got, _ := asks(g, 1, 1, 2)
	expect(t, "a trial at once", got, []string{"in", "failing"})
	g.SetPolicy(NewPolicy(Rules{}), at(2))
	got, _ = asks(g, 2, 1)
	expect(t, "no failures", got, []string{"in"})
}

// TestStrangersAreNoCulprit: failures of programs that were started for nobody
// in particular say nothing about anybody.
func TestStrangersAreNoCulprit(t *testing.T) {
	_, g := oneGate(Limits{}, Rules{Failures: Failures{After: 2, Within: time.Minute, Pause: time.Minute}})
	for range 2 {
		d := g.Try(Client{Unseen: true}, at(0))
		d.Ticket.Ended(End{Failed, time.Millisecond}, at(0))
		d.Ticket.Release()
	}
	expect(t, "a stranger", answer(g.Try(Client{Unseen: true}, at(0))), "failing")
	expect(t, "another", answer(g.Try(host(1), at(0))), "failing")
	expect(t, "culprit", g.Status(at(0)).Culprit, "")
}
