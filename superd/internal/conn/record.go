package conn

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/event"
	"superd/superd/internal/spawn"
)

// A record is one connection. Start fills it; once handed over, only Watch
// touches it, but for the first group, which the table's lock guards.
type record struct {
	slot    uint32 // its place in the table, for good
	use     uint32 // counts the connections that had this place
	due     int64  // the table's time at which to look at it; never where notDue
	heap    int    // its place among the deadlines, -1 for none
	watched bool   // handed over, and not given back yet

	state   state
	service *Service
	visitor *Visitor // lent, until report
	who     event.Conn
	child   spawn.Child
	kept    int // the duplicate of the connection; -1 for none
	stderr  int // the read end of descriptor 2's pipe; -1 for none
	started time.Time
	idleAt  int64 // when to ask the kernel about idleness next; 0 is never
	motion
	ended  event.Exit
	cause  error // why the program could not be started
	alone  bool  // processes outlived the program and keep the connection
	passed bool  // what it wrote has been passed on
	killAt int64 // when KILL comes, once TERM was sent
	passes int   // in which nobody of its group was seen, though there may be somebody
	asked  int   // how often it was asked in vain which system call has killed it
	text   lineCutter
}

// state is where a connection is in its life.
type state uint8

const (
	running   state = iota // its program runs
	stopping               // TERM was sent; KILL comes at the deadline
	killed                 // KILL was sent
	unreaped               // ended, but a debugger has to see it first
	leftovers              // ended; processes of its group are being ended
	untold                 // ended; the kernel has not said yet for which system call
	settling               // ended; what it wrote is being passed on
	draining               // ended; the client's input is drained until it closes
)

func newRecord(slot uint32) *record { return &record{slot: slot, heap: -1} }

// begin sets r up for one connection.
func (r *record) begin(s *Service, v *Visitor) {
	r.state, r.service, r.visitor, r.who = running, s, v, v.who
	r.child, r.kept, r.stderr = spawn.Child{PIDFD: -1}, -1, -1
	r.started = time.Now()
	r.ended, r.cause, r.alone, r.passed, r.killAt, r.passes, r.asked = event.Exit{}, nil, false, false, 0, 0, 0
	r.text.reset()
}

// limit is the deadline that r starts with, now being the table's time.
func (r *record) limit(now int64) int64 {
	r.idleAt, r.motion = 0, motion{}
	if r.service.Idle > 0 {
		r.idleAt = later(now, r.untilLook(r.service.Idle))
	}
	return r.nextLimit(now)
}

// nextLimit is the earlier of the session's end and the next look at idleness.
func (r *record) nextLimit(now int64) int64 {
	due := int64(notDue)
	if r.service.Session > 0 {
		due = later(now, r.service.Session-time.Since(r.started))
	}
	if r.idleAt > 0 {
		due = min(due, r.idleAt)
	}
	if r.heedAt > 0 {
		due = min(due, r.heedAt)
	}
	return due
}

// failure is a system call of the parent's that kept a program from starting.
func failure(words string, err error) error {
	errno, _ := err.(unix.Errno)
	return &spawn.Failure{Words: words, Errno: errno}
}

// longestLine is how much of one line of a program's stderr is logged.
const longestLine = 8 << 10

// lineCutter makes lines of what a program writes to its stderr.
type lineCutter struct {
	part     []byte // of a line whose end has not come
	skipping bool   // the rest of a line that was cut
}

func (c *lineCutter) reset() { c.part, c.skipping = c.part[:0], false }

// write calls emit for every line that b completes.
func (c *lineCutter) write(b []byte, emit func(line []byte, cut bool)) {
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		c.add(line, emit)
		if ended {
			c.end(emit)
		}
		b = rest
	}
}

// add takes more of the current line; one that is too long is emitted at once
// and skipped to its end.
func (c *lineCutter) add(b []byte, emit func([]byte, bool)) {
	if c.skipping {
		return
	}
	room := longestLine - len(c.part)
	if len(b) <= room {
		c.part = append(c.part, b...)
		return
	}
	emit(append(c.part, b[:room]...), true)
	c.part, c.skipping = c.part[:0], true
}

// end completes the current line.
func (c *lineCutter) end(emit func([]byte, bool)) {
	if !c.skipping {
		emit(bytes.TrimSuffix(c.part, []byte{'\r'}), false)
	}
	c.reset()
}

// flush emits what a program left without a line's end.
func (c *lineCutter) flush(emit func([]byte, bool)) {
	if len(c.part) > 0 {
		c.end(emit)
	}
	c.reset()
}
