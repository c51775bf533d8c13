package conn

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/event"
	"superd/superd/internal/peer"
	"superd/superd/internal/spawn"
)

// A Carried is a table with which another superd goes on, that takes this one's
// place in the same process. It is plain data, but for the descriptors. Times
// are on the table's own clock, which goes on as well.
type Carried struct {
	Age         time.Duration // of that clock, when this was made
	Prefix      string        // of names
	Last        uint64        // number in a name
	Terms       []Terms
	Connections []Connection
}

// Terms are what connections live by: a Service, as it was when they came.
type Terms struct {
	Name                        string
	Keep, LogStderr, Leave      bool
	Linger, Session, Idle, Stop time.Duration
	Apology                     []byte
}

// A Connection is one record.
type Connection struct {
	Terms             int // its place among those
	State             string
	ID                string
	Peer              peer.Peer
	FromSource, Taken int
	Child             spawn.Carried
	Kept, Stderr      int // -1 for none
	Started           time.Duration
	Due, Idle, Heed   int64
	KillAt            int64
	Ended             event.Exit
	Cause             *spawn.Failure
	Alone             bool
	Part              []byte // of a line of stderr
	Skipping          bool
	visitor           *Visitor
}

// Visitor is whom the connection belongs to, in the process that has carried
// it; nil where that is over and only its last descriptor is open.
func (c *Connection) Visitor() *Visitor { return c.visitor }

// Over tells that the program has ended and was reported: the connection has
// no visitor, and lingers.
func (c *Connection) Over() bool { return c.State == carriedStates[draining] }

// carriedStates are the states in the words of another superd.
var carriedStates = [...]string{
	running: "running", stopping: "stopping", killed: "killed", unreaped: "unreaped",
	leftovers: "leftovers", untold: "untold", settling: "settling", draining: "draining",
}

// Pause has Watch do nothing, once it has done what was ordered before, until
// resume is called; it returns false, with nothing changed, where Watch is not
// that far within a time.
func (t *Table) Pause(within time.Duration) (resume func(), ok bool) {
	paused, again := make(chan struct{}), make(chan struct{})
	t.order(func() {
		close(paused)
		<-again
	})
	patience := time.NewTimer(within)
	defer patience.Stop()
	select {
	case <-paused:
		return func() { close(again) }, true
	case <-t.done:
	case <-patience.C:
	}
	close(again)
	return nil, false
}

// Depart waits until no child is on its way to its program any more, or that
// long: one that is, and fails, can tell another superd nothing of why. Watch
// must pause, and nobody start anything.
func (t *Table) Depart(within time.Duration) {
	until := time.Now().Add(within)
	for _, r := range t.watched() {
		for r.child.Aboard() && time.Now().Before(until) {
			time.Sleep(100 * time.Microsecond)
		}
	}
	for t.engine.Settle() > 0 && time.Now().Before(until) {
		time.Sleep(100 * time.Microsecond)
	}
}

// Carry tells all about the table. Watch must pause.
func (t *Table) Carry() Carried {
	c := Carried{Age: time.Since(t.begin), Prefix: string(t.ids.prefix), Last: t.ids.last.Load()}
	places := map[*Service]int{}
	for _, r := range t.watched() {
		place, known := places[r.service]
		if !known {
			place = len(c.Terms)
			places[r.service] = place
			c.Terms = append(c.Terms, r.service.terms())
		}
		one := t.carry(r)
		one.Terms = place
		c.Connections = append(c.Connections, one)
	}
	return c
}

func (s *Service) terms() Terms {
	return Terms{Name: s.Events.Name(), Keep: s.Keep, LogStderr: s.LogStderr, Leave: s.Leave,
		Linger: s.Linger, Session: s.Session, Idle: s.Idle, Stop: s.Stop, Apology: s.Apology}
}

func (t *Table) carry(r *record) Connection {
	c := Connection{
		State: carriedStates[r.state], Kept: r.kept, Stderr: r.stderr,
		Started: r.started.Sub(t.begin), Due: r.due, Idle: r.idleAt, Heed: r.heedAt, KillAt: r.killAt,
		Ended: r.ended, Alone: r.alone, Part: slices.Clone(r.text.part), Skipping: r.text.skipping, visitor: r.visitor,
	}
	if r.heap < 0 {
		c.Due = notDue
	}
	if r.state == draining {
		return c // who it was is another's memory by now
	}
	c.ID, c.Peer, c.FromSource, c.Taken = string(r.who.ID), r.visitor.Peer, r.visitor.FromSource, r.visitor.Taken
	c.Peer.Extra = nil
	c.Child = t.engine.Carry(&r.child)
	errors.As(r.cause, &c.Cause)
	if r.state == untold {
		if call, known := t.witness.Violation(r.child.PID); known {
			c.Ended.Call = call
			r.ended.Call = call
		}
	}
	return c
}

