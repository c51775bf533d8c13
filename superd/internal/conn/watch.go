package conn

import (
	"math"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/event"
	"superd/superd/internal/spawn"
)

// Watch waits for programs to end, for what they write to descriptor 2, for
// deadlines and for orders. It returns after Close.
func (t *Table) Watch() {
	defer close(t.done)
	for !t.closed {
		events := t.poll.wait(t.untilNext())
		t.now = t.sinceBegin()
		for i := range events {
			t.handle(keyOf(&events[i]))
		}
		for r := t.expired(); r != nil; r = t.expired() {
			t.overdue(r)
		}
		t.announceEmpty()
	}
}

func (t *Table) handle(k key) {
	if k.kind == ordered {
		t.obey()
		return
	}
	r := t.find(k)
	if r == nil {
		return
	}
	switch k.kind {
	case processEnded:
		t.reap(r)
	case stderrReadable:
		t.readStderr(r)
	case connectionMoved:
		if r.state == draining {
			t.drain(r)
		} else {
			t.moved(r)
		}
	}
}

// obey runs what others have ordered.
func (t *Table) obey() {
	t.poll.hear()
	t.mu.Lock()
	orders := t.orders
	t.orders = nil
	t.mu.Unlock()
	for _, f := range orders {
		f()
	}
}

// Close ends Watch and frees the table's descriptors. The programs that still
// run are left alone; Stop and Empty come first where that is not wanted.
func (t *Table) Close() {
	t.order(func() { t.closed = true })
	<-t.done
	t.mu.Lock()
	defer t.mu.Unlock()
	t.freed = true
	t.poll.close()
}

// Empty returns a channel that is closed once no connection is left. No more
// may be started.
func (t *Table) Empty() <-chan struct{} {
	c := make(chan struct{})
	t.order(func() { t.emptied = append(t.emptied, c) })
	return c
}

func (t *Table) announceEmpty() {
	if len(t.emptied) == 0 {
		return
	}
	t.mu.Lock()
	empty := t.open == 0
	t.mu.Unlock()
	if !empty {
		return
	}
	for _, c := range t.emptied {
		close(c)
	}
	t.emptied = nil
}

// NoLimit leaves programs all of their service's stop time.
const NoLimit time.Duration = math.MaxInt64

// Stop ends every program: TERM to its process group now, KILL after its
// service's stop time, but not later than limit; nothing lingers longer. The
// records say reason.
func (t *Table) Stop(reason string, limit time.Duration) {
	t.order(func() {
		t.latest = min(t.latest, later(t.now, limit))
		for _, r := range t.watched() {
			t.hurry(r, reason)
		}
	})
}

// watched lists the records of live and lingering connections.
func (t *Table) watched() (list []*record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.slots {
		if r.watched {
			list = append(list, r)
		}
	}
	return list
}

func (t *Table) hurry(r *record, reason string) {
	if r.state == running {
		t.stop(r, reason)
	}
	r.killAt = min(r.killAt, t.latest)
	switch r.state {
	case stopping:
		t.arm(r, r.killAt)
	case untold, draining:
		t.arm(r, min(r.due, t.latest))
	}
}

// overdue does what r's deadline was set for.
func (t *Table) overdue(r *record) {
	switch r.state {
	case running:
		t.checkLimits(r)
	case stopping:
		r.signal(unix.SIGKILL)
		r.state = killed
	case unreaped:
		t.reap(r)
	case leftovers:
		t.pressLeftovers(r)
	case untold:
		t.conclude(r)
	case draining:
		t.finish(r)
	}
}

// The reasons that a record of an ended program can carry, named after the
// keys that ask for them.
const (
	ReasonSession = "timeout.session"
	ReasonIdle    = "timeout.idle"
)

func (t *Table) checkLimits(r *record) {
	if r.service.Session > 0 && time.Since(r.started) >= r.service.Session {
		t.stop(r, ReasonSession)
		return
	}
	if r.heedAt > 0 && t.now >= r.heedAt {
		t.heedAgain(r)
	}
	if r.idleAt > 0 && t.now >= r.idleAt {
		left := r.service.Idle - t.idleness(r)
		if left <= 0 {
			t.stop(r, ReasonIdle)
			return
		}
		r.idleAt = later(t.now, r.untilLook(left))
	}
	t.arm(r, r.nextLimit(t.now))
}

// stop asks r's program to end: TERM, and CONT for one that was stopped; KILL
// follows at the deadline.
func (t *Table) stop(r *record, reason string) {
	r.state, r.ended.Reason = stopping, reason
	r.signal(unix.SIGTERM)
	r.signal(unix.SIGCONT)
	r.killAt = later(t.now, r.service.Stop)
	t.arm(r, r.killAt)
}

