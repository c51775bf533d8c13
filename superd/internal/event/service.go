package event

import (
	"net/netip"
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
	Dropped   int64  // datagrams that could not be delivered; 0 is left out
}

func (e *Exit) failed() bool { return e.Signaled || e.Status != 0 }

// A Service records what happens to one service. Every event counts, whatever the level lets through.
type Service struct {
	name   string         // immutable
	log    *Log           // immutable
	logger zerolog.Logger // immutable; lets everything through
	stderr zerolog.Logger // immutable; the same for what programs wrote
	level  atomic.Int32   // a zerolog.Level

	accepted, exited, failed, silent atomic.Uint64
	refused                          [NumReasons]atomic.Uint64
	lost, lostStderr                 atomic.Uint64
	undelivered                      [ways]atomic.Uint64
	refusals                         refusals
	share                            share // guarded by log.queue.mu
	usage                            usage
}

// Name is the service's name in the file.
func (s *Service) Name() string { return s.name }

func newService(name string, l *Log) *Service {
	s := &Service{name: name, log: l}
	s.level.Store(l.level.Load())
	s.usage.begin()
	s.logger = zerolog.New(recordLines{s}).With().Str(fieldService, name).Logger()
	s.stderr = s.logger.Output(stderrLines{s})
	return s
}

// RecordLines and stderrLines are a service's ways into the queue.
type (
	recordLines struct{ s *Service }
	stderrLines struct{ s *Service }
)

func (r recordLines) Write(line []byte) (int, error) {
	if !r.s.log.queue.put(line) {
		r.s.lost.Add(1)
	}
	return len(line), nil
}

func (l stderrLines) Write(line []byte) (int, error) {
	if !l.s.log.queue.putStderr(l.s, line) {
		l.s.lost.Add(1)
		l.s.lostStderr.Add(1)
	}
	return len(line), nil
}

// SetLevel sets the least important records of this service that are written: debug, info, warn or error; "" is
// the log's own level. It may be called at any time.
func (s *Service) SetLevel(word string) {
	chosen := s.log.level.Load()
	if word != "" {
		chosen = int32(level(word))
	}
	s.level.Store(chosen)
}

// lets tells that records of a level are written.
func (s *Service) lets(l zerolog.Level) bool { return l >= zerolog.Level(s.level.Load()) }

// AppendPeer appends a client's address as log.address of the file has it, for a Conn's Peer: nothing, where it
// is to be left out. It does not allocate but to make b larger.
func (s *Service) AppendPeer(b []byte, peer netip.AddrPort) []byte {
	return s.log.peer.Load().append(b, peer)
}

// Listening records that the service can be reached at an address.
func (s *Service) Listening(local string) {
	if s.lets(zerolog.InfoLevel) {
		stamp(s.logger.Info(), s.log.now()).Str(fieldLocal, local).Msg("listening")
	}
}

// Accepted records a connection that has arrived.
func (s *Service) Accepted(c *Conn) {
	s.accepted.Add(1)
	if s.lets(zerolog.DebugLevel) {
		s.about(s.logger.Debug(), c).Msg("accepted")
	}
}

// Silent records a client that never sent the byte that its program was to wait for, so that there was
// none. It is no connection that was accepted, as far as the counters go.
func (s *Service) Silent(peer []byte) {
	s.silent.Add(1)
	if s.lets(zerolog.DebugLevel) {
		s.about(s.logger.Debug(), &Conn{Peer: peer}).Msg("silent")
	}
}

// Listed records a client that was told which services can be reached by name, and nothing else. It is no
// connection that was accepted, as far as the counters go.
func (s *Service) Listed(peer []byte) {
	if s.lets(zerolog.DebugLevel) {
		s.about(s.logger.Debug(), &Conn{Peer: peer}).Msg("listed")
	}
}

// A Way is where a datagram goes.
type Way uint8

// The ways.
const (
	ToProgram Way = iota
	ToPeer
	ways
)

