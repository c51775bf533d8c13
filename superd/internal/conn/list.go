package conn

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// A Selection is some of the connections: those that have all that is given.
type Selection struct {
	ID      string
	Service string
	Source  netip.Prefix // the zero value is everywhere
	OfUser  bool         // they are clients of unix sockets, and UID is theirs
	UID     uint32
}

func (s *Selection) has(r *record) bool {
	return (s.ID == "" || s.ID == string(r.who.ID)) &&
		(s.Service == "" || s.Service == r.service.Events.Name()) &&
		(!s.Source.IsValid() || s.Source.Contains(r.visitor.Peer.Remote.Addr().WithZone(""))) &&
		(!s.OfUser || isOf(&r.visitor.Peer, s.UID))
}

func isOf(p *peer.Peer, uid uint32) bool { return p.Kind == peer.Unix && !p.Listening && p.UID == uid }

// A Live is a connection that has a program, as it was when it was looked at.
// What is not known is negative: numbers of the kernel where superd keeps no
// duplicate of a TCP connection.
type Live struct {
	ID, Service, Peer, Local string

	PID               int
	State             string // running; stopping: it was told to end; ended: what it left behind is being dealt with
	Age, Idle         time.Duration
	BytesIn, BytesOut int64
	RoundTrip         time.Duration
}

// List is the connections that are live. Each that lives from the beginning of
// the call to its end is there, once. Watch looks at a few of them at a time
// and goes on with its work between: there may be many.
func (t *Table) List(s Selection) (list []Live) {
	t.each(&s, func(r *record) { list = append(list, t.look(r)) })
	return list
}

// Kill ends the programs of connections as Stop does, each within its
// service's stop time, and returns how many there were.
func (t *Table) Kill(s Selection, reason string) (killed int) {
	t.each(&s, func(r *record) {
		killed++
		if r.state == running {
			t.stop(r, reason)
		}
	})
	return killed
}

// atATime is how many connections Watch looks at before others have a turn:
// about 100 microseconds.
const atATime = 64

// each has Watch call do for all connections of s that have a program.
func (t *Table) each(s *Selection, do func(*record)) {
	for from, left := 0, true; left; from += atATime {
		answered := t.ask(func() {
			var some []*record
			some, left = t.some(from)
			for _, r := range some {
				if r.state != draining && s.has(r) {
					do(r)
				}
			}
		})
		if !answered {
			return
		}
	}
}

// some are the records that are watched, of those with places from on; more
// tells whether there are further places.
func (t *Table) some(from int) (list []*record, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := min(from+atATime, len(t.slots))
	for _, r := range t.slots[min(from, to):to] {
		if r.watched {
			list = append(list, r)
		}
	}
	return list, to < len(t.slots)
}

// ask has Watch run f and waits for it; false where Watch has ended.
func (t *Table) ask(f func()) bool {
	answer := make(chan struct{})
	t.order(func() { f(); close(answer) })
	select {
	case <-answer:
		return true
	case <-t.done:
		return false
	}
}

// Answers tells whether Watch does its work, given that much time to show it.
func (t *Table) Answers(within time.Duration) bool {
	answer := make(chan struct{})
	t.order(func() { close(answer) })
	patience := time.NewTimer(within)
	defer patience.Stop()
	select {
	case <-answer:
		return true
	case <-patience.C:
	case <-t.done:
	}
	return false
}

// Has tells whether a process is a program of the table's that has not been
// reaped, or may be one: Watch has ended.
func (t *Table) Has(pid int) bool {
	found := false
	answered := t.ask(func() {
		for _, r := range t.watched() {
			found = found || r.child.PID == pid && !r.reaped()
		}
	})
	return found || !answered
}

func (r *record) reaped() bool {
	return r.state == leftovers || r.state == untold || r.state == settling || r.state == draining
}

// stateWords are the states of a connection that has a program, in words.
var stateWords = [...]string{
	running: "running", stopping: "stopping", killed: "stopping",
	unreaped: "ended", leftovers: "ended", untold: "ended", settling: "ended",
}

// look says how a connection is now.
func (t *Table) look(r *record) Live {
	l := Live{
		ID: string(r.who.ID), Service: r.service.Events.Name(), Peer: string(r.visitor.Peer.AppendRemote(nil)), Local: string(r.who.Local),
		PID: r.child.PID, State: stateWords[r.state], Age: time.Since(r.started),
		Idle: -1, BytesIn: -1, BytesOut: -1, RoundTrip: -1,
	}
	if relay := r.visitor.Relay; relay != nil {
		l.BytesIn, l.BytesOut, l.Idle = relay.Moved()
		l.Idle = min(l.Idle, l.Age)
		return l
	}
	if !t.lookAtTCP(r) {
		return l
	}
	l.Idle = idleTime(&t.info)
	l.RoundTrip = time.Duration(t.info.Rtt) * time.Microsecond
	l.BytesIn, l.BytesOut = t.bytesMoved(r)
	if known := t.lookAtMPTCP(r); known > 0 {
		l.Idle = t.idleTimeOfPaths(known)
		l.BytesIn, l.BytesOut = t.bytesOfPaths(r, known)
	}
	l.Idle = min(l.Idle, l.Age) // its clock is coarser
	if l.BytesIn >= 0 {
		l.BytesIn -= int64(r.visitor.Taken)
	}
	return l
}

// idleTime is how long no byte has moved, in either direction.
func idleTime(info *unix.TCPInfo) time.Duration {
	return time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond
}
