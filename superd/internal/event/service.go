package event

import (
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// A Conn is the connection that a record speaks of. The caller renders each text once in the life of the
// connection; they are valid during the call only. What is empty is left out.
type Conn struct {
	ID, Peer, Local []byte
	Pid             int
}

// An Exit is how a program ended, and what it used.
type Exit struct {
	Signaled bool
	Status   int            // the exit status, unless Signaled
	Signal   syscall.Signal // what killed it, if Signaled

	Duration, User, System time.Duration
	MaxRSSKB               int64
	BytesIn, BytesOut      int64 // -1: not known, left out

	Call      string // the system call that the sandbox killed it for; "" is left out
	Reason    string // why superd ended it: timeout.session, timeout.idle, drain, stop; "": it ended by itself
	Leftovers int    // how many processes of its group outlived it; 0 is left out
}

func (e *Exit) failed() bool { return e.Signaled || e.Status != 0 }

// A Service records what happens to one service. Every event counts, whatever the level lets through.
type Service struct {
	name   string         // immutable
	log    *Log           // immutable
	logger zerolog.Logger // immutable

	accepted, exited, failed atomic.Uint64
	refused                  [NumReasons]atomic.Uint64
	refusals                 refusals
	usage                    usage
}

// Name is the service's name in the file.
func (s *Service) Name() string { return s.name }

// Listening records that the service can be reached at an address.
func (s *Service) Listening(local string) {
	if e := s.logger.Info(); e != nil {
		stamp(e, s.log.now()).Str(fieldLocal, local).Msg("listening")
	}
}

// Accepted records a connection that has arrived.
func (s *Service) Accepted(c *Conn) {
	s.accepted.Add(1)
	if e := s.logger.Debug(); e != nil {
		s.about(e, c).Msg("accepted")
	}
}

// Started records that a process for the connection's program exists. Where it never becomes the program,
// Refused follows.
func (s *Service) Started(c *Conn) {
	if e := s.logger.Debug(); e != nil {
		s.about(e, c).Msg("started")
	}
}

// Exited records that the connection's program has ended and was reaped.
func (s *Service) Exited(c *Conn, x *Exit) {
	s.exited.Add(1)
	if x.failed() {
		s.failed.Add(1)
	}
	s.usage.exited(x)
	e := s.logger.Info()
	if e == nil {
		return
	}
	e = s.about(e, c)
	if x.Signaled {
		e = e.Str(fieldSignal, signalName(x.Signal))
	} else {
		e = e.Int(fieldStatus, x.Status)
	}
	e = millis(e, fieldDuration, x.Duration)
	e = millis(e, fieldUser, x.User)
	e = millis(e, fieldSystem, x.System)
	e = e.Int64(fieldMaxRSS, x.MaxRSSKB)
	if x.BytesIn >= 0 {
		e = e.Int64(fieldBytesIn, x.BytesIn)
	}
	if x.BytesOut >= 0 {
		e = e.Int64(fieldBytesOut, x.BytesOut)
	}
	if x.Call != "" {
		e = e.Str(fieldCall, x.Call)
	}
	if x.Reason != "" {
		e = e.Str(fieldReason, x.Reason)
	}
	if x.Leftovers > 0 {
		e = e.Int(fieldLeftovers, x.Leftovers)
	}
	e.Msg("exited")
}

// Stderr records a line, without its newline, that the program wrote to its standard error. Cut says that
// the line was longer. The text is a field, never the message: messages are this package's words, and what
// a program writes cannot pose as one.
func (s *Service) Stderr(c *Conn, line []byte, cut bool) {
	s.usage.lines.Add(1)
	e := s.logger.Info()
	if e == nil {
		return
	}
	e = s.about(e, c).Bytes(fieldText, line)
	if cut {
		e = e.Bool(fieldCut, true)
	}
	e.Msg("stderr")
}

// about begins a record of a connection.
func (s *Service) about(e *zerolog.Event, c *Conn) *zerolog.Event {
	return connection(stamp(e, s.log.now()), c)
}

func connection(e *zerolog.Event, c *Conn) *zerolog.Event {
	if len(c.ID) > 0 {
		e = e.Bytes(fieldConn, c.ID)
	}
	if len(c.Peer) > 0 {
		e = e.Bytes(fieldPeer, c.Peer)
	}
	if len(c.Local) > 0 {
		e = e.Bytes(fieldLocal, c.Local)
	}
	if c.Pid != 0 {
		e = e.Int(fieldPid, c.Pid)
	}
	return e
}

// Counts are the counters of a service since the process began. All but Live only grow.
type Counts struct {
	Live     uint64 // accepted, and neither refused nor exited yet
	Accepted uint64
	Exited   uint64
	Failed   uint64 // of those exited: with a status other than 0, or by a signal
	Refused  [NumReasons]uint64
}

// RefusedTotal is the sum over all reasons.
func (c *Counts) RefusedTotal() uint64 {
	var sum uint64
	for _, n := range c.Refused {
		sum += n
	}
	return sum
}

// Counts reads the counters, each by itself: connections come and go meanwhile.
func (s *Service) Counts() Counts {
	c := Counts{
		Failed: s.failed.Load(), // before Exited: Failed never exceeds it
		Exited: s.exited.Load(), // before Accepted, for the same reason
	}
	for i := range c.Refused {
		c.Refused[i] = s.refused[i].Load()
	}
	c.Accepted = s.accepted.Load()
	c.Live = c.Accepted - min(c.Accepted, c.Exited+c.RefusedTotal())
	return c
}
