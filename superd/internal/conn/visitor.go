package conn

import (
	"strconv"
	"sync/atomic"
	"time"

	"superd/superd/internal/event"
	"superd/superd/internal/peer"
)

// A Visitor is an accepted connection before its end: who it is, and under
// which name. It belongs to whoever accepted it, but for the time from Start to
// Release, and its memory is used again for the next.
type Visitor struct {
	Peer       peer.Peer
	FromSource int   // live connections of this source and service, for the environment
	Taken      int   // bytes of the client's that its program does not see
	Host       any   // whatever the owner needs to know again at Release
	Relay      Relay // nil where the program has the connection itself

	// Sockets are what the program gets instead of a connection, from
	// descriptor 3 on, and Names what they are called. They stay the owner's.
	Sockets []int
	Names   []string

	record key // of the table, since Start
	who    event.Conn
	names  [3][]byte // memory of who's id, peer and local
}

// A Relay moves what a visitor's program reads and writes, where that is no
// connection of its own but one end of a pair.
type Relay interface {
	// Moved tells how many bytes were given to the program and taken from it
	// so far, and how long ago that was last. Any goroutine may ask.
	Moved() (in, out int64, still time.Duration)
	// Settle is called once, when the program has ended: what it has written
	// is passed on, the pair is given up, and then done is told of all that was.
	// It must not block.
	Settle(done func(Passed))
}

// Passed is what a Relay has moved.
type Passed struct {
	In, Out int64 // bytes
	Dropped int64 // records, both ways
	Idle    bool  // its program's input was ended, since nothing came
}

// Welcome names a visitor whose ends are known, and records it.
func (t *Table) Welcome(s *Service, v *Visitor) {
	v.names[0] = t.ids.appendNext(v.names[0][:0])
	v.names[1] = v.AppendPeer(v.names[1][:0], s)
	v.names[2] = v.Peer.AppendLocal(v.names[2][:0])
	v.who = event.Conn{ID: v.names[0], Peer: v.names[1], Local: v.names[2]}
	s.Events.Accepted(&v.who)
}

// AppendPeer writes the visitor's end as the log of s is to have it.
func (v *Visitor) AppendPeer(b []byte, s *Service) []byte {
	if v.Peer.Kind != peer.Unix && v.Peer.Remote.IsValid() {
		return s.Events.AppendPeer(b, v.Peer.Remote)
	}
	return v.Peer.AppendRemote(b)
}

// Who is the visitor as the log has it, valid until Release.
func (v *Visitor) Who() *event.Conn { return &v.who }

// ids makes the names of connections: the time of superd's start, a hyphen
// and a number, so that a name is not used again after a restart.
type ids struct {
	prefix []byte
	last   atomic.Uint64
}

func newIDs(now time.Time) ids {
	return ids{prefix: append(strconv.AppendInt(nil, now.UnixMilli(), 36), '-')}
}

func (i *ids) appendNext(b []byte) []byte {
	return strconv.AppendUint(append(b, i.prefix...), i.last.Add(1), 10)
}
