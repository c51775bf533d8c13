package admit

import (
	"slices"
	"time"
)

// Failures say when a service counts as failing: After that many failures
// Within a time, for as long as Pause. The zero Failures are never.
type Failures struct {
	After         int // 1 to MostCounted
	Within, Pause time.Duration
}

// An End is how a program ended, or that it could not be started.
type End struct {
	Kind  EndKind
	Lived time.Duration
}

// EndKind tells failures apart.
type EndKind uint8

// The kinds of ends.
const (
	Succeeded EndKind = iota // it exited with 0
	Failed                   // it exited otherwise, or by a signal that superd did not send
	ExecError                // it could not be executed: never the client's fault
	Undone                   // it exited with 0, and has left what it was started for: nor is this
)

// quick is how soon a program has to end for it to say something about the
// service. One that lived longer has come up.
const quick = time.Second

// Ends counts what became of a service's programs.
type Ends struct{ ExecErrors, QuickFailures, QuickSuccesses, QuickUndone uint64 }

// A Change is a turn in the state of a failing service. Each is told once, by
// whichever call brought it about.
type Change uint8

// The changes.
const (
	NoChange    Change = iota
	Paused             // it began to fail: no program is started for a while
	PausedAgain        // the trial failed too
	Trying             // the pause is over: one connection may try
	Recovered          // the trial succeeded
)

// String is the change in a word.
func (c Change) String() string {
	return [...]string{"", "paused", "paused again", "trying", "recovered"}[min(c, Recovered)]
}

// failing watches over one service. It is healthy, paused until a time, or has
// a trial under way.
//
// A client may be able to make a program fail. So that it cannot switch the
// service off for others, a pause for failures that came all from one source
// holds for that source, until the programs of others fail as often.
type failing struct {
	state   failingState
	until   time.Duration // the end of the pause
	culprit Source        // if narrow
	narrow  bool          // the pause is for culprit only
	trial   *place
	tried   time.Duration // when the trial came in

	execs    []time.Duration // errors in a row, oldest first
	undone   []time.Duration // quick ends in a row that left their work
	failures []failure       // quick failures in a row, oldest first
	ends     Ends
}

type failure struct {
	at   time.Duration
	from Source
}

type failingState uint8

const (
	healthy failingState = iota
	paused
	trying
)

// concerns tells whether the state is about that source.
func (f *failing) concerns(key Source) bool {
	return f.state != healthy && (!f.narrow || f.culprit == key)
}

// admits tells whether a program may be started for a source, and whether it
// would be the trial.
func (f *failing) admits(key Source, now time.Duration) (ok, trial bool) {
	switch {
	case !f.concerns(key):
		return true, false
	case f.state == paused:
		return now >= f.until, now >= f.until
	}
	return now-f.tried >= quick, false
}

// ripen lets a trial that has lived long enough be a success.
func (f *failing) ripen(now time.Duration) Change {
	if f.state != trying || now-f.tried < quick {
		return NoChange
	}
	return f.recover()
}

func (f *failing) recover() Change {
	f.state, f.trial, f.narrow = healthy, nil, false
	f.forget()
	return Recovered
}

// forget ends all rows.
func (f *failing) forget() {
	f.execs, f.undone, f.failures = f.execs[:0], f.undone[:0], f.failures[:0]
}

// try makes p the trial.
func (f *failing) try(p *place, now time.Duration) Change {
	f.state, f.trial, f.tried = trying, p, now
	return Trying
}

// gone notes that p's place was given back: a trial that told nothing leaves
// its turn to the next.
func (f *failing) gone(p *place, now time.Duration) {
	if f.trial == p {
		f.state, f.trial, f.until = paused, nil, now
	}
}

// ended counts an end, of p's program, and draws the conclusion.
func (f *failing) ended(p *place, e End, r Failures, now time.Duration) Change {
	f.count(e)
	bad := e.Kind == ExecError || e.Kind != Succeeded && e.Lived < quick
	switch {
	case r.After == 0:
		return NoChange
	case f.trial == p && bad:
		return f.pause(PausedAgain, r, now)
	case f.trial == p:
		return f.recover()
	case f.concerns(p.source.key): // it began before the pause, and says nothing new
		return NoChange
	case !bad:
		f.forget()
		return NoChange
	case e.Kind == ExecError:
		return f.row(&f.execs, r, now)
	case e.Kind == Undone:
		f.execs = f.execs[:0]
		return f.row(&f.undone, r, now)
	}
	return f.quickFailure(p.source.key, r, now)
}

func (f *failing) count(e End) {
	switch {
	case e.Kind == ExecError:
		f.ends.ExecErrors++
	case e.Lived >= quick:
	case e.Kind == Failed:
		f.ends.QuickFailures++
	case e.Kind == Undone:
		f.ends.QuickUndone++
	default:
		f.ends.QuickSuccesses++
	}
}

// row adds to one of the rows that no client is to blame for.
func (f *failing) row(times *[]time.Duration, r Failures, now time.Duration) Change {
	*times = append(recent(*times, now-r.Within), now)
	if len(*times) < r.After {
		return NoChange
	}
	f.narrow = false
	return f.pause(Paused, r, now)
}

// quickFailure also ends a row of exec errors: the program was executed.
func (f *failing) quickFailure(key Source, r Failures, now time.Duration) Change {
	f.execs = f.execs[:0]
	old := slices.IndexFunc(f.failures, func(x failure) bool { return x.at >= now-r.Within })
	if old < 0 {
		old = len(f.failures)
	}
	f.failures = append(slices.Delete(f.failures, 0, old), failure{now, key})
	if len(f.failures) < r.After {
		return NoChange
	}
	f.narrow = f.state == healthy && key.kind != strangers && !slices.ContainsFunc(f.failures, func(x failure) bool { return x.from != key })
	f.culprit = key
	return f.pause(Paused, r, now)
}

func (f *failing) pause(c Change, r Failures, now time.Duration) Change {
	f.state, f.trial, f.until = paused, nil, now+r.Pause
	f.forget()
	return c
}