// Inherit goes on with the clock and the names of another table, whose Carry
// was that long ago. Nothing may have been started, and Watch not run yet.
func (t *Table) Inherit(c *Carried, ago time.Duration) {
	t.begin = time.Now().Add(-c.Age - ago)
	t.ids.prefix = []byte(c.Prefix)
	t.ids.last.Store(c.Last)
}

// Service is the terms, for connections that came by them.
func (t *Terms) Service(events *event.Service, p *spawn.Plan, release func(*Visitor, *event.Exit, error)) *Service {
	return &Service{Events: events, Plan: p, Keep: t.Keep, LogStderr: t.LogStderr, Leave: t.Leave,
		Linger: t.Linger, Session: t.Session, Idle: t.Idle, Stop: t.Stop, Apology: t.Apology, Release: release}
}

// Resume names a visitor of s as another superd has named it.
func (v *Visitor) Resume(id string, s *Service) {
	v.names[0] = append(v.names[0][:0], id...)
	v.names[1] = v.AppendPeer(v.names[1][:0], s)
	v.names[2] = v.Peer.AppendLocal(v.names[2][:0])
	v.who = event.Conn{ID: v.names[0], Peer: v.names[1], Local: v.names[2]}
}

// errLost is why a program is ended with which superd cannot go on.
var errLost = &spawn.Failure{Words: "go on with the program after the upgrade", Errno: unix.EBADF}

// Resume goes on with a connection of another table; the visitor, who has its
// name, is the table's until Release, and nil for one that is Over. The
// descriptors are the table's in any case. Watch must not run yet.
func (t *Table) Resume(c *Connection, s *Service, v *Visitor) {
	r := t.take()
	if v == nil {
		v = &Visitor{}
	}
	r.begin(s, v)
	v.record = key{slot: r.slot, use: r.use}
	r.kept, r.stderr, r.started = c.Kept, c.Stderr, t.begin.Add(c.Started)
	r.idleAt, r.killAt, r.motion = c.Idle, c.KillAt, motion{heedAt: c.Heed}
	r.ended, r.alone = c.Ended, c.Alone
	if c.Cause != nil {
		r.cause = c.Cause
	}
	r.text.part, r.text.skipping = append(r.text.part, c.Part...), c.Skipping
	r.state = state(max(slices.Index(carriedStates[:], c.State), 0))
	t.mu.Lock()
	r.watched = true
	t.mu.Unlock()
	if r.state == draining {
		r.visitor = nil
		t.resumeLingering(r, c.Due)
		return
	}
	r.child = t.engine.Resume(&c.Child, s.Plan)
	r.who.Pid = r.child.PID
	t.resumeProgram(r, c.Due)
}

func (t *Table) resumeLingering(r *record, due int64) {
	t.arm(r, due)
	t.crowd(key{slot: r.slot, use: r.use})
	if t.poll.add(r.kept, key{r.slot, r.use, connectionMoved}) != nil {
		t.arm(r, 0)
	}
}

func (t *Table) resumeProgram(r *record, due int64) {
	t.arm(r, due)
	var err error
	if r.stderr >= 0 && t.poll.add(r.stderr, key{r.slot, r.use, stderrReadable}) != nil {
		unix.Close(r.stderr)
		r.stderr = -1
	}
	if r.state == running && r.heedAt == 0 && r.mustBeHeeded() {
		r.heed()
		t.poll.addFor(motions, r.kept, key{r.slot, r.use, connectionMoved})
	}
	switch r.state {
	case leftovers:
		if due == notDue { // they were being counted
			t.order(func() { t.endLeftovers(r) })
		}
	case untold:
	case settling:
		t.order(func() { t.report(r) })
	default:
		err = t.poll.add(r.child.PIDFD, key{r.slot, r.use, processEnded})
	}
	if err != nil {
		t.order(func() { t.loseCarried(r) })
	}
}

// loseCarried ends a program whose end could not be heard of.
func (t *Table) loseCarried(r *record) {
	r.signal(unix.SIGKILL)
	t.refuse(r, errLost)
}