// signal sends sig to the program's process group. The group does not exist
// before the child's setsid; the child alone gets it then.
func (r *record) signal(sig unix.Signal) {
	if unix.Kill(-r.child.PID, sig) == unix.ESRCH {
		unix.PidfdSendSignal(r.child.PIDFD, sig, nil, 0)
	}
}

// traced is how soon a process is looked at again that a debugger keeps.
const traced = 100 * time.Millisecond

// reap takes the status of r's program, which has ended, and ends what is left
// of its process group.
func (t *Table) reap(r *record) {
	t.poll.remove(r.child.PIDFD)
	if !r.service.Leave {
		termZombiesGroup(r.child.PID)
	}
	end, err := spawn.Reap(r.child.PIDFD)
	if err == unix.EAGAIN {
		r.state = unreaped
		t.arm(r, t.now+int64(traced))
		return
	}
	t.arm(r, notDue)
	r.note(end)
	r.cause = t.engine.Failure(r.child)
	t.countBytes(r)
	if !groupLives(r.child) {
		t.conclude(r)
		return
	}
	if r.service.Leave {
		r.alone = true
		t.conclude(r)
		return
	}
	t.endLeftovers(r)
}

// note keeps what waitid told.
func (r *record) note(end spawn.End) {
	r.ended.Signaled, r.ended.Status, r.ended.Signal = end.Signaled, end.Status, end.Signal
	r.ended.User, r.ended.System, r.ended.MaxRSSKB = end.User, end.System, end.MaxRSS
	r.ended.Duration = time.Since(r.started)
}

// conclude reports r's end, once it is known which system call its sandbox has
// killed it for, or is not to be expected any more.
func (t *Table) conclude(r *record) {
	if r.ended.Signal == unix.SIGSYS && r.ended.Call == "" {
		call, known := t.witness.Violation(r.child.PID)
		if !known && t.askLater(r) {
			return
		}
		r.ended.Call = call
	}
	t.report(r)
}

// askLater has r's end wait, while others go on: the kernel's record can come a
// moment later than the death.
func (t *Table) askLater(r *record) bool {
	if r.asked == len(spawn.RecordDelays) || t.now >= t.latest || !t.witness.HearsViolations() {
		return false
	}
	r.state = untold
	t.arm(r, min(later(t.now, spawn.RecordDelays[r.asked]), t.latest))
	r.asked++
	return true
}

// report writes the one record of r's end, gives its place back, and lets the
// connection go.
func (t *Table) report(r *record) {
	if r.visitor.Relay != nil && !r.passed {
		t.settle(r)
		return
	}
	t.drainStderr(r)
	if r.cause != nil {
		r.service.Events.Refused(&r.who, event.ReasonSpawn, r.cause)
		r.apologize()
	} else {
		r.service.Events.Exited(&r.who, &r.ended)
	}
	t.closeStderr(r)
	if r.child.PIDFD >= 0 {
		unix.Close(r.child.PIDFD)
		r.child.PIDFD = -1
	}
	t.engine.Release(r.child, r.service.Leave)
	r.service.Release(r.visitor, &r.ended, r.cause)
	r.visitor = nil
	t.linger(r)
}

// settle has all be passed on that r's program wrote, and reports it then.
func (t *Table) settle(r *record) {
	relay := r.visitor.Relay
	r.state, r.passed = settling, true
	t.arm(r, notDue)
	relay.Settle(func(p Passed) {
		t.order(func() {
			r.ended.BytesIn, r.ended.BytesOut, r.ended.Dropped = p.In, p.Out, p.Dropped
			if p.Idle && r.ended.Reason == "" {
				r.ended.Reason = ReasonIdle // the program may have ended before InputEnded was heard
			}
			t.report(r)
		})
	})
}

// InputEnded tells that the program of v, who was started, is given no more to
// read. It has its service's stop time to end by itself.
func (t *Table) InputEnded(v *Visitor) {
	k := v.record
	t.order(func() {
		if r := t.find(k); r != nil && r.state == running {
			r.idleAt = later(t.now, r.service.Stop)
			t.arm(r, r.nextLimit(t.now))
		}
	})
}

// apologize tells the client whose program could not be started so, if the
// service has words for it.
func (r *record) apologize() {
	if text := r.service.Apology; r.kept >= 0 && len(text) > 0 {
		unix.SendmsgN(r.kept, text, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
}

// refuse ends a connection whose program could not be started.
func (t *Table) refuse(r *record, cause error) {
	r.cause = cause
	t.report(r)
}

// lose ends a program that could not be added to the set.
func (t *Table) lose(r *record) {
	r.signal(unix.SIGKILL)
	if end, err := spawn.Wait(r.child.PIDFD); err == nil {
		r.note(end)
	}
	t.engine.Failure(r.child)
	t.refuse(r, failure("watch the program", unix.ENOMEM))
}