// String is the way as a label of metrics has it.
func (w Way) String() string { return [...]string{"in", "out"}[min(w, ToPeer)] }

// Undelivered counts a datagram that was dropped.
func (s *Service) Undelivered(w Way) { s.undelivered[w].Add(1) }

// A Pause is a time in which connections are refused since the service's program keeps failing.
type Pause struct {
	Last   error         // the failure that brought it, in words
	Length time.Duration // until it is tried again
	Again  bool          // that was the trial after a pause
	Narrow bool          // it is only for the source of the connection that failed last
}

// Paused records that a pause begins, c being the connection whose program failed last. Only the first of
// several in a row is a warning.
func (s *Service) Paused(c *Conn, p *Pause) {
	level := zerolog.WarnLevel
	if p.Again {
		level = zerolog.InfoLevel
	}
	if !s.lets(level) {
		return
	}
	e := s.about(s.logger.WithLevel(level), c).AnErr(fieldError, p.Last).Float64(fieldSeconds, p.Length.Seconds())
	if p.Again {
		e = e.Bool(fieldAgain, true)
	}
	if p.Narrow {
		e = e.Bool(fieldSourceOnly, true)
	}
	e.Msg("paused")
}

// Trying records that a pause is over: the program of one connection may show whether it works again.
func (s *Service) Trying(c *Conn) {
	if s.lets(zerolog.DebugLevel) {
		s.about(s.logger.Debug(), c).Msg("trying")
	}
}

// Recovered records that the program of a service that paused works again.
func (s *Service) Recovered() {
	if s.lets(zerolog.InfoLevel) {
		stamp(s.logger.Info(), s.log.now()).Msg("recovered")
	}
}

// Started records that a process for the connection's program exists. Where it never becomes the program,
// Refused follows.
func (s *Service) Started(c *Conn) {
	if s.lets(zerolog.DebugLevel) {
		s.about(s.logger.Debug(), c).Msg("started")
	}
}

// Exited records that the connection's program has ended and was reaped.
func (s *Service) Exited(c *Conn, x *Exit) {
	s.exited.Add(1)
	if x.failed() {
		s.failed.Add(1)
	}
	s.usage.exited(x)
	if !s.lets(zerolog.InfoLevel) {
		return
	}
	e := s.about(s.logger.Info(), c)
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
	if x.Dropped > 0 {
		e = e.Int64(fieldDropped, x.Dropped)
	}
	e.Msg("exited")
}

const messageStderr = "stderr"

// Stderr records a line, without its newline, that the program wrote to its standard error. Cut says that
// the line was longer. The text is a field, never the message: messages are this package's words, and what
// a program writes cannot pose as one.
func (s *Service) Stderr(c *Conn, line []byte, cut bool) {
	s.usage.lines.Add(1)
	if !s.lets(zerolog.InfoLevel) {
		return
	}
	e := s.about(s.stderr.Info(), c).Bytes(fieldText, line)
	if cut {
		e = e.Bool(fieldCut, true)
	}
	e.Msg(messageStderr)
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
	Silent   uint64 // sent nothing while timeout.first_byte waited for it; not accepted
	Refused  [NumReasons]uint64

	// Lines of the log that were to tell of the service and never got there; those that its programs wrote to
	// their standard error, and all together.
	LostStderr, Lost uint64

	Undelivered [ways]uint64 // datagrams, by where they were to go
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
		Failed:     s.failed.Load(), // before Exited: Failed never exceeds it
		Exited:     s.exited.Load(), // before Accepted, for the same reason
		LostStderr: s.lostStderr.Load(),
		Lost:       s.lost.Load(),
	}
	for i := range c.Refused {
		c.Refused[i] = s.refused[i].Load()
	}
	for way := range c.Undelivered {
		c.Undelivered[way] = s.undelivered[way].Load()
	}
	c.Accepted, c.Silent = s.accepted.Load(), s.silent.Load()
	c.Live = c.Accepted - min(c.Accepted, c.Exited+c.RefusedTotal())
	return c
}
